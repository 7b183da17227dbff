"""What a score stands beside: each by itself, its control drawn several times, the own model's recommendations."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pplr_audit.audit.truth.comparisons import DRAWS, baseline, comparisons, control_of, influences, listed
from pplr_audit.audit.truth.label import LabelTruth
from pplr_audit.audit.truth.membership import MembershipTruth
from pplr_audit.audit.truth.own_model import OwnModel
from pplr_audit.data.dataset import Ragged
from pplr_audit.models.recommenders.task import NotFinite
from pplr_audit.runs.verdicts import judged, with_verdicts
from pplr_audit.threat_model.attack import Guess
from pplr_audit.threat_model.view import dealt

USERS, ITEMS = 60, 40
TARGETS = {row: (7 * row) % ITEMS for row in range(USERS)}
CLIENTS = {row: "ab"[row % 2] for row in range(USERS)}


def labels(own: Mapping[int, np.ndarray] | None = None) -> LabelTruth:
    """Next items, none of them popular."""
    popularity = np.zeros(ITEMS)
    popularity[5] = 1.0
    users = {row: 100 + row for row in range(USERS)}
    return LabelTruth(users, TARGETS, np.arange(ITEMS), popularity, CLIENTS, (lambda _: own) if own else None)


def answers(right: int) -> Guess:
    """The first rows right, the others with none."""
    named = np.array([[TARGETS[row] if row < right else -1] for row in range(USERS)])
    return Guess({"rows": np.arange(USERS), "labels": named})


def test_answers_are_dealt_to_others_of_the_same_client() -> None:
    for draw in labels().redealt(answers(USERS), 5, np.random.default_rng(0)):
        rows = draw.arrays["rows"]
        assert sorted(rows) == list(range(USERS))
        assert (rows != np.arange(USERS)).all(), "nobody keeps its own"
        assert (rows % 2 == np.arange(USERS) % 2).all()
    nothing = Guess({"rows": np.array([], dtype=int), "labels": np.zeros((0, 1))})
    assert labels().redealt(nothing, 5, np.random.default_rng(0)) == []


def test_who_is_alone_in_a_client_is_dealt_with_the_others_alone() -> None:
    found = dealt(["a", "a", "b", "c", "d"], np.random.default_rng(0))
    assert found[:2] == [1, 0]
    assert sorted(found) == [0, 1, 2, 3, 4]
    assert all(place != other for place, other in enumerate(found))


def test_a_control_has_several_draws_and_an_interval() -> None:
    truth, guess = labels(), answers(30)
    (score, *_) = truth.score(guess, seed=0)
    drawn = [truth.score(each, seed=None)[0] for each in truth.redealt(guess, DRAWS, np.random.default_rng(1))]
    control = control_of(score, drawn)
    values = [each.estimate.value for each in drawn]
    assert control.value == pytest.approx(np.mean(values))
    # Each user's answer is dealt by itself: what draws differ by is what users differ by, and is not counted twice.
    assert 0 <= control.spread < np.var(values, ddof=1) / DRAWS
    assert control.about == {"draws": DRAWS, "least": min(values), "most": max(values)}
    found = comparisons(score, drawn)
    assert [each.reference.name for each in found] == ["popularity", "control"]
    rows = listed(found)
    assert rows[1]["ci"][0] < control.value < rows[1]["ci"][1]
    assert all(row["difference_ci"][0] > 0 for row in rows)
    assert baseline(score, found) == max(row["value"] for row in rows), "what is hardest, to be read beside the value"


def test_what_is_common_to_all_users_of_a_draw_widens_its_control() -> None:
    truth, generator = labels(), np.random.default_rng(2)
    (score, *_) = truth.score(answers(30), seed=0)
    (drawn,) = (truth.score(each, seed=None)[0] for each in truth.redealt(answers(30), 1, generator))
    shifts = generator.normal(size=DRAWS) / 10
    draws = [
        replace(
            drawn,
            estimate=replace(drawn.estimate, value=drawn.estimate.value + shift),
            per_user={user: value + shift for user, value in drawn.per_user.items()},
        )
        for shift in shifts
    ]
    assert control_of(score, draws).spread == pytest.approx(np.var(shifts, ddof=1) / DRAWS)
    assert control_of(score, [drawn] * DRAWS).spread == 0.0
    wide, narrow = (listed(comparisons(score, each))[-1]["ci"] for each in (draws, [drawn] * DRAWS))
    assert wide[1] - wide[0] > narrow[1] - narrow[0]


def test_who_answers_alike_for_everyone_finds_what_its_control_finds() -> None:
    truth = labels()
    guess = Guess({"rows": np.arange(USERS), "labels": np.zeros((USERS, 1), dtype=int)})  # right for some, by chance
    (score, *_) = truth.score(guess, seed=0)
    assert score.estimate.value > 0
    drawn = [truth.score(each, seed=None)[0] for each in truth.redealt(guess, DRAWS, np.random.default_rng(1))]
    control = comparisons(score, drawn)[-1]
    assert control.reference.value == pytest.approx(score.estimate.value)
    assert control.p >= 0.5
    assert control.difference_ci[0] <= 0


def test_a_next_item_that_the_own_model_recommends_as_well_is_not_above_it() -> None:
    hits = {row: np.array([TARGETS[row] if row < 30 else -1]) for row in range(USERS)}
    as_good = labels(hits).score(answers(30), seed=0)[0]
    found = {each.reference.name: each for each in comparisons(as_good, [])}
    assert found["popularity"].difference_ci[0] > 0
    assert found["own_model"].reference.value == pytest.approx(0.5)
    assert found["own_model"].difference_ci[0] <= 0
    assert found["own_model"].p > 0.1
    better = labels(hits).score(answers(55), seed=0)[0]
    assert all(each.difference_ci[0] > 0 for each in comparisons(better, []))
    assert as_good.detail["own_model_reads"] == "the true history"
    assert "own_model" not in labels().score(answers(30), seed=0)[0].floors, "who has no model has popularity alone"


class Recommender:
    """Recommends the item behind the last one of a history."""

    def __init__(self, scores: float = 1.0) -> None:
        self.asked: list[tuple[int, ...]] = []
        self.scores = scores

    def recommend(self, history: Ragged, popularity: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        self.asked += [tuple(history[row].tolist()) for row in range(len(history))]
        found = np.zeros((len(history), len(popularity)))
        for row in range(len(history)):
            found[row, (history[row][-1] + 1) % len(popularity)] = self.scores
        return [(np.arange(len(history)), found)]


def test_an_own_model_is_asked_for_the_histories_that_were_read() -> None:
    model: Any = Recommender()
    histories = {0: np.array([3, 4]), 1: np.array([9]), 2: np.array([3, 4])}
    popularity = np.zeros(12)
    popularity[6] = 1.0
    own = OwnModel({"a": model}, dict.fromkeys(histories, "a"), histories, popularity)
    true = own.ranked(None)
    assert true is not None
    assert [int(true[row][0]) for row in range(3)] == [5, 10, 5]
    assert sorted(model.asked) == [(3, 4), (9,)], "each history once"
    read = own.ranked({0: np.array([7]), 1: np.array([9])})
    assert read is not None
    assert [int(read[row][0]) for row in range(3)] == [8, 10, 6], "without a history, the most popular item"
    assert model.asked.count((9,)) == 1
    assert not {3, 4} & set(true[0][:10].tolist()), "what is known is not recommended"


def test_an_own_model_whose_scores_are_not_finite_recommends_nothing() -> None:
    model: Any = Recommender(float("nan"))
    own = OwnModel({"a": model}, {0: "a"}, {0: np.array([1])}, np.zeros(5))
    assert own.ranked(None) is None
    with pytest.raises(NotFinite):
        own._recommend("a", [(2,)])


def members(informative: bool, generator: np.random.Generator) -> MembershipTruth:
    rows = range(200)
    member = {row: row % 2 for row in rows}
    features = {row: [member[row] * informative + generator.normal(), generator.normal()] for row in rows}
    return MembershipTruth({row: row for row in rows}, {row: row // 40 for row in rows}, member, features)


def test_what_the_model_free_classifier_finds_is_no_baseline() -> None:
    generator = np.random.default_rng(0)
    scores = np.array([row % 2 + generator.normal() for row in range(200)])
    guess = Guess({"rows": np.arange(200), "threshold": scores})
    for informative in (False, True):
        for score in members(informative, generator).score(guess, seed=1):
            level = 0.5 if score.metric == "auc" else float(score.metric.partition("@")[2])
            assert score.baseline == level
            assert [(each.name, each.value) for each in score.references] == [("chance", level)]
            low, high = score.detail["model_free_ci"]
            assert (low > 0.5) == informative
            assert low < score.detail["model_free_auc"] < high


def test_a_client_has_a_rate_of_its_own_only_where_its_non_members_resolve_it() -> None:
    rows = range(200)
    client = {row: int(row >= 140) for row in rows}  # 70 non-members and 30
    truth = MembershipTruth({row: row for row in rows}, client, {row: row % 2 for row in rows},
                            {row: [float(row % 7)] for row in rows}, ("large", "small"))  # fmt: skip
    generator = np.random.default_rng(0)
    scores = np.array([row % 2 + 5 * client[row] + generator.normal() for row in rows])
    guess = Guess({"rows": np.arange(200), "threshold": scores})
    found = {score.metric: score for score in truth.score(guess, seed=0)}
    assert [*found] == ["auc", "tpr@0.1"]
    own = found["tpr@0.1"].detail["by_client"]
    assert {name: each["n"] for name, each in own.items()} == {"large": 140, "small": 60}
    assert own["large"]["ci"][0] <= own["large"]["mean"] <= own["large"]["ci"][1]
    fewer = Guess({"rows": np.arange(198), "threshold": scores[:198]})
    small = MembershipTruth({row: row for row in range(198)}, client, truth.members, truth.features, truth.names)
    assert [*small.score(fewer, seed=0)[1].detail["by_client"]] == ["large"]


def cell(area: float, seed: int, mode: str) -> dict[str, Any]:
    """A cell's document with one AUC, as run_cell writes it."""
    generator = np.random.default_rng(seed)
    scores = np.array([area * (row % 2) + generator.normal() for row in range(200)])
    guess = Guess({"rows": np.arange(200), mode: scores})
    score = members(False, generator).score(guess, seed=1)[0]
    found = comparisons(score, [])
    row = {
        "secret": "membership", "metric": "auc", "defense": "none", "status": "ok", "value": score.estimate.value,
        "ci": [score.estimate.low, score.estimate.high], "baseline": 0.5, "detail": {"mode": mode},
        "comparisons": listed(found),
    }  # fmt: skip
    return {"findings": [row], "influence": {f"auc/{mode}": influences(score, found)}}


def test_a_finding_is_corrected_for_all_of_its_secret_metric_and_defense() -> None:
    cells = [cell(0.5 * (seed == 0), seed, f"m{seed}") for seed in range(12)]
    rows = with_verdicts(cells, seed=0)
    assert rows == with_verdicts(cells, seed=0)
    assert {row["corrected"]["over"] for row in rows} == {12}
    (alone,) = with_verdicts(cells[:1], seed=0)
    assert alone["corrected"]["p"] == pytest.approx(alone["comparisons"][0]["p"])
    assert alone["corrected"]["p"] < rows[0]["corrected"]["p"] <= 12 * alone["corrected"]["p"]
    assert rows[0]["corrected"]["ci"][0] < rows[0]["ci"][0], "its own interval stays beside it"
    other = [{**row, "metric": "tpr@0.1"} for each in cells[1:] for row in each["findings"]]
    assert with_verdicts([*cells[:1], {"findings": other}], seed=0)[0]["corrected"] == alone["corrected"]


def test_a_document_of_an_earlier_version_is_corrected_by_holm() -> None:
    cells = [cell(0.5 * (seed == 0), seed, f"m{seed}") for seed in range(12)]
    rows = [row for each in cells for row in each["findings"]]
    old = [{name: value for name, value in row.items() if name != "comparisons"} for row in rows]
    document = judged({"findings": old})
    (alone,) = judged({"findings": old[:1]})["findings"]
    assert document["findings"][0]["corrected"]["p"] == pytest.approx(12 * alone["corrected"]["p"])
    assert judged(document) == document, "what is corrected stays so"
