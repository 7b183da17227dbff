"""One training as a value: all that it needs before its first round. `run_job` trains it.

The job stands apart from what runs it, as utility, validation and costs are measured on a job.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pplr_audit.data.allocation import allotted
from pplr_audit.data.prepare import PrivateData
from pplr_audit.models.build import Recommender
from pplr_audit.runs.store import Store
from pplr_audit.scenario import plugins
from pplr_audit.scenario.rivals import trainings
from pplr_audit.scenario.schema import Scenario
from pplr_audit.training.checkpoints import TrainingFiles
from pplr_audit.training.resume import training_slug
from pplr_audit.training.rounds import Federation, assemble
from pplr_audit.training.strategies.protocol import Strategy


@dataclass(frozen=True)
class Job:
    """One training: a scenario, the data and the model that it asks for, and the federation that trains."""

    scenario: Scenario
    private: PrivateData
    model: Recommender
    federation: Federation
    kept: Sequence[int] = ()
    """Rounds whose start stays in the run directory, so that they can be replayed."""
    rivals: tuple["Job", ...] = ()
    """The same with another strategy each, to compare with; nothing of them is replayed."""

    def files(self, store: Store) -> TrainingFiles:
        """Return this training's files in a run directory."""
        return training_files(store, self.scenario, self.kept, self.federation)


def make_job(scenario: Scenario, private: PrivateData, model: Recommender, kept: Sequence[int]) -> Job:
    """Make the scenario's training with its rivals: all of them train on the one ``model``."""
    rivals = [scenario.model_copy(update={"training": each}) for each in trainings(scenario.training)]
    return _job(scenario, private, model, kept, tuple(_job(rival, private, model) for rival in rivals))


def training_files(
    store: Store, scenario: Scenario, kept: Sequence[int] = (), federation: Federation | None = None
) -> TrainingFiles:
    """Return the files of the scenario's training; how many rounds are done is told without its ``federation``."""
    return TrainingFiles(store, f"trainings/{training_slug(scenario)}", kept, federation)


def _job(
    scenario: Scenario, private: PrivateData, model: Recommender, kept: Sequence[int] = (), rivals: tuple[Job, ...] = ()
) -> Job:
    strategy: Strategy = plugins.load("strategies", scenario.training.strategy)(scenario.training)
    private = allotted(private, shots=scenario.training.shots, pooled=strategy.pooled, seed=scenario.seed)
    federation = assemble(private.samples, model, scenario.training, strategy, seed=scenario.seed)
    return Job(scenario, private, model, federation, kept, rivals)
