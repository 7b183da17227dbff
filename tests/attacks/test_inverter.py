"""Learned inversion finds what is there with every kind of network, and nothing where nothing is."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pplr_audit import scenario
from pplr_audit.attacks.activation.inverter import Inverter
from pplr_audit.attacks.learners.networks import KINDS, OTHER, Example, Kind, Network, trained
from pplr_audit.audit.knowledge.known_model import KnownModel
from pplr_audit.data.dataset import Dataset
from pplr_audit.data.prompts import Prompt
from pplr_audit.data.synthetic import other_catalogue
from pplr_audit.errors import InputError
from pplr_audit.models.build import Recommender, build, prompts_over
from pplr_audit.threat_model.attack import Budget, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.outcomes import BudgetExhausted, NotApplicable
from pplr_audit.threat_model.view import Record, View
from tests.conftest import LAYERS

LLAMA: dict[Kind, dict[str, int]] = {
    "linear": {"prompts": 192}, "gru": {"prompts": 96, "epochs": 9}, "attention": {"prompts": 96},
    "block": {"prompts": 96, "epochs": 14},
}  # fmt: skip
BERT: dict[Kind, dict[str, int]] = {
    "linear": {"prompts": 384}, "gru": {"prompts": 112, "epochs": 12}, "attention": {"prompts": 192},
    "block": {"prompts": 128},
}  # fmt: skip
"""What each kind needs for a catalogue of 48 items, and little more."""


class Setting:
    """A model, an adversary who knows its front, and ten prompts of others."""

    def __init__(self, model: Recommender, enough: dict[Kind, dict[str, int]]) -> None:
        self.model, self.enough = model, enough
        generator = torch.Generator().manual_seed(5)
        self.adapter = {n: v + torch.randn(v.shape, generator=generator) * 0.02 for n, v in model.initial.items()}
        self.knowledge = Knowledge(
            "front", model.prompts, model.whole.embeddings, KnownModel(model.whole, None),
            {("client-0", 1): KnownModel(model.whole, self.adapter)}, (0, 1), 3, LAYERS,
        )  # fmt: skip
        drawn = np.random.default_rng(99)
        self.prompts = [model.prompts.random(3, drawn) for _ in range(10)]
        self.attacks = {kind: Inverter(kind, held_out=8, **enough[kind]) for kind in enough}
        """One each, so that a network is trained once."""

    def view(self, layer: int = 1, noise: float = 0.0) -> View:
        generator, records = torch.Generator().manual_seed(1), []
        for place, states in sorted(dict(self.model.whole.states(self.prompts, [layer], self.adapter)).items()):
            hidden = states[layer] + noise * torch.randn(states[layer].shape, generator=generator)
            records.append(Record(place, "client-0", 1, 0, hidden))
        return View("server", Channel.FRONT_ACTIVATIONS, layer, None, "none", tuple(records))

    def right(self, guess: Guess) -> tuple[float, float]:
        """Share of an item's own tokens, and of items at their places, that were read."""
        tokens, slots = guess.arrays["token_offsets"], guess.arrays["slot_offsets"]
        words, items = [], []
        for i, prompt in enumerate(self.prompts):
            words.append((guess.arrays["tokens"][tokens[i] : tokens[i + 1]][: len(prompt)], prompt))
            read = guess.arrays["items"][slots[i] : slots[i + 1], 0][: len(prompt.items)]
            items.append(np.pad(read, (0, len(prompt.items) - len(read)), constant_values=-1) == prompt.items)
        hits = [own(read, prompt) for read, prompt in words]
        return float(np.concatenate(hits).mean()), float(np.concatenate(items).mean())


def own(read: np.ndarray, prompt: Prompt) -> np.ndarray:
    """Which tokens of the titles were read."""
    found = np.pad(read, (0, len(prompt) - len(read)), constant_values=-1) == prompt.tokens
    return np.asarray(found[prompt.slots >= 0])


@pytest.fixture(scope="module")
def llama(small_scenario: scenario.Scenario, small_market: Dataset) -> Setting:
    return Setting(build(small_scenario.model, small_market.catalogue, history=3, seed=1), LLAMA)


@pytest.fixture(scope="module")
def bert(recformer_scenario: scenario.Scenario, small_market: Dataset) -> Setting:
    return Setting(build(recformer_scenario.model, small_market.catalogue, history=3, seed=1), BERT)


@pytest.fixture(params=["llama", "bert"])
def setting(request: pytest.FixtureRequest) -> Setting:
    found: Setting = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_it_reads_the_history_where_it_is(setting: Setting, kind: Kind) -> None:
    guess = setting.attacks[kind].run(setting.view(), setting.knowledge, Budget(300))
    tokens, items = setting.right(guess)
    assert tokens > 0.9
    assert items > 0.9
    assert guess.facts["held_out_accuracy"]["client-0"] > 0.9
    assert guess.facts["auxiliary_prompts"] == {"client-0": setting.enough[kind]["prompts"]}


@pytest.mark.parametrize("kind", KINDS)
def test_it_finds_nothing_in_noise(setting: Setting, kind: Kind) -> None:
    guess = setting.attacks[kind].run(setting.view(noise=1e4), setting.knowledge, Budget(300))
    tokens, items = setting.right(guess)
    assert tokens < 0.15
    assert items < 0.2


@pytest.mark.parametrize("kind", KINDS)
def test_it_finds_nothing_of_a_user_in_the_activations_of_another(setting: Setting, kind: Kind) -> None:
    shuffled = setting.view().shuffled(np.random.default_rng(0))
    tokens, items = setting.right(setting.attacks[kind].run(shuffled, setting.knowledge, Budget(300)))
    assert tokens < 0.3  # titles share words
    assert items < 0.2


def test_the_answer_in_the_training_sequence_is_read_too(llama: Setting) -> None:
    guess = llama.attacks["linear"].run(llama.view(), llama.knowledge, Budget(300))
    assert np.mean(guess.arrays["labels"][:, 0] == [prompt.target for prompt in llama.prompts]) > 0.9


def test_words_of_another_catalogue_that_no_prompt_can_hold_are_passed_over(
    llama: Setting, small_scenario: scenario.Scenario, small_market: Dataset
) -> None:
    other = other_catalogue(small_market.catalogue, 1)
    elsewhere = prompts_over(small_scenario.model, llama.model.tokenizer, other, 3)
    known = set(np.concatenate([prompt.tokens for prompt in llama.prompts]).tolist())
    assert not set(elsewhere.titles.values.tolist()) <= known
    public = replace(llama.knowledge, auxiliary="public", elsewhere=elsewhere)
    tokens, _ = llama.right(Inverter("linear", prompts=192, held_out=8).run(llama.view(), public, Budget(300)))
    assert tokens > 0.5
    with pytest.raises(NotApplicable, match="learns from auxiliary text"):
        Inverter("linear").run(llama.view(), replace(llama.knowledge, auxiliary="none"), Budget(60))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_twice_and_nothing_drawn_from_the_global_generator(llama: Setting, kind: Kind) -> None:
    before = torch.random.get_rng_state()
    one, two, other = (
        Inverter(kind, prompts=8, held_out=2, epochs=1, seed=seed).learned(
            "client-0", 1, 1, llama.knowledge, np.unique(llama.prompts[0].tokens), Budget(60)
        )
        for seed in (0, 0, 1)
    )
    assert torch.equal(before, torch.random.get_rng_state())
    hidden = llama.view().records[0].tensor
    assert torch.equal(one.fit(hidden), two.fit(hidden))
    assert not torch.equal(one.fit(hidden), other.fit(hidden))


def test_a_network_is_trained_once_for_all_that_know_the_same_front(
    llama: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []
    original = KnownModel.states

    def counted(self: KnownModel, asked: list[Prompt], layers: tuple[int, ...]) -> object:
        passes.append(len(asked))
        return original(self, asked, layers)

    monkeypatch.setattr(KnownModel, "states", counted)
    attack = Inverter("linear", prompts=8, held_out=2, epochs=1)
    view = llama.view()
    halves = tuple(replace(r, client=f"client-{r.row % 2 + 1}") for r in view.records)  # of two unknown fronts
    for seen in (view, view, replace(view, records=halves), llama.view(0)):
        attack.run(seen, llama.knowledge, Budget(60))
    assert passes == [8, 2] * 3


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind: Kind) -> None:
    generator = torch.Generator().manual_seed(0)
    network = Network(kind, 7, torch.zeros(16), torch.ones(16)).eval()
    long, short = torch.randn(9, 16, generator=generator), torch.randn(5, 16, generator=generator)
    batch = torch.nn.utils.rnn.pad_sequence([long, short], batch_first=True)
    padding = torch.arange(9) >= torch.tensor([[9], [5]])
    alone = network(short[None], padding[1:, :5])[0]
    assert torch.allclose(network(batch, padding)[1, :5], alone, atol=1e-5)


def examples(count: int, seed: int, word: Callable[[Tensor], Tensor]) -> list[Example]:
    generator = torch.Generator().manual_seed(seed)
    hidden = [torch.randn(6, 4, generator=generator) for _ in range(count)]
    return [(each, word(each)) for each in hidden]


def test_training_ends_once_what_is_held_out_gets_no_better_and_keeps_the_best() -> None:
    noise = torch.Generator().manual_seed(3)

    def nothing(hidden: Tensor) -> Tensor:
        return torch.randint(3, (len(hidden),), generator=noise)

    fit_on, held_out = examples(4, 1, nothing), examples(8, 2, nothing)
    found = trained("block", 3, fit_on, held_out, epochs=200, seed=0, check=lambda: None)
    assert found.epochs < 100
    assert found.accuracy < 0.6  # there is nothing to learn


def test_positions_of_other_words_teach_nothing() -> None:
    def sign(hidden: Tensor) -> Tensor:
        return (hidden[:, 0] > 0).long()

    def misled(hidden: Tensor) -> Tensor:
        return torch.where(hidden[:, 1] > 0, sign(hidden), OTHER)

    found = trained("linear", 2, examples(512, 1, misled), examples(8, 2, sign), epochs=20, seed=0, check=lambda: None)
    assert found.accuracy > 0.8


class Checks(Budget):
    """Runs out after so many checks."""

    def __init__(self, most: int) -> None:
        super().__init__(60)
        self.left = most

    def check(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise BudgetExhausted("no checks left")


def test_a_spent_budget_ends_the_training_at_its_next_step_and_is_not_tried_again(llama: Setting) -> None:
    attack = Inverter("linear", prompts=16, held_out=4, epochs=20)
    after_the_pairs = Checks(20 + 3)
    for budget in (after_the_pairs, Budget(60)):
        with pytest.raises(BudgetExhausted, match="no checks left"):
            attack.run(llama.view(), llama.knowledge, budget)
    attack.run(llama.view(0), llama.knowledge, Budget(60))  # another layer has another network
    with pytest.raises(BudgetExhausted, match="more than"):
        Inverter("linear").run(llama.view(), llama.knowledge, Budget(-1))


@pytest.mark.parametrize(
    "settings", [{"epochs": 0}, {"prompts": 2.5}, {"prompts": True}, {"held_out": 0}, {"seed": -1}, {"prompts": "a"}]
)
def test_settings_of_a_wrong_kind_are_refused_with_what_is_accepted(settings: dict[str, Any]) -> None:
    with pytest.raises(
        InputError, match=rf"inverter: {next(iter(settings))} is .* \(accepted: a whole number, [01] or more"
    ):
        Inverter(**settings)


@pytest.mark.parametrize("kind", ["lstm", 3, ["gru"]])
def test_an_unknown_kind_is_refused_with_those_that_are_known(kind: Any) -> None:
    with pytest.raises(InputError, match=r"inverter: kind is .* \(accepted: linear, gru, attention, block\)"):
        Inverter(kind)


def test_it_says_when_it_cannot_answer(llama: Setting) -> None:
    attack = Inverter("linear", prompts=8, held_out=2, epochs=1)
    view = llama.view()
    with pytest.raises(NotApplicable, match="nothing crossed"):
        attack.run(replace(view, records=()), llama.knowledge, Budget(60))
    with pytest.raises(NotApplicable, match="does not depend on a front"):
        attack.run(replace(view, front=None), llama.knowledge, Budget(60))
    broken = replace(view.records[3], tensor=view.records[3].tensor * float("nan"))
    with pytest.raises(NotApplicable, match="row 3 is not finite"):
        attack.run(replace(view, records=(*view.records[:3], broken)), llama.knowledge, Budget(60))
    diverged = {name: value * float("nan") for name, value in llama.adapter.items()}
    copies = {("client-0", 1): KnownModel(llama.model.whole, diverged)}
    with pytest.raises(NotApplicable, match="what there is to learn from is not finite"):
        attack.run(view, replace(llama.knowledge, copies=copies), Budget(60))
