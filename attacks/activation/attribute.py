"""Attribute: a value of a user (gender, age, ...), by logistic regression on the mean of what crossed for this user.

The adversary knows the attribute of some users (`Knowledge.known_attributes`), learns from the means over positions of
what crossed of them, and answers for the others. It is asked in turns, knowing the victims of all folds but one in each
(cross-validation by user), and as there is one sequence a user, none is learned from and asked for at once. The mean is
over all crossings of a sequence, too, each of which has dropout and noise of its own.

That representations which a model hands on tell attributes it was never trained on is shown by Song and Shmatikov,
"Overlearning Reveals Sensitive Attributes" (ICLR 2020, arXiv 1905.11742); that a user's films do, by Weinsberg et al.,
"BlurMe" (RecSys 2012).
"""

from collections import defaultdict
from collections.abc import Sequence
from itertools import chain

import numpy as np
from jaxtyping import Float

from pplr_audit.attacks.decoding.crossings import by_row, facts_of
from pplr_audit.attacks.decoding.word_scores import require_whole
from pplr_audit.errors import InputError
from pplr_audit.scoring.classifier import FOLDS, log_probabilities
from pplr_audit.threat_model.attack import Budget, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.outcomes import NotApplicable
from pplr_audit.threat_model.view import Record, View


class Attribute:
    """One classifier for all clients, each value against the others.

    Args:
        name: of the attribute, as the data has it.
        folds: into how many the victims are dealt; all but one are known in each turn.
        seed: of the division of the known users by which the strength of the penalty is chosen.
    """

    name = "attribute"
    secret = "attribute"
    channels = frozenset({Channel.FRONT_ACTIVATIONS, Channel.INFERENCE_ACTIVATIONS})
    controls = 5
    copies = False
    every_crossing = True

    def __init__(self, name: str = "", folds: int = 5, seed: int = 0) -> None:
        if not isinstance(name, str) or not name:
            raise InputError(f"attribute: name is {name!r} (accepted: that of a user attribute, such as gender)")
        if isinstance(folds, bool) or not isinstance(folds, int) or not 2 <= folds <= 10:
            raise InputError(f"attribute: folds is {folds!r} (accepted: a whole number from 2 to 10)")
        require_whole("attribute", seed=(seed, 0))
        self.attribute, self.folds, self.seed = name, folds, seed

    def run(self, view: View, knowledge: Knowledge, budget: Budget) -> Guess:
        if not view.records:
            raise NotApplicable("nothing crossed that belongs to a victim")
        told = knowledge.known_attributes
        rows = by_row(view.records)
        learned, asked = [row for row in rows if row in told], [row for row in rows if row not in told]
        values, labels = np.unique([told[row] for row in learned], return_inverse=True)
        if set(values) != set(told.values()) or len(values) < 2 or np.bincount(labels).min() < FOLDS:
            raise NotApplicable(
                f"too little of what crossed belongs to users whose {self.attribute} is known (needs two values or "
                f"more, of {FOLDS} users or more each)"
            )
        if not asked:
            raise NotApplicable(f"nothing crossed of a user whose {self.attribute} is not known beforehand")
        means = dict(zip(rows, pooled([*rows.values()], budget), strict=True))
        known, others = (np.stack([means[row] for row in part]) for part in (learned, asked))
        found = log_probabilities(known, labels, others, seed=self.seed, check=budget.check)
        return Guess({"rows": np.array(asked), "values": found}, facts_of(view.records))


def pooled(rows: Sequence[Sequence[Record]], budget: Budget) -> Float[np.ndarray, "rows hidden"]:
    """The mean over positions of what crossed of each row, over all of its crossings.

    The model moves between two crossings. So a later one is first moved back by as much as the mean over all rows of
    its client has moved.

    Raises NotApplicable where one is not finite.
    """
    means = [[_mean(record, budget) for record in crossings] for crossings in rows]
    places = [[(record.client, record.round, record.occurrence) for record in crossings] for crossings in rows]
    together = defaultdict(list)
    for place, mean in zip(chain(*places), chain(*means), strict=True):
        together[place].append(mean)
    center = {place: np.mean(own, axis=0) for place, own in together.items()}
    found = []
    for (first, *later), (mean, *others) in zip(places, means, strict=True):
        back = [other - center[place] + center[first] for place, other in zip(later, others, strict=True)]
        found.append(np.mean([mean, *back], axis=0))
    return np.stack(found)


def _mean(record: Record, budget: Budget) -> Float[np.ndarray, "hidden"]:
    budget.check()
    mean = record.tensor.double().mean(0).numpy()
    if not np.isfinite(mean).all():
        raise NotApplicable(f"what crossed of row {record.row} is not finite")
    return np.asarray(mean)
