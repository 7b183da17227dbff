"""Distances between an update and what candidates would have given, tensor by tensor.

``l2`` is that of DLG (Zhu et al. 2019, arXiv 1906.08935, equation 4), ``l1`` adds absolute differences as TAG does
(Deng et al. 2021, arXiv 2103.06819, equation 3), with one weight for all layers, and ``cosine`` is the mean over
tensors of LAMP (Balunovic et al. 2022, arXiv 2202.08827, equation 3). A tensor whose update is zero says nothing.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity

Distance = Literal["cosine", "l2", "l1"]
DISTANCES: tuple[Distance, ...] = ("cosine", "l2", "l1")
ABSOLUTE = 0.01
"""Weight of absolute differences beside squared ones."""


def distance(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], kind: Distance = "cosine") -> Float[Tensor, ""]:
    """Return how far ``found`` is from ``wanted``, over the tensors of the latter that are not zero; differentiable.

    ``cosine`` lies between 0 and 2, whatever the lengths. The others are shares of what ``wanted`` itself would give.

    Raises ValueError where no such tensor is in both.
    """
    both = [(found[name], each) for name, each in wanted.items() if name in found and bool(each.any())]
    pairs = [(own.flatten().double(), each.flatten().double()) for own, each in both]
    if not pairs:
        raise ValueError("no tensor that is not zero is in both")
    if kind == "cosine":
        return 1 - torch.stack([cosine_similarity(own, each, dim=0) for own, each in pairs]).mean()
    apart = torch.stack([_size(own - each, kind) for own, each in pairs]).sum()
    return apart / torch.stack([_size(each, kind) for _, each in pairs]).sum()


def _size(values: Float[Tensor, "numbers"], kind: Distance) -> Float[Tensor, ""]:
    squared = values.square().sum()
    return squared + ABSOLUTE * values.abs().sum() if kind == "l1" else squared
