"""The main job, start to end: data, model, training, utility, views, attacks, scores, report. Start reading here.

``run`` does all of it, ``train`` stops before the attacks, ``attack`` begins after the training. All three leave the
same run directory, and each continues what another began.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pplr_audit import scenario as scenarios
from pplr_audit.audit import extension as extensions
from pplr_audit.audit.artifacts import StoredArtifacts
from pplr_audit.audit.cell import not_applicable
from pplr_audit.audit.documents import Audited, evidence_document, findings_document, training_document
from pplr_audit.audit.examples import examples
from pplr_audit.audit.extension import Extension
from pplr_audit.audit.harness import Harness
from pplr_audit.audit.plan import Plan, make_plan
from pplr_audit.audit.run_cell import is_done, run_cell
from pplr_audit.audit.user_spread import with_spread
from pplr_audit.data.prepare import prepare
from pplr_audit.errors import InputError
from pplr_audit.models.build import build
from pplr_audit.report.findings.redaction import redacted, redacted_training
from pplr_audit.report.write import FINDINGS, read_documents, reports, write_documents, write_elsewhere, write_reports
from pplr_audit.runs import manifest, stored
from pplr_audit.runs.ledger import Ledger
from pplr_audit.runs.progress import Clock, Progress, Silent
from pplr_audit.runs.store import SCENARIO, Store
from pplr_audit.scenario.schema import Scenario
from pplr_audit.training import resume
from pplr_audit.training.job import Job, make_job, training_files
from pplr_audit.training.run_job import Trained, collect_job, train_job
from pplr_audit.training.utility.validation import require_stopping


@dataclass(frozen=True)
class AuditResult:
    """A run's directory and its document: of findings, or of its training alone; redacted if the run's report is."""

    directory: Path
    document: dict[str, Any]
    report: Path | None = None
    """The first of the formats that the scenario asks for."""


def run(
    scenario: Scenario, out: Path | None = None, progress: Progress | None = None, threads: int | None = None
) -> AuditResult:
    """Do what the scenario says, or what of it is left to do in the run directory.

    Args:
        out: the run directory; by default ``runs/<name>-<hash8>`` in the current folder.
        threads: how many to compute with; by default as many as the run began with, or as are chosen for one that
            begins (`threads.choose`).

    Raises:
        InputError: the scenario, the data, the model or the directory do not fit; nothing has been written.
        RunError: it failed while running; the same call continues it.
    """
    clock = Clock(progress or Silent())
    with _trained(scenario, out, clock, threads) as (job, store, trained):
        plan = make_plan(scenario, job.model.layers, extensions.recorded(store))
        return _attack(job, trained, plan, store, clock)


def train(
    scenario: Scenario, out: Path | None = None, progress: Progress | None = None, threads: int | None = None
) -> AuditResult:
    """The training and what it is worth, and no attack; arguments and errors as of ``run``, which can follow.

    No report is written: one without findings would read as if nothing leaked.
    """
    clock = Clock(progress or Silent())
    with _trained(scenario, out, clock, threads) as (job, store, trained):
        manifest.add_seconds(store, clock.seconds)
        document = training_document(job, trained, store.manifest)
        return AuditResult(store.root, redacted_training(document) if _redacts(store) else document)


def attack(
    directory: Path, more: Extension | None = None, progress: Progress | None = None, threads: int | None = None
) -> AuditResult:
    """Attack a trained run: what its scenario and its extensions leave to do, and ``more`` if there is more.

    ``threads`` is as of `run`.

    Raises:
        InputError: the directory is no run, its training is not finished, its data or weights are no longer the same,
            or ``more`` does not fit the model; what was there is as it was.
        RunError: it failed while running; the same call continues it.
    """
    clock = Clock(progress or Silent())
    with Store.load(directory, writable=True) as store:
        scenario = scenarios.from_text(store.read_text(SCENARIO), str(directory / SCENARIO))
        resume.require_trained(store, training_files(store, scenario), scenario.training.rounds)
        with resume.computing(scenario, directory, threads, clock.say) as choice:
            job = _prepare(scenario, directory, clock)
            resume.same_inputs(store, job.private, job.model)
            had = extensions.recorded(store)
            plan = make_plan(scenario, job.model.layers, had)
            if more is not None:
                extended = make_plan(scenario, job.model.layers, (*had, more))
                if extended.size > plan.size:
                    extensions.record(store, (*had, more))
                    plan = extended
            trained = collect_job(job, store, clock, choice)
            return _attack(job, trained, plan, store, clock)


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


def _prepare(scenario: Scenario, directory: Path, clock: Clock) -> Job:
    """Read all that can be wrong with the input, before anything is written.

    What ``precision: auto`` is depends on the processor; a run that began in ``directory`` goes on in what it began in.
    """
    settings = scenario.model
    if settings.precision == "auto" and (began := resume.precision_of(directory)) is not None:
        settings = settings.model_copy(update={"precision": began})
    with clock.phase("reading the data"):
        private = prepare(scenario.data, scenario.seed)
    with clock.phase("preparing the model"):
        model = build(
            settings, private.dataset.catalogue, history=scenario.data.history, seed=scenario.seed,
            training=scenario.training,
        )  # fmt: skip
        return make_job(scenario, private, model, make_plan(scenario, model.layers).rounds)


@contextmanager
def _trained(
    scenario: Scenario, out: Path | None, clock: Clock, threads: int | None
) -> Iterator[tuple[Job, Store, Trained]]:
    """Read the input, open the run directory and train what is left, with the number of threads that the run keeps."""
    directory = out or Path("runs") / f"{scenario.name}-{scenarios.digest(scenario)[:8]}"
    with resume.computing(scenario, directory, threads, clock.say) as choice:
        job = _prepare(scenario, directory, clock)
        require_stopping(scenario, job.private)
        with Store.open(directory, scenarios.dump(scenario), scenarios.digest(scenario)) as store:
            yield job, store, train_job(job, store, clock, choice)


def _attack(job: Job, trained: Trained, plan: Plan, store: Store, clock: Clock) -> AuditResult:
    """Run the cells that are left, then write findings and report of all of them."""
    scenario, private = job.scenario, job.private
    harness = Harness(job, trained.files, plan, store.root, StoredArtifacts(store))
    resume.note_plugins(store, (("attacks", cell.attack) for cell in plan.cells if not is_done(cell, store)))
    more = f" (cells with a training of their own: {plan.hijacked})" if plan.hijacked else ""
    with clock.phase(f"attacking{more}", len(plan.cells)) as advance:
        results = []
        for cell in plan.cells:
            budget = scenario.audit.budget.seconds
            found = run_cell(cell, plan.attack(cell), harness, store, budget=budget, seed=scenario.seed)
            results.append(stored.cell(found, store.root / f"cells/{cell.slug}.json", len(private.dataset.users)))
            advance(1, f"{cell.attack} on {cell.channel}" + ("" if cell.front is None else f", k = {cell.front}"))
        results = with_spread(results, harness.rows.client_of, seed=scenario.seed)
        results += [not_applicable(cell, plan.attack(cell).secret, why) for cell, why in plan.impossible]

    with clock.phase("writing the report"):
        manifest.add_seconds(store, clock.seconds)
        audited = Audited(plan, extensions.recorded(store), len(harness.rows.victims), results)
        document = findings_document(job, trained, audited, store.manifest)
        shown = examples(plan.cells, harness, private.dataset.catalogue, job.model.tokenizer, store)
        evidence = evidence_document(trained.logs, results, shown)
        write_documents(store, document, evidence)
        redact = _redacts(store)
        written = write_reports(store, document, evidence, scenario.report.formats, redact=redact)
    return AuditResult(store.root, redacted(document, evidence)[0] if redact else document, written[0])
