"""Users whose test item stands in their own history, which is masked: nobody could recommend it to them."""

from pathlib import Path

import numpy as np
import pytest

from pplr_audit import pipeline as audit
from pplr_audit import scenario
from pplr_audit.data.dataset import Ragged, Split
from pplr_audit.data.prepare import prepare
from pplr_audit.errors import InputError
from pplr_audit.report.terminal.findings import summary_table
from pplr_audit.report.terminal.training import training_tables
from pplr_audit.runs.documents import validate
from pplr_audit.training.utility import evaluate as utility


def ragged(rows: list[list[int]]) -> Ragged:
    return Ragged(np.cumsum([0, *map(len, rows)]), np.array([item for row in rows for item in row], dtype=np.int64))


SPLIT = Split(
    train=ragged([[0, 1], [0, 1], [0, 1], [], [0, 1]]),
    valid=ragged([[2], [2], [2], [2], [0]]),
    test=ragged([[3], [1], [2, 3, 3], [3], []]),
)
"""The second user repeats an item of training, the third one of validation besides a new one; the fourth has nothing to
go by, and the fifth no test item."""
EVERYONE = np.arange(5)


def test_users_with_nothing_but_items_that_they_had_are_left_out() -> None:
    assert utility.tested(SPLIT, EVERYONE).tolist() == [0, 2]
    assert utility.repeating(SPLIT, EVERYONE).tolist() == [1]


def test_who_ranks_the_test_items_first_is_right_for_all_that_are_left() -> None:
    users = utility.tested(SPLIT, EVERYONE)
    scores = np.zeros((2, 30))
    scores[:, 3] = 1.0
    found = utility.rank([(np.arange(2), scores)], users, SPLIT)
    assert {name: values.tolist() for name, values in found.metrics.items()} == {
        name: [1.0, 1.0] for name in ("recall@10", "ndcg@10", "recall@20", "ndcg@20")
    }


def listened(path: Path, repeats: int, users: int = 90) -> scenario.Data:
    """Plays of songs; the first ``repeats`` users end with the song that they began with."""
    generator, lines = np.random.default_rng(4), ["user_id,item_id,timestamp,title"]
    for user in range(users):
        songs = generator.permutation(40)[:6].tolist()
        songs = [*songs[:5], songs[0] if user < repeats else songs[5]]
        lines += [f"u{user},{song},{at},Song number {song}" for at, song in enumerate(songs)]
    path.write_text("\n".join(lines) + "\n")
    return scenario.Data.model_validate(
        {"path": str(path), "clients": 3, "history": 3, "audit_users": 40, "partition": "random"}
    )


def test_data_in_which_nobody_is_left_is_refused(tmp_path: Path) -> None:
    data = listened(tmp_path / "plays.csv", repeats=90)
    with pytest.raises(InputError, match="every user who trains had the test item before") as refused:
        prepare(data, 0)
    assert "data.duplicates: first or last" in str(refused.value)
    assert len(prepare(data.model_copy(update={"duplicates": "first"}), 0).members)


def test_the_findings_the_report_and_the_terminal_say_how_many_were_left_out(
    small_scenario: scenario.Scenario, tmp_path: Path
) -> None:
    data = listened(tmp_path / "plays.csv", repeats=30)
    asked = small_scenario.model_copy(update={"data": data})
    private = prepare(data, asked.seed)
    repeat = {index for index, name in enumerate(private.dataset.users) if int(str(name)[1:]) < 30}
    gone = len(repeat & set(private.members.tolist()))
    assert 0 < gone < len(private.members)

    trained = audit.train(asked, tmp_path / "run").document
    assert trained["run"]["data"]["left_out"] == {"test": gone, "validation": 0}
    sizes = {row["strategy"]: row["n"] for row in trained["utility"] if row["client"] == "all"}
    assert sizes == dict.fromkeys(("pplr", "untrained", "popularity"), len(private.members) - gone)
    said = f"Users left out: {gone} by their test items. They had all of these items before"
    assert said in str(training_tables(trained)[0].caption)
    document = audit.run(asked, tmp_path / "run").document
    validate(document)
    assert said in str(summary_table(document, 200).caption)
    assert said in (tmp_path / "run" / "report.md").read_text()
    assert said in (tmp_path / "run" / "report.html").read_text()
