"""Each test user's own scores in the run directory, and two runs compared user by user."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from pplr_audit.errors import InputError
from pplr_audit.runs.parsing import parsed, understood
from pplr_audit.runs.store import Store
from pplr_audit.scenario.seeds import derive
from pplr_audit.scoring.balance import Refusal, balance_differences, row
from pplr_audit.scoring.intervals import Estimate, paired_difference

PER_USER = "per_user.safetensors"


@dataclass(frozen=True)
class UserScores:
    """Scores of the test users of one run; all arrays have one value a user."""

    strategy: str
    data: str
    """The dataset's digest: users of another have other numbers."""
    names: tuple[str, ...]
    """The clients."""
    users: Int[np.ndarray, "users"]
    clients: Int[np.ndarray, "users"]
    """Index into ``names``."""
    scores: Mapping[str, Mapping[str, Float[np.ndarray, "users"]]]
    """Scores by strategy (references too), then by metric."""

    def write(self, store: Store, path: str = PER_USER) -> None:
        arrays = {"users": self.users, "clients": self.clients}
        arrays |= {f"{s}/{m}": values for s, by_metric in self.scores.items() for m, values in by_metric.items()}
        about = {"strategy": self.strategy, "data": self.data, "clients": list(self.names)}
        store.write_tensors(path, arrays, {"about": json.dumps(about)})

    @classmethod
    def of(cls, store: Store, path: str = PER_USER) -> "UserScores":
        """Read the scores that `write` wrote. Raises InputError where the file was altered."""
        arrays, file = store.read_arrays(path), store.root / path
        with understood(file):
            about = parsed(store.read_metadata(path)["about"].encode(), file)
            scores: dict[str, dict[str, Any]] = {}
            for key, values in sorted(arrays.items()):  # a file has no order of its own
                if "/" in key:
                    strategy, metric = key.rsplit("/", 1)
                    scores.setdefault(strategy, {})[metric] = values
            found = cls(
                about["strategy"], about["data"], tuple(about["clients"]), arrays["users"], arrays["clients"],
                scores,
            )  # fmt: skip
            found._require_whole()
        return found

    def _require_whole(self) -> None:
        """Raises ValueError or TypeError where the parts do not fit together."""
        if not all(isinstance(text, str) for text in (self.strategy, self.data, *self.names)):
            raise TypeError("names that are no texts")
        size = self.users.shape
        values = [each for by_metric in self.scores.values() for each in by_metric.values()]
        if len(size) != 1 or any(each.shape != size for each in (self.clients, *values)):
            raise ValueError("arrays of other lengths")
        if self.users.dtype.kind not in "iu" or self.clients.dtype.kind not in "iu":
            raise ValueError("users and clients are no whole numbers")
        if size[0] and not (self.clients.min() >= 0 and self.clients.max() < len(self.names)):
            raise ValueError("users of a client without a name")
        if not all(each.dtype.kind == "f" and np.isfinite(each).all() for each in values):
            raise ValueError("scores that are no finite numbers")
        if self.strategy not in self.scores:
            raise ValueError(f"no scores of {self.strategy}")


def compared(one: UserScores, other: UserScores, *, seed: int = 0) -> list[dict[str, Any]]:
    """Return how much ``one`` is better than ``other``, for the same users served by either.

    Rows with ``strategy``, ``against``, ``metric``, ``measure``, ``client``, ``value``, ``ci`` and ``n``, and with the
    ``reason`` where there is no interval. The measures are ``mean`` (of all users, and of each client's; paired
    bootstrap over users) and those of `scoring.balance` (of all).
    Intervals hold for these two trainings, not for others with other seeds.

    Raises:
        InputError: the two are not of the same users at the same clients.
    """
    if one.data != other.data:
        raise InputError(f"the runs are of different data ({one.data[:8]} and {other.data[:8]}): nothing to pair")
    both = np.intersect1d(one.users, other.users)
    if len(both) != len(one.users) or len(both) != len(other.users):
        raise InputError("the runs measured different users; give both the same seed, data.users and data.test_users")
    a_at, b_at = np.argsort(one.users), np.argsort(other.users)
    clients = one.clients[a_at]
    if one.names != other.names or not np.array_equal(clients, other.clients[b_at]):
        raise InputError("the runs have their users at different clients; give both the same seed and data.partition")
    rows: list[dict[str, Any]] = []
    mine, theirs = one.scores[one.strategy], other.scores[other.strategy]
    if mine.keys() != theirs.keys():
        raise InputError("the runs measured different things (per_user.safetensors); nothing to pair")
    for metric in mine:
        a, b = mine[metric][a_at], theirs[metric][b_at]
        found: list[tuple[str, str, Estimate | Refusal]] = []
        # One draw for all metrics, so that they differ by what is measured alone.
        drawn = derive(seed, "compared") % 2**32
        found.append(("mean", "all", paired_difference(a, b, both, seed=drawn)))
        for place in np.unique(clients):
            own = clients == place
            name = one.names[int(place)]
            found.append(("mean", name, paired_difference(a[own], b[own], both[own], seed=drawn)))
        if len(np.unique(clients)) > 1:
            found += [(m, "all", e) for m, e in balance_differences(a, b, clients, seed=drawn).items()]
        rows += [
            {"strategy": one.strategy, "against": other.strategy, "metric": metric, "measure": measure,
             "client": client, **row(e)}
            for measure, client, e in found
        ]  # fmt: skip
    return rows
