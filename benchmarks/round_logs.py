"""What a run directory holds of each strategy that was trained in it: the logs of its rounds, its users' scores."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from pplr_audit import scenario
from pplr_audit.errors import InputError
from pplr_audit.runs.store import SCENARIO, Store
from pplr_audit.scenario.rivals import trainings
from pplr_audit.training import resume
from pplr_audit.training.checkpoints import TrainingFiles
from pplr_audit.training.rounds import RoundLog
from pplr_audit.training.utility import user_scores as per_user
from pplr_audit.training.utility.user_scores import UserScores


def by_strategy(directory: Path) -> dict[str, list[RoundLog]]:
    """The run's own strategy first, and no rival that broke off. Raises InputError where the run, or a round of its
    own, is not there."""
    with Store.load(directory) as store:
        return {
            training.label: files.logs(training.rounds)
            for place, (training, files) in enumerate(_trained(store, directory))
            if place == 0 or files.done() >= training.rounds
        }


def user_scores(directory: Path) -> UserScores:
    """Those of the run's own strategy and of the references, and those of its rivals besides. Raises InputError where
    the run has not been measured."""
    own = per_user.read(directory)
    found = dict(own.scores)
    with Store.load(directory) as store:
        for _, files in _trained(store, directory)[1:]:
            path = f"{files.folder}/{per_user.PER_USER}"
            if store.exists(path):
                rival = UserScores.of(store, path)
                if not np.array_equal(rival.users, own.users):
                    raise InputError(f"{directory}: {path} is of other users than {per_user.PER_USER}")
                found |= rival.scores
    return replace(own, scores=found)


def _trained(store: Store, directory: Path) -> list[tuple[scenario.Training, TrainingFiles]]:
    """Each training of a run and its files, the run's own first."""
    chosen = scenario.from_text(store.read_text(SCENARIO), str(directory / SCENARIO))
    slugs = (
        (training, resume.training_slug(chosen.model_copy(update={"training": training})))
        for training in (chosen.training, *trainings(chosen.training))
    )
    return [(training, TrainingFiles(store, f"trainings/{slug}", ())) for training, slug in slugs]


def seconds(logs: Iterable[RoundLog]) -> float:
    """Of all rounds, whichever call ran them; a round that a kill cut short counts once, as it was in the end."""
    return sum(log.seconds for log in logs)
