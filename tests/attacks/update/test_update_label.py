"""Next items are read from updates, with chances that hold; updates on other data tell nothing."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pplr_audit.attacks.update.update_label import UpdateLabel
from pplr_audit.errors import InputError
from pplr_audit.models.build import Recommender
from pplr_audit.threat_model import Budget, BudgetExhausted, Channel, Guess, LocalSteps, NotApplicable, View
from tests.attacks.update.clients import ADAMW, Clients, answers_of, random_prompts

ATTACK = UpdateLabel(prompts=96, clients=4)


@pytest.fixture(scope="module")
def few(model: Recommender) -> Clients:
    """Six clients of four samples each, who make one step of SGD."""
    drawn = random_prompts(model, 24, seed=3)
    return Clients(model, {f"client-{place}": drawn[4 * place : 4 * place + 4] for place in range(6)})


def ranking(guess: Guess, row: int) -> list[int]:
    place, bounds = guess.arrays["rows"].tolist().index(row), guess.arrays["item_offsets"]
    return [int(item) for item in guess.arrays["ranked_items"][bounds[place] : bounds[place + 1]]]


def chances(guess: Guess, row: int) -> dict[int, float]:
    place, bounds = guess.arrays["rows"].tolist().index(row), guess.arrays["item_offsets"]
    own = guess.arrays["item_chances"][bounds[place] : bounds[place + 1]]
    return dict(zip(ranking(guess, row), own.tolist(), strict=True))


def recall(guess: Guess, clients: Clients) -> float:
    """Share of the true answers among as many of the best, over the clients."""
    found = []
    for row, prompts in enumerate(clients.samples.values()):
        true = answers_of(prompts)
        found.append(len(true & set(ranking(guess, row)[: len(true)])) / len(true))
    return float(np.mean(found))


@pytest.fixture(scope="module")
def guess(few: Clients) -> Guess:
    return ATTACK.run(few.view(), few.knowledge(), Budget(60))


def test_few_samples_and_one_step_are_read(few: Clients, guess: Guess) -> None:
    """4 of 48 are named by chance: .08. The items of a random encoder lie close together."""
    assert recall(guess, few) >= (0.9 if few.known.causal else 0.4)


def test_chances_are_probabilities(few: Clients, guess: Guess) -> None:
    for row in range(len(few.samples)):
        own = chances(guess, row)
        assert [*own.values()] == sorted(own.values(), reverse=True)
        assert all(0 < chance < 1 for chance in own.values())
    true = [chances(guess, row)[item] for row, own in enumerate(few.samples.values()) for item in answers_of(own)]
    every = [chance for row in range(len(few.samples)) for chance in chances(guess, row).values()]
    assert np.mean(true) > 3 * np.mean(every)
    assert sum(every) == pytest.approx(len(true), rel=0.5), "as many as there are"


def test_updates_on_other_data_say_nothing(few: Clients) -> None:
    shuffled = few.view().shuffled(np.random.default_rng(0))
    assert recall(ATTACK.run(shuffled, few.knowledge(), Budget(60)), few) < 0.25


def test_steps_of_adamw_with_weight_decay_are_read_too(model: Recommender) -> None:
    drawn = random_prompts(model, 24, seed=4)
    clients = Clients(model, {f"client-{place}": drawn[8 * place : 8 * place + 8] for place in range(3)}, ADAMW)
    found = ATTACK.run(clients.view(), clients.knowledge(), Budget(60))
    assert recall(found, clients) >= (0.6 if clients.known.causal else 0.35)  # by chance: .17


def test_a_sum_of_updates_names_the_answers_of_all(model: Recommender, few: Clients) -> None:
    found = ATTACK.run(few.view(Channel.AGGREGATE), few.knowledge(), Budget(60))
    true = set().union(*map(answers_of, few.samples.values()))
    assert len(true & set(ranking(found, 0)[: len(true)])) / len(true) > 0.6  # by chance: .5


def test_any_part_of_the_update_is_read(few: Clients) -> None:
    whole = few.view()
    part = tuple(replace(each, tensors={n: t for n, t in each.tensors.items() if ".2." in n}) for each in whole.records)
    assert recall(ATTACK.run(replace(whole, records=part), few.knowledge(), Budget(60)), few) > (
        0.5 if few.known.causal else 0.3
    )


def test_it_says_why_it_does_not_apply(few: Clients) -> None:
    def run(view: View[Any] | None = None, **fields: Any) -> None:
        ATTACK.run(view or few.view(), few.knowledge(**fields), Budget(60))

    with pytest.raises(NotApplicable, match="does not know the training's recipe"):
        run(recipe=None)
    with pytest.raises(NotApplicable, match="does not know their samples"):
        run(steps={("client-0", 1): LocalSteps(4, (1.0,))})
    with pytest.raises(NotApplicable, match="text over the catalogue"):
        run(auxiliary="public")
    with pytest.raises(NotApplicable, match="the adversary has none"):
        run(auxiliary="none")
    seen = few.view()
    nothing = tuple(replace(each, tensors={n: 0 * t for n, t in each.tensors.items()}) for each in seen.records)
    with pytest.raises(NotApplicable, match="all of the update is zero"):
        run(replace(seen, records=nothing))
    unknown = tuple(replace(each, tensors={"other": each.tensors[next(iter(each.tensors))]}) for each in seen.records)
    with pytest.raises(NotApplicable, match="no tensor of this update"):
        run(replace(seen, records=unknown))
    with pytest.raises(BudgetExhausted):
        ATTACK.run(seen, few.knowledge(), Budget(0))
    with pytest.raises(InputError, match=r"update_label: clients is 1 \(accepted: a whole number, 2 or more\)"):
        UpdateLabel(clients=1)
