"""Memory of a client at each cut, in training and in serving, from the model's shape alone.

Everything is in the type of the model's weights: adapter, gradients, the optimizer's moments, activations, keys and
values. What autograd keeps, and what is needed at the peak, is traced (`pplr_audit.training.costs.activations`). Not
counted: the process itself, the library's caches of free memory, the tokenizer, and copies of the adapter between
rounds.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from transformers.pytorch_utils import Conv1D

from pplr_audit.models.architectures import architecture, blocks, heads, outer_modules
from pplr_audit.models.cut import check_cut
from pplr_audit.models.recommenders.recformer import feeds_blocks
from pplr_audit.training.costs.activations import Kept, served, traced
from pplr_audit.training.costs.formulas import parameters_of

MOMENTS = {"adamw": 2, "sgd": 0}
"""Tensors the size of the adapter that the optimizer keeps (Kingma & Ba 2015, arXiv 1412.6980); SGD has no momentum."""


@dataclass(frozen=True)
class Held:
    """Contents of a client's memory at one time."""

    batch: int
    """Sequences of a training step."""
    tokens: int
    """Positions of each, padding included."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    prompt_tokens: int = 0
    """Positions of the prompt of a request, padding included; one request is served at a time."""
    generated_tokens: int = 0
    beams: int = 1


def memory_rows(model: Any, cuts: Iterable[tuple[int, int]], held: Held) -> list[dict[str, int]]:
    """Bytes for each (front, back), in order. ``model`` is on the meta device, with its adapter.

    ======================  ============================================================================================
    weight_bytes            frozen parameters of the client
    adapter_bytes           its trained parameters: LoRA, or what else RecFormer trains
    gradient_bytes          as many again
    optimizer_bytes         two moments for AdamW, none for SGD
    activation_bytes        what a step keeps for the backward pass of the client's blocks, head and loss
    working_bytes           what is there besides at the step's peak
    training_memory_bytes   all of these
    cache_bytes             keys and values of the client's blocks: beams x (prompt + generated - 1) positions, at most
                            window - 1 a sequence in blocks with a sliding window; 0 for an encoder
    serving_memory_bytes    weights, adapter, and the larger of two: the prompt's keys and values (all of them, with a
                            sliding window too: those that fall out of it are freed with the next token) with what the
                            pass over the prompt needs; or, of several beams, the keys and values of all of them, one
                            block's twice, as beams change places
    ======================  ============================================================================================

    Raises:
        InputError: a cut does not fit.
    """
    whole = blocks(model)
    layers, value = len(whole), next(model.parameters()).element_size()
    kept = traced(model, held.batch, held.tokens)
    serving = _serving(model, held)
    around = [*outer_modules(model).values(), *heads(model)]
    base, base_adapter = parameters_of(around), parameters_of(around, trainable=True)
    sizes = [(parameters_of([block]), parameters_of([block], trainable=True)) for block in whole]
    cache = [_cache_values(model, layer, held) * value for layer in range(layers)]
    rows = []
    for front, back in cuts:
        check_cut(front, back, layers)
        mine = [*range(front), *range(layers - back, layers)]
        adapter = base_adapter + sum(sizes[layer][1] for layer in mine)
        weights = base + sum(sizes[layer][0] for layer in mine) - adapter
        activations = _activations(kept, mine, feeds_blocks(model))
        found = {
            "weight_bytes": weights * value,
            "adapter_bytes": adapter * value,
            "gradient_bytes": adapter * value,
            "optimizer_bytes": MOMENTS[held.optimizer] * adapter * value,
            "activation_bytes": activations,
            # A step of an encoder without blocks is at its peak before anything is kept.
            "working_bytes": max(kept.working[bool(mine)], kept.entering - activations),
        }
        rows.append(
            {
                **found,
                "training_memory_bytes": sum(found.values()),
                "cache_bytes": sum(cache[layer] for layer in mine),
                "serving_memory_bytes": (weights + adapter) * value + serving(mine),
            }
        )
    return rows


def _activations(kept: Kept, mine: list[int], trained: bool) -> int:
    """``mine``: the client's blocks, by their absolute layers; ``trained``: so are the embeddings."""
    if not mine:
        return kept.around + kept.head
    # Behind a trunk what enters needs a gradient even where the client has no block in front.
    fresh = not mine[0] and not trained
    first = kept.fresh if fresh else kept.block[mine[0]]
    tables = kept.fresh_tables if mine == [0] and fresh else kept.tables
    return kept.around + tables + kept.head + first + sum(kept.block[layer] for layer in mine[1:])


def _serving(model: Any, held: Held) -> Callable[[list[int]], int]:
    """Return the function from the client's blocks to the bytes of a request at its peak, besides weights."""
    layers = range(len(blocks(model)))
    value: int = next(model.parameters()).element_size()
    nothing = {False: 0, True: 0}
    passing = served(model, 1, held.prompt_tokens) if held.prompt_tokens else nothing
    prompt = [_cache_values(model, layer, held, at_peak=True) * value for layer in layers]
    if held.beams == 1:
        return lambda mine: sum(prompt[layer] for layer in mine) + passing[bool(mine)]
    going_on = served(model, held.beams, 1)
    cache = [_cache_values(model, layer, held) * value for layer in layers]

    def peak(mine: list[int]) -> int:
        reading = sum(prompt[layer] for layer in mine) + passing[bool(mine)]
        # While beams change places one block's keys and values are there twice.
        moment = max([going_on[bool(mine)], *(cache[layer] for layer in mine)])
        return max(reading, sum(cache[layer] for layer in mine) + moment)

    return peak


def _cache_values(model: Any, layer: int, held: Held, *, at_peak: bool = False) -> int:
    """Numbers that one block's keys and values are, over all beams; ``at_peak`` of the one pass over the prompt."""
    kind, config = architecture(model), model.config
    if not kind.causal:
        return 0
    # A single beam goes on behind the prompt; several go on from copies.
    positions = held.prompt_tokens + max(held.generated_tokens - 1, 0) * (not at_peak or held.beams == 1)
    window = getattr(config, "sliding_window", None)
    types = getattr(config, "layer_types", None)
    if window and (types is None or types[layer] == "sliding_attention"):
        positions = max(min(positions, window - 1), held.prompt_tokens * at_peak)
    widths = [_outputs(blocks(model)[layer].get_submodule(path)) for path in kind.products.attention_in]
    # Queries, keys and values come from a layer each, or from one whose output is all three side by side.
    return (1 if at_peak else held.beams) * positions * (sum(widths[1:]) if len(widths) == 3 else widths[0] * 2 // 3)


def _outputs(layer: Any) -> int:
    layer = getattr(layer, "base_layer", layer)
    return int(layer.nf if isinstance(layer, Conv1D) else layer.out_features)
