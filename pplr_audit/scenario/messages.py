"""Messages about a wrong scenario, one line a field: the place, the field, what stands there, what is accepted."""

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from pplr_audit.errors import visible
from pplr_audit.scenario.plugins import unknown
from pplr_audit.scenario.yaml_reader import Document, Loc

Schema = dict[str, Any]
_RANGES = {
    "minimum": "{} or more",
    "exclusiveMinimum": "more than {}",
    "maximum": "{} or less",
    "exclusiveMaximum": "less than {}",
    "pattern": "of the form {}",
    "minLength": "at least {} characters",
    "minItems": "at least {} of them",
}
_TYPES = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "null": "null",
}


def explain(error: ValidationError, document: Document, schema: Schema) -> str:
    """One line for each field that ``error`` is about, in the order of the fields."""
    lines: dict[Loc, str] = {}
    for problem in error.errors(include_url=False):
        if problem["type"] == "conflict":
            loc: Loc = tuple(int(part) if part.isdigit() else part for part in str(problem["ctx"]["field"]).split("."))
            text = f"{dotted(loc)}: {problem['msg']}"
        else:
            loc = tuple(_kept(problem["loc"], document.values, schema, schema))
            text = _problem(problem, loc, document, schema)
        # A union reports each of its branches: the first one at a place speaks for all.
        lines.setdefault(loc, f"{document.place(loc)}: {text}")
    # Of the branches of a union, the one that fits the value best fails deepest.
    return "\n".join(text for loc, text in lines.items() if not any(o != loc and o[: len(loc)] == loc for o in lines))


def dotted(loc: Loc) -> str:
    """``audit.cuts[1]`` for ("audit", "cuts", 1); on one line, whatever a key holds."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{visible(part)}" for part in loc).lstrip(".")


def _problem(problem: Any, loc: Loc, document: Document, schema: Schema) -> str:
    kind, name = problem["type"], dotted(loc)
    if kind == "extra_forbidden":
        section = dotted(loc[:-1]) or "the scenario"
        known = tuple(_at(loc[:-1], schema).get("properties", {}))
        return unknown(f"{name}: unknown field {loc[-1]!r} in {section}", str(loc[-1]), known)
    if kind in ("value_error", "assertion_error"):
        return f"{name}: {problem['ctx']['error']}"
    accepted = describe(_at(loc, schema), schema)
    value = _value(loc, document.values)
    if kind == "missing" or value is None:
        return f"{name} is required: give it in the file or with --set {name}=VALUE (accepted: {accepted})"
    return f"{name}: {_short(value)} is not accepted (accepted: {accepted})"


def describe(part: Schema, schema: Schema) -> str:
    """Say in words what a part of a JSON Schema accepts.

    >>> describe({"type": "integer", "minimum": 2}, {})
    'a whole number, 2 or more'
    >>> describe({"type": "string", "description": "a folder"}, {})
    'a folder'
    >>> describe({"anyOf": [{"const": "all"}, {"type": "array", "items": {"type": "integer"}}]}, {})
    'all, or a list, each a whole number'
    """
    part = _resolve(part, schema)
    if "anyOf" in part:
        return ", or ".join(describe(branch, schema) for branch in part["anyOf"])
    if "enum" in part:
        return f"one of {', '.join(map(str, part['enum']))}"
    if "const" in part:
        return str(part["const"])
    if part.get("type") == "string" and "description" in part:
        return str(part["description"])
    if "properties" in part:
        return f"a section with {', '.join(part['properties'])}"
    if part.get("type") == "object":
        return "a name with its settings, {name: {setting: value}}"
    if part.get("type") == "array":
        if "prefixItems" in part:
            return f"a list of {len(part['prefixItems'])}, each {describe(part['prefixItems'][0], schema)}"
        words = f"a list, each {describe(part.get('items', {}), schema)}"
    else:
        words = _TYPES.get(str(part.get("type")), "anything")
    return ", ".join([words, *(text.format(part[key]) for key, text in _RANGES.items() if key in part)])


def _kept(loc: Loc, values: Any, part: Schema, schema: Schema) -> Iterator[str | int]:
    """``loc`` without the names of union branches that pydantic puts between the fields."""
    for step in loc:
        inside = isinstance(values, dict) and step in values
        inside = inside or (isinstance(values, list) and isinstance(step, int) and step < len(values))
        if inside or (isinstance(step, str) and step in part.get("properties", {})):
            yield step
            part = _child(part, step, schema)
            values = values[step] if inside else None


def _at(loc: Loc, schema: Schema) -> Schema:
    part = _resolve(schema, schema)
    for step in loc:
        part = _child(part, step, schema)
    return part


def _child(part: Schema, step: str | int, schema: Schema) -> Schema:
    for branch in [part, *(_resolve(branch, schema) for branch in part.get("anyOf", []))]:
        if isinstance(step, str) and step in branch.get("properties", {}):
            return _resolve(branch["properties"][step], schema)
        if isinstance(step, int) and step < len(branch.get("prefixItems", [])):
            return _resolve(branch["prefixItems"][step], schema)
        key = "items" if isinstance(step, int) else "additionalProperties"
        if isinstance(branch.get(key), dict):
            return _resolve(branch[key], schema)
    return {}


def _resolve(part: Schema, schema: Schema) -> Schema:
    while "$ref" in part:
        part = schema["$defs"][part["$ref"].rpartition("/")[2]]
    return part


def _value(loc: Loc, values: Any) -> Any:
    for step in loc:
        try:
            values = values[step]
        except (LookupError, TypeError):
            return None
    return values


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
