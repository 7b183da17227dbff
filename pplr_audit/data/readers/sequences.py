"""Sequences with an item table: items.tsv and "user item item ..." lines, or sequences.tsv with a test item."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Int

from pplr_audit.data.dataset import TEST, TRAIN, VALID, Dataset, Ragged, Source
from pplr_audit.data.files.columns import ATTRIBUTE, Table, named, unique
from pplr_audit.data.files.delimited import UNIT_SEPARATOR, Dialect, read_delimited
from pplr_audit.data.files.messages import quote
from pplr_audit.data.ragged import group
from pplr_audit.data.readers.catalogue import catalogue
from pplr_audit.data.readers.interactions import (
    Histories,
    attributes,
    dataset,
    known_lists,
    one_after_the_other,
    with_titles,
)
from pplr_audit.errors import InputError

PLAIN, WHOLE = "sequences.txt", "sequences.tsv"
ITEM = ("item_id", "title")
LEVELS = ("categories", "genres")
ROLES: Mapping[str | None, str] = {
    "line": "user, then items in order",
    "user_id": "user",
    "complete": "split",
    "history": "items in order",
    "test_item": "item of the test",
}
TABS = Dialect("\t", quoted=False)
LINES = Dialect(UNIT_SEPARATOR, quoted=False, header=("line",))
PARTS = {"sequential_train.txt": TRAIN, "sequential_valid.txt": VALID, "sequential_test.txt": TEST}


@dataclass(frozen=True)
class Rows:
    """Content of the sequence files: users in the order met, their items in time order, the split if one is given."""

    users: tuple[str, ...]
    items: Ragged
    given: Int[np.ndarray, "total"] | None


class Sequences:
    """Three forms: ``sequences.txt``; ``sequential_{train,valid,test}.txt``; ``sequences.tsv``.

    Each with an ``items.tsv``: a header with item_id, title and, where there, categories or genres; others are ignored.
    ``users.tsv``, where there, has a header with user_id; its other columns are attributes.
    """

    def detect(self, path: Path) -> bool:
        """True if there is a sequence file under one of the three names."""
        if not path.is_dir() and path.name not in (PLAIN, WHOLE, *PARTS, "items.tsv", "users.tsv"):
            return False
        return any((_folder(path) / name).is_file() for name in (PLAIN, WHOLE, *PARTS))

    def read(self, path: Path) -> Dataset:
        """Everything in the folder. Raises InputError as every reader does, and if it holds two of the three forms."""
        folder = _folder(path)
        wares = read_delimited(folder / "items.tsv", TABS)
        item, title = (named(wares.frame.columns, f"{folder / 'items.tsv'}, line 1", name) for name in ITEM)
        level = next((name for name in LEVELS if name in wares), None)
        kinds = None if level is None else wares.texts(level)
        items, index, notes = catalogue(wares, item, title, kinds)
        # Those without a title are known all the same: they are left out, where an unknown id is refused. Here ids
        # are the numbers of lines as a rule, and where one is too high all may be shifted.
        index |= {name: len(wares) for name in wares.texts(item) if name not in index}
        form = _form(folder, path)
        if form == WHOLE:
            tables = [read_delimited(folder / WHOLE, TABS)]
            rows = _whole(tables[0], index)
        elif form == PLAIN:
            tables = [read_delimited(folder / PLAIN, LINES)]
            rows = _plain(tables[0], index)
        else:
            tables = [read_delimited(folder / name, LINES) for name in PARTS]
            rows = _parts(tables, index)
        taken, given, left = with_titles(
            Histories(rows.users, rows.items), rows.given, len(items), str(wares.source.path)
        )
        known: dict[str, tuple[str, ...]] = {}
        about: list[Source] = []
        if (folder / "users.tsv").exists():
            people = read_delimited(folder / "users.tsv", TABS)
            named(people.frame.columns, f"{folder / 'users.tsv'}, line 1", "user_id")
            known = attributes(people, "user_id", taken.users)
            about = [people.read_as({"user_id": "user"}, ATTRIBUTE)]
        sources = [wares.read_as({item: "item", title: "title", level: "categories"})]
        sources += [table.read_as(ROLES) for table in tables]
        name = folder.resolve().name
        return dataset(name, items, taken, [*sources, *about], given=given, attributes=known, notes=notes | left)


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent if path.suffix in (".txt", ".tsv") else path


def _form(folder: Path, path: Path) -> str:
    """The form of the file that ``path`` names; for a folder, the only form in it."""
    if not path.is_dir() and path.name in (PLAIN, WHOLE, *PARTS):
        return path.name
    found = [name for name in (PLAIN, WHOLE) if (folder / name).exists()]
    if any((folder / name).exists() for name in PARTS):
        found.append(next(iter(PARTS)))
    if len(found) == 1:
        return found[0]
    what = f"several forms: {', '.join(found)}" if found else "no sequence file"
    raise InputError(f"{folder}: {what} (accepted: one of {PLAIN}, {WHOLE}, sequential_{{train,valid,test}}.txt)")


def _plain(lines: Table, index: Mapping[str, int]) -> Rows:
    users, items = _lines(lines, index)
    empty = np.flatnonzero(items.lengths == 0)
    if len(empty):
        row = int(empty[0])
        raise InputError(f"{lines.at(row)}: empty user {quote(users[row])} (accepted: a user and at least one item)")
    return Rows(users, items, None)


def _parts(parts: list[Table], index: Mapping[str, int]) -> Rows:
    taken, given = one_after_the_other([Histories(*_lines(lines, index)) for lines in parts], list(PARTS.values()))
    return Rows(taken.users, taken.items, given)


def _whole(table: Table, index: Mapping[str, int]) -> Rows:
    for name in ("user_id", "complete", "history", "test_item"):
        named(table.frame.columns, f"{table.source.path}, line 1", name)
    users = tuple(table.texts("user_id"))
    complete = np.array(table.texts("complete"))
    wrong = np.flatnonzero((complete != "0") & (complete != "1"))
    if len(wrong):
        row = int(wrong[0])
        raise InputError(f"{table.at(row)}: complete is {quote(str(complete[row]))} (accepted: 0 or 1)")
    unique(table, "user_id")
    lengths, before = known_lists([text.split() for text in table.texts("history")], index, table.at)
    if lengths.min() == 0:
        row = int(np.argmin(lengths))
        raise InputError(f"{table.at(row)}: empty user {quote(users[row])} (accepted: at least one item in history)")
    _, tests = known_lists([[name] for name in table.texts("test_item")], index, table.at)
    owner = np.concatenate([np.repeat(np.arange(len(users)), lengths), np.arange(len(users))])
    purpose = np.full(len(owner), TRAIN)
    # Where the second-last item is missing, the last of the history is an ordinary training item.
    purpose[(np.cumsum(lengths) - 1)[complete == "1"]] = VALID
    purpose[len(before) :] = TEST
    items = group(owner, np.concatenate([before, tests]), len(users))
    return Rows(users, items, group(owner, purpose, len(users)).values)


def _lines(lines: Table, index: Mapping[str, int]) -> tuple[tuple[str, ...], Ragged]:
    """The users, one a line, and the items of each. Raises InputError for an empty line or a user met twice."""
    rows = [line.split() for line in lines.texts("line")]
    if not all(rows):
        raise InputError(f"{lines.at(rows.index([]))}: an empty line (accepted: a user, then items)")
    users = [row[0] for row in rows]
    unique(replace(lines, frame=pl.DataFrame({"user": users})), "user")
    lengths, values = known_lists([row[1:] for row in rows], index, lines.at)
    return tuple(users), Ragged(np.concatenate(([0], np.cumsum(lengths))).astype(np.int64), values)
