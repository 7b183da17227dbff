"""Truth about membership: the users who were trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from pplr_audit.audit.truth.protocol import Curve, Truth
from pplr_audit.audit.truth.score import CHANCE, Score, by_user
from pplr_audit.scoring.influence import of_auc, of_tpr
from pplr_audit.scoring.intervals import OF_FOLDS, widened
from pplr_audit.scoring.membership import (
    auc_estimate,
    disjoint_pairs,
    model_free_scores,
    resolvable,
    roc,
    tpr_estimate,
)
from pplr_audit.scoring.rank_test import auc_p
from pplr_audit.scoring.standardized import standardized
from pplr_audit.scoring.verdicts import Reference, exact_tpr_p
from pplr_audit.threat_model.attack import Guess


@dataclass(frozen=True)
class MembershipTruth(Truth):
    """The members, by the logged coins. A row without a score is placed below all that have one.

    Args:
        users, clients, members: by row; ``clients`` is a number.
        features: what can be said of a candidate without any model (history length, popularity, words), by row.
        names: of the clients; rates of single clients are told of those that have one.
    """

    users: Mapping[int, int]
    clients: Mapping[int, int]
    members: Mapping[int, int]
    features: Mapping[int, Sequence[float]]
    names: Sequence[str] = ()

    def answered(self, guess: Guess) -> bool:
        del guess
        return False  # its scores have names of the attack's own

    def score(self, guess: Guess, *, seed: int | None) -> list[Score]:
        """AUC within clients and the resolvable TPRs, for each mode of the guess."""
        rows, labels, clients = self._labeled()
        users = np.array([self.users[row] for row in rows])
        about = {"members": int(labels.sum()), **(self._model_free(seed) if seed is not None else {})}
        pairs = sum(disjoint_pairs(labels, users, clients).values())
        scores = []
        for mode, values in self._modes(guess, rows).items():
            detail = {"mode": mode, **about}
            finite = np.where(np.isneginf(values), values[np.isfinite(values)].min(initial=0.0) - 1.0, values)
            estimate = auc_estimate(values, labels, users, seed=seed, groups=clients)
            moved = of_auc(values, labels, users, clients)
            # The coins fell by user: with several rows of one, they decide less than the rows' number says.
            p = auc_p(values, labels, clients) if len(np.unique(users)) == len(users) else None
            scores.append(
                Score("auc", estimate, 0.5, by_user(users, finite), detail, influence=moved, independent=pairs,
                      references=(Reference(CHANCE, 0.5, p=p),))
            )  # fmt: skip
            scores += self._rates(values, labels, users, clients, detail, seed)
        return scores

    def _rates(
        self, values: Float[np.ndarray, "rows"], labels: Int[np.ndarray, "rows"], users: Int[np.ndarray, "rows"],
        clients: Int[np.ndarray, "rows"], detail: Mapping[str, Any], seed: int | None,
    ) -> list[Score]:  # fmt: skip
        """Score TPR at one threshold for all clients, over scores that are standardized within them."""
        aligned = standardized(values, labels, clients)
        kept = ~np.isnan(aligned)
        own = (values, labels, users, clients)
        aligned, labels, users, clients = aligned[kept], labels[kept], users[kept], clients[kept]
        members, others = int(labels.sum()), int((labels == 0).sum())
        left_out = {"left_out": int((~kept).sum())} if not kept.all() else {}
        scores = []
        for fpr in resolvable(others) if members else ():
            estimate = tpr_estimate(aligned, labels, users, fpr, seed=seed, strata=clients)
            p = exact_tpr_p(round(estimate.value * members), members, others, fpr)
            by_client = self._of_clients(*own, fpr, seed) if seed is not None else {}
            scores.append(
                Score(f"tpr@{fpr:g}", estimate, fpr, {}, {**detail, **left_out, **by_client},
                      influence=of_tpr(aligned, labels, users, fpr), independent=members,
                      references=(Reference(CHANCE, fpr, p=p),))
            )  # fmt: skip
        return scores

    def _of_clients(
        self, values: Float[np.ndarray, "rows"], labels: Int[np.ndarray, "rows"], users: Int[np.ndarray, "rows"],
        clients: Int[np.ndarray, "rows"], fpr: float, seed: int,
    ) -> dict[str, Any]:  # fmt: skip
        """The rate of each client by itself, where its own non-members resolve it; nothing of an only client."""
        found = {}
        for place, name in enumerate(self.names if len(self.names) > 1 else ()):
            inside = clients == place
            if labels[inside].any() and fpr in resolvable(int((labels[inside] == 0).sum())):
                rate = tpr_estimate(values[inside], labels[inside], users[inside], fpr, seed=seed)
                found[name] = {"mean": rate.value, "ci": [rate.low, rate.high], "n": rate.n}
        return {"by_client": found} if found else {}

    def _model_free(self, seed: int) -> dict[str, Any]:
        """Check the protocol: the AUC that is reached without any model, with its interval.

        With a single member or non-member nobody can be left out, and there is no check.
        """
        rows, labels, clients = self._labeled()
        if min(np.bincount(labels, minlength=2)) < 2:
            return {}
        users = np.array([self.users[row] for row in rows])
        free = model_free_scores(np.array([self.features[row] for row in rows]), labels, clients, seed=seed)
        found = widened(auc_estimate(free, labels, users, seed=seed, groups=clients), OF_FOLDS)
        return {"model_free_auc": found.value, "model_free_ci": [found.low, found.high]}

    def curves(self, guess: Guess) -> dict[str, Curve]:
        """FPR and TPR of each mode, all clients pooled on the scale of the rates."""
        rows, labels, clients = self._labeled()
        found = {}
        for mode, values in self._modes(guess, rows).items():
            aligned = standardized(values, labels, clients)
            kept = ~np.isnan(aligned)
            if 0 < labels[kept].sum() < kept.sum():
                found[mode] = roc(aligned[kept], labels[kept])
        return found

    def _labeled(self) -> tuple[list[int], Int[np.ndarray, "rows"], Int[np.ndarray, "rows"]]:
        """All rows, which of them are members, and their clients."""
        rows = sorted(self.users)
        return rows, np.array([self.members[row] for row in rows]), np.array([self.clients[row] for row in rows])

    @staticmethod
    def _modes(guess: Guess, rows: list[int]) -> dict[str, Float[np.ndarray, "rows"]]:
        """One score a row and mode; minus infinity for a row without an answer."""
        at = {int(row): place for place, row in enumerate(guess.arrays["rows"])}
        return {
            mode: np.array([values[at[row]] if row in at else -np.inf for row in rows], dtype=np.float64)
            for mode, values in guess.arrays.items()
            if mode != "rows"
        }
