"""A front that has moved from what the adversary knows is read better with known plaintext of it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pplr_audit import scenario
from pplr_audit.attacks.activation.inverter import Inverter
from pplr_audit.attacks.activation.ridge import Ridge
from pplr_audit.attacks.gradient.bidirectional import Bidirectional
from pplr_audit.attacks.learners.drift import undone
from pplr_audit.audit.knowledge.known_model import KnownModel
from pplr_audit.data.dataset import Dataset
from pplr_audit.data.prompts import Prompt
from pplr_audit.models.build import Recommender, build
from pplr_audit.threat_model.attack import Attack, Budget
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge, Plaintext
from pplr_audit.threat_model.outcomes import NotApplicable
from pplr_audit.threat_model.view import View
from tests.attacks.test_label_match import stepped
from tests.attacks.test_prefix_search import prompts_of, right, trained, view_of
from tests.conftest import LAYERS

ATTACKS: list[Any] = [
    Ridge(prompts=64, held_out=8), Inverter("linear", prompts=384, held_out=8),
    Inverter(prompts=112, epochs=12, held_out=8),
]  # fmt: skip
LAYER = 1


@pytest.fixture(scope="module")
def model(recformer_scenario: scenario.Scenario, small_market: Dataset) -> Recommender:
    return build(recformer_scenario.model, small_market.catalogue, history=3, seed=1)


def crossed(model: Recommender, adapter: dict[str, Tensor], step: int = 0) -> Plaintext:
    own, catalogue = KnownModel(model.whole, adapter), model.task.catalogue
    return Plaintext(step, catalogue, f"{own.digest} {step}", lambda layers: own.states(catalogue, layers))


def base(model: Recommender, plaintext: Sequence[Plaintext] | None) -> Knowledge:
    """An adversary with the public weights alone."""
    known = Knowledge(
        "base", model.prompts, model.whole.embeddings, KnownModel(model.whole, None), {}, (0, 1), 3, LAYERS
    )
    return known if plaintext is None else replace(known, plaintext=lambda client, round_: plaintext)


def histories(model: Recommender) -> list[Prompt]:
    generator = np.random.default_rng(99)
    return [model.prompts.build(generator.integers(48, size=3), 0) for _ in range(20)]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: f"{attack.name} {getattr(attack, 'kind', '')}")
def test_a_front_that_moved_far_is_read_better_than_by_the_public_weights_alone(
    model: Recommender, attack: Attack
) -> None:
    adapter, prompts = trained(model, 0.2), histories(model)
    view = view_of(model, adapter, prompts, LAYER)
    alone = attack.run(view, base(model, None), Budget(60))
    guess = attack.run(view, base(model, [crossed(model, adapter)]), Budget(60))
    assert "plaintext_used" not in alone.facts
    assert guess.facts["plaintext_used"] >= 18
    assert right(guess, prompts) > right(alone, prompts) + 0.2


@pytest.mark.parametrize("attack", ATTACKS[:1])
def test_what_crossed_of_others_stays_at_the_baseline(model: Recommender, attack: Attack) -> None:
    adapter, prompts = trained(model, 0.2), histories(model)
    view = view_of(model, adapter, prompts, LAYER)
    dealt = view.shuffled(np.random.default_rng(0))
    guess = attack.run(dealt, base(model, [crossed(model, adapter)]), Budget(60))
    items, offsets = guess.arrays["items"], guess.arrays["slot_offsets"]
    classes = model.prompts.title_classes()
    found = []
    for row, prompt in enumerate(prompts):
        read = items[offsets[row] : offsets[row + 1], 0][:3]
        found.append(classes[read] == classes[prompt.items[: len(read)]])
    assert np.concatenate(found).mean() < 0.15


def test_a_front_that_did_not_move_is_read_as_before(model: Recommender) -> None:
    prompts, attack = histories(model), ATTACKS[0]
    view = view_of(model, model.initial, prompts, LAYER)
    still = Plaintext(0, model.task.catalogue, "still", lambda layers: known.base.states(model.task.catalogue, layers))
    known = base(model, [still])
    guess, alone = attack.run(view, known, Budget(60)), attack.run(view, base(model, None), Budget(60))
    assert guess.facts["plaintext_used"] == 0
    assert all(np.array_equal(guess.arrays[name], alone.arrays[name]) for name in alone.arrays)


def test_the_crossing_of_the_nearest_step_is_used_and_fitted_once(model: Recommender) -> None:
    early, late, prompts = trained(model, 0.1), trained(model, 0.3), histories(model)
    asked: list[tuple[int, list[int]]] = []

    def noted(plaintext: Plaintext) -> Plaintext:
        def states(layers: Sequence[int]) -> Any:
            asked.append((plaintext.step, list(layers)))
            return plaintext.states(layers)

        return replace(plaintext, states=states)

    public = [noted(crossed(model, early, 0)), noted(crossed(model, late, 9)), noted(crossed(model, late, 40))]
    first, last = (view_of(model, adapter, prompts, LAYER).records for adapter in (early, late))
    records = (*(replace(r, step=4) for r in first[:10]), *(replace(r, step=5) for r in last[10:]))
    known, view = base(model, public), View("server", Channel.FRONT_ACTIVATIONS, LAYER, None, "none", records)
    guess = ATTACKS[0].run(view, known, Budget(60))
    assert sorted(asked) == [(0, [0, 1]), (9, [0, 1])]
    apart = [ATTACKS[0].run(replace(view, records=part), known, Budget(60)) for part in (records[:10], records[10:])]
    assert len(asked) == 2
    assert np.array_equal(guess.arrays["tokens"], np.concatenate([each.arrays["tokens"] for each in apart]))


def test_the_drift_takes_a_front_back_to_the_copy(model: Recommender) -> None:
    adapter, prompts = trained(model, 0.1), histories(model)
    known = base(model, None)
    back = undone(crossed(model, adapter), known.base, LAYER, known, Budget(60))
    moved, copied = (dict(model.whole.states(prompts, [LAYER], each)) for each in (adapter, None))
    apart = [
        torch.cat([values(moved[place][LAYER]) - copied[place][LAYER] for place in moved]).square().mean()
        for values in (lambda x: x, back)
    ]
    assert apart[1] < 0.6 * apart[0]  # titles say nothing of late positions


def test_both_sides_of_a_step_use_it(model: Recommender) -> None:
    adapter, prompts = trained(model, 0.2), prompts_of(model)
    up = view_of(model, adapter, prompts, LAYER).records
    down = stepped(model, adapter, prompts, model.task.loss)(1).records
    records = tuple(
        replace(record, also_reads={**record.also_reads, Channel.FRONT_ACTIVATIONS: sent.tensor})
        for record, sent in zip(down, up, strict=True)
    )
    view = View("server", Channel.BACK_GRADIENTS, LAYER, 1, "none", records)
    attack = Bidirectional(prompts=64, held_out=8)
    guess = attack.run(view, base(model, [crossed(model, adapter)]), Budget(60))
    assert guess.facts["plaintext_used"] >= 7
    assert right(guess, prompts) > right(attack.run(view, base(model, None), Budget(60)), prompts) + 0.2


def test_a_catalogue_that_is_not_finite_is_not_learned_from(model: Recommender) -> None:
    adapter = trained(model, 0.1)
    sound = crossed(model, adapter)
    spoiled = [(place, {n: h * torch.nan for n, h in made.items()}) for place, made in sound.states((0, 1))]
    wrong = replace(sound, states=lambda layers: iter(spoiled))
    with pytest.raises(NotApplicable, match="what crossed of the catalogue is not finite"):
        ATTACKS[0].run(view_of(model, adapter, histories(model), LAYER), base(model, [wrong]), Budget(60))
