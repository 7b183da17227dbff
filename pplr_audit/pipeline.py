"""The main job, start to end: data, model, training, utility, views, attacks, scores, report. Start reading here.

``run`` does all of it, ``train`` stops before the attacks, ``attack`` begins after the training. All three leave the
same run directory, and each continues what another began.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pplr_audit import scenario as scenarios
from pplr_audit.audit import extension as extensions
from pplr_audit.audit.cell import not_applicable
from pplr_audit.audit.documents import evidence_document, findings_document, training_document
from pplr_audit.audit.examples import examples
from pplr_audit.audit.extension import Extension
from pplr_audit.audit.harness import Harness
from pplr_audit.audit.plan import Plan, make_plan
from pplr_audit.audit.run_cell import is_done, run_cell
from pplr_audit.audit.user_spread import with_spread
from pplr_audit.data.allocation import allotted
from pplr_audit.data.prepare import PrivateData, prepare
from pplr_audit.errors import InputError, RunError
from pplr_audit.models.build import Recommender, build
from pplr_audit.models.recommenders.task import Tally
from pplr_audit.report.findings.redaction import redacted, redacted_training
from pplr_audit.report.write import FINDINGS, read_documents, reports, write_documents, write_reports
from pplr_audit.runs import manifest, stored
from pplr_audit.runs.atomic import make_private_folder, write_whole
from pplr_audit.runs.ledger import Ledger
from pplr_audit.runs.progress import Clock, Progress, Silent
from pplr_audit.runs.store import SCENARIO, Store
from pplr_audit.scenario import plugins
from pplr_audit.scenario.rivals import trainings
from pplr_audit.scenario.schema import Scenario
from pplr_audit.training import resume
from pplr_audit.training.checkpoints import TrainingFiles
from pplr_audit.training.costs.measure import SERVING, cost_rows
from pplr_audit.training.rounds import Federation, RoundLog, assemble
from pplr_audit.training.strategies.protocol import Strategy
from pplr_audit.training.threads import Choice, Pace
from pplr_audit.training.utility.measure import utility_rows
from pplr_audit.training.utility.user_scores import PER_USER, UserScores, compared
from pplr_audit.training.utility.validation import never_stopping, require_stopping, validator

UTILITY = "utility.json"
UNFINISHED = "its training is not finished; pplr-audit run tries it again"


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
    directory = _directory(scenario, out)
    with resume.computing(scenario, directory, threads, clock.say) as choice:
        ready = _prepare(scenario, directory, clock, choice)
        require_stopping(scenario, ready.private)
        with _opened(scenario, directory) as store:
            trained = _train(ready, store, clock)
            plan = make_plan(scenario, ready.model.layers, extensions.recorded(store))
            return _attack(ready, trained, plan, store, clock)


def train(
    scenario: Scenario, out: Path | None = None, progress: Progress | None = None, threads: int | None = None
) -> AuditResult:
    """The training and what it is worth, and no attack; arguments and errors as of ``run``, which can follow.

    No report is written: one without findings would read as if nothing leaked.
    """
    clock = Clock(progress or Silent())
    directory = _directory(scenario, out)
    with resume.computing(scenario, directory, threads, clock.say) as choice:
        ready = _prepare(scenario, directory, clock, choice)
        require_stopping(scenario, ready.private)
        with _opened(scenario, directory) as store:
            trained = _train(ready, store, clock)
            manifest.add_seconds(store, clock.seconds)
            document = training_document(
                scenario,
                ready.private,
                ready.model,
                trained.measured["utility"],
                trained.measured["costs"],
                store.manifest,
                trained.measured.get("balance", ()),
                trained.measured.get("differences", ()),
                trained.failed,
            )
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
        resume.require_trained(store, _files(store, scenario, ()), scenario.training.rounds)
        with resume.computing(scenario, directory, threads, clock.say) as choice:
            ready = _prepare(scenario, directory, clock, choice)
            resume.same_inputs(store, ready.private, ready.model)
            had = extensions.recorded(store)
            plan = make_plan(scenario, ready.model.layers, had)
            if more is not None:
                extended = make_plan(scenario, ready.model.layers, (*had, more))
                if extended.size > plan.size:
                    extensions.record(store, (*had, more))
                    plan = extended
            # A rival that broke off is tried again by what trains; here nothing is trained.
            whole: list[_Ready] = []
            left: list[_Ready] = []
            for rival in ready.rivals:
                (whole if _finished(rival, store) else left).append(rival)
            trained = _train(replace(ready, rivals=tuple(whole)), store, clock)
            trained.failed.extend({"strategy": each.scenario.training.label, "reason": UNFINISHED} for each in left)
            return _attack(ready, trained, plan, store, clock)


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
            return _written_to(out, reports(document, evidence, formats, redact=redact))
        if redact is not None and redact != before:
            store.update_manifest(redact=redact)
        return write_reports(store, document, evidence, formats, redact=_redacts(store))


def _written_to(folder: Path, files: Iterable[tuple[str, str]]) -> list[Path]:
    written = []
    try:
        make_private_folder(folder.absolute())
    except OSError as error:
        raise InputError(f"--out: {folder}: cannot be made: {error.strerror}") from None
    for name, text in files:
        write_whole(folder, name, text.encode())
        written.append(folder / name)
    return written


def _redacts(store: Store) -> bool:
    """True if the run's report is written redacted from now on."""
    return bool(store.manifest.get("redact", False))


@dataclass(frozen=True)
class _Ready:
    """All that a scenario needs before the first round."""

    scenario: Scenario
    private: PrivateData
    model: Recommender
    federation: Federation
    plan: Plan
    """Of the scenario alone."""
    threads: Choice
    rivals: tuple["_Ready", ...] = ()
    """The same with another strategy each."""


@dataclass(frozen=True)
class _Trained:
    """The training as it lies in the run directory, and what it is worth and costs."""

    files: TrainingFiles
    logs: list[RoundLog]
    measured: dict[str, Any]
    failed: list[dict[str, str]]
    """Rivals that broke off: ``strategy`` and ``reason``."""


def _prepare(scenario: Scenario, directory: Path, clock: Clock, threads: Choice) -> _Ready:
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
        plan = make_plan(scenario, model.layers)
        beside = [scenario.model_copy(update={"training": each}) for each in trainings(scenario.training)]
        others = tuple(_ready(rival, private, model, plan, threads) for rival in beside)
        return replace(_ready(scenario, private, model, plan, threads), rivals=others)


def _ready(scenario: Scenario, private: PrivateData, model: Recommender, plan: Plan, threads: Choice) -> _Ready:
    strategy: Strategy = plugins.load("strategies", scenario.training.strategy)(scenario.training)
    private = allotted(private, shots=scenario.training.shots, pooled=strategy.pooled, seed=scenario.seed)
    federation = assemble(
        private.samples, model.task, model.parts, model.initial, scenario.training, strategy, seed=scenario.seed
    )
    return _Ready(scenario, private, model, federation, plan, threads)


def _directory(scenario: Scenario, out: Path | None) -> Path:
    return out or Path("runs") / f"{scenario.name}-{scenarios.digest(scenario)[:8]}"


def _opened(scenario: Scenario, directory: Path) -> Store:
    return Store.open(directory, scenarios.dump(scenario), scenarios.digest(scenario))


def _files(
    store: Store, scenario: Scenario, kept: Sequence[int], federation: Federation | None = None
) -> TrainingFiles:
    return TrainingFiles(store, f"trainings/{resume.training_slug(scenario)}", kept, federation)


def _train(ready: _Ready, store: Store, clock: Clock) -> _Trained:
    """Train what is left, then measure what it recommends; the federation ends with the trained models.

    Rivals come first: all of them train on the one model there is.
    """
    scenario, private, model, federation = ready.scenario, ready.private, ready.model, ready.federation
    resume.note_compute(store, ready.threads, clock.say)
    resume.same_inputs(store, private, model)
    beside, failed = _train_rivals(ready.rivals, store, clock)
    files = _files(store, scenario, ready.plan.rounds, federation)
    _train_rounds(ready, files, store, clock, "training")
    logs = files.logs(scenario.training.rounds)

    steps = 3 * len(private.population.clients)
    with clock.phase("measuring what it recommends", steps) as advance:

        def measure() -> dict[str, Any]:
            link = federation.link
            tally, before, encoded = Tally(), link.sent.copy(), link.catalogue_bytes  # stopping early has served, too
            utility = utility_rows(scenario, private, model, federation, "none", tally, advance)
            served = sum(link.sent[channel] - before[channel] for channel in SERVING)
            served -= link.catalogue_bytes - encoded  # once a client, not for each request
            utility.scores.write(store)
            costs = cost_rows(scenario, model, federation, logs, tally, served)
            return {"utility": utility.rows, "balance": utility.balance, "costs": costs}

        if store.exists(UTILITY):
            advance(steps)
        measured = stored.measured(manifest.once(store, UTILITY, measure), store.root / UTILITY)
    for rival, scores in reversed(beside):
        for part in ("utility", "balance"):  # behind the run's own rows, before the references
            own = sum(row["strategy"] == scenario.training.label for row in measured[part])
            measured[part] = [*measured[part][:own], *rival[part], *measured[part][own:]]
        differences = compared(UserScores.of(store), scores, seed=scenario.seed)
        measured["differences"] = [*differences, *measured.get("differences", ())]
    return _Trained(files, logs, measured, failed)


def _train_rivals(
    rivals: Sequence[_Ready], store: Store, clock: Clock
) -> tuple[list[tuple[dict[str, Any], UserScores]], list[dict[str, str]]]:
    """Train the rivals; return those that finished, and those that broke off, which another call tries again.

    A rival is there to be compared with: one that diverges must not keep the run from what it is for.
    """
    beside, failed = [], []
    for rival in rivals:
        try:
            beside.append(_train_rival(rival, store, clock))
        except RunError as error:
            if isinstance(error.__cause__, OSError):  # a full disk stops everyone
                raise
            failed.append({"strategy": rival.scenario.training.label, "reason": str(error)})
            store.event("rival_failed", strategy=failed[-1]["strategy"], error=str(error))
    return beside, failed


def _finished(ready: _Ready, store: Store) -> bool:
    return _files(store, ready.scenario, ()).done() >= ready.scenario.training.rounds


def _train_rival(ready: _Ready, store: Store, clock: Clock) -> tuple[dict[str, Any], UserScores]:
    """Train what is left of a rival and measure it, without references: rows of the findings, and its users' scores."""
    scenario, private, model, federation = ready.scenario, ready.private, ready.model, ready.federation
    files, name = _files(store, scenario, (), federation), scenario.training.label
    _train_rounds(ready, files, store, clock, f"training {name}")
    steps, scores = len(private.population.clients), f"{files.folder}/{PER_USER}"
    with clock.phase(f"measuring what {name} recommends", steps) as advance:

        def measure() -> dict[str, Any]:
            utility = utility_rows(
                scenario, private, model, federation, "none", Tally(), advance, references=False
            )  # fmt: skip
            utility.scores.write(store, scores)
            return {"utility": utility.rows, "balance": utility.balance}

        path = f"{files.folder}/{UTILITY}"
        measured = stored.measured(manifest.once(store, path, measure), store.root / path)
        return measured, UserScores.of(store, scores)


def _train_rounds(ready: _Ready, files: TrainingFiles, store: Store, clock: Clock, phase: str) -> None:
    """Train what is left of one training."""
    scenario, private, federation = ready.scenario, ready.private, ready.federation
    if not _finished(ready, store):
        resume.note_plugins(store, [("strategies", scenario.training.strategy)])
    with clock.phase(phase, scenario.training.rounds * len(federation.clients)) as advance:
        never = never_stopping(scenario, private)
        if never and files.latest() is None:
            store.event("never_stop", strategy=scenario.training.label, clients=never)
        validate = validator(scenario, private, ready.model, federation)
        pace = Pace(ready.threads.number, clock.say)
        resume.train(federation, files, scenario.training.rounds, advance, validate, pace)


def _attack(ready: _Ready, trained: _Trained, plan: Plan, store: Store, clock: Clock) -> AuditResult:
    """Run the cells that are left, then write findings and report of all of them."""
    scenario, private, model, measured = ready.scenario, ready.private, ready.model, trained.measured
    harness = Harness(scenario, private, model, ready.federation, trained.files, plan, store.root)
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
        document = findings_document(
            scenario, private, model, plan, len(harness.rows.victims), results, measured["utility"], measured["costs"],
            store.manifest, extensions.recorded(store), measured.get("balance", ()), measured.get("differences", ()),
            trained.failed,
        )  # fmt: skip
        shown = examples(plan.cells, harness, private.dataset.catalogue, model.tokenizer, store)
        evidence = evidence_document(trained.logs, results, shown)
        write_documents(store, document, evidence)
        redact = _redacts(store)
        written = write_reports(store, document, evidence, scenario.report.formats, redact=redact)
    return AuditResult(store.root, redacted(document, evidence)[0] if redact else document, written[0])
