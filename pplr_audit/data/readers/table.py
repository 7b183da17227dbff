"""Any CSV, TSV, Parquet or JSON lines: one interaction a row; name the columns where their names do not tell."""

import codecs
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from pplr_audit.data.dataset import Dataset, Source
from pplr_audit.data.files.by_suffix import ACCEPTED, Formats, no_header, stem
from pplr_audit.data.files.columns import ATTRIBUTE, Kind, Table
from pplr_audit.data.files.json_lines import levels
from pplr_audit.data.files.messages import listed, nearest, quote
from pplr_audit.data.files.streams import ENCODINGS
from pplr_audit.data.files.time_columns import clock
from pplr_audit.data.readers.catalogue import titled
from pplr_audit.data.readers.column_roles import Roles
from pplr_audit.data.readers.headlines import refuse_headlines
from pplr_audit.data.readers.interactions import attributes, dataset, histories
from pplr_audit.data.readers.user_attributes import beside, candidates
from pplr_audit.errors import InputError

NO_ENCODINGS = ("idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "utf_7")
"""Names that Python takes for encodings, and in which no file is written."""
PAPERS = ("readme", "license", "licence", "notice", "changelog", "citation", "requirements")
"""Names of files that stand beside data and are no tables, though they may end like one."""
_JSON = re.compile(r"\.json(\.gz)?$", re.IGNORECASE)
EVENTS, ITEMS, USERS = ("interactions", "ratings", "events", "reviews"), ("items",), ("users",)


class TableReader:
    """One interaction a row, the items' titles beside it or in a table of their own.

    Args:
        user, item, timestamp, rating, title, categories: the columns, by name or by position from 1, where their names
            do not tell. Of several that look like times the finest counts; without one the order of the rows does, and
            with ``timestamp: false``.
        item_id, user_id: the ids in the tables of items and of users, where they are called otherwise there.
        items: the item table, from the folder of the interactions (default: a file ``items`` there; without one the
            titles are looked for among the interactions).
        users: a table of attributes (default: a file ``users`` there).
        header: whether the first line of delimited text names the columns, or the list of those of ``interactions``,
            ``items`` and ``users`` where it does (default: it does, and is refused where it looks like a row).
        separator: of delimited text (default: the commonest of comma, tab, semicolon, bar, ``::`` in the first line).
        encoding: as Python names it (default: UTF-8, else UTF-16 with its mark, else Windows-1252).
        quoted: whether fields of delimited text may stand in quotation marks (default: in CSV yes, in tab separated
            files where the first lines show that they do).
    """

    general = True
    """Asked only where no other reader fits."""

    def __init__(
        self,
        user: str | int | None = None,
        item: str | int | None = None,
        timestamp: str | int | bool | None = None,
        rating: str | int | None = None,
        title: str | int | None = None,
        categories: str | int | None = None,
        items: str | None = None,
        users: str | None = None,
        item_id: str | int | None = None,
        user_id: str | int | None = None,
        header: bool | Sequence[str] | None = None,
        separator: str | None = None,
        encoding: str | None = None,
        quoted: bool | None = None,
    ) -> None:
        self._ordered = timestamp is not False
        columns = {
            "user": user, "item": item, "timestamp": timestamp if self._ordered else None, "rating": rating,
            "title": title, "categories": categories, "item_id": item_id, "user_id": user_id,
        }  # fmt: skip
        for name, place in columns.items():
            if isinstance(place, bool) or (isinstance(place, int) and place < 1):
                raise InputError(f"table: {name} is {place!r} (accepted: text, or a position from 1)")
        texts = {"items": items, "users": users, "separator": separator, "encoding": encoding}
        for name, value in (texts | {name: said for name, said in columns.items() if type(said) is not int}).items():
            if value is not None and (not isinstance(value, str) or not value):
                raise InputError(f"table: {name} is {value!r} (accepted: text)")
        self._headers = _headers(header)
        _check_text(separator, encoding, quoted)
        self._titled = title is not None
        self._roles, self._items, self._users = Roles(columns), items, users
        self._formats = Formats(separator, ENCODINGS if encoding is None else (encoding,), quoted)

    def detect(self, path: Path) -> bool:
        """True if ``path`` is a table, or a folder with interactions under a usual name, or with tables at all."""
        return bool(_beside(path, EVENTS) or _tables(path, ())) if path.is_dir() else stem(path) is not None

    def read(self, path: Path) -> Dataset:
        """Everything in the file and in those beside it. Items without a title are left out with their interactions.

        Raises InputError as every reader does, for a column that has to be named, and if more than half of the
        interactions would be left out.
        """
        events = self._interactions(path) if path.is_dir() else path
        columns = self._formats.columns(events, self._headers["interactions"])
        user, item = (self._roles.needed(role, columns, events) for role in ("user", "item"))
        rating = self._roles.found("rating", columns, events)
        if len({user, item, rating}) < 3:
            twice = quote(user if user in (item, rating) else item)
            raise InputError(f"{events}: the column {twice} cannot have two roles (accepted: another column for each)")
        wares = self._other(events, self._items, ITEMS) or events
        table, source = self._wares(wares, beside=wares == events)
        ware, title, categories = (_of(source, role) for role in ("item", "title", "categories"))
        labels = None if categories is None else [levels(text) for text in table.texts(categories)]
        items, index, notes = titled(table, str(ware), str(title), labels)
        self._refuse_headless(wares, "items", str(ware), index)
        roles: dict[str | None, str] = {user: "user", item: "item", rating: "rating"}
        if wares == events:
            notes.pop("item_rows_repeated")
            roles = {title: "title", categories: "categories"} | roles

        head = self._formats.head(events, self._headers["interactions"])
        time = self._roles.found("timestamp", columns, events, guess=False)
        if time is None and self._ordered:
            time = clock(head, roles, events)
        maybe = candidates(head, user, {*roles, time})
        kinds = _kinds({user: "id", item: "id", time: "time", rating: "number"}) | dict.fromkeys(maybe, "label")
        reviews = self._formats.read(events, kinds, self._headers["interactions"])
        for name in (user, item):
            self._refuse_headless(events, "interactions", name, reviews.ids[name].names)
        taken, left = histories(reviews, user, item, index, time=time, rating=rating, unknown="leave out")
        known = beside(reviews, user, item, maybe, taken.users)
        sources = [reviews.read_as(dict.fromkeys(known, ATTRIBUTE) | roles | {time: "time"})]
        sources += [source] if wares != events else []
        if people := self._other(events, self._users, USERS):
            about, more = self._people(people, taken.users)
            known |= more
            sources.append(about)
        return dataset(stem(events) or events.name, items, taken, sources, attributes=known, notes=notes | left)

    def _interactions(self, folder: Path) -> Path:
        """The file of a usual name, or else the only table. Raises InputError where that is none or one of several."""
        events = _only(folder, EVENTS, "file of interactions")
        if events is not None:
            return events
        found = _tables(folder, (self._items, self._users))
        if len(found) == 1:
            return found[0]
        if found:
            names = listed(file.name for file in found)
            raise InputError(f"{folder}: several tables: {names} (accepted: the path of the one with the interactions)")
        raise InputError(f"{folder}: no file of interactions (accepted: {' or '.join(EVENTS)} with {ACCEPTED})")

    def _wares(self, path: Path, *, beside: bool) -> tuple[Table, Source]:
        """The ids, titles and categories of items, and their file with what its columns were read as.

        Args:
            beside: they stand beside the interactions.
        """
        header, other = self._headers["interactions" if beside else "items"], None if beside else "item_id"
        columns = self._formats.columns(path, header)
        ware = self._roles.needed("item", columns, path, other=other)
        title = self._roles.needed("title", columns, path)
        categories = self._roles.found("categories", columns, path)
        if ware == title:
            raise InputError(
                f"{path}: the column {quote(ware)} cannot be both id and title (accepted: a column for each)"
            )
        table = self._formats.read(path, _kinds({ware: "text", title: "text", categories: "text"}), header)
        if beside and not self._titled:
            refuse_headlines(table, ware, title, columns)
        return table, table.read_as({categories: "categories", title: "title", ware: "item"})

    def _people(self, path: Path, users: tuple[str, ...]) -> tuple[Source, dict[str, tuple[str, ...]]]:
        """The table of users: every other column is an attribute."""
        header = self._headers["users"]
        columns = self._formats.columns(path, header)
        user = self._roles.needed("user", columns, path, other="user_id")
        about = self._formats.read(path, dict.fromkeys(columns, "text"), header)
        return about.read_as({user: "user"}, ATTRIBUTE), attributes(about, user, users)

    def _refuse_headless(self, path: Path, which: str, column: str, ids: Collection[str]) -> None:
        """Raises InputError where the name of a column of ids is one of the ids."""
        if self._headers[which] is None and self._formats.headed(path) and column in ids:
            raise no_header(path, f"{quote(column)} is one of the ids below it")

    def _other(self, events: Path, said: str | None, names: Iterable[str]) -> Path | None:
        """The table that the settings name, or the one beside the interactions under its usual name."""
        if said is None:
            return _only(events.parent, names, "table of its kind")
        path = events.parent / said
        try:
            there = path.is_file()
        except (OSError, ValueError):  # no file can have such a name
            there = False
        if not there:
            near = nearest(said, (file.name for file in events.parent.iterdir()))
            raise InputError(f"{path}: no such file{near} (accepted: a file, from the folder of the interactions)")
        return path


def _kinds(columns: dict[str | None, Kind]) -> dict[str, Kind]:
    return {name: kind for name, kind in columns.items() if name is not None}


def _of(source: Source, role: str) -> str | None:
    return next((name for name, each in source.columns.items() if each == role), None)


def _tables(folder: Path, others: Collection[str | None]) -> list[Path]:
    """The tables in a folder, without those of items and users; JSON, which may be anything, only where it is alone."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name not in others)
    named = {file: stem(file) for file in files}
    found = [file for file, name in named.items() if name and name.lower() not in (*ITEMS, *USERS, *PAPERS)]
    plain = [file for file in found if not _JSON.search(file.name)]
    return plain or (found if len(found) == 1 else [])


def _beside(folder: Path, names: Iterable[str]) -> list[Path]:
    return sorted(file for file in folder.iterdir() if stem(file) in tuple(names) and file.is_file())


def _only(folder: Path, names: Iterable[str], what: str) -> Path | None:
    found = _beside(folder, names)
    if len(found) > 1:
        raise InputError(f"{folder}: several: {', '.join(file.name for file in found)} (accepted: one {what})")
    return found[0] if found else None


def _headers(said: bool | Sequence[str] | None) -> dict[str, bool | None]:
    """Return for each kind of table whether its first line names the columns; None where that is to be told."""
    kinds = ("interactions", "items", "users")
    if said is None or isinstance(said, bool):
        return dict.fromkeys(kinds, said)
    if not isinstance(said, list | tuple) or not said or not set(said) <= set(kinds):
        raise InputError(f"table: header is {said!r} (accepted: true, false, or a list of {', '.join(kinds)})")
    return {kind: kind in said for kind in kinds}


def _check_text(separator: str | None, encoding: str | None, quoted: bool | None) -> None:
    """Raises InputError for what delimited text cannot be."""
    if encoding is not None and not _known_encoding(encoding):
        raise InputError(f"table: encoding is {encoding!r} (accepted: utf-8, iso-8859-1, cp1251, ...)")
    if separator is not None and not _can_separate(separator):
        raise InputError(
            f"table: separator is {separator!r} (accepted: one or more signs, no quotation mark or line end)"
        )
    if quoted is not None and not isinstance(quoted, bool):
        raise InputError(f"table: quoted is {quoted!r} (accepted: true or false)")
    if quoted and separator is not None and len(separator.encode()) > 1:
        raise InputError(f"table: quoted fields cannot be parted by {separator!r} (accepted: a separator of one sign)")


def _known_encoding(name: str) -> bool:
    try:
        return (
            "a,b\n".encode(name).decode(name) == "a,b\n"
            and codecs.lookup(name).name.replace("-", "_") not in NO_ENCODINGS
        )
    except (LookupError, ValueError):
        return False


def _can_separate(text: str) -> bool:
    return not set(text) & set('"\n\r\x1f') and (len(text.encode()) == 1 or not text.isspace())
