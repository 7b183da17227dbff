"""Plugins are found by entry point and described without being imported; broken ones are named."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from pplr_audit import scenario
from pplr_audit.audit.plan import make_plan
from pplr_audit.cli.attack_options import from_options
from pplr_audit.data.load import detected
from pplr_audit.errors import InputError
from pplr_audit.scenario import plugins

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
KINDS: tuple[plugins.Kind, ...] = ("attacks", "defenses", "strategies", "readers")


@pytest.mark.parametrize("kind", KINDS)
def test_every_plugin_of_ours_is_installed_described_and_loads(kind: plugins.Kind) -> None:
    ours = PROJECT["entry-points"][f"pplr_audit.{kind}"]
    assert set(ours) <= set(plugins.names(kind)), "install the package again: pip install -e ."
    for name in ours:
        assert plugins.describe(kind)[name], f"{name}: the first line of the module's docstring describes it"
        assert plugins.load(kind, name).__module__ == ours[name].partition(":")[0]


def test_an_unknown_name_is_answered_with_the_nearest_and_all_known() -> None:
    with pytest.raises(InputError, match=r"strategies: unknown name 'fedavgg'; did you mean 'fedavg'\?"):
        plugins.load("strategies", "fedavgg")


def test_describing_imports_no_plugin() -> None:
    code = (
        "import sys; from pplr_audit.scenario import plugins\n"
        f"for kind in {KINDS}: plugins.describe(kind)\n"
        "assert not [name for name in sys.modules if name.startswith('torch')]\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


WORKS = '"""An attack that is there."""\n\n\nclass Works:\n    pass\n'
BROKEN = {
    "an error in the module": ("breaks:Breaks", {"breaks": '"""It breaks."""\n\nraise OSError("no such device")\n'}),
    "a module that is not there": ("nowhere.at.all:Breaks", {}),
    "a name that is not there": ("breaks:Breaks", {"breaks": '"""It has nothing."""\n'}),
    "a module that leaves": ("breaks:Breaks", {"breaks": "import sys\n\nsys.exit(0)\n"}),
    "source that is no Python": ("breaks:Breaks", {"breaks": "def (:\n"}),
    "a value that is no reference": ("not a reference", {}),
}


@pytest.mark.parametrize("why", BROKEN)
def test_a_broken_plugin_is_named_and_the_others_are_left_alone(install: Callable[..., Path], why: str) -> None:
    value, modules = BROKEN[why]
    install("broken-plugin", "0.3", f"[pplr_audit.attacks]\nbreaks = {value}\n", **modules)
    install("good-plugin", "1.2", "[pplr_audit.attacks]\nworks = working:Works\n", working=WORKS)
    for name in modules:
        sys.modules.pop(name, None)
    with pytest.raises(InputError, match=r"attacks: 'breaks' of broken-plugin 0\.3 cannot be imported: \w+"):
        plugins.load("attacks", "breaks")
    assert plugins.load("attacks", "works").__name__ == "Works"
    told = plugins.describe("attacks")
    assert told["works"] == "An attack that is there."
    assert told["ridge"]
    assert "breaks" in told


@pytest.mark.parametrize(
    "text", ["[pplr_audit.attacks]\nno equals sign\n", "[pplr_audit.attacks\nx = y:z\n", "\0 = \0\n[]\n="]
)
def test_a_package_whose_entry_points_cannot_be_read_leaves_the_others_alone(
    install: Callable[..., Path], text: str
) -> None:
    install("garbled-plugin", "0.1", text)
    assert plugins.describe("attacks")["ridge"]
    assert plugins.load("attacks", "ridge").__name__ == "Ridge"
    assert set(plugins.broken_packages()) <= {"garbled-plugin"}


def test_a_name_that_is_not_found_because_its_package_is_garbled_says_so(install: Callable[..., Path]) -> None:
    install("garbled-plugin", "0.1", "[pplr_audit.attacks]\nsharp : sharp\n")
    with pytest.raises(InputError, match=r"unknown name 'sharp'.*; garbled-plugin: its entry points cannot be read"):
        plugins.load("attacks", "sharp")


def test_two_plugins_of_one_name_are_refused_and_both_packages_named(install: Callable[..., Path]) -> None:
    install("first-plugin", "1.0", "[pplr_audit.attacks]\nsharp = working:Works\n", working=WORKS)
    install("second-plugin", "2.0", "[pplr_audit.attacks]\nsharp = working:Works\n", working=WORKS)
    both = r"second-plugin 2\.0 and first-plugin 1\.0|first-plugin 1\.0 and second-plugin 2\.0"
    with pytest.raises(InputError, match=both):
        plugins.load("attacks", "sharp")
    assert re.search(both, plugins.describe("attacks")["sharp"])
    assert plugins.names("attacks").count("sharp") == 1


def test_nobody_takes_the_place_of_a_plugin_of_ours(install: Callable[..., Path]) -> None:
    install("sly-plugin", "1.0", "[pplr_audit.attacks]\nridge = working:Works\n", working=WORKS)
    with pytest.raises(InputError, match=r"audit\.attacks\[0\]: 'ridge' is refused.*sly-plugin 1\.0"):
        scenario.load("quickstart")
    with pytest.raises(InputError, match=r"--attack ridge: 'ridge' is refused.*sly-plugin 1\.0"):
        from_options(["ridge"], [])


def test_one_package_that_is_found_twice_is_one(install: Callable[..., Path]) -> None:
    install("twice-plugin", "1.0", "[pplr_audit.attacks]\nsharp = working:Works\n", working=WORKS)
    behind = install("Twice_Plugin", "0.9", "[pplr_audit.attacks]\nsharp = working:Works\n")
    sys.path.remove(str(behind))
    sys.path.append(str(behind))
    plugins._read.cache_clear()
    assert plugins.load("attacks", "sharp").__name__ == "Works"
    (found,) = plugins.provenance([("attacks", "sharp")])
    assert found == {"kind": "attacks", "name": "sharp", "package": "twice-plugin", "version": "1.0"}


def test_a_broken_reader_is_named_in_a_warning_and_the_others_are_asked(
    install: Callable[..., Path], tmp_path: Path
) -> None:
    install("broken-plugin", "0.3", "[pplr_audit.readers]\nbreaks = nowhere:Breaks\n")
    folder = tmp_path / "ml"
    folder.mkdir()
    (folder / "u.data").write_text("1\t1\t5\t1\n")
    (folder / "u.item").write_text("1|Film (1999)|01-Jan-1999||http://x|" + "|".join("0" * 19) + "\n")
    with pytest.warns(UserWarning, match=r"'breaks' of broken-plugin 0\.3 cannot be imported"):
        assert detected(folder) == "movielens"


def test_an_attack_that_cannot_be_made_or_is_none_is_refused_with_its_field(install: Callable[..., Path]) -> None:
    code = 'class Raises:\n    def __init__(self):\n        raise OSError("no device")\n\n\nclass Empty:\n    pass\n'
    names = "[pplr_audit.attacks]\nraises = odd:Raises\nempty = odd:Empty\nnumber = odd:__name__\n"
    install("odd-plugin", "1.0", names, odd=code)
    for name, said in {"raises": r"odd-plugin 1\.0 is broken: OSError: no device", "empty": "is not an attack"}.items():
        chosen = scenario.Scenario.model_validate({"name": "x", "audit": {"attacks": [name]}})
        with pytest.raises(InputError, match=rf"audit\.attacks: .*{said}"):
            make_plan(chosen, 3)
    with pytest.raises(InputError, match=r"field: number does not take these settings"):
        plugins.make("attacks", "number", "field")


def test_a_listing_shows_what_is_broken_and_the_rest(install: Callable[..., Path]) -> None:
    folder = install("broken-plugin", "0.3", "[pplr_audit.attacks]\nbreaks = nowhere:Breaks\n")
    garbled = install("garbled-plugin", "0.1", "[pplr_audit.attacks]\nno equals sign\n")
    path = os.pathsep.join([str(folder), str(garbled), *sys.path])
    command = [sys.executable, "-m", "pplr_audit", "list", "attacks"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert re.search(r"^ridge +\w", done.stdout, re.MULTILINE)
    assert re.search(r"^breaks +broken: nowhere:Breaks of broken-plugin 0\.3", done.stdout, re.MULTILINE)
    assert re.match(r"garbled-plugin: its entry points cannot be read", done.stderr)
