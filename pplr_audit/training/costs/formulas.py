"""Costs of each cut to a client: memory, arithmetic and traffic, from the model's config alone.

The model is built on the meta device, so that every size is read off the library's own modules and no weight is needed.
Arithmetic is counted as matrix products (one multiply-add is 2 FLOP); what is elementwise is left out, as in
`torch.utils.flop_counter`, with whose counts these agree.
"""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers.pytorch_utils import Conv1D

from pplr_audit import scenario
from pplr_audit.models.architectures import Products, architecture, architecture_of, blocks, heads, outer_modules
from pplr_audit.models.backbones.transformers_api import from_config
from pplr_audit.models.cut import check_cut
from pplr_audit.models.lora import LINEAR, add_lora
from pplr_audit.models.precision import Precision, choose_attention, fused
from pplr_audit.models.recommenders.recformer import feeds_blocks
from pplr_audit.models.trainable import make_trainable

MASK_BYTES = 1
BEAM_BYTES = 4
"""A position of the mask crosses as one byte."""
STATUS_BYTES = 8
"""The training loss crosses as one double."""


@dataclass(frozen=True)
class Workload:
    """The work of one client in a run: all that its cost depends on besides the model and the cut."""

    samples: float
    """Training samples that the client goes through in one round (each local epoch counts again)."""
    tokens_per_sample: float
    """Positions that cross for one training sample, padding included: the mean over samples of their batch's length."""
    bytes_per_value: int = 4
    """Bytes of a value of weights, activations and adapters: 4 for float32."""
    prompt_tokens: float = 0.0
    """Positions of a prompt at serving, padding included."""
    generated_tokens: float = 0.0
    """Tokens generated for one request, along one beam."""
    title_tokens: float = 0.0
    """Positions of the generated title when the base model embeds it to ground it in the catalogue."""
    beams: int = 1
    catalogue_tokens: float = 0.0
    """Positions of the catalogue that a client's own model encodes in a round, padding included."""
    status_bytes: int = STATUS_BYTES
    """Bytes that a client says of itself in one round: its training loss, and the metric where it stops early."""


def cost_rows(
    config: PreTrainedConfig, lora: scenario.Lora, cuts: Iterable[tuple[int, int]], workload: Workload
) -> list[dict[str, Any]]:
    """The ``costs`` rows of a findings document, one for each (front, back) in ``cuts``, in that order.

    ========================  ==========================================================================================
    client_parameters         embeddings, final norm, head, front and back blocks with their adapters; tied ones once
    client_bytes              the same times ``bytes_per_value``: weights only, no gradients or optimizer state
    client_share              client_parameters over those of the whole model with its adapter
    client_flops_per_token    forward over a sample of T tokens, over T: 2 x the weights of every linear layer that the
                              client runs (adapters and head too), and 4·T·heads·head_dim a block for attention: both
                              products over all T positions, as kernels are counted, though half are masked
    training_flops_per_token  forward and backward: a frozen weight costs one product, for its input's gradient, and
                              nothing below the client's lowest adapter; an adapter costs also its own gradient;
                              attention 2.5 times its forward, at most twice where it has dropout or no fused
                              kernel
    wire_bytes_per_sample     4 crossings of (T, hidden) and one of the mask; 0 where no trunk is left
    wire_bytes_per_round      of one client, both ways: its samples, its adapter's update up and personal model down,
                              and its loss; the trunk's adapter never crosses
    serving_wire_bytes_per_request  2 crossings of (positions, hidden) and the mask, over prompt - 1 + beams · generated
                              + title positions: the prompt is read once, all but its last token, from which each beam
                              goes on, and the last token generated is never fed back; with several beams, 4 bytes a
                              beam before the first token and after each that say which beam goes on
    seconds_per_round         null: this is measured, not computed
    ========================  ==========================================================================================

    Args:
        config: of a family that can be cut; it is not changed. An encoder is its body, without pooler and head.

    Raises:
        InputError: the architecture cannot be cut, a LoRA target is missing, or a cut does not fit.
    """
    return rows_of(meta_model(config, lora), cuts, workload)


def rows_of(model: Any, cuts: Iterable[tuple[int, int]], workload: Workload) -> list[dict[str, Any]]:
    """The same for a model that `meta_model` built."""
    T, value = workload.tokens_per_sample, workload.bytes_per_value
    products = architecture(model).products
    layers = [_block_cost(block, products, T, fused(model)) for block in blocks(model)]
    head = heads(model)
    around = [*outer_modules(model).values(), *head]
    held_always, trained_always = parameters_of(around), parameters_of(around, trainable=True)
    whole = held_always + sum(block.parameters for block in layers)
    positions = workload.prompt_tokens + max(workload.beams * workload.generated_tokens - 1, 0)
    beams = BEAM_BYTES * workload.beams * (workload.generated_tokens + 1) if workload.beams > 1 else 0.0
    rows = []
    for front, back in cuts:
        check_cut(front, back, len(layers))
        near, far = layers[:front], layers[len(layers) - back :]
        has_trunk = front + back < len(layers)
        held = held_always + sum(block.parameters for block in near + far)
        adapter = trained_always + sum(block.adapter for block in near + far)
        forward = sum(block.forward for block in near + far) + sum(map(_linears, head))
        activation = model.config.hidden_size * value
        wire_sample = T * (4 * activation + MASK_BYTES) if has_trunk else 0.0
        wire_catalogue = workload.catalogue_tokens * (2 * activation + MASK_BYTES) if has_trunk else 0.0
        wire_request = (positions + workload.title_tokens) * (2 * activation + MASK_BYTES) + beams if has_trunk else 0.0
        rows.append(
            {
                "cut": {"front": front, "back": back},
                "client_parameters": held,
                "client_bytes": held * value,
                "client_share": held / whole,
                "client_flops_per_token": forward,
                "training_flops_per_token": forward + _backward(near, far, head, has_trunk, feeds_blocks(model)),
                "wire_bytes_per_sample": wire_sample,
                "wire_bytes_per_round": (
                    workload.samples * wire_sample + wire_catalogue + 2 * adapter * value + workload.status_bytes
                ),
                "serving_wire_bytes_per_request": wire_request,
                "seconds_per_round": None,
            }
        )
    return rows


def all_cuts(layers: int) -> list[tuple[int, int]]:
    """Every (front, back) of a model with so many blocks, those without a trunk too."""
    return [(front, back) for front in range(layers + 1) for back in range(layers + 1 - front)]


@dataclass(frozen=True)
class _Block:
    """Costs of one block; FLOP a token."""

    parameters: int
    adapter: int
    forward: float
    backward: dict[bool, tuple[float, bool]]
    """Cost, and whether what leaves needs a gradient; by whether what enters does."""


def _block_cost(block: nn.Module, products: Products, tokens: float, kernel: bool) -> _Block:
    return _Block(
        parameters_of([block]),
        parameters_of([block], trainable=True),
        _linears(block) + _attention(block, products, tokens),
        {needed: _block_backward(block, products, tokens, kernel, needed) for needed in (False, True)},
    )


def meta_model(
    config: PreTrainedConfig, lora: scenario.Lora, dtype: torch.dtype = torch.float32,
    recformer: scenario.Recformer | None = None, history: int = 0, items: int = 0,
    precision: Precision = "float32",
) -> Any:  # fmt: skip
    """A model with its adapter on the meta device: all its modules and sizes, and no values. ``config`` is not changed.

    Args:
        recformer: for a model of RecFormer; ``history`` is the most items that it reads, ``items`` all of the
            catalogue.
        precision: of a run's passes, in which attention is made of plain products or a fused kernel.

    Raises:
        InputError: the architecture cannot be cut, or a LoRA target is missing.
    """
    architecture_of(config.model_type, "model.backbone")
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        model: Any = from_config(copy.deepcopy(config))
        choose_attention(model, precision)
        if recformer is None:
            add_lora(model, lora, 0)
        else:
            settings = scenario.Model(recommender="recformer", lora=lora, recformer=recformer)
            make_trainable(model, settings, history=history, items=items, seed=0)
    # All at once at the end: the library builds a model in the type that its config states, and an adapter in float32.
    return model.to(dtype)


def backbone_parameters(config: PreTrainedConfig) -> int:
    """Parameters of a model as it is before anything is trained: no adapter, and none of RecFormer's embeddings."""
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        model: Any = from_config(copy.deepcopy(config))
    return parameters_of([*outer_modules(model).values(), *heads(model), *blocks(model)])


def parameters_of(modules: Sequence[nn.Module], *, trainable: bool = False) -> int:
    """Parameters of ``modules``, shared ones counted once."""
    found = {id(p): p.numel() for m in modules for p in m.parameters() if p.requires_grad or not trainable}
    return sum(found.values())


def _linears(module: nn.Module) -> float:
    """Forward FLOP a token of all linear layers in ``module``."""
    return sum(2.0 * m.weight.numel() for m in module.modules() if isinstance(m, LINEAR))


def _attention(block: nn.Module, products: Products, tokens: float) -> float:
    """Forward FLOP a token of the two products of attention, scores and weighted values: 4 · T · heads · head_dim."""
    reads: Any = block.get_submodule(products.attention_out)
    layer = getattr(reads, "base_layer", reads)
    return 4.0 * tokens * int(layer.nx if isinstance(layer, Conv1D) else layer.in_features)


def _backward(
    near: Sequence[_Block], far: Sequence[_Block], head: Sequence[nn.Module], has_trunk: bool, needed: bool
) -> float:
    """Backward FLOP a token of everything that the client runs. ``needed``: embeddings are trained, too."""
    total = 0.0
    for block in near:
        flops, needed = block.backward[needed]
        total += flops
    # What comes back from the server needs a gradient, whatever the front is made of: the trunk waits for it.
    needed = needed or has_trunk
    for block in far:
        flops, needed = block.backward[needed]
        total += flops
    return total + sum(_linear_backward(part, needed) for part in head)


def _block_backward(
    block: nn.Module, products: Products, tokens: float, kernel: bool, needed: bool
) -> tuple[float, bool]:
    """Backward FLOP a token of one block, and whether what leaves it needs a gradient.

    ``needed``: what enters needs one, because something below it is trained. A frozen weight costs one product, for the
    gradient of its input, and only if that is needed; so nothing runs below the lowest adapter. Attention costs 5
    products for the forward's 2 where a fused ``kernel`` keeps no scores and computes them again.
    """
    total = 0.0

    def through(paths: Sequence[str], needed: bool) -> bool:
        """Adds the layers at ``paths``, which read one thing; whether what they give needs a gradient."""
        nonlocal total
        layers = [block.get_submodule(path) for path in paths]
        total += sum(_linear_backward(layer, needed) for layer in layers)
        return needed or any(map(_trained, layers))

    total += _attention_backward(block, products, kernel, needed) / 2 * _attention(block, products, tokens)
    needed = through(products.attention_in, needed)
    needed = through([products.attention_out], needed)
    needed = through(products.mlp_in, needed)
    needed = through([products.mlp_out], needed)
    return total, needed


def _attention_backward(block: nn.Module, products: Products, kernel: bool, needed: bool) -> int:
    """Products of attention's backward pass, of which the forward has two: S = QK' and O = PV, P the softmax of S.

    The fused kernel does all of them, and S again. Plain attention takes single steps, as does a CPU with dropout, each
    only where what it finds is needed: dV, dP, dQ and dK.
    """
    wanted = [needed or _trained(block.get_submodule(path)) for path in products.attention_in]
    q, k, v = wanted * (3 // len(wanted))
    if kernel and not attention_dropout(block, products):
        return 5 * any(wanted)
    return v + (q or k) + q + k


def attention_dropout(block: nn.Module, products: Products) -> float:
    """The rate at which attention's probabilities are dropped in training."""
    rate: Any = attrgetter(products.attention_dropout)(block)
    return float(getattr(rate, "p", rate))


def _linear_backward(layer: nn.Module, needed: bool) -> float:
    """One linear layer, or one with its adapter: y = W x + s B A x, W frozen, A and B trained."""
    total = 0
    for name, part in layer.named_modules():
        if isinstance(part, LINEAR):
            # B reads A x, which always needs a gradient, as A is trained.
            total += 2 * part.weight.numel() * (part.weight.requires_grad + (needed or "lora_B" in name))
    return float(total)


def _trained(layer: nn.Module) -> bool:
    return any(p.requires_grad for p in layer.parameters())
