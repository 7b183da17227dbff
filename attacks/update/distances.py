"""Distances between an update and what candidates would have given, tensor by tensor.

``l2`` is that of DLG (Zhu et al. 2019, arXiv 1906.08935, equation 4), ``l1`` adds absolute differences as TAG does
(Deng et al. 2021, arXiv 2103.06819, equation 3), with its larger weights for layers in front, and ``cosine`` is the
mean over tensors of LAMP (Balunovic et al. 2022, arXiv 2202.08827, equation 3). A tensor whose update is zero says
nothing.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity

from pplr_audit.models.linears import Linear

Distance = Literal["cosine", "l2", "l1"]
DISTANCES: tuple[Distance, ...] = ("cosine", "l2", "l1")
ABSOLUTE = 0.01
"""Weight of absolute differences beside squared ones, in the first layer."""


def by_layer(linears: Iterable[Linear], depth: int) -> dict[str, float]:
    """Return TAG's share of `ABSOLUTE` for each tensor of these layers, by name: the earlier the layer, the larger.

    The paper asks for weights that fall with the layer and gives no formula; here they fall on a line, from 1 in the
    first block by 1 / (depth + 1) a block. What stands in front of all blocks has 1, too, and what stands behind them
    (the head) has 1 / (depth + 1).

    Args:
        depth: blocks of the model.
    """
    return {
        name: 1 - max(linear.block, 0) / (depth + 1)
        for linear in linears
        for name in (linear.lora_a, linear.lora_b, linear.weight)
        if name
    }


def distance(
    found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], kind: Distance = "cosine",
    weights: Mapping[str, float] | None = None,
) -> Float[Tensor, ""]:  # fmt: skip
    """Return how far ``found`` is from ``wanted``, over the tensors of the latter that are not zero; differentiable.

    ``cosine`` lies between 0 and 2, whatever the lengths. The others are shares of what ``wanted`` itself would give.

    Args:
        weights: shares of `ABSOLUTE` by the tensor's name, as `by_layer` has them; 1 where there is none. Of ``l1``
            alone.

    Raises ValueError where no such tensor is in both.
    """
    names = [name for name, each in wanted.items() if name in found and bool(each.any())]
    pairs = [(found[name].flatten().double(), wanted[name].flatten().double()) for name in names]
    if not pairs:
        raise ValueError("no tensor that is not zero is in both")
    if kind == "cosine":
        return 1 - torch.stack([cosine_similarity(own, each, dim=0) for own, each in pairs]).mean()
    absolute = [ABSOLUTE * (weights or {}).get(name, 1.0) if kind == "l1" else 0.0 for name in names]
    apart = torch.stack([_size(own - each, a) for (own, each), a in zip(pairs, absolute, strict=True)]).sum()
    return apart / torch.stack([_size(each, a) for (_, each), a in zip(pairs, absolute, strict=True)]).sum()


def _size(values: Float[Tensor, "numbers"], absolute: float) -> Float[Tensor, ""]:
    squared = values.square().sum()
    return squared + absolute * values.abs().sum() if absolute else squared
