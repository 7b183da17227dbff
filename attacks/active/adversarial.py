"""Parts of both adversarial attacks: a decoder from hidden states to words, a critic, batches of text.

Both networks read a position with a few neighbors on either side (one convolution, one hidden layer), as h_k of a token
depends on what stands around it. The critic has its spectral norm bounded, without which it runs away from so small a
generator as a LoRA front.

Sources: generative adversarial networks (Goodfellow et al. 2014, arXiv 1406.2661), in the form that does not saturate;
spectral normalization (Miyato et al. 2018, arXiv 1802.05957).
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, gelu
from torch.nn.utils.parametrizations import spectral_norm

from pplr_audit.attacks.decoding.word_scores import require_whole
from pplr_audit.data.prompts import Prompt
from pplr_audit.errors import InputError
from pplr_audit.threat_model.knowledge import Front, Knowledge

STARTS = ("base", "random")
REACH = 2
"""Neighbors on either side that a position is read with."""
DECODER_RATE, CRITIC_RATE = 1e-3, 3e-3
MOST = 4096
"""Auxiliary prompts that batches are made of, at most; after that they come again."""
BETAS = (0.0, 0.99)
"""Betas of Adam for the two that play against each other: without momentum neither overshoots the other."""

Sequences = tuple[Float[Tensor, "batch seq hidden"], Int[Tensor, "batch seq"]]
"""Hidden states and the mask of what is no padding."""


class Scale:
    """Takes hidden states to mean 0 and deviation 1, by dimension, as they were at first."""

    def __init__(self, hidden: Float[Tensor, "positions hidden"]) -> None:
        self._mean, self._std = hidden.mean(0), hidden.std(0, correction=0).clamp_min(1e-6)

    def __call__(self, hidden: Float[Tensor, "*shape hidden"]) -> Float[Tensor, "*shape hidden"]:
        return (hidden - self._mean) / self._std


class Network(nn.Module):
    """Each position with its neighbors, through one hidden layer, to ``answers`` numbers."""

    def __init__(self, hidden: int, width: int, answers: int, *, bounded: bool = False) -> None:
        super().__init__()
        inner, outer = nn.Conv1d(hidden, width, 2 * REACH + 1, padding=REACH), nn.Conv1d(width, answers, 1)
        self._inner, self._outer = (spectral_norm(inner), spectral_norm(outer)) if bounded else (inner, outer)

    def forward(
        self, hidden: Float[Tensor, "batch seq hidden"], mask: Int[Tensor, "batch seq"]
    ) -> Float[Tensor, "batch seq answers"]:
        masked = (hidden * mask[..., None]).transpose(1, 2)
        found: Tensor = self._outer(gelu(self._inner(masked)))
        return found.transpose(1, 2)


class Decoder:
    """Decoder from hidden states to the words that a prompt can hold; it learns from prompts with known states."""

    def __init__(self, words: Int[np.ndarray, "words"], hidden: int, width: int, scale: Scale) -> None:
        self._words, self._scale = words, scale
        self._network = Network(hidden, width, len(words))
        self._optimizer = torch.optim.Adam(self._network.parameters(), DECODER_RATE)

    def learn(self, seen: Sequences, prompts: Sequence[Prompt]) -> None:
        """One step."""
        self.loss(seen, prompts).backward()
        self._optimizer.step()
        self._optimizer.zero_grad()

    def loss(self, seen: Sequences, prompts: Sequence[Prompt]) -> Float[Tensor, ""]:
        """Cross-entropy of the tokens, in nats a position."""
        hidden, mask = seen
        said = self._network(self._scale(hidden), mask)[mask.bool()]
        tokens = np.concatenate([prompt.tokens for prompt in prompts])
        known = np.isin(tokens, self._words)  # another catalogue has other words, too
        true = np.searchsorted(self._words, tokens[known])
        return cross_entropy(said[torch.from_numpy(known)], torch.from_numpy(true))

    @torch.no_grad()
    def read(self, hidden: Float[Tensor, "length hidden"]) -> Float[np.ndarray, "length words"]:
        """The probability of each word at each position."""
        mask = torch.ones(1, len(hidden), dtype=torch.long)
        return np.asarray(self._network(self._scale(hidden)[None], mask)[0].softmax(1).numpy())


class Critic:
    """Tells hidden states of one front from those of another, position by position."""

    def __init__(self, hidden: int, width: int, scale: Scale) -> None:
        self._scale, self._network = scale, Network(hidden, width, 1, bounded=True)
        self._optimizer = torch.optim.Adam(self._network.parameters(), CRITIC_RATE, BETAS)

    def learn(self, wanted: Sequences, others: Sequences) -> None:
        """One step toward 1 for those ``wanted`` and 0 for the ``others``."""
        (self._loss(wanted, 1.0) + self._loss(others, 0.0)).backward()
        self._optimizer.step()
        self._optimizer.zero_grad()

    def distance(self, others: Sequences) -> Float[Tensor, ""]:
        """Return how far these are from being taken for the wanted ones; differentiable by them alone."""
        for parameter in self._network.parameters():
            parameter.requires_grad_(False)
        found = self._loss(others, 1.0)
        for parameter in self._network.parameters():
            parameter.requires_grad_(True)
        return found

    def _loss(self, seen: Sequences, answer: float) -> Float[Tensor, ""]:
        hidden, mask = seen
        said = self._network(self._scale(hidden), mask)[mask.bool()]
        return binary_cross_entropy_with_logits(said, torch.full_like(said, answer))


def auxiliary_text(knowledge: Knowledge, steps: int, batch: int, seed: int) -> list[Prompt]:
    """Auxiliary prompts for so many steps, as far as `MOST` goes. Raises NotApplicable where the adversary has none."""
    return knowledge.draw(min(steps * batch, max(MOST, batch)), np.random.default_rng(seed))


def batches(text: Sequence[Prompt], batch: int, generator: np.random.Generator) -> Iterator[list[Prompt]]:
    """Yield prompts without end in a random order, none again before the others, but for a rest that fills no batch.

    Args:
        text: a ``batch`` of prompts, or more.
    """
    while True:
        order = generator.permutation(len(text))
        for start in range(0, len(text) - batch + 1, batch):
            yield [text[place] for place in order[start : start + batch]]


def redrawn(front: Front) -> Front:
    """The same architecture with weights drawn anew, by the scale that each tensor had, and all of them trainable."""
    with torch.no_grad():
        for parameter in front.parameters():
            parameter.requires_grad_(True)
            if parameter.dim() > 1:
                parameter.normal_(0.0, float(parameter.std()))
    return front


def together(pieces: Sequence[Float[Tensor, "length hidden"]]) -> Sequences:
    """Padded on the right."""
    hidden = nn.utils.rnn.pad_sequence(list(pieces), batch_first=True)
    lengths = torch.tensor([len(piece) for piece in pieces])
    return hidden, (torch.arange(hidden.shape[1]) < lengths[:, None]).long()


def require_settings(attack: str, start: str, **counts: tuple[object, int]) -> None:
    """Raises InputError unless ``start`` is one of `STARTS` and each count a whole number of at least so much."""
    if start not in STARTS:
        raise InputError(f"{attack}: start is {start!r} (accepted: {', '.join(STARTS)})")
    require_whole(attack, **counts)
