"""The overview of a source as a table in the terminal."""

from collections.abc import Iterator
from typing import Any

from rich.table import Table

from pplr_audit.terminal import visible

NOTES = {
    "interactions_without_title": "interactions left out for want of a title",
    "items_without_title": "items left out for want of a title",
    "titles_perhaps_missing": "titles such as nan, None or N/A, which may mean that there is none; taken as they are",
    "titles_of_script": "of the missing titles were what a page's script had left there",
    "item_rows_repeated": "rows of the item table with an id that was there",
    "interactions_rated_lower": "interactions left out by data.min_rating",
    "interactions_repeated": "interactions left out by data.duplicates",
    "interactions_outside_core": "interactions left out by data.core",
    "items_outside_core": "items left out by data.core",
    "users_left_without": "users left out with all their interactions",
    "users_left_out": "users left out by data.users",
    "prefix_rows": "rows that are the start of a longer one of the same user",
}


def overview_table(found: dict[str, Any]) -> Table:
    """Two columns: what, and how much of it."""
    table = Table(title=visible(f"What {found['name']} holds"), title_justify="left", show_header=False)
    table.add_column("what", style="bold", no_wrap=True)
    table.add_column("found", overflow="fold")
    for what, value in _rows(found):
        table.add_row(visible(what), visible(value))
    return table


def _rows(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for file in found["files"]:
        yield "file", f"{file['path']} ({file['encoding']}, {file['bytes'] / 1e6:,.1f} MB)"
    yield "reader", found["reader"]
    yield "users", f"{found['users']:,}"
    idle = found["items_without_interactions"]
    yield "items", f"{found['items']:,}" + (f", {idle:,} of them without an interaction" if idle else "")
    yield "interactions", f"{found['interactions']:,} (density {found['density']:.2%})"
    yield "items a user", _spread(found["history_length"])
    if short := found["users_too_short_for_leave_one_out"]:
        yield "", f"{short:,} users have too few for leave_one_out"
    yield "users an item", _spread(found["item_popularity"])
    if found["times"]:
        yield "times (UTC)", f"{found['times'][0]} to {found['times'][1]}"
    else:
        yield "times", "none: the order of the source counts"
    yield "ratings", _spread(found["ratings"]) if found["ratings"] else "none"
    if found["given_split"]:
        yield "published split", ", ".join(f"{count:,} {part}" for part, count in found["given_split"].items())
    for name, values in found["attributes"].items():
        common = ", ".join(f"{value} ({count:,})" for value, count in values["commonest"].items())
        more = f" and {values['different'] - len(values['commonest']):,} more" if values["different"] > 5 else ""
        unknown = f"; unknown of {values['unknown']:,} users" if values["unknown"] else ""
        yield f"attribute {name}", f"{common}{more}{unknown}"
    if not found["attributes"]:
        yield "attributes", "none"
    titles = found["titles"]
    yield (
        "titles",
        f"{titles['missing']:,} missing, {titles['shared']:,} shared with another item; characters: "
        + (_spread(titles["characters"])),
    )
    yield "categories", f"{found['with_category']:,} items have one"
    for note, count in found["notes"].items():
        yield "note", f"{count:,} {NOTES.get(note, note.replace('_', ' '))}"


def _spread(values: dict[str, float]) -> str:
    return ", ".join(
        f"{name} {value:,.4g}" if value < 1e4 else f"{name} {value:,.0f}" for name, value in values.items()
    )
