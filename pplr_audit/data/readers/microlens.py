"""MicroLens: NAME_pairs.csv (user, item, timestamp) or NAME_pairs.tsv (user, items in order), and NAME_titles.csv."""

from pathlib import Path

import numpy as np
import polars as pl

from pplr_audit.data.dataset import Dataset
from pplr_audit.data.files.columns import Gathering, Table, named
from pplr_audit.data.files.delimited import Dialect, read_delimited
from pplr_audit.data.readers.catalogue import titled
from pplr_audit.data.readers.interactions import dataset, histories
from pplr_audit.errors import InputError

TITLES = ("_titles.csv", "_title_en.csv", "_title.csv")
PAIRS = ("_pairs.csv", "_pairs.tsv")
ACCEPTED = "NAME_pairs.csv or NAME_pairs.tsv with NAME_titles.csv"


class MicroLens:
    """Source: the page of the data set (Ni et al. 2023, arXiv 2309.15379) and the readme that comes with it."""

    def detect(self, path: Path) -> bool:
        """True if there is a file of pairs."""
        if path.is_dir():
            return any(file.name.endswith(PAIRS) for file in path.iterdir())
        return path.name.endswith((*PAIRS, *TITLES))

    def read(self, path: Path) -> Dataset:
        """Everything in the folder; where both forms of pairs are there, the one with times."""
        pairs = _pairs(path)
        name = _name(pairs)
        titles = next((file for end in TITLES if (file := pairs.with_name(name + end)).is_file()), None)
        if titles is None:
            raise InputError(f"{pairs.with_name(name + TITLES[0])}: no such file (accepted: {ACCEPTED})")
        wares = read_delimited(titles, Dialect())
        columns, line = wares.frame.columns, f"{titles}, line 1"
        ware, title = named(columns, line, "item", "video"), named(columns, line, "title")
        items, index, notes = titled(wares, ware, title, None)
        if pairs.suffix == ".tsv":
            table = _one_item_a_row(read_delimited(pairs, Dialect("\t", quoted=False, header=("user", "item"))))
        else:
            table = read_delimited(pairs, Dialect(), {"user": "id", "item": "id", "timestamp": "time"})
        time = "timestamp" if "timestamp" in table else None
        taken, left = histories(table, "user", "item", index, time=time, unknown="leave out")
        sources = [
            table.read_as({"user": "user", "item": "item", "timestamp": "time"}),
            wares.read_as({ware: "item", title: "title"}),
        ]
        return dataset(name, items, taken, sources, notes=notes | left)


def _one_item_a_row(table: Table) -> Table:
    lists = table.frame.with_columns(pl.col("item").str.strip_chars().str.split(" "))
    gathering = Gathering(table.source.path, {"user": "id", "item": "id"})
    line_of = np.repeat(np.arange(len(lists)), lists["item"].list.len().to_numpy())
    gathering.add(lists.explode("item"), 1, line_of)
    return gathering.table(table.source)


def _pairs(path: Path) -> Path:
    """The file of pairs that ``path`` is or belongs to; of a folder the only one, of both forms the one with times."""
    folder = path if path.is_dir() else path.parent
    found = {_name(file): file for file in sorted(folder.iterdir(), reverse=True) if file.name.endswith(PAIRS)}
    if not path.is_dir():
        if path.name.endswith(PAIRS):
            return path
        found = {name: file for name, file in found.items() if path.name.startswith(name)}
    if len(found) == 1:
        return next(iter(found.values()))
    names = ", ".join(sorted(file.name for file in found.values()))
    what = f"several files of pairs: {names}" if found else "no file of pairs"
    raise InputError(f"{path}: {what} (accepted: {ACCEPTED}, or the path of one of several)")


def _name(pairs: Path) -> str:
    return pairs.name.removesuffix(pairs.suffix).removesuffix("_pairs")
