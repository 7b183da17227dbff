"""Several runs beside each other: by the settings in which they differ, at the cuts that all audited."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pplr_audit.cli.main import app
from pplr_audit.report.blocks.content import Figure, Table, Text
from pplr_audit.report.findings.recipe import settings_of
from pplr_audit.report.findings.several_runs import differing
from pplr_audit.report.sections.several_runs import several_runs
from pplr_audit.report.write import write_documents
from pplr_audit.runs.store import Store
from tests.report.conftest import evidence_document, finding, findings_document
from tests.report.sections.test_updates import RECIPE, of_update

Json = dict[str, Any]


def document(value: float, cuts: tuple[tuple[int, int], ...] = ((0, 1), (1, 1)), **recipe: Any) -> Json:
    """A run whose strongest attack has this value at its last cut."""
    found = findings_document()
    found["run"]["training"] = {**RECIPE, **recipe}
    found["findings"] += [of_update(finding, k, m, value - 0.01 * (len(cuts) - 1 - n)) for n, (k, m) in enumerate(cuts)]
    return found


def batches() -> list[Json]:
    """Three batch sizes with one optimizer, one with another; steps follow the batch size."""
    return [
        document(0.5, batch_size=8, steps=[28, 32]), document(0.4, batch_size=16, steps=[14, 16]),
        document(0.3, batch_size=32, steps=[7, 8]), document(0.7, batch_size=16, steps=[14, 16], optimizer="sgd"),
    ]  # fmt: skip


def test_runs_are_told_apart_by_the_settings_in_which_they_differ() -> None:
    assert differing(batches()) == ["optimizer", "batch size", "local steps"]
    section = several_runs(batches())
    (table,) = [block for block in section.blocks if isinstance(block, Table)]
    assert table.columns[:5] == ("secret", "channel", "optimizer", "batch size", "local steps")
    rows = [[cell.text for cell in row] for row in table.rows]
    assert rows[0] == ["items", "client_update", "adamw", "8", "32", "50.0%", "lora_span", "k=1, m=1"]
    assert [row[5] for row in rows] == ["50.0%", "40.0%", "30.0%", "70.0%"]
    told = " ".join(block.text for block in section.blocks if isinstance(block, Text))
    assert "The runs differ in optimizer, batch size and local steps." in told
    assert "LoRA rank 8" in told


def test_a_picture_has_a_line_of_runs_that_are_alike_but_for_its_setting() -> None:
    (figure,) = [block for block in several_runs(batches()).blocks if isinstance(block, Figure)]
    assert figure.caption == "What updates say against batch size"
    (chart,) = figure.charts
    assert [entry.label for entry in chart.legend] == ["optimizer adamw", "baseline"]
    assert len(chart.marks) == 3
    assert "batch size 32: 30.0%" in chart.description
    assert "70.0%" not in chart.description


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ("LoRA rank", [{"adapter": {**RECIPE["adapter"], "rank": r}} for r in (4, 8)]),
        ("local steps", [{"local_epochs": e, "steps": [7 * e, 8 * e]} for e in (1, 5)]),
        ("dropout", [{"adapter": {**RECIPE["adapter"], "dropout": d}} for d in (0.0, 0.1)]),
    ],
)
def test_each_setting_that_can_be_put_in_order_has_a_picture(setting: str, values: list[Json]) -> None:
    documents = [document(0.3 + 0.1 * n, **recipe) for n, recipe in enumerate(values)]
    captions = [block.caption for block in several_runs(documents).blocks if isinstance(block, Figure)]
    assert f"What updates say against {setting}" in captions


def test_optimizers_are_compared_in_the_table_and_without_a_line_between_them() -> None:
    section = several_runs([document(0.3), document(0.7, optimizer="sgd")])
    assert not [block for block in section.blocks if isinstance(block, Figure)]
    (table,) = [block for block in section.blocks if isinstance(block, Table)]
    assert [[row[2].text, row[3].text] for row in table.rows] == [["adamw", "30.0%"], ["sgd", "70.0%"]]


def test_only_cuts_that_all_runs_audited_count() -> None:
    """The first run's strongest is at a cut that the second did not audit."""
    documents = [document(0.9, cuts=((1, 1), (2, 1))), document(0.4, cuts=((0, 1), (1, 1)), optimizer="sgd")]
    (table,) = [block for block in several_runs(documents).blocks if isinstance(block, Table)]
    assert [(row[3].text, row[5].text) for row in table.rows] == [("89.0%", "k=1, m=1"), ("40.0%", "k=1, m=1")]
    apart = [document(0.9, cuts=((2, 1),)), document(0.4, cuts=((0, 1),), optimizer="sgd")]
    (table,) = [block for block in several_runs(apart).blocks if isinstance(block, Table)]
    assert table.rows[0][0].text == "No cut was audited in all of these runs."


def test_settings_are_told_by_name_also_without_an_adapter() -> None:
    run = document(0.3)["run"]
    found = settings_of(run)
    assert (found["optimizer"], found["local steps"], found["LoRA rank"], found["clients"]) == ("adamw", 16, 8, 5)
    run["training"] = {**RECIPE, "adapter": None}
    assert settings_of(run)["LoRA rank"] == "all weights"
    del run["training"]
    assert settings_of(run) == {"clients": 5}


@pytest.fixture
def stored(tmp_path: Path) -> Callable[[str, Json], Path]:
    """Puts a findings document into a run directory of this name."""

    def write(name: str, found: Json) -> Path:
        with Store.open(tmp_path / name, "name: x\n", "0" * 64) as store:
            write_documents(store, found, evidence_document())
        return tmp_path / name

    return write


def call(*args: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["compare", *map(str, args)])
    return done.exit_code, done.output


def test_the_command_prints_the_table_and_writes_the_page_elsewhere(
    stored: Callable[[str, Json], Path], tmp_path: Path
) -> None:
    first, second = stored("one", document(0.3)), stored("two", document(0.7, optimizer="sgd"))
    before = sorted(path.name for path in first.iterdir())
    code, text = call(first, second, "--out", tmp_path / "page")
    assert code == 0
    for part in ("adamw", "sgd", "30.0%", "70.0%", "comparison.html", "comparison.md"):
        assert part in text
    page = (tmp_path / "page" / "comparison.html").read_text()
    assert "What updates say" in page
    assert 'href="#answer"' not in page
    assert r"| items | client_update | sgd | 70\.0%" in (tmp_path / "page" / "comparison.md").read_text()
    assert sorted(path.name for path in first.iterdir()) == before


def test_where_one_run_is_redacted_the_page_is(stored: Callable[[str, Json], Path], tmp_path: Path) -> None:
    first, second = stored("one", document(0.3)), stored("two", document(0.7, optimizer="sgd"))
    with Store.load(second, writable=True) as store:
        store.update_manifest(redact=True)
    call(first, second, "--out", tmp_path / "page")
    page = (tmp_path / "page" / "comparison.html").read_text()
    assert "Redacted:" in page
    assert "ml-100k," not in page


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ("missing", "no such directory"),
        ("itself", "two or more runs"),
        ("without updates", "no attack on updates is part of this run"),
        ("earlier version", "do not say how a round was trained"),
        ("other data", "are of different data"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line_with_its_name(
    stored: Callable[[str, Json], Path], tmp_path: Path, other: str, why: str
) -> None:
    first, found = stored("one", document(0.3)), document(0.7)
    if other == "missing":
        second = tmp_path / "missing"
    elif other == "itself":
        second = first
    else:
        if other == "without updates":
            found["findings"] = findings_document()["findings"]
        elif other == "earlier version":
            del found["run"]["training"]
        else:
            found["run"]["data"]["digest"] = "sha256:1"
        second = stored("two", found)
    code, text = call(first, second, "--out", tmp_path / "page")
    assert code == 2
    assert why in " ".join(text.split())
    assert not (tmp_path / "page").exists()
