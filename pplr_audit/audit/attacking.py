"""All cells of a plan, training by training: what is left of them is run, the rest is read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pplr_audit.audit.ahead import kind_of, run_ahead
from pplr_audit.audit.artifacts import StoredArtifacts
from pplr_audit.audit.cell import not_applicable, without_value
from pplr_audit.audit.examples import examples
from pplr_audit.audit.harness import Harness
from pplr_audit.audit.plan import Plan
from pplr_audit.audit.replay.live import LiveRecords
from pplr_audit.audit.run_cell import is_done, run_cell
from pplr_audit.audit.user_spread import with_spread
from pplr_audit.runs import manifest, stored
from pplr_audit.runs.progress import Advance, Clock
from pplr_audit.runs.store import Store
from pplr_audit.scenario.schema import Scenario
from pplr_audit.training import resume
from pplr_audit.training.checkpoints import TrainingFiles
from pplr_audit.training.job import Inputs
from pplr_audit.training.run_job import loaded
from pplr_audit.training.spec import TrainingSpec

PHASE = "attacking"


@dataclass(frozen=True)
class Audited:
    """The attacks of a run: what was planned and what was found."""

    plan: Plan
    victims: int
    """Users of the run's own training who were attacked."""
    cells: Mapping[str, Sequence[Mapping[str, Any]]]
    """Answers of ``run_cell`` for all cells of the plan, by the name of the training that they attack."""
    examples: Sequence[Mapping[str, Any]]
    """Histories to show, of the first training that is attacked."""


def run_cells(
    plan: Plan, inputs: Inputs, scenario: Scenario, store: Store, clock: Clock, broken: Mapping[TrainingSpec, str],
    live: dict[TrainingSpec, LiveRecords],
) -> Audited:  # fmt: skip
    """Run the cells that are left.

    Args:
        broken: trainings that could not be finished, with the reason; their cells have failed.
        live: who looked on in trainings of this call; they are taken out, each for its own attacks.
    """
    left = [cell for cell in plan.cells if not is_done(cell, store)]
    resume.note_plugins(store, (("attacks", cell.attack) for cell in left))
    more = f" (cells with a training of their own: {plan.hijacked})" if plan.hijacked else ""
    found: dict[str, Sequence[Mapping[str, Any]]] = {}
    shown: Sequence[Mapping[str, Any]] = ()
    victims = 0
    attacking = clock.apart()
    with attacking.phase(f"{PHASE}{more}", len(plan.cells)) as advance:
        for spec in plan.attacked:
            part = plan.part(spec)
            if spec in broken:
                found[spec.name] = [without_value(c, plan.attack(c), "failed", broken[spec]) for c in part.cells]
                advance(len(part.cells))
                continue
            job = inputs.job(spec, scenario, plan.rounds)
            files = TrainingFiles(loaded(store.root, spec), plan.rounds, job.federation)
            artifacts = StoredArtifacts(store)
            seen = live.pop(spec).rounds if spec in live else {}
            harness = Harness(job, files, part, store.root, artifacts, seen)
            found[spec.name] = _run_part(part, harness, artifacts, scenario, store, advance)
            victims = victims or len(harness.rows.victims)
            if spec == plan.attacked[0]:
                shown = examples(part.cells, harness, job.private.dataset.catalogue, job.model.tokenizer, store)
    if left:
        manifest.add_seconds(store, {PHASE: sum(attacking.seconds.values())})
    return Audited(plan, victims, found, shown)


def _run_part(
    part: Plan, harness: Harness, artifacts: StoredArtifacts, scenario: Scenario, store: Store, advance: Advance
) -> list[Mapping[str, Any]]:  # fmt: skip
    """Run the cells of one training; return the answers of all of them."""
    results, begun = [], set[tuple[Any, ...]]()
    users = len(harness.private.dataset.users)
    for cell in part.cells:
        budget = scenario.audit.budget.seconds
        answer = run_cell(cell, part.attack(cell), harness, store, budget=budget, seed=cell.seed)
        results.append(stored.cell(answer, store.root / f"cells/{cell.slug}.json", users))
        if (kind := kind_of(cell)) not in begun:
            begun.add(kind)
            run_ahead([c for c in part.cells if kind_of(c) == kind], part, harness, store, artifacts, budget)
        advance(1, f"{cell.attack} on {cell.channel}" + ("" if cell.front is None else f", k = {cell.front}"))
    told = with_spread(results, harness.rows.client_of, seed=scenario.seed)
    return [*told, *(not_applicable(cell, part.attack(cell).secret, why) for cell, why in part.impossible)]
