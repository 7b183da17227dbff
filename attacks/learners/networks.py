"""Networks that read words off activations, small and trained from nothing, and how they are trained.

Before the linear map to the words ``linear`` has nothing, so that each position stands alone; ``gru`` has a GRU of 256
units over all positions so far; ``attention`` self-attention, added to its input; ``block`` a transformer block. The
last two see all positions, as the adversary does. Inputs are standardized. Training minimizes the cross-entropy over
the words (Adam at 1e-3) and ends early once the loss on the pairs held out no longer falls.

Source: the inversion models of SplitLLM and BiSR (Chen et al. 2024, arXiv 2409.00960), with the same GRU and optimizer.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

Kind = Literal["linear", "gru", "attention", "block"]
KINDS: tuple[Kind, ...] = get_args(Kind)

UNITS = 256
"""Units of the GRU."""
RATE = 1e-3
BATCH = 8
"""Prompts a step."""
PATIENCE = 2
"""Epochs without a lower loss on the pairs held out, after which training ends."""
OTHER = -100
"""Label in the place of a word that is not among those to choose from; nothing is learned of it."""

Example = tuple[Float[Tensor, "length hidden"], Int[Tensor, "length"]]
"""Pair of what crossed of a prompt, and which of the words stands at each position, or `OTHER`."""


class Network(nn.Module):
    """Network from what crossed of some prompts to the likelihood of each word at each position.

    Args:
        mean, deviation: of the activations that it is trained on.
    """

    def __init__(
        self, kind: Kind, words: int, mean: Float[Tensor, "hidden"], deviation: Float[Tensor, "hidden"]
    ) -> None:  # fmt: skip
        super().__init__()
        self._mean, self._deviation, self._scale = mean, deviation, 1 / deviation.clamp_min(1e-6)
        self.reads = _READS[kind](len(mean))
        self.words = nn.Linear(UNITS if kind == "gru" else len(mean), words)

    def forward(
        self, hidden: Float[Tensor, "batch length hidden"], padding: Bool[Tensor, "batch length"]
    ) -> Float[Tensor, "batch length words"]:
        """Logits; what stands behind the end of a prompt is ``padding``."""
        found: Tensor = self.words(self.reads((hidden - self._mean) * self._scale, padding))
        return found

    def tensors(self) -> dict[str, Tensor]:
        """Return all that it consists of besides its kind."""
        return {"mean": self._mean, "deviation": self._deviation, **self.state_dict()}


class _Alone(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        return x


class _Gru(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.gru = nn.GRU(hidden, UNITS, batch_first=True)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        found: Tensor = self.gru(x)[0]
        return found


class _Attention(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(hidden, math.gcd(hidden, 8), batch_first=True)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        added: Tensor = self.attention(x, x, x, key_padding_mask=padding, need_weights=False)[0]
        return x + added


class _Block(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.block = nn.TransformerEncoderLayer(
            hidden, math.gcd(hidden, 8), 4 * hidden, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        found: Tensor = self.block(x, src_key_padding_mask=padding)
        return found


_READS: dict[Kind, Callable[[int], nn.Module]] = {
    "linear": _Alone, "gru": _Gru, "attention": _Attention, "block": _Block,
}  # fmt: skip


@dataclass(frozen=True)
class Trained:
    """A network as it was after its best epoch."""

    network: Network
    epochs: int
    """Epochs that it was trained for, the best one included."""
    accuracy: float
    """Accuracy on the pairs held out."""

    def tensors(self) -> dict[str, Tensor]:
        """Return all that it consists of besides the network's kind."""
        accuracy = torch.tensor(self.accuracy, dtype=torch.float64)
        return {**self.network.tensors(), "epochs": torch.tensor(self.epochs), "accuracy": accuracy}

    @classmethod
    def of(cls, kind: Kind, words: int, tensors: Mapping[str, Tensor]) -> "Trained":
        """Return the one that gave these ``tensors``."""
        rest = dict(tensors)
        epochs, accuracy = int(rest.pop("epochs")), float(rest.pop("accuracy"))
        with torch.random.fork_rng(devices=[]):  # the first weights, which are drawn, go at once
            network = Network(kind, words, rest.pop("mean"), rest.pop("deviation"))
        network.load_state_dict(rest)
        return cls(network.eval(), epochs, accuracy)


def trained(
    kind: Kind, words: int, fit_on: Sequence[Example], held_out: Sequence[Example], *, epochs: int, seed: int,
    check: Callable[[], None],
) -> Trained:  # fmt: skip
    """Train a network of one kind.

    Args:
        words: to choose from.
        epochs: at most.
        seed: of the first weights and of the order of the prompts.
        check: called before every step; what it raises ends the training.
    """
    every = torch.cat([hidden for hidden, _ in fit_on])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network(kind, words, every.mean(0), every.std(0, correction=0))
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    best: tuple[float, float, int, dict[str, Any]] | None = None
    for epoch in range(1, epochs + 1):
        network.train()
        for hidden, wanted, padding in _batches([fit_on[i] for i in torch.randperm(len(fit_on), generator=order)]):
            check()
            optimizer.zero_grad()
            with torch.enable_grad():
                cross_entropy(network(hidden, padding).flatten(0, 1), wanted.flatten(), ignore_index=OTHER).backward()
            optimizer.step()
        loss, accuracy = _judged(network, held_out)
        if best is None or loss < best[0]:
            best = loss, accuracy, epoch, {name: value.clone() for name, value in network.state_dict().items()}
        elif epoch - best[2] >= PATIENCE:
            break
    assert best is not None
    network.load_state_dict(best[3])
    return Trained(network.eval(), epoch, best[1])


def _batches(examples: Sequence[Example]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """`BATCH` prompts at a time: what crossed, the words, and what is padding."""
    for start in range(0, len(examples), BATCH):
        hidden, wanted = zip(*examples[start : start + BATCH], strict=True)
        lengths = torch.tensor([len(each) for each in wanted])
        yield (
            pad_sequence(list(hidden), batch_first=True),
            pad_sequence(list(wanted), batch_first=True, padding_value=OTHER),
            torch.arange(int(lengths.max())) >= lengths[:, None],
        )


@torch.no_grad()
def _judged(network: Network, examples: Sequence[Example]) -> tuple[float, float]:
    """Cross-entropy, and share of words named, of the positions whose word can be chosen."""
    network.eval()
    loss, right, count = 0.0, 0, 0
    for hidden, wanted, padding in _batches(examples):
        logits, known = network(hidden, padding), wanted != OTHER
        loss += float(cross_entropy(logits[known], wanted[known], reduction="sum"))
        right += int((logits[known].argmax(1) == wanted[known]).sum())
        count += int(known.sum())
    return loss / count, right / count
