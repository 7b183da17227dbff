"""RecBole atomic files: NAME.inter (or its train, valid and test parts), NAME.item and, where there, NAME.user."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pplr_audit.data.dataset import TEST, TRAIN, VALID, Dataset, Ragged
from pplr_audit.data.readers.catalogue import catalogue
from pplr_audit.data.readers.interactions import (
    Histories,
    attributes,
    histories,
    in_order,
    known_items,
    known_lists,
    one_after_the_other,
)
from pplr_audit.data.readers.text import Table, codes, column, fingerprint, numbers, quote, read_lines, read_table
from pplr_audit.errors import InputError

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
        items, index = catalogue(wares.table, "item_id", _title(wares.table), _categories(wares))
        events = [_read(part).table for part in parts]
        notes: dict[str, int] = {}
        taken, given = _histories(events[0], index, notes), None
        if len(parts) > 1:
            later = [histories(table, _user(table), "item_id", _timestamp(table), index) for table in events[1:]]
            taken, given = one_after_the_other((taken, *later), (TRAIN, VALID, TEST))
        for table in events:
            if "rating" in table.columns:
                numbers(table, "rating")
        sources = [events[0].source, wares.table.source, *(table.source for table in events[1:])]
        known: dict[str, tuple[str, ...]] = {}
        file = stem.with_name(f"{stem.name}.user")
        if file.exists():
            people = _read(file).table
            sources.append(people.source)
            known = attributes(people, "user_id", taken.users)
        return Dataset(
            name=stem.name,
            catalogue=items,
            users=taken.users,
            items=taken.items,
            given=given,
            attributes=known,
            digest=fingerprint(sources),
            notes=notes,
        )


def _histories(table: Table, index: Mapping[str, int], notes: dict[str, int]) -> Histories:
    if "item_id_list" not in table.columns:
        return histories(table, _user(table), "item_id", _timestamp(table), index)
    taken, notes["prefix_rows"] = _sequences(table, index)
    return taken


def _timestamp(table: Table) -> str | None:
    return "timestamp" if "timestamp" in table.columns else None


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


def _read(path: Path) -> Atomic:
    table = read_table(read_lines(path), "\t")
    typed = [name.rpartition(":") for name in table.columns]
    for (name, _, kind), written in zip(typed, table.columns, strict=True):
        if not name or kind not in TYPES:
            raise InputError(
                f"{table.source.at(0)}: the column {quote(written)} has no type (accepted: NAME:TYPE with TYPE one of "
                f"{', '.join(TYPES)})"
            )
    names = [name for name, _, _ in typed]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{table.source.at(0)}: the column {quote(twice)} is there twice (accepted: each once)")
    columns = dict(zip(names, table.columns.values(), strict=True))
    return Atomic(Table(table.source, columns, table.skipped), {name: kind for name, _, kind in typed})


def _user(table: Table) -> str:
    column(table, "user_id", "session_id")
    return "user_id" if "user_id" in table.columns else "session_id"


def _title(table: Table) -> str:
    """The column that holds the title; where none does, the name that the error will ask for."""
    named = [name for name in ("title", "movie_title") if name in table.columns]
    like = [name for name in table.columns if "title" in name.lower()]
    return next(iter([*named, *like, *(["name"] if "name" in table.columns else [])]), "title")


def _categories(wares: Atomic) -> list[str] | None:
    name = next((name for name in CATEGORIES if name in wares.table.columns), None)
    if name is None:
        return None
    values = wares.table.columns[name]
    if wares.types[name] != "token_seq":
        return values
    return ["|".join(value.split(" ")) for value in values]


def _sequences(table: Table, index: Mapping[str, int]) -> tuple[Histories, int]:
    """Of each user the longest row and its next item (of equally long rows the last), and how many rows fell away."""
    names = column(table, _user(table))
    users = in_order(set(names))
    targets = known_items(table, "item_id", index)
    lists = [text.split() for text in column(table, "item_id_list")]
    lengths, flat = known_lists(lists, index, table.at)
    ends = np.cumsum(lengths)
    owner = codes(names, {name: number for number, name in enumerate(users)})
    order = np.lexsort((np.arange(len(table)), lengths, owner))
    longest = order[np.flatnonzero(np.append(np.diff(owner[order]) > 0, True))]
    rows = [np.append(flat[ends[row] - lengths[row] : ends[row]], targets[row]) for row in longest]
    offsets = np.concatenate(([0], np.cumsum(lengths[longest] + 1))).astype(np.int64)
    return Histories(users, Ragged(offsets, np.concatenate(rows))), len(table) - len(users)
