"""Titles beside interactions that are not the items': headlines of reviews, names of sessions."""

from collections.abc import Sequence

import polars as pl

from pplr_audit.data.files.columns import Table
from pplr_audit.data.files.messages import quote
from pplr_audit.errors import InputError

REVIEW = ("helpful_vote", "helpful_votes", "verified_purchase", "text", "images")
"""Columns of Amazon Reviews 2023 (Y. Hou) beside ``parent_asin``, where ``title`` is what a user wrote above a text;
the item's own title stands in the meta file."""
MOST_DIFFERENT = 0.5
"""Share of items, of those in several rows, whose titles may differ from row to row."""


def refuse_headlines(table: Table, item: str, title: str, columns: Sequence[str]) -> None:
    """Raises InputError for a title that belongs to the interaction and not to the item.

    It is one where the file has the columns of Amazon's reviews, or where most items of several rows have several
    titles. ``columns`` are all of the file, ``table`` holds two of them: the item's id and the title.
    """
    path = table.source.path
    accepted = (
        "accepted: an item table, data.reader: {table: {items: FILE}}; or, if it is the title of the item, "
        f"{{table: {{title: {title}}}}})"
    )
    small = {name.lower() for name in columns}
    if "parent_asin" in small and small.intersection(REVIEW):
        raise InputError(
            f"{path}: these are Amazon's reviews, whose {quote(title)} is the headline of a review (accepted: the "
            f"meta file beside it, meta_{path.name}; {accepted.removeprefix('accepted: ')}"
        )
    titles = (
        table.frame.filter(pl.col(title) != "").group_by(item).agg(pl.len(), pl.col(title).n_unique().alias("titles"))
    )
    several = titles.filter(pl.col("len") > 1)
    different = int((several["titles"] > 1).sum())
    if different > MOST_DIFFERENT * len(several):
        raise InputError(
            f"{path}: {quote(title)} is not the title of an item: {different} of the {len(several)} items with several "
            f"rows have different ones ({accepted}"
        )
