"""Signatures of answers: gradients of auxiliary prompts, and linear maps that read from a sum of such what it answers.

To first order an update is the sum over a client's samples of their gradients at the model of the round's start. So a
linear map that takes a single sample's gradient to its answer takes an update to the number of samples with each
answer. Gradients name their labels (Zhao et al. 2020, *iDLG*, arXiv 2001.02610, section 3; sums of several are counted:
Geng et al. 2021, arXiv 2110.09074). The map is fitted by least squares with a penalty (ridge).

Each number of a gradient is divided by its usual size in a batch. That is what AdamW does in its steps, and for other
optimizers it is the whitening of independent numbers. Tensors are then made shorter by adding up numbers with random
signs (count sketch: Charikar, Chen and Farach-Colton 2002), which a sum goes through as it is.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pplr_audit.data.prompts import Prompt
from pplr_audit.threat_model.knowledge import Model

PENALTIES = tuple(10.0 ** (power / 2) for power in range(-6, 5))
"""Penalties tried, as shares of the mean of the squared singular values."""
FLOOR = 1e-3
"""Least square of a number's size, as a share of its tensor's mean: what hardly moves is not blown up."""
WIDTH = 8192
"""Numbers of a sketch, all tensors together."""
Sketches = Mapping[str, Float[Tensor, "*rows width"]]
"""Sketches by the name of their tensor: one, or several as rows."""


@dataclass(frozen=True)
class Sketch:
    """A linear map that makes named tensors shorter, each by itself, so that any part of an update can be read."""

    sizes: Mapping[str, Float[Tensor, "*shape"]]
    """The usual size of each number in a batch's gradient; 0 where there was none."""

    def of(self, tensors: Mapping[str, Tensor], *, scaled: bool) -> dict[str, Float[Tensor, "width"]]:
        """Return the sketches of tensors by name; unknown names are passed over.

        Args:
            scaled: divide each number by its usual size.
        """
        width = max(1, WIDTH // len(self.sizes))
        found = {}
        for name, size in self.sizes.items():
            if name in tensors:
                value = tensors[name].float()
                value = torch.where(size > 0, value / size if scaled else value, 0).flatten()
                found[name] = value if len(value) <= width else _folded(value, width)
        return found

    def of_all(self, updates: Iterable[Mapping[str, Tensor]], *, scaled: bool) -> "Sketches":
        """Return the sketches of several by name, one a row, as `of` makes each."""
        found: dict[str, list[Tensor]] = {}
        for tensors in updates:
            for name, value in self.of(tensors, scaled=scaled).items():
                found.setdefault(name, []).append(value)
        return {name: torch.stack(each) for name, each in found.items()}


def _folded(values: Float[Tensor, "numbers"], width: int) -> Float[Tensor, "width"]:
    places, signs = _folds(len(values), width)
    return torch.zeros(width).index_add_(0, places, values * signs)


@lru_cache(maxsize=64)
def _folds(numbers: int, width: int) -> tuple[Int[Tensor, "numbers"], Float[Tensor, "numbers"]]:
    """The place in the sketch that each number is added to, and its sign."""
    generator = torch.Generator().manual_seed(numbers)
    places = torch.randint(width, (numbers,), generator=generator)
    return places, torch.randint(2, (numbers,), generator=generator).float() * 2 - 1


def usual_sizes(model: Model, batches: Sequence[Sequence[Prompt]]) -> dict[str, Tensor]:
    """Return the root mean square of each number of a batch's gradient, never far below that of its tensor."""
    squares: dict[str, Tensor] = {}
    for prompts in batches:
        for name, value in model.gradients(prompts).items():
            squares[name] = squares.get(name, 0) + value.float().square() / len(batches)
    return {name: (each + FLOOR * each.mean()).sqrt() for name, each in squares.items()}


@dataclass(frozen=True)
class Reader:
    """A linear map from sketches to a number an item, which grows with the samples that answer with it."""

    names: Sequence[str]
    """Tensors, in the order of their numbers."""
    rows: Float[Tensor, "prompts numbers"]
    """Gradients of single prompts, centered."""
    weights: Float[Tensor, "prompts items"]

    def read(self, sketches: Sketches) -> Float[np.ndarray, "*rows items"]:
        """Return a number an item, up to a factor and an offset of each item's own."""
        found: np.ndarray = (_flat(sketches, self.names) @ self.rows.T @ self.weights).double().numpy()
        return found


def readers(
    sketches: Sketches, answers: Int[np.ndarray, "prompts"], items: int, shared: Sequence[Sketches]
) -> Iterator[Reader]:
    """Yield the readers that are fitted to single prompts, one for each of `PENALTIES`.

    Args:
        answers: the item that each prompt answers with.
        shared: directions from which nothing is read, such as what all updates have in common.
    """
    names = sorted(sketches)
    rows = _flat(sketches, names)
    rows = rows - rows.mean(0)
    aside = torch.linalg.qr(torch.stack([_flat(each, names) for each in shared], dim=1)).Q
    rows = rows - (rows @ aside) @ aside.T
    wanted = torch.nn.functional.one_hot(torch.from_numpy(answers), items).double()
    values, vectors = torch.linalg.eigh((rows @ rows.T).double())
    values, turned = values.clamp(min=0), vectors.T @ (wanted - wanted.mean(0))
    for share in PENALTIES:
        kept = values + share * values.mean() + 1e-30
        yield Reader(names, rows, (vectors @ (turned / kept[:, None])).float())


def _flat(sketches: Sketches, names: Sequence[str]) -> Float[Tensor, "*rows numbers"]:
    return torch.cat([sketches[name].float() for name in names], dim=-1)
