"""The list of benchmarks names those that there are, and a page of results says which command and commit made it."""

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PAGES = sorted(page.name for page in (BENCHMARKS / "results").glob("*.md") if page.name != "overview.md")
MADE_BY = re.compile(r"^Command: `python benchmarks/(\w+\.py)[^`]*`.* Commit: [0-9a-f]{7,}\b", re.MULTILINE)


@pytest.fixture
def measuring(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield importlib.import_module("measuring")
    sys.modules.pop("measuring", None)


def test_every_program_has_its_row_and_every_row_its_program() -> None:
    programs = {file.name for file in BENCHMARKS.glob("*.py") if "__main__" in file.read_text(encoding="utf-8")}
    rows = re.findall(r"^\| `(\w+\.py)` \|", (BENCHMARKS / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(programs)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_of_results_says_which_command_and_commit(page: str) -> None:
    made = MADE_BY.search((BENCHMARKS / "results" / page).read_text(encoding="utf-8"))
    assert made is not None
    assert (BENCHMARKS / made[1]).is_file()


def test_a_new_page_says_so_too_without_a_folder_of_the_machine(
    measuring: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/home/me/benchmarks/kills.py", "--repeats", "3", "--results=/home/me/out"])
    measuring.write("kills", "Kills", "Ten.", {}, measuring.machine(), tmp_path)
    page = (tmp_path / "kills.md").read_text(encoding="utf-8")
    assert "Command: `python benchmarks/kills.py --repeats 3 --results=out`. Commit: " in page
    assert "/home" not in page
