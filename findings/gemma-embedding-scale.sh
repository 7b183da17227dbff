#!/usr/bin/env bash
# Finding: the rows of Gemma's embedding weight are not what enters its first block
# Versions: torch 2.13.0, transformers 5.24.0
# Behavior: the factor sqrt(hidden size) is applied by the embedding module, not by the model's forward pass: get_input_embeddings()(ids) is scaled, get_input_embeddings().weight[ids] is not, and hidden_states[0] equals the former
# Seen: module/weight 8.0 first hidden state is the module's output True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.13.0 transformers==5.24.0
cat > "$folder/see.py" <<'PYTHON'
import torch
from transformers import GemmaConfig, GemmaModel

config = GemmaConfig(
    vocab_size=32, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
    num_key_value_heads=1, head_dim=32,
)
torch.manual_seed(0)
model = GemmaModel(config).eval()
ids = torch.tensor([[5, 9, 17]])
embedding = model.get_input_embeddings()
with torch.no_grad():
    made, rows = embedding(ids), embedding.weight[ids]
    first = model(ids, output_hidden_states=True).hidden_states[0]
print("module/weight", round(float((made / rows).mean()), 4), "first hidden state is the module's output", torch.equal(first, made))
PYTHON
got=$("$folder/venv/bin/python" "$folder/see.py" 2>/dev/null | tail -1)
echo "$got"
[ "$got" = "module/weight 8.0 first hidden state is the module's output True" ]
