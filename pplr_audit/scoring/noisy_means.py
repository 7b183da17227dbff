"""Means of clients beside their noise: how far users that happened to be drawn move them from the true ones.

A mean p of n users has the noise d p (1 - p) / n; d is one for all clients, as a client of few users says too little
about its own. Ten of a hundred users are hit, and of twenty others five:

>>> values, clients = np.repeat([1.0, 0, 1, 0], [10, 90, 5, 15]), np.repeat([0, 1], [100, 20])
>>> noisy = NoisyMeans.of(values, clients, np.array([0, 1]))
>>> noisy.means.tolist(), round(noisy.dispersion, 2), noisy.deviations(noisy.means).round(3).tolist()
([0.1, 0.25], 1.02, [0.03, 0.098])
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

LEVEL = 1e-6
"""A skewness below this is none."""


@dataclass(frozen=True)
class NoisyMeans:
    """The observed mean of each client, and its noise."""

    sizes: Int[np.ndarray, "clients"]
    means: Float[np.ndarray, "clients"]
    dispersion: float
    """Variance of single users as a share of p (1 - p): 1 for hits and misses."""

    @classmethod
    def of(
        cls, values: Float[np.ndarray, "users"], clients: Int[np.ndarray, "users"], names: Int[np.ndarray, "clients"]
    ) -> "NoisyMeans":
        place = np.searchsorted(names, clients)
        sizes = np.bincount(place)
        means = np.bincount(place, weights=values) / sizes
        within = float(((values - means[place]) ** 2).sum()) / (len(values) - len(names))
        most = float((sizes * means * (1 - means)).sum()) / len(values)
        return cls(sizes, means, within / most if most > 0 else 1.0)

    def deviations(self, true: Float[np.ndarray, "*ways clients"]) -> Float[np.ndarray, "*ways clients"]:
        """Return the standard deviations of the means by noise alone, where the clients' true means are these."""
        return np.asarray(np.sqrt(self.dispersion * true * (1 - true) / self.sizes))

    def drawn(
        self, true: Float[np.ndarray, "clients"], normal: Float[np.ndarray, "draws clients"]
    ) -> Float[np.ndarray, "draws clients"]:
        """Draw means by noise alone around the true ones, skewed as shares of few users are near 0 and 1.

        Of skewness g, (1 - 2 p) / sqrt(n p (1 - p)) of hits, a standard deviate is nearly 2 / g times the cube of
        1 + g z / 6 - g^2 / 36, less 1 (Wilson & Hilferty, PNAS 17, 1931; Pearson's third type).
        """
        deviations, variance = self.deviations(true), true * (1 - true)
        skew = np.divide((1 - 2 * true) * deviations, variance, out=np.zeros_like(variance), where=variance > 0)
        level = np.abs(skew) < LEVEL
        g = np.where(level, 1.0, skew)
        deviates = np.where(level, normal, 2 / g * (np.maximum(1 + g * normal / 6 - g**2 / 36, 0) ** 3 - 1))
        return np.asarray(np.clip(true + deviations * deviates, 0, 1))

    def directions(self) -> list[Float[np.ndarray, "clients"]]:
        """Ways in which the clients may differ, each with mean 0 and standard deviation 1.

        As they were seen to, where each may be off by its noise; and the smallest client alone, up and down.
        """
        off = self.means - self.means.mean()
        noise = self.deviations(np.full(len(off), self.means.mean()))
        seen = np.where(off >= 0, 1, -1) * np.sqrt(off**2 + noise**2)
        alone = (np.arange(len(off)) == np.argmin(self.sizes)).astype(float)
        return [(way - way.mean()) / way.std() for way in (seen, alone, -alone) if way.std() > 0]

    def without_noise(self) -> tuple[Float[np.ndarray, "clients"], float]:
        """The means drawn together until their spread is what is left without noise, and that as a share of it."""
        spread, clients = float(self.means.std()), len(self.means)
        noise = float((self.deviations(self.means) ** 2).mean()) * (clients - 1) / clients
        share = max(spread**2 - noise, 0.0) ** 0.5 / spread if spread > 0 else 0.0
        return self.means.mean() + share * (self.means - self.means.mean()), share
