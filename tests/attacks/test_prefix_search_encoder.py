"""Exact search of an encoder's sequences, whose readings are refined as a whole."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pplr_audit import scenario
from pplr_audit.attacks.activation.prefix_search import PrefixSearch
from pplr_audit.attacks.activation.ridge import Ridge
from pplr_audit.attacks.decoding.titles import TitleReader
from pplr_audit.attacks.search.refinement import Refiner
from pplr_audit.attacks.search.walks import Candidates
from pplr_audit.audit.knowledge.known_model import KnownModel
from pplr_audit.data.dataset import Dataset
from pplr_audit.models.build import Recommender, build
from pplr_audit.threat_model.attack import Budget
from pplr_audit.threat_model.outcomes import NotApplicable
from tests.attacks.test_prefix_search import (
    FEW,
    FRONTS,
    SPENT,
    Nothing,
    items_right,
    knowledge_of,
    prompts_of,
    right,
    trained,
    view_of,
)

WORSE = 0.6
"""Of noise on what the ridge inverter says."""


@pytest.fixture(scope="module")
def encoder(recformer_scenario: scenario.Scenario, small_market: Dataset) -> Recommender:
    return build(recformer_scenario.model, small_market.catalogue, history=3, seed=1)


@pytest.mark.parametrize("layer", FRONTS)
def test_an_encoders_sequences_are_read_at_least_as_well_as_by_ridge(encoder: Recommender, layer: int) -> None:
    adapter, prompts = trained(encoder), prompts_of(encoder)
    view, knowledge, same = (
        view_of(encoder, adapter, prompts, layer),
        knowledge_of(encoder, adapter),
        encoder.prompts.title_classes(),
    )
    guess = PrefixSearch(**FEW).run(view, knowledge, Budget(60))
    floor = Ridge(**FEW).run(view, knowledge, Budget(60))
    assert right(guess, prompts) == 1.0 >= right(floor, prompts)
    assert items_right(guess, prompts, same) >= max(0.99, items_right(floor, prompts, same))
    assert guess.facts["verified"] == 1.0
    assert np.array_equal(guess.arrays["claimed"], np.concatenate([prompt.slots >= 0 for prompt in prompts]))
    assert "labels" not in guess.arrays


def test_an_encoder_is_refined_as_far_as_its_readings_go_however_long_that_takes(
    encoder: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter, prompts = trained(encoder), prompts_of(encoder)
    view = view_of(encoder, adapter, prompts, 2)
    monkeypatch.setattr(Ridge, "inverter", lambda *_: Nothing())
    quick, slow, short = (
        PrefixSearch(readings=most).run(view, knowledge_of(encoder, adapter), budget)
        for most, budget in ((64, Budget(60)), (64, Budget(**SPENT)), (1, Budget(60)))
    )
    assert slow.facts == quick.facts
    assert short.facts["evaluations"] < quick.facts["evaluations"]


def test_an_encoder_is_refined_where_ridge_errs(encoder: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter, prompts, same = trained(encoder), prompts_of(encoder), encoder.prompts.title_classes()
    view, inverter = view_of(encoder, adapter, prompts, 2), Ridge.inverter

    class Worse:
        strength, prompts, evaluations = 0.0, 8, 0

        def __init__(self, inverter: Any) -> None:
            self._inverter = inverter

        def __call__(self, x: Tensor) -> Tensor:
            found: Tensor = self._inverter(x)
            return found + WORSE * torch.randn(found.shape, generator=torch.Generator().manual_seed(4))

    def worse(self: Ridge, *given: Any) -> Worse:
        return Worse(inverter(self, *given))

    monkeypatch.setattr(Ridge, "inverter", worse)
    floor = Ridge(**FEW).run(view, knowledge_of(encoder, adapter), Budget(60))
    guess = PrefixSearch(**FEW).run(view, knowledge_of(encoder, adapter), Budget(60))
    assert items_right(floor, prompts, same) < 0.8
    assert items_right(guess, prompts, same) == 1.0


@pytest.mark.parametrize("read", [1, 2])
def test_a_refinement_goes_on_where_the_inverter_ended_too_early(encoder: Recommender, read: int) -> None:
    """Of three items it sees the first one or two, then the suffix; all behind that is illegible."""
    adapter, prompts, same = trained(encoder), encoder.prompts, encoder.prompts.title_classes()
    history, reader = np.array([3, 7, 11]), TitleReader(prompts)  # read newest first
    truth, seen = prompts.build(history, 0), prompts.build(history[-read:], 0).tokens
    ((_, states),) = encoder.whole.states([truth], [1], adapter)
    fit = np.zeros((len(truth.tokens), len(reader.vocabulary)))
    fit[np.arange(len(seen)), np.searchsorted(reader.vocabulary, seen)] = 1.0
    assert len(reader.read(fit)[0]) == read
    refiner = Refiner(prompts, Candidates(prompts, reader), reader, history=3, beam=4, shortlist=48, readings=1024)
    answer = refiner.refine(KnownModel(encoder.whole, adapter), fit, states[1], 1, lambda: None)
    assert same[[int(items[0]) for items in answer.items]].tolist() == same[history[::-1]].tolist()
    assert answer.verified == 3


def test_an_encoder_tells_nothing_where_nothing_is(encoder: Recommender) -> None:
    adapter, prompts, same = trained(encoder), prompts_of(encoder), encoder.prompts.title_classes()
    knowledge, attack = knowledge_of(encoder, adapter), PrefixSearch(shortlist=4, beam=1, **FEW)
    view = view_of(encoder, adapter, prompts, 1)
    noise = attack.run(view_of(encoder, adapter, prompts, 1, noise=1e4), knowledge, Budget(60))
    shuffled = attack.run(view.shuffled(np.random.default_rng(0)), knowledge, Budget(60))
    assert items_right(noise, prompts, same) < 0.2
    assert items_right(shuffled, prompts, same) < 0.2
    with pytest.raises(NotApplicable, match="over: tokens needs a causal model"):
        PrefixSearch("tokens", **FEW).run(view, knowledge, Budget(60))
