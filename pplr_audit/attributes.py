"""Which users' attribute an adversary knows beforehand, and of which ones it has to tell it.

Nobody learns to tell an attribute without users of whom it is known: here a share of the victims, as a colluding client
or a public profile would give it away. They are dealt by the seed, value by value, so that each value is on both sides;
it is on the others alone that an attack is scored, and never on a user it learned from. There is one deal in a run, the
same for every channel, cut and round, so that their findings can be compared.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pplr_audit.data.dataset import Dataset
from pplr_audit.data.partition import OTHER
from pplr_audit.data.prompts import Prompt
from pplr_audit.errors import NotApplicable
from pplr_audit.seeds import derive
from pplr_audit.truths_users import AttributeTruth

FEW = 5
"""A value with fewer users than this on either side counts as `OTHER`."""


@dataclass(frozen=True)
class Deal:
    """By user the value of one attribute: known beforehand, or asked for. Of the users in neither it is not known."""

    name: str
    known: Mapping[int, str]
    asked: Mapping[int, str]

    def truth(
        self, users: Mapping[int, int], clients: Mapping[int, str], prompts: Mapping[int, Prompt], catalogue: int
    ) -> AttributeTruth:
        """Of rows, each of another user. Raises NotApplicable where they lack a value on one of the sides.

        Args:
            users, clients, prompts: by row.
            catalogue: how many items there are.
        """
        known = {row: self.known[user] for row, user in users.items() if user in self.known}
        asked = {row: self.asked[user] for row, user in users.items() if user in self.asked}
        if set(known.values()) != set(asked.values()):
            raise NotApplicable(f"what crossed belongs to too few victims to learn their {self.name}")
        held = {row: prompt.held.tolist() for row, prompt in prompts.items()}
        return AttributeTruth(self.name, asked, known, users, clients, held, catalogue)


def deal(dataset: Dataset, name: str, users: Sequence[int], share: float, seed: int) -> Deal:
    """Deal out ``users``, a ``share`` of those with each value to the known side.

    Rare values count as one, `OTHER`; where that is rare too, its users are left out.

    Raises NotApplicable where the source has no such attribute, or too few users to have two values on both sides.
    """
    if name not in dataset.attributes:
        there = ", ".join(sorted(dataset.attributes)) or "none"
        raise NotApplicable(f"{dataset.name} has no attribute {name!r} of its users (there is: {there})")
    of_all = dataset.attributes[name]
    values = {user: of_all[user] for user in sorted(users) if of_all[user]}
    said = Counter(values.values())
    values = {user: value if _on_both_sides(said[value], share) else OTHER for user, value in values.items()}
    counted = Counter(values.values())
    values = {user: value for user, value in values.items() if _on_both_sides(counted[value], share)}
    if len(set(values.values())) < 2:
        found = ", ".join(f"{value}: {count}" for value, count in sorted(said.items())) or "none"
        raise NotApplicable(
            f"too few of {len(users)} victims say their {name} to learn it from {share:.0%} of them and ask for the "
            f"others ({found}); audit.victims sets how many there are"
        )
    known: dict[int, str] = {}
    for value in sorted(set(values.values())):
        own = [user for user in values if values[user] == value]
        order = np.random.default_rng(derive(seed, "attribute", name, value)).permutation(len(own))
        known |= {own[place]: value for place in order[: round(len(own) * share)].tolist()}
    return Deal(name, known, {user: value for user, value in values.items() if user not in known})


def _on_both_sides(count: int, share: float) -> bool:
    """Whether of so many users there are enough to learn from and enough to ask for."""
    first = round(count * share)
    return min(first, count - first) >= FEW
