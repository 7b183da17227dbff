"""Overview of a source before anyone trains on it."""

import re
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from pplr_audit.data.dataset import Dataset, Ragged, Source
from pplr_audit.data.ragged import row_of
from pplr_audit.data.split import SHORTEST

MARKUP = re.compile(r"</?[a-z][^<>]*>|<!--|&(?:[a-z]+|#\d+|#x[0-9a-f]+);", re.IGNORECASE)
CONTROL = re.compile(
    r"<\|[^<>|]*\|>|</?s>|<(?:pad|bos|eos|unk|mask|cls|sep|start_of_turn|end_of_turn|image|0x[0-9A-F]{2})>"
    r"|\[/?(?:INST|CLS|SEP|PAD|MASK|UNK)\]|<</?SYS>>",
)
"""Tokens as Llama, GPT-2, Qwen, Gemma, Mistral, T5 and BERT write them."""
SHOWN, LONGEST = 3, 10
"""Titles that are shown of a kind, and items of a history."""
COMMONEST = 5
"""Values of an attribute that are shown."""


def overview(dataset: Dataset, *, examples: bool) -> dict[str, Any]:
    """Counts, lengths, times, ratings, attributes, titles and what was left out, as JSON values.

    ``density`` is interactions over users times items; lengths are in items, times in UTC. ``time_ties`` is the share
    of interactions at the same time as another one of the same user: their order is that of the rows.

    Args:
        examples: with the histories of three users, titles with markup and with control tokens, and values of
            attributes that only one user has.
    """
    lengths, used = dataset.items.lengths, np.bincount(dataset.items.values, minlength=len(dataset.catalogue))
    titles = Counter(dataset.catalogue.titles)
    return {
        "name": dataset.name,
        "reader": dataset.reader or "none: the synthetic market",
        "files": [_file(file) for file in dataset.sources],
        "users": len(dataset.users),
        "items": len(dataset.catalogue),
        "interactions": len(dataset.items.values),
        "density": len(dataset.items.values) / (len(dataset.users) * len(dataset.catalogue)),
        "items_without_interactions": int((used == 0).sum()),
        "history_length": _spread(lengths),
        "users_too_short_for_leave_one_out": int((lengths < SHORTEST).sum()),
        "item_popularity": _spread(used),
        "times": None if dataset.times is None else [_moment(dataset.times.min()), _moment(dataset.times.max())],
        "time_ties": None if dataset.times is None else _ties(dataset.times, dataset.items),
        "ratings": None if dataset.ratings is None else _ratings(dataset.ratings),
        "given_split": None if dataset.given is None else _purposes(dataset.given),
        "attributes": {name: _values(values, examples) for name, values in dataset.attributes.items()},
        "titles": {
            "missing": dataset.notes.get("items_without_title", 0),
            **_suspect(dataset.catalogue.titles, examples),
            "shared": sum(count for count in titles.values() if count > 1),
            "characters": _spread(np.array([len(title) for title in dataset.catalogue.titles])),
        },
        "with_category": sum(bool(each) for each in dataset.catalogue.categories),
        "notes": dict(dataset.notes),
        **({"examples": _examples(dataset)} if examples else {}),
    }


def _file(file: Source) -> dict[str, Any]:
    """Describe a file: its form, what its columns were read as, and which were not used."""
    return {
        "path": str(file.path),
        "encoding": file.encoding,
        "bytes": file.size,
        "columns": {name: role for name, role in file.columns.items() if role},
        "unused": [name for name, role in file.columns.items() if not role],
    }


def _ties(times: Float[np.ndarray, "total"], items: Ragged) -> float:
    same = (np.diff(times) == 0) & (np.diff(row_of(items)) == 0)
    return float(f"{(np.append(same, False) | np.append(False, same)).mean():.4g}")


def _suspect(titles: tuple[str, ...], examples: bool) -> dict[str, Any]:
    """Count the titles that hold markup, and those with what a tokenizer may take for a control token."""
    tokens = [title for title in titles if CONTROL.search(title)]
    markup = [title for title in titles if MARKUP.search(CONTROL.sub("", title))]
    counts: dict[str, Any] = {"with_markup": len(markup), "with_control_tokens": len(tokens)}
    return counts | ({"suspect": [*markup[:SHOWN], *tokens[:SHOWN]]} if examples and (markup or tokens) else {})


def _examples(dataset: Dataset) -> list[dict[str, Any]]:
    """The first, the middle and the last user, with the first items of each."""
    found = []
    for user in sorted({0, len(dataset.users) // 2, len(dataset.users) - 1}):
        start, length = int(dataset.items.offsets[user]), len(dataset.items[user])
        history = []
        for at in range(start, start + min(length, LONGEST)):
            item = int(dataset.items.values[at])
            history.append({"item": dataset.catalogue.ids[item], "title": dataset.catalogue.titles[item]})
            if dataset.times is not None:
                history[-1]["time"] = _moment(dataset.times[at])
        found.append({"user": dataset.users[user], "length": length, "first": history})
    return found


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


def _values(values: tuple[str, ...], examples: bool) -> dict[str, Any]:
    known = Counter(value for value in values if value)
    return {
        "different": len(known),
        "unknown": len(values) - known.total(),
        # A value of one user alone, an address say, is that user.
        "commonest": {value: count for value, count in known.most_common(COMMONEST) if examples or count > 1},
    }
