"""Scores of guesses about users: what counts, what is left out, and what the baselines are."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pplr_audit.audit.truth.attribute import AttributeTruth
from pplr_audit.audit.truth.linkage import LinkageTruth
from pplr_audit.data.prompts import TEMPLATE, Prompt
from pplr_audit.threat_model.attack import Guess

ROWS = 163
FOLDS = 4


@pytest.fixture
def truth() -> AttributeTruth:
    """Item 1 is held by those with the value b, the client says nothing; three more rows cross of unknown value."""
    values = {row: "ab"[row % 2] if row % 5 else "c" for row in range(ROWS - 3)}
    folds = {row: row // 10 % FOLDS for row in values}
    clients = {row: f"client-{row // 20 % 2}" for row in range(ROWS)}
    held = {row: [{"a": 0, "b": 1, "c": 2}[values.get(row, "a")], 3 + row % 4] for row in range(ROWS)}
    return AttributeTruth("kind", values, folds, {row: 1000 + row for row in range(ROWS)}, clients, held, 7)


def answer(truth: AttributeTruth, noise: float) -> Guess:
    rows = np.array(sorted(truth.values))
    column = np.array(["abc".index(truth.values[row]) for row in rows])
    scores = np.eye(3)[column] + noise * np.random.default_rng(0).normal(size=(len(rows), 3))
    return Guess({"rows": rows, "values": scores})


def test_the_area_is_the_mean_of_one_value_against_the_rest_within_folds(truth: AttributeTruth) -> None:
    guess = answer(truth, 0.8)
    fold = np.array([truth.folds[int(row)] for row in guess.arrays["rows"]])
    # What one classifier gives to all of a fold says nothing of them.
    scores = guess.arrays["values"] + 9.0 * fold[:, None]
    area, right = truth.score(Guess({**guess.arrays, "values": scores}), seed=0)
    true = np.array([truth.values[int(row)] for row in guess.arrays["rows"]])
    by_hand = []
    for at, value in enumerate("abc"):
        parts = [(true[fold == f] == value, scores[fold == f, at]) for f in range(FOLDS)]
        pairs = [has.sum() * (~has).sum() for has, _ in parts]
        by_hand.append(np.average([roc_auc_score(*part) for part in parts], weights=pairs))
    assert area.estimate.value == pytest.approx(np.mean(by_hand))
    assert list(area.detail["auc_by_value"].values()) == pytest.approx(by_hand)
    assert area.estimate.low < area.estimate.value < area.estimate.high
    assert area.estimate.n == len(true)
    assert right.estimate.value == pytest.approx((np.array(list("abc"))[scores.argmax(1)] == true).mean())


def test_values_that_are_equally_likely_are_named_by_chance(truth: AttributeTruth) -> None:
    rows = np.array(sorted(truth.values))
    _, right = truth.score(Guess({"rows": rows, "values": np.zeros((len(rows), 3))}), seed=0)
    assert right.estimate.value == pytest.approx(1 / 3), "not the share of the first value"
    two = np.tile([1.0, 1.0, 0.0], (len(rows), 1))
    _, right = truth.score(Guess({"rows": rows, "values": two}), seed=0)
    assert right.estimate.value == pytest.approx(0.8 / 2)


def test_users_whose_values_are_equally_likely_are_compared_as_they_count(truth: AttributeTruth) -> None:
    """A third of each user, whatever the order of the values; not all of those who have the first one."""
    rows = np.array(sorted(truth.values))
    _, accuracy = truth.score(Guess({"rows": rows, "values": np.zeros((len(rows), 3))}), seed=0)
    assert [*accuracy.per_user.values()] == pytest.approx([1 / 3] * len(rows))
    assert [*accuracy.influence.values()] == pytest.approx([0.0] * len(rows), abs=1e-12), "no user moves it"


def test_a_user_s_own_score_is_the_share_of_the_others_of_its_fold_it_stands_above(truth: AttributeTruth) -> None:
    area, _ = truth.score(answer(truth, 0.8), seed=0)
    # Folds and values are as evenly dealt here as can be, so that each user has as many others.
    of_value = {v: [area.per_user[1000 + row] for row, own in truth.values.items() if own == v] for v in "abc"}
    assert {v: float(np.mean(own)) for v, own in of_value.items()} == pytest.approx(area.detail["auc_by_value"])
    alone = replace(truth, folds={**truth.folds, 0: FOLDS})
    assert 1000 not in alone.score(answer(alone, 0.8), seed=0)[0].per_user


def test_what_the_items_would_tell_and_what_the_client_tells_stand_beside_it(truth: AttributeTruth) -> None:
    area, right = truth.score(answer(truth, 0.8), seed=0)
    assert area.detail["bag_of_items_auc"] == 1.0
    assert abs(area.detail["client_auc"] - 0.5) < 0.1
    assert area.baseline == 0.5, "what the client tells is an estimate: it is compared with, and no constant"
    assert [each.name for each in area.references] == ["chance", "client"]
    assert area.references[1].value == area.detail["client_auc"]
    assert right.baseline == pytest.approx(0.4, abs=0.02)  # the majority
    assert (area.detail["turns"], area.detail["known_users"]) == (FOLDS, 120)
    telling = replace(truth, clients={row: f"client-{items[0]}" for row, items in truth.items.items()})
    area, right = telling.score(answer(truth, 0.8), seed=0)
    assert [each.value for each in area.references] == [0.5, 1.0]
    assert right.baseline == 1.0


def test_baselines_learn_nothing_of_a_user_from_itself(truth: AttributeTruth) -> None:
    """An item that nobody else holds, and a client of one's own, would tell it all."""
    own = {row: [row] for row in truth.users}
    alone = replace(truth, items=own, clients={row: f"client-{row}" for row in own}, catalogue=ROWS)
    area, _ = alone.score(answer(truth, 0.8), seed=0)
    assert max(area.detail["bag_of_items_auc"], area.detail["client_auc"]) < 0.55  # ties, but for rounding


def test_the_majority_is_that_of_who_is_known(truth: AttributeTruth) -> None:
    """Where a fold has most of one value, that is the rarer one of those who are known."""
    values = {row: "ab"[row // 30] for row in range(60)}
    folds = {row: int(24 <= row < 30 or row >= 36) for row in values}
    split = replace(truth, values=values, folds=folds, clients=dict.fromkeys(truth.users, "client-0"))
    *_, right = split.score(Guess({"rows": np.arange(60), "values": np.zeros((60, 2))}), seed=0)
    assert right.baseline == 12 / 60


def nearest(known: np.ndarray, labels: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """A classifier that is quick to fit: by the nearest mean."""
    means = np.stack([known[labels == value].mean(0) for value in np.unique(labels)])
    scores = asked @ means.T - (means**2).sum(1) / 2
    return np.asarray(scores - scores.mean(1, keepdims=True))


def test_at_chance_the_area_is_a_half_and_the_interval_says_so(truth: AttributeTruth) -> None:
    """Other users every time, of whom nothing can be told; their classifiers learn from the same few."""
    few = replace(truth, values={row: "ab"[row % 2] for row in range(120)})
    fold = np.array([few.folds[row] for row in range(120)])
    column, generator = np.arange(120) % 2, np.random.default_rng(0)
    found = []
    for seed in range(150):
        features, scores = generator.normal(size=(120, 8)), np.empty((120, 2))
        for each in range(FOLDS):
            asked = fold == each
            scores[asked] = nearest(features[~asked], column[~asked], features[asked])
        found.append(few.score(Guess({"rows": np.arange(120), "values": scores}), seed=seed)[0].estimate)
    areas = np.array([estimate.value for estimate in found])
    assert abs(areas.mean() - 0.5) < 3 * areas.std() / 150**0.5
    assert np.mean([estimate.low <= 0.5 <= estimate.high for estimate in found]) >= 0.94


def test_saying_how_common_a_value_is_among_the_known_tells_nothing(truth: AttributeTruth) -> None:
    """Scores of all folds in one order would stand below a half: who is asked for is missing from the known."""
    rows = sorted(truth.values)
    known = {fold: [truth.values[row] for row in rows if truth.folds[row] != fold] for fold in range(FOLDS)}
    uneven = replace(truth, folds={**truth.folds, 0: 1, 1: 2, 3: 2})
    shares = np.array([[known[uneven.folds[row]].count(value) for value in "abc"] for row in rows], dtype=float)
    area, _ = uneven.score(Guess({"rows": np.array(rows), "values": shares}), seed=0)
    assert area.estimate.value == 0.5


def test_a_row_without_an_answer_is_placed_last_and_others_are_passed_over(truth: AttributeTruth) -> None:
    guess = answer(truth, 0.0)
    assert truth.score(guess, seed=0)[0].estimate.value == 1.0
    half = Guess({name: array[:80] for name, array in guess.arrays.items()})
    area, _ = truth.score(half, seed=0)
    assert area.estimate.n == ROWS - 3
    assert 0.5 < area.estimate.value < 1.0
    more = Guess(
        {
            "rows": np.append(guess.arrays["rows"], ROWS - 1),
            "values": np.append(guess.arrays["values"], [[9, 9, 9]], axis=0),
        }
    )  # fmt: skip
    assert truth.score(more, seed=0)[0].estimate == truth.score(guess, seed=0)[0].estimate


def test_answers_of_another_form_are_refused(truth: AttributeTruth) -> None:
    guess = answer(truth, 0.0)
    for values in (guess.arrays["values"][:, :2], guess.arrays["values"] * np.nan):
        with pytest.raises(ValueError, match="one number a row and value"):
            truth.score(Guess({**guess.arrays, "values": values}), seed=0)
    assert not truth.answered(Guess({"rows": guess.arrays["rows"], "items": np.zeros((80, 1))}))


def sequence(items: Sequence[int], length: int) -> Prompt:
    """One token an item, then template up to ``length``."""
    tokens = np.array([*items, *[99] * (length - len(items))])
    slots = np.array([*range(len(items)), *[TEMPLATE] * (length - len(items))])
    return Prompt(tokens, slots, np.array(items), length, np.zeros(length, dtype=np.int64))


def linked(items: Sequence[Sequence[int]], lengths: Sequence[int], clients: str) -> LinkageTruth:
    """Even rows are the newer ones, the odd ones behind them of the same users."""
    prompts = {row: sequence(held, length) for row, (held, length) in enumerate(zip(items, lengths, strict=True))}
    users = range(100, 100 + len(clients))
    return LinkageTruth(users, list(clients), range(0, len(items), 2), range(1, len(items), 2), prompts)


def compared(scores: dict[tuple[int, int], float], rows: int) -> Guess:
    first, second = zip(*scores, strict=True)
    return Guess(
        {
            "rows": np.arange(rows), "first": np.array(first), "second": np.array(second),
            "scores": np.array(list(scores.values())),
        }
    )  # fmt: skip


APART = [[2 * row, 2 * row + 1] for row in range(8)]


def test_own_pairs_are_compared_with_those_across_users_of_one_client() -> None:
    truth = linked(APART, [4] * 8, "aabb")
    # Rows 0, 1 | 2, 3 of client a; 4, 5 | 6, 7 of client b. Two rows of one side and of two clients do not count.
    scores = {(0, 1): 0.5, (2, 3): 0.3, (0, 3): 0.4, (2, 1): 0.1, (0, 2): 9.0, (1, 3): 9.0, (0, 5): 9.0}
    scores |= {(5, 4): 0.2, (7, 6): 0.2, (7, 4): 0.2, (5, 6): 0.2}  # in the other order, and all the same
    (area,) = truth.score(compared(scores, 8), seed=0)
    # The first user beats both of the other's, the second loses one of two, each of those of b draws.
    assert area.per_user == {100: 1.0, 101: 0.5, 102: 0.5, 103: 0.5}
    assert area.estimate.value == pytest.approx(5 / 8)
    assert area.estimate.n == 4


def test_rows_of_two_users_that_share_an_item_are_left_out() -> None:
    items = [*APART[:3], [2, 50], *APART[4:]]  # the second user's older row shares item 2 with the first one's own
    items[0] = [2, 51]
    scores = {(0, 1): 0.5, (2, 3): 0.5, (0, 3): 0.9, (2, 1): 0.1, (4, 5): 0.5, (6, 7): 0.5, (4, 7): 0.1, (6, 5): 0.1}
    (area,) = linked(items, [4] * 8, "aabb").score(compared(scores, 8), seed=0)
    assert area.estimate.value == 1.0
    (area,) = linked(APART, [4] * 8, "aabb").score(compared(scores, 8), seed=0)
    assert area.estimate.value == pytest.approx(3 / 4)


def test_what_lengths_and_words_tell_stands_beside_it() -> None:
    scores = {(row, row + 1): 0.0 for row in range(0, 8, 2)}
    (area,) = linked(APART, [4, 4, 9, 9, 4, 4, 9, 9], "aabb").score(compared(scores, 8), seed=0)
    assert [(each.name, each.value) for each in area.references] == [("chance", 0.5), ("lengths", 1.0)]
    assert area.detail["length_auc"] == 1.0
    items = [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 11], [12, 13], [14, 15]]
    plain = linked(items, [4] * 8, "aabb")
    assert plain.score(compared(scores, 8), seed=0)[0].baseline == 0.5
    # The same word, of two different items, in a user's two rows.
    worded = {
        row: replace(p, tokens=np.where(p.slots == 0, 500 + row // 2, p.tokens)) for row, p in plain.prompts.items()
    }
    (area,) = replace(plain, prompts=worded).score(compared(scores, 8), seed=0)
    assert area.detail["bag_of_words_auc"] == 1.0


def test_rows_that_were_not_compared_stand_last_and_alone_nobody_is_told_from_another() -> None:
    truth = linked(APART, [4] * 8, "aabb")
    (area,) = truth.score(compared({(0, 3): 0.4, (2, 3): 0.5}, 8), seed=0)
    assert area.per_user == {100: 0.25, 101: 1.0, 102: 0.5, 103: 0.5}
    assert truth.comparable
    assert not linked(APART, [4] * 8, "abcd").comparable


def test_scores_of_another_form_are_refused() -> None:
    truth, guess = linked(APART, [4] * 8, "aabb"), compared({(0, 1): 0.5, (2, 3): 0.3}, 8)
    for wrong in ({"scores": np.array([0.1])}, {"scores": np.array([0.1, np.nan])}):
        with pytest.raises(ValueError, match="one entry a pair"):
            truth.score(Guess({**guess.arrays, **wrong}), seed=0)
    with pytest.raises(IndexError):
        truth.score(Guess({**guess.arrays, "first": np.array([0, 77])}), seed=0)
    assert not truth.answered(Guess({"rows": np.arange(8), "values": np.zeros((8, 2))}))
