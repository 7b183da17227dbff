"""The item table of a source, checked: what comes out of here may be shown, prompted and compared."""

import unicodedata
from collections.abc import Sequence

from pplr_audit.data.dataset import Catalogue
from pplr_audit.data.readers.text import Table, column, quote, unique
from pplr_audit.errors import InputError


def catalogue(
    table: Table, item: str, title: str, categories: Sequence[str] | None
) -> tuple[Catalogue, dict[str, int]]:
    """The catalogue, in the order of the file, and each id's index in it.

    Titles are brought to Unicode NFC and stripped; markup, quotes, ampersands and repeated titles are legitimate.
    ``categories`` is one string a row, levels separated by ``|``; None where the source has none.
    Raises InputError for a missing column, a doubled id, a title that is empty or holds a control character (Cc).
    """
    ids = column(table, item)
    index = unique(table, item)
    titles = tuple(unicodedata.normalize("NFC", text).strip() for text in column(table, title))
    for row, text in enumerate(titles):
        if not text:
            raise InputError(f"{table.at(row)}: the title of item {quote(ids[row])} is empty (accepted: some text)")
        # Almost every title is printable; only the others are looked at letter by letter.
        if not text.isprintable() and any(unicodedata.category(letter) == "Cc" for letter in text):
            raise InputError(
                f"{table.at(row)}: the title of item {quote(ids[row])} holds a control character: {quote(text)} "
                "(accepted: printable text)"
            )
    levels = tuple(categories) if categories is not None else ("",) * len(titles)
    return Catalogue(tuple(ids), titles, levels), index
