"""The scenario's data made ready: who holds what, who is audited, and what is put before the model."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from pplr_audit import scenario
from pplr_audit.data.dataset import Dataset, Population, Split
from pplr_audit.data.load import load
from pplr_audit.data.population import populate, with_members
from pplr_audit.data.samples import Samples, new_items, training_samples
from pplr_audit.data.split import split as split_dataset
from pplr_audit.errors import InputError
from pplr_audit.scenario.seeds import derive


@dataclass(frozen=True)
class PrivateData:
    """All users of one scenario. The harness holds it; attacks never see it."""

    dataset: Dataset
    split: Split
    population: Population
    samples: dict[str, Samples]
    """Training samples, of members alone, by the client that holds them; clients without any are left out."""
    holders: Mapping[str, str]
    """The client that holds each training client's samples and serves its users: itself, or who has all."""
    trained: Bool[np.ndarray, "users"]
    """Members whose last sample is trained on: all of them, except in few-shot training."""
    section: scenario.Data
    """The section of the scenario that it was prepared by."""

    @property
    def members(self) -> Int[np.ndarray, "users"]:
        return np.flatnonzero(self.population.member == 1)

    @property
    def reserve(self) -> Int[np.ndarray, "users"]:
        """The users who train in no audited training."""
        return np.flatnonzero(self.population.reserve == 1)

    def with_members(self, members: Bool[np.ndarray, "users"]) -> "PrivateData":
        """Return the same users under other coins, as `prepare` would with these; nothing is read again.

        Few-shot training and pooling (`allocation.allotted`) are not carried over: allot the result anew.

        Args:
            members: True for each user who trains. Only audited users have coins: all others outside the reserve train.

        Raises:
            InputError: it names a user whose membership no coin decides, or leaves too few users who train.
        """
        population = with_members(self.population, members, alone=self.section.partition == "per_user")
        return _assembled(self.dataset, self.split, population, self.section)

    def victims(self, count: int, seed: int, without: str | None = None) -> Int[np.ndarray, "victims"]:
        """Audited members to attack: at most ``count``, drawn by the seed, none of those that ``without`` holds."""
        able = (self.population.audited == 1) & (self.population.member == 1) & self.trained
        if without is not None:
            able[self.samples[without].users] = False
        users = np.flatnonzero(able)
        chosen = np.random.default_rng(derive(seed, "victims")).permutation(users)[:count]
        return np.sort(chosen)

    def others(self, count: int, seed: int) -> Int[np.ndarray, "others"]:
        """Users of the reserve, at most ``count``, drawn by the seed: no client trains on any of them."""
        return np.sort(np.random.default_rng(derive(seed, "others")).permutation(self.reserve)[:count])

    def candidates(self) -> Int[np.ndarray, "candidates"]:
        """Every audited user with a client: half of them trained, by the coins."""
        able = (self.population.audited == 1) & (self.population.client_of >= 0) & (self.split.train.lengths >= 2)
        # A member that few-shot training passes over is neither in nor out.
        able &= (self.population.member == 0) | self.trained
        # And a client that it leaves without a sample has no model to ask.
        served = [place for place, client in enumerate(self.population.clients) if client in self.holders]
        return np.flatnonzero(able & np.isin(self.population.client_of, served))

    def samples_of(self, client: str) -> int:
        """Count the training samples of users of ``client``, whoever holds them."""
        if client not in self.holders:
            return 0
        users = self.samples[self.holders[client]].users
        return int((self.population.client_of[users] == self.population.clients.index(client)).sum())


def prepare(data: scenario.Data, seed: int) -> PrivateData:
    """Read, split, assign to clients, toss the coins, build the samples. Raises InputError for what does not fit."""
    dataset = load(data, seed)
    parts = split_dataset(dataset, data.split, valid=data.shares.valid, test=data.shares.test)
    return _assembled(dataset, parts, populate(dataset, parts, data, seed), data)


def _assembled(dataset: Dataset, parts: Split, population: Population, data: scenario.Data) -> PrivateData:
    """Build the samples of those who train. Raises InputError where utility could not be measured on any of them."""
    samples = {}
    for at, client in enumerate(population.clients):
        users = np.flatnonzero((population.client_of == at) & (population.member == 1))
        own = training_samples(parts, users, data.history, data.samples)
        if len(own):
            samples[client] = own
    members = np.flatnonzero(population.member == 1)
    if not (parts.test.lengths[members] > 0).any():
        raise InputError(
            f"{data.path}: no user who trains has a test item (accepted: at least one; data.split: leave_one_out makes "
            "one of each user's last item)"
        )
    if not (new_items(parts, members).lengths > 0).any():
        raise InputError(
            f"{data.path}: every user who trains had the test item before, and a user's own items are never "
            "recommended, so utility cannot be measured (accepted: data.duplicates: first or last, which keeps one of "
            "a user's interactions with an item)"
        )
    trained = (population.member == 1) & (population.client_of >= 0) & (parts.train.lengths >= 2)
    return PrivateData(dataset, parts, population, samples, {client: client for client in samples}, trained, data)


def model_free_features(
    private: PrivateData, asked: Samples, popularity: Float[np.ndarray, "items"], *, words: int = 8
) -> Float[np.ndarray, "samples features"]:
    """Return features of candidates that need no model: history length, popularity, and a bag of the titles' words.

    Args:
        popularity: counted on members outside the audit, so that no candidate's own items are in it.
        words: dimensions that the bag of words is brought down to (truncated SVD of TF-IDF).
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    titles = private.dataset.catalogue.titles
    log = np.log1p(popularity)
    lengths = private.split.train.lengths[asked.users]
    means = np.array([log[asked.history[row]].mean() for row in range(len(asked))])
    plain = np.column_stack([lengths, log[asked.targets], means])
    texts = [" ".join(titles[item] for item in [*asked.history[row], asked.targets[row]]) for row in range(len(asked))]
    try:
        bag = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b").fit_transform(texts)
    except ValueError:  # no title holds a word
        return plain
    size = min(words, bag.shape[1] - 1, len(texts) - 1)
    if size < 1:
        return plain
    return np.hstack([plain, TruncatedSVD(size, random_state=0).fit_transform(bag)])
