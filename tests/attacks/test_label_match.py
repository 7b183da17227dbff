"""Label matching finds the next item in the gradient that came back, and nothing where it is not."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from pplr_audit import scenario
from pplr_audit.attacks.gradient import label_match
from pplr_audit.attacks.gradient.closed_form import solved
from pplr_audit.attacks.gradient.label_match import LabelMatch
from pplr_audit.audit.knowledge.known_model import KnownModel
from pplr_audit.data.dataset import Dataset
from pplr_audit.data.prompts import Prompt
from pplr_audit.errors import InputError
from pplr_audit.models.architectures import blocks
from pplr_audit.models.build import Recommender, build
from pplr_audit.models.recommenders.task import CatalogueEncoding
from pplr_audit.models.taps import Tapped, tap
from pplr_audit.threat_model.attack import Budget
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.outcomes import BudgetExhausted, NotApplicable
from pplr_audit.threat_model.view import Record, View
from tests.conftest import LAYERS

BACKS = list(range(LAYERS))


@pytest.fixture(scope="module", params=["bigrec", "recformer", "recformer with ids"])
def model(
    request: pytest.FixtureRequest, small_scenario: scenario.Scenario, recformer_scenario: scenario.Scenario,
    small_market: Dataset,
) -> Recommender:  # fmt: skip
    chosen = (small_scenario if request.param == "bigrec" else recformer_scenario).model
    own = chosen.recformer.model_copy(update={"ids": request.param == "recformer with ids"})
    return build(chosen.model_copy(update={"recformer": own}), small_market.catalogue, history=3, seed=1)


@pytest.fixture(scope="module")
def adapter(model: Recommender) -> dict[str, Tensor]:
    """As after some training."""
    generator = torch.Generator().manual_seed(5)
    return {n: v + torch.randn(v.shape, generator=generator) * 0.02 for n, v in model.initial.items()}


@pytest.fixture(scope="module")
def knowledge(model: Recommender, adapter: dict[str, Tensor]) -> Knowledge:
    copies = {("client-0", 1): KnownModel(model.whole, adapter)}
    base = KnownModel(model.whole, None)
    return Knowledge("front", model.prompts, model.whole.embeddings, base, copies, (), 3, LAYERS)


@pytest.fixture(scope="module")
def prompts(model: Recommender) -> list[Prompt]:
    generator = np.random.default_rng(99)
    return [model.prompts.build(generator.integers(48, size=3), int(generator.integers(48))) for _ in range(8)]


@pytest.fixture(scope="module")
def view_of(model: Recommender, adapter: dict[str, Tensor], prompts: Sequence[Prompt]) -> Callable[..., View]:
    """What crosses in one step over all of the prompts, by the trained model's own loss."""
    return stepped(model, adapter, prompts, model.task.loss)


def stepped(
    model: Recommender, adapter: dict[str, Tensor], prompts: Sequence[Prompt], loss: Callable[..., Tensor]
) -> Callable[..., View]:
    """What crosses in one step over all of the prompts, by this loss."""
    activations, gradients = {}, {}
    model.whole.set(adapter)
    encoding = model.whole.encoding(adapter)
    whole = list(blocks(model.whole.model))
    places = [*(Tapped(i, block) for i, block in enumerate(whole)), Tapped(LAYERS, whole[-1], leaves=True)]
    with tap(places, activations.__setitem__, gradients.__setitem__):
        loss(model.whole.model, prompts, encoding).backward()
    model.whole.model.zero_grad()

    def view(back: int, noise: float = 0.0) -> View:
        generator = torch.Generator().manual_seed(1)
        layer, records = LAYERS - back, []
        for row, prompt in enumerate(prompts):
            gradient = gradients[layer][row, : len(prompt)]
            gradient = gradient + noise * gradient.std() * torch.randn(gradient.shape, generator=generator)
            hidden = {Channel.TRUNK_ACTIVATIONS: activations[layer][row, : len(prompt)]}
            records.append(Record(row, "client-0", 1, 0, gradient, len(prompts), hidden))
        return View("server", Channel.BACK_GRADIENTS, None, back, "none", tuple(records))

    return view


def hits(guess_labels: np.ndarray, prompts: Sequence[Prompt], model: Recommender, k: int = 1) -> float:
    same = model.prompts.title_classes()
    return float(np.mean([same[p.target] in same[row[:k]] for row, p in zip(guess_labels, prompts, strict=True)]))


@pytest.mark.parametrize("back", BACKS)
def test_it_finds_every_label_at_every_back(
    model: Recommender, knowledge: Knowledge, prompts: list[Prompt], view_of: Callable[..., View], back: int
) -> None:
    guess = LabelMatch(shortlist=8).run(view_of(back), knowledge, Budget(120))
    assert guess.arrays["rows"].tolist() == list(range(8))
    assert hits(guess.arrays["labels"], prompts, model) == 1.0
    assert guess.facts["median_distance"] < 1e-3, "its loss has the very gradient"
    for row in guess.arrays["labels"]:
        assert len(set(row[row >= 0])) == (row >= 0).sum()


def test_the_filter_alone_names_the_label_among_the_first(
    model: Recommender, knowledge: Knowledge, prompts: list[Prompt], view_of: Callable[..., View]
) -> None:
    """So the shortlist may be short: behind it the others are ranked by the filter."""
    guess = LabelMatch(shortlist=1).run(view_of(1), knowledge, Budget(120))
    assert hits(guess.arrays["labels"], prompts, model, k=5) > 0.8


def test_a_title_without_a_history_before_it_is_found(
    model: Recommender, knowledge: Knowledge, adapter: dict[str, Tensor]
) -> None:
    """The shortest sequence there is still has room for its own answer."""
    if not model.whole.causal:
        assert not len(model.prompts.end)
        return
    prompt = model.prompts.build(np.empty(0, dtype=np.int64), 7)
    seen = {}
    model.whole.set(adapter)
    with tap(
        [Tapped(2, list(blocks(model.whole.model))[2])],
        lambda _, down: seen.update(down=down), lambda _, up: seen.update(up=up),
    ):  # fmt: skip
        model.task.loss(model.whole.model, [prompt], {}).backward()
    model.whole.model.zero_grad()
    record = Record(0, "client-0", 1, 0, seen["up"][0], 1, {Channel.TRUNK_ACTIVATIONS: seen["down"][0]})
    view = View("server", Channel.BACK_GRADIENTS, None, 1, "none", (record,))
    guess = LabelMatch(shortlist=8).run(view, knowledge, Budget(60))
    same = model.prompts.title_classes()
    assert same[guess.arrays["labels"][0, 0]] == same[7]


def test_it_finds_nothing_in_noise(
    model: Recommender, knowledge: Knowledge, prompts: list[Prompt], view_of: Callable[..., View]
) -> None:
    guess = LabelMatch(shortlist=8).run(view_of(1, noise=100.0), knowledge, Budget(120))
    assert hits(guess.arrays["labels"], prompts, model) <= 0.25
    assert guess.facts["median_distance"] > 0.5


def test_it_finds_nothing_of_a_user_in_the_gradient_of_another(
    model: Recommender, knowledge: Knowledge, prompts: list[Prompt], view_of: Callable[..., View]
) -> None:
    shuffled = view_of(1).shuffled(np.random.default_rng(0))
    guess = LabelMatch(shortlist=8).run(shuffled, knowledge, Budget(120))
    assert hits(guess.arrays["labels"], prompts, model) <= 0.25


def test_what_the_base_model_alone_tells_is_less(
    model: Recommender, knowledge: Knowledge, prompts: list[Prompt], view_of: Callable[..., View]
) -> None:
    public = Knowledge(
        "base", knowledge.prompts, knowledge.embeddings, knowledge.base, {}, (), knowledge.history, knowledge.depth
    )  # fmt: skip
    exact, rough = (LabelMatch(shortlist=8).run(view_of(1), known, Budget(120)) for known in (knowledge, public))
    assert exact.facts["median_distance"] < rough.facts["median_distance"]


def test_a_gradient_of_nothing_names_nothing(knowledge: Knowledge, view_of: Callable[..., View]) -> None:
    view = view_of(1)
    nothing = replace(view, records=tuple(replace(r, tensor=torch.zeros_like(r.tensor)) for r in view.records))
    guess = LabelMatch(shortlist=8).run(nothing, knowledge, Budget(120))
    assert (guess.arrays["labels"] == -1).all()
    assert guess.facts["median_distance"] == 1


def test_it_says_when_it_cannot_answer(knowledge: Knowledge, view_of: Callable[..., View]) -> None:
    empty = View("server", Channel.BACK_GRADIENTS, None, 1, "none", ())
    with pytest.raises(NotApplicable, match="nothing crossed"):
        LabelMatch().run(empty, knowledge, Budget(60))
    broken = view_of(1, noise=float("nan"))
    with pytest.raises(NotApplicable, match="row 0 is not finite"):
        LabelMatch().run(broken, knowledge, Budget(60))
    with pytest.raises(BudgetExhausted):
        LabelMatch().run(view_of(1), knowledge, Budget(-1.0))


def among_the_batch(model: Recommender) -> Callable[..., Tensor]:
    """RecFormer's loss with the batch's own targets as the only negatives, which the server does not know."""
    task: Any = model.task

    def loss(network: Any, prompts: Sequence[Prompt], encoding: CatalogueEncoding) -> Tensor:
        places = sorted({prompt.target for prompt in prompts})
        scores = task.points(network, prompts) @ task.table(network, encoding)[places].T / task._temperature
        return cross_entropy(scores, torch.tensor([places.index(prompt.target) for prompt in prompts]))

    return loss


def test_of_a_loss_that_the_server_does_not_know_the_scores_that_it_moves_are_solved_for(
    model: Recommender, adapter: dict[str, Tensor], knowledge: Knowledge, prompts: list[Prompt],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if model.whole.causal:
        pytest.skip("a decoder's loss is over its words")
    copy = knowledge.copy("client-0", 1)
    view_of = stepped(model, adapter, prompts, among_the_batch(model))
    for back in BACKS:
        for record in view_of(back).records[:3]:
            run = partial(copy.logits, LAYERS - back)
            found = solved(run, record.also_reads[Channel.TRUNK_ACTIVATIONS], record.tensor * record.batch)
            assert found.distance < 0.01, "all of it is explained"
            assert found.change.argmin() == prompts[record.row].target
    both = prompts[:2]  # of two items' scores: far from any loss over the catalogue
    two = stepped(model, adapter, both, among_the_batch(model))(1)
    guess = LabelMatch(shortlist=8).run(two, knowledge, Budget(120))
    assert hits(guess.arrays["labels"], both, model) == 1
    monkeypatch.setattr(label_match, "UNEXPLAINED", float("inf"))
    labels_alone = LabelMatch(shortlist=8).run(two, knowledge, Budget(120))
    assert guess.facts["median_distance"] < labels_alone.facts["median_distance"] / 2
    shuffled = view_of(1).shuffled(np.random.default_rng(0))
    monkeypatch.setattr(label_match, "UNEXPLAINED", 0.0)
    of_another = LabelMatch(shortlist=8).run(shuffled, knowledge, Budget(120))
    assert hits(of_another.arrays["labels"], prompts, model) <= 0.25


def test_what_is_solved_for_is_the_change_of_the_loss_with_each_score() -> None:
    """Against numpy's pseudoinverse, for scores that are linear in what entered."""
    generator = torch.Generator().manual_seed(3)
    weights, hidden = torch.randn(5 * 4, 9, generator=generator), torch.randn(5, 4, generator=generator)
    change = torch.randn(9, generator=generator)
    gradient = (weights @ change).reshape(5, 4)
    found = solved(lambda h: h.reshape(1, -1) @ weights, hidden, gradient)
    assert found.distance < 1e-4
    assert np.allclose(found.change, change.numpy(), atol=1e-3)
    few, less = torch.randn(20, 40, generator=generator), torch.randn(5, 4, generator=generator)
    least = np.linalg.pinv(few.double().numpy()) @ less.double().numpy().ravel()
    assert np.allclose(solved(lambda h: h.reshape(1, -1) @ few, hidden, less).change, least, atol=1e-3)


def test_a_sequence_too_short_for_any_title_is_left_unanswered_and_hides_no_other(
    model: Recommender, knowledge: Knowledge, prompts: list[Prompt], view_of: Callable[..., View]
) -> None:
    if not model.whole.causal:
        pytest.skip("a label is an item there, whatever the length")
    view = view_of(1)
    first, *others = view.records
    beside = {channel: tensor[:3] for channel, tensor in first.also_reads.items()}
    short = replace(view, records=(replace(first, tensor=first.tensor[:3], also_reads=beside), *others))
    found = LabelMatch(shortlist=8).run(short, knowledge, Budget(120)).arrays["labels"]
    assert (found[0] == -1).all()
    assert hits(found[1:], prompts[1:], model) == 1


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "8"])
def test_settings_out_of_range_are_refused(value: object) -> None:
    with pytest.raises(InputError, match="label_match: shortlist is"):
        LabelMatch(value)  # type: ignore[arg-type]
