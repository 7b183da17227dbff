"""One training from its first round to what it is worth and costs, as it lies in the run directory.

Each step is made once and stored, so that a run that was killed goes on from where it stopped.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pplr_audit.errors import RunError
from pplr_audit.models.recommenders.task import Tally
from pplr_audit.runs import manifest, stored
from pplr_audit.runs.progress import Clock
from pplr_audit.runs.store import Store
from pplr_audit.training import resume
from pplr_audit.training.checkpoints import TrainingFiles
from pplr_audit.training.costs.run_costs import SERVING, cost_rows
from pplr_audit.training.job import Job, training_files
from pplr_audit.training.rounds import RoundLog
from pplr_audit.training.threads import Choice, Pace
from pplr_audit.training.utility.measure import utility_rows
from pplr_audit.training.utility.user_scores import PER_USER, UserScores, compared
from pplr_audit.training.utility.validation import never_stopping, validator

UTILITY = "utility.json"
UNFINISHED = "its training is not finished; pplr-audit run tries it again"


@dataclass(frozen=True)
class Trained:
    """The training as it lies in the run directory, and what it is worth and costs."""

    files: TrainingFiles
    logs: list[RoundLog]
    measured: dict[str, Any]
    """Rows of the findings document: ``utility``, ``costs`` and, of runs that noted them, ``balance`` and
    ``differences``."""
    failed: list[dict[str, str]]
    """Rivals that broke off: ``strategy`` and ``reason``."""


def train_job(job: Job, store: Store, clock: Clock, threads: Choice) -> Trained:
    """Train what is left, then measure what it recommends; the federation ends with the trained models.

    Rivals come first: all of them train on the one model there is.

    Raises:
        InputError: the run directory began with other data or weights, or a file in it is damaged.
        RunError: the training diverged, or the disk refused a file; the same call continues it.
    """
    resume.note_compute(store, threads, clock.say)
    resume.same_inputs(store, job.private, job.model)
    rivals, failed = _train_rivals(job.rivals, store, clock, threads)
    files = _train_rounds(job, store, clock, threads, "training")
    logs = files.logs(job.scenario.training.rounds)
    measured = _measure(job, logs, store, clock)
    for rows, scores in reversed(rivals):
        for part in ("utility", "balance"):  # behind the run's own rows, before the references
            own = sum(row["strategy"] == job.scenario.training.label for row in measured[part])
            measured[part] = [*measured[part][:own], *rows[part], *measured[part][own:]]
        differences = compared(UserScores.of(store), scores, seed=job.scenario.seed)
        measured["differences"] = [*differences, *measured.get("differences", ())]
    return Trained(files, logs, measured, failed)


def collect_job(job: Job, store: Store, clock: Clock, threads: Choice) -> Trained:
    """Read what a finished training left, and measure what was not measured yet; no round is trained.

    A rival that broke off stays so: it is tried again by what trains.
    """
    whole = tuple(rival for rival in job.rivals if _finished(rival, store))
    left = [rival.scenario.training.label for rival in job.rivals if not _finished(rival, store)]
    trained = train_job(replace(job, rivals=whole), store, clock, threads)
    trained.failed.extend({"strategy": strategy, "reason": UNFINISHED} for strategy in left)
    return trained


def _finished(job: Job, store: Store) -> bool:
    return training_files(store, job.scenario).done() >= job.scenario.training.rounds


def _train_rivals(
    rivals: Sequence[Job], store: Store, clock: Clock, threads: Choice
) -> tuple[list[tuple[dict[str, Any], UserScores]], list[dict[str, str]]]:
    """Train the rivals; return those that finished, and those that broke off, which another call tries again.

    A rival is there to be compared with: one that diverges must not keep the run from what it is for.
    """
    whole, failed = [], []
    for rival in rivals:
        try:
            whole.append(_train_rival(rival, store, clock, threads))
        except RunError as error:
            if isinstance(error.__cause__, OSError):  # a full disk stops everyone
                raise
            failed.append({"strategy": rival.scenario.training.label, "reason": str(error)})
            store.event("rival_failed", strategy=failed[-1]["strategy"], error=str(error))
    return whole, failed


def _train_rival(rival: Job, store: Store, clock: Clock, threads: Choice) -> tuple[dict[str, Any], UserScores]:
    """Train what is left of a rival and measure it, without references: rows of the findings, and its users' scores."""
    name = rival.scenario.training.label
    files = _train_rounds(rival, store, clock, threads, f"training {name}")
    steps, scores = len(rival.private.population.clients), f"{files.folder}/{PER_USER}"
    with clock.phase(f"measuring what {name} recommends", steps) as advance:

        def measure() -> dict[str, Any]:
            utility = utility_rows(rival, "none", Tally(), advance, references=False)
            utility.scores.write(store, scores)
            return {"utility": utility.rows, "balance": utility.balance}

        path = f"{files.folder}/{UTILITY}"
        measured = stored.measured(manifest.once(store, path, measure), store.root / path)
        return measured, UserScores.of(store, scores)


def _train_rounds(job: Job, store: Store, clock: Clock, threads: Choice, phase: str) -> TrainingFiles:
    """Train what is left of one training; return its files."""
    training, files = job.scenario.training, job.files(store)
    if not _finished(job, store):
        resume.note_plugins(store, [("strategies", training.strategy)])
    with clock.phase(phase, training.rounds * len(job.federation.clients)) as advance:
        never = never_stopping(job.scenario, job.private)
        if never and files.latest() is None:
            store.event("never_stop", strategy=training.label, clients=never)
        pace = Pace(threads.number, clock.say)
        resume.train(job.federation, files, training.rounds, advance, validator(job), pace)
    return files


def _measure(job: Job, logs: Sequence[RoundLog], store: Store, clock: Clock) -> dict[str, Any]:
    """Measure the run's own training beside references, and its costs."""
    steps = 3 * len(job.private.population.clients)
    with clock.phase("measuring what it recommends", steps) as advance:

        def measure() -> dict[str, Any]:
            link = job.federation.link
            tally, before, encoded = Tally(), link.sent.copy(), link.catalogue_bytes  # stopping early has served, too
            utility = utility_rows(job, "none", tally, advance)
            served = sum(link.sent[channel] - before[channel] for channel in SERVING)
            served -= link.catalogue_bytes - encoded  # once a client, not for each request
            utility.scores.write(store)
            costs = cost_rows(job, logs, tally, served)
            return {"utility": utility.rows, "balance": utility.balance, "costs": costs}

        if store.exists(UTILITY):
            advance(steps)
        return stored.measured(manifest.once(store, UTILITY, measure), store.root / UTILITY)
