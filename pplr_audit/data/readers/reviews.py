"""Reviews as JSON lines beside an item table as JSON lines: what several publishers ship, each with its own names."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pplr_audit.data.dataset import Dataset
from pplr_audit.data.files import json_lines
from pplr_audit.data.files.columns import Kind, named
from pplr_audit.data.files.json_lines import each_level, read_json_lines
from pplr_audit.data.files.web_text import shown, without_control
from pplr_audit.data.readers.catalogue import titled
from pplr_audit.data.readers.interactions import dataset, histories

ENDINGS = tuple(f"{name}{packed}" for name in (".json", ".jsonl", ".ndjson") for packed in ("", ".gz"))


@dataclass(frozen=True)
class Names:
    """A publisher's names of columns over the years: of several the first that is there counts."""

    user: tuple[str, ...]
    item: tuple[str, ...]
    time: tuple[str, ...]
    ware: tuple[str, ...]
    """The item's id in the item table."""
    title: tuple[str, ...]
    rating: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    between: str | None = None
    """Separator of the categories of one text."""
    from_web: bool = False
    """Titles may hold control characters, remnants of other encodings."""
    html: bool = False
    """Titles and categories are as they stood in a page's source: with markup, ``&amp;`` for an ampersand."""


def read_published(name: str, events: Path, wares: Path, names: Names) -> Dataset:
    """Every review is an interaction; those of items without a title, or without a user or a time, are left out.

    Both are counted. Raises InputError as every reader does, and if more than half would be left out for their items.
    """
    found, line = json_lines.columns_of(wares), f"{wares}, line 1"
    ware, title = named(found, line, *names.ware), named(found, line, *names.title)
    kinds: dict[str, Kind] = {ware: "text", title: "text"}
    kind = next((each for each in names.categories if each in found), None)
    table = read_json_lines(wares, kinds | ({kind: "text"} if kind else {}))
    categories = None if kind is None else [_levels(text, names) for text in table.texts(kind)]
    items, index, notes = titled(table, ware, title, categories, from_web=names.from_web, html=names.html)

    found, line = json_lines.columns_of(events), f"{events}, line 1"
    user, item = named(found, line, *names.user), named(found, line, *names.item)
    time = named(found, line, *names.time)
    rating = next((each for each in names.rating if each in found), None)
    wanted: dict[str, Kind] = {user: "id", item: "id", time: "time"}
    reviews = read_json_lines(events, wanted | ({rating: "number"} if rating else {}), lenient=True)
    notes["reviews_without_user_item_or_time"] = reviews.left_out
    taken, left = histories(reviews, user, item, index, time=time, rating=rating, unknown="leave out")
    sources = [
        reviews.read_as({user: "user", item: "item", time: "time", rating: "rating"}),
        table.read_as({ware: "item", title: "title", kind: "categories"}),
    ]
    return dataset(name, items, taken, sources, notes=notes | left)


def stem(path: Path) -> str | None:
    """The name of a file of JSON lines without its ending; None for another file."""
    return next((path.name.removesuffix(end) for end in ENDINGS if path.name.endswith(end)), None)


def files(folder: Path) -> dict[str, Path]:
    """The files of JSON lines in a folder, by their names without ending."""
    found: Iterable[tuple[str | None, Path]] = ((stem(path), path) for path in sorted(folder.iterdir()))
    return {name: path for name, path in found if name is not None and path.is_file()}


def _levels(text: str, names: Names) -> str:
    """The categories of one item with ``|`` between."""
    found = each_level(text) if names.between is None else text.split(names.between)
    clean = shown if names.html else without_control
    return "|".join(level for each in found if (level := clean(each).strip()))
