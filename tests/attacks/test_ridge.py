"""Ridge inversion finds what is there, finds nothing where nothing is, and says when it cannot answer."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pplr_audit import scenario
from pplr_audit.attacks.activation.ridge import Ridge
from pplr_audit.attacks.decoding.titles import TitleReader
from pplr_audit.attacks.learners.normal_equations import NormalEquations
from pplr_audit.audit.knowledge.known_model import KnownModel
from pplr_audit.data.dataset import Dataset
from pplr_audit.data.prompts import Prompt
from pplr_audit.errors import InputError
from pplr_audit.models.build import Recommender, build
from pplr_audit.threat_model.artifacts import Artifacts
from pplr_audit.threat_model.attack import Budget
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.outcomes import BudgetExhausted, NotApplicable
from pplr_audit.threat_model.view import Record, View


@pytest.fixture(scope="module")
def model(small_scenario: scenario.Scenario, small_market: Dataset) -> Recommender:
    return build(small_scenario.model, small_market.catalogue, history=3, seed=1)


@pytest.fixture(scope="module")
def knowledge(model: Recommender) -> Knowledge:
    known = KnownModel(model.whole, model.initial)
    return Knowledge(
        "front", model.prompts, model.whole.embeddings, KnownModel(model.whole, None), {("client-0", 1): known},
        (0, 1, 2), 3, 3,
    )  # fmt: skip


@pytest.fixture(scope="module")
def prompts(model: Recommender) -> list[Prompt]:
    generator = np.random.default_rng(99)
    return [model.prompts.build(generator.integers(48, size=3), int(generator.integers(48))) for _ in range(10)]


def view_of(model: Recommender, prompts: list[Prompt], layer: int, noise: float = 0.0) -> View:
    generator = torch.Generator().manual_seed(1)
    records = []
    seen = dict(model.whole.states(prompts, [layer], model.initial))
    for place, states in sorted(seen.items()):
        hidden = states[layer]
        hidden = hidden + noise * torch.randn(hidden.shape, generator=generator)
        records.append(Record(place, "client-0", 1, 0, hidden))
    return View("server", Channel.FRONT_ACTIVATIONS, layer, None, "none", tuple(records))


def right(guess_tokens: np.ndarray, offsets: np.ndarray, prompts: list[Prompt]) -> float:
    hits = [
        (guess_tokens[offsets[i] : offsets[i + 1]] == prompt.tokens)[prompt.slots >= 0]
        for i, prompt in enumerate(prompts)
    ]
    return float(np.concatenate(hits).mean())


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_it_reads_the_history_where_it_is(
    model: Recommender, knowledge: Knowledge, prompts: list[Prompt], layer: int
) -> None:
    guess = Ridge(prompts=64, held_out=8).run(view_of(model, prompts, layer), knowledge, Budget(60))
    assert right(guess.arrays["tokens"], guess.arrays["token_offsets"], prompts) > 0.95
    offsets, items = guess.arrays["slot_offsets"], guess.arrays["items"]
    hits = [(items[offsets[i] : offsets[i + 1], 0][: len(p.items)] == p.items).mean() for i, p in enumerate(prompts)]
    assert np.mean(hits) > 0.95


def test_it_finds_nothing_in_noise(model: Recommender, knowledge: Knowledge, prompts: list[Prompt]) -> None:
    guess = Ridge(prompts=64, held_out=8).run(view_of(model, prompts, 1, noise=1e4), knowledge, Budget(60))
    assert right(guess.arrays["tokens"], guess.arrays["token_offsets"], prompts) < 0.1


def test_it_finds_nothing_of_a_user_in_the_activations_of_another(
    model: Recommender, knowledge: Knowledge, prompts: list[Prompt]
) -> None:
    shuffled = view_of(model, prompts, 1).shuffled(np.random.default_rng(0))
    guess = Ridge(prompts=64, held_out=8).run(shuffled, knowledge, Budget(60))
    offsets, items = guess.arrays["slot_offsets"], guess.arrays["items"]
    hits = [
        (items[offsets[i] : offsets[i + 1], 0][: len(p.items)] == p.items[: offsets[i + 1] - offsets[i]]).mean()
        for i, p in enumerate(prompts)
    ]
    assert np.mean(hits) < 0.2


def test_the_closed_form_is_the_ridge_solution() -> None:
    from sklearn.linear_model import Ridge as Reference

    generator = np.random.default_rng(0)
    x, table, words = generator.normal(size=(50, 6)), generator.normal(size=(9, 6)), generator.integers(7, size=50)
    y = table[words]
    sums = NormalEquations(6)
    for part in (slice(0, 20), slice(20, 50)):  # summed piece by piece
        sums.add(torch.from_numpy(x[part]), torch.from_numpy(words[part]), torch.from_numpy(table))
    answers = torch.zeros(4, dtype=torch.long)
    inverter = sums.solve(torch.from_numpy(x[:4]).float(), answers, torch.from_numpy(table).float())
    scale = float(np.linalg.eigvalsh(np.cov(x.T, bias=True) * 50).mean())
    reference = Reference(alpha=inverter.strength * scale).fit(x, y)
    assert np.allclose(inverter(torch.from_numpy(x).float()).numpy(), reference.predict(x), atol=1e-4)


def test_titles_are_read_off_a_perfect_fit(model: Recommender, prompts: list[Prompt]) -> None:
    reader = TitleReader(model.prompts)
    for prompt in prompts:
        fit = (prompt.tokens[:, None] == reader.vocabulary[None, :]).astype(np.float32)
        found, label, claimed = reader.read(fit)
        assert found[:, 0].tolist() == prompt.items.tolist()
        assert label[0] == prompt.target
        assert np.array_equal(claimed, prompt.slots >= 0)
        before = model.prompts.build(prompt.items)  # as in serving: nothing stands behind the template
        fit = (before.tokens[:, None] == reader.vocabulary[None, :]).astype(np.float32)
        assert reader.read(fit)[1].tolist() == []
        assert all(len(set(ranked[ranked >= 0])) == (ranked >= 0).sum() for ranked in found)


def test_one_pass_over_the_front_serves_every_cut(
    model: Recommender, knowledge: Knowledge, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []
    original = KnownModel.states

    def counted(self: KnownModel, asked: list[Prompt], layers: tuple[int, ...]) -> object:
        passes.append(len(asked))
        return original(self, asked, layers)

    monkeypatch.setattr(KnownModel, "states", counted)
    attack = Ridge(prompts=18, held_out=4)
    for layer in (2, 0, 1):
        attack.run(view_of(model, prompts, layer), knowledge, Budget(60))
    Ridge(prompts=18, held_out=4).run(view_of(model, prompts, 1), replace(knowledge), Budget(60))
    assert passes == [18, 4], "another attack and another cell learn the same from the same"


def test_an_inverter_is_the_same_whichever_other_layers_are_asked_for_and_a_later_one_costs_its_own_pass(
    model: Recommender, knowledge: Knowledge, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    original = KnownModel.states

    def counted(self: KnownModel, given: list[Prompt], layers: tuple[int, ...]) -> object:
        asked.append(tuple(layers))
        return original(self, given, layers)

    def fitted(known: Knowledge, layer: int) -> tuple[bytes, ...]:
        guess = Ridge(prompts=19, held_out=4).run(view_of(model, prompts, layer), known, Budget(60))
        return (*(array.tobytes() for array in guess.arrays.values()), str(guess.facts).encode())

    together = {layer: fitted(replace(knowledge, artifacts=Artifacts()), layer) for layer in (0, 1, 2)}
    monkeypatch.setattr(KnownModel, "states", counted)
    for layer in (0, 1, 2):
        assert fitted(replace(knowledge, artifacts=Artifacts(), layers=(layer,)), layer) == together[layer]
    few = replace(knowledge, artifacts=Artifacts(), layers=(0, 2))
    fitted(few, 2)
    asked.clear()
    assert fitted(replace(few, layers=(0, 1, 2)), 1) == together[1]
    assert asked == [(1,), (1,)]


def test_a_spent_budget_stops_it(model: Recommender, knowledge: Knowledge, prompts: list[Prompt]) -> None:
    with pytest.raises(BudgetExhausted, match="more than"):
        Ridge(prompts=16, held_out=4).run(view_of(model, prompts, 1), knowledge, Budget(-1))


def test_a_fit_that_was_too_much_for_one_layer_is_too_much_for_all(
    model: Recommender, knowledge: Knowledge, prompts: list[Prompt]
) -> None:
    attack = Ridge(prompts=17, held_out=4)
    for layer, seconds in ((0, -1), (1, 60)):
        with pytest.raises(BudgetExhausted):
            attack.run(view_of(model, prompts, layer), knowledge, Budget(seconds))


@pytest.mark.parametrize(
    "settings", [{"prompts": 2.5}, {"prompts": True}, {"held_out": 0}, {"seed": -1}, {"prompts": "a"}]
)
def test_settings_of_a_wrong_kind_are_refused_with_what_is_accepted(settings: dict[str, Any]) -> None:
    with pytest.raises(
        InputError, match=rf"ridge: {next(iter(settings))} is .* \(accepted: a whole number, [01] or more"
    ):
        Ridge(**settings)


def test_an_empty_view_is_not_applicable(knowledge: Knowledge) -> None:
    empty = View("server", Channel.FRONT_ACTIVATIONS, 1, None, "none", ())
    with pytest.raises(NotApplicable, match="nothing crossed"):
        Ridge().run(empty, knowledge, Budget(60))
