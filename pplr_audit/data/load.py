"""The scenario's data section made into a dataset."""

import warnings
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from pplr_audit import scenario
from pplr_audit.data.dataset import Dataset
from pplr_audit.data.files.archive import inside_of, unzipped
from pplr_audit.data.files.columns import OtherColumns
from pplr_audit.data.filters import filtered
from pplr_audit.data.ragged import places, take
from pplr_audit.data.readers.protocol import Reader
from pplr_audit.data.synthetic import market
from pplr_audit.errors import InputError
from pplr_audit.scenario import plugins
from pplr_audit.scenario.paths import expanded
from pplr_audit.scenario.seeds import derive

TABLE = "table"
"""The reader of plain tables, whose columns the settings name."""


def load(data: scenario.Data, seed: int) -> Dataset:
    """The synthetic market, or what the named or the detected reader finds at ``data.path`` (a folder or a file in it).

    Of more than ``data.users`` users that many are kept, chosen uniformly by ``seed``, in their old order; the
    catalogue stays whole. Raises InputError for a path that is not there or that no reader, or more than one, knows.
    """
    dataset = market(data.market, seed) if data.path == "synthetic" else read(data.path, data.reader)
    dataset = filtered(dataset, min_rating=data.min_rating, duplicates=data.duplicates, core=data.core)
    if data.users is None or data.users >= len(dataset.users):
        return dataset
    return _some_users(dataset, data.users, seed)


def read(source: str, reader: scenario.Named) -> Dataset:
    """Read ``source`` unfiltered; ``auto`` takes the only reader that knows the form.

    Raises InputError for a path that is not there or that no reader, or more than one, knows, and as readers do.
    """
    path = expanded(source, "data.path")
    if not path.exists():
        raise InputError(f"data.path: {path}: no such file or folder (accepted: a folder, a file in it, or synthetic)")
    with unzipped(path) if path.is_file() and path.suffix.lower() == ".zip" else nullcontext(path) as place:
        found = _read_detected(place) if reader == "auto" else _read_by(reader, place)
    if place == path:
        return found
    # What a zip holds stands elsewhere only while it is read.
    return replace(found, sources=tuple(replace(file, path=inside_of(path, file.path)) for file in found.sources))


def _read_by(reader: scenario.Named, path: Path) -> Dataset:
    return replace(_reader(reader).read(path), reader=plugins.name_and_settings(reader)[0])


def _read_detected(path: Path) -> Dataset:
    """Read by the reader that knows the names of the files.

    Where their columns are others than it expects, the error also says how to read them as plain tables. They are not
    read so without being asked: a damaged file of a known data set would be taken for something else.
    """
    name = detected(path)
    try:
        return _read_by(name, path)
    except OtherColumns as error:
        if name == TABLE or not _reader(TABLE).detect(path):
            raise
        raise InputError(
            f"{error}; the reader {name} was chosen by the file names (for other tables: data.reader: "
            f"{{{TABLE}: {{items: FILE}}}}, with the columns that have unusual names)"
        ) from None


def detected(path: Path) -> str:
    """The name of the reader that knows what is at ``path``. Raises InputError where none does, or several do.

    A reader that is broken is named in a warning, and the others are asked.
    """
    fitting: dict[str, Reader] = {}
    for name in plugins.names("readers"):
        try:
            reader = _reader(name)
        except InputError as error:
            warnings.warn(str(error), stacklevel=2)
            continue
        if reader.detect(path):
            fitting[name] = reader
    special = [name for name, each in fitting.items() if not getattr(each, "general", False)]
    found = special or list(fitting)
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"data.reader: {path} fits more than one reader (accepted here: {', '.join(found)})")
    forms = "; ".join(f"{name}: {line.rstrip('.')}" for name, line in plugins.describe("readers").items())
    raise InputError(f"data.path: no reader knows {path}, which {_content(path)} (accepted: {forms})")


def _reader(named: scenario.Named) -> Reader:
    return cast(Reader, plugins.make("readers", named, "data.reader"))


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
    return dataset.narrowed(chosen, items, positions, {"users_left_out": len(dataset.users) - count})
