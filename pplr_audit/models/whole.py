"""The same model uncut: for what needs no wire, such as a query to a trained model, or an adversary's own copy.

It shares the frozen weights with the model that is cut and has an adapter of its own.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pplr_audit.data.prompts import Prompt, Prompts, collate
from pplr_audit.models.bigrec import answer_log_probs, embed_titles, generate_titles, tensors
from pplr_audit.models.cut import positions, tap
from pplr_audit.models.family import blocks, body, family
from pplr_audit.models.lora import Adapter, adapter_off, adapter_parameters, load_adapter


class WholeModel:
    """An uncut model with LoRA, always in evaluation mode.

    Args:
        model: with its adapter in place, before it is cut; it is copied, all but the frozen weights.
        pad: token that fills up a batch.
    """

    def __init__(self, model: Any, pad: int) -> None:
        shared = {id(p): p for p in model.parameters() if not p.requires_grad}
        self.model = copy.deepcopy(model, shared).eval()
        self.pad = pad
        self._parameters = adapter_parameters(self.model)
        self.layers = len(blocks(self.model))

    @property
    def embeddings(self) -> Float[Tensor, "vocab hidden"]:
        """The input word embeddings, which no adapter changes."""
        table: Tensor = self.model.get_input_embeddings().weight
        return table.detach()

    def states(
        self,
        prompts: Sequence[Prompt],
        layers: Sequence[int],
        adapter: Mapping[str, Tensor] | None,
        *,
        batch: int = 64,
        side: str = "right",
    ) -> Iterator[tuple[int, dict[int, Float[Tensor, "length hidden"]]]]:
        """What enters each of ``layers`` for every prompt, without padding, in batches; only the blocks needed run.

        Args:
            adapter: the trained values, or None for the base model.
            side: of the padding: ``right`` as in training, ``left`` as in generation.

        Yields the place in ``prompts`` and h_l by l.
        """
        seen: dict[int, Tensor] = {}
        deepest = max(layers)
        whole = list(blocks(self.model))
        causal = family(self.model).causal
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            self._set(stack, adapter)
            stack.enter_context(
                tap([(layer, whole[layer]) for layer in layers], lambda layer, h: seen.__setitem__(layer, h))
            )
            stack.enter_context(_stop_after(self.model, deepest))
            for start in range(0, len(prompts), batch):
                part = prompts[start : start + batch]
                tokens, mask, _ = tensors(collate(part, self.pad, side=side))
                # Encoders number their positions themselves, not all from 0.
                places = {"position_ids": positions(mask)} if causal else {}
                body(self.model)(input_ids=tokens, attention_mask=mask, use_cache=False, **places)
                for row, prompt in enumerate(part):
                    own = slice(0, len(prompt)) if side == "right" else slice(tokens.shape[1] - len(prompt), None)
                    yield start + row, {layer: seen[layer][row, own].clone() for layer in layers}

    def log_probs(
        self, prompts: Sequence[Prompt], adapter: Mapping[str, Tensor] | None
    ) -> list[Float[np.ndarray, "answer"]]:
        """log-probability of each token of each prompt's answer, under the adapter or (None) the base model."""
        with ExitStack() as stack:
            self._set(stack, adapter)
            return answer_log_probs(self.model, prompts, self.pad)

    def served(self, adapter: Mapping[str, Tensor] | None, prompts: Prompts) -> "ServedWhole":
        """The model with this adapter (None: the base model), ready to recommend."""
        return ServedWhole(self, adapter, prompts)

    def _set(self, stack: ExitStack, adapter: Adapter | Mapping[str, Tensor] | None) -> None:
        if adapter is None:
            stack.enter_context(adapter_off(self.model))
        else:
            load_adapter(self._parameters, adapter)


@contextmanager
def _stop_after(model: Any, layer: int) -> Iterator[None]:
    """Within the block, a forward pass ends with block ``layer``: those above it have nothing to add."""
    inner, path, whole = body(model), family(model).blocks, blocks(model)
    inner.set_submodule(path, nn.ModuleList(list(whole)[: layer + 1]))
    try:
        yield
    finally:
        inner.set_submodule(path, whole)


class ServedWhole:
    """An uncut model that serves requests."""

    def __init__(self, whole: WholeModel, adapter: Mapping[str, Tensor] | None, prompts: Prompts) -> None:
        self._whole, self._adapter, self._prompts = whole, adapter, prompts

    def generate(self, prompts: Sequence[Prompt], beams: int) -> list[Int[np.ndarray, "length"]]:
        """A title for each prompt, as tokens."""
        with ExitStack() as stack:
            self._whole._set(stack, self._adapter)
            return generate_titles(self._whole.model, prompts, self._prompts, beams=beams)

    def embed(self, titles: Sequence[Int[np.ndarray, "length"]]) -> Float[np.ndarray, "titles hidden"]:
        """Points of titles in the base model's embedding space."""
        with adapter_off(self._whole.model):
            return embed_titles(self._whole.model, titles, self._prompts)
