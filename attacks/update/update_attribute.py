"""Reads an attribute of a user (gender, age, ...) from the update of a client that is this one user.

That updates of a model tell attributes which it was never trained on, and that a classifier for them is learned from
updates on auxiliary data, is shown by Melis et al., *Exploiting Unintended Feature Leakage in Collaborative Learning*
(IEEE S&P 2019, arXiv 1805.04049, section 6). The adversary simulates a client for each user of the auxiliary text whose
value it knows: the same recipe, about as many samples and steps, the same start. It learns from these updates, made
short by a sketch and of length 1, and answers for the clients.

Clients of several users are left out: the update of a silo is of all of its users, and shares of values in a handful of
silos are another question, with too few answers to tell one from chance.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pplr_audit.attacks.decoding.word_scores import require_whole
from pplr_audit.attacks.update.directions import descent
from pplr_audit.attacks.update.public_side import Known, known_of
from pplr_audit.attacks.update.signatures import Sketch, Sketches, usual_sizes
from pplr_audit.attacks.update.simulated import trained_on
from pplr_audit.data.prompts import Prompt
from pplr_audit.errors import InputError
from pplr_audit.scoring.classifier import FOLDS, log_probabilities
from pplr_audit.threat_model import Budget, Channel, Guess, Knowledge, NotApplicable, Recipe, Update, View
from pplr_audit.threat_model.artifacts import digest, digest_of_prompts

BATCHES = 8
"""Batches from which the usual sizes of gradients are taken."""


class UpdateAttribute:
    """One classifier for all clients of about the same size, learned from simulated clients.

    Args:
        name: of the attribute, as the data has it.
        folds: into how many the clients are dealt, for what the answer is compared with; nothing is learned from them.
        users: simulated clients for a model and a number of samples, at most.
        models: models of a round's start that are worked with, at most; a client goes by the nearest to its own.
        seed: of what is drawn.
    """

    name = "update_attribute"
    secret = "attribute"
    channels = frozenset({Channel.CLIENT_UPDATE, Channel.TRUNK_UPDATE})
    controls = 2

    def __init__(self, name: str = "", folds: int = 5, users: int = 512, models: int = 1, seed: int = 0) -> None:
        if not isinstance(name, str) or not name:
            raise InputError(f"update_attribute: name is {name!r} (accepted: that of a user attribute, such as gender)")
        if isinstance(folds, bool) or not isinstance(folds, int) or not 2 <= folds <= 10:
            raise InputError(f"update_attribute: folds is {folds!r} (accepted: a whole number from 2 to 10)")
        require_whole("update_attribute", users=(users, 2 * FOLDS), models=(models, 1), seed=(seed, 0))
        self.attribute, self.folds, self.users, self.models, self.seed = name, folds, users, models, seed

    def run(self, view: View[Any], knowledge: Knowledge, budget: Budget) -> Guess:
        """Raises NotApplicable where the adversary lacks what it takes to simulate a client, or users to learn from."""
        seen: list[Update] = [r for r in view.records if r.row in view.rows and r.row not in knowledge.known_attributes]
        places = self._places(knowledge)
        values, labels = np.unique([knowledge.others_attributes[place] for place in places], return_inverse=True)
        wanted = set(knowledge.known_attributes.values()) or set(values)
        if set(values) != wanted or len(values) < 2 or np.bincount(labels).min() < FOLDS:
            raise NotApplicable(
                f"the {self.attribute} of too few users of the reserve is known: {FOLDS} or more of each value are "
                f"needed, and there are {_counted(values, labels)} (data.reserve sets how many there are)"
            )
        groups: dict[tuple[Any, ...], list[Update]] = {}
        known = known_of(seen, knowledge, self.models)
        for record in seen:
            own = known[record.row]
            groups.setdefault((own.model.digest, own.steps, record.round, *sorted(record.tensors)), []).append(record)
        rows, answers = list[int](), list[np.ndarray]()
        for records in groups.values():
            first = known[records[0].row]
            sketch, simulated = self._simulated(first, records[0].round, places, knowledge, budget)
            plain = cast(Recipe, knowledge.recipe).optimizer != "adamw"
            updates = [descent(each.tensors, each.start, knowledge, each.client, each.round) for each in records]
            asked = [sketch.of(update, scaled=plain) for update in updates]
            if not asked[0]:
                raise NotApplicable("no tensor of these updates is one that the adversary's model trains")
            features = _features(
                [{name: rows[place] for name, rows in simulated.items()} for place in range(len(places))], [*asked[0]]
            )
            found = log_probabilities(
                features, labels, _features(asked, [*asked[0]]), seed=self.seed, check=budget.check
            )
            rows += [record.row for record in records]
            answers += list(found)
        facts = {
            **knowledge.facts,
            "simulated_users": len(places),
            "start_models": len({k.model.digest for k in known.values()}),
        }
        return Guess({"rows": np.array(rows), "values": np.stack(answers)}, facts)

    def _places(self, knowledge: Knowledge) -> list[int]:
        """Places of the auxiliary users whose value is known, drawn by the seed. Raises NotApplicable without any."""
        if knowledge.others is None or not knowledge.others_attributes:
            raise NotApplicable(
                f"this attack learns from users whose {self.attribute} is known, and the adversary has no users of the "
                "reserve (audit.auxiliary: matched and data.reserve give it some)"
            )
        known = [place for place, value in enumerate(knowledge.others_attributes) if value]
        order = np.random.default_rng(self.seed).permutation(len(known))[: self.users]
        return sorted(known[place] for place in order)

    def _simulated(
        self, known: Known, round_: int, places: Sequence[int], knowledge: Knowledge, budget: Budget
    ) -> tuple[Sketch, Sketches]:
        """Sketches of the updates that auxiliary users would send, one a row."""
        recipe, model = cast(Recipe, knowledge.recipe), known.model
        texts = [_samples(knowledge, place, known.steps.samples) for place in places]
        together = [prompt for own in texts for prompt in own]
        size = max(1, min(recipe.batch_size, known.steps.samples))
        drawer = np.random.default_rng(self.seed)
        batches = [[together[i] for i in drawer.permutation(len(together))[:size]] for _ in range(BATCHES)]
        source = {
            "model": model.digest, "texts": [*map(digest_of_prompts, texts)], "recipe": str(recipe),
            "steps": str(known.steps), "round": round_, "seed": self.seed,
        }  # fmt: skip
        sketch = Sketch(knowledge.fitted("usual_sizes", source, lambda: usual_sizes(model, batches)))

        def updates() -> Iterator[Mapping[str, Tensor]]:
            for done, prompts in enumerate(texts):
                budget.check(done, len(texts))
                yield trained_on(prompts, model, recipe, known.steps, round_, np.random.default_rng(done))

        def make() -> Sketches:
            return sketch.of_all(updates(), scaled=recipe.optimizer != "adamw")

        return sketch, knowledge.fitted("simulated_users", {**source, "sizes": digest(sketch.sizes)}, make)


def _samples(knowledge: Knowledge, place: int, count: int) -> list[Prompt]:
    """Return the last ``count`` samples of an auxiliary user, as far as its window has them, the newest last."""
    others = knowledge.others
    assert others is not None
    items = np.append(others.history[place], others.targets[place])
    first = max(1, len(items) - count)
    return [knowledge.prompts.build(items[:at], int(items[at])) for at in range(first, len(items))]


def _features(rows: Sequence[Sketches], names: Sequence[str]) -> Float[np.ndarray, "rows numbers"]:
    """Return sketches as rows of length 1; a row of zeros stays."""
    flat = torch.stack([torch.cat([row[name].double() for name in names]) for row in rows])
    found: np.ndarray = (flat / flat.norm(dim=1, keepdim=True).clamp(min=1e-30)).numpy()
    return found


def _counted(values: np.ndarray, labels: np.ndarray) -> str:
    return ", ".join(f"{value}: {(labels == place).sum()}" for place, value in enumerate(values)) or "none"
