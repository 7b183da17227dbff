"""Sequences with an item table: items.tsv and "user item item ..." lines, or sequences.tsv with a test item."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from pplr_audit.data.dataset import TEST, TRAIN, VALID, Dataset, Ragged
from pplr_audit.data.ragged import group
from pplr_audit.data.readers.catalogue import catalogue
from pplr_audit.data.readers.interactions import Histories, attributes, known_items, known_lists, one_after_the_other
from pplr_audit.data.readers.text import Lines, Table, column, fingerprint, quote, read_lines, read_table, unique
from pplr_audit.errors import InputError

PLAIN, WHOLE = "sequences.txt", "sequences.tsv"
PARTS = {"sequential_train.txt": TRAIN, "sequential_valid.txt": VALID, "sequential_test.txt": TEST}


@dataclass(frozen=True)
class Rows:
    """What the sequence files say: users in the order met, their items in time order, the split if one is given."""

    users: tuple[str, ...]
    items: Ragged
    given: Int[np.ndarray, "total"] | None


class Sequences:
    """Three forms: ``sequences.txt``; ``sequential_{train,valid,test}.txt``; ``sequences.tsv``.

    Each with an ``items.tsv``: a header with item_id, title and, where there, categories or genres; others are ignored.
    ``users.tsv``, where there, has a header with user_id; its other columns are attributes.
    """

    def detect(self, path: Path) -> bool:
        """Whether there is a sequence file under one of the three names."""
        return any((_folder(path) / name).is_file() for name in (PLAIN, WHOLE, *PARTS))

    def read(self, path: Path) -> Dataset:
        """Everything in the folder. Raises InputError as every reader does, and if it holds two of the three forms."""
        folder = _folder(path)
        wares = read_table(read_lines(folder / "items.tsv"), "\t")
        named = next((wares.columns[name] for name in ("categories", "genres") if name in wares.columns), None)
        items, index = catalogue(wares, "item_id", "title", named)
        sources = [wares.source]
        form = _form(folder, path)
        if form == WHOLE:
            table = read_table(read_lines(folder / WHOLE), "\t")
            sources.append(table.source)
            rows = _whole(table, index)
        elif form == PLAIN:
            sources.append(read_lines(folder / PLAIN))
            rows = _plain(sources[-1], index)
        else:
            parts = [read_lines(folder / name) for name in PARTS]
            sources += parts
            rows = _parts(parts, index)
        known: dict[str, tuple[str, ...]] = {}
        if (folder / "users.tsv").exists():
            people = read_table(read_lines(folder / "users.tsv"), "\t")
            sources.append(people.source)
            known = attributes(people, "user_id", rows.users)
        return Dataset(
            name=folder.resolve().name,
            catalogue=items,
            users=rows.users,
            items=rows.items,
            given=rows.given,
            attributes=known,
            digest=fingerprint(sources),
        )


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


def _plain(lines: Lines, index: Mapping[str, int]) -> Rows:
    users, items = _lines(lines, index)
    empty = np.flatnonzero(items.lengths == 0)
    if len(empty):
        row = int(empty[0])
        raise InputError(f"{lines.at(row)}: empty user {quote(users[row])} (accepted: a user and at least one item)")
    return Rows(users, items, None)


def _parts(parts: list[Lines], index: Mapping[str, int]) -> Rows:
    taken, given = one_after_the_other([Histories(*_lines(lines, index)) for lines in parts], list(PARTS.values()))
    return Rows(taken.users, taken.items, given)


def _whole(table: Table, index: Mapping[str, int]) -> Rows:
    users = tuple(column(table, "user_id"))
    complete = np.array(column(table, "complete"))
    wrong = np.flatnonzero((complete != "0") & (complete != "1"))
    if len(wrong):
        row = int(wrong[0])
        raise InputError(f"{table.at(row)}: complete is {quote(str(complete[row]))} (accepted: 0 or 1)")
    unique(table, "user_id")
    lengths, before = known_lists([text.split() for text in column(table, "history")], index, table.at)
    if lengths.min() == 0:
        row = int(np.argmin(lengths))
        raise InputError(f"{table.at(row)}: empty user {quote(users[row])} (accepted: at least one item in history)")
    tests = known_items(table, "test_item", index)
    owner = np.concatenate([np.repeat(np.arange(len(users)), lengths), np.arange(len(users))])
    purpose = np.full(len(owner), TRAIN)
    # Where the second-last item is missing, the last of the history is an ordinary training item.
    purpose[(np.cumsum(lengths) - 1)[complete == "1"]] = VALID
    purpose[len(before) :] = TEST
    items = group(owner, np.concatenate([before, tests]), len(users))
    return Rows(users, items, group(owner, purpose, len(users)).values)


def _lines(lines: Lines, index: Mapping[str, int]) -> tuple[tuple[str, ...], Ragged]:
    """The users, one a line, and the items of each. Raises InputError for an empty line or a user met twice."""
    rows = [line.split() for line in lines.lines]
    if not all(rows):
        raise InputError(f"{lines.at(rows.index([]))}: an empty line (accepted: a user, then items)")
    users = [row[0] for row in rows]
    unique(Table(lines, {"user": users}, 0), "user")
    lengths, values = known_lists([row[1:] for row in rows], index, lines.at)
    return tuple(users), Ragged(np.concatenate(([0], np.cumsum(lengths))).astype(np.int64), values)
