"""Ridge inversion: a closed-form linear map from what crosses the cut back to the words (the floor for every attack).

For activations X (positions, hidden) of auxiliary prompts and the input embeddings Y of their tokens,

    W = (X'X + lambda I)^-1 X'Y        (both centred; lambda chosen on auxiliary prompts held out)

and each observed position is given the token whose embedding is nearest to xW by cosine. The auxiliary prompts are the
public template over random titles of the public catalogue, run through the front that the adversary knows. Items are
then read off along the template: of all titles, the one whose tokens fit best where a title must start.
"""

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pplr_audit.attacks.activation.titles import DEPTH, TitleReader
from pplr_audit.channels import Channel
from pplr_audit.data.prompts import Prompt
from pplr_audit.errors import InputError
from pplr_audit.views import Budget, BudgetExhausted, Guess, Knowledge, Model, NotApplicable, View

STRENGTHS = (1e-8, 1e-6, 1e-4, 1e-2, 1.0)
"""Candidates for lambda, in units of the mean diagonal of X'X."""


class Ridge:
    """One linear inverter a client and layer; all layers of an audit are fitted in one pass over the front.

    Args:
        prompts: auxiliary prompts to fit on.
        held_out: auxiliary prompts to choose lambda on.
        seed: of the random titles.
    """

    name = "ridge"
    secret = "history"
    channels = frozenset({Channel.FRONT_ACTIVATIONS, Channel.INFERENCE_ACTIVATIONS})
    controls = 1

    def __init__(self, prompts: int = 128, held_out: int = 16, seed: int = 0) -> None:
        for name, value, least in (("prompts", prompts, 1), ("held_out", held_out, 1), ("seed", seed, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(f"ridge: {name} is {value!r} (accepted: a whole number, {least} or more)")
        self.prompts, self.held_out, self.seed = prompts, held_out, seed
        self._fitted: WeakKeyDictionary[Knowledge, dict[tuple[str, int], _Fit]] = WeakKeyDictionary()

    def run(self, view: View, knowledge: Knowledge, budget: Budget) -> Guess:
        if view.front is None:
            raise NotApplicable("the channel does not depend on a front")
        if not view.records:
            raise NotApplicable("nothing crossed that belongs to a victim")
        reader = TitleReader(knowledge.prompts)
        words = reader.vocabulary
        normed = torch.nn.functional.normalize(knowledge.embeddings[words].float(), dim=1)
        # All fits first: whether the budget is enough for them does not depend on the order of the rows.
        for client, round_ in sorted({(record.client, record.round) for record in view.records}):
            self._inverters(client, round_, knowledge, budget)
        rows, tokens, slots, chosen = [], [], [], {}
        for record in view.records:
            budget.check()
            inverter = self._inverters(record.client, record.round, knowledge, budget)[view.front]
            guess = torch.nn.functional.normalize(inverter(record.tensor.float()), dim=1)
            fit = (guess @ normed.T).numpy()
            rows.append(record.row)
            tokens.append(words[fit.argmax(1)])
            slots.append(reader.read(fit))
            chosen[record.client] = inverter.strength
        return Guess(
            {
                "rows": np.array(rows),
                "token_offsets": _offsets(tokens),
                "tokens": np.concatenate(tokens),
                "slot_offsets": _offsets(slots),
                "items": np.concatenate(slots) if slots else np.empty((0, DEPTH), dtype=np.int64),
            },
            {"auxiliary_prompts": self.prompts, "lambda": chosen},
        )

    def _inverters(self, client: str, round_: int, knowledge: Knowledge, budget: Budget) -> dict[int, "Inverter"]:
        model = knowledge.front(client, round_)
        key = ("", 0) if model is knowledge.base else (client, round_)
        fitted = self._fitted.setdefault(knowledge, {})
        if key not in fitted:
            try:
                fitted[key] = self._fit(model, knowledge, budget)
            except BudgetExhausted as reason:
                fitted[key] = reason  # one fit serves all layers: what was too much for one is for all
        found = fitted[key]
        if isinstance(found, BudgetExhausted):
            raise found
        return found

    def _fit(self, model: Model, knowledge: Knowledge, budget: Budget) -> dict[int, "Inverter"]:
        generator = np.random.default_rng(self.seed)
        auxiliary = [_random_prompt(knowledge, generator) for _ in range(self.prompts + self.held_out)]
        fit_on, choose_on = auxiliary[: self.prompts], auxiliary[self.prompts :]
        sums = {layer: NormalEquations(knowledge.embeddings.shape[1]) for layer in knowledge.layers}
        for place, states in model.states(fit_on, knowledge.layers):
            budget.check()
            wanted = knowledge.embeddings[torch.from_numpy(fit_on[place].tokens)]
            for layer, hidden in states.items():
                sums[layer].add(hidden, wanted)
        held: dict[int, list[Tensor]] = {layer: [] for layer in knowledge.layers}
        truth: list[Int[np.ndarray, length]] = []
        for place, states in model.states(choose_on, knowledge.layers):
            truth.append(choose_on[place].tokens)
            for layer, hidden in states.items():
                held[layer].append(hidden)
        answers = torch.from_numpy(np.concatenate(truth))
        found = {}
        for layer in knowledge.layers:
            budget.check()
            found[layer] = sums[layer].solve(torch.cat(held[layer]), answers, knowledge.embeddings)
        return found


class Inverter:
    """x -> (x - mean) W + mean of the embeddings."""

    def __init__(
        self, weight: Float[Tensor, "hidden hidden"], x_mean: Float[Tensor, "hidden"], y_mean: Float[Tensor, "hidden"],
        strength: float,
    ) -> None:  # fmt: skip
        self._weight, self._x_mean, self._y_mean, self.strength = weight, x_mean, y_mean, strength

    def __call__(self, x: Float[Tensor, "length hidden"]) -> Float[Tensor, "length hidden"]:
        return (x - self._x_mean) @ self._weight + self._y_mean


_Fit = dict[int, Inverter] | BudgetExhausted


class NormalEquations:
    """X'X and X'Y summed up prompt by prompt, so that memory does not grow with their number."""

    def __init__(self, hidden: int) -> None:
        self._xx = torch.zeros(hidden, hidden, dtype=torch.float64)
        self._xy = torch.zeros(hidden, hidden, dtype=torch.float64)
        self._x = torch.zeros(hidden, dtype=torch.float64)
        self._y = torch.zeros(hidden, dtype=torch.float64)
        self._n = 0

    def add(self, x: Float[Tensor, "length hidden"], y: Float[Tensor, "length hidden"]) -> None:
        x, y = x.double(), y.double()
        self._xx += x.T @ x
        self._xy += x.T @ y
        self._x += x.sum(0)
        self._y += y.sum(0)
        self._n += len(x)

    def solve(
        self,
        held: Float[Tensor, "positions hidden"],
        answers: Int[Tensor, "positions"],
        table: Float[Tensor, "vocab hidden"],
    ) -> Inverter:
        """The inverter whose lambda names most of the held-out tokens; the smallest one of equals."""
        x_mean, y_mean = self._x / self._n, self._y / self._n
        centred = self._xx - self._n * torch.outer(x_mean, x_mean)
        cross = self._xy - self._n * torch.outer(x_mean, y_mean)
        values, vectors = torch.linalg.eigh(centred)
        values = values.clamp_min(0)
        rotated = vectors.T @ cross
        scale = float(values.mean()) or 1.0
        words = torch.nn.functional.normalize(table.float(), dim=1)
        best: tuple[float, Inverter] | None = None
        for strength in STRENGTHS:
            weight = (vectors @ (rotated / (values + strength * scale)[:, None])).float()
            inverter = Inverter(weight, x_mean.float(), y_mean.float(), strength)
            named = (torch.nn.functional.normalize(inverter(held.float()), dim=1) @ words.T).argmax(1)
            right = float((named == answers).float().mean())
            if best is None or right > best[0]:
                best = right, inverter
        assert best is not None
        return best[1]


def _random_prompt(knowledge: Knowledge, generator: np.random.Generator) -> Prompt:
    items = generator.integers(len(knowledge.prompts.titles), size=knowledge.history + 1)
    return knowledge.prompts.build(items[:-1], int(items[-1]))


def _offsets(pieces: Sequence[np.ndarray]) -> Int[np.ndarray, "pieces+1"]:
    return np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])])
