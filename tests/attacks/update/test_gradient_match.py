"""Samples are found by the update that they give, as whole titles or as words on free embeddings."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binom

from pplr_audit.attacks.update.distances import Distance, by_layer, distance
from pplr_audit.attacks.update.free_words import Matching
from pplr_audit.attacks.update.gradient_match import GradientMatch
from pplr_audit.data.prompts import TEMPLATE, Prompt
from pplr_audit.errors import InputError
from pplr_audit.models.build import Recommender
from pplr_audit.models.linears import Linear
from pplr_audit.threat_model import Budget, Guess, Knowledge, LocalSteps, NotApplicable
from tests.attacks.update.clients import ADAMW, Clients, random_prompts
from tests.conftest import LAYERS

TITLES, HISTORY = GradientMatch(start="nothing", tries=500), 2


@pytest.fixture(scope="module")
def clients(model: Recommender) -> Clients:
    """Two clients of one sample, and so of one step."""
    return Clients(model, {f"client-{place}": [own] for place, own in enumerate(random_prompts(model, 2, 8, HISTORY))})


def known(clients: Clients, **fields: Any) -> Knowledge:
    return replace(clients.knowledge(**fields), history=HISTORY)


def hits(guess: Guess, clients: Clients) -> float:
    """Share of the items that a client's samples hold or answer with, among as many of the best."""
    bounds, shares = guess.arrays["item_offsets"], []
    for row, samples in enumerate(clients.samples.values()):
        place = guess.arrays["rows"].tolist().index(row)
        true = {int(item) for prompt in samples for item in (*prompt.items, prompt.target)}
        best = guess.arrays["ranked_items"][bounds[place] : bounds[place + 1]][: len(true)]
        shares.append(len(true & set(best.tolist())) / len(true))
    return float(np.mean(shares))


def test_titles_of_a_single_sample_are_found_whole_and_in_order(clients: Clients) -> None:
    guess = TITLES.run(clients.view(), known(clients), Budget(600))
    assert hits(guess, clients) == 1
    assert guess.facts["median_distance"] < 1e-3
    bounds = guess.arrays["sequence_offsets"]
    for row, (own,) in enumerate(clients.samples.values()):
        read = guess.arrays["sequence_tokens"][bounds[row] : bounds[row + 1]]
        assert read.tolist() == own.tokens[own.slots != TEMPLATE].tolist()


def disjoint(model: Recommender, count: int, seed: int) -> list[Prompt]:
    """Prompts of which no two have a common item."""
    size = HISTORY + 1
    order = np.random.default_rng(seed).permutation(len(model.prompts.titles))[: count * size].reshape(count, size)
    return [model.prompts.build(items[:HISTORY], int(items[HISTORY])) for items in order]


def test_steps_of_adamw_with_weight_decay_are_matched_by_simulating_them(model: Recommender) -> None:
    samples = {f"client-{place}": [own] for place, own in enumerate(disjoint(model, 5, 9))}
    clients = Clients(model, samples, ADAMW)
    guess = TITLES.run(clients.view(), known(clients), Budget(600))
    assert hits(guess, clients) >= 0.75  # by chance: .06


def test_the_update_of_another_client_names_a_clients_items_no_oftener_than_chance(model: Recommender) -> None:
    """Twelve clients without a common item: of two clients 6 items are scored, and two hits by luck are .33."""
    clients = Clients(model, {f"client-{place:02d}": [own] for place, own in enumerate(disjoint(model, 12, 8))})
    quick, seen = GradientMatch(start="nothing", tries=60), clients.view()
    by_luck = float(binom.ppf(0.999, 36, 3 / len(model.prompts.titles))) / 36
    assert hits(quick.run(seen, known(clients), Budget(600)), clients) > by_luck, "there is something to find"
    shuffled = seen.shuffled(np.random.default_rng(0))
    assert hits(quick.run(shuffled, known(clients), Budget(600)), clients) <= by_luck


def test_items_are_tried_by_the_ranking_of_another_attack(clients: Clients) -> None:
    """A layer of 32 numbers is too narrow for it here, and then all items are tried in any order."""
    guess = GradientMatch(tries=10).run(clients.view(), known(clients), Budget(600))
    assert len(guess.arrays["ranked_items"]) == 2 * 48
    assert len(set(guess.arrays["ranked_items"][:48].tolist())) == 48


def test_words_are_read_on_free_embeddings_and_more_by_the_cosine_as_published(clients: Clients) -> None:
    """Lengths and answer are known, as in the papers' setting; of words drawn at random one in ten is right."""
    (own,) = clients.samples["client-0"]
    wanted, unknown = clients.known.gradients([own]), own.slots >= 0
    vocabulary, right = clients.model.whole.embeddings, dict[str, float]()
    kinds: tuple[Distance, ...] = ("cosine", "l1")
    for kind in kinds:
        matching = Matching(kind=kind, steps=80, turns=2, moves=4)
        tokens = matching.words(clients.known, own, unknown, wanted, vocabulary, lambda: None, 0)
        assert (tokens[~unknown] == own.tokens[~unknown]).all()
        right[kind] = float(np.isin(tokens[unknown], own.tokens[unknown]).mean())
    assert right["cosine"] > 0.3
    assert right["cosine"] > right["l1"]


def test_the_plain_squares_of_dlg_read_more_words_than_chance(clients: Clients) -> None:
    """All words of four prompts, pooled: 9 of 33 were read when this was written."""
    if not clients.known.causal:
        pytest.skip("a prompt of the encoder takes minutes, and its squares have not been measured")
    vocabulary, right, words = clients.model.whole.embeddings, 0, 0
    for seed in (3, 8, 20, 21):
        (own,) = disjoint(clients.model, 1, seed)
        unknown = own.slots >= 0
        tokens = Matching(kind="l2", steps=80, turns=1).words(
            clients.known, own, unknown, clients.known.gradients([own]), vocabulary, lambda: None, 0
        )
        right += int(np.isin(own.tokens[unknown], tokens[unknown]).sum())
        words += int(unknown.sum())
    assert right > binom.ppf(0.999, words, 15 / len(vocabulary)), "15 words are read of a prompt, at most"


def test_the_attack_by_words_names_the_answer_among_the_first(clients: Clients) -> None:
    guess = GradientMatch(by="words", steps=3).run(clients.view(), known(clients), Budget(600))
    firsts = guess.arrays["ranked_items"][guess.arrays["item_offsets"][:-1]]
    right = [own.target == first for (own,), first in zip(clients.samples.values(), firsts, strict=True)]
    assert sum(right) >= (2 if clients.known.causal else 1)


def test_distances_are_zero_for_the_same_and_differentiable() -> None:
    wanted = {"a": torch.tensor([3.0, 4.0]), "b": torch.zeros(2), "c": torch.ones(1)}
    assert all(float(distance(wanted, wanted, kind)) == pytest.approx(0, abs=1e-12) for kind in ("cosine", "l2", "l1"))
    found = {"a": torch.tensor([4.0, -3.0], requires_grad=True), "b": torch.ones(2), "c": -torch.ones(1)}
    assert float(distance(found, wanted, "cosine")) == pytest.approx(1.5), (
        "the mean of 1 and 2; what is zero says nothing"
    )
    assert float(distance(found, wanted, "l2")) == pytest.approx((50 + 4) / 26)
    assert float(distance(found, wanted, "l1")) == pytest.approx((54 + 0.01 * (8 + 2)) / (26 + 0.01 * 8))
    (slope,) = torch.autograd.grad(distance(found, wanted), found["a"])
    assert slope.norm() > 0
    with pytest.raises(ValueError, match="no tensor"):
        distance({}, wanted)


def test_absolute_differences_weigh_less_the_later_the_layer_as_in_tag(clients: Clients) -> None:
    """Computed by hand: squares 16 + 9, absolute differences 4 in the first of two blocks and 3 in the second."""
    linears = [
        Linear("a", 0, 2, 2, "a", weight="first"), Linear("b", 1, 2, 2, "b", lora_a="second", lora_b="third"),
        Linear("head", 2, 2, 2, "head", weight="last"), Linear("words", -1, 2, 2, "words", weight="front"),
    ]  # fmt: skip
    weights = by_layer(linears, 2)
    assert weights == pytest.approx({"first": 1, "second": 2 / 3, "third": 2 / 3, "last": 1 / 3, "front": 1})
    wanted = {"first": torch.tensor([1.0, 0.0]), "second": torch.tensor([0.0, 1.0])}
    found = {"first": torch.tensor([5.0, 0.0]), "second": torch.tensor([0.0, 4.0])}
    apart, whole = 16 + 9 + 0.01 * (4 + 2 / 3 * 3), 1 + 1 + 0.01 * (1 + 2 / 3)
    assert float(distance(found, wanted, "l1", weights)) == pytest.approx(apart / whole)
    assert float(distance(found, wanted, "l2", weights)) == pytest.approx(25 / 2)
    own = by_layer(clients.known.linears.values(), LAYERS)
    assert set(own) <= set(clients.known.adapter)
    assert {round(own[each.lora_b], 6) for each in clients.known.linears.values()} == {1, 0.75, 0.5}


def test_it_says_why_it_does_not_apply(clients: Clients) -> None:
    view = clients.view()
    many = {(client, 1): LocalSteps(9, (1.0,)) for client in clients.samples}
    with pytest.raises(NotApplicable, match=r"at most 4 of a client \(samples\), and each update here is of 9 or more"):
        TITLES.run(view, known(clients, steps=many), Budget(60))
    with pytest.raises(NotApplicable, match="does not know their samples"):
        TITLES.run(view, known(clients, steps={}), Budget(60))
    with pytest.raises(NotApplicable, match="does not know the training's recipe"):
        TITLES.run(view, known(clients, recipe=None), Budget(60))
    nothing = tuple(replace(each, tensors={n: 0 * t for n, t in each.tensors.items()}) for each in view.records)
    with pytest.raises(NotApplicable, match="all of the update is zero"):
        TITLES.run(replace(view, records=nothing), known(clients), Budget(60))
    with pytest.raises(InputError, match=r"gradient_match: by is 'letters' \(accepted: titles, words\)"):
        GradientMatch(by="letters")  # type: ignore[arg-type]  # as a scenario may say
    with pytest.raises(InputError, match=r"gradient_match: tries is 0 \(accepted: a whole number, 1 or more\)"):
        GradientMatch(tries=0)
