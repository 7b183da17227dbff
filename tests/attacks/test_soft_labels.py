"""Where all tokens are trained on, what comes back names the whole sequence; alone, or from what went up."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pplr_audit import pipeline as audit
from pplr_audit import scenario
from pplr_audit.attacks.gradient.bidirectional import UP, Bidirectional
from pplr_audit.attacks.gradient.label_match import LabelMatch
from pplr_audit.attacks.gradient.soft_labels import NEAR, matched
from pplr_audit.audit.knowledge.known_model import KnownModel
from pplr_audit.data.dataset import Dataset
from pplr_audit.data.prompts import Prompt
from pplr_audit.models.architectures import blocks
from pplr_audit.models.build import Recommender, build
from pplr_audit.models.taps import Tapped, tap
from pplr_audit.threat_model.attack import Attack, Budget, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.outcomes import BudgetExhausted
from pplr_audit.threat_model.view import Record, View
from tests.conftest import LAYERS

COUNT = 4


@pytest.fixture(scope="module")
def model(small_scenario: scenario.Scenario, small_market: Dataset) -> Recommender:
    training = small_scenario.training.model_copy(update={"loss_on": "all"})
    return build(small_scenario.model, small_market.catalogue, history=3, seed=1, training=training)


@pytest.fixture(scope="module")
def adapter(model: Recommender) -> dict[str, Tensor]:
    """As after some training."""
    generator = torch.Generator().manual_seed(5)
    return {n: v + torch.randn(v.shape, generator=generator) * 0.02 for n, v in model.initial.items()}


@pytest.fixture(scope="module")
def knowledge(model: Recommender, adapter: dict[str, Tensor]) -> Knowledge:
    copies = {("client-0", 1): KnownModel(model.whole, adapter)}
    base = KnownModel(model.whole, None)
    return Knowledge("front", model.prompts, model.whole.embeddings, base, copies, (1,), 3, LAYERS, loss_on="all")


@pytest.fixture(scope="module")
def prompts(model: Recommender) -> list[Prompt]:
    generator = np.random.default_rng(7)
    return [model.prompts.build(generator.integers(48, size=3), int(generator.integers(48))) for _ in range(COUNT)]


@pytest.fixture(scope="module")
def view_of(model: Recommender, adapter: dict[str, Tensor], prompts: list[Prompt]) -> Callable[..., View]:
    """What crosses in one step over all of the prompts, by the trained model's own loss, at k = 1."""
    activations, gradients = {}, {}
    model.whole.set(adapter)
    whole = list(blocks(model.whole.model))
    places = [*(Tapped(i, block) for i, block in enumerate(whole)), Tapped(LAYERS, whole[-1], leaves=True)]
    with tap(places, activations.__setitem__, gradients.__setitem__):
        model.task.loss(model.whole.model, prompts, model.whole.encoding(adapter)).backward()
    model.whole.model.zero_grad()

    def view(back: int, up: float = 0.0, down: float = 0.0) -> View:
        generator = torch.Generator().manual_seed(1)

        def noisy(tensor: Tensor, noise: float) -> Tensor:
            return tensor + noise * tensor.std() * torch.randn(tensor.shape, generator=generator)

        layer, records = LAYERS - back, []
        for row, prompt in enumerate(prompts):
            own = slice(len(prompt))
            beside = {
                Channel.TRUNK_ACTIVATIONS: activations[layer][row, own],
                UP: noisy(activations[1][row, own].detach(), up),
            }
            gradient = noisy(gradients[layer][row, own], down)
            records.append(Record(row, "client-0", 1, 0, gradient, COUNT, beside))
        return View("server", Channel.BACK_GRADIENTS, 1, back, "none", tuple(records))

    return view


def scored(guess: Guess, prompts: list[Prompt], model: Recommender) -> tuple[float, float, float]:
    """The share of tokens of titles, of items at their places, and of next items."""
    same, starts, slots = model.prompts.title_classes(), guess.arrays["token_offsets"], guess.arrays["slot_offsets"]
    tokens, items, labels = [], [], []
    for row, prompt in enumerate(prompts):
        named = guess.arrays["items"][slots[row] : slots[row + 1], 0]
        read = guess.arrays["tokens"][starts[row] : starts[row + 1]]
        read = np.pad(read, (0, len(prompt)), constant_values=-1)[: len(prompt)]
        tokens.append((read == prompt.tokens)[prompt.slots >= 0])
        told = np.pad(named, (0, 3), constant_values=-1)[:3]
        items.append(np.where(told >= 0, same[told], -1) == same[prompt.items])
        labels.append(same[guess.arrays["labels"][row, 0]] == same[prompt.target])
    return float(np.concatenate(tokens).mean()), float(np.concatenate(items).mean()), float(np.mean(labels))


@pytest.mark.parametrize("back", [0, 1, LAYERS - 1])
def test_what_comes_back_names_the_whole_sequence(
    model: Recommender, knowledge: Knowledge, prompts: list[Prompt], view_of: Callable[..., View], back: int
) -> None:
    guess = LabelMatch().run(view_of(back), knowledge, Budget(120))
    assert scored(guess, prompts, model) == (1.0, 1.0, 1.0)
    assert guess.facts["median_distance"] < 0.3


@pytest.mark.parametrize("attack", [LabelMatch(), Bidirectional(prompts=64, held_out=8)])
def test_it_finds_nothing_of_a_user_in_what_crossed_of_another(
    model: Recommender, knowledge: Knowledge, prompts: list[Prompt], view_of: Callable[..., View], attack: Attack
) -> None:
    shuffled = view_of(1).shuffled(np.random.default_rng(0))
    tokens, items, labels = scored(attack.run(shuffled, knowledge, Budget(120)), prompts, model)
    assert tokens < 0.5, "separate titles share some words at chance"
    assert items < 0.3
    assert labels < 0.3


def test_either_side_is_enough_for_both_together(
    model: Recommender, knowledge: Knowledge, prompts: list[Prompt], view_of: Callable[..., View]
) -> None:
    attack = Bidirectional(prompts=64, held_out=8)
    for up, down in ((0.0, 0.0), (100.0, 0.0), (0.0, 1000.0)):
        guess = attack.run(view_of(1, up, down), knowledge, Budget(120))
        assert scored(guess, prompts, model) == (1.0, 1.0, 1.0), (up, down)
        assert (guess.facts["backward"] > 0.9) == (down == 0.0)


def test_noise_on_both_sides_leaves_nothing(
    model: Recommender, knowledge: Knowledge, prompts: list[Prompt], view_of: Callable[..., View]
) -> None:
    guess = Bidirectional(prompts=64, held_out=8).run(view_of(1, 100.0, 1000.0), knowledge, Budget(120))
    assert scored(guess, prompts, model)[1] < 0.3


def test_the_gradient_of_the_words_themselves_is_left_without_a_rest() -> None:
    """A back that is one matrix: the gradient worked out by hand, softmax less the word."""
    generator = torch.Generator().manual_seed(0)
    matrix, hidden = torch.randn(6, 5, generator=generator), torch.randn(4, 6, generator=generator)
    words = torch.tensor([1, 3, 4])
    tokens = torch.tensor([0, 3, 1, 4])
    errors = (hidden @ matrix).softmax(1)
    errors[torch.arange(3), tokens[1:]] -= 1.0
    gradient = errors @ matrix.T / 3
    gradient[3] = 0.0  # nothing is predicted behind the last
    found = matched(lambda h: h @ matrix, hidden, gradient, words, lambda: None)
    assert words[found.log_probs.argmax(1)].tolist() == tokens[1:].tolist()
    assert found.distance <= NEAR
    hasty = matched(lambda h: h @ matrix, hidden, gradient, words, lambda: None, steps=0)
    assert hasty.distance > 0.1
    assert torch.allclose(hasty.log_probs.exp(), torch.full((3, 3), 1 / 3)), "no step was made"


def test_a_budget_that_is_up_is_said(knowledge: Knowledge, view_of: Callable[..., View]) -> None:
    with pytest.raises(BudgetExhausted):
        LabelMatch().run(view_of(1), knowledge, Budget(-1.0))


def test_in_a_whole_audit_the_gradient_alone_gives_the_history_away(
    small_scenario: scenario.Scenario, tmp_path: Path
) -> None:
    values = small_scenario.model_dump(mode="json")
    values["training"] |= {"loss_on": "all", "rounds": 1}
    values["audit"] |= {
        "attacks": ["label_match", {"bidirectional": {"prompts": 64, "held_out": 8}}], "victims": 6,
        "cuts": [[1, 1]], "adversaries": ["server"],
    }  # fmt: skip
    found = audit.run(scenario.Scenario.model_validate(values), tmp_path / "run").document["findings"]
    rows = {(row["attack"], row["metric"]): row for row in found if row["channel"] == "back_gradients"}
    for name in ("label_match", "bidirectional"):
        for metric in ("token_accuracy", "item_hit@1", "label_hit@1"):
            row = rows[name, metric]
            assert (row["status"], row["cut"]["back"]) == ("ok", 1)
            assert row["value"] > 0.9 > row["baseline"], (name, metric)
