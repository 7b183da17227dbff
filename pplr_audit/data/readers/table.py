"""Any CSV, TSV, Parquet or JSON lines: one interaction a row; name the columns where their names do not tell."""

import codecs
from collections.abc import Iterable, Sequence
from pathlib import Path

from pplr_audit.data.dataset import Dataset
from pplr_audit.data.readers.catalogue import titled
from pplr_audit.data.readers.formats import ACCEPTED, Formats, stem
from pplr_audit.data.readers.headlines import refuse_headlines
from pplr_audit.data.readers.interactions import attributes, dataset, histories
from pplr_audit.data.readers.json_lines import levels
from pplr_audit.data.readers.streams import ENCODINGS
from pplr_audit.data.readers.tables import Kind, named
from pplr_audit.data.readers.wording import listed, nearest
from pplr_audit.errors import InputError

USUAL = {
    "user": ("user_id", "userid", "user", "uid", "reviewerid", "customer_id", "visitorid", "session_id"),
    "item": (
        "item_id", "itemid", "item", "iid", "product_id", "productid", "movie_id", "movieid", "parent_asin", "asin",
        "book_id", "article_id", "track_id", "video_id",
    ),
    "timestamp": ("timestamp", "time", "ts", "datetime", "date", "created_at", "event_time", "unixreviewtime"),
    "rating": ("rating", "stars", "score", "overall"),
    "title": ("title", "name", "item_title", "item_name", "product_name", "movie_title"),
    "categories": ("categories", "category", "genres", "genre", "class"),
}  # fmt: skip
"""Names of columns, in small letters, that tell what they are."""
NO_ENCODINGS = ("idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "utf_7")
"""Names that Python takes for encodings, and in which no file is written."""
EVENTS, ITEMS, USERS = ("interactions", "ratings", "events", "reviews"), ("items",), ("users",)


class TableReader:
    """One interaction a row, the items' titles beside it or in a table of their own.

    Args:
        user, item, timestamp, rating, title, categories: the columns, where their names do not tell. Without a
            timestamp the order of the rows counts.
        items: the item table, from the folder of the interactions (default: a file ``items`` there; without one the
            titles are looked for among the interactions).
        users: a table of attributes (default: a file ``users`` there).
        separator: of delimited text (default: the commonest of comma, tab, semicolon and bar in the first line).
        encoding: as Python names it (default: UTF-8, else UTF-16 with its mark, else Windows-1252).
        quoted: whether fields of delimited text may stand in quotation marks (default: in CSV yes, in tab separated
            files where the first lines show that they do).
    """

    general = True
    """Asked only where no other reader fits."""

    def __init__(
        self,
        user: str | None = None,
        item: str | None = None,
        timestamp: str | None = None,
        rating: str | None = None,
        title: str | None = None,
        categories: str | None = None,
        items: str | None = None,
        users: str | None = None,
        separator: str | None = None,
        encoding: str | None = None,
        quoted: bool | None = None,
    ) -> None:
        self._columns = {"user": user, "item": item, "timestamp": timestamp, "rating": rating, "title": title}
        self._columns["categories"] = categories
        others = {"items": items, "users": users, "separator": separator, "encoding": encoding}
        for name, value in (self._columns | others).items():
            if value is not None and (not isinstance(value, str) or not value):
                raise InputError(f"table: {name} is {value!r} (accepted: text)")
        if encoding is not None and not _known_encoding(encoding):
            raise InputError(f"table: encoding is {encoding!r} (accepted: utf-8, iso-8859-1, cp1251, ...)")
        if separator is not None and not _can_separate(separator):
            raise InputError(
                f"table: separator is {separator!r} (accepted: one or more signs, no quotation mark or line end)"
            )
        if quoted is not None and not isinstance(quoted, bool):
            raise InputError(f"table: quoted is {quoted!r} (accepted: true or false)")
        if quoted and separator is not None and len(separator.encode()) > 1:
            raise InputError(
                f"table: quoted fields cannot be parted by {separator!r} (accepted: a separator of one sign)"
            )
        self._items, self._users = items, users
        self._formats = Formats(separator, ENCODINGS if encoding is None else (encoding,), quoted)

    def detect(self, path: Path) -> bool:
        """Whether ``path`` is a table, or a folder with interactions under one of their usual names."""
        return bool(_beside(path, EVENTS)) if path.is_dir() else stem(path) is not None

    def read(self, path: Path) -> Dataset:
        """Everything in the file and in those beside it. Items without a title are left out with their interactions.

        Raises InputError as every reader does, for a column that has to be named, and if more than half of the
        interactions would be left out.
        """
        events = _only(path, EVENTS, "file of interactions") if path.is_dir() else path
        if events is None:
            raise InputError(f"{path}: no file of interactions (accepted: {' or '.join(EVENTS)} with {ACCEPTED})")
        columns = self._formats.columns(events)
        user, item = (self._needed(role, columns, events) for role in ("user", "item"))
        time, rating = (self._named(role, columns, events) for role in ("timestamp", "rating"))

        wares = self._other(events, self._items, ITEMS) or events
        fields = self._formats.columns(wares)
        ware, title = (self._needed(role, fields, wares) for role in ("item", "title"))
        categories = self._named("categories", fields, wares)
        table = self._formats.read(wares, _kinds({ware: "text", title: "text", categories: "text"}))
        if wares == events and self._columns["title"] is None:
            refuse_headlines(table, ware, title, fields)
        labels = None if categories is None else [levels(text) for text in table.texts(categories)]
        items, index, notes = titled(table, ware, title, labels)
        if wares == events:
            notes.pop("item_rows_repeated")

        reviews = self._formats.read(events, _kinds({user: "id", item: "id", time: "time", rating: "number"}))
        taken, left = histories(reviews, user, item, index, time=time, rating=rating, unknown="leave out")
        sources = [reviews.source, *([table.source] if wares != events else [])]
        known: dict[str, tuple[str, ...]] = {}
        if people := self._other(events, self._users, USERS):
            fields = self._formats.columns(people)
            about = self._formats.read(people, dict.fromkeys(fields, "text"))
            known = attributes(about, self._needed("user", fields, people), taken.users)
            sources.append(about.source)
        return dataset(stem(events) or events.name, items, taken, sources, attributes=known, notes=notes | left)

    def _named(self, role: str, columns: Sequence[str], path: Path) -> str | None:
        """The column of this role; None where neither the settings nor its name tell."""
        said = self._columns[role]
        if said is not None:
            # The item table may name its id otherwise: what is said of the interactions need not hold there.
            return said if said in columns else self._usual(role, columns) or named(columns, f"{path}, line 1", said)
        return self._usual(role, columns)

    def _needed(self, role: str, columns: Sequence[str], path: Path) -> str:
        found = self._named(role, columns, path)
        if found is None:
            more = " or an item table (items: FILE)" if role == "title" else ""
            only = "; only one column: is the separator right?" if len(columns) == 1 else ""
            raise InputError(
                f"{path}: which column is the {role} cannot be told{only} (found: {listed(columns)}; accepted: "
                f"data.reader: {{table: {{{role}: COLUMN}}}}{more})"
            )
        return found

    def _usual(self, role: str, columns: Sequence[str]) -> str | None:
        small = {name.lower(): name for name in reversed(columns)}
        return next((small[name] for name in USUAL[role] if name in small), None)

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


def _beside(folder: Path, names: Iterable[str]) -> list[Path]:
    return sorted(file for file in folder.iterdir() if stem(file) in tuple(names) and file.is_file())


def _only(folder: Path, names: Iterable[str], what: str) -> Path | None:
    found = _beside(folder, names)
    if len(found) > 1:
        raise InputError(f"{folder}: several: {', '.join(file.name for file in found)} (accepted: one {what})")
    return found[0] if found else None


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
