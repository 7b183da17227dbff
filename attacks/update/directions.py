"""Directions of an update: vectors in the span of what entered a linear layer, put together for layers of one input.

With y = W x, X all inputs of a batch (tokens, inputs) and D = dLoss/dY, the gradient of W is Dᵀ X: its rows lie in the
span of the inputs. With LoRA, W = W0 + s B A, that of A is s Bᵀ Dᵀ X and lies there, too; that of B is s Dᵀ X Aᵀ, whose
rows lie in the span of A x. A's is zero as long as B is, as in the first step from LoRA's usual start, and then B's
alone speaks (Hu et al. 2021, arXiv 2106.09685, equation 3; spans: Petrov et al. 2024, arXiv 2405.15586, section 4).

An update is the sum of steps, before - after. With SGD these are gradients times learning rates. AdamW divides each
number by a running size of its own, which bends the span: ranks are worth more than exact tests there.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pplr_audit.models.linears import Linear
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.outcomes import NotApplicable

Named = Mapping[str, Tensor]


@dataclass(frozen=True)
class Directions:
    """Rows in the span of what entered layers that read one tensor; each layer's have Frobenius norm 1 together."""

    shares: str
    """Name of the first of these layers."""
    layers: tuple[Linear, ...]
    rows: Float[Tensor, "rows width"]
    through: Float[Tensor, "width inputs"] | None = None
    """A, where the rows lie in the span of A x; None where they lie in that of x itself."""

    @property
    def block(self) -> int:
        return self.layers[0].block

    def placed(self, inputs: Float[Tensor, "*many inputs"]) -> Float[Tensor, "*many width"]:
        """Return inputs of these layers in the space that the rows lie in."""
        return inputs if self.through is None else inputs @ self.through.T.to(inputs)


def descent(update: Named, start: Named, knowledge: Knowledge, client: str, round_: int) -> dict[str, Tensor]:
    """Return an update without what weight decay did, in double precision; as it is where start or recipe are unknown.

    Decay leaves a share of 1 - learning rate x decay of the parameter in each step. This is exact for what did not move
    otherwise; what it moved by since is decayed, too, which changes the update by the square of the learning rate.
    """
    recipe, steps = knowledge.recipe, knowledge.steps.get((client, round_))
    found = {name: value.double() for name, value in update.items()}
    if recipe is None or steps is None or not recipe.weight_decay:
        return found
    rate = recipe.learning_rate * recipe.weight_decay
    total = 1 - math.prod(1 - rate * factor for factor in steps.factors)
    return {name: value - total * start[name].double() if name in start else value for name, value in found.items()}


def directions(update: Named, linears: Mapping[str, Linear], start: Named) -> list[Directions]:
    """Return the directions of an update, in the order in which the layers run.

    Args:
        update: tensors by absolute name; those of no linear layer are passed over.
        linears: the trained linear layers of the model.
        start: the adapter that the update started from, as far as it is known.

    Raises:
        NotApplicable: no linear layer is in the update, or all of it is zero.
    """
    groups: dict[str, list[tuple[Linear, Tensor]]] = {}
    alone: list[Directions] = []
    read = 0
    for linear in linears.values():
        tensors = [update.get(linear.lora_a), update.get(linear.lora_b), update.get(linear.weight)]
        read += sum(tensor is not None for tensor in tensors)
        of_a, of_b, whole = (_unless_zero(tensor) for tensor in tensors)
        if whole is not None:
            groups.setdefault(linear.shares, []).append((linear, whole.T if linear.transposed else whole))
        elif of_a is not None:
            groups.setdefault(linear.shares, []).append((linear, of_a))
        elif of_b is not None and linear.lora_a in start:
            alone.append(Directions(linear.shares, (linear,), _one(of_b), start[linear.lora_a].double()))
    together = [
        Directions(name, tuple(each for each, _ in part), torch.cat([_one(rows) for _, rows in part]))
        for name, part in groups.items()
    ]
    if not together and not alone:
        raise NotApplicable(_nothing(read, [each for each in linears.values() if each.lora_b], start))
    place = {name: number for number, name in enumerate(linears)}
    return sorted(together + alone, key=lambda each: place[each.layers[0].name])


def _nothing(read: int, lora: Sequence[Linear], start: Named) -> str:
    if not read:
        return "no linear layer's tensors are in this update"
    if lora and all(each.lora_b in start and not start[each.lora_b].any() for each in lora):
        return "all of the update is zero: LoRA's B was zero at the start, and A does not move before B has"
    return "all of the update is zero: nothing was learned from any sample"


def _unless_zero(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None or not tensor.any() else tensor.double()


def _one(rows: Float[Tensor, "rows width"]) -> Float[Tensor, "rows width"]:
    one: Tensor = rows / rows.norm()
    return one
