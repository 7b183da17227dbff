"""Spread of an attack's scores over users and clients: a pooled figure hides who was hit worst.

Nobody is named: what is said of a client is said of at least ``LEAST`` of its users, as a client may be a single user.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from pplr_audit.scenario.seeds import derive
from pplr_audit.scoring.intervals import mean_estimate

METRIC = "item_hit@1"
"""The share of a user's items that are named; other metrics say the same of the same users."""
LEAST = 5
"""Attacked users that a client has to have for a mean of its own."""


def with_spread(
    cells: Iterable[Mapping[str, Any]], client_of: Callable[[int], str], *, seed: int
) -> list[dict[str, Any]]:
    """The cells, with ``over_users`` in the detail of each finding that says how many of a user's items were named.

    Args:
        cells: as ``run_cell`` answers, also of an earlier version.
        client_of: the client that a user belongs to.
        seed: the scenario's.
    """
    drawn = derive(seed, "interval") % 2**32
    found = []
    for cell in cells:
        by_user = {int(user): value for user, value in cell["per_user"].get(f"{METRIC}/", {}).items()}
        spread = {"over_users": _over_users(by_user, client_of, drawn)} if by_user else {}
        rows = [
            {**row, "detail": {**row["detail"], **spread}} if _tells(row) else row for row in cell["findings"]
        ]  # fmt: skip
        found.append({**cell, "findings": rows})
    return found


def _tells(row: Mapping[str, Any]) -> bool:
    return bool(row["secret"] == "history" and row["metric"] == METRIC and row["status"] == "ok")


def _over_users(by_user: Mapping[int, float], client_of: Callable[[int], str], seed: int) -> dict[str, Any]:
    """Order statistics of the users' shares, how many of them were read whole, and the mean of each client."""
    values = np.array(list(by_user.values()))
    least, low, median, high, most = np.quantile(values, [0.0, 0.25, 0.5, 0.75, 1.0]).tolist()
    of_client: dict[str, list[float]] = {}
    for user, value in by_user.items():
        of_client.setdefault(client_of(user), []).append(value)
    return {
        "n": len(values), "least": least, "quartiles": [low, high], "median": median, "most": most,
        "all_read": _mean((values >= 1).astype(float), seed),
        "clients": {
            name: _mean(np.array(own), seed) for name, own in sorted(of_client.items()) if len(own) >= LEAST
        },
    }  # fmt: skip


def _mean(values: Float[np.ndarray, "users"], seed: int) -> dict[str, Any]:
    """One value a user."""
    found = mean_estimate(values, np.arange(len(values)), seed=seed)
    return {"mean": found.value, "ci": [found.low, found.high], "n": found.n}
