"""Popularity of items among the users who train."""

import numpy as np
from jaxtyping import Float, Int

from pplr_audit.data.dataset import Split
from pplr_audit.data.ragged import take


def popularity_of(split: Split, users: Int[np.ndarray, "users"], items: int) -> Float[np.ndarray, "items"]:
    """How often the training items of ``users`` hold each item."""
    return np.bincount(take(split.train, users).values, minlength=items).astype(np.float64)
