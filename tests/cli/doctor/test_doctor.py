"""The doctor finds what is missing or broken, says how to get it, and survives it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from email.message import Message
from importlib import metadata
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pplr_audit.cli import doctor
from pplr_audit.cli.doctor import Check, Examination, libraries
from pplr_audit.cli.doctor.check import Trial
from pplr_audit.cli.doctor.libraries import extras, needed, plugins
from pplr_audit.cli.doctor.machine import disk, processors
from pplr_audit.cli.doctor.show import show
from pplr_audit.cli.doctor.try_imports import targets, try_imports
from pplr_audit.cli.main import app


def no_bar(n: int = 1, note: str = "") -> None: ...


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules that go wrong in every way a library can."""
    for name, text in {
        "raises": "raise ImportError('libodd.so: cannot open\\nshared object')",
        "leaves": "raise SystemExit(3)",
        "dies": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        "exits": "import os; os._exit(7)",
        "hangs": "import time; time.sleep(60)",
        "talks": 'print(\'{"ended": "hangs", "error": ""}\'); print(\'chatter\')',
    }.items():
        (tmp_path / f"broken_{name}.py").write_text(text)
    # In the place of torch, which these tests need not import.
    (tmp_path / "torch.py").write_text(
        "class cuda:\n    is_available = staticmethod(lambda: True)\n    device_count = staticmethod(lambda: 1)\n"
        "    get_device_name = staticmethod(lambda place: 'A card')\n"
        "    is_bf16_supported = staticmethod(lambda: True)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("broken")
def test_every_import_is_tried_whatever_the_one_before_did_to_its_process() -> None:
    asked = ["json", "broken_raises", "broken_dies", "broken_leaves", "json:dumps", "broken_exits", "json:no.such"]
    trial = try_imports([*asked, "broken_talks", "broken_hangs", "no_such_module", "os"], no_bar, seconds=3)
    assert trial.errors == {
        "json": "",
        "broken_raises": "ImportError: libodd.so: cannot open shared object",
        "broken_dies": "ends the process: SIGSEGV",
        "broken_leaves": "SystemExit: 3",
        "json:dumps": "",
        "broken_exits": "ends the process: exit code 7",
        "json:no.such": "AttributeError: module 'json' has no attribute 'no'",
        "broken_talks": "",
        "broken_hangs": "does not end within 3 s",
        "no_such_module": "ModuleNotFoundError: No module named 'no_such_module'",
        "os": "",
    }
    assert trial.accelerator == {"names": ["A card"], "bfloat16": True}
    found = {check.name: check.found for check in processors(trial)}
    assert found["GPU"].startswith("A card")
    assert found["bfloat16"].startswith("GPU: yes; CPU: ")


def test_a_torch_that_takes_the_process_down_does_not_take_the_doctor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("import os; os._exit(4)")
    monkeypatch.syspath_prepend(tmp_path)
    trial = try_imports(["torch", "json"], no_bar)
    assert trial.errors == {"torch": "ends the process: exit code 4", "json": ""}
    assert trial.accelerator == {"error": "asking torch for it ends the process: exit code 4"}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that needs four libraries, and has one extra of two."""
    needs = ["no-such-library>=2", "numpy>=999", "PyYAML>=1", "scipy; python_version < '3'", "jinja2"]
    wants = ["no-such-extra==1; extra == 'federation'", "psutil>=1; extra == 'federation'", "numpy; extra == 'docs'"]
    monkeypatch.setattr(metadata, "requires", lambda name: [*needs, *wants, "pytest; extra == 'test'"])
    about = Message()
    for extra in ("federation", "docs", "test"):
        about["Provides-Extra"] = extra
    monkeypatch.setattr(metadata, "metadata", lambda name: about)


@pytest.mark.usefixtures("told")
def test_a_library_that_is_missing_too_old_or_broken_is_named_with_the_command_that_mends_it() -> None:
    checks = {check.name: check for check in needed(Trial({"yaml": "OSError: bad magic", "jinja2": ""}))}
    assert list(checks) == ["no-such-library", "numpy", "PyYAML", "jinja2"]
    assert checks["no-such-library"].state == checks["numpy"].state == checks["PyYAML"].state == "failed"
    assert checks["no-such-library"].advice == "pip install 'no-such-library>=2'"
    assert checks["numpy"].found == f"{metadata.version('numpy')}, but >=999 is needed"
    assert "does not import: OSError: bad magic" in checks["PyYAML"].found
    assert checks["PyYAML"].advice == "pip install --force-reinstall 'PyYAML>=1'"
    assert checks["jinja2"].state == "ok"
    assert not Examination(tuple(checks.values())).able


@pytest.mark.usefixtures("told")
def test_a_main_job_that_does_not_import_failed_even_where_every_library_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metadata, "requires", lambda name: ["jinja2"])
    checks = list(needed(Trial({"pplr_audit.pipeline": "ImportError: no name 'x'"})))
    assert [(check.name, check.state) for check in checks] == [("jinja2", "ok"), ("the main job", "failed")]


@pytest.mark.usefixtures("told")
def test_an_extra_that_is_not_there_is_optional_and_says_how_to_get_it() -> None:
    checks = {check.name: check for check in extras()}
    assert set(checks) == {"federation", "docs"}
    assert checks["federation"].state == "optional"
    assert checks["federation"].found.startswith("no-such-extra not installed, psutil ")
    assert checks["federation"].advice == "pip install 'pplr-audit[federation]'"
    assert checks["docs"].state == "ok"
    assert Examination(tuple(checks.values())).able


def test_a_third_partys_plugin_that_does_not_import_is_a_warning_with_its_owner(install: Callable[..., Path]) -> None:
    install("bad-plugin", "1.0", "[pplr_audit.attacks]\nsharp = no_such_module:Sharp\n")
    assert "no_such_module:Sharp" in targets()
    trial = try_imports(["no_such_module:Sharp"], no_bar)
    checks = {check.name: check for check in plugins(trial)}
    bad = checks["attacks: sharp"]
    assert bad.state == "warning"
    assert "no_such_module:Sharp of bad-plugin does not import: ModuleNotFoundError" in bad.found
    assert "pip uninstall bad-plugin" in bad.advice
    assert "sharp" not in checks["attacks"].found
    assert "ridge" in checks["attacks"].found
    assert Examination(tuple(checks.values())).able


def test_a_name_that_two_packages_have_is_refused_with_both(install: Callable[..., Path]) -> None:
    install("rival-plugin", "2.0", "[pplr_audit.attacks]\nridge = no_such_module:Sharp\nblunt = no_such_module:Blunt\n")
    install("other-plugin", "3.0", "[pplr_audit.attacks]\nblunt = other:Blunt\n")
    checks = {check.name: check for check in plugins(Trial({}))}
    assert checks["attacks: ridge"].state == "failed"
    assert "rival-plugin 2.0" in checks["attacks: ridge"].found
    assert "pplr-audit" in checks["attacks: ridge"].found
    assert checks["attacks: ridge"].advice == "pip uninstall rival-plugin"
    assert checks["attacks: blunt"].state == "warning"
    assert not {"ridge", "blunt"} & set(checks["attacks"].found.split(", "))


def test_a_package_whose_entry_points_cannot_be_read_is_a_warning(install: Callable[..., Path]) -> None:
    install("garbled-plugin", "1.0", "[pplr_audit.attacks]\nno equals sign\n")
    checks = {check.name: check for check in plugins(Trial({}))}
    assert checks["garbled-plugin"].state == "warning"
    assert "ridge" in checks["attacks"].found


def test_a_plugin_of_ours_that_does_not_import_failed() -> None:
    (ridge,) = (point for point in metadata.entry_points(group="pplr_audit.attacks") if point.name == "ridge")
    checks = {check.name: check for check in plugins(Trial({ridge.value: "SyntaxError: x"}))}
    assert checks["attacks: ridge"].state == "failed"


def test_a_package_that_is_not_installed_is_said_and_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise metadata.PackageNotFoundError(name)

    for function in ("version", "requires", "metadata"):
        monkeypatch.setattr(metadata, function, absent)
    assert libraries.package().state == "failed"
    assert [check.name for check in needed(Trial())] == ["packaging"]
    assert list(extras()) == []


def test_a_cache_that_cannot_be_written_is_a_warning_and_the_main_job_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PPLR_AUDIT_CACHE", str(tmp_path / "file" / "cache"))
    checks = {check.name: check for check in disk()}
    assert checks["cache"].state == "warning"
    assert "cannot be written: Not a directory" in checks["cache"].found
    assert "PPLR_AUDIT_CACHE" in checks["cache"].advice
    monkeypatch.setenv("PPLR_AUDIT_CACHE", str(tmp_path / "not" / "there" / "yet"))
    checks = {check.name: check for check in disk()}
    assert "free" in checks["cache"].found
    assert not (tmp_path / "not").exists()


SICK = Examination(
    (
        Check("versions", "torch", "failed", "2.0 \x1b[2J", "pip install 'torch>=2.6'"),
        Check("extras", "pdf", "optional", "weasyprint not installed", "pip install 'pplr-audit[pdf]'"),
    )
)


def test_what_failed_gives_exit_code_1_and_what_is_optional_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "examine", lambda progress: SICK)
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 1
    assert done.stdout.splitlines() == [
        "failed    torch  2.0 \\x1b[2J -> pip install 'torch>=2.6'",
        "optional  pdf    weasyprint not installed -> pip install 'pplr-audit[pdf]'",
        "The main job cannot run: torch",
    ]
    told = CliRunner().invoke(app, ["doctor", "--json"])
    assert told.exit_code == 1
    assert json.loads(told.stdout)["able"] is False
    monkeypatch.setattr(doctor, "examine", lambda progress: Examination(SICK.checks[1:]))
    assert CliRunner().invoke(app, ["doctor"]).exit_code == 0


class _Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_table_and_one_whose_table_library_is_broken_gets_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    terminal = _Terminal()
    show(SICK, terminal)
    assert "┃" in terminal.getvalue()
    assert "\\x1b[2J" in terminal.getvalue()
    for name in [*sys.modules, "rich.console"]:
        if name.startswith("rich"):
            monkeypatch.setitem(sys.modules, name, None)  # type: ignore[arg-type]
    terminal = _Terminal()
    show(SICK, terminal)
    assert terminal.getvalue().startswith("failed    torch")


def test_this_installation_can_run_the_main_job_and_the_doctor_says_so_in_one_document() -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pplr_audit", "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    document = json.loads(done.stdout)
    failed = [check for check in document["checks"] if check["state"] == "failed"]
    assert (done.returncode, failed, document["able"]) == (0, [], True)
    names = {(check["group"], check["name"]) for check in document["checks"]}
    assert names >= {("versions", "torch"), ("versions", "python"), ("hardware", "GPU"), ("hardware", "bfloat16")}
    assert names >= {("hardware", "cores"), ("hardware", "memory"), ("disk", "here"), ("disk", "cache")}
    assert ("extras", "minilm") in names


def test_nothing_heavy_is_imported_by_the_doctor_itself() -> None:
    code = (
        "import sys; from pplr_audit.cli.doctor import libraries, machine, try_imports\n"
        "assert not {'torch', 'transformers', 'numpy', 'rich', 'pydantic'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
