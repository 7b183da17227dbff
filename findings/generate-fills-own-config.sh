#!/usr/bin/env bash
# Finding: a generation config that the caller passes to generate() is filled up from the model folder
# Versions: torch 2.13.0, transformers 5.24.0
# Behavior: fields that the passed GenerationConfig leaves open are taken from the folder's generation_config.json, not from the defaults of the class: a repetition_penalty there changes what greedy decoding answers, unless the caller says repetition_penalty=1.0
# Seen: left open: same as without the file False said 1.0: same True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.13.0 transformers==5.24.0
cat > "$folder/see.py" <<'PYTHON'
import sys

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, LlamaForCausalLM

config = LlamaConfig(
    vocab_size=32, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
    bos_token_id=1, eos_token_id=None, pad_token_id=0,
)
torch.manual_seed(0)
made = LlamaForCausalLM(config)
made.save_pretrained(sys.argv[1] + "/plain")
made.generation_config.repetition_penalty = 5.0
made.save_pretrained(sys.argv[1] + "/penalty")
ids = torch.tensor([[5, 9, 17]])


def answer(folder: str, **said: float) -> list[int]:
    model = AutoModelForCausalLM.from_pretrained(f"{sys.argv[1]}/{folder}").eval()
    own = GenerationConfig(max_new_tokens=8, do_sample=False, pad_token_id=0, **said)
    return model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=own)[0, 3:].tolist()


plain = answer("plain")
print(
    "left open: same as without the file", answer("penalty") == plain,
    "said 1.0: same", answer("penalty", repetition_penalty=1.0) == plain,
)
PYTHON
got=$("$folder/venv/bin/python" "$folder/see.py" "$folder" 2>/dev/null | tail -1)
echo "$got"
[ "$got" = "left open: same as without the file False said 1.0: same True" ]
