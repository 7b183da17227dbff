"""The local optimizer: elementwise, keyed by parameter name, and carried from round to round.

Client and server each step their own part of a client's adapter; because nothing in it looks across parameters, the two
together do what one optimizer over the whole adapter would do, wherever the cut lies.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pplr_audit import scenario

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class OptimizerState:
    """Steps taken so far, and the moments under ``<parameter name>/<moment>``."""

    steps: int = 0
    moments: Mapping[str, Tensor] = field(default_factory=dict)

    def after_averaging(self, how: str) -> "OptimizerState":
        """Return the state that stays valid after averaging: refactored products have other coordinates than the
        moments.
        """
        if how == "factors":
            return self
        kept = {
            name: value for name, value in self.moments.items() if ".lora_A." not in name and ".lora_B." not in name
        }
        return OptimizerState(self.steps, kept)


@dataclass(frozen=True)
class Pull:
    """The proximal term mu / 2 · ||theta - anchor||² of a local loss (FedProx, Ditto), as its gradient.

    It is elementwise, so each side of the cut adds it to its own parameters and rounding does not depend on the cut.
    """

    strength: float
    """mu."""
    anchor: Mapping[str, Tensor]

    def add(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Add mu (theta - anchor) to the gradients that are there."""
        for name, parameter in parameters.items():
            if self.strength and parameter.grad is not None:
                parameter.grad.add_(parameter.detach() - self.anchor[name], alpha=self.strength)


@dataclass(frozen=True)
class Stretch:
    """Position of one round's steps in the learning-rate schedule."""

    first: int
    """The first step, from 0."""
    total: int
    """Steps of the whole schedule."""


def rate_factor(schedule: str, step: int, total: int, warmup: float = 0.0) -> float:
    """Return the factor of the learning rate in step ``step`` (from 0) of ``total`` over all rounds.

    >>> [rate_factor("linear", step, 4) for step in range(4)]
    [1.0, 0.75, 0.5, 0.25]
    >>> [rate_factor("constant", step, 8, warmup=0.25) for step in range(4)]
    [0.5, 1.0, 1.0, 1.0]
    """
    rising = warmup * total
    if step < rising:
        return min((step + 1) / rising, 1.0)
    share = min((step - rising) / max(total - rising, 1), 1.0)
    if schedule == "linear":
        return 1.0 - share
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * share))
    return 1.0


class LocalOptimizer:
    """torch's own optimizer over ``parameters``, with a state that can be put away and taken up again."""

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        training: scenario.Training,
        stretch: Stretch,
        state: OptimizerState,
        pull: Pull | None = None,
    ) -> None:
        self._parameters = dict(parameters)
        self._training = training
        self._at, self._total = stretch.first, stretch.total
        self._steps = state.steps
        self._pull = pull
        self._inner: torch.optim.Optimizer | None = None
        if parameters:
            kind = torch.optim.AdamW if training.optimizer == "adamw" else torch.optim.SGD
            self._inner = kind(list(parameters.values()), lr=training.learning_rate, weight_decay=training.weight_decay)
            for name, parameter in self._parameters.items():
                if f"{name}/{MOMENTS[0]}" in state.moments:
                    self._inner.state[parameter] = {
                        "step": torch.tensor(float(state.steps)),
                        **{moment: state.moments[f"{name}/{moment}"].clone() for moment in MOMENTS},
                    }

    def step(self) -> None:
        """One step with the gradients that the parameters hold; clears them."""
        if self._inner is not None:
            if self._pull is not None:
                self._pull.add(self._parameters)
            factor = rate_factor(self._training.schedule, self._at, self._total, self._training.warmup)
            for group in self._inner.param_groups:
                group["lr"] = self._training.learning_rate * factor
            self._inner.step()
            self._inner.zero_grad(set_to_none=True)
        self._steps += 1
        self._at += 1

    def state(self) -> OptimizerState:
        """A copy that does not change any more."""
        moments = {}
        for name, parameter in self._parameters.items():
            held = self._inner.state.get(parameter, {}) if self._inner is not None else {}
            moments.update({f"{name}/{moment}": held[moment].clone() for moment in MOMENTS if moment in held})
        return OptimizerState(self._steps, moments)
