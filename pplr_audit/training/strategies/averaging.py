"""Averages of adapters: factor by factor, or by the products B A that they stand for.

Averaging A and B apart from each other is not averaging what they do: mean(B) mean(A) is not mean(B A) unless all
clients have one A or one B (Sun et al. 2024, FFA-LoRA, arXiv 2403.12313, section 3). ``product`` averages B A and takes
the best factors of the same rank r, by truncated SVD (Eckart & Young 1936), module by module. With w_j the weights,

    sum_j w_j B_j A_j = [w_1 B_1 ... w_n B_n] [A_1; ...; A_n] = P Q^T = U S V^T,    B' = U_r S_r / c,    A' = c V_r^T

c gives A' the mean row norm of the clients' A, since the steps of B scale with A. The dense product, as large as the
weight itself, is never formed. What the truncation leaves out is sqrt(sum of the other S^2) in Frobenius norm.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pplr_audit.training.strategies.balance import mix, similarity_of_dots

How = Literal["factors", "product"]


def averaged(
    snapshot: Sequence[Mapping[str, Tensor]], matrix: Float[np.ndarray, "receivers clients"], how: How
) -> list[dict[str, Tensor]]:
    """One new adapter a row of ``matrix``, from the frozen ``snapshot``; what is no LoRA factor is averaged as is."""
    mixed = mix(snapshot, matrix)
    if how == "product":
        for name_a, name_b in factor_names(snapshot[0]):
            a = [adapter[name_a].double() for adapter in snapshot]
            b = [adapter[name_b].double() for adapter in snapshot]
            for row, result in zip(matrix, mixed, strict=True):
                if np.count_nonzero(row) > 1:  # else there is nothing to average: its own factors stay, to the bit
                    new_a, new_b = averaged_product(a, b, row)
                    result[name_a] = new_a.to(snapshot[0][name_a].dtype)
                    result[name_b] = new_b.to(snapshot[0][name_b].dtype)
    return mixed


def factor_names(adapter: Mapping[str, Tensor]) -> list[tuple[str, str]]:
    """The names of A and B of each LoRA layer.

    >>> factor_names({"q.lora_A.default.weight": 0, "q.lora_B.default.weight": 0, "norm.weight": 0})
    [('q.lora_A.default.weight', 'q.lora_B.default.weight')]
    """
    pairs = ((name, name.replace(".lora_A.", ".lora_B.")) for name in adapter if ".lora_A." in name)
    return [(a, b) for a, b in pairs if b in adapter]


def averaged_product(
    a: Sequence[Float[Tensor, "rank in"]], b: Sequence[Float[Tensor, "out rank"]], weights: Float[np.ndarray, "clients"]
) -> tuple[Float[Tensor, "rank in"], Float[Tensor, "out rank"]]:
    """A' and B' whose product is the best of rank r to the weighted sum of the products; in float64.

    Rows of A' are orthogonal and of one length. Where the sum has a lower rank than r, the columns of B' that are left
    are zero and their rows of A' are directions of the clients' own A, as at LoRA's start: they can still learn.
    """
    rank = a[0].shape[0]
    wide = torch.cat([float(w) * factor for w, factor in zip(weights, b, strict=True)], dim=1)
    basis, rest = torch.linalg.qr(torch.cat(list(a)).T)
    # sum_j w_j B_j A_j = wide (basis rest)^T: an SVD of out x (n r) instead of out x in.
    left, values, right = torch.linalg.svd(wide @ rest.T, full_matrices=True)
    right = right[:rank]
    # A singular vector's sign is the library's choice; fix it, so that equal products have equal factors.
    largest = (right @ basis.T).gather(1, (right @ basis.T).abs().argmax(dim=1, keepdim=True))
    sign = torch.where(largest < 0, -1.0, 1.0).to(right)
    length = torch.stack([factor.norm() for factor in a]).mean() / rank**0.5
    kept = min(rank, len(values))
    new_b = torch.zeros_like(b[0])
    noise = values[0] * 1e-12 if len(values) else 0.0
    strong = torch.where(values[:kept] > noise, values[:kept], 0.0)
    new_b[:, :kept] = left[:, :kept] * strong / length * sign[:kept, 0]
    return length * sign * (right @ basis.T), new_b


def products(
    adapter: Mapping[str, Tensor], update: Mapping[str, Tensor] | None = None
) -> list[tuple[Float[Tensor, "out _"], Float[Tensor, "_ in"]]]:
    """Return each module's change as P Q: B A, or with ``update`` (before - after) the round's change of it.

    B_0 A_0 - B A = [B_0 -B] [A_0; A], and whatever is no LoRA factor stands as one column beside the number 1.
    """
    pairs, found = factor_names(adapter), []
    for name_a, name_b in pairs:
        a, b = adapter[name_a].double(), adapter[name_b].double()
        if update is None:
            found.append((b, a))
        else:
            old_a, old_b = a + update[name_a].double(), b + update[name_b].double()
            found.append((torch.cat([old_b, -b], dim=1), torch.cat([old_a, a])))
    rest = update if update is not None else adapter
    one = torch.ones(1, 1, dtype=torch.float64)
    lone = sorted(set(adapter) - {name for pair in pairs for name in pair})
    return found + [(rest[name].double().reshape(-1, 1), one) for name in lone]


def product_similarity(
    factors: Sequence[Sequence[tuple[Float[Tensor, "out _"], Float[Tensor, "_ in"]]]],
) -> Float[np.ndarray, "clients clients"]:
    """(cosine + 1) / 2 between clients, each given as a list of low-rank matrices P Q, one for every module.

    <P_i Q_i, P_j Q_j> = trace((P_i^T P_j) (Q_j Q_i^T)), so no dense matrix is formed; zero matrices count as alike.
    """
    count = len(factors)
    dots = np.zeros((count, count))
    for i in range(count):
        for j in range(i, count):
            for (p, q), (other_p, other_q) in zip(factors[i], factors[j], strict=True):
                dots[i, j] += float(((p.T @ other_p) * (q @ other_q.T)).sum())
            dots[j, i] = dots[i, j]
    return similarity_of_dots(dots)
