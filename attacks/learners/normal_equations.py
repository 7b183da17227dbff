"""Ridge regression from sums that do not grow with the data, and the inverter it gives.

    W = (X'X + lambda I)^-1 X'Y        (both centered)

X'X and X'Y are summed up chunk by chunk in float64: with float32 the smaller lambdas would be lost in rounding. A row
of Y is the embedding of a word, and most positions repeat a word of the template: with S the sums of the rows of X by
word, X'Y = S'E over the words alone. One eigendecomposition of X'X then serves every lambda.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

STRENGTHS = (1e-8, 1e-6, 1e-4, 1e-2, 1.0)
"""Candidates for lambda, in units of the mean diagonal of X'X."""


class Inverter:
    """x -> (x - mean) W + mean of the embeddings."""

    def __init__(
        self, weight: Float[Tensor, "hidden hidden"], x_mean: Float[Tensor, "hidden"], y_mean: Float[Tensor, "hidden"],
        strength: float,
    ) -> None:  # fmt: skip
        self._weight, self._x_mean, self._y_mean, self.strength = weight, x_mean, y_mean, strength

    def __call__(self, x: Float[Tensor, "length hidden"]) -> Float[Tensor, "length hidden"]:
        return (x - self._x_mean) @ self._weight + self._y_mean

    def tensors(self) -> dict[str, Tensor]:
        """Return all that it consists of."""
        strength = torch.tensor(self.strength, dtype=torch.float64)
        return {"weight": self._weight, "x_mean": self._x_mean, "y_mean": self._y_mean, "strength": strength}


class NormalEquations:
    """X'X and X'Y, summed up. Hand in many positions at once: each call walks through both sums."""

    def __init__(self, hidden: int) -> None:
        self._xx = torch.zeros(hidden, hidden, dtype=torch.float64)
        self._xy = torch.zeros(hidden, hidden, dtype=torch.float64)
        self._x = torch.zeros(hidden, dtype=torch.float64)
        self._y = torch.zeros(hidden, dtype=torch.float64)
        self._n = 0

    def add(
        self,
        x: Float[Tensor, "positions hidden"],
        words: Int[Tensor, "positions"],
        table: Float[Tensor, "words hidden"],
    ) -> None:
        """Take in positions: ``words`` says which row of ``table`` is the y of each."""
        x = x.double()
        seen, places = words.unique(return_inverse=True)
        by_word = x.new_zeros(len(seen), x.shape[1]).index_add_(0, places, x)
        wanted = table[seen].double()
        self._xx.addmm_(x.T, x)
        self._xy.addmm_(by_word.T, wanted)
        self._x += x.sum(0)
        self._y += torch.bincount(places).double() @ wanted
        self._n += len(x)

    def solve(
        self,
        held: Float[Tensor, "positions hidden"],
        answers: Int[Tensor, "positions"],
        table: Float[Tensor, "words hidden"],
    ) -> Inverter:
        """The inverter whose lambda names most of the held-out tokens; the smallest one of equals.

        Args:
            answers: the row of ``table`` that each held-out position is of.
            table: embeddings of the words to choose from.
        """
        x_mean, y_mean = self._x / self._n, self._y / self._n
        centered = self._xx - self._n * torch.outer(x_mean, x_mean)
        cross = self._xy - self._n * torch.outer(x_mean, y_mean)
        values, vectors = torch.linalg.eigh(centered)
        values = values.clamp_min(0)
        rotated = vectors.T @ cross
        scale = float(values.mean()) or 1.0
        words = torch.nn.functional.normalize(table.float(), dim=1)
        best: tuple[float, Inverter] | None = None
        for strength in STRENGTHS:
            weight = (vectors @ (rotated / (values + strength * scale)[:, None])).float()
            inverter = Inverter(weight, x_mean.float(), y_mean.float(), strength)
            right = float((nearest(inverter(held.float()), words) == answers).float().mean())
            if best is None or right > best[0]:
                best = right, inverter
        assert best is not None
        return best[1]


def nearest(guess: Float[Tensor, "positions hidden"], words: Float[Tensor, "words hidden"]) -> Int[Tensor, "positions"]:
    """The row of ``words`` (each of length 1) with the highest cosine to each guess, whose own length cannot matter."""
    return (guess @ words.T).argmax(1)
