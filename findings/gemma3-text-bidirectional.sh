#!/usr/bin/env bash
# Finding: a model that loads as a causal language model may let every position see what comes after it
# Versions: torch 2.13.0, transformers 5.24.0
# Behavior: with "use_bidirectional_attention": true in a gemma3_text config, AutoModelForCausalLM loads the folder as Gemma3ForCausalLM, and the logits of position 0 change when the last token does; with false they do not
# Seen: false Gemma3ForCausalLM position 0 changes False; true Gemma3ForCausalLM position 0 changes True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.13.0 transformers==5.24.0
cat > "$folder/see.py" <<'PYTHON'
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig

seen = []
for both_ways in (False, True):
    config = Gemma3TextConfig(
        vocab_size=32, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, use_bidirectional_attention=both_ways,
    )
    torch.manual_seed(0)
    folder = Path(sys.argv[1]) / str(both_ways)
    Gemma3ForCausalLM(config).save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        one, other = (model(torch.tensor([[5, 9, last]])).logits[0, 0] for last in (17, 18))
    changes = not torch.allclose(one, other, atol=1e-6)
    seen.append(f"{str(both_ways).lower()} {type(model).__name__} position 0 changes {changes}")
print("; ".join(seen))
PYTHON
got=$("$folder/venv/bin/python" "$folder/see.py" "$folder/model" 2>/dev/null | tail -1)
echo "$got"
[ "$got" = "false Gemma3ForCausalLM position 0 changes False; true Gemma3ForCausalLM position 0 changes True" ]
