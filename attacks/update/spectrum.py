"""The span of a gradient's rows as far as rounding and noise let it be seen, and how likely a vector lies in it.

The gradient Dᵀ X of a linear layer has rows in the span of its inputs X (Petrov et al. 2024, arXiv 2405.15586, section
4). What is received is Dᵀ X + E, where E is rounding, or noise that was added. Both are told from the spectrum: the
largest singular value of a matrix of independent entries is at most about the largest norm of a row and the largest of
a column together, whatever the entries' variances (Bandeira and van Handel 2016, arXiv 1408.6185, theorem 1.1). So the
rank is the smallest one from which on all that is left obeys that.

Noise turns each direction by an angle that follows from its singular value (Benaych-Georges and Nadakuditi 2012, arXiv
1103.2221, section 3.1): so it is known for each vector of the span how far from the seen span it should be. This
distance is what a candidate's is compared with, and no fixed one.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

FREEDOM = 4.0
"""Degrees of freedom by which the noise level is trusted: rounding is neither independent nor of one size, so what is
twice as far as expected is still likely, and what is ten times as far is not."""
COARSEST = torch.finfo(torch.bfloat16).eps / 2
"""Relative rounding of one number in the coarsest arithmetic of training. If an entry's noise is rounding, then what
entered was rounded by as much, and a candidate lies as far from it; up to this it may be, whatever the noise is."""


@dataclass(frozen=True)
class Span:
    """The rows' span of one matrix."""

    basis: Float[Tensor, "rank width"]
    """Orthonormal, the strongest direction first."""
    values: Float[Tensor, "rank"]
    """Singular values of these directions."""
    turned: Float[Tensor, "rank"]
    """Expected square of the sine of the angle between each direction and its true span."""
    noise: float
    """Standard deviation of an entry's noise; 0 where all directions are taken for signal."""
    rows: int
    """Rows of the matrix."""
    rounding: float
    """Relative distance of a candidate from what entered in training, by rounding."""

    @property
    def rank(self) -> int:
        """Number of directions above the noise."""
        return len(self.basis)

    @property
    def width(self) -> int:
        """Number of a vector's entries."""
        return int(self.basis.shape[1])

    @property
    def rounded(self) -> bool:
        """True if the noise is no more than what the coarsest arithmetic rounds off."""
        return self.rounding < COARSEST

    @property
    def whole(self) -> bool:
        """True if the matrix has room for more directions, so that all inputs that count lie in the span seen."""
        return self.rank < min(self.rows, self.width)

    def distances(self, vectors: Float[Tensor, "*many width"]) -> Float[Tensor, "*many"]:
        """Return the distance of each vector to the span as a share of its norm: 0 inside, 1 at right angles."""
        vectors = vectors.to(self.basis)
        norms = vectors.norm(dim=-1).clamp(min=torch.finfo(vectors.dtype).tiny)
        along = vectors @ self.basis.T
        distances: Tensor = (vectors - along @ self.basis).norm(dim=-1) / norms
        return distances

    def log_odds(self, vectors: Float[Tensor, "*many width"]) -> Float[Tensor, "*many"]:
        """Return how much likelier each vector is in the span than elsewhere, as a natural logarithm.

        Where the span is `whole`, a vector of it has a square distance around what the noise lets expect (an F
        distribution; nearer is as good). Elsewhere is anywhere: half at a direction drawn at random, half at any order
        of magnitude. Else vectors of the true span lie partly outside of the one seen, nobody knows how far, and the
        answer is the surprise at as small a distance for a direction drawn at random. Of no direction it is 0.
        """
        vectors = vectors.to(self.basis)
        squared = vectors.square().sum(-1).clamp(min=torch.finfo(vectors.dtype).tiny)
        along = vectors @ self.basis.T
        if not self.rank:
            return torch.zeros_like(squared)
        outside = ((vectors - along @ self.basis).square().sum(-1) / squared).clamp(min=1e-300)
        if not self.whole:
            return _surprise(outside, self.rank, self.width)
        free = self.width - self.rank
        expected = free / self.width * (along.square() @ self.turned) / squared + self.rounding**2
        over = (outside / expected).log().clamp(min=0.0)  # nearer than expected speaks for it as well
        near = _log_f(over, float(free), FREEDOM)
        orders = (1 / expected).log().clamp(min=1.0)
        random = _log_beta_of_log(outside, free / 2, self.rank / 2)
        return near - torch.logaddexp(random, -orders.log()) + math.log(2)

    def sketch(self, size: int, seed: int = 0) -> Float[Tensor, "size width"]:
        """Return random vectors at right angles to the span; the mean of their squared products with a vector is an
        estimate of its squared distance, which costs less than the distance where the rank is high.
        """
        drawn = torch.randn(size, self.width, generator=torch.Generator().manual_seed(seed), dtype=self.basis.dtype)
        return drawn - (drawn @ self.basis.T) @ self.basis


def span(matrix: Float[Tensor, "rows width"], precision: float | None = None) -> Span:
    """Return the span of a matrix's rows, with its rank and noise told from its spectrum.

    What is rounded off a product of ``width`` numbers is about √width times what one number is rounded by (Higham and
    Mary 2019, SIAM J. Sci. Comput. 41, theorem 3.1); directions below that count as none. A matrix of fewer rows than
    columns has too few directions to tell noise from signal by: all others count. One direction too many costs little,
    one too few hides a token.

    Args:
        precision: distance of 1 to the next number, of the numbers that the matrix was computed in; by default its own.
    """
    unit = (torch.finfo(matrix.dtype).eps if precision is None else precision) / 2
    rows, width = matrix.shape
    rounding = math.sqrt(width) * unit
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    rank = int((values > rounding * values[:1]).sum())
    if rows >= width:
        above = (values > _edges(left, values, right)).nonzero()
        signal = int(above[-1]) + 1 if len(above) else 0
        rank = min(rank, signal if signal < width - 1 else width)  # one direction alone is no floor of noise
    left_over = float(values[rank:].square().sum())
    noise = math.sqrt(left_over / max(1, (rows - rank) * (width - rank)))
    kept, typical = values[:rank], max(float(values.norm()) / math.sqrt(rows * width), 1e-300)
    blurred = math.hypot(rounding, min(noise / typical, COARSEST))
    return Span(right[:rank].contiguous(), kept, _turned(kept, noise, rows, width), noise, rows, blurred)


def _edges(
    left: Float[Tensor, "rows size"], values: Float[Tensor, "size"], right: Float[Tensor, "size width"]
) -> Float[Tensor, "size"]:
    """Return for each singular value the largest one that noise would have, were all that is smaller noise.

    What is taken off has taken its share of the noise with it, in rows and in columns. Behind the last one is nothing.
    """
    (rows, _), (_, width), taken = left.shape, right.shape, torch.arange(1, len(values))
    by_row = (left * values).square().flip(1).cumsum(1).flip(1).max(0).values[1:] * rows / (rows - taken)
    by_column = (right * values[:, None]).square().flip(0).cumsum(0).flip(0).max(1).values[1:] * width / (width - taken)
    return torch.cat([by_row.sqrt() + by_column.sqrt(), torch.full_like(values[:1], torch.inf)])


def _turned(values: Float[Tensor, "rank"], noise: float, rows: int, width: int) -> Float[Tensor, "rank"]:
    """Return 1 - cos² of the angle between each right singular vector that is seen and the true one.

    In units of noise · √width, with β = rows / width: a value y that is seen was x, y² = (1 + x²)(β + x²) / x², and
    cos² = (x⁴ - β) / (x⁴ + x²) for the side of length width (Benaych-Georges and Nadakuditi, section 3.1).
    """
    if noise == 0:
        return torch.zeros_like(values)
    beta = rows / width
    seen = (values / (noise * math.sqrt(width))).square()
    middle = seen - 1 - beta
    true = (middle + (middle.square() - 4 * beta).clamp(min=0).sqrt()) / 2  # x²
    cosine = (true.square() - beta) / (true.square() + true).clamp(min=1e-300)
    turned = torch.where(true > 1e6 * max(1.0, beta), (beta + true) / (true.square() + true), 1 - cosine)
    return turned.clamp(0.0, 1.0)


def _log_f(log_ratio: Float[Tensor, "*many"], first: float, second: float) -> Float[Tensor, "*many"]:
    """Return the log-density of the logarithm of a variable with an F distribution."""
    ratio = first / second
    constant = math.lgamma((first + second) / 2) - math.lgamma(first / 2) - math.lgamma(second / 2)
    tail = torch.nn.functional.softplus(log_ratio + math.log(ratio))
    return constant + first / 2 * (log_ratio + math.log(ratio)) - (first + second) / 2 * tail


def _log_beta_of_log(value: Float[Tensor, "*many"], first: float, second: float) -> Float[Tensor, "*many"]:
    """Return the log-density of the logarithm of a variable with a Beta distribution."""
    constant = math.lgamma(first + second) - math.lgamma(first) - math.lgamma(second)
    return constant + first * value.log() + (second - 1) * torch.log1p(-value.clamp(max=1 - 1e-12))


def _surprise(outside: Float[Tensor, "*many"], rank: int, width: int) -> Float[Tensor, "*many"]:
    """Return minus the logarithm of the chance (by Chernoff's bound) that a random direction is as near to a span.

    Its share inside has a Beta(rank / 2, (width - rank) / 2) distribution.
    """
    inside, part = (1 - outside).clamp(min=1e-300), rank / width
    found = rank * (part / inside).log() + (width - rank) * ((1 - part) / outside).log()
    return torch.where(inside > part, found / 2, torch.zeros_like(found))
