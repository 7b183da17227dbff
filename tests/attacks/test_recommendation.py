"""What a served model generates is what it recommends: read along the template's end, and nothing where nothing is."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pplr_audit import scenario
from pplr_audit.attacks.activation.inverter import Inverter
from pplr_audit.attacks.activation.ridge import Ridge
from pplr_audit.attacks.decoding.titles import TitleReader
from pplr_audit.audit.truth.recommendation import UNTARGETED, RecommendationTruth
from pplr_audit.data.dataset import Dataset
from pplr_audit.models.build import Recommender, build
from pplr_audit.threat_model.attack import Attack, Budget, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.view import View
from tests.attacks.test_prefix_search import knowledge_of, trained, view_of

ATTACKS: list[Any] = [Ridge(prompts=64, held_out=8), Inverter("linear", prompts=192, held_out=8)]
LAYER, ROWS = 1, 12


@pytest.fixture(scope="module")
def model(small_scenario: scenario.Scenario, small_market: Dataset) -> Recommender:
    return build(small_scenario.model, small_market.catalogue, history=3, seed=1)


def served(model: Recommender) -> tuple[View, np.ndarray, np.ndarray]:
    """What crosses of prompts and of the titles generated behind them, whose items are returned with the histories."""
    generator = np.random.default_rng(3)
    drawn = np.array([generator.permutation(48)[:4] for _ in range(ROWS)])
    whole = [model.prompts.build(items[:3], int(items[3])) for items in drawn]
    asked = [model.prompts.build(items[:3]) for items in drawn]
    adapter = trained(model)
    long, short = (
        view_of(model, adapter, prompts, LAYER, channel=Channel.INFERENCE_ACTIVATIONS) for prompts in (whole, asked)
    )
    records = [
        replace(own, generated=both.tensor[len(own.tensor) : -1])
        for own, both in zip(short.records, long.records, strict=True)
    ]
    return replace(short, records=tuple(records)), drawn[:, 3], drawn[:, :3]


def hits(model: Recommender, guess: Guess, items: np.ndarray) -> float:
    classes = model.prompts.title_classes()
    return float((classes[guess.arrays["recommended"][:, 0]] == classes[items]).mean())


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_the_recommendation_is_read_and_the_history_as_without_it(model: Recommender, attack: Attack) -> None:
    view, items, _ = served(model)
    known = knowledge_of(model, trained(model))
    guess = attack.run(view, known, Budget(60))
    assert hits(model, guess, items) >= 0.9
    bare = replace(view, records=tuple(replace(record, generated=None) for record in view.records))
    alone = attack.run(bare, known, Budget(60))
    assert "recommended" not in alone.arrays
    assert guess.arrays.keys() - alone.arrays.keys() == {"recommended"}
    assert all(np.array_equal(guess.arrays[name], values) for name, values in alone.arrays.items())


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_what_was_generated_for_others_tells_nothing(model: Recommender, attack: Attack) -> None:
    view, items, _ = served(model)
    dealt = view.shuffled(np.random.default_rng(0))
    assert all(one.generated is not None for one in dealt.records)
    guess = attack.run(dealt, knowledge_of(model, trained(model)), Budget(60))
    assert hits(model, guess, items) <= 0.2


def test_a_row_for_which_nothing_was_generated_gets_no_answer_and_what_was_read_is_not_recommended(
    model: Recommender,
) -> None:
    view, _, histories = served(model)
    first, *rest = view.records
    view = replace(view, records=(replace(first, generated=None), *rest))
    arrays = ATTACKS[0].run(view, knowledge_of(model, trained(model)), Budget(60)).arrays
    assert (arrays["recommended"][0] == -1).all()
    offsets = arrays["slot_offsets"]
    for row in range(1, ROWS):
        read = arrays["items"][offsets[row] : offsets[row + 1], 0]
        assert set(read) & set(histories[row])
        assert not set(read) & set(arrays["recommended"][row])


def test_a_title_is_ranked_by_all_that_crossed_of_it(model: Recommender) -> None:
    """Also one that is the start of another."""
    reader = TitleReader(model.prompts)
    classes = model.prompts.title_classes()
    for item in range(48):
        crossed = np.concatenate([model.prompts.titles[item], model.prompts.end[:-1]])
        fit = (crossed[:, None] == reader.vocabulary[None, :]).astype(np.float32)
        assert classes[reader.generated(fit, row=item)[0]] == classes[item]


def truth(clients: dict[int, str] | None = None) -> RecommendationTruth:
    popularity = np.array([9.0, 1.0, 5.0, 2.0, 0.0])
    recommended = {0: 1, 1: 1, 2: 3, 3: 4}
    return RecommendationTruth(
        {row: 10 + row for row in recommended}, recommended, np.arange(5), popularity, clients or {}
    )


def test_hits_are_counted_beside_popularity_and_what_is_recommended_to_others() -> None:
    guess = Guess({"rows": np.array([0, 1, 3]), "recommended": np.array([[1, 2], [2, 1], [0, -1]])})
    at = {score.metric: score for score in truth().score(guess, seed=0)}
    assert list(at) == ["recommendation_hit@1", "recommendation_hit@5", "recommendation_hit@10"]
    first, five = at["recommendation_hit@1"], at["recommendation_hit@5"]
    assert (first.estimate.value, five.estimate.value) == (0.25, 0.5)
    assert first.per_user == {10: 1.0, 11: 0.0, 12: 0.0, 13: 0.0}
    floors = {reference.name: reference.value for reference in first.against}
    # To the others of rows 0 and 1 the items 1, 3, 4 once each: the most popular of them is 3. To those of 2 and 3: 1.
    assert floors == {"popularity": 0.0, UNTARGETED: 0.0}
    assert {r.name: r.value for r in five.against} == {"popularity": 1.0, UNTARGETED: 1.0}
    apart = truth({0: "a", 1: "a", 2: "b", 3: "b"}).score(guess, seed=0)[0]
    assert {r.name: r.value for r in apart.against}[UNTARGETED] == 0.5
    assert not truth().answered(Guess({"rows": np.array([0])}))
    assert not replace(truth(), recommended={}).answered(guess)
