"""The generic cut: the first blocks and the last on the client, the rest on the server, no copied forward pass.

The middle blocks of the client's model are replaced by one module, the `TrunkProxy`, and the blocks that were taken out
become the layers of a second body of the same class, the trunk. Both run the library's own forward pass, so that masks
and rotary embeddings are recomputed on either side from the two-dimensional mask, which is all that has to cross
besides activations. In the trunk, the parts before and after the blocks (positions, dropout, norms) give way to
stand-ins that leave every bit of what passes as it is.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicLayer

from pplr_audit.errors import InputError
from pplr_audit.models.architectures import Use, architecture, blocks, body, heads, outer_modules
from pplr_audit.models.lora import adapter_parameters
from pplr_audit.scenario.seeds import derive


def positions(mask: Int[Tensor, "batch total"]) -> Int[Tensor, "batch total"]:
    """Each token's position in its own sequence, as the generation of transformers counts them; padding gets 0."""
    return (mask.long().cumsum(-1) - 1).masked_fill(mask == 0, 0)


class Session(Protocol):
    """One served request batch: the trunk keeps its keys and values between calls."""

    def forward(
        self, hidden: Float[Tensor, "batch seq hidden"], mask: Int[Tensor, "batch total"]
    ) -> Float[Tensor, "batch seq hidden"]: ...

    def reorder(self, beams: Int[Tensor, "batch"]) -> None: ...


class TrunkEndpoint(Protocol):
    """The trunk as the client's model calls it in place of its middle blocks: once a training step, by session in
    serving.
    """

    def forward(
        self, hidden: Float[Tensor, "batch seq hidden"], mask: Int[Tensor, "batch seq"]
    ) -> Float[Tensor, "batch seq hidden"]: ...

    def open(self) -> Session: ...


class TrunkProxy(nn.Module):
    """Stands in the client's list of blocks for those that the server holds."""

    def __init__(self, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.endpoint: TrunkEndpoint | None = None
        self._mask: Tensor | None = None

    def listen(self, client_body: nn.Module) -> None:
        """Take the mask from each call of the client's body: blocks get it only in a derived form."""

        def note(_: nn.Module, __: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._mask = kwargs.get("attention_mask")

        client_body.register_forward_pre_hook(note, with_kwargs=True)

    def forward(
        self, hidden_states: Float[Tensor, "batch seq hidden"], *args: Any, **kwargs: Any
    ) -> Float[Tensor, "batch seq hidden"]:
        assert self.endpoint is not None, "a client trains and serves over a link: connect one first"
        batch, length = hidden_states.shape[:2]
        # Architectures hand the cache on in different places.
        cache = next((given for given in (*args, *kwargs.values()) if isinstance(given, Cache)), None)
        if cache is None:
            return self.endpoint.forward(hidden_states, self._full_mask(batch, length))
        far = cache.layers[self.layer]
        if not isinstance(far, _FarCache):
            far = cache.layers[self.layer] = _FarCache(self.endpoint.open())
        far.length, far.rows = far.length + length, batch
        return far.session.forward(hidden_states, self._full_mask(batch, far.length))

    def _full_mask(self, batch: int, total: int) -> Int[Tensor, "batch total"]:
        return torch.ones(batch, total, dtype=torch.long) if self._mask is None else self._mask


class _FarCache(DynamicLayer):
    """The client's handle on the trunk's cache: it knows the length and passes on the order of the beams."""

    def __init__(self, session: Session) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.session = session
        self.length = self.rows = 0

    def get_seq_length(self) -> int:
        return self.length

    def reorder_cache(self, beam_idx: Int[Tensor, "batch"]) -> None:
        self.session.reorder(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        self.session.reorder(torch.arange(self.rows).repeat_interleave(repeats))


class _NegativeZero(nn.Module):
    """Stands in the trunk for what is added to the activations there.

    x + -0.0 is x for every x, to the bit; 0.0 would turn -0.0 into 0.0.
    """

    def forward(self, *_: Any, **__: Any) -> Float[Tensor, ""]:
        return torch.tensor(-0.0)


class _HandsOn(nn.Module):
    """Stands in the trunk for embeddings that would turn ``inputs_embeds`` into what enters the first block."""

    def forward(
        self, *_: Any, inputs_embeds: Float[Tensor, "batch seq hidden"], **__: Any
    ) -> Float[Tensor, "batch seq hidden"]:
        return inputs_embeds


_STANDS: Mapping[Use, type[nn.Module]] = {"applied": nn.Identity, "added": _NegativeZero, "called": _HandsOn}


class Randomness:
    """Draws of one local step, part by part, that do not depend on where a part lives.

    Within `step`, each block with active dropout runs under ``fork_rng`` from a seed hashed from (seed, round, client,
    step, absolute layer); what draws outside the blocks has its name instead of a layer. Outside of `step` nothing is
    reseeded.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._step: int | None = None

    @contextmanager
    def step(self, round_: int, client: str, step: int) -> Iterator[None]:
        self._step = derive(self.seed, "dropout", round_, client, step)
        try:
            yield
        finally:
            self._step = None

    def govern(self, block: nn.Module, layer: int | str) -> None:
        """Wrap the forward pass of ``block``, if it has any dropout that is on."""
        if not _draws(block):
            return
        inner = block.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            if self._step is None or not block.training:
                return inner(*args, **kwargs)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derive(self._step, layer))
                return inner(*args, **kwargs)

        block.forward = forward


@dataclass(frozen=True)
class CutModel:
    """A model in two parts that have no module in common."""

    layers: int
    front: int
    back: int
    client: Any
    """The whole model, its head too, whose blocks are the front, the `TrunkProxy` (unless nothing is between) and the
    back.
    """
    proxy: TrunkProxy | None
    trunk: Any
    """A body whose blocks are the middle ones, and that does nothing besides; None where k + m = L."""
    client_parameters: dict[str, nn.Parameter]
    trunk_parameters: dict[str, nn.Parameter]
    client_randomness: Randomness
    trunk_randomness: Randomness


def check_cut(front: int, back: int, layers: int) -> None:
    """Raises InputError unless 0 <= k, 0 <= m and k + m <= L."""
    if front < 0 or back < 0 or front + back > layers:
        raise InputError(
            f"model.cut: front {front} + back {back} exceeds the {layers} blocks of this backbone"
            f" (accepted: front + back <= {layers})"
        )


def cut(model: Any, front: int, back: int, *, seed: int = 0) -> CutModel:
    """Cut ``model`` after ``front`` blocks and before the last ``back``. The model given is used up.

    Raises:
        InputError: the architecture cannot be cut, or there are not so many blocks.
    """
    whole = blocks(model)
    layers = len(whole)
    check_cut(front, back, layers)
    names = adapter_parameters(model)
    near, middle, last = list(whole[:front]), list(whole[front : layers - back]), list(whole[layers - back :])
    client_randomness, trunk_randomness = Randomness(seed), Randomness(seed)
    for layer, block in enumerate(whole):
        inside = front <= layer < layers - back
        (trunk_randomness if inside else client_randomness).govern(block, layer)
    for path, part in outer_modules(model).items():
        client_randomness.govern(part, path)

    proxy = TrunkProxy(front) if middle else None
    kept = [*range(front), *([front] if proxy else []), *range(layers - back, layers)]
    client = _shell(model, [*near, *([proxy] if proxy else []), *last], kept)
    if proxy:
        proxy.listen(body(client))
    trunk = None
    if middle:
        trunk = body(_shell(model, middle, list(range(front, layers - back))))
        for path in outer_modules(trunk):
            trunk.set_submodule(path, _STANDS[architecture(trunk).outer_modules[path]]())
    held = {id(p) for block in middle for p in block.parameters()}
    return CutModel(
        layers, front, back, client, proxy, trunk,
        {n: p for n, p in names.items() if id(p) not in held},
        {n: p for n, p in names.items() if id(p) in held},
        client_randomness, trunk_randomness,
    )  # fmt: skip


def _shell(model: Any, layers: list[nn.Module], kept: list[int]) -> Any:
    """A copy of everything around the blocks (sharing the frozen ends and head), around ``layers``.

    Args:
        kept: the absolute layer of each of ``layers``; the first of those that it stands for, for the proxy.
    """
    memo: dict[int, Any] = {id(m): m for m in (*outer_modules(model).values(), *heads(model))}
    memo[id(blocks(model))] = nn.ModuleList()
    shell = copy.deepcopy(model, memo)
    inner = body(shell)
    inner.set_submodule(architecture(shell).blocks, nn.ModuleList(layers))
    for config in {id(c): c for c in (shell.config, inner.config)}.values():
        shorten(config, kept)
    for place, block in enumerate(layers):
        for module in block.modules():
            if hasattr(module, "layer_idx"):
                setattr(module, "layer_idx", place)  # noqa: B010  # the place in this part's own cache
    return shell


def shorten(config: Any, kept: list[int]) -> None:
    """Let ``config`` describe these layers alone: the library looks up by place which of them have a sliding window."""
    types = getattr(config, "layer_types", None)
    config.num_hidden_layers = len(kept)
    if types is not None:
        config.layer_types = [types[layer] for layer in kept]


def _draws(block: nn.Module) -> bool:
    """True if any dropout of the block is on."""
    rates = [m.p for m in block.modules() if isinstance(m, nn.Dropout)]
    return any(rates) or any(getattr(m, "attention_dropout", 0.0) for m in block.modules())
