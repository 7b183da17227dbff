"""JSON lines: one object a line, or the Python literals that some publishers ship in their place (never executed)."""

import ast
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Int

from pplr_audit.data.files.columns import Gathering, Kind, Table, named
from pplr_audit.data.files.messages import quote
from pplr_audit.data.files.streams import Block, NotText, Stream, not_text
from pplr_audit.errors import InputError

LOOK = 200
"""Objects at the start of a file whose fields are its columns; a field may be missing in some of them."""
LONGEST_LINE = 1 << 22


def read_json_lines(path: Path, kinds: Mapping[str, Kind], *, lenient: bool = False) -> Table:
    """The fields that ``kinds`` names; text that is no string is given as JSON (so a list of levels, see `levels`).

    A field that a line does not have is empty; ``lenient`` leaves out lines without an id or a time. Raises InputError
    for a field that none of the first lines has, for the first line that is no object, for a value that is not of its
    kind, and as reading any file does.
    """
    try:
        known = columns_of(path)
        for name in kinds:
            named(known, f"{path}, line 1", name)
        stream, gathering = Stream(path, "utf-8"), Gathering(path, kinds, lenient=lenient)
        for block in stream:
            frame = _parse(block, list(kinds), path)
            if len(frame):
                gathering.add(frame, block.line, _lines_of_rows(frame, block))
        return gathering.table(stream.source, known)
    except NotText as wrong:
        raise not_text(path, ("utf-8",), wrong) from None


def columns_of(path: Path) -> list[str]:
    """The fields of the first lines, in the order met. Raises InputError as reading does."""
    return list(dict.fromkeys(field for each in _first(path) for field in each))


def head(path: Path) -> pl.DataFrame:
    """The first lines, all fields as text. Raises InputError as reading does."""
    objects = _first(path)
    fields = dict.fromkeys(field for each in objects for field in each)
    return pl.DataFrame({name: [_text(each.get(name)) for each in objects] for name in fields},
                        schema=dict.fromkeys(fields, pl.String))  # fmt: skip


def _first(path: Path) -> list[dict[str, Any]]:
    try:
        block = next(iter(Stream(path, "utf-8")))
    except NotText as wrong:
        raise not_text(path, ("utf-8",), wrong) from None
    lines = enumerate(block.data.split(b"\n", LOOK)[:LOOK], block.line)
    return [_object(line, f"{path}, line {at}", block.whole) for at, line in lines if line.strip()]


def levels(text: str) -> str:
    """A list of categories, possibly of lists (then the first), as one string with ``|`` between; text stays.

    >>> levels('[["Games", "PC"]]'), levels("Games"), levels("")
    ('Games|PC', 'Games', '')
    """
    return "|".join(each_level(text))


def each_level(text: str) -> list[str]:
    """The categories of one item, as `levels` reads them."""
    found = _literal(text) if text.startswith("[") else None
    while isinstance(found, list) and found and isinstance(found[0], list):
        found = found[0]
    # What only looks like a list is text that begins with a bracket.
    return [str(level) for level in found if level and level == level] if isinstance(found, list) else [text]


def _parse(block: Block, names: Sequence[str], path: Path) -> pl.DataFrame:
    schema = pl.Schema(dict.fromkeys(names, pl.String))
    try:
        return _with_escapes(pl.read_ndjson(block.data, schema=schema), block, path)
    except pl.exceptions.PolarsError:
        # Line by line: what polars refuses may be a Python literal, a long number, or wrong.
        lines = enumerate(block.data.removesuffix(b"\n").split(b"\n"), block.line)
        objects = [_object(line, f"{path}, line {at}", block.whole) for at, line in lines if line.strip()]
        columns = {name: [_text(each.get(name)) for each in objects] for name in names}
        return pl.DataFrame(columns, schema=schema)


def _with_escapes(frame: pl.DataFrame, block: Block, path: Path) -> pl.DataFrame:
    """Read lists and objects again where they may hold a backslash: polars writes it into their text unescaped."""
    if b"\\" not in block.data:
        return frame
    begins = pl.any_horizontal(pl.all().str.starts_with("["), pl.all().str.starts_with("{"))
    rows = np.flatnonzero(frame.select(begins.fill_null(False)).to_series().to_numpy())
    lines, within = block.data.removesuffix(b"\n").split(b"\n"), _lines_of_rows(frame, block)
    columns = {name: frame[name].to_list() for name in frame.columns}
    for row in rows.tolist():
        at = row if within is None else int(within[row])
        if b"\\" in lines[at]:
            found = _object(lines[at], f"{path}, line {block.line + at}", block.whole)
            for name, values in columns.items():
                values[row] = _text(found.get(name))
    return pl.DataFrame(columns, schema=frame.schema)


def _object(line: bytes, where: str, whole: bool = True) -> dict[str, Any]:
    if len(line) > LONGEST_LINE:
        raise InputError(f"{where}: more than {LONGEST_LINE >> 20} MB (accepted: one JSON object a line)")
    text = line.decode()
    found = _literal(text)
    if not isinstance(found, dict):
        cut = "" if whole or text.rstrip().endswith(("}", "]")) else "; the file may be cut short"
        raise InputError(f"{where}: {quote(text.strip())} is no JSON object{cut} (accepted: one object a line)")
    return {str(key): value for key, value in found.items()}


def _literal(text: str) -> Any:
    """JSON, or a Python literal; None for what is neither. Nothing is executed."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        try:
            with warnings.catch_warnings():
                # A backslash that escapes nothing is a letter; Python warns of it.
                warnings.simplefilter("ignore")
                return ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            return None


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and math.isnan(value):
        return None
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return str(value)


def _lines_of_rows(frame: pl.DataFrame, block: Block) -> Int[np.ndarray, "rows"] | None:
    """Lines from the block's first to each row's, where lines between are blank."""
    if len(frame) == block.lines:
        return None
    lines = block.data.removesuffix(b"\n").split(b"\n")
    return np.array([at for at, line in enumerate(lines) if line.strip()], dtype=np.int64)
