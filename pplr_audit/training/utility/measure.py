"""Utility of the trained models, as rows of the findings document and as each user's own scores."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from pplr_audit.data.popularity import popularity_of
from pplr_audit.data.prepare import PrivateData
from pplr_audit.models.recommenders.task import NotFinite, Served, Tally
from pplr_audit.runs.progress import Advance
from pplr_audit.scenario.schema import Scenario
from pplr_audit.scenario.seeds import derive
from pplr_audit.scoring.balance import balance_estimates, row
from pplr_audit.scoring.intervals import mean_estimate
from pplr_audit.training.apart import asked_apart
from pplr_audit.training.divergence import unrankable
from pplr_audit.training.job import Job
from pplr_audit.training.side_by_side import side_by_side, width
from pplr_audit.training.utility.evaluate import DEPTHS, Ranking, rank, recommended, tested
from pplr_audit.training.utility.user_scores import UserScores


@dataclass(frozen=True)
class Utility:
    """The measured utility."""

    rows: list[dict[str, Any]]
    """``utility`` of the findings document."""
    balance: list[dict[str, Any]]
    """``balance`` of the findings document: how evenly clients are served."""
    scores: UserScores


def utility_rows(job: Job, defense: str, tally: Tally, advance: Advance, *, references: bool = True) -> Utility:
    """Recall and NDCG of the trained personal models beside references: the base model, mere popularity, the ceiling.

    Every user is served by the model of its own client, over the link; ``tally`` sums up what that took. Without
    ``references`` it is the trained models alone.

    Raises:
        RunError: a trained model's scores are not finite.
    """
    scenario, private = job.scenario, job.private
    users = _test_users(scenario, private)
    everyone = np.concatenate(list(users.values()))
    clients = private.population.client_of[everyone]
    rankers = _Rankers(job, popularity_of(private.split, private.members, len(private.dataset.catalogue)), tally)
    own = job.spec.label
    ranked_by: dict[str, _Ranker] = {own: rankers.trained}
    if references:
        ranked_by |= {"untrained": rankers.untrained, "popularity": rankers.popular}

    rows: list[dict[str, Any]] = []
    even: list[dict[str, Any]] = []
    by_user: dict[str, dict[str, np.ndarray]] = {}
    for label, ranked in ranked_by.items():
        strategy, rankings = job.spec.strategy if label == own else label, {}
        for client, ranking in zip(users, _each_client(job, ranked, users, tally), strict=True):
            rankings[client] = ranking
            advance(1, f"{strategy}, {client}")
        rows += _rows(strategy, defense, rankings, scenario.seed)
        by_user[label] = _metrics(list(rankings.values()))
        even += _balance(strategy, defense, by_user[label], clients, scenario.seed)
    if references:
        rows += _ceiling(private, defense)
    names = private.population.clients
    scores = UserScores(own, private.dataset.digest, names, everyone, clients, by_user)
    return Utility(rows, even, scores)


def _each_client(
    job: Job, ranked: "_Ranker", users: Mapping[str, Int[np.ndarray, "users"]], tally: Tally
) -> Iterator[Ranking]:  # fmt: skip
    """Rank for the users of each client, several clients at a time where that is allowed."""
    link = job.federation.link
    if width(len(users)) < 2 or job.federation.guards.composed.defenses:  # noise of a defense counts requests
        yield from (ranked(client, own) for client, own in users.items())
        return
    tasks = [partial(asked_apart, partial(ranked, client, own), link, tally) for client, own in users.items()]
    for answer in side_by_side(tasks):
        yield answer.take(link, tally)


_Ranker = Callable[[str, Int[np.ndarray, "users"]], Ranking]
"""Ranks the catalogue for users of a client."""


@dataclass(frozen=True)
class _Rankers:
    """Rank the catalogue for users of a client: by its trained model, or by a reference."""

    job: Job
    popularity: Float[np.ndarray, "items"]
    tally: Tally
    """Sums up what serving by the trained models took."""

    def trained(self, client: str, users: Int[np.ndarray, "users"]) -> Ranking:
        """By the model of the client, over the link."""
        job = self.job
        if client not in job.private.holders:  # without a sample it took no part: it has the model that it began with
            return self.untrained(client, users)
        (holder,) = (each for each in job.federation.clients if each.name == job.private.holders[client])
        try:
            return self._recommended(holder.served(job.federation.link, self.tally), users)
        except NotFinite as error:
            raise unrankable(job.scenario.training, client) from error

    def untrained(self, client: str, users: Int[np.ndarray, "users"]) -> Ranking:
        """By the base model, which is the same for every client."""
        del client
        return self._recommended(self.job.model.whole.served(None), users)

    def popular(self, client: str, users: Int[np.ndarray, "users"]) -> Ranking:
        """By popularity among the training items of all members."""
        del client
        parts = np.array_split(np.arange(len(users)), -(-len(users) // 256))
        scored = ((rows, np.tile(self.popularity, (len(rows), 1))) for rows in parts)
        return rank(scored, users, self.job.private.split)

    def _recommended(self, served: Served, users: Int[np.ndarray, "users"]) -> Ranking:
        job = self.job
        return recommended(
            served, job.model.task, job.private.split, users,
            history=job.scenario.data.history, popularity=self.popularity,
        )  # fmt: skip


def _metrics(rankings: Sequence[Ranking]) -> dict[str, Float[np.ndarray, "users"]]:
    """Join the users of several rankings: the values of each metric, in the order of the rankings."""
    return {metric: np.concatenate([ranking.metrics[metric] for ranking in rankings]) for metric in rankings[0].metrics}


def _balance(
    strategy: str,
    defense: str,
    scores: Mapping[str, Float[np.ndarray, "users"]],
    clients: Int[np.ndarray, "users"],
    seed: int,
) -> list[dict[str, Any]]:
    """Standard deviation, worst client and Jain's index of each metric; nothing where one client has all users."""
    if len(np.unique(clients)) < 2:
        return []
    return [
        {"strategy": strategy, "defense": defense, "metric": metric, "measure": measure, **row(e)}
        for metric, values in scores.items()
        for measure, e in balance_estimates(values, clients, seed=derive(seed, "balance") % 2**32).items()
    ]  # fmt: skip


def _ceiling(private: PrivateData, defense: str) -> list[dict[str, Any]]:
    """Return the best possible mean score, where the law behind the data is known; it is exact."""
    known = private.dataset.best_recall or {}
    return [
        {"strategy": "best_possible", "defense": defense, "client": "all", "metric": f"recall@{k}",
         "value": known[k], "ci": [known[k], known[k]], "n": len(private.dataset.users)}
        for k in DEPTHS if k in known
    ]  # fmt: skip


def _test_users(scenario: Scenario, private: PrivateData) -> dict[str, Int[np.ndarray, "users"]]:
    """Users who train and have a test item, by client; at most ``data.test_users`` of them, drawn by the seed."""
    able = tested(private.split, private.members)
    wanted = scenario.data.test_users
    if wanted is not None and wanted < len(able):
        able = np.sort(np.random.default_rng(derive(scenario.seed, "test users")).choice(able, wanted, replace=False))
    at = private.population.client_of[able]
    by_client = {client: able[at == place] for place, client in enumerate(private.population.clients)}
    return {client: own for client, own in by_client.items() if len(own)}


def _rows(strategy: str, defense: str, rankings: Mapping[str, Ranking], seed: int) -> list[dict[str, Any]]:
    groups: dict[str, Sequence[Ranking]] = {"all": list(rankings.values())}
    groups |= {client: [ranking] for client, ranking in rankings.items()}
    rows = []
    for client, group in groups.items():
        users = np.concatenate([ranking.users for ranking in group])
        for metric, values in _metrics(group).items():
            e = mean_estimate(values, users, seed=derive(seed, "utility") % 2**32)
            rows.append(
                {"strategy": strategy, "defense": defense, "client": client, "metric": metric, "value": e.value,
                 "ci": [e.low, e.high], "n": e.n}
            )  # fmt: skip
    return rows
