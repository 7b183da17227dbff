"""The trainings of an audit: the run's own, its rivals, defended ones, and all of them again under further seeds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pplr_audit.scenario.compositions import NONE, canonical
from pplr_audit.scenario.schema import Scenario
from pplr_audit.threat_model.channels import Channel
from pplr_audit.training.defending import compose
from pplr_audit.training.run_job import Measures
from pplr_audit.training.spec import TrainingSpec, own_training, rivals_of

Cut = tuple[int, int]


@dataclass(frozen=True)
class PlannedTraining:
    """One training of the plan, and what is asked of it."""

    spec: TrainingSpec
    attacked: bool
    measures: Measures
    """Measurements besides its own users' utility."""
    removes: frozenset[Channel] = frozenset()
    """Channels that its defense takes away."""


def trainings_of(scenario: Scenario, cuts: Sequence[Cut], layers: int) -> list[PlannedTraining]:
    """Return every training that the scenario asks for, its own first, seed by seed.

    The run's own training is there whatever is asked, as what defenses and rivals are compared with. A defense that
    acts at the cut is trained anew at each cut that leaves the server a block.

    Args:
        cuts: those that the audit looks at.
        layers: blocks of the model.

    Raises:
        InputError: a defense does not fit the others or the strategy.
    """
    own = own_training(scenario)
    seeds = dict.fromkeys((scenario.seed, *(scenario.audit.seeds or ())))
    with_trunk = [cut for cut in cuts if sum(cut) < layers]
    return [planned for seed in seeds for planned in _of_seed(scenario, replace(own, seed=seed), with_trunk)]


def _of_seed(scenario: Scenario, own: TrainingSpec, cuts: Sequence[Cut]) -> Iterator[PlannedTraining]:
    first = own.seed == scenario.seed
    names = [canonical(entry) for entry in scenario.defenses]
    yield PlannedTraining(own, NONE in names, Measures(references=first, costs=first))
    for rival in rivals_of(own, scenario):
        yield PlannedTraining(rival, scenario.audit.strategies == "all", Measures(references=False, costs=False))
    for entry in scenario.defenses:
        composed = compose(entry, own.training)
        for cut in cuts if composed.at_cut else (None,) if composed.defenses else ():
            defended = replace(own, defenses=entry, cut=cut)
            yield PlannedTraining(defended, True, Measures(references=False), composed.removes)
