"""The peer: one client that looks at what the server sends it, to learn about the users of others."""

from collections.abc import Collection

import numpy as np

from pplr_audit.errors import InputError
from pplr_audit.scenario.schema import Scenario
from pplr_audit.scenario.seeds import derive


def peer_among(scenario: Scenario, clients: Collection[str]) -> str | None:
    """Return the client that is the adversary ``peer``: ``audit.peer``, or one drawn by the seed; None without one.

    Raises InputError where no client of that name trains.

    Args:
        clients: those that train.
    """
    if "peer" not in scenario.audit.adversaries:
        return None
    names = sorted(clients)
    if scenario.audit.peer is None:
        return names[int(np.random.default_rng(derive(scenario.seed, "peer")).integers(len(names)))]
    if scenario.audit.peer not in names:
        shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
        raise InputError(f"audit.peer: {scenario.audit.peer!r} is no client that trains (accepted: {shown})")
    return scenario.audit.peer
