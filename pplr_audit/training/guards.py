"""The defenses of one federation at work: their hooks are called and their answers checked here, and nowhere else."""

import math
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from pplr_audit.errors import InputError, RunError
from pplr_audit.scenario.seeds import derive
from pplr_audit.threat_model.channels import Channel, Crossing
from pplr_audit.threat_model.defense import ALL, Act, End, PerSample, Turn
from pplr_audit.training.defending import UNDEFENDED, Composed, codes

Kept = Mapping[str, Mapping[str, Tensor]]
"""Memory of defenses: by client, or `ALL`, tensors under ``<defense>/<end>/<name>``."""


@dataclass(frozen=True)
class Place:
    """A local step at one end of the link, as turns describe it."""

    client: str
    round: int
    step: int
    end: End
    batch: int = 0
    batch_size: int = 0
    samples: int = 0


class Guards:
    """Calls the hooks of ``composed``, in its order.

    Args:
        seed: of all that the defenses draw, hashed with the turn it is drawn in.
    """

    def __init__(self, composed: Composed = UNDEFENDED, seed: int = 0) -> None:
        self.composed = composed
        self._seed = seed
        self._kept: dict[str, dict[str, Tensor]] = {}
        self._acting: dict[Act, tuple[int, ...]] = {act: composed.acting(act) for act in get_args(Act)}
        self._on = {
            channel: [p for p in self._acting["wire"] if channel in composed.defenses[p].channels]
            for channel in Channel
        }

    def act(self, *places: Act) -> bool:
        """True if a defense acts at one of these places."""
        return any(self._acting[place] for place in places)

    def on(self, channel: Channel) -> bool:
        """True if what crosses on this channel is not always what the sender has."""
        return bool(self._on[channel])

    # What is remembered between turns.

    def kept(self) -> dict[str, dict[str, Tensor]]:
        """Return a copy of all that is remembered, which does not change any more."""
        return {client: {n: t.clone() for n, t in own.items()} for client, own in self._kept.items() if own}

    def resume(self, kept: Kept) -> None:
        """Go back to what was remembered at the start of a round."""
        self._kept = {client: {name: value.clone() for name, value in own.items()} for client, own in kept.items()}

    def remembered(self, client: str, what: str) -> MutableMapping[str, Tensor]:
        """Return the memory for what training itself must keep because of a defense."""
        return _Part(self._kept.setdefault(client, {}), f"training/{what}/")

    # The wire.

    def encode(self, crossing: Crossing, sender: End, number: int) -> tuple[Crossing, list[Mapping[str, Tensor]]]:
        """Code a crossing at its sender: what crosses, and what each defense was given, which `decode` must make again.

        Args:
            number: tells this crossing from others of the same channel, client, round and step.
        """
        given: list[Mapping[str, Tensor]] = []
        if self._on[crossing.channel]:  # the sender goes on with its own tensors, whatever a hook does to what it gets
            crossing = replace(crossing, tensors={name: value.clone() for name, value in crossing.tensors.items()})
        for place in self._on[crossing.channel]:
            given.append(crossing.tensors)
            hook = "encode" if self._codes(place) else "apply"
            coded = self._call(place, hook, crossing, self._wire_turn(place, crossing, sender, number))
            self._require_tensors(place, hook, coded)
            if hook == "apply":
                self._require_alike(place, hook, coded, crossing.tensors)
            crossing = replace(crossing, tensors=dict(coded))
        return crossing, given

    def decode(self, crossing: Crossing, sender: End, number: int, given: Sequence[Mapping[str, Tensor]]) -> Crossing:
        """Make of what crossed what the receiver gets; the last defense to code is the first to decode."""
        receiver: End = "server" if sender == "client" else "client"
        for place, like in reversed(list(zip(self._on[crossing.channel], given, strict=True))):
            if self._codes(place):
                made = self._call(place, "decode", crossing, self._wire_turn(place, crossing, receiver, number))
                self._require_alike(place, "decode", made, like)
                crossing = replace(crossing, tensors=dict(made))
        return crossing

    def _codes(self, place: int) -> bool:
        return codes(self.composed.defenses[place])

    def _wire_turn(self, place: int, crossing: Crossing, end: End, number: int) -> Turn:
        address = (str(crossing.channel), crossing.client, crossing.round, crossing.step, number)
        return self._turn(place, Place(crossing.client, crossing.round, crossing.step, end), address, "")

    # Training.

    def batches(
        self, lengths: Int[np.ndarray, "samples"], size: int, generator: np.random.Generator
    ) -> list[Int[np.ndarray, "batch"]]:
        """Draw the batches of one epoch."""
        (place,) = self._acting["sampler"]
        drawn = self._call(place, "batches", lengths.copy(), size, generator)
        steps = math.ceil(len(lengths) / size)
        if not isinstance(drawn, Sequence) or len(drawn) != steps:
            raise self._wrong(place, "batches", f"answers no list of {steps} batches for {len(lengths)} samples")
        return [self._rows(place, rows, len(lengths)) for rows in drawn]

    def _rows(self, place: int, rows: Any, samples: int) -> Int[np.ndarray, "batch"]:
        """Return one step's rows, if each is a sample and none stands there twice."""
        found = np.asarray(rows)
        if found.size == 0:
            return np.empty(0, dtype=np.int64)
        if found.ndim != 1 or found.dtype.kind not in "iu" or found.min() < 0 or found.max() >= samples:
            raise self._wrong(place, "batches", f"answers a batch that is no list of rows from 0 to {samples - 1}")
        if len(np.unique(found)) < len(found):
            raise self._wrong(place, "batches", "answers a batch with a sample twice")
        return found.astype(np.int64)

    def per_sample(self, module: nn.Module | None, parameters: Mapping[str, nn.Parameter]) -> PerSample | None:
        """Return what a defense takes gradients of single samples with; None where it leaves that to us."""
        for place in self._acting["samples"]:
            if module is not None:
                made = self._call(place, "per_sample", module, parameters)
                if made is not None and not isinstance(made, PerSample):
                    raise self._wrong(place, "per_sample", f"answers a {type(made).__name__} and no PerSample")
                return made
        return None

    def tell(self, gradients: PerSample, at: Place) -> dict[str, Tensor]:
        """Return what one end tells the other in a step."""
        for place in self._acting["samples"]:
            told = self._call(place, "tell", gradients, self._step_turn(place, at))
            self._require_tensors(place, "tell", told)
            return dict(told)
        return {}

    def combine(
        self, gradients: PerSample, heard: Mapping[str, Tensor], at: Place, like: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Make the step's gradient out of those of its samples, for the parameters ``like``."""
        (place,) = self._acting["samples"]
        made = self._call(place, "combine", gradients, heard, self._step_turn(place, at))
        self._require_alike(place, "combine", made, like)
        return dict(made)

    def gradients(self, gradients: Mapping[str, Tensor], at: Place) -> dict[str, Tensor]:
        """Return what the optimizer gets in place of ``gradients``."""
        for place in self._acting["gradients"]:
            made = self._call(place, "gradients", gradients, self._step_turn(place, at))
            self._require_alike(place, "gradients", made, gradients)
            gradients = dict(made)
        return dict(gradients)

    def _step_turn(self, place: int, at: Place) -> Turn:
        return self._turn(place, at, ("step", at.client, at.round, at.step), at.end)

    # Aggregation.

    def updates(self, updates: Mapping[str, Mapping[str, Tensor]], round_: int) -> Mapping[str, Mapping[str, Tensor]]:
        """Return what the server mixes in place of the clients' updates."""
        for place in self._acting["updates"]:
            made = self._call(place, "updates", updates, self._round_turn(place, "updates", round_))
            if not isinstance(made, Mapping) or set(made) != set(updates):
                told = set(made) if isinstance(made, Mapping) else set()
                clients = ", ".join(sorted(map(str, told ^ set(updates))))
                raise self._wrong(place, "updates", f"answers too few or too many clients (see {clients})")
            for client, update in updates.items():
                self._require_alike(place, "updates", made[client], update, f", {client}")
            updates = {client: dict(made[client]) for client in updates}
        return updates

    def sum(self, updates: Mapping[str, Mapping[str, Tensor]], round_: int) -> dict[str, Tensor]:
        """Return all that the server learns of ``updates``, in the types that they have."""
        (place,) = self._acting["sum"]
        made = self._call(place, "sum", updates, self._round_turn(place, "sum", round_))
        self._require_alike(place, "sum", made, next(iter(updates.values())))
        return dict(made)

    def _round_turn(self, place: int, act: Act, round_: int) -> Turn:
        return self._turn(place, Place(ALL, round_, -1, "server"), (act, round_), "")

    # Calls and checks.

    def _turn(self, place: int, at: Place, address: tuple[str | int, ...], unnamed: str) -> Turn:
        """Make a turn that draws by its ``address``; draws without a name go by ``unnamed``."""
        called = self.composed.plugins[place]

        def draw(name: str) -> torch.Generator:
            seed = derive(self._seed, "defense", called, *address, name or unnamed)
            return torch.Generator().manual_seed(seed % 2**63)

        kept = _Part(self._kept.setdefault(at.client, {}), f"{called}/{at.end}/")
        return Turn(
            client=at.client, round=at.round, step=at.step, end=at.end, kept=kept, draw=draw,
            batch=at.batch, batch_size=at.batch_size, samples=at.samples,
        )  # fmt: skip

    def _call(self, place: int, hook: str, *given: Any) -> Any:
        """Call a hook, which is anybody's: whatever it breaks off with becomes one message."""
        try:
            return getattr(self.composed.defenses[place], hook)(*given)
        except (InputError, RunError):
            raise
        except Exception as error:
            told = f"breaks off with {type(error).__name__}: {' '.join(str(error).split())}"
            raise self._wrong(place, hook, told) from error

    def _require_tensors(self, place: int, hook: str, made: Any) -> None:
        """Raises InputError unless ``made`` is tensors by name."""
        if not isinstance(made, Mapping):
            raise self._wrong(place, hook, f"answers a {type(made).__name__} and no tensors by name")
        for name, tensor in made.items():
            if not isinstance(name, str) or not isinstance(tensor, Tensor):
                raise self._wrong(place, hook, f"answers as {name!r} a {type(tensor).__name__} and no tensor")

    def _require_alike(self, place: int, hook: str, made: Any, like: Mapping[str, Tensor], of: str = "") -> None:
        """Raises InputError unless ``made`` has the names, shapes and types of ``like``."""
        self._require_tensors(place, hook, made)
        if set(made) != set(like):
            found, wanted = (", ".join(sorted(names)) or "nothing" for names in (made, like))
            raise self._wrong(place, hook, f"answers {found}{of}, where {wanted} is needed")
        for name, tensor in like.items():
            if (made[name].shape, made[name].dtype) != (tensor.shape, tensor.dtype):
                raise self._wrong(
                    place, hook, f"answers {name}{of} as {said(made[name])}, where {said(tensor)} is needed"
                )

    def _wrong(self, place: int, hook: str, what: str) -> InputError:
        return InputError(f"defenses: {self.composed.plugins[place]}: its hook {hook} {what}")


class _Part(MutableMapping[str, Tensor]):
    """The entries of a mapping whose names begin with ``prefix``, which is left out."""

    def __init__(self, whole: dict[str, Tensor], prefix: str) -> None:
        self._whole, self._prefix = whole, prefix

    def __getitem__(self, name: str) -> Tensor:
        return self._whole[self._prefix + name]

    def __setitem__(self, name: str, value: Tensor) -> None:
        if not isinstance(value, Tensor):
            raise TypeError(f"{name!r} is a {type(value).__name__}, and only tensors can be kept")
        self._whole[self._prefix + name] = value.detach()

    def __delitem__(self, name: str) -> None:
        del self._whole[self._prefix + name]

    def __iter__(self) -> Iterator[str]:
        return iter([name[len(self._prefix) :] for name in self._whole if name.startswith(self._prefix)])

    def __len__(self) -> int:
        return sum(1 for _ in self)


def said(tensor: Tensor) -> str:
    """Return type and shape of a tensor, for messages."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
