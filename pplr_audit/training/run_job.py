"""One training from its first round to what it is worth and costs, as it lies in its own folder.

Each step is made once and stored, so that a training that was killed goes on from where it stopped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pplr_audit.errors import InputError
from pplr_audit.models.recommenders.task import Tally
from pplr_audit.runs import manifest, stored
from pplr_audit.runs.ledger import Ledger
from pplr_audit.runs.progress import Clock
from pplr_audit.runs.store import MANIFEST, SCENARIO, TRAINING, Store
from pplr_audit.scenario.loading import from_text
from pplr_audit.training import resume
from pplr_audit.training.checkpoints import TrainingFiles
from pplr_audit.training.costs.run_costs import SERVING, cost_rows
from pplr_audit.training.job import Job
from pplr_audit.training.onlooker import Onlooker
from pplr_audit.training.rounds import RoundLog
from pplr_audit.training.spec import TrainingSpec, own_training
from pplr_audit.training.threads import Choice, Pace
from pplr_audit.training.utility.measure import utility_rows
from pplr_audit.training.utility.user_scores import PER_USER, UserScores
from pplr_audit.training.utility.validation import never_stopping, validator

FOLDER = "trainings"
UTILITY = "utility.json"


@dataclass(frozen=True)
class Measures:
    """What is measured of a finished training besides its own users' utility."""

    references: bool = True
    """The base model, popularity and the best possible, measured beside it."""
    costs: bool = True


@dataclass(frozen=True)
class Trained:
    """A finished training: its log, what it is worth and costs, and each user's own scores."""

    spec: TrainingSpec
    logs: list[RoundLog]
    measured: dict[str, Any]
    """Rows of the findings document: ``utility``, ``balance`` and, where they were asked for, ``costs``."""
    scores: UserScores
    seconds: dict[str, float]
    """Wall time by phase."""


def folder_of(root: Path, spec: TrainingSpec) -> Path:
    """Return the folder of a training in the run ``root``."""
    return root / FOLDER / spec.name


def opened(root: Path, spec: TrainingSpec) -> Store:
    """Open a training's folder to write, or begin it. Raises InputError as `Store.open` does."""
    return Store.open(folder_of(root, spec), spec.text, spec.digest, TRAINING)


def has_begun(root: Path, spec: TrainingSpec) -> bool:
    """True if a training's folder is there, begun to the end: a kill may have come right after it was made."""
    folder = folder_of(root, spec)
    return Ledger.exists(folder) and MANIFEST in Ledger.read(folder).entries


def loaded(root: Path, spec: TrainingSpec) -> Store:
    """Open a training's folder to read. Raises InputError as `Store.load` does, also where it has not begun."""
    return Store.load(folder_of(root, spec), kind=TRAINING)


def rounds_done(root: Path, spec: TrainingSpec) -> int:
    """Return how many rounds of a training are finished."""
    return TrainingFiles(loaded(root, spec)).done() if has_begun(root, spec) else 0


def is_whole(root: Path, spec: TrainingSpec, kept: Sequence[int]) -> bool:
    """True if a training is done and measured, and the start of each round to be kept is there."""
    if rounds_done(root, spec) < spec.training.rounds:
        return False
    store = loaded(root, spec)
    return store.exists(UTILITY) and not TrainingFiles(store, kept).missing()


def train_job(
    job: Job, store: Store, clock: Clock, threads: Choice, measures: Measures = Measures(),
    onlooker: Onlooker | None = None,
) -> None:  # fmt: skip
    """Train what is left, then measure what it recommends; the federation ends with the trained models.

    Args:
        store: of the training's own folder.
        onlooker: looks on in the rounds that are left.

    Raises:
        InputError: the training began with other data or weights, or a file of it is damaged.
        RunError: the training diverged, or the disk refused a file; the same call continues it.
    """
    resume.note_compute(store, threads, lambda _: None)  # the run says it, once for all of its trainings
    resume.same_inputs(store, job.private, job.model)
    own, files = clock.apart(), job.files(store)
    left = files.done() < job.spec.training.rounds or bool(files.missing()), not store.exists(UTILITY)
    _train_rounds(job, files, store, own, threads, onlooker)
    _measure(job, files.logs(job.spec.training.rounds), store, own, measures)
    if any(left):  # a training that was only opened again took no time
        manifest.add_seconds(store, own.seconds)


def trained(root: Path, spec: TrainingSpec) -> Trained:
    """Read a finished training. Raises InputError for a damaged file of it."""
    store = loaded(root, spec)
    files = TrainingFiles(store)
    files.latest()  # read by nobody where all cells are done, and damaged it is no run to report
    logs = files.logs(spec.training.rounds)
    measured = stored.measured(store.read_json(UTILITY), store.root / UTILITY)
    return Trained(spec, logs, measured, UserScores.of(store), store.manifest.get("seconds", {}))


def user_scores(root: Path) -> UserScores:
    """Return the scores of the users of a run's own training.

    Raises InputError where it is not trained, or where a file was altered.
    """
    with Store.load(root) as store:
        spec = own_training(from_text(store.read_text(SCENARIO), str(root / SCENARIO)))
    if not is_whole(root, spec, ()):
        raise InputError(f"{root}: holds no scores of single users, as its training is not finished")
    return UserScores.of(loaded(root, spec))


def _train_rounds(
    job: Job, files: TrainingFiles, store: Store, clock: Clock, threads: Choice, onlooker: Onlooker | None
) -> None:  # fmt: skip
    """Train what is left of one training."""
    training = job.spec.training
    with clock.phase(f"training {job.spec.label}", training.rounds * len(job.federation.clients)) as advance:
        never = never_stopping(job.scenario, job.private)
        if never and files.latest() is None:
            store.event("never_stop", strategy=training.label, clients=never)
        pace = Pace(threads.number, clock.say)
        resume.train(job.federation, files, training.rounds, advance, validator(job), pace, onlooker)


def _measure(job: Job, logs: Sequence[RoundLog], store: Store, clock: Clock, measures: Measures) -> None:
    """Measure what the trained models recommend, and what they cost, where it was not measured yet."""
    if store.exists(UTILITY):
        stored.measured(store.read_json(UTILITY), store.root / UTILITY)
        UserScores.of(store)
        return
    steps = (3 if measures.references else 1) * len(job.private.population.clients)
    with clock.phase(f"measuring {job.spec.label}", steps) as advance:
        link = job.federation.link
        tally, before, encoded = Tally(), link.sent.copy(), link.catalogue_bytes  # stopping early has served, too
        utility = utility_rows(job, job.spec.defense, tally, advance, references=measures.references)
        served = sum(link.sent[channel] - before[channel] for channel in SERVING)
        served -= link.catalogue_bytes - encoded  # once a client, not for each request
        utility.scores.write(store, PER_USER)
        costs = {"costs": cost_rows(job, logs, tally, served)} if measures.costs else {}
        store.write_json(UTILITY, {"utility": utility.rows, "balance": utility.balance, **costs})
