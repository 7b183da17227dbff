"""The same model uncut: for what needs no wire, such as a query to a trained model, or an adversary's own copy.

It shares the frozen weights with the model that is cut and has an adapter of its own.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pplr_audit.data.prompts import Prompt
from pplr_audit.models.cut import Tapped, entered_at, tap
from pplr_audit.models.family import blocks, body, family
from pplr_audit.models.lora import adapter_off, adapter_parameters, load_adapter, read_adapter
from pplr_audit.models.task import Memory, Tally, Task, Weights, by_length


class WholeModel:
    """An uncut model with its adapter, always in evaluation mode.

    Args:
        model: as training begins with it, before it is cut; it is copied, all but the frozen weights.
        task: what it is for; it may be given later, as what the base model works out for it takes this very model.
    """

    def __init__(self, model: Any, task: Task | None = None) -> None:
        shared = {id(p): p for p in model.parameters() if not p.requires_grad}
        self.model = copy.deepcopy(model, shared).eval()
        if task is not None:
            self.task: Task = task
        self._parameters = adapter_parameters(self.model)
        self._initial = read_adapter(self._parameters)
        self.layers = len(blocks(self.model))
        table: Tensor = self.model.get_input_embeddings().weight
        self.embeddings: Float[Tensor, "vocab hidden"] = table.detach()
        """The input word embeddings of the base model."""
        if table.requires_grad:
            self.embeddings = self.embeddings.clone()

    def states(
        self,
        prompts: Sequence[Prompt],
        layers: Sequence[int],
        adapter: Mapping[str, Tensor] | None,
        *,
        positions: int = 16_384,
        serving: bool = False,
    ) -> Iterator[tuple[int, dict[int, Float[Tensor, "length hidden"]]]]:
        """What enters each of ``layers`` for every prompt, without padding, in batches; only the blocks needed run.

        Args:
            adapter: the trained values, or None for the base model.
            positions: of a batch, padding included.
            serving: padded as in serving, not as in training.

        Yields the place in ``prompts`` and h_l by l.
        """
        seen: dict[int, Tensor] = {}
        deepest = max(layers)
        whole = list(blocks(self.model))
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            self.set(adapter)
            stack.enter_context(
                tap([Tapped(layer, whole[layer]) for layer in layers], lambda layer, h: seen.__setitem__(layer, h))
            )
            stack.enter_context(_stop_after(self.model, deepest))
            for rows in by_length([len(prompt) for prompt in prompts], positions):
                part = [prompts[row] for row in rows]
                asked = self.task.inputs(self.model, part, serving=serving)
                body(self.model)(**asked)
                for place, (row, mask) in enumerate(zip(rows, asked["attention_mask"].bool(), strict=True)):
                    yield int(row), {layer: seen[layer][place, mask] for layer in layers}

    def log_probs(
        self, prompts: Sequence[Prompt], adapter: Mapping[str, Tensor] | None, memory: Memory | None = None
    ) -> list[Float[np.ndarray, "answer"]]:
        """log-probability of each token of each prompt's answer, under the adapter or (None) the base model."""
        memory = self._held(adapter, memory)
        memory = self.memory(adapter) if memory is None else memory
        self.set(adapter)
        return self.task.log_probs(self.model, prompts, memory)

    def memory(self, adapter: Mapping[str, Tensor] | None) -> Memory:
        """What the model goes by under this adapter (None: the base model), unless it kept something older."""
        held = self._held(adapter, None)
        if held is None:
            self.set(adapter)
            held = self.task.remember(self.model)
        return held

    def logits(
        self,
        layer: int,
        hidden: Float[Tensor, "batch length hidden"],
        adapter: Mapping[str, Tensor] | None,
        memory: Memory,
    ) -> Float[Tensor, "batch *answers"]:
        """What the blocks from ``layer`` on and all behind them make of ``hidden``, differentiable; no padding."""
        self.set(adapter)
        with entered_at(self.model, layer, hidden):
            return self.task.logits(self.model, hidden, memory)

    def served(self, adapter: Mapping[str, Tensor] | None, memory: Memory | None = None) -> "ServedWhole":
        """The model with this adapter (None: the base model), ready to recommend."""
        return ServedWhole(self, adapter, self._held(adapter, memory))

    def _held(self, adapter: Mapping[str, Tensor] | None, memory: Memory | None) -> Memory | None:
        """What the model goes by under this adapter, ``memory`` if it was kept; None: it is to be worked out."""
        return self.task.base_memory if adapter is None or self.task.fixed else memory

    def set(self, adapter: Mapping[str, Tensor] | None) -> None:
        """Take on these values; None: those that training begins with, which make it the base model."""
        load_adapter(self._parameters, self._initial if adapter is None else adapter)


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

    def __init__(self, whole: WholeModel, adapter: Mapping[str, Tensor] | None, memory: Memory | None) -> None:
        self._whole, self._adapter, self.memory, self.tally = whole, adapter, memory, Tally()

    @contextmanager
    def model(self, weights: Weights = "trained", *, catalogue: bool = False) -> Iterator[Any]:
        del catalogue
        self._whole.set(self._adapter)
        with adapter_off(self._whole.model) if weights == "base" else nullcontext():
            yield self._whole.model
