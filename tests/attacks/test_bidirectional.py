"""What goes up and what comes back are joined: either side alone is enough, and neither is nothing."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from pplr_audit.attacks.gradient.bidirectional import DOWN, UP, Bidirectional
from pplr_audit.data.prompts import Prompt
from pplr_audit.errors import InputError
from pplr_audit.models.build import Recommender
from pplr_audit.threat_model.attack import Budget, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.outcomes import BudgetExhausted, NotApplicable
from pplr_audit.threat_model.view import View
from tests.attacks.test_label_match import adapter, hits, knowledge, model, prompts, view_of  # noqa: F401

Both = Callable[[float, float], View]


@pytest.fixture(scope="module")
def known(knowledge: Knowledge) -> Knowledge:  # noqa: F811
    return replace(knowledge, layers=(1,))


@pytest.fixture(scope="module")
def both(
    model: Recommender, adapter: dict[str, torch.Tensor], prompts: list[Prompt], view_of: Callable[..., View]  # noqa: F811
) -> Both:  # fmt: skip
    """A view at k = m = 1, with so much noise on what goes up and on what comes back."""
    seen = dict(model.whole.states(prompts, [1], adapter))

    def view(up: float, back: float) -> View:
        generator = torch.Generator().manual_seed(2)
        records = []
        for record in view_of(1, noise=back).records:
            front = seen[record.row][1]
            front = front + up * front.std() * torch.randn(front.shape, generator=generator)
            records.append(replace(record, also_reads={**record.also_reads, UP: front}))
        return View("server", Channel.BACK_GRADIENTS, 1, 1, "none", tuple(records))

    return view


def attack() -> Bidirectional:
    return Bidirectional(shortlist=8, prompts=64, held_out=8)


def read(guess: Guess, prompts: list[Prompt]) -> float:  # noqa: F811
    """Share of the items at their places."""
    offsets, items = guess.arrays["slot_offsets"], guess.arrays["items"][:, 0]
    hit = 0
    for i, prompt in enumerate(prompts):
        named = items[offsets[i] : offsets[i + 1]][: len(prompt.items)]
        hit += int((named == prompt.items[: len(named)]).sum())
    return hit / sum(len(prompt.items) for prompt in prompts)


def test_it_reads_the_history_and_the_next_item(
    model: Recommender, known: Knowledge, prompts: list[Prompt], both: Both  # noqa: F811
) -> None:  # fmt: skip
    guess = attack().run(both(0.0, 0.0), known, Budget(120))
    assert hits(guess.arrays["labels"], prompts, model) == 1.0
    assert read(guess, prompts) > 0.9
    assert guess.facts["backward"] > 0.99
    assert (guess.facts["forward"] > 0.5) == model.whole.causal, "RecFormer's sequence does not hold the answer"


def test_noise_on_what_comes_back_leaves_what_goes_up(
    model: Recommender, known: Knowledge, prompts: list[Prompt], both: Both  # noqa: F811
) -> None:  # fmt: skip
    guess = attack().run(both(0.0, 1000.0), known, Budget(120))
    assert guess.facts["backward"] < 0.2
    if model.whole.causal:
        assert hits(guess.arrays["labels"], prompts, model) == 1.0
    else:
        assert hits(guess.arrays["labels"], prompts, model) <= 0.25
    assert read(guess, prompts) > 0.9


def test_noise_on_what_goes_up_leaves_what_comes_back(
    model: Recommender, known: Knowledge, prompts: list[Prompt], both: Both  # noqa: F811
) -> None:  # fmt: skip
    guess = attack().run(both(100.0, 0.0), known, Budget(120))
    assert hits(guess.arrays["labels"], prompts, model) == 1.0
    assert read(guess, prompts) < 0.3


def test_it_finds_nothing_of_a_user_in_what_crossed_of_another(
    model: Recommender, known: Knowledge, prompts: list[Prompt], both: Both  # noqa: F811
) -> None:  # fmt: skip
    guess = attack().run(both(0.0, 0.0).shuffled(np.random.default_rng(0)), known, Budget(120))
    assert hits(guess.arrays["labels"], prompts, model) <= 0.25
    assert read(guess, prompts) < 0.3


def test_it_says_when_it_cannot_answer(known: Knowledge, both: Both) -> None:
    view = both(0.0, 0.0)
    for nothing, said in ((replace(view, front=None), "a front"), (replace(view, back=None), "a back")):
        with pytest.raises(NotApplicable, match=said):
            attack().run(nothing, known, Budget(60))
    with pytest.raises(BudgetExhausted):
        attack().run(view, known, Budget(-1.0))
    with pytest.raises(InputError, match="label_match: shortlist is 0"):
        Bidirectional(shortlist=0)
    assert Bidirectional.also_reads == {UP, DOWN}
    for channel in (UP, DOWN):  # what it reads beside is looked at as well
        beside = {**view.records[0].also_reads, channel: view.records[0].also_reads[channel] * float("nan")}
        broken = replace(view, records=(replace(view.records[0], also_reads=beside), *view.records[1:]))
        with pytest.raises(NotApplicable, match="row 0 is not finite"):
            attack().run(broken, known, Budget(60))
