"""A simulated client follows a front that training has moved, and finds nothing where nothing is."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pplr_audit import scenario
from pplr_audit.attacks.active import sdar
from pplr_audit.attacks.active.sdar import Sdar
from pplr_audit.audit.knowledge.known_model import KnownModel
from pplr_audit.data.bigrec_prompts import title_prompts
from pplr_audit.data.dataset import Dataset
from pplr_audit.data.prepare import prepare
from pplr_audit.data.prompts import Prompt
from pplr_audit.data.synthetic import other_catalogue
from pplr_audit.errors import InputError
from pplr_audit.models.build import Recommender, build
from pplr_audit.scenario import plugins
from pplr_audit.threat_model.attack import Budget, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.outcomes import BudgetExhausted, NotApplicable
from pplr_audit.threat_model.view import Record, View
from pplr_audit.training.rounds import assemble, train
from tests.conftest import LAYERS

ROUNDS, STEPS = 10, 200

Crossed = tuple[Recommender, list[Prompt], Callable[[int], View]]


@pytest.fixture(scope="module")
def crossed(small_scenario: scenario.Scenario) -> Crossed:
    """What crosses of one client's samples after an honest training that moved its front far."""
    private = prepare(small_scenario.data, small_scenario.seed)
    training = small_scenario.training.model_copy(update={"rounds": ROUNDS})
    model = build(small_scenario.model, private.dataset.catalogue, history=3, seed=1, training=training)
    strategy = plugins.load("strategies", training.strategy)(training)
    federation = assemble(private.samples, model, training, strategy, seed=1)
    train(federation, ROUNDS, done=lambda log, state: None)
    adapter, own = federation.state(ROUNDS + 1).adapters["client-0"], private.samples["client-0"]
    prompts = [model.prompts.build(own.history[row], int(own.targets[row])) for row in range(len(own))]

    def view(layer: int) -> View:
        seen = sorted(model.whole.states(prompts, [layer], adapter))
        records = tuple(Record(row, "client-0", ROUNDS, 0, states[layer]) for row, states in seen)
        return View("server", Channel.FRONT_ACTIVATIONS, layer, None, "none", records)

    return model, prompts, view


def known(model: Recommender) -> Knowledge:
    """Public weights only."""
    base = KnownModel(model.whole, None)
    return Knowledge("base", model.prompts, model.whole.embeddings, base, {}, (0, 1, 2), 3, LAYERS)


def right(guess: Guess, prompts: Sequence[Prompt]) -> float:
    """Title tokens right at their place."""
    offsets, tokens, hits = guess.arrays["token_offsets"], guess.arrays["tokens"], []
    for place, row in enumerate(guess.arrays["rows"]):
        answer, true = tokens[offsets[place] : offsets[place + 1]], prompts[row]
        own = np.zeros(len(true), dtype=bool)
        own[: len(answer)] = answer[: len(true)] == true.tokens[: len(answer)]
        hits.append(own[true.slots >= 0])
    return float(np.concatenate(hits).mean())


@pytest.fixture(scope="module")
def found(crossed: Crossed) -> Guess:
    model, _, view = crossed
    return Sdar(steps=STEPS).run(view(1), known(model), Budget(300))


def test_it_reads_a_front_that_training_has_moved_without_a_copy_of_it(
    crossed: Crossed, found: Guess, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, prompts, view = crossed
    assert right(found, prompts) > 0.9
    offsets, items = found.arrays["slot_offsets"], found.arrays["items"]
    named = [items[offsets[row] : offsets[row + 1], 0] for row in range(len(prompts))]
    same = [(a[: len(p.items)] == p.items[: len(a)]).mean() for a, p in zip(named, prompts, strict=True)]
    assert np.mean(same) > 0.9
    assert np.mean(found.arrays["labels"][:, 0] == [prompt.target for prompt in prompts]) > 0.8
    monkeypatch.setattr(sdar, "FRONT_RATE", 0.0)  # a decoder of the public front, which nothing moves
    still = Sdar(steps=STEPS).run(view(1), known(model), Budget(300))
    assert right(still, prompts) < right(found, prompts) - 0.2


def test_it_finds_nothing_of_a_user_in_the_activations_of_another_nor_in_noise(crossed: Crossed, found: Guess) -> None:
    model, prompts, view = crossed
    dealt = Sdar(steps=STEPS).run(view(1).shuffled(np.random.default_rng(0)), known(model), Budget(300))
    assert right(dealt, prompts) < right(found, prompts) / 3
    generator = torch.Generator().manual_seed(1)
    records = [replace(r, tensor=torch.randn(r.tensor.shape, generator=generator)) for r in view(1).records]
    noise = Sdar(steps=20).run(replace(view(1), records=tuple(records)), known(model), Budget(300))
    assert right(noise, prompts) < 0.1


def test_recformer_is_read_as_well_and_has_one_item_for_an_answer(
    recformer_scenario: scenario.Scenario, small_market: Dataset
) -> None:
    model = build(recformer_scenario.model, small_market.catalogue, history=3, seed=1)
    generator = np.random.default_rng(99)
    prompts = [model.prompts.build(generator.integers(48, size=3), int(generator.integers(48))) for _ in range(8)]
    seen = sorted(model.whole.states(prompts, [1], model.initial))
    records = tuple(Record(row, "client-0", 1, 0, states[1]) for row, states in seen)
    view = View("server", Channel.FRONT_ACTIVATIONS, 1, None, "none", records)
    guess = Sdar(steps=160).run(view, known(model), Budget(300))
    assert right(guess, prompts) > 0.9
    assert "labels" not in guess.arrays, "what crosses holds none"


def test_the_same_seed_answers_the_same_and_leaves_the_model_as_it_was(crossed: Crossed) -> None:
    model, _, view = crossed
    before = {name: p.detach().clone() for name, p in model.whole.model.named_parameters()}

    def answer(start: str, seed: int) -> np.ndarray:
        torch.rand(1)  # whatever else is drawn
        return Sdar(start=start, steps=4, seed=seed).run(view(1), known(model), Budget(60)).arrays["tokens"]

    for start in ("base", "random"):
        assert np.array_equal(answer(start, 0), answer(start, 0))
        assert not np.array_equal(answer(start, 0), answer(start, 1))
    model.whole.set(None)
    for name, parameter in model.whole.model.named_parameters():
        assert torch.equal(parameter, before[name]) or ".lora_" in name
        assert parameter.grad is None


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_front_of_its_own_begins_as_the_public_one_and_shares_nothing_with_it(crossed: Crossed, layer: int) -> None:
    model, prompts, _ = crossed
    front = KnownModel(model.whole, None).front(layer)
    hidden, mask = front(prompts[:4])
    for place, states in model.whole.states(prompts[:4], [layer], None):
        assert torch.equal(hidden[place, mask[place].bool()], states[layer])
    own = {parameter.data_ptr() for parameter in front.parameters()}
    assert not own & {parameter.data_ptr() for parameter in model.whole.model.parameters()}
    assert sum(parameter.requires_grad for parameter in front.parameters()) == 6 * layer, "A and B of three targets"


def test_it_says_when_it_cannot_answer(crossed: Crossed) -> None:
    model, _, view = crossed
    for changed, said in (
        ({"records": ()}, "nothing crossed"), ({"front": None}, "does not depend on a front"),
        ({"records": (Record(7, "client-0", 1, 0, torch.full((5, 32), float("nan"))),)}, "row 7 is not finite"),
    ):  # fmt: skip
        with pytest.raises(NotApplicable, match=said):
            Sdar().run(replace(view(1), **changed), known(model), Budget(60))
    with pytest.raises(BudgetExhausted):
        Sdar().run(view(1), known(model), Budget(-1))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"start": "front"}, r"sdar: start is 'front' \(accepted: base, random\)"),
        ({"steps": 0}, r"sdar: steps is 0 \(accepted: a whole number, 1 or more\)"),
        ({"batch": True}, r"sdar: batch is True"),
        ({"width": 2.5}, r"sdar: width is 2.5"),
        ({"seed": -1}, r"sdar: seed is -1 \(accepted: a whole number, 0 or more\)"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Sdar(**settings)


def test_it_learns_from_the_text_that_the_adversary_has(crossed: Crossed) -> None:
    model, _, view = crossed
    with pytest.raises(NotApplicable, match="learns from auxiliary text"):
        Sdar(steps=1).run(view(1), replace(known(model), auxiliary="none"), Budget(60))
    other = other_catalogue(prepare(scenario.Data(), 0).dataset.catalogue, 3)
    text = title_prompts(model.tokenizer, other.titles, max_tokens=256, history=3)
    asked = replace(known(model), auxiliary="public", elsewhere=text)
    assert len(Sdar(steps=2).run(view(1), asked, Budget(60)).arrays["rows"]) == len(view(1).records)
