"""A small market that ships: users with tastes, items with genres, and a best possible recommender known exactly.

The next item of user u after item i, with S the items u has had, is drawn from

    P(j | u, i, S) ∝ [j not in S] · (λ · T[i, j] + (1 - λ) · pop_j · Σ_t θ_ut A_tj)

with θ_u the user's mixture of tastes, A_tj how much taste t likes item j (mostly its own genre), pop a power law, and
T[i] a few likely successors of item i, of its genre and mostly of its series. Nothing is fitted to any real source.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from pplr_audit import scenario
from pplr_audit.data.dataset import Catalogue, Dataset, Ragged
from pplr_audit.data.synthetic_titles import GENRES, titles
from pplr_audit.scenario.seeds import derive

FOLLOWS = 0.5
"""λ: how much of the next item comes from the last one rather than from taste and popularity."""
SUCCESSORS = (0.4, 0.3, 0.2, 0.1)
"""Probability of each of an item's successors, given that the next item comes from the last one."""
SERIES = 4
"""Items in a series, where the genre is small enough; their titles share a noun, as those of sequels do."""
SAME_SERIES = 0.85
"""Chance that a successor is of the series of its item, at least."""
POPULARITY = 0.9
"""Exponent of the power law, over rank."""
OTHER_GENRE = 0.01
"""Liking of a taste for an item of another genre, relative to 1 for its own."""
MIXTURE = 0.15
"""Concentration of the Dirichlet distribution of the users' mixtures: small means one taste prevails."""
SHORTEST, LONGEST = 6, 20
"""Items a user has, both included."""
CUTOFFS = (5, 10, 20)
OTHER_ITEMS = 400
"""Items of `other_catalogue`."""
AGES = ("under 25", "25 to 44", "45 and over")


@dataclass(frozen=True)
class Law:
    """The law that the market's users draw from; an oracle knows it, a recommender has to learn it."""

    genre: Int[np.ndarray, "items"]
    series: Int[np.ndarray, "items"]
    """Numbered from 0 inside each genre."""
    taste: Float[np.ndarray, "users tastes"]
    base: Float[np.ndarray, "users items"]
    """Share of each item in what a user likes, whatever came before; rows sum to 1."""
    follows: Float[np.ndarray, "items items"]
    """T; rows sum to 1."""

    def next_item(
        self, users: Int[np.ndarray, "n"], last: Int[np.ndarray, "n"], seen: Float[np.ndarray, "n items"]
    ) -> Float[np.ndarray, "n items"]:
        """Probability of each item to come next, given the last one and which (``seen`` = 1) cannot."""
        weight = (FOLLOWS * self.follows[last] + (1 - FOLLOWS) * self.base[users]) * (1 - seen)
        chance: np.ndarray = weight / weight.sum(axis=1, keepdims=True)
        return chance


def market(size: scenario.Market, seed: int) -> Dataset:
    """The market of this size and seed, with the best possible expected Recall@k of a leave-one-out test."""
    return drawn(size, seed)[0]


def other_catalogue(own: Catalogue, seed: int) -> Catalogue:
    """The catalogue of another market, without the titles that ``own`` has too: public text of the same kind."""
    rng = np.random.default_rng(derive(seed, "other catalogue"))
    found, known = _catalogue(_law(scenario.Market(users=20, items=OTHER_ITEMS), rng), rng), set(own.titles)
    kept = [place for place, title in enumerate(found.titles) if title not in known]
    return Catalogue(*(tuple(part[place] for place in kept) for part in (found.ids, found.titles, found.categories)))


def drawn(size: scenario.Market, seed: int) -> tuple[Dataset, Law]:
    """The market and the law behind it.

    ``best_recall[k]`` is the mean over users of the k largest probabilities of the last item, given the user's tastes
    and all items before: what a recommender that knows the law reaches on average, and none can surpass.
    """
    rng = np.random.default_rng(derive(seed, "market"))
    law = _law(size, rng)
    catalogue = _catalogue(law, rng)
    items, final = _histories(law, rng)
    best = -np.sort(-final, axis=1)[:, : max(CUTOFFS)].cumsum(axis=1)
    attributes = _attributes(law.taste, rng)
    users = tuple(str(number) for number in range(1, size.users + 1))
    content = repr((catalogue, users, attributes)).encode() + items.offsets.tobytes() + items.values.tobytes()
    dataset = Dataset(
        name="synthetic",
        catalogue=catalogue,
        users=users,
        items=items,
        given=None,
        attributes=attributes,
        digest=hashlib.sha256(content).hexdigest(),
        best_recall={k: float(best[:, k - 1].mean()) for k in CUTOFFS},
    )
    return dataset, law


def _law(size: scenario.Market, rng: np.random.Generator) -> Law:
    genre = rng.permutation(np.arange(size.items) % size.tastes)
    series = _series(genre)
    popularity = rng.permutation(np.arange(1, size.items + 1.0) ** -POPULARITY)
    taste = rng.dirichlet(np.full(size.tastes, MIXTURE), size.users)
    likes = np.where(np.arange(size.tastes)[:, None] == genre, 1.0, OTHER_GENRE)
    base = (taste @ likes) * popularity
    follows = np.zeros((size.items, size.items))
    for item in range(size.items):
        alike = genre == genre[item]
        same = alike & (series == series[item])
        chance = SAME_SERIES * same / same.sum() + (1 - SAME_SERIES) * alike / alike.sum()
        chance[item] = 0
        follows[item, rng.choice(size.items, len(SUCCESSORS), replace=False, p=chance / chance.sum())] = SUCCESSORS
    return Law(genre, series, taste, base / base.sum(axis=1, keepdims=True), follows)


def _series(genre: Int[np.ndarray, "items"]) -> Int[np.ndarray, "items"]:
    """Each item's series in its genre, all of them about equally long; a genre has a noun for each."""
    series = np.empty_like(genre)
    for kind in np.unique(genre):
        count = int((genre == kind).sum())
        series[genre == kind] = np.arange(count) % min(len(GENRES[kind].nouns), -(-count // SERIES))
    return series


def _catalogue(law: Law, rng: np.random.Generator) -> Catalogue:
    named = np.empty(len(law.genre), dtype=object)
    for kind in np.unique(law.genre):
        named[law.genre == kind] = titles(GENRES[kind], law.series[law.genre == kind], rng)
    return Catalogue(
        ids=tuple(str(number) for number in range(1, len(law.genre) + 1)),
        titles=tuple(named),
        categories=tuple(GENRES[kind].name for kind in law.genre),
    )


def _histories(law: Law, rng: np.random.Generator) -> tuple[Ragged, Float[np.ndarray, "users items"]]:
    """Everyone's items, and the distribution that everyone's last item was drawn from."""
    count, width = law.base.shape
    lengths = rng.integers(SHORTEST, LONGEST + 1, (count,))
    taken = np.zeros((count, LONGEST), dtype=np.int64)
    seen = np.zeros((count, width))
    final = np.zeros((count, width))
    for step in range(LONGEST):
        going = np.flatnonzero(lengths > step)
        chance = law.next_item(going, taken[going, step - 1], seen[going]) if step else law.base
        # Inverse transform sampling, all users at once; the minimum guards the last item against rounding.
        edges = chance.cumsum(axis=1)
        point = rng.random(len(going)) * edges[:, -1]
        taken[going, step] = np.minimum((edges <= point[:, None]).sum(axis=1), width - 1)
        seen[going, taken[going, step]] = 1
        ending = lengths[going] == step + 1
        final[going[ending]] = chance[ending]
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    return Ragged(offsets, taken[np.arange(LONGEST) < lengths[:, None]]), final


def _attributes(taste: Float[np.ndarray, "users tastes"], rng: np.random.Generator) -> dict[str, tuple[str, ...]]:
    """Gender and age group, drawn from a logit that is linear in the mixture of tastes."""
    count, tastes = taste.shape
    # Signs alternate and ages go up with the taste, so that no seed makes an attribute independent of taste.
    lean = taste @ np.where(np.arange(tastes) % 2, 1.0, -1.0)
    woman = 1 / (1 + np.exp(-3 * (lean - lean.mean())))
    age = taste @ np.linspace(-1, 1, tastes) + rng.normal(0, 0.5, count)
    return {
        "gender": tuple("F" if draw else "M" for draw in rng.random(count) < woman),
        "age_group": tuple(AGES[group] for group in np.digitize(age, [-0.35, 0.35])),
    }
