"""Linkage: finds the sequences that belong to one user, by their activations alone; rows are numbered anew.

Each sequence is pooled to its mean over positions, and over its crossings in the round. Within a client and round these
are centered and whitened with a ridge, so that no few directions (length, template, what all of the client's users
like) decide. These directions are learned from all that crossed of the client, and not of the rows in question alone.
Two rows are the more likely of one user the higher the cosine between them is. No label and no model is needed. Over
rounds it links a row of one with a row of the round before, so no further crossings are left.

That a user's data can be linked across pseudonyms by what they have in common, without an item in common, is known from
authorship (Narayanan et al., "On the Feasibility of Internet-Scale Author Identification", IEEE S&P 2012).
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from pplr_audit.attacks.activation.attribute import pooled
from pplr_audit.attacks.decoding.crossings import by_row, facts_of
from pplr_audit.errors import InputError
from pplr_audit.threat_model.attack import Budget, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.outcomes import NotApplicable
from pplr_audit.threat_model.view import Record, View


class Linkage:
    """Scores every two rows of one client.

    Args:
        ridge: added to the variances in whitening, in units of the mean variance; the larger, the less is whitened.
    """

    name = "linkage"
    secret = "linkage"
    channels = frozenset({Channel.FRONT_ACTIVATIONS, Channel.INFERENCE_ACTIVATIONS})
    controls = 5
    copies = False
    traffic = True
    every_crossing = True

    def __init__(self, ridge: float = 1.0) -> None:
        if isinstance(ridge, bool) or not isinstance(ridge, int | float) or not 0 < ridge < np.inf:
            raise InputError(f"linkage: ridge is {ridge!r} (accepted: a number above 0)")
        self.ridge = ridge

    def run(self, view: View, knowledge: Knowledge, budget: Budget) -> Guess:
        del knowledge
        by_client: dict[str, list[list[Record]]] = {}
        for crossings in by_row(view.records).values():
            by_client.setdefault(crossings[0].client, []).append(crossings)
        first, second, scores = [], [], []
        learned_from = 0
        for client, crossed in sorted(by_client.items()):
            budget.check()
            rows, rounds = np.array([own[0].row for own in crossed]), np.array([own[0].round for own in crossed])
            means = pooled(crossed, budget)
            for round_ in np.unique(rounds):
                seen = list(_means(view.seen_of(client, int(round_)), budget))
                means[rounds == round_] = self._whitened(means[rounds == round_], seen)
                learned_from += len(seen)
            means /= np.linalg.norm(means, axis=1, keepdims=True).clip(1e-30)
            one, other = np.triu_indices(len(rows), 1)
            first.append(rows[one])
            second.append(rows[other])
            scores.append((means @ means.T)[one, other])
        if not sum(map(len, scores)):
            raise NotApplicable("no client has two rows to compare")
        return Guess(
            {
                "rows": np.array([*by_row(view.records)]), "first": np.concatenate(first),
                "second": np.concatenate(second), "scores": np.concatenate(scores),
            },
            {"traffic": learned_from, **facts_of(view.records)},
        )  # fmt: skip

    def _whitened(
        self, means: Float[np.ndarray, "rows hidden"], seen: Sequence[Float[np.ndarray, "hidden"]]
    ) -> Float[np.ndarray, "rows hidden"]:
        """Centered, and divided by the standard deviation along each principal direction of these rows and of all that
        was ``seen``.
        """
        together = np.stack([*means, *seen])
        center = together.mean(0)
        _, spread, basis = np.linalg.svd(together - center, full_matrices=False)
        variance = spread**2 / len(together)
        scale = np.sqrt(variance + self.ridge * max(variance.mean(), 1e-30))
        return np.asarray(((means - center) @ basis.T / scale) @ basis)


def _means(crossed: Iterable[Float[Tensor, "length hidden"]], budget: Budget) -> Iterator[Float[np.ndarray, "hidden"]]:
    """Yield the mean over positions of each sequence that is finite."""
    for tensor in crossed:
        budget.check()
        mean = tensor.double().mean(0).numpy()
        if np.isfinite(mean).all():
            yield mean
