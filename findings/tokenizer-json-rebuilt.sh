#!/usr/bin/env bash
# Finding: the class that a model type names may build its tokenizer anew, and drop a step that tokenizer.json spells out
# Versions: transformers 5.24.0, tokenizers 0.23.3
# Behavior: with "model_type": "qwen2" in config.json, AutoTokenizer loads a tokenizer.json whose normalizer lower-cases, and the loaded tokenizer no longer lower-cases: the file's own ids and the loaded ones differ
# Seen: file [2, 2] loaded [1, 2]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet transformers==5.24.0 tokenizers==0.23.3
cat > "$folder/see.py" <<'PYTHON'
import json
import sys
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer

folder = Path(sys.argv[1])
folder.mkdir()
tokenizer = Tokenizer(models.BPE(vocab={"<|endoftext|>": 0, "A": 1, "a": 2}, merges=[]))
tokenizer.normalizer = normalizers.Lowercase()
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.save(str(folder / "tokenizer.json"))
(folder / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
(folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Qwen2Tokenizer"}))
file = Tokenizer.from_file(str(folder / "tokenizer.json")).encode("Aa").ids
loaded = AutoTokenizer.from_pretrained(folder)("Aa")["input_ids"]
print("file", file, "loaded", loaded)
PYTHON
got=$("$folder/venv/bin/python" "$folder/see.py" "$folder/model" 2>/dev/null | tail -1)
echo "$got"
[ "$got" = "file [2, 2] loaded [1, 2]" ]
