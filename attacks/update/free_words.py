"""Words from free embeddings, as DLG, TAG and LAMP read them: optimized until their gradient is the one that was seen.

Embeddings at the unknown positions start from noise and are moved down the distance of gradients: by L-BFGS for DLG's
(Zhu et al. 2019, arXiv 1906.08935, algorithm 1), by Adam for TAG's (Deng et al. 2021, arXiv 2103.06819) and LAMP's
(Balunovic et al. 2022, arXiv 2202.08827, algorithm 1). LAMP then changes the order of words (section 4.2: two change
places, one moves, the end comes first) where distance and perplexity together get better, and goes on from there. The
template's positions are held.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pplr_audit.attacks.update.distances import Distance, distance
from pplr_audit.data.prompts import Prompt
from pplr_audit.threat_model import Model

DECAY, EVERY = 0.89, 50
"""The rate is multiplied by the first after so many steps."""


@dataclass(frozen=True)
class Matching:
    """How embeddings are moved.

    Args:
        steps: of Adam or L-BFGS in a turn.
        turns: of steps, with moves of words between them.
        moves: orders of words that are tried between two turns; 0 leaves them out.
        rate: of Adam.
        prior: weight of the mean negative log-likelihood of the words, beside the distance.
        weights: of TAG by the tensor's name, as `distances.by_layer` has them.
    """

    kind: Distance = "cosine"
    steps: int = 100
    turns: int = 2
    moves: int = 20
    rate: float = 0.03
    prior: float = 0.1
    weights: Mapping[str, float] = field(default_factory=dict)

    def words(
        self, model: Model, skeleton: Prompt, unknown: Bool[np.ndarray, "length"], wanted: dict[str, Tensor],
        vocabulary: Float[Tensor, "vocab hidden"], check: Callable[[], None], seed: int,
    ) -> Int[np.ndarray, "length"]:  # fmt: skip
        """Return the skeleton's tokens with those read in place of the unknown ones.

        Args:
            skeleton: one prompt; what stands at the unknown positions does not matter.
            wanted: the gradient that was seen, by name.
            vocabulary: embeddings of all words.
        """
        free = torch.from_numpy(np.flatnonzero(unknown))
        fixed = vocabulary[torch.from_numpy(skeleton.tokens)].clone()
        generator = torch.Generator().manual_seed(seed)
        values = vocabulary.std() * torch.randn(len(free), vocabulary.shape[1], generator=generator)

        def whole(rows: Float[Tensor, "free hidden"]) -> Float[Tensor, "length hidden"]:
            return fixed.index_copy(0, free, rows)

        def away(rows: Float[Tensor, "free hidden"]) -> Float[Tensor, ""]:
            return distance(model.gradients_at([skeleton], [whole(rows)]), wanted, self.kind, self.weights)

        def worth(rows: Float[Tensor, "free hidden"]) -> float:
            words = whole(vocabulary[_nearest(rows, vocabulary)])
            return float(away(rows).detach()) + (
                self.prior * _surprise(model, words, vocabulary) if self.prior else 0.0
            )

        for turn in range(self.turns):
            values = self._moved(values, away, check)
            if turn < self.turns - 1 and self.moves:
                values = self._reordered(values, worth, check, np.random.default_rng((seed, turn)))
        tokens = skeleton.tokens.copy()
        tokens[free.numpy()] = _nearest(values, vocabulary).numpy()
        return tokens

    def _moved(
        self, start: Float[Tensor, "free hidden"], away: Callable[[Tensor], Tensor], check: Callable[[], None]
    ) -> Float[Tensor, "free hidden"]:
        values = start.clone().requires_grad_()

        def slope() -> Tensor:
            check()
            with torch.enable_grad():
                found = away(values)
                (values.grad,) = torch.autograd.grad(found, values)
            return found.detach()

        if self.kind == "l2":
            whole = torch.optim.LBFGS(
                [values], max_iter=self.steps, max_eval=self.steps, tolerance_grad=0, tolerance_change=0,
                line_search_fn="strong_wolfe",
            )  # fmt: skip
            whole.step(slope)
            return values.detach()
        optimizer = torch.optim.Adam([values], lr=self.rate)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, EVERY, DECAY)
        for _ in range(self.steps):
            slope()
            optimizer.step()
            schedule.step()
        return values.detach()

    def _reordered(
        self, values: Float[Tensor, "free hidden"], worth: Callable[[Tensor], float], check: Callable[[], None],
        generator: np.random.Generator,
    ) -> Float[Tensor, "free hidden"]:  # fmt: skip
        best, least = values, worth(values)
        for _ in range(self.moves):
            check()
            candidate = values[torch.from_numpy(_order(len(values), generator))]
            if (found := worth(candidate)) < least:
                best, least = candidate, found
        return best


def _order(count: int, generator: np.random.Generator) -> Int[np.ndarray, "count"]:
    """Return an order of words that is one move away: two change places, one moves, or the end comes first."""
    order = np.arange(count)
    first, second = sorted(generator.integers(count, size=2).tolist())
    kind = generator.integers(3)
    if kind == 0:
        order[[first, second]] = order[[second, first]]
        return order
    if kind == 1:
        return np.insert(np.delete(order, first), second, first)
    return np.concatenate([order[second:], order[:second]])


def _nearest(rows: Float[Tensor, "free hidden"], vocabulary: Float[Tensor, "vocab hidden"]) -> Int[Tensor, "free"]:
    """The word whose embedding has the most similar direction."""
    return (rows.detach() @ torch.nn.functional.normalize(vocabulary, dim=1).T).argmax(1)


@torch.no_grad()
def _surprise(
    model: Model, embedded: Float[Tensor, "length hidden"], vocabulary: Float[Tensor, "vocab hidden"]
) -> float:
    """The mean negative log-likelihood of words by the model's own reading of them; 0 for one that reads both ways."""
    if not model.causal:
        return 0.0
    tokens = _nearest(embedded, vocabulary)
    logits = model.logits(0, embedded[None])[0, :-1].float()
    return float(torch.nn.functional.cross_entropy(logits, tokens[1:]))


def of_titles(tokens: Sequence[int], titles: Sequence[Int[np.ndarray, "length"]]) -> np.ndarray:
    """Return all items by the share of their title's tokens that are among those read, longer titles first."""
    read = set(tokens)
    shares = [(float(np.mean([int(token) in read for token in title])), len(title)) for title in titles]
    return np.array(sorted(range(len(titles)), key=lambda item: (-shares[item][0], -shares[item][1])), dtype=np.int64)
