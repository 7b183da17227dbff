"""Memory of a client's training step besides its weights: activations kept for the backward pass, and temporary
tensors.

Nothing is estimated: the library's own forward pass runs on the meta device, where tensors have sizes and no values,
and every tensor that autograd keeps is counted once, by its storage. Only attention is stood in for: without dropout,
kernels keep queries, keys, values, output and one number a row (FlashAttention, Dao et al. 2022, arXiv 2205.14135,
section 3.1), but never the matrix of scores, which the meta device would keep.
"""

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pplr_audit.models.architectures import architecture, blocks, body
from pplr_audit.models.recommenders.bigrec import answer_loss
from pplr_audit.models.recommenders.recformer import marks


@dataclass(frozen=True)
class Kept:
    """Bytes of a step over one batch."""

    around: int
    """The embeddings, where they are trained."""
    tables: int
    """Once, whatever the number of blocks: what they share, such as rotary tables."""
    fresh: int
    """The first block where embeddings enter it, which need no gradient."""
    fresh_tables: int
    """The part of the tables that the first block alone keeps: nothing, if no adapter lies before its attention."""
    block: Sequence[int]
    """Every block, if what enters it needs a gradient: behind another block, each of which has an adapter, or behind
    the trunk, which waits for it."""
    head: int
    """Final norm, head and loss; an encoder has no head here, and its loss is left out."""
    working: Mapping[bool, int]
    """Bytes there for a moment, beyond all that is kept, when most is there, by whether any block is the client's:
    with a large vocabulary the gradient of the logits."""
    entering: int
    """Bytes that the embeddings need for a moment, before anything is kept."""


def traced(model: Any, batch: int, tokens: int) -> Kept:
    """Trace a model on the meta device, with its adapter, over ``batch`` sequences of ``tokens`` positions.

    There is padding among them: without any the library skips the mask, and a little less is kept. The model is left as
    it was.
    """
    was = model.training
    model.train()
    try:
        around, tables, fresh_tables, fresh, head = _kept(model, batch, tokens, needed=False)
        _, _, _, needing, _ = _kept(model, batch, tokens, needed=True)
        working = {some: _working(model, batch, tokens, some) for some in (False, True)}
        entering = _passing(model, batch, tokens, some=False)
    finally:
        model.train(was)
    return Kept(around, tables, fresh[0], fresh_tables, needing, head, working, entering)


def _kept(model: Any, batch: int, tokens: int, *, needed: bool) -> tuple[int, int, int, list[int], int]:
    """Bytes of what the embeddings keep, of what blocks share, of that what the first one keeps, of each block, and of
    what follows them."""
    whole = blocks(model)
    stage = [-1]
    savers: dict[int, tuple[int, set[int]]] = {}
    own = _storages([*model.parameters(), *model.buffers()])

    def enter(number: int) -> Callable[..., None]:
        return lambda *_: stage.__setitem__(0, number)

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            savers.setdefault(storage._cdata, (storage.nbytes(), set()))[1].add(stage[0])
        return tensor

    handles = [block.register_forward_pre_hook(enter(number)) for number, block in enumerate(whole)]
    handles.append(whole[-1].register_forward_hook(enter(len(whole))))
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = _loss(model, batch, tokens, needed)  # holds the graph, so that no storage's number comes again
    finally:
        for handle in handles:
            handle.remove()
    del loss
    around, tables, first_tables, head, each = 0, 0, 0, 0, [0] * len(whole)
    for size, stages in savers.values():
        inside = stages & set(range(len(whole)))
        if len(inside) > 1:
            tables += size
            first_tables += size * (0 in inside)
        elif inside:
            each[inside.pop()] += size
        elif len(whole) in stages:
            head += size
        else:
            around += size
    return around, tables, first_tables, each, head


def _working(model: Any, batch: int, tokens: int, some: bool) -> int:
    """The most that lives at once in a step through one block, if any, and the head, less what is kept of both."""
    with _blocks_only(model, some), Live() as live:
        loss = _loss(model, batch, tokens, True)
        kept = live.now
        loss.backward()
    model.zero_grad(set_to_none=True)
    return live.peak - kept


def served(model: Any, batch: int, tokens: int) -> dict[bool, int]:
    """Bytes that one pass without gradients needs for a moment, by whether any block is the client's.

    The head reads one position a sequence, as in generation; its logits are left out.
    """
    was = model.training
    model.eval()
    try:
        return {some: _passing(model, batch, tokens, some) for some in (False, True)}
    finally:
        model.train(was)


def _passing(model: Any, batch: int, tokens: int, some: bool) -> int:
    """The most that lives at once in a pass without gradients through embeddings, a block (if any) and final norm."""
    with _blocks_only(model, some), torch.no_grad(), fused_attention(), Live() as live:
        body(model)(**_meta_inputs(model, batch, tokens))
    return live.peak


@contextmanager
def _blocks_only(model: Any, some: bool) -> Iterator[None]:
    """Within it, the model has its first block or none."""
    whole, inner, path = blocks(model), body(model), architecture(model).blocks
    inner.set_submodule(path, nn.ModuleList(whole[:1] if some else [_Nothing()]))
    try:
        yield
    finally:
        inner.set_submodule(path, whole)


def _loss(model: Any, batch: int, tokens: int, needed: bool) -> Float[Tensor, ""]:
    """The client's loss of a batch as its training computes it, whatever the tokens are, with padding among them.

    ``needed``: what enters the first block needs a gradient.
    """
    inputs = _meta_inputs(model, batch, tokens)
    start = blocks(model)[0].register_forward_pre_hook(_from_afar, with_kwargs=True) if needed else None
    try:
        with fused_attention():
            if not architecture(model).causal:
                return model(**inputs).last_hidden_state.sum()  # type: ignore[no-any-return]
            return answer_loss(model(**inputs).logits, inputs["input_ids"], inputs["input_ids"])
    finally:
        if start is not None:
            start.remove()


def _from_afar(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Mark the inputs as needing a gradient: they come over the link, or from a block below."""
    anchor = torch.zeros((), requires_grad=True, device="meta")
    if args:
        return (args[0] + anchor.to(args[0].dtype), *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": kwargs["hidden_states"] + anchor.to(kwargs["hidden_states"].dtype)}


class _Nothing(nn.Module):
    """Stands for the blocks of a client that has none."""

    def forward(self, hidden_states: Float[Tensor, "batch seq hidden"], *_: Any, **__: Any) -> Tensor:
        return hidden_states


def _meta_inputs(model: Any, batch: int, tokens: int) -> dict[str, Any]:
    with torch.device("meta"):
        inputs: dict[str, Any] = {
            "input_ids": torch.empty(batch, tokens, dtype=torch.long),
            # In four dimensions, as the library would build it from a batch with padding, for which it asks for values.
            "attention_mask": torch.empty(batch, 1, tokens, tokens, dtype=torch.bool),
        }
        if architecture(model).causal:
            inputs |= {"position_ids": torch.empty(batch, tokens, dtype=torch.long), "use_cache": False}
        added = marks(model)
        if added is not None:
            tokens_of = inputs.pop("input_ids")
            kinds, order = torch.empty_like(tokens_of), torch.empty_like(tokens_of)
            inputs["inputs_embeds"] = model.get_input_embeddings()(tokens_of) + added(kinds, order)
        return inputs


class Live(TorchDispatchMode):
    """Within it, the bytes of tensors made there and still alive: ``now``, and ``peak``, the most at any moment."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now: int = 0
        self.peak: int = 0
        self._known: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    def __enter__(self) -> "Live":
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {s._cdata for s in map(_storage, tree_leaves((args, kwargs))) if s is not None}
        out = func(*args, **(kwargs or {}))
        for storage in map(_storage, tree_leaves(out)):
            if storage is not None and storage._cdata not in given and storage not in self._known:
                self._known[storage] = size = storage.nbytes()
                self.now += size
                weakref.finalize(storage, self._gone, size)
        self.peak = max(self.peak, self.now)
        return out

    def _gone(self, size: int) -> None:
        self.now -= size


def _storage(value: Any) -> Any:
    return value.untyped_storage() if isinstance(value, Tensor) else None


def _storages(tensors: Sequence[Tensor]) -> set[int]:
    return {tensor.untyped_storage()._cdata for tensor in tensors}


@contextmanager
def fused_attention() -> Iterator[None]:
    """Within it, attention without dropout keeps for its backward pass what the fused kernels of torch keep."""
    with _FusedAttention():
        yield


class _FusedAttention(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # With dropout the kernel of the CPU is not used, and torch's single steps keep what they keep.
        if func is functional.scaled_dot_product_attention and not kwargs.get("dropout_p"):
            query, key, value = args
            return _Attention.apply(query, key, value, kwargs.get("attn_mask"))  # type: ignore[no-untyped-call]
        return func(*args, **kwargs)


class _Attention(torch.autograd.Function):
    """The shapes of fused attention, without its values."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        out = torch.empty_like(query)
        rows = torch.empty(query.shape[:-1], dtype=torch.float32, device=query.device)
        # The kernel adds a mask of its own making, in the type of what it is added to.
        added = None if mask is None else torch.empty(mask.shape, dtype=query.dtype, device=query.device)
        ctx.save_for_backward(query, key, value, out, rows, added)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *_ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value), None
