"""RecBole atomic files: NAME.inter (or its train, valid and test parts), NAME.item and, where there, NAME.user."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pplr_audit.data.dataset import TEST, TRAIN, VALID, Dataset, Ragged
from pplr_audit.data.readers.catalogue import catalogue
from pplr_audit.data.readers.delimited import Dialect, columns_of, read_delimited
from pplr_audit.data.readers.ids import in_order
from pplr_audit.data.readers.interactions import (
    Histories,
    attributes,
    dataset,
    histories,
    known_items,
    known_lists,
    one_after_the_other,
)
from pplr_audit.data.readers.tables import Kind, Table, each_once, named
from pplr_audit.data.readers.wording import quote
from pplr_audit.errors import InputError

TABS = Dialect("\t", quoted=False)
EVENTS: Mapping[str, Kind] = {
    "user_id": "id",
    "session_id": "id",
    "item_id": "id",
    "item_id_list": "text",
    "rating": "number",
    "timestamp": "time",
}
TYPES = ("token", "token_seq", "float", "float_seq")
CATEGORIES = ("class", "genre", "genres", "categories", "category")


@dataclass(frozen=True)
class Atomic:
    """A table whose header said ``name:type``."""

    table: Table
    types: Mapping[str, str]


class RecBole:
    """Tab separated, header ``name:type``. Source: RecBole, "Atomic Files"."""

    def detect(self, path: Path) -> bool:
        """Whether ``path`` is an atomic file or a folder that holds an .inter."""
        if path.is_dir():
            return any(path.glob("*.inter"))
        return path.suffix in (".inter", ".item", ".user")

    def read(self, path: Path) -> Dataset:
        """One interaction a row, or one prefix and its next item a row. Raises InputError as every reader does.

        Where rows hold an item list, a user's rows are prefixes of one sequence: the longest and its next item are
        kept, and ``notes`` counts the others (``prefix_rows``). NAME.train.inter, NAME.valid.inter and NAME.test.inter
        are a given split; there the valid and test rows add their ``item_id``.
        """
        parts = _inter(path)
        stem = parts[0].parent / parts[0].name.removesuffix(".inter").removesuffix(".train")
        wares = _read(stem.with_name(f"{stem.name}.item"))
        line = f"{wares.table.source.path}, line 1"
        named(wares.table.frame.columns, line, "item_id")
        title = named(wares.table.frame.columns, line, _title(wares.table))
        items, index = catalogue(wares.table, "item_id", title, _categories(wares))
        events = [_read(part, EVENTS).table for part in parts]
        notes: dict[str, int] = {}
        taken, given = _histories(events[0], index, notes), None
        if len(parts) > 1:
            later = [_rows(table, index) for table in events[1:]]
            taken, given = one_after_the_other((taken, *later), (TRAIN, VALID, TEST))
        sources = [events[0].source, wares.table.source, *(table.source for table in events[1:])]
        known: dict[str, tuple[str, ...]] = {}
        file = stem.with_name(f"{stem.name}.user")
        if file.exists():
            people = _read(file).table
            sources.append(people.source)
            named(people.frame.columns, f"{file}, line 1", "user_id")
            known = attributes(people, "user_id", taken.users)
        return dataset(stem.name, items, taken, sources, given=given, attributes=known, notes=notes)


def _histories(table: Table, index: Mapping[str, int], notes: dict[str, int]) -> Histories:
    if "item_id_list" not in table:
        return _rows(table, index)
    taken, notes["prefix_rows"] = _sequences(table, index)
    return taken


def _rows(table: Table, index: Mapping[str, int]) -> Histories:
    time, rating = (name if name in table else None for name in ("timestamp", "rating"))
    taken, _ = histories(table, _user(table), "item_id", index, time=time, rating=rating)
    return taken


def _inter(path: Path) -> list[Path]:
    """The one .inter file, or the three of a given split."""
    if not path.is_dir():
        stem = path.name.removesuffix(path.suffix)
        return [path.with_name(f"{stem}.inter")]
    found = sorted(path.glob("*.inter"))
    if len(found) == 1:
        return found
    if not found:
        raise InputError(f"{path}: no .inter file in the folder (accepted: NAME.inter with NAME.item)")
    name = found[0].name.removesuffix(".inter").rpartition(".")[0]
    parts = [path / f"{name}.{part}.inter" for part in ("train", "valid", "test")]
    if name and found == sorted(parts):
        return parts
    names = ", ".join(file.name for file in found)
    raise InputError(
        f"{path}: several .inter files: {names} (accepted: the path of one of them, or NAME.train.inter, "
        "NAME.valid.inter and NAME.test.inter)"
    )


def _read(path: Path, kinds: Mapping[str, Kind] | None = None) -> Atomic:
    """The columns that ``kinds`` names and the file has, or all of them as text."""
    written = columns_of(path, TABS)
    typed = [name.rpartition(":") for name in written]
    for (name, _, kind), whole in zip(typed, written, strict=True):
        if not name or kind not in TYPES:
            raise InputError(
                f"{path}, line 1: the column {quote(whole)} has no type (accepted: NAME:TYPE with TYPE one of "
                f"{', '.join(TYPES)})"
            )
    names = [name for name, _, _ in typed]
    each_once(names, f"{path}, line 1")
    if kinds is not None:
        for needed in (("user_id", "session_id"), ("item_id",)):
            named(names, f"{path}, line 1", *needed)
        kinds = {name: kinds[name] for name in names if name in kinds}
    table = read_delimited(path, replace(TABS, header=names, titled=True), kinds)
    return Atomic(table, {name: kind for name, _, kind in typed})


def _user(table: Table) -> str:
    return "user_id" if "user_id" in table else "session_id"


def _title(table: Table) -> str:
    """The column that holds the title; where none does, the name that the error will ask for."""
    columns = table.frame.columns
    usual = [name for name in ("title", "movie_title") if name in columns]
    like = [name for name in columns if "title" in name.lower()]
    return next(iter([*usual, *like, *(["name"] if "name" in columns else [])]), "title")


def _categories(wares: Atomic) -> list[str] | None:
    name = next((name for name in CATEGORIES if name in wares.table), None)
    if name is None:
        return None
    values = wares.table.texts(name)
    if wares.types[name] != "token_seq":
        return values
    return ["|".join(value.split(" ")) for value in values]


def _sequences(table: Table, index: Mapping[str, int]) -> tuple[Histories, int]:
    """Of each user the longest row and its next item (of equally long rows the last), and how many rows fell away."""
    names = table.ids[_user(table)].names
    order = in_order(names)
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    owner = place[table.codes(_user(table))]
    targets = known_items(table, "item_id", index)
    lists = [text.split() for text in table.texts("item_id_list")]
    lengths, flat = known_lists(lists, index, table.at)
    ends = np.cumsum(lengths)
    by_length = np.lexsort((np.arange(len(table)), lengths, owner))
    longest = by_length[np.flatnonzero(np.append(np.diff(owner[by_length]) > 0, True))]
    rows = [np.append(flat[ends[row] - lengths[row] : ends[row]], targets[row]) for row in longest]
    offsets = np.concatenate(([0], np.cumsum(lengths[longest] + 1))).astype(np.int64)
    users = tuple(names[at] for at in order)
    return Histories(users, Ragged(offsets, np.concatenate(rows))), len(table) - len(users)
