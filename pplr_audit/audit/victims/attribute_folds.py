"""Folds for attribute inference: the adversary knows the attribute in all folds but one and predicts it there.

Nobody learns to tell an attribute without users of whom it is known, as a colluding client or a public profile would
give it away. The victims are dealt into folds, value by value: the adversary knows the values in all folds but one, has
to tell those in the one, and so on in turn, so that every victim is predicted once, and never by who learned from it.
There is one deal in a run, the same for every channel, cut and round, so that their findings can be compared.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pplr_audit.audit.truth.attribute import AttributeTruth
from pplr_audit.data.dataset import Dataset
from pplr_audit.data.partition import OTHER
from pplr_audit.scenario.seeds import derive
from pplr_audit.scoring import classifier
from pplr_audit.threat_model.outcomes import NotApplicable

FEW = 2 * classifier.FOLDS
"""A value with fewer users counts as `OTHER`: of so many, all but one fold are enough to learn from, also of two."""


@dataclass(frozen=True)
class Deal:
    """The value of one attribute by user, and the fold in whose turn it is predicted."""

    name: str
    values: Mapping[int, str]
    folds: Mapping[int, int]

    def truth(
        self, users: Mapping[int, int], clients: Mapping[int, str], held: Mapping[int, Sequence[int]], catalogue: int
    ) -> AttributeTruth:
        """Return the truth about rows, each of another user.

        Raises NotApplicable where in some turn a value is known of too few of them, or one has nobody to tell it from.

        Args:
            users, clients: by row.
            held: items of each row.
            catalogue: how many items there are.
        """
        values = {row: self.values[user] for row, user in users.items() if user in self.values}
        folds = {row: self.folds[users[row]] for row in values}
        truth = AttributeTruth(self.name, values, folds, users, clients, held, catalogue)
        known = [Counter(by_row.values()) for by_row in truth.known_by_turn]
        fewest = min((count[value] for count in known for value in set(self.values.values())), default=0)
        if fewest < classifier.FOLDS or not truth.comparable:
            raise NotApplicable(f"what crossed belongs to too few victims to learn their {self.name}")
        return truth


def deal(dataset: Dataset, name: str, users: Sequence[int], folds: int, seed: int) -> Deal:
    """Deal ``users`` into ``folds``, those with each value evenly.

    Rare values count as one, `OTHER`; where that is rare too, its users are left out.

    Raises NotApplicable where the source has no such attribute, or too few users to learn to tell two values.
    """
    if name not in dataset.attributes:
        there = ", ".join(sorted(dataset.attributes)) or "none"
        raise NotApplicable(f"{dataset.name} has no attribute {name!r} of its users (there is: {there})")
    of_all = dataset.attributes[name]
    values = {user: of_all[user] for user in sorted(users) if of_all[user]}
    of_value = Counter(values.values())
    values = {user: value if of_value[value] >= FEW else OTHER for user, value in values.items()}
    counted = Counter(values.values())
    values = {user: value for user, value in values.items() if counted[value] >= FEW}
    if len(set(values.values())) < 2:
        found = ", ".join(f"{value}: {count}" for value, count in sorted(of_value.items())) or "none"
        raise NotApplicable(
            f"too few of {len(users)} victims have a known {name} to learn from: two values of {FEW} users or more "
            f"are needed ({found}); audit.victims sets how many there are"
        )
    order: list[int] = []
    for value in sorted(set(values.values())):
        own = np.array([user for user in values if values[user] == value])
        order += np.random.default_rng(derive(seed, "attribute", name, value)).permutation(own).tolist()
    # Going on with the next value where the last one stopped makes the folds even.
    return Deal(name, values, {user: place % folds for place, user in enumerate(order)})
