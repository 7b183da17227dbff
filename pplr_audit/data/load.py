"""The scenario's data section made into a dataset."""

from pathlib import Path
from typing import cast

import numpy as np

from pplr_audit import plugins, scenario
from pplr_audit.data.dataset import Dataset
from pplr_audit.data.ragged import places, take
from pplr_audit.data.readers.protocol import Reader
from pplr_audit.data.synthetic import market
from pplr_audit.errors import InputError
from pplr_audit.paths import expanded
from pplr_audit.seeds import derive


def load(data: scenario.Data, seed: int) -> Dataset:
    """The synthetic market, or what the named or the detected reader finds at ``data.path`` (a folder or a file in it).

    Of more than ``data.users`` users that many are kept, chosen uniformly by ``seed``, in their old order; the
    catalogue stays whole. Raises InputError for a path that is not there or that no reader, or more than one, knows.
    """
    dataset = market(data.market, seed) if data.path == "synthetic" else _read(data)
    if data.users is None or data.users >= len(dataset.users):
        return dataset
    return _some_users(dataset, data.users, seed)


def _read(data: scenario.Data) -> Dataset:
    path = expanded(data.path, "data.path")
    if not path.exists():
        raise InputError(f"data.path: {path}: no such file or folder (accepted: a folder, a file in it, or synthetic)")
    if data.reader != "auto":
        return _reader(data.reader).read(path)
    fitting = [name for name in plugins.names("readers") if _reader(name).detect(path)]
    if len(fitting) == 1:
        return _reader(fitting[0]).read(path)
    if fitting:
        raise InputError(f"data.reader: {path} fits more than one reader (accepted here: {', '.join(fitting)})")
    forms = "; ".join(f"{name}: {line.rstrip('.')}" for name, line in plugins.describe("readers").items())
    raise InputError(f"data.path: no reader knows {path}, which {_content(path)} (accepted: {forms})")


def _reader(name: str) -> Reader:
    return cast(Reader, plugins.load("readers", name)())


def _content(path: Path) -> str:
    if not path.is_dir():
        return "is a file of another kind"
    names = sorted(entry.name for entry in path.iterdir())
    if not names:
        return "is an empty folder"
    return f"holds {', '.join(names[:8])}{f' and {len(names) - 8} more' if len(names) > 8 else ''}"


def _some_users(dataset: Dataset, count: int, seed: int) -> Dataset:
    rng = np.random.default_rng(derive(seed, "users"))
    chosen = np.sort(rng.choice(len(dataset.users), count, replace=False))
    items, positions = take(dataset.items, chosen), places(dataset.items, chosen)
    return Dataset(
        name=dataset.name,
        catalogue=dataset.catalogue,
        users=tuple(dataset.users[user] for user in chosen),
        items=items,
        given=None if dataset.given is None else dataset.given[positions],
        attributes={name: tuple(values[user] for user in chosen) for name, values in dataset.attributes.items()},
        digest=dataset.digest,
        notes={**dataset.notes, "users_left_out": len(dataset.users) - count},
        # What is best for all users is not what is best for some of them.
        best_recall=None,
    )
