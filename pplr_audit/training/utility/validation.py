"""The metric of early stopping: how good a client's model is while it trains, on validation items of members.

It is the reported metric, measured as it is reported (full ranking, own items masked, the same generation), on other
items: a user's validation items come after the training items and before the test items, which are never touched.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Int

from pplr_audit.data.dataset import Ragged, Split
from pplr_audit.data.popularity import popularity_of
from pplr_audit.data.prepare import PrivateData
from pplr_audit.errors import InputError
from pplr_audit.models.recommenders.task import NotFinite
from pplr_audit.scenario.schema import Scenario
from pplr_audit.scenario.seeds import derive
from pplr_audit.training.client import Client
from pplr_audit.training.divergence import unrankable
from pplr_audit.training.job import Job
from pplr_audit.training.utility.evaluate import recommended, repeating, tested


def as_test(split: Split) -> Split:
    """The split whose test items are the validation items of ``split``; its own test items are nowhere in it."""
    nothing = Ragged(np.zeros_like(split.valid.offsets), split.valid.values[:0])
    return Split(split.train, nothing, split.valid)


def validation_users(scenario: Scenario, private: PrivateData, client: str) -> Int[np.ndarray, "users"]:
    """Members who have validation items that they do not train on, of all groups that ``client`` serves; at most
    ``valid_users`` of each."""
    able = tested(as_test(private.split), private.members)
    of = private.population.client_of[able]
    chosen = [able[:0]]
    for place, group in enumerate(private.population.clients):
        if private.holders.get(group) != client:
            continue
        own = able[of == place]
        draw = np.random.default_rng(derive(scenario.seed, "validation users", group))
        chosen.append(np.sort(draw.permutation(own)[: scenario.training.valid_users]))
    return np.concatenate(chosen)


def left_out(private: PrivateData) -> dict[str, int]:
    """Members whom no recommendation could be right for, as they had all their test items before, and likewise for
    validation items; neither the trained models nor what stands beside them is measured on them."""
    parts = {"test": private.split, "validation": as_test(private.split)}
    return {name: len(repeating(split, private.members)) for name, split in parts.items()}


def never_stopping(scenario: Scenario, private: PrivateData) -> list[str]:
    """The clients that ``training.patience`` cannot stop, as none of their users has a validation item."""
    if scenario.training.patience is None:
        return []
    able = tested(as_test(private.split), private.members)
    groups = [private.population.clients[place] for place in np.unique(private.population.client_of[able])]
    measured = {private.holders.get(group) for group in groups}
    return [client for client in private.samples if client not in measured]


def require_stopping(scenario: Scenario, private: PrivateData) -> None:
    """Raises InputError where ``training.patience`` could stop nobody: it would be ignored without a word."""
    if scenario.training.patience is not None and len(never_stopping(scenario, private)) == len(private.samples):
        raise InputError(
            f"training.patience: no client has a user with a validation item to measure {scenario.training.stop_on} on "
            f"(data.split: {scenario.data.split}; an item that the user trains on is none); leave it out, or choose a "
            "split that keeps some items for validation"
        )


def validator(job: Job) -> Callable[[Client], float | None]:
    """A function that answers a client's ``training.stop_on``, or None where it has nobody to measure it on.

    It raises RunError where the scores of a client's model are not finite.
    """
    scenario, private = job.scenario, job.private
    split = as_test(private.split)
    popularity = popularity_of(split, private.members, len(private.dataset.catalogue))

    def measure(client: Client) -> float | None:
        users = validation_users(scenario, private, client.name)
        if not len(users):
            return None
        try:
            ranking = recommended(
                client.served(job.federation.link), job.model.task, split, users,
                history=scenario.data.history, popularity=popularity,
            )  # fmt: skip
        except NotFinite as error:
            raise unrankable(scenario.training, client.name) from error
        return float(ranking.metrics[scenario.training.stop_on].mean())

    return measure
