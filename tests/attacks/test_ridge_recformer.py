"""Ridge inversion of RecFormer's sequences: it finds the history where it is, and nothing where nothing is."""

import numpy as np
import pytest
import torch

from pplr_audit import scenario
from pplr_audit.attacks.activation.ridge import Ridge
from pplr_audit.attacks.decoding.titles import TitleReader
from pplr_audit.audit.knowledge.known_model import KnownModel
from pplr_audit.data.dataset import Dataset
from pplr_audit.data.prompts import Prompt
from pplr_audit.models.build import Recommender, build
from pplr_audit.threat_model.attack import Budget, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.view import Record, View
from tests.conftest import LAYERS


@pytest.fixture(scope="module")
def model(recformer_scenario: scenario.Scenario, small_market: Dataset) -> Recommender:
    return build(recformer_scenario.model, small_market.catalogue, history=3, seed=1)


@pytest.fixture(scope="module")
def adapter(model: Recommender) -> dict[str, torch.Tensor]:
    """As after some training: the marks are not zero."""
    generator = torch.Generator().manual_seed(5)
    return {n: v + torch.randn(v.shape, generator=generator) * 0.02 for n, v in model.initial.items()}


@pytest.fixture(scope="module")
def knowledge(model: Recommender, adapter: dict[str, torch.Tensor]) -> Knowledge:
    return Knowledge(
        "front", model.prompts, model.whole.embeddings, KnownModel(model.whole, None),
        {("client-0", 1): KnownModel(model.whole, adapter)}, (0, 1), 3, LAYERS,
    )  # fmt: skip


@pytest.fixture(scope="module")
def prompts(model: Recommender) -> list[Prompt]:
    generator = np.random.default_rng(99)
    return [model.prompts.build(generator.integers(48, size=3), int(generator.integers(48))) for _ in range(10)]


def attacked(
    model: Recommender, knowledge: Knowledge, prompts: list[Prompt], adapter: dict[str, torch.Tensor], layer: int,
    noise: float = 0.0,
) -> Guess:  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    records = []
    for place, states in sorted(dict(model.whole.states(prompts, [layer], adapter)).items()):
        hidden = states[layer] + noise * torch.randn(states[layer].shape, generator=generator)
        records.append(Record(place, "client-0", 1, 0, hidden))
    view = View("server", Channel.FRONT_ACTIVATIONS, layer, None, "none", tuple(records))
    return Ridge(prompts=64, held_out=8).run(view, knowledge, Budget(60))


def right(guess: Guess, prompts: list[Prompt]) -> tuple[float, float]:
    """Share of an item's own tokens, and of items at their places, that were read."""
    tokens, slots = guess.arrays["token_offsets"], guess.arrays["slot_offsets"]
    words, items = [], []
    for i, prompt in enumerate(prompts):
        words.append((guess.arrays["tokens"][tokens[i] : tokens[i + 1]] == prompt.tokens)[prompt.slots >= 0])
        read = guess.arrays["items"][slots[i] : slots[i + 1], 0][: len(prompt.items)]
        items.append(np.pad(read, (0, len(prompt.items) - len(read)), constant_values=-1) == prompt.items)
    return float(np.concatenate(words).mean()), float(np.concatenate(items).mean())


def test_items_are_read_off_a_perfect_fit_the_newest_first(model: Recommender, prompts: list[Prompt]) -> None:
    reader = TitleReader(model.prompts)
    for prompt in prompts:
        fit = (prompt.tokens[:, None] == reader.vocabulary[None, :]).astype(np.float32)
        found = reader.read(fit)
        assert found.items[:, 0].tolist() == prompt.items.tolist()
        assert np.array_equal(found.claimed, prompt.slots >= 0), "names of attributes are the template's"


@pytest.mark.parametrize("layer", [0, 1])
def test_it_reads_the_history_where_it_is(
    model: Recommender, knowledge: Knowledge, prompts: list[Prompt], adapter: dict[str, torch.Tensor], layer: int
) -> None:
    tokens, items = right(attacked(model, knowledge, prompts, adapter, layer), prompts)
    assert tokens > 0.9
    assert items > 0.9


def test_it_finds_nothing_in_noise(
    model: Recommender, knowledge: Knowledge, prompts: list[Prompt], adapter: dict[str, torch.Tensor]
) -> None:
    tokens, items = right(attacked(model, knowledge, prompts, adapter, 0, noise=1e4), prompts)
    assert tokens < 0.15
    assert items < 0.2
