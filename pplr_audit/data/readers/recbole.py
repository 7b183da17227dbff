"""RecBole atomic files: NAME.inter (or its train, valid and test parts), NAME.item and, where there, NAME.user."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Int

from pplr_audit.data.dataset import TEST, TRAIN, VALID, Dataset, Ragged
from pplr_audit.data.files.by_suffix import HEAD
from pplr_audit.data.files.columns import ATTRIBUTE, Kind, Table, each_once, named
from pplr_audit.data.files.delimited import Dialect, columns_of, first_lines, head, read_delimited
from pplr_audit.data.files.ids import in_order
from pplr_audit.data.files.json_lines import levels
from pplr_audit.data.files.messages import listed, quote
from pplr_audit.data.files.time_columns import resolution
from pplr_audit.data.readers.catalogue import catalogue
from pplr_audit.data.readers.interactions import (
    Histories,
    attributes,
    dataset,
    histories,
    known_items,
    known_lists,
    one_after_the_other,
    with_titles,
)
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
PARTS = {"train": TRAIN, "valid": VALID, "test": TEST}
MISSING = frozenset(
    (
        "", "nan", "NaN", "-nan", "-NaN", "NA", "N/A", "n/a", "#N/A", "#N/A N/A", "#NA", "<NA>", "NULL", "null", "None",
        "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN",
    )
)  # fmt: skip
"""Texts that RecBole reads as missing: the default ``na_values`` of pandas' read_csv (its documentation, 2.2), among
them the str() of None and of NaN that RecBole's converters write. A film called "Nan" is none of them."""
ROLES: Mapping[str | None, str] = {
    "user_id": "user", "session_id": "user", "item_id": "item", "item_id_list": "items before it in order",
    "rating": "rating", "timestamp": "time",
}  # fmt: skip
TYPES = ("token", "token_seq", "float", "float_seq")
NAMED = ("name", "item_name", "movie_name", "app_name", "product_name")
"""Columns that hold the title where none says so."""
NO_SET = "et("
"""Text that the converter makes of an empty set of categories: ``str(set())[1:-1]``."""
CATEGORIES = ("class", "genre", "genres", "categories", "category")


@dataclass(frozen=True)
class Atomic:
    """A table whose header said ``name:type``."""

    table: Table
    types: Mapping[str, str]


class RecBole:
    """Tab separated, header ``name:type``. Source: RecBole, "Atomic Files"."""

    def detect(self, path: Path) -> bool:
        """True if ``path`` is an atomic file or a folder that holds an .inter."""
        if path.is_dir():
            return any(path.glob("*.inter"))
        return path.suffix in (".inter", ".item", ".user")

    def read(self, path: Path) -> Dataset:
        """One interaction a row, or one prefix and its next item a row. Raises InputError as every reader does.

        Where rows hold an item list, a user's rows are prefixes of one sequence: the longest and its next item are
        kept, and ``notes`` counts the others (``prefix_rows``). NAME.train.inter, NAME.test.inter and, where there,
        NAME.valid.inter are a given split; there each valid and test row adds its ``item_id``, and before it what its
        list holds beyond the items that the user has so far: history, which no part asks for.

        Interactions with an item that has no title, or that the item table does not have, are left out and counted.
        """
        stem, parts = _parts(path)
        wares = _read(_file(stem, "item"))
        line = f"{wares.table.source.path}, line 1"
        named(wares.table.frame.columns, line, "item_id")
        title = named(wares.table.frame.columns, line, _title(wares.table))
        items, index, notes = catalogue(wares.table, "item_id", title, _categories(wares), MISSING)
        events = {purpose: _read(part, EVENTS).table for purpose, part in parts.items()}
        tables = list(events.values())
        taken, given, prefixes = _all_parts(events, index)
        taken, given, left = with_titles(taken, given, len(items), str(tables[0].source.path))
        sources = [
            tables[0].read_as(ROLES),
            wares.table.read_as({_level(wares.table): "categories", "item_id": "item", title: "title"}),
            *(table.read_as(ROLES) for table in tables[1:]),
        ]
        known: dict[str, tuple[str, ...]] = {}
        file = _file(stem, "user")
        if file.exists():
            people = _read(file).table
            sources.append(people.read_as({"user_id": "user"}, ATTRIBUTE))
            named(people.frame.columns, f"{file}, line 1", "user_id")
            known = {
                name: tuple("" if value in MISSING else value for value in values)
                for name, values in attributes(people, "user_id", taken.users).items()
            }
        notes |= left | {"prefix_rows": prefixes}
        return dataset(stem.name, items, taken, sources, given=given, attributes=known, notes=notes)


def _parts(path: Path) -> tuple[Path, dict[int, Path]]:
    """The path of the set without its ending, and its .inter by purpose: one (TRAIN), or those of a given split."""
    if path.is_dir():
        found = sorted(path.glob("*.inter"))
        if not found:
            raise InputError(f"{path}: no .inter file in the folder (accepted: NAME.inter with NAME.item)")
        sets = [_set(file) for file in found]
        if any(set(parts.values()) != set(found) for _, parts in sets):
            names = ", ".join(file.name for file in found)
            raise InputError(
                f"{path}: several .inter files: {names} (accepted: the path of one of them, or NAME.train.inter and "
                "NAME.test.inter, with or without NAME.valid.inter)"
            )
        return sets[0]
    return _set(path)


def _set(path: Path) -> tuple[Path, dict[int, Path]]:
    """The set that an atomic file belongs to, as `_parts`."""
    stem = path.with_name(path.name.removesuffix(path.suffix))
    whole = {TRAIN: _file(stem, "inter")}
    if whole[TRAIN].exists() and _file(stem, "item").exists():
        return stem, whole
    shared = stem.with_suffix("") if path.suffix == ".inter" else stem
    found = {purpose: file for name, purpose in PARTS.items() if (file := _file(shared, f"{name}.inter")).exists()}
    if path.suffix == ".inter" and path not in found.values():
        # A part of any other name is read for itself, with the items that it shares.
        return shared if _file(shared, "item").exists() else stem, whole
    if not found:
        return stem, whole
    if len(found) > 1 and not {TRAIN, TEST} <= found.keys():
        names = ", ".join(file.name for file in found.values())
        raise InputError(f"{path}: {names} alone are no split (accepted: a NAME.train.inter and a NAME.test.inter)")
    return shared, found if len(found) > 1 else {TRAIN: next(iter(found.values()))}


def _file(stem: Path, ending: str) -> Path:
    return stem.with_name(f"{stem.name}.{ending}")


def _all_parts(
    events: Mapping[int, Table], index: Mapping[str, int]
) -> tuple[Histories, Int[np.ndarray, "total"] | None, int]:
    """The users and their items in all parts, -1 for one without a title; the split; how many rows were prefixes."""
    first, *later = events.values()
    if "item_id_list" not in first:
        taken, prefixes = _rows(first, index), 0
    else:
        taken, prefixes = _sequences(first, index)
    if not later:
        return taken, None, prefixes
    if any("item_id_list" in table for table in later):
        return _grown(taken, dict(list(events.items())[1:]), index, prefixes)
    return *one_after_the_other((taken, *(_rows(table, index) for table in later)), list(events)), prefixes


def _grown(
    taken: Histories, later: Mapping[int, Table], index: Mapping[str, int], prefixes: int
) -> tuple[Histories, Int[np.ndarray, "total"], int]:
    """Each user's items of the first part, and what the rows of later ones add, the shorter lists first."""
    items = {user: taken.items[row].tolist() for row, user in enumerate(taken.users)}
    purposes = {user: [TRAIN] * len(found) for user, found in items.items()}
    for purpose, table in later.items():
        for user, before, target in _by_length(table, index):
            known, marks = items.setdefault(user, []), purposes.setdefault(user, [])
            if before and known[: len(before) + 1] == [*before, target]:
                prefixes += 1
                continue
            if before[: len(known)] == known:
                marks += [TRAIN] * (len(before) - len(known))
                known += before[len(known) :]
            known.append(target)
            marks.append(purpose)
    lengths = [len(found) for found in items.values()]
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    values, given = (
        np.fromiter(chain.from_iterable(rows.values()), np.int64, int(offsets[-1])) for rows in (items, purposes)
    )
    return Histories(tuple(items), Ragged(offsets, values)), given, prefixes


def _by_length(table: Table, index: Mapping[str, int]) -> Iterator[tuple[str, list[int], int]]:
    """User, list and next item of each row, shorter lists first; without lists each user's items in time order."""
    if "item_id_list" not in table:
        taken = _rows(table, index)
        yield from ((user, [], item) for row, user in enumerate(taken.users) for item in taken.items[row].tolist())
        return
    names = table.ids[_user(table)].names
    owners, targets = table.codes(_user(table)), known_items(table, "item_id", index, "keep")
    lengths, flat = known_lists([text.split() for text in table.texts("item_id_list")], index, table.at, "keep")
    ends = np.cumsum(lengths)
    for row in np.argsort(lengths, kind="stable").tolist():
        yield names[owners[row]], flat[ends[row] - lengths[row] : ends[row]].tolist(), int(targets[row])


def _rows(table: Table, index: Mapping[str, int]) -> Histories:
    time, rating = (name if name in table else None for name in ("timestamp", "rating"))
    return histories(table, _user(table), "item_id", index, time=time, rating=rating, unknown="keep")[0]


def _refuse_other_times(path: Path, dialect: Dialect, taken: Collection[str]) -> None:
    """Raises InputError for times that are not called ``timestamp``: else the order of the rows would count."""
    first = head(path, dialect, HEAD)
    others = [name for name in first.columns if name not in taken and resolution(first[name]) is not None]
    if others:
        raise InputError(
            f"{path}, line 1: no column 'timestamp', and times in {listed(others)} (accepted: the time of each "
            "interaction as timestamp:float; or no such column, for the order of the rows)"
        )


def _read(path: Path, kinds: Mapping[str, Kind] | None = None) -> Atomic:
    """The columns that ``kinds`` names and the file has, or all of them as text."""
    dialect = replace(TABS, quoted=first_lines(path, TABS.encodings, 1)[0].startswith('"'))
    written = columns_of(path, dialect)
    typed = [name.rpartition(":") for name in written]
    for (name, _, kind), whole in zip(typed, written, strict=True):
        if not name or kind not in TYPES:
            raise InputError(
                f"{path}, line 1: the column {quote(whole)} has no type (accepted: NAME:TYPE with TYPE one of "
                f"{', '.join(TYPES)})"
            )
    names = [name for name, _, _ in typed]
    types = {name: kind for name, _, kind in typed}
    each_once(names, f"{path}, line 1")
    if kinds is not None:
        for needed in (("user_id", "session_id"), ("item_id",)):
            named(names, f"{path}, line 1", *needed)
        kinds = {name: kinds[name] for name in names if name in kinds}
    dialect = replace(dialect, header=names, titled=True)
    if kinds is not None and not kinds.keys() & {"timestamp", "item_id_list"}:
        _refuse_other_times(path, dialect, kinds)
    try:
        table = read_delimited(path, dialect, kinds)
    except InputError as error:
        # A tab or a line end in a field: then what stands in quotation marks has to fit everywhere.
        with suppress(InputError):
            return Atomic(read_delimited(path, replace(dialect, quoted=True), kinds), types)
        raise error
    return Atomic(table if dialect.quoted else _unquoted(table), types)


def _unquoted(table: Table) -> Table:
    """Fields without the quotation marks that pandas puts around those that hold one, where all are written so.

    RecBole's converter writes some files with pandas' ``to_csv`` and others by hand, where the marks are letters.
    """
    texts = [name for name, kind in table.frame.schema.items() if kind == pl.String]
    columns = [table.frame[name] for name in texts]
    marked = [column.filter(column.str.contains('"', literal=True)) for column in columns]
    doubled = any(column.str.contains('.""').any() for column in marked)
    if not doubled or not all(column.str.contains(r'^"(?:[^"]|"")*"$').all() for column in marked):
        return table
    bare = pl.col(texts).str.replace(r'^"((?s:.*))"$', "$1").str.replace_all('""', '"', literal=True)
    return replace(table, frame=table.frame.with_columns(bare))


def _user(table: Table) -> str:
    return "user_id" if "user_id" in table else "session_id"


def _title(table: Table) -> str:
    """The column that holds the title; where none does, the name that the error will ask for."""
    columns = table.frame.columns
    like = [name for name in columns if "title" in name.lower()]
    return next((name for name in ("title", "movie_title", *like, *NAMED) if name in columns), "title")


def _level(wares: Table) -> str | None:
    return next((name for name in CATEGORIES if name in wares), None)


def _categories(wares: Atomic) -> list[str] | None:
    name = _level(wares.table)
    if name is None:
        return None
    split = wares.types[name] == "token_seq"
    return ["" if value in (*MISSING, NO_SET) else _levels(value, split) for value in wares.table.texts(name)]


def _levels(value: str, split: bool) -> str:
    """Categories with ``|`` between: tokens with blanks between, or a Python set's items as the converter writes them.

    >>> _levels("Action Drama", True), _levels("'Video Games', 'PC'", True), _levels("Science Fiction", False)
    ('Action|Drama', 'Video Games|PC', 'Science Fiction')
    """
    if value.startswith(("'", '"')) and (found := levels(f"[{value}]")) != f"[{value}]":
        return found
    return "|".join(value.split(" ")) if split else value


def _sequences(table: Table, index: Mapping[str, int]) -> tuple[Histories, int]:
    """Return each user's longest row with its next item (of equals the last), and the count of dropped rows."""
    names = table.ids[_user(table)].names
    order = in_order(names)
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    owner = place[table.codes(_user(table))]
    targets = known_items(table, "item_id", index, "keep")
    lists = [text.split() for text in table.texts("item_id_list")]
    lengths, flat = known_lists(lists, index, table.at, "keep")
    ends = np.cumsum(lengths)
    by_length = np.lexsort((np.arange(len(table)), lengths, owner))
    longest = by_length[np.flatnonzero(np.append(np.diff(owner[by_length]) > 0, True))]
    rows = [np.append(flat[ends[row] - lengths[row] : ends[row]], targets[row]) for row in longest]
    offsets = np.concatenate(([0], np.cumsum(lengths[longest] + 1))).astype(np.int64)
    users = tuple(names[at] for at in order)
    return Histories(users, Ragged(offsets, np.concatenate(rows))), len(table) - len(users)
