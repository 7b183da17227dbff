"""A tree of continuations is read as each of them alone would be, for every causal architecture."""

import numpy as np
import pytest
import torch
import transformers

from pplr_audit.models.architectures import blocks
from pplr_audit.models.token_tree import Prefix
from pplr_audit.models.uncut import UncutModel
from tests.models.architectures import CAUSAL, LAYERS, VOCABULARY, WINDOW, build, config

#      a - b - c
# ... <      \ d
#      e - f
PARENTS = [-1, 0, 1, 1, -1, 4]
PATHS = [[0, 1, 2], [0, 1, 3], [4, 5]]


@pytest.mark.parametrize("name", CAUSAL)
def test_a_tree_is_read_as_each_of_its_paths_alone(name: str) -> None:
    whole = UncutModel(build(transformers.AutoModelForCausalLM, config(name)))
    tokens = torch.randint(3, VOCABULARY, (WINDOW + 12,), generator=torch.Generator().manual_seed(3))
    start, middle, tree = tokens[:WINDOW], tokens[WINDOW : WINDOW + 6], tokens[WINDOW + 6 :]
    layers = list(range(LAYERS))
    chain = whole.extend(Prefix(), start, range(-1, WINDOW - 1), layers, None)
    wrong = whole.extend(chain.along(range(WINDOW)), middle, PARENTS, layers, None)
    prefix = wrong.along(PATHS[1])
    assert prefix.length == WINDOW + 3
    branches = whole.extend(prefix, tree, PARENTS, layers, None)
    for path in PATHS:
        alone = torch.cat([start, middle[PATHS[1]], tree[path]])[None]
        with torch.no_grad():
            seen = whole.model(alone, output_hidden_states=True).hidden_states
        for layer in layers:
            expected = seen[layer][0, -len(path) :]
            assert torch.allclose(branches.states[layer][path], expected, atol=1e-5), (layer, path)


def test_only_the_blocks_that_are_needed_run() -> None:
    whole = UncutModel(build(transformers.AutoModelForCausalLM, config("gpt2")))
    ran: list[int] = []
    for layer, block in enumerate(blocks(whole.model)):
        block.register_forward_hook(lambda *_, layer=layer: ran.append(layer))
    for deepest in range(LAYERS):
        branches = whole.extend(Prefix(), torch.tensor([5, 6]), [-1, 0], [0, deepest], None)
        assert ran == list(range(deepest))
        assert len(branches.kept) == deepest
        ran.clear()
    assert np.isfinite(branches.states[0].numpy()).all()
    assert len(blocks(whole.model)) == LAYERS, "the model is whole again"
