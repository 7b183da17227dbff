"""Taps on hidden states where two blocks meet, and models entered at any layer."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pplr_audit.models.architectures import architecture, blocks, body
from pplr_audit.models.cut import CutModel, shorten

Sink = Callable[[int, Tensor], None]
"""Called with l and h_l, (batch, seq, hidden), or its gradient."""


@dataclass(frozen=True)
class Tapped:
    """The model whose hidden states h_l are tapped: each enters block l; h_L leaves the last block."""

    layer: int
    block: nn.Module
    leaves: bool = False


@contextmanager
def tap(
    tapped: list[Tapped],
    activation: Sink,
    gradient: Sink | None = None,
    *,
    of_pass: Callable[[int], Callable[[Tensor], None]] | None = None,
) -> Iterator[None]:
    """Within the block, hand on each h_l, and optionally dLoss/dh_l when it is known.

    Args:
        of_pass: called with l behind ``activation``; what it answers gets dLoss/dh_l of this very forward pass, which
            ``gradient`` cannot tell from others. A backward pass in parts calls it more than once.
    """

    def note(layer: int, hidden: Tensor) -> None:
        activation(layer, hidden.detach())
        if gradient is not None and hidden.requires_grad:
            hidden.register_hook(lambda grad: gradient(layer, grad))
        if of_pass is not None and hidden.requires_grad:
            hidden.register_hook(of_pass(layer))

    def entering(layer: int) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            note(layer, args[0] if args else kwargs["hidden_states"])

        return hook

    def leaving(layer: int) -> Callable[..., None]:
        def hook(_: nn.Module, __: tuple[Any, ...], out: Any) -> None:
            note(layer, out[0] if isinstance(out, tuple) else out)

        return hook

    handles = [
        each.block.register_forward_hook(leaving(each.layer))
        if each.leaves
        else each.block.register_forward_pre_hook(entering(each.layer), with_kwargs=True)
        for each in tapped
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def tappable(parts: CutModel) -> list[Tapped]:
    """Every place in both parts where two blocks meet, by its absolute layer, from 0 to L."""
    near = list(blocks(parts.client))
    middle = [] if parts.trunk is None else list(blocks(parts.trunk))
    whole = [*near[: parts.front], *middle, *near[len(near) - parts.back :]]
    return [*(Tapped(layer, block) for layer, block in enumerate(whole)), Tapped(len(whole), whole[-1], leaves=True)]


class Given(nn.Module):
    """Stands before the blocks of a part: what enters is passed over for what was given."""

    def __init__(self, hidden: Float[Tensor, "batch seq hidden"]) -> None:
        super().__init__()
        self._hidden = hidden

    def forward(self, *_: Any, **__: Any) -> Float[Tensor, "batch seq hidden"]:
        return self._hidden


@contextmanager
def entered_at(model: Any, layer: int, hidden: Float[Tensor, "batch seq hidden"]) -> Iterator[None]:
    """Within the block, an uncut model's forward pass goes on from ``hidden`` as what enters block ``layer``."""
    inner, path, whole = body(model), architecture(model).blocks, blocks(model)
    configs = {id(c): c for c in (model.config, inner.config)}.values()
    before = [(config, dict(vars(config))) for config in configs]
    last = len(whole) - 1
    inner.set_submodule(path, nn.ModuleList([Given(hidden), *list(whole)[layer:]]))
    for config in configs:
        shorten(config, [min(layer, last), *range(layer, len(whole))])
    try:
        yield
    finally:
        inner.set_submodule(path, whole)
        for config, values in before:
            vars(config).update(values)


class _Enough(Exception):
    """All that was looked for has been seen: the rest of the forward pass is not run."""


@contextmanager
def entering(model: nn.Module, modules: Collection[str]) -> Iterator[dict[str, Tensor]]:
    """Within the block, which is one forward pass, hold what enters each of ``modules``, by name; the pass ends there.

    Modules that read the same tensor are given the same object.
    """
    seen: dict[str, Tensor] = {}

    def entered(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            seen[name] = args[0]
            if len(seen) == len(set(modules)):
                raise _Enough

        return hook

    handles = [model.get_submodule(name).register_forward_pre_hook(entered(name)) for name in modules]
    try:
        yield seen
    except _Enough:
        pass
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def embedded_as(model: Any, embeddings: Sequence[Float[Tensor, "length hidden"]]) -> Iterator[None]:
    """Within the block, a batch's tokens are embedded as these, a sequence a row; padding stays as it is."""

    def replaced(_: nn.Module, __: Any, out: Float[Tensor, "batch seq hidden"]) -> Float[Tensor, "batch seq hidden"]:
        rows = [torch.cat([own.to(row), row[len(own) :]]) for own, row in zip(embeddings, out, strict=True)]
        return torch.stack(rows)

    handle = model.get_input_embeddings().register_forward_hook(replaced)
    try:
        yield
    finally:
        handle.remove()
