"""Popularity of items among the users who train."""

import numpy as np
from jaxtyping import Float, Int

from pplr_audit.data.dataset import Split
from pplr_audit.data.ragged import take


def popularity_of(split: Split, users: Int[np.ndarray, "users"], items: int) -> Float[np.ndarray, "items"]:
    """Count how often each item stands among the training items of ``users``."""
    return np.bincount(take(split.train, users).values, minlength=items).astype(np.float64)
