"""One training with all that it needs before its first round, and the inputs that several trainings share.

`run_job` trains it. The job stands apart from what runs it, as utility, validation and costs are measured on a job.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from copy import copy
from dataclasses import dataclass
from typing import Any

from pplr_audit.data.allocation import allotted
from pplr_audit.data.prepare import PrivateData, prepare
from pplr_audit.data.samples import Samples
from pplr_audit.models.build import Recommender, build
from pplr_audit.models.precision import Precision
from pplr_audit.runs.store import Store
from pplr_audit.scenario import plugins
from pplr_audit.scenario.schema import Scenario
from pplr_audit.training.checkpoints import TrainingFiles
from pplr_audit.training.defending import compose
from pplr_audit.training.rounds import Federation, assemble
from pplr_audit.training.spec import TrainingSpec
from pplr_audit.training.strategies.protocol import Strategy

Phase = Callable[[str], AbstractContextManager[Any]]
"""Announces what takes a while."""


@dataclass(frozen=True)
class Job:
    """One training: what it is, the data and the model that it asks for, and the federation that trains."""

    scenario: Scenario
    """The scenario as if this training had been asked for alone."""
    private: PrivateData
    model: Recommender
    federation: Federation
    spec: TrainingSpec
    kept: Sequence[int] = ()
    """Rounds whose start stays in the training's folder, so that they can be replayed."""

    def files(self, store: Store) -> TrainingFiles:
        """Return the training's files in its own folder."""
        return TrainingFiles(store, self.kept, self.federation)


class Inputs:
    """Data and model of a run's trainings, made once for trainings in a row that share them.

    One of each is held: all trainings of a model run on the same one.

    Args:
        phase: announces that data are read, or a model is prepared.
        precision: that which the run began in, for ``precision: auto``, which depends on the processor.
    """

    def __init__(self, phase: Phase, precision: Precision | None = None) -> None:
        self._phase, self._precision = phase, precision
        self._private: tuple[str, PrivateData] | None = None
        self._model: tuple[str, Recommender] | None = None

    def announced_to(self, phase: Phase) -> "Inputs":
        """Return the same data and model, with what is made from now on announced elsewhere."""
        found = copy(self)
        found._phase = phase
        return found

    def job(self, spec: TrainingSpec, asked: Scenario, kept: Sequence[int] = ()) -> Job:
        """Return the job of a training.

        Args:
            asked: the scenario that the training is part of.

        Raises:
            InputError: the data, the model, the strategy or a defense do not fit.
        """
        scenario = spec.scenario(asked)
        private, model = self.private(scenario), self.model(scenario)
        strategy: Strategy = plugins.load("strategies", scenario.training.strategy)(scenario.training)
        private = allotted(private, shots=scenario.training.shots, pooled=strategy.pooled, seed=scenario.seed)
        federation = _federation(spec, scenario, model, private.samples)
        return Job(scenario, private, model, federation, spec, kept)

    def private(self, scenario: Scenario) -> PrivateData:
        """Return the scenario's data, before any strategy deals them out. Raises InputError as `prepare` does."""
        key = _key(scenario.data, scenario.seed)
        if self._private is None or self._private[0] != key:
            self._private = None  # both at once would be more memory than one run had before
            with self._phase("reading the data"):
                self._private = key, prepare(scenario.data, scenario.seed)
        return self._private[1]

    def model(self, scenario: Scenario) -> Recommender:
        """Return the scenario's model over its catalogue. Raises InputError as `build` does."""
        catalogue = self.private(scenario).dataset.catalogue
        training = scenario.training.model_copy(update={"rivals": None})
        # The recommender goes by the training's rounds and by what is learned; all else leaves it as it is.
        key = _key(scenario.data, scenario.seed, scenario.model, training.rounds, training.loss_on)
        if self._model is None or self._model[0] != key:
            self._model, settings = None, scenario.model
            if settings.precision == "auto" and self._precision is not None:
                settings = settings.model_copy(update={"precision": self._precision})
            with self._phase("preparing the model"):
                made = build(settings, catalogue, history=scenario.data.history, seed=scenario.seed, training=training)
            self._model = key, made
        return self._model[1]


def on_samples(job: Job, samples: Mapping[str, Samples]) -> Federation:
    """Return the federation of the same training, defenses included, whose clients hold other samples.

    It runs on the job's own model.
    """
    return _federation(job.spec, job.scenario, job.model, samples)


def _federation(
    spec: TrainingSpec, scenario: Scenario, model: Recommender, samples: Mapping[str, Samples]
) -> Federation:  # fmt: skip
    strategy: Strategy = plugins.load("strategies", scenario.training.strategy)(scenario.training)
    defenses = compose(spec.defenses, scenario.training)
    return assemble(samples, model, scenario.training, strategy, seed=scenario.seed, defenses=defenses)


def _key(*parts: object) -> str:
    """Return what tells these values from others; their text holds every field."""
    return repr(parts)
