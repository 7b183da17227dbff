"""The two documents a report is made of, checked against the JSON Schemas that ship beside this file."""

import json
import math
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from pplr_audit.errors import InputError

Document = Mapping[str, Any]


def validate(document: Document) -> None:
    """Check a findings document (DESIGN, section 4).

    Raises:
        InputError: names the first offending JSON path and what is accepted there.
    """
    _against_schema("findings.schema.json", "findings document", document)
    for path, interval in _intervals(document):
        if interval[0] > interval[1]:
            raise InputError(f"findings document: {path}: the interval's lower end is above its upper end")


def validate_evidence(document: Document) -> None:
    """Check an evidence document; what the schema cannot say is that lists which belong together have one length.

    Raises:
        InputError: names the first offending JSON path and what is accepted there.
    """
    _against_schema("evidence.schema.json", "evidence document", document)
    for index, curve in enumerate(document["roc"]):
        if len(curve["fpr"]) != len(curve["tpr"]):
            raise InputError(f"evidence document: $.roc[{index}].tpr: as many values as fpr expected")
    for index, entry in enumerate(document["balance"]):
        size = len(entry["clients"])
        said = [entry[name] for name in ("weights", "status", "similarity", "matrix") if name in entry]
        rows = [row for values in said for row in values if isinstance(row, list)]
        if any(len(values) != size for values in [*said, *rows]):
            raise InputError(f"evidence document: $.balance[{index}]: one value per client expected ({size} clients)")


@cache
def _schema(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(files("pplr_audit.report").joinpath(name).read_text(encoding="utf-8"))
    return schema


def _against_schema(name: str, kind: str, document: Document) -> None:
    import jsonschema  # here, because the command line imports this module to print help

    first = next(jsonschema.Draft202012Validator(_schema(name)).iter_errors(document), None)
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
    for part in ("findings", "utility", "balance", "differences"):
        for index, row in enumerate(document.get(part, ())):
            if row["ci"] is not None:
                yield f"$.{part}[{index}].ci", row["ci"]
