"""Gradients of single samples, the way that works for every model: one forward pass, and one backward pass a sample.

Rows of a batch do not depend on each other in any of the models here, so the gradient of sample i is what comes back
where the gradients of all other rows are zero. It takes as many backward passes as there are samples; a defense that
knows the layers can bring something faster (`Defense.per_sample`).
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn


class RowByRow:
    """A `PerSample` that keeps the gradient of every sample."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self._parameters = dict(parameters)
        self._found: dict[str, Tensor] = {}  # (batch, *shape)

    def clear(self) -> None:
        self._found = {}

    def backward(
        self, output: Float[Tensor, "batch *rest"], gradient: Float[Tensor, "batch *rest"], entered: Tensor | None
    ) -> Tensor | None:
        held = list(self._parameters.values())
        if not output.requires_grad or not (held or entered is not None):
            return None
        wanted = held if entered is None else [*held, entered]
        # All rows at once, first: whoever looks on sees one backward pass a step, and then the rows apart.
        whole = torch.autograd.grad(output, wanted, gradient, retain_graph=True, allow_unused=True)
        for row in range(len(gradient) if held else 0):
            alone = torch.zeros_like(gradient)
            alone[row] = gradient[row]
            found = torch.autograd.grad(output, held, alone, retain_graph=row < len(gradient) - 1, allow_unused=True)
            for (name, parameter), value in zip(self._parameters.items(), found, strict=True):
                if value is not None:
                    if name not in self._found:
                        self._found[name] = value.new_zeros((len(gradient), *parameter.shape))
                    self._found[name][row] += value
        return None if entered is None else whole[-1]

    def squared_norms(self) -> dict[str, Float[Tensor, "batch"]]:
        return {name: value.flatten(1).double().square().sum(1) for name, value in self._found.items()}

    def weighted_sum(self, weights: Float[Tensor, "batch"] | Mapping[str, Float[Tensor, "batch"]]) -> dict[str, Tensor]:
        def of(name: str, parameter: nn.Parameter) -> Tensor:
            if name not in self._found:
                return torch.zeros_like(parameter)
            own = weights[name] if isinstance(weights, Mapping) else weights
            total: Tensor = torch.tensordot(own.to(parameter.dtype), self._found[name], dims=1)
            return total

        return {name: of(name, parameter) for name, parameter in self._parameters.items()}

    def close(self) -> None:
        self.clear()


class NoSamples:
    """A `PerSample` of an empty batch: no norms, and sums that are zero."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self._parameters = dict(parameters)

    def clear(self) -> None:
        """Nothing is held."""

    def backward(self, output: Tensor, gradient: Tensor, entered: Tensor | None) -> Tensor | None:
        raise RuntimeError("an empty batch has no backward pass")

    def squared_norms(self) -> dict[str, Float[Tensor, "0"]]:
        return {name: torch.zeros(0, dtype=torch.float64) for name in self._parameters}

    def weighted_sum(self, weights: object) -> dict[str, Tensor]:
        del weights
        return {name: torch.zeros_like(parameter) for name, parameter in self._parameters.items()}

    def close(self) -> None:
        """Nothing is held."""
