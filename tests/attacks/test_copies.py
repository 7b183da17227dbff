"""With copies of a client's model from both ends of a round, each record is read by the one that explains it better."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from pplr_audit import scenario
from pplr_audit.attacks.activation.embedding_match import EmbeddingMatch
from pplr_audit.attacks.activation.inverter import Inverter
from pplr_audit.attacks.activation.prefix_search import PrefixSearch
from pplr_audit.attacks.activation.ridge import Ridge
from pplr_audit.attacks.gradient.bidirectional import Bidirectional
from pplr_audit.attacks.gradient.label_match import LabelMatch
from pplr_audit.audit.knowledge.known_model import KnownModel
from pplr_audit.data.dataset import Dataset
from pplr_audit.data.prompts import Prompt
from pplr_audit.models.build import Recommender, build
from pplr_audit.threat_model.attack import Attack, Budget, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.view import View
from tests.attacks.test_label_match import hits, stepped
from tests.attacks.test_prefix_search import knowledge_of, prompts_of, right, trained, view_of

SMALL = {"prompts": 64, "held_out": 8}


def moved(model: Recommender) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A client's model before and after a long round."""
    return trained(model, 0.02), trained(model, 0.3)


def known(model: Recommender) -> Knowledge:
    start, end = moved(model)
    return replace(knowledge_of(model, start), ends={("client-0", 1): KnownModel(model.whole, end)})


def crossed(model: Recommender, prompts: list[Prompt], layer: int) -> View:
    """The first four cross as the round begins, the others as it ends."""
    first, last = (view_of(model, adapter, prompts, layer).records for adapter in moved(model))
    return View("server", Channel.FRONT_ACTIVATIONS, layer, None, "none", (*first[:4], *last[4:]))


ATTACKS: list[Any] = [
    Ridge(**SMALL), Inverter("linear", prompts=384, held_out=8), PrefixSearch(prompts=8, held_out=4),
    EmbeddingMatch(steps=40, **SMALL),
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_each_record_is_read_by_the_copy_that_explains_it_better(model: Recommender, attack: Attack) -> None:
    prompts, both = prompts_of(model), known(model)
    view = crossed(model, prompts, 1)
    guess = attack.run(view, both, Budget(60))
    if attack.name == "embedding_match" and not both.base.causal:  # marks are taken for part of the words
        assert sum(guess.facts["copies_taken"].values()) == 8
    elif attack.name == "inverter" and not both.base.causal:  # two networks are not sure in the same measure
        assert guess.facts["copies_taken"] == {"start": 8}
    else:
        assert guess.facts["copies_taken"] == {"start": 4, "end": 4}
    alone = attack.run(view, replace(both, ends={}), Budget(60))
    assert "copies_taken" not in alone.facts
    assert right(guess, prompts) >= right(alone, prompts)
    if attack.name == "prefix_search":
        assert guess.facts["verified"] == 1.0 > alone.facts["verified"]


def labels_of(guess: Guess) -> np.ndarray:
    return guess.arrays["labels"]


def test_each_gradient_is_matched_by_the_copy_that_explains_it_better(model: Recommender) -> None:
    prompts, both = prompts_of(model), known(model)
    first, last = (stepped(model, adapter, prompts, model.task.loss)(2).records for adapter in moved(model))
    view = View("server", Channel.BACK_GRADIENTS, None, 2, "none", (*first[:4], *last[4:]))
    guess, alone = (LabelMatch().run(view, given, Budget(60)) for given in (both, replace(both, ends={})))
    assert guess.facts["copies_taken"] == {"start": 4, "end": 4}
    assert guess.facts["median_distance"] < 1e-3 < alone.facts["median_distance"]
    assert hits(labels_of(guess), prompts, model) == 1.0 >= hits(labels_of(alone), prompts, model)


def test_both_sides_take_the_copy_that_explains_them(model: Recommender) -> None:
    prompts, both = prompts_of(model), known(model)
    up = crossed(model, prompts, 1).records
    first, last = (stepped(model, adapter, prompts, model.task.loss)(1).records for adapter in moved(model))
    records = tuple(
        replace(record, also_reads={**record.also_reads, Channel.FRONT_ACTIVATIONS: sent.tensor})
        for record, sent in zip((*first[:4], *last[4:]), up, strict=True)
    )
    view = View("server", Channel.BACK_GRADIENTS, 1, 1, "none", records)
    guess, alone = (Bidirectional(**SMALL).run(view, given, Budget(60)) for given in (both, replace(both, ends={})))
    assert guess.facts["backward"] > 0.99 > alone.facts["backward"]
    assert right(guess, prompts) >= right(alone, prompts)


def test_soft_labels_take_the_copy_that_explains_them(small_scenario: scenario.Scenario, small_market: Dataset) -> None:
    training = small_scenario.training.model_copy(update={"loss_on": "all"})
    model = build(small_scenario.model, small_market.catalogue, history=3, seed=1, training=training)
    prompts, both = prompts_of(model), replace(known(model), loss_on="all")
    first, last = (stepped(model, adapter, prompts, model.task.loss)(1).records for adapter in moved(model))
    view = View("server", Channel.BACK_GRADIENTS, None, 1, "none", (first[0], last[1]))
    guess = LabelMatch(steps=60).run(view, both, Budget(60))
    assert guess.facts["copies_taken"] == {"start": 1, "end": 1}
