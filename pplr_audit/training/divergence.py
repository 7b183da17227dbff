"""Divergence checks shared by client and server, and the errors they raise."""

import math
from collections.abc import Mapping

from torch import Tensor

from pplr_audit import scenario
from pplr_audit.errors import RunError

EXPLODED = 1e3
"""A training loss above this has exploded, in nats a token: guessing at random costs ln(vocabulary), 13 at the most."""
LARGEST = 1e6
"""A value of an adapter beyond this has exploded, too, though a norm may hide it from the loss. Weights that a model
works with are below some hundreds; here float32 has a value every 0.06 only, so that no step of a sane size leads back,
and products of two such factors leave float32's range within a few layers."""


def of_loss(value: float) -> str | None:
    """Return the fault of a training loss, or None."""
    if not math.isfinite(value):
        return "the loss is not finite"
    return f"the loss has exploded ({value:.3g})" if value > EXPLODED else None


def of_adapter(values: Mapping[str, Tensor]) -> str | None:
    """Return the fault of an adapter or of a part of one, or None."""
    if not all(bool(value.isfinite().all()) for value in values.values()):
        return "the adapter is not finite"
    largest = max((float(value.abs().max()) for value in values.values() if value.numel()), default=0.0)
    return f"the adapter has exploded (a value of {largest:.3g})" if largest > LARGEST else None


def diverged(training: scenario.Training, client: str, what: str, round_: int, step: int) -> RunError:
    """The error of a local training that has run away in a step (from 0) of a round (from 1)."""
    return RunError(
        f"{training.label}, {client}: {what} in round {round_}, step {step}; try a lower training.learning_rate "
        f"(now {training.learning_rate:g}); the state before the round is kept"
    )


def under(defense: str, error: RunError) -> RunError:
    """Return the error with the defense in force, which may be the cause; ``none`` is none."""
    return error if defense == "none" else RunError(f"{error}; the defense {defense} is in force and may be the cause")


def diverged_before(training: scenario.Training, client: str, what: str, round_: int, step: int) -> RunError:
    """The error of a local training whose first ``step`` of a round shows that it started from a spoilt model.

    To continue is of no use then: the same rounds lead to the same model, and that model is all there is to go on from.
    """
    good = f"round {round_ - 2} at the latest" if round_ > 2 else "none"
    return RunError(
        f"{training.label}, {client}: {what} in round {round_}, step {step}, its first: the cause is the model that "
        f"round {round_ - 1} left (last good round: {good}), and the same command ends here again; try a lower "
        f"training.learning_rate (now {training.learning_rate:g}), which is another run in a directory of its own"
    )


def unrankable(training: scenario.Training, client: str) -> RunError:
    """The error of a trained model whose scores of items are not finite."""
    return RunError(
        f"{training.label}, {client}: the trained model's scores are not finite, so that nothing can be ranked; try a "
        f"lower training.learning_rate (now {training.learning_rate:g}), which is another run in a directory of its own"
    )


def mixed_badly(training: scenario.Training, client: str, what: str, round_: int) -> RunError:
    """The error of a balance that made a client such a model of sound ones."""
    return RunError(
        f"{training.label}, {client}: {what} after round {round_} was balanced; the state before the round is kept"
    )
