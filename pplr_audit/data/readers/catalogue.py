"""The item table of a source, checked: what comes out of here may be shown, prompted and compared."""

import unicodedata
from collections.abc import Collection, Sequence

import polars as pl

from pplr_audit.data.dataset import Catalogue
from pplr_audit.data.files.columns import Table, unique
from pplr_audit.data.files.messages import quote
from pplr_audit.data.files.web_text import is_script, shown, without_control
from pplr_audit.errors import InputError

PERHAPS_MISSING = frozenset({"nan", "NaN", "None", "NULL", "null", "NA", "N/A", "n/a", "<NA>"})
"""Texts that programs write for a title that is not there, and that an item may be called all the same."""


def catalogue(
    table: Table, item: str, title: str, categories: Sequence[str] | None, missing: Collection[str] = ()
) -> tuple[Catalogue, dict[str, int], dict[str, int]]:
    """The catalogue, in the order of the file, each id's index in it, and counts of what was left out.

    Titles are brought to Unicode NFC and stripped; markup, quotes, ampersands and repeated titles are legitimate.
    Items without a title, an empty one or one of ``missing``, are left out.
    ``categories`` is one string a row, levels separated by ``|``; None where the source has none.
    Raises InputError for an id that is empty or doubled, a title that holds a control character (Cc), and if no item
    is left.
    """
    ids = table.texts(item)
    unique(table, item)
    titles = [unicodedata.normalize("NFC", text).strip() for text in table.texts(title)]
    rows = [row for row, text in enumerate(titles) if text and text not in missing]
    for row in rows:
        _refuse_control(titles[row], ids[row], table, row)
    found, index = _catalogue(table, rows, [ids[row] for row in rows], [titles[row] for row in rows], categories)
    return found, index, {"items_without_title": len(ids) - len(rows)} | _doubtful(found)


def titled(
    table: Table,
    item: str,
    title: str,
    categories: Sequence[str] | None,
    from_web: bool = False,
    html: bool = False,
) -> tuple[Catalogue, dict[str, int], dict[str, int]]:
    """Make a `catalogue` of an item table that is as its publisher found it in the world.

    Of several rows with one id the first that has a title counts; rows without an id or a title are left out; white
    space of any kind within a title is one blank. ``from_web`` says that control characters are remnants of other
    encodings, and blanks; ``html`` that titles are as they stood in a page's source: what the page shows counts, and
    a remnant of a script is no title. The third value counts what was left out.
    Raises InputError for a control character in a title that is not from the web, and if no item is left.
    """
    # One interaction a row may be the item table: each title is looked at once.
    pairs = table.frame.select(pl.col(item), pl.col(title)).with_row_index("row")
    pairs = pairs.unique(subset=[item, title], keep="first", maintain_order=True)
    index: dict[str, int] = {}
    rows, titles, untitled, scripts = [], [], set(), set()
    clean = shown if html else without_control if from_web else str
    for row, name, text in pairs.iter_rows():
        if not name or name in index:
            continue
        script = html and is_script(text)
        text = "" if script else " ".join(unicodedata.normalize("NFC", clean(text)).split())
        if not text:
            untitled.add(name)
            scripts |= {name} if script else set()
            continue
        _refuse_control(text, name, table, row)
        index[name] = len(index)
        rows.append(row)
        titles.append(text)
    found, _ = _catalogue(table, rows, list(index), titles, categories)
    repeated = len(table) - table.frame[item].n_unique()
    counts = {"items_without_title": len(untitled - index.keys()), "item_rows_repeated": repeated}
    return found, index, counts | {"titles_of_script": len(scripts - index.keys())} | _doubtful(found)


def _catalogue(
    table: Table, rows: Sequence[int], ids: Sequence[str], titles: Sequence[str], categories: Sequence[str] | None
) -> tuple[Catalogue, dict[str, int]]:
    if not rows:
        raise InputError(f"{table.source.path}: no item has an id and a title (accepted: at least one)")
    levels = tuple(categories[row] for row in rows) if categories is not None else ("",) * len(rows)
    return Catalogue(tuple(ids), tuple(titles), levels), {name: at for at, name in enumerate(ids)}


def _doubtful(found: Catalogue) -> dict[str, int]:
    return {"titles_perhaps_missing": sum(title in PERHAPS_MISSING for title in found.titles)}


def _refuse_control(text: str, name: str, table: Table, row: int) -> None:
    # Almost every title is printable; only the others are looked at letter by letter.
    if not text.isprintable() and any(unicodedata.category(letter) == "Cc" for letter in text):
        raise InputError(
            f"{table.at(row)}: the title of item {quote(name)} holds a control character: {quote(text)} "
            "(accepted: printable text)"
        )
