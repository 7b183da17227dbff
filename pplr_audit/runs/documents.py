"""The two documents a report is made of, checked against the JSON Schemas that ship beside this file."""

import json
import math
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from pplr_audit.errors import InputError

Document = Mapping[str, Any]
_FINDINGS, _EVIDENCE = "findings.schema.json", "evidence.schema.json"
WITHOUT_TRUNK_UNKNOWN = (
    "Cuts that leave the server no block (k + m = L): client updates, personal models and losses still cross there. "
    "Where no attack read one of these, what it tells is unknown."
)


def validate(document: Document, name: str = "findings document") -> None:
    """Check a findings document (DESIGN, section 4).

    Raises:
        InputError: names the document, the first offending JSON path and what is accepted there.
    """
    _against_schema(_schema(_FINDINGS), name, document)
    _require_ordered(document, name)


def validate_part(part: str, rows: Any) -> None:
    """Check one list of rows of a findings document (``findings``, ``utility``, ...) or of the evidence (``roc``, ...).

    Raises:
        InputError: names the part, the first offending JSON path in it, and what is accepted there.
    """
    schema = next(found for found in map(_schema, (_FINDINGS, _EVIDENCE)) if part in found["properties"])
    _against_schema(schema["properties"][part], part, rows)
    if part == "roc":
        _require_pairs(rows, part)
    else:
        _require_ordered({part: rows}, part)


def validate_evidence(document: Document, name: str = "evidence document") -> None:
    """Check an evidence document; what the schema cannot say is that lists which belong together have one length.

    Raises:
        InputError: names the document, the first offending JSON path and what is accepted there.
    """
    _against_schema(_schema(_EVIDENCE), name, document)
    _require_pairs(document["roc"], name)
    for index, entry in enumerate(document["balance"]):
        size = len(entry["clients"])
        said = [entry[name] for name in ("weights", "status", "similarity", "matrix") if name in entry]
        rows = [row for values in said for row in values if isinstance(row, list)]
        if any(len(values) != size for values in [*said, *rows]):
            raise InputError(f"{name}: $.balance[{index}]: one value per client expected ({size} clients)")


def _require_ordered(document: Document, name: str) -> None:
    """An interval has its lower end first."""
    for path, interval in _intervals(document):
        if interval[0] > interval[1]:
            raise InputError(f"{name}: {path}: the interval's lower end is above its upper end")


def _require_pairs(curves: Any, name: str) -> None:
    for index, curve in enumerate(curves):
        if len(curve["fpr"]) != len(curve["tpr"]):
            raise InputError(f"{name}: $.roc[{index}].tpr: as many values as fpr expected")


def judged(document: Document) -> Document:
    """The document with every finding corrected for those that it is picked from, also one of an earlier version."""
    from pplr_audit.runs.verdicts import judged as corrected  # here, because the command line imports this module

    return corrected(document)


@cache
def _schema(name: str) -> dict[str, Any]:
    """The schema with each definition in the place of its reference: looked up once, not once for each row."""
    schema: dict[str, Any] = json.loads(files("pplr_audit.runs").joinpath(name).read_text(encoding="utf-8"))
    definitions = schema.pop("$defs")

    def inlined(part: Any) -> Any:
        if isinstance(part, list):
            return [inlined(each) for each in part]
        if not isinstance(part, dict):
            return part
        rest = {key: inlined(value) for key, value in part.items() if key != "$ref"}
        if "$ref" not in part:
            return rest
        definition = inlined(definitions[part["$ref"].removeprefix("#/$defs/")])
        return {"allOf": [definition], **rest} if rest else definition  # as a reference is looked at first

    found: dict[str, Any] = inlined(schema)
    return found


def _against_schema(schema: dict[str, Any], kind: str, document: Any) -> None:
    import jsonschema  # here, because the command line imports this module to print help

    first = next(jsonschema.Draft202012Validator(schema).iter_errors(document), None)
    error = jsonschema.exceptions.best_match([first]) if first else None  # inside a choice, the likeliest branch
    if error is not None:
        raise InputError(f"{kind}: {error.json_path}: {_one_line(error.message)}")
    for path, value in _numbers("$", document):
        if not math.isfinite(value):
            raise InputError(f"{kind}: {path}: a finite number expected, got {value}")


def _one_line(message: str, limit: int = 200) -> str:
    """The end of a jsonschema message says what is accepted; its start repeats the value, however large that is."""
    line = " ".join(message.split())
    return line if len(line) <= limit else f"{line[: limit // 2]} … {line[-limit // 2 :]}"


def _numbers(path: str, value: Any) -> Iterator[tuple[str, float]]:
    """Every float of the document with its path: JSON has no NaN or infinity, Python's reader lets them in."""
    if isinstance(value, float):
        yield path, value
    elif isinstance(value, Mapping):
        for key, child in value.items():
            yield from _numbers(f"{path}.{key}", child)
    elif isinstance(value, list | tuple):
        for index, child in enumerate(value):
            yield from _numbers(f"{path}[{index}]", child)


def _intervals(document: Document) -> Iterator[tuple[str, list[float]]]:
    for part in ("findings", "utility", "balance", "differences", "strategies", "seeds", "utility_seeds"):
        for index, row in enumerate(document.get(part, ())):
            if row["ci"] is not None:
                yield f"$.{part}[{index}].ci", row["ci"]
