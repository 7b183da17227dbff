"""The dynamic balance of PPLR (arXiv 2402.09959): who learns how much from whom.

For clients i, j with adapter parameters theta and training losses L, in round t = 1, 2, ...:

    S_ij = (cos(theta_i, theta_j) + 1) / 2                                   similarity
    l    = softmax(L / tau)                                                  learning status
    w_i  = tanh(alpha / l_i^(t / beta))                                      learning speed
    theta_i <- (theta_i + w_i sum_{j != i} S_ij theta_j) / (1 + w_i sum_{j != i} S_ij)

All of it is read from one frozen snapshot, so the order of the clients cannot matter.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor


def similarity(vectors: Sequence[Mapping[str, Tensor]]) -> Float[np.ndarray, "clients clients"]:
    """S, from one set of tensors a client, summed in float64 name by name."""
    count = len(vectors)
    dots = np.zeros((count, count))
    for name in sorted(vectors[0]):
        rows = np.stack([v[name].double().flatten().numpy() for v in vectors])
        dots += rows @ rows.T
    return similarity_of_dots(dots)


def similarity_of_dots(dots: Float[np.ndarray, "clients clients"]) -> Float[np.ndarray, "clients clients"]:
    """S from the scalar products of all pairs."""
    norms = np.sqrt(np.diag(dots))
    lengths = np.outer(norms, norms)
    # Two clients that have not moved at all (zero vectors) point the same way as far as anyone can tell.
    cosine = np.divide(dots, lengths, out=np.ones_like(dots), where=lengths > 0)
    result = (np.clip(cosine, -1, 1) + 1) / 2
    np.fill_diagonal(result, 1.0)
    return np.asarray(result)


def learning_status(losses: Sequence[float], tau: float) -> Float[np.ndarray, "clients"]:
    """l: softmax over clients of the training loss / tau. A client that is behind has a larger l.

    >>> learning_status([1.0, 1.0], tau=0.05)
    array([0.5, 0.5])
    """
    scaled = np.asarray(losses, dtype=np.float64) / tau
    weights = np.exp(scaled - scaled.max())
    return np.asarray(weights / weights.sum())


def learning_speed(
    status: Float[np.ndarray, "clients"], round_: int, *, alpha: float, beta: float
) -> Float[np.ndarray, "clients"]:
    """w: how much each client takes from the others in round ``round_`` (from 1); in (0, 1].

    >>> learning_speed(np.array([1.0, 0.25]), 5, alpha=0.7, beta=5).round(4)
    array([0.6044, 0.9926])
    """
    with np.errstate(divide="ignore", over="ignore"):
        return np.asarray(np.tanh(alpha * np.exp(-(round_ / beta) * np.log(status))))


def mixing_matrix(
    similarity: Float[np.ndarray, "clients clients"], speed: Float[np.ndarray, "clients"]
) -> Float[np.ndarray, "clients clients"]:
    """M with theta_i <- sum_j M_ij theta_j: rows sum to one."""
    weights = speed[:, None] * similarity
    np.fill_diagonal(weights, 1.0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def mix(
    snapshot: Sequence[Mapping[str, Tensor]], matrix: Float[np.ndarray, "receivers clients"]
) -> list[dict[str, Tensor]]:
    """One new set of tensors a row of ``matrix``, from the frozen ``snapshot``, which is left as it is.

    Summed in float64 in the order of the clients' values, which makes it exact enough that permuting the clients
    changes nothing but the last bit of a float32.
    """
    mixed: list[dict[str, Tensor]] = [{} for _ in matrix]
    for name in snapshot[0]:
        stacked = [tensors[name].double() for tensors in snapshot]
        for row, result in zip(matrix, mixed, strict=True):
            total = sum(float(weight) * tensor for weight, tensor in zip(row, stacked, strict=True))
            result[name] = total.to(snapshot[0][name].dtype)  # type: ignore[union-attr]
    return mixed
