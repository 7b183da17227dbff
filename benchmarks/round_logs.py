"""What a run directory holds of every round: of each strategy that was trained in it, its logs."""

from collections.abc import Iterable
from pathlib import Path

from pplr_audit import resume, scenario
from pplr_audit.pplr.rounds import RoundLog
from pplr_audit.rivals import trainings
from pplr_audit.runs.store import SCENARIO, Store
from pplr_audit.runs.trainings import TrainingFiles


def by_strategy(directory: Path) -> dict[str, list[RoundLog]]:
    """The run's own strategy first, and no rival that broke off. Raises InputError where the run, or a round of its
    own, is not there."""
    with Store.load(directory) as store:
        chosen = scenario.from_text(store.read_text(SCENARIO), str(directory / SCENARIO))
        found = {}
        for training in (chosen.training, *trainings(chosen.training)):
            slug = resume.training_slug(chosen.model_copy(update={"training": training}))
            files = TrainingFiles(store, f"trainings/{slug}", ())
            if training is chosen.training or files.done() >= training.rounds:
                found[training.label] = files.logs(training.rounds)
        return found


def seconds(logs: Iterable[RoundLog]) -> float:
    """Of all rounds, whichever call ran them; a round that a kill cut short counts once, as it was in the end."""
    return sum(log.seconds for log in logs)
