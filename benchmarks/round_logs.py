"""What a run directory holds of each strategy that was trained in it: the logs of its rounds, its users' scores."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from pplr_audit import scenario
from pplr_audit.errors import InputError
from pplr_audit.runs.store import SCENARIO, Store
from pplr_audit.training import run_job
from pplr_audit.training.checkpoints import TrainingFiles
from pplr_audit.training.rounds import RoundLog
from pplr_audit.training.run_job import is_whole, loaded, rounds_done, trained
from pplr_audit.training.spec import TrainingSpec, own_training, rivals_of
from pplr_audit.training.utility.user_scores import UserScores


def by_strategy(directory: Path) -> dict[str, list[RoundLog]]:
    """The run's own strategy first, and no rival that broke off. Raises InputError where the run, or a round of its
    own, is not there."""
    return {
        spec.label: TrainingFiles(loaded(directory, spec)).logs(spec.training.rounds)
        for place, spec in enumerate(_specs(directory))
        if place == 0 or rounds_done(directory, spec) >= spec.training.rounds
    }


def user_scores(directory: Path) -> UserScores:
    """Those of the run's own strategy and of the references, and those of its rivals besides. Raises InputError where
    the run has not been measured."""
    own = run_job.user_scores(directory)
    found = dict(own.scores)
    for spec in _specs(directory)[1:]:
        if is_whole(directory, spec, ()):
            rival = trained(directory, spec).scores
            if not np.array_equal(rival.users, own.users):
                raise InputError(f"{directory}: {spec.name} is of other users than the run's own training")
            found |= rival.scores
    return replace(own, scores=found)


def _specs(directory: Path) -> list[TrainingSpec]:
    """Each training of a run, the run's own first."""
    with Store.load(directory) as store:
        chosen = scenario.from_text(store.read_text(SCENARIO), str(directory / SCENARIO))
    own = own_training(chosen)
    return [own, *rivals_of(own, chosen)]


def seconds(logs: Iterable[RoundLog]) -> float:
    """Of all rounds, whichever call ran them; a round that a kill cut short counts once, as it was in the end."""
    return sum(log.seconds for log in logs)
