"""A name of an earlier version is accepted with one note."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pplr_audit import scenario
from pplr_audit.cli.main import app
from pplr_audit.errors import InputError
from pplr_audit.scenario import plugins
from pplr_audit.scenario.rivals import trainings
from pplr_audit.training.spec import own_training

OLD, TODAY = "centralised", "centralized"  # the old name, and today's
RIVALS = "[fedavg, {name}, {{{name}: {{averaging: product}}}}]"


def told(name: str, *, rival: bool) -> list[str]:
    if rival:
        return [f"training.rivals={RIVALS.format(name=name)}"]
    return [f"training.strategy={name}"]


def test_only_the_name_of_today_is_listed() -> None:
    assert TODAY in plugins.names("strategies")
    assert OLD not in plugins.names("strategies")


@pytest.mark.parametrize("rival", [False, True])
def test_the_old_name_says_the_same_and_has_the_same_hashes(rival: bool) -> None:
    new = scenario.load("quickstart", told(TODAY, rival=rival))
    with pytest.warns(FutureWarning, match=f"{OLD} is the old name of {TODAY}") as noted:
        old = scenario.load("quickstart", told(OLD, rival=rival))
    assert len(noted) == 1, "however often it stands there"
    assert old == new
    assert OLD not in scenario.dump(old)
    assert scenario.digest(old) == scenario.digest(new)
    assert own_training(old).name == own_training(new).name
    labels = [each.label for each in trainings(old.training)]
    assert labels == (["fedavg", TODAY, f"{TODAY} with averaging product"] if rival else [])


def test_the_note_names_file_line_and_field(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"name: mine\ntraining:\n  rivals:\n    - {OLD}\n    - {{{OLD}: {{averaging: product}}}}\n")
    with pytest.warns(FutureWarning) as noted:
        scenario.load(str(file))
    (only,) = noted
    assert str(only.message) == (
        f"{file}, line 4: training.rivals[0]: {OLD} is the old name of {TODAY} and accepted as that"
    )


def test_the_command_line_says_it_in_one_line_on_the_error_stream(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["train", "quickstart", "--set", f"training.strategy={OLD}", "--set", f"data.path={tmp_path / 'none'}"]
    )
    assert result.exit_code == 2
    first = result.stderr.splitlines()[0]
    assert first == (
        f"--set training.strategy={OLD}: training.strategy: {OLD} is the old name of {TODAY} and accepted as that"
    )
    assert OLD not in result.stdout


def test_a_scenario_made_in_python_takes_the_old_name_too() -> None:
    made = scenario.Training.model_validate({"strategy": OLD, "rivals": [{"pplr": {}}, "fedavg"]})
    assert made.strategy == TODAY


@pytest.mark.parametrize("rivals", [f"[{OLD}, {TODAY}]", f"[{OLD}, {OLD}]", f"[{{{OLD}: {{}}, {TODAY}: {{}}}}]"])
def test_the_same_under_both_names_stands_there_twice(rivals: str) -> None:
    with pytest.raises(InputError, match=r"training\.rivals"):
        scenario.load("quickstart", [f"training.rivals={rivals}"])


def test_values_of_a_wrong_kind_are_refused_as_before() -> None:
    for value in ("[1]", "{a: {b: 1}}", "7"):
        with pytest.raises(InputError, match=r"training\.(strategy|rivals)"):
            scenario.load("quickstart", [f"training.strategy={value}"])
