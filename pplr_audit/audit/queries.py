"""Queries put to a model, side by side where that is allowed: log-probabilities of answers."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from jaxtyping import Float
from torch import Tensor

from pplr_audit.data.prompts import Prompt
from pplr_audit.models.recommenders.task import CatalogueEncoding
from pplr_audit.models.uncut import UncutModel
from pplr_audit.training.side_by_side import side_by_side, width


def asked(
    whole: UncutModel, prompts: Sequence[Prompt], adapter: Mapping[str, Tensor] | None,
    encoding: CatalogueEncoding | None = None,
) -> list[Float[np.ndarray, "answer"]]:  # fmt: skip
    """Return the same as `UncutModel.log_probs`, to the bit, however many are asked at a time."""
    batches = whole.task.query_batches(prompts)
    at_once = width(len(batches))
    if at_once < 2:
        return whole.log_probs(prompts, adapter, encoding)
    encoding = whole.encoding(adapter) if encoding is None else encoding
    parts = [np.concatenate(batches[number::at_once]) for number in range(at_once)]
    tasks = [partial(whole.log_probs, [prompts[row] for row in rows], adapter, encoding) for rows in parts]
    found = dict[int, Float[np.ndarray, "answer"]]()
    for rows, answers in zip(parts, side_by_side(tasks), strict=True):
        found |= dict(zip(rows.tolist(), answers, strict=True))
    return [found[row] for row in range(len(prompts))]
