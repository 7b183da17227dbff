"""The command line: exit codes, what goes to which stream, and an instant start."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

import pplr_audit
from pplr_audit.audit.extension import Extension
from pplr_audit.cli.listing import KINDS
from pplr_audit.cli.main import app
from pplr_audit.errors import InputError, RunError, visible
from pplr_audit.models.architectures import ARCHITECTURES
from pplr_audit.models.backbones.known_shapes import NAMED
from pplr_audit.runs.progress import Bars, Silent, to
from pplr_audit.scenario.schema import Scenario

COMMANDS = ("run", "train", "attack", "import", "costs", "report", "list", "doctor")
HEAVY = ("torch", "transformers", "sklearn", "scipy", "numpy", "pydantic", "rich", "peft")


@dataclass
class Result:
    directory: Path
    document: dict[str, Any]

    @property
    def report(self) -> Path:
        return self.directory / "report.html"


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A stand-in for the main job: what the command line hands over and what it does with the answer is tested here."""
    module = ModuleType("pplr_audit.pipeline")
    summary = ModuleType("pplr_audit.report.terminal.findings")
    summary.summary_table = lambda document, width: f"table of {document['name']}"  # type: ignore[attr-defined]
    updates = ModuleType("pplr_audit.report.terminal.updates")
    updates.updates_table = lambda document, width: None  # type: ignore[attr-defined]
    for name, stand_in in (
        ("pplr_audit.pipeline", module), ("pplr_audit.report.terminal.findings", summary),
        ("pplr_audit.report.terminal.updates", updates),
    ):  # fmt: skip
        monkeypatch.setitem(sys.modules, name, stand_in)
    monkeypatch.setattr(pplr_audit, "pipeline", module, raising=False)
    return module


def _raising(error: BaseException) -> Callable[..., Any]:
    def run(*_: object) -> None:
        raise error

    return run


def test_a_run_ends_with_the_table_and_the_report_last(audit: ModuleType) -> None:
    calls: list[tuple[Scenario, Path | None]] = []

    def run(scenario: Scenario, out: Path | None, progress: object, *rest: object) -> Result:
        assert isinstance(progress, Silent)
        calls.append((scenario, out))
        print("a library's chatter")
        return Result(Path("/tmp") / ("long" * 60), {"name": scenario.name})

    audit.run = run  # type: ignore[attr-defined]
    result = CliRunner().invoke(app, ["run", "quickstart", "--set", "seed=3", "--set", "data.clients=2", "--out", "x"])
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"table of quickstart\n/tmp/{'long' * 60}/report.html\n"
    assert "chatter" in result.stderr
    (scenario, out), *_ = calls
    assert (scenario.seed, scenario.data.clients, out) == (3, 2, Path("x"))


def test_json_is_all_that_stands_on_standard_output(audit: ModuleType) -> None:
    def run(scenario: Scenario, out: Path | None, progress: object, *rest: object) -> Result:
        print("a library's chatter")
        return Result(Path(), {"name": "ü", "findings": []})

    audit.run = run  # type: ignore[attr-defined]
    result = CliRunner().invoke(app, ["run", "quickstart", "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"name": "ü", "findings": []}


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("mine.csv: no column\x1b[2J"), 2, "mine.csv: no column\\x1b[2J\n"),
        (InputError("one\ntwo"), 2, "one\ntwo\n"),
        (RunError("out/x: cannot be written"), 1, "out/x: cannot be written\n"),
        (KeyboardInterrupt(), 130, "stopped; the same command continues\n"),
        (ZeroDivisionError("0/0"), 1, "internal error: ZeroDivisionError: 0/0 (set PPLR_AUDIT_DEBUG=1 to see where)\n"),
    ],
)
def test_what_goes_wrong_is_one_message_and_an_exit_code(
    audit: ModuleType, error: BaseException, code: int, message: str
) -> None:
    audit.run = _raising(error)  # type: ignore[attr-defined]
    result = CliRunner().invoke(app, ["run", "quickstart"])
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", message)


def test_a_bug_shows_where_it_is_when_asked(audit: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    audit.run = _raising(ZeroDivisionError("0/0"))  # type: ignore[attr-defined]
    monkeypatch.setenv("PPLR_AUDIT_DEBUG", "1")
    assert isinstance(CliRunner().invoke(app, ["run", "quickstart"]).exception, ZeroDivisionError)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "Missing argument"),
        (["run", "quickstart", "--frobnicate"], "No such option"),
        (["list", "attack"], "'attacks', 'defenses', 'scenarios', 'models', 'readers', 'strategies'"),
        (["frobnicate"], "No such command"),
        (["run", "quickstrat"], "quickstrat: no such scenario and no such file; did you mean 'quickstart'?\x20"),
        (["run", "quickstart", "--set", "data.clients=0"], "--set data.clients=0: data.clients: 0 is not accepted"),
        (["run", "ml-100k"], "data.path is required"),
        (["report", "somewhere", "--format", "html,pdf"], "--format: unknown format 'pdf' (accepted: html, md, json"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_why(audit: ModuleType, arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_attack_hands_over_the_run_and_what_it_is_to_be_extended_by(audit: ModuleType) -> None:
    calls: list[tuple[Path, Extension | None]] = []

    def attack(directory: Path, more: Extension | None, progress: object, *rest: object) -> Result:
        calls.append((directory, more))
        print("a library's chatter")
        return Result(directory, {"name": "x"})

    audit.attack = attack  # type: ignore[attr-defined]
    options = ["--attack", "ridge={prompts: 64}", "--attack", "loss", "--cut", "2,1", "--cut", " 0 , 1 "]
    result = CliRunner().invoke(app, ["attack", "a  run", *options])
    assert (result.exit_code, result.stdout) == (0, "table of x\na  run/report.html\n")
    assert json.loads(CliRunner().invoke(app, ["attack", "x", "--json"]).stdout) == {"name": "x"}
    wanted = Extension(attacks=({"ridge": {"prompts": 64}}, "loss"), cuts=((2, 1), (0, 1)))
    assert calls == [(Path("a  run"), wanted), (Path("x"), None)]


def test_report_prints_the_files_it_wrote(audit: ModuleType) -> None:
    def write_report(directory: Path, formats: list[str], redact: bool | None, out: Path | None) -> list[Path]:
        assert (formats, redact, out) == (["md", "json"], True, None)
        return [directory / "report.md", directory / "findings.json"]

    audit.write_report = write_report  # type: ignore[attr-defined]
    result = CliRunner().invoke(app, ["report", "a  b", "--format", "md, json", "--redact"])
    assert result.stdout == "a  b/report.md\na  b/findings.json\n"


def test_the_version_is_the_packages() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"pplr-audit {pplr_audit.__version__}\n"


@pytest.mark.parametrize("kind", KINDS)
def test_list_prints_one_line_each(kind: str) -> None:
    result = CliRunner().invoke(app, ["list", kind])
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines
    assert all(len(line.split("  ", 1)) == 2 for line in lines), "a name and what it is"


def test_list_models_says_which_architectures_are_supported() -> None:
    lines = CliRunner().invoke(app, ["list", "models"]).stdout.splitlines()
    kinds = {"tiny-llama", "minilm", "FOLDER", "ORG/NAME", "type", "not", "shape"}
    assert {line.split()[0] for line in lines} == kinds
    shapes = {line.split()[1] for line in lines if line.startswith("shape ")}
    assert shapes == NAMED.keys()
    types = {line.split()[1]: line for line in lines if line.startswith("type ")}
    assert types.keys() == ARCHITECTURES.keys()
    assert types["gpt2"].endswith("decoder, for bigrec, LoRA on c_attn")
    assert "encoder, for recformer" in types["bert"]
    assert any(line.startswith("not t5") and "position bias" in line for line in lines)


def test_help_and_list_import_nothing_heavy() -> None:
    code = (
        "import sys; from pplr_audit.cli.main import app\n"
        f"calls = [['--help'], *([name, '--help'] for name in {COMMANDS}), *(['list', kind] for kind in {KINDS})]\n"
        "for arguments in calls:\n"
        "    try: app(arguments)\n"
        "    except SystemExit as stop: assert stop.code == 0\n"
        f"heavy = [name for name in {HEAVY} if name in sys.modules]\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_wrong_scenario_is_answered_before_torch_is_imported() -> None:
    code = (
        "import sys; from pplr_audit.cli.main import app\n"
        "try: app(['run', 'quickstart', '--set', 'seed=-1'])\n"
        "except SystemExit as stop: assert stop.code == 2\n"
        "assert 'torch' not in sys.modules\n"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_the_list_of_commands_cuts_no_sentence_off() -> None:
    told = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80"}).stdout
    assert "Commands:" in told
    assert "..." not in told.partition("Commands:")[2]


def test_what_may_be_meant_by_a_wrong_command_is_said_once() -> None:
    done = CliRunner().invoke(app, ["rnu"])
    assert done.exit_code == 2
    assert done.stderr.count("Did you mean 'run'?") == 1


def test_the_module_runs_as_the_command_does() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pplr_audit", "list", "scenarios"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "quickstart" in done.stdout


def test_text_from_others_cannot_act_on_the_terminal() -> None:
    assert visible("a\x1b[31m\r\n\u202eb\u2028") == r"a\x1b[31m\r\n\u202eb\u2028"
    assert visible("Amélie 你好  👩") == "Amélie 你好  👩"


class _Terminal:
    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return True


def test_progress_is_silent_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    progress = to(sys.stderr)
    with progress.phase("train", 3) as advance:
        advance()
        advance(2, note="x")
    assert capsys.readouterr() == ("", "")
    assert isinstance(to(_Terminal()), Bars)  # type: ignore[arg-type]
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(to(_Terminal()), Silent)  # type: ignore[arg-type]


def test_bars_show_phases_within_phases_and_spell_out_what_would_act(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal = _Terminal()
    progress = Bars(terminal)  # type: ignore[arg-type]
    with progress.phase("train"), progress.phase("round [1]", 2) as advance:
        advance(note="client\x07")
        advance()
    assert "client" not in terminal.text.splitlines()[-1], "what has ended has no next step"
    before = len(terminal.text)
    with progress.phase("attack") as advance:
        advance()
    assert "train" not in terminal.text[before:], "what has ended is not drawn again"
    assert "1/1" in terminal.text[before:]
    assert "0/?" not in terminal.text[before:].rpartition("attack")[2]
    assert "round [1]" in terminal.text
    assert "attack" in terminal.text
    assert "\x07" not in terminal.text
