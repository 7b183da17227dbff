"""A bag of tokens: which tokens an update was trained on, and which items have titles that are made of them.

The evidence for a token is a number, higher where it is the likelier. Tokens that no prompt over the catalogue can
hold are known not to be there. By them the evidence of the others has a p-value: the share that has as much, or
1 / (1 + z^2) where it is z deviations above their mean, which bounds it for any distribution (Cantelli's inequality);
the smaller of both. The p-values are a mixture of uniform ones and of Beta(a, 1), whose share s and shape a are
estimated (Pounds and Morris, *Estimating the occurrence of false positives and false negatives in microarray studies*,
Bioinformatics 19, 2003). All that is uniform in it, 1 - s (1 - a), counts as tokens that are not there, as they
propose. No threshold is set.

An item of the set has all tokens of its title in the bag. The title of another has a token by chance with probability
b = 1 - (1 - f)^n where a share f of the titles holds it and n items are in the set. With l the likelihood ratio of the
evidence for a token, the log-odds of an item grow by

    sum over the tokens of its title of log(l / (b l + 1 - b))

which goes to log(1 / b) where a token is surely there, so that rare tokens tell more, and to minus infinity where one
is surely not (naive Bayes: Maron, *Automatic Indexing: An Experimental Inquiry*, JACM 8, 1961).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import brentq
from scipy.sparse import csr_array

from pplr_audit.data.prompts import Prompts

TURNS = 200
"""Steps of the estimate."""
LEAST = 1e-300
"""Smallest p-value and likelihood ratio."""
SHAPES = (1e-3, 1.0 - 1e-6)
"""Bounds of a."""


@dataclass(frozen=True)
class Bag:
    """The tokens of an update by their evidence."""

    present: Float[np.ndarray, "title_tokens"]
    """Probability of each token of titles, in the order of `Titles.tokens`."""
    ratio: Float[np.ndarray, "title_tokens"]
    """Likelihood ratio of its evidence: there, or not there."""


class Titles:
    """The catalogue's titles as sets of tokens."""

    def __init__(self, prompts: Prompts) -> None:
        titles, content = prompts.titles, prompts.content
        own = [np.unique(titles[item][content[item] == 1]) for item in range(len(titles))]
        self.tokens: Int[np.ndarray, title_tokens] = np.unique(np.concatenate(own))
        """The tokens that titles are made of, in ascending order."""
        columns = np.searchsorted(self.tokens, np.concatenate(own))
        bounds = np.cumsum([0, *map(len, own)])
        self._holds = csr_array((np.ones(len(columns)), columns, bounds), shape=(len(own), len(self.tokens)))
        pieces = (prompts.prefix, prompts.separator, prompts.suffix, prompts.end, prompts.bos, titles.values)
        self._possible = np.unique(np.concatenate([*pieces, [prompts.eos, prompts.pad]]))

    @cached_property
    def share(self) -> Float[np.ndarray, "title_tokens"]:
        """Share of the titles that hold each token."""
        return np.asarray(self._holds.sum(0) / self._holds.shape[0])

    def bag(self, evidence: Float[np.ndarray, "vocab"]) -> Bag:
        """Return which tokens of titles are there, by the evidence for each token of the vocabulary."""
        absent = np.delete(evidence, self._possible)
        share, shape = mixture(p := p_values(evidence[self.tokens], absent if len(absent) else evidence))
        ratio = shape * (p ** (shape - 1) - 1) / (1 - shape)
        there = share * (1 - shape)
        return Bag(there * ratio / (there * ratio + 1 - there), ratio)

    def items(self, bag: Bag) -> Float[np.ndarray, "items"]:
        """Return the log-odds of each item that the bag holds its title, but for a constant."""
        chance = 1 - (1 - self.share) ** self._count(bag)
        ratio = _log(bag.ratio)
        told = ratio - np.logaddexp(_log(chance) + ratio, _log(1 - chance))
        return np.asarray(self._holds @ told)

    def _count(self, bag: Bag) -> float:
        """Return the number of items whose titles would have as many tokens as are there."""
        there, most = float(bag.present.sum()), 1e3 * self._holds.shape[0]

        def more(count: float) -> float:
            return float((1 - (1 - self.share) ** count).sum()) - there

        return float(brentq(more, 0.0, most)) if more(most) > 0 > more(0.0) else most


def p_values(asked: Float[np.ndarray, "asked"], absent: Float[np.ndarray, "absent"]) -> Float[np.ndarray, "asked"]:
    """Return the p-value of each evidence by that of tokens that are not there."""
    above = len(absent) - np.searchsorted(np.sort(absent), asked, side="left")
    counted = (1 + above) / (1 + len(absent))
    distance, spread = asked - absent.mean(), absent.std()
    bound = spread**2 / np.maximum(spread**2 + distance**2, LEAST)
    return np.asarray(np.maximum(np.where(distance > 0, np.minimum(counted, bound), counted), LEAST))


def mixture(p: Float[np.ndarray, "tests"]) -> tuple[float, float]:
    """Return the share of Beta(a, 1) in some p-values, and a, by expectation and maximization."""
    share, shape, logs = 0.5, 0.5, np.log(p)
    for _ in range(TURNS):
        beta = share * shape * np.exp((shape - 1) * logs)
        of_beta = beta / (beta + 1 - share)
        share = float(np.clip(of_beta.mean(), 1e-6, 1 - 1e-6))
        shape = float(np.clip(-of_beta.sum() / min(float((of_beta * logs).sum()), -1e-12), *SHAPES))
    return share, shape


def _log(values: Float[np.ndarray, "values"]) -> Float[np.ndarray, "values"]:
    return np.asarray(np.log(np.clip(values, LEAST, None)))
