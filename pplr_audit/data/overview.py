"""What a source holds, before anyone trains on it."""

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from pplr_audit.data.dataset import Dataset
from pplr_audit.data.split import SHORTEST

COMMONEST = 5
"""Values of an attribute that are shown."""


def overview(dataset: Dataset) -> dict[str, Any]:
    """Counts, lengths, times, ratings, attributes, titles and what was left out, as JSON values.

    ``density`` is interactions over users times items; lengths are in items, times in UTC.
    """
    lengths, used = dataset.items.lengths, np.bincount(dataset.items.values, minlength=len(dataset.catalogue))
    titles = Counter(dataset.catalogue.titles)
    return {
        "name": dataset.name,
        "reader": dataset.reader or "none: the synthetic market",
        "files": [{"path": str(file.path), "encoding": file.encoding, "bytes": file.size} for file in dataset.sources],
        "users": len(dataset.users),
        "items": len(dataset.catalogue),
        "interactions": len(dataset.items.values),
        "density": len(dataset.items.values) / (len(dataset.users) * len(dataset.catalogue)),
        "items_without_interactions": int((used == 0).sum()),
        "history_length": _spread(lengths),
        "users_too_short_for_leave_one_out": int((lengths < SHORTEST).sum()),
        "item_popularity": _spread(used),
        "times": None if dataset.times is None else [_moment(dataset.times.min()), _moment(dataset.times.max())],
        "ratings": None if dataset.ratings is None else _ratings(dataset.ratings),
        "given_split": None if dataset.given is None else _purposes(dataset.given),
        "attributes": {name: _values(values) for name, values in dataset.attributes.items()},
        "titles": {
            "missing": dataset.notes.get("items_without_title", 0),
            "shared": sum(count for count in titles.values() if count > 1),
            "characters": _spread(np.array([len(title) for title in dataset.catalogue.titles])),
        },
        "with_category": sum(bool(each) for each in dataset.catalogue.categories),
        "notes": dict(dataset.notes),
    }


def _spread(values: Int[np.ndarray, "n"] | Float[np.ndarray, "n"]) -> dict[str, float]:
    values = values.astype(np.float64)
    return {
        # Ratings are held in float32: digits beyond its own would be made up.
        name: float(f"{value:.7g}")
        for name, value in (
            ("least", np.min(values)),
            ("median", np.median(values)),
            ("mean", np.mean(values)),
            ("most", np.max(values)),
        )
    }


def _ratings(ratings: Float[np.ndarray, "total"]) -> dict[str, float] | None:
    """None where no interaction has a rating."""
    there = ratings[~np.isnan(ratings)]
    missing = len(ratings) - len(there)
    return None if not len(there) else _spread(there) | ({"missing": missing} if missing else {})


def _moment(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(float(seconds), UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return f"{seconds:g}"


def _purposes(given: Int[np.ndarray, "total"]) -> dict[str, int]:
    return {name: int((given == part).sum()) for part, name in enumerate(("train", "valid", "test"))}


def _values(values: tuple[str, ...]) -> dict[str, Any]:
    known = Counter(value for value in values if value)
    return {
        "different": len(known),
        "unknown": len(values) - known.total(),
        "commonest": dict(known.most_common(COMMONEST)),
    }
