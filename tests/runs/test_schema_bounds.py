"""Every number of the two documents has a least and a most."""

from collections.abc import Iterator
from typing import Any

import pytest

from pplr_audit.runs.documents import _schema


def integers(schema: Any, at: str = "$") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every part of a schema that accepts whole numbers, with where it stands."""
    if isinstance(schema, dict):
        kinds = schema.get("type", ())
        if "integer" in kinds or "number" in kinds:
            yield at, schema
        for key, inner in schema.items():
            yield from integers(inner, f"{at}.{key}")
    elif isinstance(schema, list):
        for place, inner in enumerate(schema):
            yield from integers(inner, f"{at}[{place}]")


@pytest.mark.parametrize("name", ["findings.schema.json", "evidence.schema.json"])
def test_every_number_of_both_schemas_has_a_least_and_a_most(name: str) -> None:
    bounded = {at: {"minimum", "maximum"} <= part.keys() for at, part in integers(_schema(name))}
    repeated = {at for at in bounded if ".then." in at or at.endswith("notes.additionalProperties")}
    assert len(bounded) > 4
    assert [at for at, known in bounded.items() if not known and at not in repeated] == []
