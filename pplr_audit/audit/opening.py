"""An open run: its input read and checked, its directory locked, and what is asked of it noted there."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pplr_audit import scenario as scenarios
from pplr_audit.audit import extension as extensions
from pplr_audit.audit.extension import Extension
from pplr_audit.audit.plan import Plan, make_plan
from pplr_audit.audit.replay.live import LiveRecords
from pplr_audit.audit.victims.peer import peers_among
from pplr_audit.runs.progress import Clock
from pplr_audit.runs.store import SCENARIO, Store
from pplr_audit.scenario.schema import Scenario
from pplr_audit.training import resume
from pplr_audit.training.executor import Place
from pplr_audit.training.job import Inputs, Job
from pplr_audit.training.run_job import rounds_done
from pplr_audit.training.spec import TrainingSpec
from pplr_audit.training.utility.validation import require_stopping


@dataclass(frozen=True)
class OpenRun:
    """An open run: what is asked of it, and all that answers it."""

    scenario: Scenario
    store: Store
    inputs: Inputs
    own: Job
    """The run's own training."""
    plan: Plan
    extensions: Sequence[Extension]
    place: Place
    """The way in which its trainings are made."""
    clock: Clock
    live: dict[TrainingSpec, LiveRecords] = field(default_factory=dict)
    """The onlookers of trainings that are attacked and were made here."""

    def onlooker(self, job: Job) -> LiveRecords | None:
        """Return who looks on in a training that is about to be made; None where it is not attacked."""
        if job.spec not in self.plan.attacked:
            return None
        return self.live.setdefault(job.spec, LiveRecords(job, self.plan.part(job.spec), self.store.root))


def directory_of(scenario: Scenario, out: Path | None) -> Path:
    """Return the run directory; by default it is called after what the run is known by."""
    return out or Path("runs") / f"{scenario.name}-{scenarios.digest(scenario)[:8]}"


@contextmanager
def opened(
    scenario: Scenario,
    out: Path | None,
    clock: Clock,
    threads: int | None,
    more: Extension | None = None,
    *,
    extending: bool = False,
    forks: bool = False,
) -> Iterator[OpenRun]:
    """Read all that can be wrong with the input, then open the run directory, and note there what is asked.

    Args:
        more: what the run is extended by.
        extending: attack what is trained, and keep what the run was extended by before.
        forks: clients can train side by side.
    """
    root = directory_of(scenario, out)
    with resume.computing(scenario, root, threads, clock.say, forks=forks) as choice:
        inputs = Inputs(clock.phase, precision := resume.precision_of(root))
        layers = inputs.model(scenario).layers
        had = extensions.of_run(root, scenario, extending)
        extended = (*had, more) if more is not None else had
        plan = make_plan(scenario, layers, extended)
        if more is not None and plan.size == make_plan(scenario, layers, had).size:
            extended = had
        own = inputs.job(plan.own, scenario, plan.kept(plan.trainings[0]))
        require_stopping(scenario, own.private)
        peers_among(scenario, own.private.samples)
        if extending:
            _require_trained(root, plan, scenario)
        with Store.open(root, scenarios.dump(scenario), scenarios.digest(scenario)) as store:
            resume.note_compute(store, choice, clock.say)
            resume.same_inputs(store, own.private, own.model)
            place = Place(root, scenario, choice, precision)
            with extensions.asked(store, scenario, extended):
                yield OpenRun(scenario, store, inputs, own, plan, extended, place, clock)


def _require_trained(root: Path, plan: Plan, scenario: Scenario) -> None:
    """Raises InputError for a training that is attacked, or the run's own, and is not finished."""
    with Store.load(root) as store:
        asked = store.read_text(SCENARIO) == scenarios.dump(scenario)
    for spec in dict.fromkeys((plan.own, *plan.attacked)):
        resume.require_trained(root, spec, rounds_done(root, spec), asked=asked)
