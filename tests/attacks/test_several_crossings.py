"""A sample that crosses several times is read from the crossing that can be read, or from all of them together."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pplr_audit.attacks.activation.embedding_match import EmbeddingMatch
from pplr_audit.attacks.activation.inverter import Inverter
from pplr_audit.attacks.activation.prefix_search import PrefixSearch
from pplr_audit.attacks.activation.ridge import Ridge
from pplr_audit.attacks.active.fsha import Fsha
from pplr_audit.attacks.active.sdar import Sdar
from pplr_audit.attacks.decoding.crossings import once
from pplr_audit.attacks.gradient.bidirectional import Bidirectional
from pplr_audit.attacks.gradient.label_match import LabelMatch
from pplr_audit.attacks.metadata.length import Length
from pplr_audit.data.prompts import Prompt
from pplr_audit.models.build import Recommender
from pplr_audit.threat_model.attack import Attack, Budget, reads_every_crossing
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.view import Record, View
from tests.attacks import test_attribute, test_linkage
from tests.attacks.test_label_match import among_the_batch, hits, stepped
from tests.attacks.test_prefix_search import items_right, knowledge_of, prompts_of, right, trained, view_of

SMALL = {"prompts": 64, "held_out": 8}


def crossed_again(views: Sequence[View]) -> View:
    """The same rows, which cross once in each of the views."""
    records = [replace(each, occurrence=number) for number, view in enumerate(views) for each in view.records]
    return replace(views[0], records=tuple(records))


def spoiled(view: View, seed: int = 0) -> View:
    """Noise of the size of what crossed in its place, on all that an attack reads."""
    generator = torch.Generator().manual_seed(seed)

    def noise(like: torch.Tensor) -> torch.Tensor:
        return like.std() * torch.randn(like.shape, generator=generator)

    records = [
        replace(each, tensor=noise(each.tensor), also_reads={name: noise(own) for name, own in each.also_reads.items()})
        for each in view.records
    ]
    return replace(view, records=tuple(records))


ATTACKS: list[Any] = [
    Ridge(**SMALL), Inverter("linear", prompts=384, held_out=8), PrefixSearch(prompts=8, held_out=4),
    EmbeddingMatch(steps=40, **SMALL),
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_a_history_is_read_from_the_crossing_that_can_be_read(model: Recommender, attack: Attack) -> None:
    adapter, prompts = trained(model), prompts_of(model)
    exact, known = view_of(model, adapter, prompts, 1), knowledge_of(model, adapter)
    view = crossed_again([spoiled(exact), exact, view_of(model, trained(model, 0.5), prompts, 1)])
    assert reads_every_crossing(attack)
    guess, first, alone = (attack.run(each, known, Budget(120)) for each in (view, once(view), exact))
    assert guess.arrays["rows"].tolist() == alone.arrays["rows"].tolist(), "one answer a row"
    assert right(first, prompts) < 0.2, "what crossed first cannot be read"
    assert right(guess, prompts) >= right(alone, prompts) > 0.5
    assert guess.facts["crossings"] == 24
    assert guess.facts["crossings_taken"] == {"1": 8}
    for facts in (first.facts, alone.facts):
        assert not any(name.startswith("crossings") for name in facts)
    if attack.name == "prefix_search":
        assert guess.facts["evaluations"] == alone.facts["evaluations"], "only one of them is searched"


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_all_crossings_of_others_tell_nothing_of_a_user(model: Recommender, attack: Attack) -> None:
    adapter, prompts = trained(model), prompts_of(model)
    exact, known = view_of(model, adapter, prompts, 1), knowledge_of(model, adapter)
    view = crossed_again([spoiled(exact), exact, view_of(model, trained(model, 0.1), prompts, 1)])
    dealt = view.shuffled(np.random.default_rng(0))
    assert len(dealt.records) == len(view.records)
    guess = attack.run(dealt, known, Budget(120))
    assert items_right(guess, prompts, model.prompts.title_classes()) < 0.25


def both_sides(model: Recommender, adapter: dict[str, torch.Tensor], prompts: list[Prompt]) -> Callable[[float], View]:
    """What crosses in a step at k = m = 1, by the noise on what comes back."""
    sent = {record.row: record.tensor for record in view_of(model, adapter, prompts, 1).records}
    step = stepped(model, adapter, prompts, model.task.loss)

    def view(noise: float) -> View:
        records = [
            replace(each, also_reads={**each.also_reads, Channel.FRONT_ACTIVATIONS: sent[each.row]})
            for each in step(1, noise).records
        ]
        return View("server", Channel.BACK_GRADIENTS, 1, 1, "none", tuple(records))

    return view


@pytest.mark.parametrize("attack", [LabelMatch(8), Bidirectional(8, **SMALL)], ids=lambda attack: attack.name)
def test_a_label_is_read_from_the_crossing_that_is_explained(model: Recommender, attack: Attack) -> None:
    adapter, prompts = trained(model), prompts_of(model)
    exact, known = both_sides(model, adapter, prompts)(0.0), knowledge_of(model, adapter)
    view = crossed_again([spoiled(exact), exact, spoiled(exact, 1)])
    assert reads_every_crossing(attack)
    guess, first, alone = (attack.run(each, known, Budget(120)) for each in (view, once(view), exact))
    assert hits(first.arrays["labels"], prompts, model) <= 0.25
    assert hits(guess.arrays["labels"], prompts, model) == hits(alone.arrays["labels"], prompts, model) == 1.0
    assert guess.facts["crossings"] == 24
    assert guess.facts["crossings_taken"] == {"1": 8}
    if attack.name == "bidirectional":
        assert right(first, prompts) < 0.2 < right(alone, prompts) <= right(guess, prompts)
    dealt = attack.run(view.shuffled(np.random.default_rng(0)), known, Budget(120))
    assert hits(dealt.arrays["labels"], prompts, model) <= 0.25


def noisy(view: View, level: float, times: int) -> list[View]:
    """Noise of the same size every time, drawn anew."""
    views = []
    for seed in range(times):
        generator = torch.Generator().manual_seed(seed)
        records = []
        for each in view.records:
            noise = level * each.tensor.std() * torch.randn(each.tensor.shape, generator=generator)
            records.append(replace(each, tensor=each.tensor + noise))
        views.append(replace(view, records=tuple(records)))
    return views


@pytest.mark.parametrize("loss", ["known", "among the batch"])
def test_noise_that_hides_a_label_in_every_crossing_is_seen_through_by_all_together(
    model: Recommender, loss: str
) -> None:
    if loss != "known" and model.whole.causal:
        pytest.skip("a decoder's loss is over its words")
    adapter, prompts = trained(model), prompts_of(model)[:4]
    step = stepped(model, adapter, prompts, model.task.loss if loss == "known" else among_the_batch(model))
    known = knowledge_of(model, adapter)
    views = noisy(step(1), 30.0 if model.whole.causal else 20.0 if loss == "known" else 10.0, 5)
    alone = [hits(LabelMatch().run(view, known, Budget(120)).arrays["labels"], prompts, model) for view in views]
    guess = LabelMatch().run(crossed_again(views), known, Budget(120))
    assert guess.facts["crossings_joined"] == 4
    assert hits(guess.arrays["labels"], prompts, model) > np.mean(alone)


@pytest.mark.parametrize("attack", [Sdar(steps=160), Fsha(steps=160)], ids=lambda attack: attack.name)
def test_a_decoder_reads_all_crossings_together(model: Recommender, attack: Any) -> None:
    prompts, known = prompts_of(model), replace(knowledge_of(model, model.initial), auxiliary="catalogue")
    exact = view_of(model, model.initial, prompts, 1)
    if attack.name == "fsha":
        attack.craft_gradient(known, 1, Budget(120))
    view = crossed_again([spoiled(exact), exact, view_of(model, trained(model, 0.01), prompts, 1)])
    assert reads_every_crossing(attack)
    guess, first, alone = (attack.run(each, known, Budget(120)) for each in (view, once(view), exact))
    assert guess.arrays["rows"].tolist() == alone.arrays["rows"].tolist()
    assert right(first, prompts) < 0.25 < right(alone, prompts) - 0.25
    assert right(guess, prompts) > right(first, prompts) + 0.3
    assert guess.facts["crossings"] == 24
    assert "crossings" not in alone.facts
    dealt = attack.run(view.shuffled(np.random.default_rng(0)), known, Budget(120))
    assert items_right(dealt, prompts, model.prompts.title_classes()) < 0.25


def drifting(view: View, level: float, times: int) -> View:
    """Noise of the rows' own in each crossing, and a move that all of them make."""
    views = []
    for number in range(times):
        generator = torch.Generator().manual_seed(number)
        width = view.records[0].tensor.shape[1]
        moved = 50 * number * torch.randn(width, generator=generator)
        records = [
            replace(each, tensor=each.tensor + moved + level * torch.randn(1, width, generator=generator))
            for each in view.records
        ]
        views.append(replace(view, records=tuple(records)))
    return crossed_again(views)


def test_an_attribute_is_learned_from_the_mean_of_all_crossings() -> None:
    values = test_attribute.values_of(2)
    truth = test_attribute.truth_of(values)
    view = drifting(test_attribute.view_of(values, 1.0), 2.0, 8)
    area, first, control = (
        truth.score(test_attribute.answer(values, each), seed=0)[0].estimate
        for each in (view, once(view), view.shuffled(np.random.default_rng(0)))
    )
    assert reads_every_crossing(test_attribute.Attribute("kind"))
    assert area.value > first.value + 0.1
    assert control.low < 0.5 < control.high
    assert test_attribute.answer(values, view).facts["crossings"] == 8 * test_attribute.USERS


@pytest.mark.parametrize("rounds", [(1, 1), (2, 1)])
def test_users_are_linked_by_the_mean_of_all_crossings(rounds: tuple[int, int]) -> None:
    truth = test_linkage.truth()
    view = drifting(test_linkage.view_of(1.0, rounds=rounds), 2.0, 8)
    area, first, control = (
        truth.score(test_linkage.attacked(each), seed=0)[0].estimate
        for each in (view, once(view), view.shuffled(np.random.default_rng(0)))
    )
    assert reads_every_crossing(test_linkage.Linkage())
    assert area.value > first.value + 0.1
    assert control.value < 0.6
    guess = test_linkage.attacked(view)
    assert guess.facts["crossings"] == 8 * len(guess.arrays["rows"]) == len(view.records)


def test_the_shortest_of_masks_that_a_defense_lengthens_is_read(model: Recommender) -> None:
    prompts, known = prompts_of(model), knowledge_of(model, model.initial)
    generator = np.random.default_rng(3)
    longer = generator.integers(1, 9, size=(3, len(prompts)))
    longer[generator.integers(1, 3, size=len(prompts)), np.arange(len(prompts))] = 0
    views = [
        View(
            "server", Channel.METADATA, None, None, "padded",
            tuple(Record(row, "client-0", 1, 0, torch.ones(len(p) + int(more[row]))) for row, p in enumerate(prompts)),
        )
        for more in (*longer, np.zeros(len(prompts), dtype=np.int64))
    ]  # fmt: skip
    *padded, exact = views
    told, true = (Length().run(view, known, Budget(60)) for view in (crossed_again(padded), exact))
    assert reads_every_crossing(Length())
    assert all(np.array_equal(told.arrays[name], array) for name, array in true.arrays.items())
    assert told.facts == {**true.facts, "crossings": 24}
    assert Length().run(padded[0], known, Budget(60)).arrays["tokens"].shape != true.arrays["tokens"].shape
