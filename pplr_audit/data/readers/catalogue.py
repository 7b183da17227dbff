"""The item table of a source, checked: what comes out of here may be shown, prompted and compared."""

import unicodedata
from collections.abc import Sequence

from pplr_audit.data.dataset import Catalogue
from pplr_audit.data.readers.tables import Table, unique
from pplr_audit.data.readers.wording import quote
from pplr_audit.errors import InputError


def catalogue(
    table: Table, item: str, title: str, categories: Sequence[str] | None
) -> tuple[Catalogue, dict[str, int]]:
    """The catalogue, in the order of the file, and each id's index in it.

    Titles are brought to Unicode NFC and stripped; markup, quotes, ampersands and repeated titles are legitimate.
    ``categories`` is one string a row, levels separated by ``|``; None where the source has none.
    Raises InputError for a doubled id, a title that is empty or holds a control character (Cc).
    """
    ids, index = table.texts(item), unique(table, item)
    titles = tuple(unicodedata.normalize("NFC", text).strip() for text in table.texts(title))
    for row, text in enumerate(titles):
        if not text:
            raise InputError(f"{table.at(row)}: the title of item {quote(ids[row])} is empty (accepted: some text)")
        _refuse_control(text, ids[row], table, row)
    levels = tuple(categories) if categories is not None else ("",) * len(titles)
    return Catalogue(tuple(ids), titles, levels), index


def titled(
    table: Table, item: str, title: str, categories: Sequence[str] | None
) -> tuple[Catalogue, dict[str, int], dict[str, int]]:
    """As `catalogue`, of an item table that is as its publisher found it in the world.

    Of several rows with one id the first that has a title counts; rows without an id or a title are left out; white
    space of any kind within a title is one blank. The third value counts what was left out.
    """
    ids = table.texts(item)
    titles = [" ".join(unicodedata.normalize("NFC", text).split()) for text in table.texts(title)]
    index: dict[str, int] = {}
    rows, untitled = [], set()
    for row, (name, text) in enumerate(zip(ids, titles, strict=True)):
        if not name or name in index:
            continue
        if not text:
            untitled.add(name)
            continue
        _refuse_control(text, name, table, row)
        index[name] = len(index)
        rows.append(row)
    if not rows:
        raise InputError(f"{table.source.path}: no item has an id and a title (accepted: at least one)")
    levels = tuple(categories[row] for row in rows) if categories is not None else ("",) * len(rows)
    counts = {"items_without_title": len(untitled - index.keys()), "item_rows_repeated": len(ids) - len(set(ids))}
    return Catalogue(tuple(index), tuple(titles[row] for row in rows), levels), index, counts


def _refuse_control(text: str, name: str, table: Table, row: int) -> None:
    # Almost every title is printable; only the others are looked at letter by letter.
    if not text.isprintable() and any(unicodedata.category(letter) == "Cc" for letter in text):
        raise InputError(
            f"{table.at(row)}: the title of item {quote(name)} holds a control character: {quote(text)} "
            "(accepted: printable text)"
        )
