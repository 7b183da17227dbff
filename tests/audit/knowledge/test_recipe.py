"""The local steps that an adversary is told are those that were taken."""

import numpy as np
import pytest

from pplr_audit import scenario
from pplr_audit.audit.knowledge.recipe import local_steps, recipe
from pplr_audit.training.schedule import batches


@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_steps_factors_and_batches_are_those_of_the_schedule(schedule: str) -> None:
    training = scenario.Training.model_validate(
        {"rounds": 2, "batch_size": 4, "local_epochs": 2, "schedule": schedule, "weight_decay": 0.1}
    )
    plan = batches(np.full(10, 7), training, seed=0, client="x", round_=2)
    found = local_steps(10, training, 2, plan)
    assert (found.samples, found.steps, sorted(found.batches)) == (10, 6, [2, 2, 4, 4, 4, 4])
    by_hand = [1 - step / 12 for step in range(6, 12)] if schedule == "linear" else [1.0] * 6
    assert found.factors == pytest.approx(by_hand)
    told = recipe(training)
    assert (told.optimizer, told.learning_rate, told.weight_decay, told.batch_size) == ("adamw", 1e-4, 0.1, 4)


def test_who_does_not_see_the_batches_is_told_no_sizes() -> None:
    assert local_steps(10, scenario.Training(batch_size=4), 1).batches == ()
