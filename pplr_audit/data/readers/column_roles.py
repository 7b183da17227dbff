"""Roles of a table's columns: by the settings, by a usual name, or else the user is asked."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pplr_audit.data.files import time_columns as clocks
from pplr_audit.data.files.columns import named
from pplr_audit.data.files.messages import listed
from pplr_audit.errors import InputError

USUAL: Mapping[str, Sequence[str]] = {
    "user": ("user_id", "userid", "user", "uid", "reviewerid", "customer_id", "visitorid", "session_id"),
    "item": (
        "item_id", "itemid", "item", "iid", "product_id", "productid", "movie_id", "movieid", "parent_asin", "asin",
        "book_id", "article_id", "track_id", "video_id",
    ),
    "timestamp": clocks.USUAL,
    "rating": ("rating", "stars", "score", "overall"),
    "title": ("title", "name", "item_title", "item_name", "product_name", "movie_title"),
    "categories": ("categories", "category", "genres", "genre", "class"),
}  # fmt: skip
"""Names of columns, in small letters, that tell what they are."""
NO_HEADER = "if the first line is a row: {table: {header: false, user: 1, item: 2}} with columns by position"


class Roles:
    """Finds the columns of a table.

    Args:
        said: by role the name of a column or its position from 1; None where its name is to tell.
    """

    def __init__(self, said: Mapping[str, str | int | None]) -> None:
        self._said = said

    def found(
        self, role: str, columns: Sequence[str], path: Path, *, other: str | None = None, guess: bool = True
    ) -> str | None:
        """The column of this role; None where neither the settings nor its name tell.

        Args:
            other: a setting that says it of a table beside the interactions, where it may be called otherwise: by the
                same setting, by a usual name, or ``id``.
            guess: whether a usual name tells.
        """
        said = None if other is None else self._said.get(other)
        if said is not None:
            return self._column(other or role, said, columns, path)
        said = self._said[role]
        if said is None or (other is not None and isinstance(said, int)):  # a position is one of the interactions
            return _usual(role, columns) or _id(columns, other) if guess else None
        if other is not None and said not in columns and (beside := _usual(role, columns) or _id(columns, other)):
            return beside
        return self._column(role, said, columns, path)

    def needed(self, role: str, columns: Sequence[str], path: Path, *, other: str | None = None) -> str:
        """Return the column as `found` does. Raises InputError where it cannot be told."""
        found = self.found(role, columns, path, other=other)
        if found is not None:
            return found
        more = " or an item table (items: FILE)" if role == "title" else ""
        only = "; only one column: is the separator right?" if len(columns) == 1 else ""
        bare = "" if any(_usual(each, columns) for each in USUAL) else f"; {NO_HEADER}"
        raise InputError(
            f"{path}: it is unclear which column is the {role}{only} (found: {listed(columns)}; accepted: "
            f"data.reader: {{table: {{{other or role}: COLUMN}}}}{more}{bare})"
        )

    @staticmethod
    def _column(setting: str, said: str | int, columns: Sequence[str], path: Path) -> str:
        if isinstance(said, str):
            return named(columns, f"{path}, line 1", said)
        if said > len(columns):
            raise InputError(f"{path}: {setting} is column {said} of {len(columns)} (accepted: 1 to {len(columns)})")
        return columns[said - 1]


def _usual(role: str, columns: Sequence[str]) -> str | None:
    small = {name.lower(): name for name in reversed(columns)}
    return next((small[name] for name in USUAL[role] if name in small), None)


def _id(columns: Sequence[str], other: str | None) -> str | None:
    """Return the column ``id`` of a table that is about one kind of thing."""
    return None if other is None else next((name for name in columns if name.lower() == "id"), None)
