#!/usr/bin/env bash
# Finding: a nested value of JSON lines that polars reads as text is another value where it holds a backslash
# Versions: polars 2.1.0
# Behavior: read_ndjson with a schema that says String writes a list back as text and escapes quotation marks and line ends in it, but not backslashes: json.loads gives another value
# Seen: in ["c:\\new"] out ["c:\new"] quotation marks kept True backslashes kept False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet polars==2.1.0
cat > "$folder/see.py" <<'PYTHON'
import io
import json

import polars as pl


def through(value: list[str]) -> str:
    line = json.dumps({"a": value}) + "\n"
    return pl.read_ndjson(io.BytesIO(line.encode()), schema={"a": pl.String})["a"][0]


quoted, path = ['24" screen'], ["c:\\new"]
text = through(path)
print(
    "in", json.dumps(path), "out", text,
    "quotation marks kept", json.loads(through(quoted)) == quoted, "backslashes kept", json.loads(text) == path,
)
PYTHON
got=$("$folder/venv/bin/python" "$folder/see.py" | tail -1)
echo "$got"
[ "$got" = 'in ["c:\\new"] out ["c:\new"] quotation marks kept True backslashes kept False' ]
