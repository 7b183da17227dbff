"""A strategy's answer, which anybody may have written: looked at before a model is made of it or a file holds it."""

from dataclasses import replace

import numpy as np

from pplr_audit.errors import RunError
from pplr_audit.training.strategies.protocol import Mixing

TOLERANCE = 1e-6
"""Tolerance of a sum of weights. Models whose weights sum to something else grow or shrink with every round."""
SUMS = ("matrix", "absent")


def checked(answer: object, clients: int, strategy: str, round_: int) -> Mixing:
    """``answer`` with all its values as arrays of float64.

    Args:
        clients: how many trained in the round.

    Raises:
        RunError: it is no mixing of so many clients: names the strategy, the round and what is wrong.
    """
    if not isinstance(answer, Mixing):
        raise _wrong(strategy, round_, f"is a {type(answer).__name__} and no Mixing")
    shapes: dict[str, tuple[int, ...]] = {"matrix": (clients, clients), "similarity": (clients, clients)}
    shapes |= dict.fromkeys(("status", "speed", "absent"), (clients,))
    arrays = {}
    for name, shape in shapes.items():
        given = getattr(answer, name)
        if given is None and name != "matrix":
            continue
        try:
            values = np.asarray(given, dtype=np.float64)
        except (TypeError, ValueError, RuntimeError):
            raise _wrong(strategy, round_, f"has as {name} what is no array of numbers") from None
        if values.shape != shape:
            raise _wrong(strategy, round_, f"has {name} of shape {values.shape}, and {clients} clients need {shape}")
        if not np.isfinite(values).all():
            raise _wrong(strategy, round_, f"has {name} with values that are not finite")
        if name in SUMS and not np.allclose(values.sum(axis=-1), 1, rtol=0, atol=TOLERANCE):
            sums = np.atleast_1d(values.sum(axis=-1))
            furthest = sums[np.abs(sums - 1).argmax()]
            raise _wrong(strategy, round_, f"has {name} whose weights sum to {furthest:.9g} and not to 1")
        arrays[name] = values
    return replace(answer, **arrays)


def _wrong(strategy: str, round_: int, what: str) -> RunError:
    return RunError(f"{strategy}: what the strategy answers for round {round_} {what}")
