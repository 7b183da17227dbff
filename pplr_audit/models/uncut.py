"""The same model uncut: for what needs no wire, such as a query to a trained model, or an adversary's own copy.

It shares the frozen weights with the model that is cut and has an adapter of its own.
"""

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers.cache_utils import DynamicCache

from pplr_audit.data.prompts import Prompt
from pplr_audit.models.architectures import architecture, blocks, body, heads
from pplr_audit.models.backbones.transformers_api import remembering
from pplr_audit.models.cut import positions as places_of
from pplr_audit.models.linears import Linear, candidates, linears_of
from pplr_audit.models.lora import adapter_off, adapter_parameters, load_adapter, read_adapter
from pplr_audit.models.recommenders.task import CatalogueEncoding, Tally, Task, Weights, by_length
from pplr_audit.models.rows import Rows, rows_of
from pplr_audit.models.taps import Tapped, embedded_as, entered_at, entering, tap
from pplr_audit.models.token_tree import Branches, Prefix, asked

_NONE, _TWO = np.zeros(0, dtype=np.int64), np.zeros(2, dtype=np.int64)
_TWO_TOKENS = Prompt(tokens=_TWO, slots=_TWO - 1, items=_NONE, answer=2, order=_TWO)
"""A prompt of no item, to see which layers read what."""


class UncutModel:
    """An uncut model with its adapter, always in evaluation mode.

    Args:
        model: as training begins with it, before it is cut; it is copied, all but the frozen weights.
        task: what it is for; it may be given later, as what the base model works out for it takes this very model.
        digest: a hash of the frozen weights and of whatever else the model computes by; none hashes the weights.
    """

    def __init__(self, model: Any, task: Task | None = None, digest: str = "") -> None:
        shared = {id(p): p for p in model.parameters() if not p.requires_grad}
        self.model = copy.deepcopy(model, shared).eval()
        if task is not None:
            self.task: Task = task
        self._parameters = adapter_parameters(self.model)
        self.initial = read_adapter(self._parameters)
        """The trained tensors as training begins with them."""
        self._taken: tuple[Mapping[str, Tensor], list[int]] | None = None
        """The values that were taken on last, and how often they and the model's own had been written to by then."""
        self._weights = digest
        self.layers = len(blocks(self.model))
        words = self.model.get_input_embeddings()
        with torch.no_grad():
            self.embeddings: Float[Tensor, "vocab hidden"] = words(torch.arange(len(words.weight)))
            """The input word embeddings of the base model, as its module makes them: a module may scale its weight."""

    @cached_property
    def digest(self) -> str:
        """A hash of what the base model computes by."""
        sha = hashlib.sha256(self._weights.encode())
        frozen = () if self._weights else self.model.state_dict().items()
        for name, tensor in sorted((*frozen, *self.initial.items())):
            values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            sha.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode() + memoryview(values.numpy()))
        return sha.hexdigest()

    def states(
        self,
        prompts: Sequence[Prompt],
        layers: Sequence[int],
        adapter: Mapping[str, Tensor] | None,
        *,
        positions: int = 16_384,
        serving: bool = False,
    ) -> Iterator[tuple[int, dict[int, Float[Tensor, "length hidden"]]]]:
        """Yield h_l at each of ``layers`` for every prompt, without padding, in batches; only the blocks needed run.

        Args:
            adapter: the trained values, or None for the base model.
            positions: of a batch, padding included.
            serving: padded as in serving, not as in training.

        Yields the place in ``prompts`` and h_l by l.
        """
        for rows in by_length([len(prompt) for prompt in prompts], positions):
            part = [prompts[row] for row in rows]
            with self._front(layers, adapter) as seen:  # left before anything is handed out: a reader may stop here
                given = self.task.inputs(self.model, part, serving=serving)
                body(self.model)(**given)
            for place, (row, mask) in enumerate(zip(rows, given["attention_mask"].bool(), strict=True)):
                yield int(row), {layer: seen[layer][place, mask] for layer in layers}

    def entering(
        self, prompts: Sequence[Prompt], modules: Sequence[str], adapter: Mapping[str, Tensor] | None,
        *, positions: int = 16_384,
    ) -> Iterator[tuple[int, dict[str, Float[Tensor, "length width"]]]]:  # fmt: skip
        """Yield what enters each of ``modules`` for every prompt, without padding, in batches, as `states` does.

        A forward pass ends where the last of them is reached. Modules with one input are given the same object.
        """
        for rows in by_length([len(prompt) for prompt in prompts], positions):
            with torch.no_grad(), self.under(adapter), entering(self.model, modules) as seen:
                given = self.task.inputs(self.model, [prompts[row] for row in rows], serving=False)
                body(self.model)(**given)
            mask = given["attention_mask"]
            starts, sizes = mask.argmax(1).tolist(), mask.sum(1).tolist()  # padding is on one side
            for place, (row, start, size) in enumerate(zip(rows, starts, sizes, strict=True)):
                own = {id(tensor): tensor[place, start : start + size] for tensor in seen.values()}
                yield int(row), {name: own[id(seen[name])] for name in modules}

    def entering_from(
        self, layer: int, hidden: Float[Tensor, "batch length hidden"], modules: Sequence[str],
        adapter: Mapping[str, Tensor] | None,
    ) -> dict[str, Float[Tensor, "batch length width"]]:  # fmt: skip
        """Return what enters each of ``modules`` when ``hidden`` enters ``layer``, without padding."""
        # Modules are found by name before the blocks in front are taken off, which numbers the others anew.
        with (
            torch.no_grad(), self.under(adapter), entering(self.model, modules) as seen,
            entered_at(self.model, layer, hidden),
        ):  # fmt: skip
            self.task.logits(self.model, hidden, {})
        return {name: seen[name] for name in modules}

    def gradients(
        self, prompts: Sequence[Prompt], adapter: Mapping[str, Tensor] | None, encoding: CatalogueEncoding
    ) -> dict[str, Tensor]:
        """Return the gradient of the batch's mean loss by each trained tensor, by name; nothing is dropped out."""
        self.set(adapter)
        with torch.enable_grad():
            return self._slopes(self.task.loss(self.model, prompts, encoding), differentiable=False)

    def gradients_at(
        self, prompts: Sequence[Prompt], embeddings: Sequence[Float[Tensor, "length hidden"]],
        adapter: Mapping[str, Tensor] | None, encoding: CatalogueEncoding,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Return the same when ``embeddings`` stand in for those of the prompts' tokens; differentiable in them.

        Fused attention has no second derivative, so it is computed step by step here.
        """
        self.set(adapter)
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), embedded_as(self.model, embeddings):
            return self._slopes(self.task.loss(self.model, prompts, encoding), differentiable=True)

    def _slopes(self, loss: Float[Tensor, ""], *, differentiable: bool) -> dict[str, Tensor]:
        names, tensors = [*self._parameters], [*self._parameters.values()]
        found = torch.autograd.grad(
            loss, tensors, create_graph=differentiable, allow_unused=True, materialize_grads=True
        )
        return dict(zip(names, found, strict=True))

    def trained(
        self, batches: Sequence[Sequence[Prompt]], adapter: Mapping[str, Tensor] | None, encoding: CatalogueEncoding,
        optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer], factors: Sequence[float], earlier: int = 0,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Return before - after of each trained tensor, by name, after a step on each batch; nothing is dropped out.

        Args:
            optimizer: makes one over the trained tensors.
            factors: of the learning rate in each step.
            earlier: number of steps that come before "before".
        """
        self.set(adapter)
        before = read_adapter(self._parameters)
        stepping = optimizer([*self._parameters.values()])
        (rate,) = (group["lr"] for group in stepping.param_groups)
        with torch.enable_grad():
            for step, (prompts, factor) in enumerate(zip(batches, factors, strict=True)):
                if step == earlier:
                    before = read_adapter(self._parameters)
                stepping.param_groups[0]["lr"] = rate * factor
                self.task.loss(self.model, prompts, encoding).backward()
                stepping.step()
                stepping.zero_grad(set_to_none=True)
        return {name: value - self._parameters[name].detach() for name, value in before.items()}

    @cached_property
    def linears(self) -> dict[str, Linear]:
        """The linear layers that have a trained tensor, by name, in the order in which they run."""
        names = candidates(self.model)
        order: dict[str, int] = {}
        told: dict[int, int] = {}

        def reader(name: str) -> Callable[..., None]:
            def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
                kept.append(args[0])  # as long as it lives, nothing else has its number
                order.setdefault(name, told.setdefault(id(args[0]), len(told)))

            return hook

        kept: list[Tensor] = []
        handles = [self.model.get_submodule(name).register_forward_pre_hook(reader(name)) for name in names]
        try:
            with torch.no_grad():
                body(self.model)(**self.task.inputs(self.model, [_TWO_TOKENS], serving=False))
        finally:
            for handle in handles:
                handle.remove()
        inside = {
            f"{path}.{name}": place
            for place, block in enumerate(blocks(self.model))
            for path in [next(n for n, m in self.model.named_modules() if m is block)]
            for name, _ in block.named_modules()
        }
        return linears_of(self.model, self._parameters, order, {name: inside.get(name, -1) for name in order})

    @cached_property
    def rows(self) -> dict[str, Rows]:
        """The trained tensors that have a row for each token or item, by name."""
        return rows_of(self.model, self._parameters)

    def extend(
        self, prefix: Prefix, tokens: Int[Tensor, "nodes"], parents: Sequence[int], layers: Sequence[int],
        adapter: Mapping[str, Tensor] | None,
    ) -> Branches:  # fmt: skip
        """Return h_l at each of ``layers`` for a tree of tokens behind ``prefix``; only the blocks needed run.

        Args:
            prefix: read under the same adapter, as deep at least.
            parents: of each node an earlier one, or -1 where it follows the prefix.
        """
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(prefix.kept[: max(layers)]):
            cache.update(keys, values, layer)
        with self._front(layers, adapter) as seen:
            body(self.model)(**asked(self.model.config, prefix.length, tokens, parents), **remembering(cache))
        held: list[Any] = cache.layers
        kept = tuple((layer.keys, layer.values) for layer in held)
        return Branches({layer: seen[layer][0] for layer in layers}, prefix.length, kept)

    def enter(
        self, layer: int, embeddings: Float[Tensor, "batch length hidden"], mask: Int[Tensor, "batch length"],
        adapter: Mapping[str, Tensor] | None,
    ) -> Float[Tensor, "batch length hidden"]:  # fmt: skip
        """Return h_l at ``layer`` when ``embeddings`` stand in for the tokens' embeddings; differentiable."""
        places = {"position_ids": places_of(mask), "use_cache": False} if self.causal else {}
        with self.under(adapter), _stop_before(self.model, layer) as reached:
            body(self.model)(inputs_embeds=embeddings, attention_mask=mask, **places)
            end = reached[-1]
            assert isinstance(end, _End)
            return end.take()

    def held_by_client(self, front: int, back: int) -> frozenset[str]:
        """Return the names of the adapter's tensors that a client holds at a cut; the others are the trunk's."""
        trunk = blocks(self.model)[front : self.layers - back]
        inside = {id(parameter) for block in trunk for parameter in block.parameters()}
        return frozenset(name for name, parameter in self._parameters.items() if id(parameter) not in inside)

    @property
    def causal(self) -> bool:
        """True if a token is read without those behind it."""
        return architecture(self.model).causal

    @property
    def heads(self) -> tuple[int, int]:
        """The heads of attention: those of queries, and those of keys and values."""
        of_queries = int(self.model.config.num_attention_heads)
        return of_queries, int(getattr(self.model.config, "num_key_value_heads", None) or of_queries)

    @contextmanager
    def _front(self, layers: Sequence[int], adapter: Mapping[str, Tensor] | None) -> Iterator[dict[int, Tensor]]:
        """Within the block, a forward pass ends where it enters the deepest of ``layers``; what enters each is held."""
        seen: dict[int, Tensor] = {}
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(self.under(adapter))
            reached = stack.enter_context(_stop_before(self.model, max(layers)))
            stack.enter_context(tap([Tapped(layer, reached[layer]) for layer in layers], seen.__setitem__))
            yield seen

    def log_probs(
        self, prompts: Sequence[Prompt], adapter: Mapping[str, Tensor] | None, encoding: CatalogueEncoding | None = None
    ) -> list[Float[np.ndarray, "answer"]]:
        """log-probability of each token of each prompt's answer, under the adapter or (None) the base model."""
        encoding = self._held(adapter, encoding)
        encoding = self.encoding(adapter) if encoding is None else encoding
        with self.under(adapter):
            return self.task.log_probs(self.model, prompts, encoding)

    def encoding(self, adapter: Mapping[str, Tensor] | None) -> CatalogueEncoding:
        """Encode the catalogue under this adapter (None: the base model), unless an older encoding is kept."""
        held = self._held(adapter, None)
        if held is None:
            with self.under(adapter):
                held = self.task.encode_catalogue(self.model)
        return held

    def logits(
        self,
        layer: int,
        hidden: Float[Tensor, "batch length hidden"],
        adapter: Mapping[str, Tensor] | None,
        encoding: CatalogueEncoding,
    ) -> Float[Tensor, "batch *answers"]:
        """Return the logits when ``hidden`` enters ``layer``; differentiable, without padding."""
        with self.under(adapter), entered_at(self.model, layer, hidden):
            return self.task.logits(self.model, hidden, encoding)

    def front(self, layer: int, adapter: Mapping[str, Tensor] | None) -> "Front":
        """A copy of the embeddings and the first ``layer`` blocks, to be trained further by itself."""
        self.set(adapter)
        with _stop_before(self.model, layer):
            kept: dict[int, Any] = {id(head): head for head in heads(self.model)}
            return Front(copy.deepcopy(self.model, kept), self.task)

    def served(self, adapter: Mapping[str, Tensor] | None, encoding: CatalogueEncoding | None = None) -> "ServedUncut":
        """The model with this adapter (None: the base model), ready to recommend."""
        return ServedUncut(self, adapter, self._held(adapter, encoding))

    def _held(
        self, adapter: Mapping[str, Tensor] | None, encoding: CatalogueEncoding | None
    ) -> CatalogueEncoding | None:
        """Return the encoding to use under this adapter: ``encoding`` if it was kept, None if it has to be made."""
        return self.task.base_encoding if adapter is None or self.task.fixed else encoding

    @contextmanager
    def under(self, adapter: Mapping[str, Tensor] | None) -> Iterator[None]:
        """Within the block the model has these values; of the base model (None) LoRA is not computed at all.

        LoRA starts at zero, so that the base model's numbers are the same, for two thirds of the time.
        """
        self.set(adapter)
        with adapter_off(self.model) if adapter is None else nullcontext():
            yield

    def set(self, adapter: Mapping[str, Tensor] | None) -> None:
        """Take on these values, unless the model has them; None: those of the base model, that training begins with."""
        values = self.initial if adapter is None else adapter
        written = [each._version for each in (*values.values(), *self._parameters.values())]
        if self._taken is None or self._taken[0] is not values or self._taken[1] != written:
            load_adapter(self._parameters, values)
            self._taken = values, [each._version for each in (*values.values(), *self._parameters.values())]


class _End(nn.Module):
    """Stands in place of a block and all behind it, and holds what reaches it."""

    _held: Tensor | None = None

    def forward(self, hidden_states: Float[Tensor, "batch seq hidden"], *_: Any, **__: Any) -> Tensor:
        self._held = hidden_states
        return hidden_states

    def take(self) -> Float[Tensor, "batch seq hidden"]:
        """Return the tensor that reached it last, and hold it no longer."""
        assert self._held is not None
        held, self._held = self._held, None
        return held


@contextmanager
def _stop_before(model: Any, layer: int) -> Iterator[list[nn.Module]]:
    """Within the block, a forward pass ends where it enters ``layer``: the blocks before it, and its stand-in."""
    inner, path, whole = body(model), architecture(model).blocks, blocks(model)
    reached = [*list(whole)[:layer], _End()]
    inner.set_submodule(path, nn.ModuleList(reached))
    try:
        yield reached
    finally:
        inner.set_submodule(path, whole)


class Front(nn.Module):
    """Embeddings and first blocks of a model, with parameters of its own; the adapter's are trainable.

    Args:
        model: with an `_End` for the blocks behind; its head is never run.
    """

    def __init__(self, model: Any, task: Task) -> None:
        super().__init__()
        self._inner, self._task, self._end = body(model), task, blocks(model)[-1]
        self._model = [model]  # its head is no part of the front

    def forward(self, prompts: Sequence[Prompt]) -> tuple[Float[Tensor, "batch seq hidden"], Int[Tensor, "batch seq"]]:
        """h_k of each prompt, padded on the right, and the mask of what is no padding."""
        asked = self._task.inputs(self._model[0], prompts, serving=False)
        self._inner(**asked)
        return self._end.take(), asked["attention_mask"]


class ServedUncut:
    """An uncut model that serves requests."""

    def __init__(
        self, whole: UncutModel, adapter: Mapping[str, Tensor] | None, encoding: CatalogueEncoding | None
    ) -> None:
        self._whole, self._adapter, self.encoding, self.tally = whole, adapter, encoding, Tally()

    @contextmanager
    def model(self, weights: Weights = "trained", *, catalogue: bool = False) -> Iterator[Any]:
        del catalogue
        off = adapter_off(self._whole.model) if weights == "base" else nullcontext()
        with self._whole.under(self._adapter), off:
            yield self._whole.model
