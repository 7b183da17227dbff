"""The main job, start to end: data, models, trainings, utility, views, attacks, scores, report. Start reading here.

``run`` does all of it, ``train`` stops before the attacks, ``attack`` begins after the trainings. All three leave the
same run directory, and each continues what another began.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pplr_audit import scenario as scenarios
from pplr_audit.audit import extension as extensions
from pplr_audit.audit.attacking import run_cells
from pplr_audit.audit.documents import evidence_document, findings_document, training_document
from pplr_audit.audit.extension import Extension
from pplr_audit.audit.forecast import Speed, forecast
from pplr_audit.audit.imported.attack_recording import attacked
from pplr_audit.audit.opening import OpenRun, directory_of, opened
from pplr_audit.audit.parts import Outcome
from pplr_audit.audit.plan import make_plan
from pplr_audit.audit.trainings import PlannedTraining
from pplr_audit.errors import InputError, RunError
from pplr_audit.report.findings.redaction import redacted, redacted_training
from pplr_audit.report.write import FINDINGS, read_documents, reports, write_documents, write_elsewhere, write_reports
from pplr_audit.runs import manifest
from pplr_audit.runs.ledger import Ledger
from pplr_audit.runs.progress import Clock, Progress, Silent
from pplr_audit.runs.store import SCENARIO, Store
from pplr_audit.scenario.schema import Named, Scenario
from pplr_audit.training import resume
from pplr_audit.training.executor import Executor, Place, Serial, Task
from pplr_audit.training.job import Inputs, Job
from pplr_audit.training.onlooker import Onlooker
from pplr_audit.training.run_job import is_whole, rounds_done, trained
from pplr_audit.training.side_by_side import allowed
from pplr_audit.training.spec import TrainingSpec
from pplr_audit.training.utility.validation import require_stopping

UNFINISHED = "its training is not finished; pplr-audit run tries it again"


@dataclass(frozen=True)
class AuditResult:
    """A run's directory and its document: of findings, or of its training alone; redacted if the run's report is."""

    directory: Path
    document: dict[str, Any]
    report: Path | None = None
    """The first of the formats that the scenario asks for."""


def run(
    scenario: Scenario,
    out: Path | None = None,
    progress: Progress | None = None,
    threads: int | None = None,
    executor: Executor | None = None,
) -> AuditResult:
    """Do what the scenario says, or what of it is left to do in the run directory.

    Args:
        out: the run directory; by default ``runs/<name>-<hash8>`` in the current folder.
        threads: how many to compute with; by default as many as the run began with, or as are chosen for one that
            begins (`threads.choose`).
        executor: trains what is left; by default one training after the other.

    Raises:
        InputError: the scenario, the data, the model or the directory do not fit; nothing has been written.
        RunError: it failed while running; the same call continues it.
    """
    made = executor or Serial()
    with opened(scenario, out, Clock(progress or Silent()), threads, forks=made.forks) as audit:
        return _attack(audit, _train(audit, audit.plan.trainings, made, audit.onlooker), made)


def train(
    scenario: Scenario,
    out: Path | None = None,
    progress: Progress | None = None,
    threads: int | None = None,
    executor: Executor | None = None,
) -> AuditResult:
    """The trainings and what they are worth, and no attack; arguments and errors as of ``run``, which can follow.

    No report is written: one without findings would read as if nothing leaked.
    """
    made = executor or Serial()
    with opened(scenario, out, Clock(progress or Silent()), threads, forks=made.forks) as audit:
        broken = _train(audit, audit.plan.trainings, made)
        manifest.replace_seconds(audit.store, audit.clock.seconds)
        document = training_document(audit.own, _outcome(audit, broken), audit.store.manifest)
        return AuditResult(audit.store.root, redacted_training(document) if _redacts(audit.store) else document)


def attack(
    directory: Path,
    more: Extension | None = None,
    progress: Progress | None = None,
    threads: int | None = None,
    settings: Sequence[str] = (),
    executor: Executor | None = None,
) -> AuditResult:
    """Attack a trained run: what its scenario and its extensions leave to do, and ``more`` if there is more.

    Args:
        threads, executor: as of `run`.
        settings: ``audit.field=value`` each: what is asked from now on in the place of what was asked before.

    Raises:
        InputError: the directory is no run, a training that is asked about is not finished, its data or weights are no
            longer the same, or what is asked does not fit the model; what was there is as it was.
        RunError: it failed while running; the same call continues it.
    """
    with Store.load(directory) as store:
        before = scenarios.from_text(store.read_text(SCENARIO), str(directory / SCENARIO))
    scenario = scenarios.asked_anew(before, settings) if settings else before
    with opened(scenario, directory, Clock(progress or Silent()), threads, more, extending=True) as audit:
        root, planned = audit.store.root, audit.plan.trainings
        whole = [each for each in planned if rounds_done(root, each.spec) >= each.spec.training.rounds]
        left = {each.spec: UNFINISHED for each in planned if each not in whole}
        made = executor or Serial()
        return _attack(audit, {**_train(audit, whole, made, audit.onlooker), **left}, made)


def import_recording(
    folder: Path, out: Path, attacks: Sequence[Named], progress: Progress | None = None, seconds: float = 300
) -> AuditResult:
    """Attack a recording of another system and write the findings; there is no report, which tells of a training.

    Args:
        out: a directory of its own; the same call continues it.
        seconds: ceiling on the time of an attack.

    Raises:
        InputError: the recording or an attack does not fit; nothing has been written.
        RunError: the disk refused a file.
    """
    with attacked(folder, out, attacks, Clock(progress or Silent()), seconds) as (store, document, evidence):
        write_documents(store, document, evidence)
    return AuditResult(out, document, out / FINDINGS)


def plan(
    scenario: Scenario, out: Path | None = None, progress: Progress | None = None, threads: int | None = None,
    executor: Executor | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return what ``run`` would do, with about the time and disk that it takes and what is there already.

    Nothing is written. Arguments and errors are as of `run`.
    """
    clock, root, by = Clock(progress or Silent()), directory_of(scenario, out), executor or Serial()
    with resume.computing(scenario, root, threads, clock.say, forks=by.forks) as choice:
        inputs = Inputs(clock.phase, resume.precision_of(root))
        made = make_plan(scenario, inputs.model(scenario).layers, extensions.of_run(root, scenario, extending=False))
        job = inputs.job(made.own, scenario, made.rounds)
        require_stopping(scenario, job.private)
        with clock.phase("measuring the speed of this machine"):
            speed = Speed.measured(job, choice.number)
        return forecast(made, job, scenario, root, speed, by.width(Place(root, scenario, choice)))


def write_report(
    directory: Path, formats: Sequence[str], redact: bool | None = None, out: Path | None = None
) -> list[Path]:
    """Write the report of a finished run again and return its files.

    Args:
        redact: leave out what came from data, now and whenever the run's report is written from here on; None: as it
            was asked for before.
        out: a folder for the report; the run is then only read, and what ``redact`` says is not remembered.

    Raises:
        InputError: there is none to write, a file of the run is not what a run writes, or ``out`` is a run.
    """
    if out is not None and Ledger.exists(out):
        raise InputError(f"--out: {out} is a run; leave out --out to write into it, or give another folder")
    with Store.load(directory, writable=out is None) as store:
        if not store.exists(FINDINGS):
            raise InputError(f"{directory}: it has no findings yet; continue it with pplr-audit run or attack")
        document, evidence = read_documents(store)
        before = _redacts(store)
        if out is not None:
            redact = before if redact is None else redact
            return write_elsewhere(out, reports(document, evidence, formats, redact=redact))
        if redact is not None and redact != before:
            store.update_manifest(redact=redact)
        return write_reports(store, document, evidence, formats, redact=_redacts(store))


def _redacts(store: Store) -> bool:
    """True if the run's report is written redacted from now on."""
    return bool(store.manifest.get("redact", False))


def _train(
    audit: OpenRun, planned: Sequence[PlannedTraining], executor: Executor,
    look_on: Callable[[Job], Onlooker | None] | None = None,
) -> dict[TrainingSpec, str]:  # fmt: skip
    """Train and measure what is not there yet; return the trainings that broke off, with the reason.

    Raises RunError where the run's own training breaks off: there is nothing to attack.
    """
    plan, root = audit.plan, audit.store.root
    tasks = [
        Task(each.spec, plan.kept(each), each.measures, look_on)
        for each in planned
        if not is_whole(root, each.spec, plan.kept(each))
    ]
    resume.note_plugins(audit.store, (used for task in tasks for used in task.spec.plugins))
    broken = {}
    for task, reason in zip(tasks, executor.run(tasks, audit.place, audit.inputs, audit.clock), strict=True):
        if reason is not None and task.spec == plan.own:
            raise RunError(reason)
        if reason is not None:
            broken[task.spec] = reason
    return broken


def _outcome(audit: OpenRun, broken: Mapping[TrainingSpec, str]) -> Outcome:
    """Read what the trainings of the plan are worth and cost, those that broke off apart."""
    whole = [each.spec for each in audit.plan.trainings if each.spec not in broken]
    own, *others = (trained(audit.store.root, spec) for spec in whole)
    return Outcome(own, others, broken)


def _attack(audit: OpenRun, broken: Mapping[TrainingSpec, str], executor: Executor) -> AuditResult:
    """Run the cells that are left, then write findings and report of all of them."""
    store, clock, scenario = audit.store, audit.clock, audit.scenario
    with allowed(executor.width(audit.place)):
        audited = run_cells(audit.plan, audit.inputs, scenario, store, clock, broken, audit.live)
    with clock.phase("writing the report"):
        manifest.replace_seconds(store, clock.seconds)
        outcome = _outcome(audit, broken)
        document = findings_document(audit.own, outcome, audited, audit.extensions, store.manifest)
        evidence = evidence_document(outcome.own.logs, audited)
        write_documents(store, document, evidence)
        redact = _redacts(store)
        written = write_reports(store, document, evidence, scenario.report.formats, redact=redact)
    return AuditResult(store.root, redacted(document, evidence)[0] if redact else document, written[0])
