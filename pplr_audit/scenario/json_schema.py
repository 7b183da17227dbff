"""The JSON Schema of scenario files, for editors. ``python -m pplr_audit.scenario.json_schema`` prints it."""

import json
from typing import Any

from pplr_audit.scenario.schema import Scenario


def json_schema() -> dict[str, Any]:
    """The schema as JSON values."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Scenario.model_json_schema()}


def text() -> str:
    """The schema as it is written to ``scenarios/scenario.schema.json``."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(text(), end="")
