"""The overview of a source as a table in the terminal."""

from collections.abc import Iterator
from typing import Any

from rich.table import Table

from pplr_audit.errors import visible
from pplr_audit.report.words.quantities import size
from pplr_audit.report.words.vocabulary import groups_words

MOST, FIRST, WIDEST = 20, 5, 24
"""Columns that are listed, items of a history, and characters of a user's id."""
NOTES = {
    "interactions_without_title": "interactions left out because the item has no title",
    "items_without_title": "items left out because they have no title",
    "titles_perhaps_missing": "titles such as nan, None or N/A, which may stand for a missing title; they are kept",
    "titles_of_script": "of the missing titles were remains of a web page's script",
    "item_rows_repeated": "rows of the item table with an id that occurred before",
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
    table.add_column("what", style="bold", overflow="fold", max_width=30)
    table.add_column("found", overflow="fold")
    for what, value in _rows(found):
        table.add_row(visible(what), visible(value))
    for example in found.get("examples", ()):
        lines = "\n".join(map(visible, _history(example)))
        table.add_row(visible(f"user {example['user']}"[:WIDEST]), lines)
    return table


def _rows(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for file in found["files"]:
        yield "file", f"{file['path']} ({file['encoding']}, {size(file['bytes'])})"
        if file["columns"] or file["unused"]:
            yield "  read as", ", ".join(_roles(file["columns"])) or "nothing"
        if file["unused"]:
            yield "  not used", _names(file["unused"])
    yield "reader", found["reader"]
    yield "users", f"{found['users']:,}"
    yield "  for an audit", found["groups"].get("refused") or groups_words(found["groups"])
    idle = found["items_without_interactions"]
    yield "items", f"{found['items']:,}" + (f", {idle:,} of them without an interaction" if idle else "")
    yield "interactions", f"{found['interactions']:,} (density {found['density']:.2%})"
    yield "items per user", _spread(found["history_length"])
    if short := found["users_too_short_for_leave_one_out"]:
        yield "", f"{short:,} users have too few for leave_one_out"
    yield "users per item", _spread(found["item_popularity"])
    if found["times"]:
        yield "times (UTC)", f"{found['times'][0]} to {found['times'][1]}"
        if found["time_ties"]:
            yield (
                "",
                f"{found['time_ties']:.1%} at the same time as another of the same user; the order of the rows decides",
            )
    else:
        yield "times", "none; the order of the rows is used"
    yield "ratings", _spread(found["ratings"]) if found["ratings"] else "none"
    if found["given_split"]:
        yield "published split", ", ".join(f"{count:,} {part}" for part, count in found["given_split"].items())
    for name, values in found["attributes"].items():
        common = ", ".join(f"{value} ({count:,})" for value, count in values["commonest"].items())
        left = values["different"] - len(values["commonest"])
        more = f"{' and ' if common else ''}{left:,} {'more' if common else 'values'}" if left else ""
        unknown = f"; unknown for {values['unknown']:,} users" if values["unknown"] else ""
        yield f"attribute {name}", f"{common}{more}{unknown}"
    if not found["attributes"]:
        yield "attributes", "none"
    titles = found["titles"]
    yield (
        "titles",
        f"{titles['missing']:,} missing, {titles['shared']:,} shared with another item; characters: "
        + (_spread(titles["characters"])),
    )
    if titles["with_markup"] or titles["with_control_tokens"]:
        tokens = f"{titles['with_control_tokens']:,} with control tokens of models"
        yield "", f"{titles['with_markup']:,} with markup, {tokens}"
    for title in titles.get("suspect", ()):
        yield "  such as", title
    yield "categories", f"{found['with_category']:,} items have one"
    for note, count in found["notes"].items():
        yield "note", f"{count:,} {NOTES.get(note, note.replace('_', ' '))}"


def _roles(columns: dict[str, str]) -> Iterator[str]:
    """Role by role its columns."""
    for role in dict.fromkeys(columns.values()):
        yield f"{role}: {_names([name for name, each in columns.items() if each == role])}"


def _names(names: list[str]) -> str:
    return ", ".join(names[:MOST]) + (f" and {len(names) - MOST:,} more" if len(names) > MOST else "")


def _history(example: dict[str, Any]) -> Iterator[str]:
    """The first items, one a line."""
    shown = example["first"][:FIRST]
    for each in shown:
        when = f"{each['time'].removesuffix('+00:00')}  " if "time" in each else ""
        yield f"{when}{each['title']}"
    if example["length"] > len(shown):
        yield f"and {example['length'] - len(shown):,} more"


def _spread(values: dict[str, float]) -> str:
    return ", ".join(
        f"{name} {value:,.4g}" if value < 1e4 else f"{name} {value:,.0f}" for name, value in values.items()
    )
