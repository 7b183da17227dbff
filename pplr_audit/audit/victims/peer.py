"""The peers: clients that look at what the server sends them, to learn about the users of others; mostly one."""

from collections.abc import Collection

import numpy as np

from pplr_audit.errors import InputError
from pplr_audit.scenario.schema import Scenario
from pplr_audit.scenario.seeds import derive


def peers_among(scenario: Scenario, clients: Collection[str]) -> tuple[str, ...]:
    """Return the clients that are the adversary ``peer``, by name: those of ``audit.peer``, or one drawn by the seed.

    None where there is no such adversary. Raises InputError where no client of a name trains.

    Args:
        clients: those that train.
    """
    if "peer" not in scenario.audit.adversaries:
        return ()
    names = sorted(clients)
    asked = scenario.audit.peer
    if asked is None:
        return (names[int(np.random.default_rng(derive(scenario.seed, "peer")).integers(len(names)))],)
    peers = (asked,) if isinstance(asked, str) else asked
    for peer in peers:
        if peer not in names:
            shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
            raise InputError(f"audit.peer: {peer!r} is no client that trains (accepted: {shown})")
    return tuple(sorted({*peers}))
