"""Chances: the probability that a client has each item, from what simulated clients with and without it score.

Platt scaling: a logistic curve over scores (Platt 1999, *Probabilistic outputs for support vector machines*).
"""

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.linear_model import LogisticRegression


class Calibration:
    """Standardizes scores by those of simulated clients, and learns from them how likely each item then is.

    A score is taken as an offset of the item's own, plus one slope times the samples with the item, plus noise. The
    probability is by logistic regression on the standardized score and on how likely the item is beforehand (Platt
    scaling).

    Args:
        read: scores of simulated clients.
        counts: how many of their samples have each item.
    """

    def __init__(self, read: Float[np.ndarray, "clients items"], counts: Int[np.ndarray, "clients items"]) -> None:
        centered = counts - counts.mean(0)
        slope = float((centered * read).sum() / max(float(np.square(centered).sum()), 1.0))
        self._read, self._counts, self._free = read, counts, read - slope * counts
        left = np.square(self._free - self._free.mean(0)).sum() / (read.shape[1] * (len(read) - 1))
        self._spread = float(np.sqrt(left)) or 1.0
        self.signal = slope / self._spread
        """What one sample with an item adds to its score, in standard deviations of scores without it."""

    def scores(self, own: Float[np.ndarray, "items"]) -> Float[np.ndarray, "items"]:
        """Return standard deviations above what simulated clients without an item score."""
        return np.asarray((own - self._free.mean(0)) / self._spread)

    def chances(
        self, own: Float[np.ndarray, "items"], usual: Float[np.ndarray, "items"], samples: int, together: int = 1
    ) -> Float[np.ndarray, "items"]:
        """Return the probability that any of a client's samples has each item.

        Args:
            usual: how likely an item is in one sample; simulated clients draw by it from half of the items.
            samples: behind the update, in all.
            together: number of simulated clients that each row of scores is the mean of.
        """
        clients = len(self._read)
        others = (self._free.sum(0) - self._free) / (clients - 1)  # as of a client that was not simulated
        one = 0.5 * _any(2 * usual, self._counts.sum(1)[:, None] / together)
        before = _logit(1 - (1 - one) ** together)
        learned = LogisticRegression(C=100.0).fit(
            np.stack([((self._read - others) / self._spread).ravel(), before.ravel()], axis=1),
            self._counts.ravel() > 0,
        )
        asked = np.stack([self.scores(own), _logit(_any(usual, samples))], axis=1)
        return np.asarray(learned.predict_proba(asked)[:, 1])


class PowerCurve:
    """Tells from an item's share of all power how likely the client has it, as simulated clients show.

    Items without power share one probability, that of such items in the simulation. For others it is a logistic curve
    of the logarithm of the share, with Platt's targets, (n + 1) / (n + 2) and 1 / (n + 2), so that a simulation in
    which all are told apart states no certainty. More power never makes an item less likely.

    Args:
        powers: of the items of a simulated client, by client.
        true: whether the client had the item.

    >>> curve = PowerCurve(np.array([[9.0, 1.0, 0.0, 0.0]]), np.array([[True, False, False, False]]))
    >>> curve.chances(np.array([5.0, 5.0, 0.0])).round(2).tolist()
    [0.58, 0.58, 0.25]
    """

    def __init__(self, powers: Float[np.ndarray, "clients items"], true: Bool[np.ndarray, "clients items"]) -> None:
        named = powers > 0
        self._none = (true[~named].sum() + 1) / ((~named).sum() + 2)
        shares, hits = _log_shares(powers)[named], true[named]
        targets = np.where(hits, (hits.sum() + 1) / (hits.sum() + 2), 1 / ((~hits).sum() + 2))
        self._learned: LogisticRegression | None = None
        self._mean = float(targets.mean()) if len(targets) else float(self._none)
        if len(targets):
            features, labels = np.tile(shares, 2)[:, None], np.repeat([1, 0], len(shares))
            learned = LogisticRegression(C=1e3).fit(features, labels, np.concatenate([targets, 1 - targets]))
            self._learned = learned if learned.coef_[0, 0] > 0 else None

    def chances(self, powers: Float[np.ndarray, "items"]) -> Float[np.ndarray, "items"]:
        """Return the probability of each item, from the powers of all."""
        named, found = powers > 0, np.full(len(powers), float(self._none))
        if self._learned is None:
            found[named] = self._mean
        elif named.any():
            found[named] = self._learned.predict_proba(_log_shares(powers[None])[0, named][:, None])[:, 1]
        return found.clip(min=float(self._none))


def _log_shares(powers: Float[np.ndarray, "clients items"]) -> Float[np.ndarray, "clients items"]:
    total = powers.sum(1, keepdims=True).clip(1e-300)
    return np.asarray(np.log((powers / total).clip(1e-12)))


def _any(each: np.ndarray, samples: np.ndarray | int) -> np.ndarray:
    """The probability that any of so many samples has an item that each has with this probability (Poisson)."""
    return np.asarray(-np.expm1(-each * samples))


def _logit(chance: np.ndarray) -> np.ndarray:
    inside = chance.clip(1e-6, 1 - 1e-6)
    return np.asarray(np.log(inside) - np.log1p(-inside))
