"""The main job, start to end: data, model, training, utility, views, attacks, scores, report. Start reading here."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pplr_audit import plugins
from pplr_audit import scenario as scenarios
from pplr_audit.cells import not_applicable, run_cell
from pplr_audit.cost_rows import SERVING, cost_rows
from pplr_audit.data.prepare import PrivateData, prepare
from pplr_audit.documents import evidence_document, findings_document, hardware, libraries
from pplr_audit.errors import InputError
from pplr_audit.examples import examples
from pplr_audit.exposure import Exposure
from pplr_audit.models.bigrec import Tally
from pplr_audit.models.recommender import Recommender, build
from pplr_audit.plan import make_plan
from pplr_audit.pplr.rounds import Federation, assemble, train
from pplr_audit.progress import Advance, Progress, Silent
from pplr_audit.report.write import EVIDENCE, FINDINGS, write_reports
from pplr_audit.runs.failpoints import reach
from pplr_audit.runs.store import Store
from pplr_audit.runs.trainings import TrainingFiles
from pplr_audit.scenario import Scenario
from pplr_audit.utility_rows import utility_rows


@dataclass(frozen=True)
class AuditResult:
    """Where a finished run lies, and its findings document."""

    directory: Path
    document: dict[str, Any]


def run(scenario: Scenario, out: Path | None = None, progress: Progress | None = None) -> AuditResult:
    """Do what the scenario says, or what of it is left to do in the run directory.

    Args:
        out: the run directory; by default ``runs/<name>-<hash8>`` in the current folder.

    Raises:
        InputError: the scenario, the data, the model or the directory do not fit; nothing has been written.
        RunError: it failed while running; the same call continues it.
    """
    clock = Clock(progress or Silent())
    digest = scenarios.digest(scenario)
    directory = out or Path("runs") / f"{scenario.name}-{digest[:8]}"

    # All that can be wrong with the input is read before anything is written.
    with clock.phase("reading the data"):
        private = prepare(scenario.data, scenario.seed)
    with clock.phase("preparing the model"):
        model = build(scenario.model, private.dataset.catalogue, history=scenario.data.history, seed=scenario.seed)
        plan = make_plan(scenario, model.layers)
        federation = assemble(
            private.samples, model.prompts, model.parts, model.initial, scenario.training,
            plugins.load("strategies", scenario.training.strategy)(scenario.training), seed=scenario.seed,
        )  # fmt: skip

    with Store.open(directory, scenarios.dump(scenario), digest) as store:
        _same_inputs(store, private, model)
        files = TrainingFiles(store, f"trainings/{_training_slug(scenario)}", plan.rounds)
        with clock.phase("training", scenario.training.rounds * len(federation.clients)) as advance:
            _train_or_continue(federation, files, scenario.training.rounds, advance)
        logs = files.logs(scenario.training.rounds)

        with clock.phase("measuring what it recommends", 3 * len(federation.clients)) as advance:

            def measure() -> dict[str, Any]:
                tally = Tally()
                utility = utility_rows(scenario, private, model, federation, "none", tally, advance)
                served = sum(federation.link.sent[channel] for channel in SERVING)
                return {"utility": utility, "costs": cost_rows(scenario, model, federation, logs, tally, served)}

            measured = _once(store, "utility.json", measure)

        exposure = Exposure(scenario, private, model, federation, files, plan)
        with clock.phase("attacking", len(plan.cells)) as advance:
            results = []
            for cell in plan.cells:
                results.append(
                    run_cell(
                        cell, plan.attack(cell), exposure, store, budget=scenario.audit.budget.seconds,
                        seed=scenario.seed,
                    )
                )  # fmt: skip
                advance(1, f"{cell.attack} on {cell.channel}" + ("" if cell.front is None else f", k = {cell.front}"))
            results += [not_applicable(cell, plan.attack(cell).secret, why) for cell, why in plan.impossible]

        with clock.phase("writing the report"):
            document = findings_document(
                scenario, private, model, plan, len(exposure.victims), results, measured["utility"],
                measured["costs"], _seconds(store, clock),
            )  # fmt: skip
            shown = examples(plan.cells, exposure, private.dataset.catalogue, model.tokenizer, store)
            write_reports(store, document, evidence_document(logs, results, shown), scenario.report.formats)
        return AuditResult(directory, document)


def write_report(directory: Path, formats: Sequence[str], redact: bool) -> list[Path]:
    """Write the report of a finished run again; answers the files. Raises InputError where there is none to write."""
    with Store.load(directory, writable=True) as store:
        if not store.exists(FINDINGS):
            raise InputError(f"{directory}: the run is not finished; continue it with pplr-audit run")
        document, evidence = store.read_json(FINDINGS), store.read_json(EVIDENCE)
        return write_reports(store, document, evidence, formats, redact=redact)


class Clock:
    """Announces phases and remembers how long each took."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str, total: int | None = None) -> Iterator[Advance]:
        started = time.perf_counter()
        with self._progress.phase(name, total) as advance:
            yield advance
        self.seconds[name] = round(time.perf_counter() - started, 3)


def _same_inputs(store: Store, private: PrivateData, model: Recommender) -> None:
    """A run is continued on the data and the weights that it began with, or not at all."""
    inputs = {"data": private.dataset.digest, "backbone": model.digest}
    before = store.manifest.get("inputs")
    if before is None:
        population = private.population
        coins = {private.dataset.users[user]: bool(population.member[user]) for user in population.audited.nonzero()[0]}
        store.write_json("coins.json", coins)
        store.update_manifest(inputs=inputs, libraries=libraries(), hardware=hardware())
        return
    for what, digest in inputs.items():
        if before[what] != digest:
            raise InputError(
                f"{store.root}: began with another {what} ({before[what][:8]}, now {digest[:8]}); "
                "bring it back, or choose another directory with --out DIR"
            )


def _train_or_continue(federation: Federation, files: TrainingFiles, rounds: int, advance: Advance) -> None:
    """Train what is left of the rounds; the federation ends with the trained models."""
    state = files.latest()
    if state is None:
        state = federation.state(1)
        files.save_state(state)
    federation.resume(state)
    advance((state.round - 1) * len(federation.clients))

    def client_done(note: str) -> None:
        reach("round")
        advance(1, note)

    train(federation, rounds, first=state.round, done=files.save, advance=client_done)


def _training_slug(scenario: Scenario) -> str:
    """The defence and a hash over the part of the scenario that a training depends on."""
    part = scenario.model_dump(mode="json", include={"seed", "data", "model", "training"})
    return f"none-{hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()[:8]}"


def _once(store: Store, path: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What stands in the run directory under ``path``, made first if it is not there."""
    if not store.exists(path):
        store.write_json(path, make())
    return dict(store.read_json(path))


def _seconds(store: Store, clock: Clock) -> dict[str, float]:
    """Wall time by phase over all the calls that this run took so far; kept in the manifest."""
    before = store.manifest.get("seconds", {})
    total = {name: round(before.get(name, 0.0) + spent, 3) for name, spent in clock.seconds.items()}
    store.update_manifest(seconds=total)
    return total
