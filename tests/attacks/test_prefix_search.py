"""Prefix search reads every token where the front is known, and finds nothing where nothing is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from pplr_audit import scenario
from pplr_audit.attacks.activation.prefix_search import PrefixSearch
from pplr_audit.attacks.activation.ridge import Ridge
from pplr_audit.audit.knowledge.known_model import KnownModel
from pplr_audit.data.dataset import Dataset
from pplr_audit.data.prompts import Prompt
from pplr_audit.errors import InputError
from pplr_audit.models.backbones.tiny_llama import Recipe, train_tokenizer
from pplr_audit.models.build import Recommender, build
from pplr_audit.threat_model.attack import Budget, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.outcomes import BudgetExhausted, NotApplicable
from pplr_audit.threat_model.view import Record, View
from tests.conftest import LAYERS

FRONTS = tuple(range(LAYERS))
FEW = {"prompts": 8, "held_out": 4}
"""Too few auxiliary prompts for the ridge inverter to be right by itself."""


class Nothing:
    """An inverter that knows nothing."""

    evaluations = 0

    def __init__(self) -> None:
        self._generator = torch.Generator().manual_seed(4)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=self._generator)


def knowledge_of(model: Recommender, adapter: dict[str, Tensor]) -> Knowledge:
    known = {("client-0", 1): KnownModel(model.whole, adapter)}
    base = KnownModel(model.whole, None)
    return Knowledge("front", model.prompts, model.whole.embeddings, base, known, FRONTS, 3, LAYERS)


def prompts_of(model: Recommender, *, answered: bool = True) -> list[Prompt]:
    generator = np.random.default_rng(99)
    drawn = [(generator.integers(48, size=3), int(generator.integers(48))) for _ in range(8)]
    return [model.prompts.build(items, target if answered else -1) for items, target in drawn]


def trained(model: Recommender, scale: float = 0.02) -> dict[str, Tensor]:
    """As after some training."""
    generator = torch.Generator().manual_seed(5)
    return {n: v + torch.randn(v.shape, generator=generator) * scale for n, v in model.initial.items()}


def view_of(
    model: Recommender, adapter: dict[str, Tensor], prompts: Sequence[Prompt], layer: int, *, noise: float = 0.0,
    channel: Channel = Channel.FRONT_ACTIVATIONS,
) -> View:  # fmt: skip
    """What crosses; ``noise`` is in lengths of it."""
    generator = torch.Generator().manual_seed(1)
    records = []
    for place, states in sorted(dict(model.whole.states(prompts, [layer], adapter)).items()):
        hidden = states[layer]
        size = noise * hidden.norm(dim=1, keepdim=True) / hidden.shape[1] ** 0.5
        hidden = hidden + size * torch.randn(hidden.shape, generator=generator)
        records.append(Record(place, "client-0", 1, 0, hidden))
    return View("server", channel, layer, None, "none", tuple(records))


def right(guess: Guess, prompts: Sequence[Prompt]) -> float:
    """Share of the tokens of items that were read."""
    tokens, offsets = guess.arrays["tokens"], guess.arrays["token_offsets"]
    hits = [
        (tokens[offsets[i] : offsets[i + 1]] == prompt.tokens)[prompt.slots >= 0] for i, prompt in enumerate(prompts)
    ]
    return float(np.concatenate(hits).mean())


def items_right(guess: Guess, prompts: Sequence[Prompt], same: np.ndarray) -> float:
    """Share of slots whose first item has the right title."""
    items, offsets = guess.arrays["items"], guess.arrays["slot_offsets"]
    hits = []
    for i, prompt in enumerate(prompts):
        own = items[offsets[i] : offsets[i + 1], 0][: len(prompt.items)]
        hits += [at < len(own) and same[own[at]] == same[item] for at, item in enumerate(prompt.items)]
    return float(np.mean(hits))


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def model(
    request: pytest.FixtureRequest, small_scenario: scenario.Scenario, small_market: Dataset,
    tmp_path_factory: pytest.TempPathFactory,
) -> Recommender:  # fmt: skip
    if request.param == "llama":
        return build(small_scenario.model, small_market.catalogue, history=3, seed=1)
    folder: Path = tmp_path_factory.mktemp("gpt2")
    tokenizer = train_tokenizer(small_market.catalogue, Recipe())
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_layer=LAYERS, n_head=4, n_positions=256, bos_token_id=0, eos_token_id=1,
        pad_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    chosen = scenario.Model(backbone=str(folder), max_tokens=256)
    return build(chosen, small_market.catalogue, history=3, seed=1)


@pytest.fixture(scope="module")
def adapter(model: Recommender) -> dict[str, Tensor]:
    return trained(model)


@pytest.fixture(scope="module")
def knowledge(model: Recommender, adapter: dict[str, Tensor]) -> Knowledge:
    return knowledge_of(model, adapter)


@pytest.fixture(scope="module")
def prompts(model: Recommender) -> list[Prompt]:
    return prompts_of(model)


@pytest.mark.parametrize("over", ["titles", "tokens"])
@pytest.mark.parametrize("layer", FRONTS)
def test_it_reads_every_token_item_and_label_at_every_front(
    model: Recommender, adapter: dict[str, Tensor], knowledge: Knowledge, prompts: list[Prompt], layer: int, over: Any
) -> None:
    guess = PrefixSearch(over, **FEW).run(view_of(model, adapter, prompts, layer), knowledge, Budget(60))
    same = model.prompts.title_classes()
    assert right(guess, prompts) == 1.0
    assert items_right(guess, prompts, same) == 1.0
    assert [same[row[0]] for row in guess.arrays["labels"]] == [same[prompt.target] for prompt in prompts]
    assert np.array_equal(guess.arrays["claimed"], np.concatenate([prompt.slots >= 0 for prompt in prompts]))
    assert guess.facts["median_distance"] < 1e-5, "the front makes of it the very activations"
    assert guess.facts["verified"] == 1.0
    for ranked in [*guess.arrays["items"], *guess.arrays["labels"]]:
        assert len(set(ranked[ranked >= 0])) == (ranked >= 0).sum()


def test_it_reads_what_is_served(model: Recommender, adapter: dict[str, Tensor], knowledge: Knowledge) -> None:
    prompts = prompts_of(model, answered=False)
    view = view_of(model, adapter, prompts, 2, channel=Channel.INFERENCE_ACTIVATIONS)
    guess = PrefixSearch(**FEW).run(view, knowledge, Budget(60))
    assert right(guess, prompts) == 1.0
    assert items_right(guess, prompts, model.prompts.title_classes()) == 1.0
    assert "labels" not in guess.arrays


def test_a_reading_by_ridge_that_is_wrong_is_found_out(
    model: Recommender, adapter: dict[str, Tensor], knowledge: Knowledge, prompts: list[Prompt],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """With an inverter that knows nothing the shortlists are widened until the title is in."""
    view = view_of(model, adapter, prompts[:3], 1)
    attack = PrefixSearch(shortlist=2)
    with monkeypatch.context() as patched:
        patched.setattr(Ridge, "inverter", lambda *_: Nothing())
        guess = attack.run(view, knowledge_of(model, adapter), Budget(60))
    assert right(guess, prompts[:3]) == 1.0
    with_ridge = PrefixSearch(**FEW).run(view, knowledge_of(model, adapter), Budget(60))
    assert guess.facts["verified"] == with_ridge.facts["verified"] == 1.0


def test_all_fronts_of_an_audit_are_searched_for_little_more_than_one_whichever_comes_first(
    model: Recommender, adapter: dict[str, Tensor], prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    run: list[int] = []
    extend = KnownModel.extend

    def counted(self: KnownModel, prefix: Any, tokens: Any, parents: Any, layers: Any) -> Any:
        run.append(max(layers) * len(tokens))
        return extend(self, prefix, tokens, parents, layers)

    monkeypatch.setattr(KnownModel, "extend", counted)
    views = {layer: view_of(model, adapter, prompts, layer) for layer in FRONTS}
    alone, spent = {}, {}
    for layer, view in views.items():
        before = sum(run)
        alone[layer] = PrefixSearch(**FEW).run(view, knowledge_of(model, adapter), Budget(60))
        spent[layer] = sum(run) - before
    for order in (FRONTS, FRONTS[::-1]):
        knowledge, attack, before = knowledge_of(model, adapter), PrefixSearch(**FEW), sum(run)
        for layer in order:
            guess = attack.run(views[layer], knowledge, Budget(60))
            assert guess.facts == alone[layer].facts, "evaluations included"
            assert all(np.array_equal(guess.arrays[name], found) for name, found in alone[layer].arrays.items())
        assert sum(run) - before < 1.25 * spent[FRONTS[0]]


def test_what_is_in_no_catalogue_is_read_token_by_token(
    model: Recommender, adapter: dict[str, Tensor], knowledge: Knowledge, prompts: list[Prompt]
) -> None:
    """A title cut off, and words that no title has."""
    whole = view_of(model, adapter, prompts[:2], 2)
    short = [
        Record(r.row, r.client, 1, 0, r.tensor[: p.answer + 2]) for r, p in zip(whole.records, prompts, strict=False)
    ]
    view = View("server", Channel.FRONT_ACTIVATIONS, 2, None, "none", tuple(short))
    for over in ("titles", "tokens"):
        guess = PrefixSearch(over, **FEW).run(view, knowledge, Budget(60))  # type: ignore[arg-type]
        tokens, offsets = guess.arrays["tokens"], guess.arrays["token_offsets"]
        for i, prompt in enumerate(prompts[:2]):
            assert tokens[offsets[i] : offsets[i + 1]].tolist() == prompt.tokens[: prompt.answer + 2].tolist()
    strange = prompts[0].tokens.copy()
    inside = np.flatnonzero(prompts[0].slots == 1)
    strange[inside] = 5 + np.arange(len(inside))
    changed = Prompt(strange, prompts[0].slots, prompts[0].items, prompts[0].answer, prompts[0].order)
    guess = PrefixSearch(**FEW).run(view_of(model, adapter, [changed], 2), knowledge, Budget(60))
    assert guess.arrays["tokens"].tolist() == strange.tolist()
    assert guess.arrays["items"][0, 0] == prompts[0].items[0]


@pytest.mark.parametrize("what", ["noise", "stale"])
def test_a_front_that_is_not_the_one_used_is_searched_by_shortlists(
    model: Recommender, adapter: dict[str, Tensor], knowledge: Knowledge, prompts: list[Prompt], what: str
) -> None:
    if what == "noise":
        view = view_of(model, adapter, prompts, 1, noise=0.3)
    else:
        view = view_of(model, trained(model, 0.04), prompts, 1)
    guess = PrefixSearch(**FEW).run(view, knowledge, Budget(60))
    assert guess.facts["median_distance"] > 1e-3
    assert guess.facts["verified"] == 0.0
    assert right(guess, prompts) >= max(0.95, right(Ridge(**FEW).run(view, knowledge, Budget(60)), prompts))


def test_it_finds_nothing_in_noise(
    model: Recommender, adapter: dict[str, Tensor], knowledge: Knowledge, prompts: list[Prompt]
) -> None:
    guess = PrefixSearch(**FEW).run(view_of(model, adapter, prompts, 1, noise=1e4), knowledge, Budget(60))
    assert right(guess, prompts) < 0.15
    assert items_right(guess, prompts, model.prompts.title_classes()) < 0.2


def test_it_finds_nothing_of_a_user_in_the_activations_of_another(
    model: Recommender, adapter: dict[str, Tensor], knowledge: Knowledge, prompts: list[Prompt]
) -> None:
    shuffled = view_of(model, adapter, prompts, 1).shuffled(np.random.default_rng(0))
    guess = PrefixSearch(**FEW).run(shuffled, knowledge, Budget(60))
    assert items_right(guess, prompts, model.prompts.title_classes()) < 0.2


def test_it_says_when_it_cannot_answer(
    model: Recommender, adapter: dict[str, Tensor], knowledge: Knowledge, prompts: list[Prompt]
) -> None:
    def asked(tensor: Tensor) -> Guess:
        view = View("server", Channel.FRONT_ACTIVATIONS, 1, None, "none", (Record(0, "client-0", 1, 0, tensor),))
        return PrefixSearch(**FEW).run(view, knowledge, Budget(60))

    with pytest.raises(NotApplicable, match="nothing crossed"):
        PrefixSearch().run(View("server", Channel.FRONT_ACTIVATIONS, 1, None, "none", ()), knowledge, Budget(60))
    with pytest.raises(NotApplicable, match="row 0 is not finite"):
        asked(torch.full((60, 32), float("nan")))
    with pytest.raises(NotApplicable, match="48 wide, the known model 32"):
        asked(torch.zeros(60, 48))
    with pytest.raises(NotApplicable, match=r"257 positions, more than model.max_tokens \(256\)"):
        asked(torch.zeros(257, 32))
    assert len(asked(torch.ones(3, 32)).arrays["items"]) == 0, "shorter than the template"
    with pytest.raises(BudgetExhausted, match="more than"):
        PrefixSearch(**FEW).run(view_of(model, adapter, prompts, 1), knowledge, Budget(-1))


SPENT = {"seconds": 1e-9, "grace": 1e12}
"""A budget whose time is up from the start, and which breaks nothing off: what the clock says may not count."""


def test_a_row_is_searched_as_far_as_its_candidates_go_however_long_that_takes(
    model: Recommender, adapter: dict[str, Tensor], prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    view = view_of(model, adapter, prompts[:3], 1)
    monkeypatch.setattr(Ridge, "inverter", lambda *_: Nothing())
    quick, slow, short = (
        PrefixSearch(shortlist=2, candidates=most).run(view, knowledge_of(model, adapter), budget)
        for most, budget in ((65_536, Budget(60)), (65_536, Budget(**SPENT)), (4, Budget(60)))
    )
    assert right(quick, prompts[:3]) == 1.0
    assert slow.facts == quick.facts
    assert all(np.array_equal(slow.arrays[name], found) for name, found in quick.arrays.items())
    assert short.facts["evaluations"] < quick.facts["evaluations"]
    assert right(short, prompts[:3]) < 1.0


@pytest.mark.parametrize(
    "settings",
    [
        {"over": "words"},
        {"shortlist": 1},
        {"shortlist": 2.5},
        {"beam": True},
        {"candidates": 0},
        {"readings": 1.5},
        {"prompts": 0},
        {"held_out": "a"},
        {"seed": -1},
    ],
)
def test_settings_out_of_range_are_refused_with_what_is_accepted(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=rf"prefix_search: {next(iter(settings))} is .* \(accepted: "):
        PrefixSearch(**settings)


def test_a_model_that_computes_in_bfloat16_is_read_as_well(
    small_scenario: scenario.Scenario, small_market: Dataset
) -> None:
    chosen = small_scenario.model.model_copy(update={"precision": "bfloat16"})
    model = build(chosen, small_market.catalogue, history=3, seed=1)
    adapter, prompts = trained(model), prompts_of(model)
    for layer in FRONTS[1:]:
        view = view_of(model, adapter, prompts, layer)
        guess = PrefixSearch(**FEW).run(view, knowledge_of(model, adapter), Budget(300))
        assert right(guess, prompts) == 1.0
    noise = View(
        view.adversary,
        view.channel,
        layer,
        None,
        "none",
        tuple(
            Record(
                r.row,
                r.client,
                r.round,
                r.step,
                torch.randn(r.tensor.shape, generator=torch.Generator().manual_seed(r.row)),
            )
            for r in view.records
        ),
    )
    assert right(PrefixSearch(**FEW).run(noise, knowledge_of(model, adapter), Budget(300)), prompts) < 0.5
