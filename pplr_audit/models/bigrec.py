"""BIGRec (Bao et al. 2023, arXiv 2308.08434): generate the title of the next item, ground it in the catalogue.

The model is tuned on the title of the next item. At inference it generates a title; that and all titles of the
catalogue are embedded by the *base* model (last layer, last token), and items are ranked by L2 distance.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from pplr_audit.data.prompts import Batch, Prompt, Prompts, collate
from pplr_audit.models.cut import positions
from pplr_audit.models.family import body
from pplr_audit.models.lora import adapter_off


def tensors(batch: Batch) -> tuple[Int[Tensor, "batch seq"], Int[Tensor, "batch seq"], Int[Tensor, "batch seq"]]:
    """Tokens, mask and which tokens are learned."""
    return torch.from_numpy(batch.tokens), torch.from_numpy(batch.mask), torch.from_numpy(batch.learned)


def token_log_probs(
    logits: Float[Tensor, "batch seq vocab"], tokens: Int[Tensor, "batch seq"]
) -> Float[Tensor, "batch seq-1"]:
    """log p(token t+1 | tokens up to t), at place t."""
    return -torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2).float(), tokens[:, 1:], reduction="none")


def answer_loss(
    logits: Float[Tensor, "batch seq vocab"], tokens: Int[Tensor, "batch seq"], learned: Int[Tensor, "batch seq"]
) -> Float[Tensor, ""]:
    """Mean over the sequences of each one's mean negative log-likelihood of its learned tokens.

    Per sequence first: a mean over all tokens of a batch would let one sequence's length weigh on every other sample.
    """
    wanted = learned[:, 1:].to(logits.dtype)
    losses = -token_log_probs(logits, tokens) * wanted
    return (losses.sum(1) / wanted.sum(1)).mean()


@torch.no_grad()
def answer_log_probs(
    model: Any, prompts: Sequence[Prompt], pad: int, *, batch: int = 64
) -> list[Float[np.ndarray, "answer"]]:
    """log-probability of each token of each prompt's answer (title, closing quote, end) under ``model``."""
    found: list[Float[np.ndarray, answer]] = []
    for start in range(0, len(prompts), batch):
        part = prompts[start : start + batch]
        tokens, mask, learned = tensors(collate(part, pad))
        logits = model(input_ids=tokens, attention_mask=mask, position_ids=positions(mask), use_cache=False).logits
        each = token_log_probs(logits, tokens)
        found += [row[keep.bool()].double().numpy() for row, keep in zip(each, learned[:, 1:], strict=True)]
    return found


@dataclass
class Tally:
    """What serving put through the model so far, padding included; sums over requests."""

    requests: int = 0
    prompt_positions: int = 0
    generated: int = 0
    """Tokens generated along one beam."""
    title_positions: int = 0
    """Of the generated titles, when they are embedded."""


class Grounding:
    """Titles as points in the base model's embedding space.

    Args:
        prompts: over the catalogue that items are ranked in.
        table: one point an item.
    """

    def __init__(self, prompts: Prompts, table: Float[np.ndarray, "items hidden"]) -> None:
        self._prompts = prompts
        self._table = table
        self._squares = (table**2).sum(1)

    @classmethod
    def of_base(cls, model: Any, prompts: Prompts) -> "Grounding":
        """The item table, computed once from ``model`` with its adapter off."""
        titles = [prompts.titles[item] for item in range(len(prompts.titles))]
        with adapter_off(model):
            return cls(prompts, embed_titles(model, titles, prompts))

    def scores(
        self,
        points: Float[np.ndarray, "users hidden"],
        popularity: Float[np.ndarray, "items"] | None = None,
        weight: float = 0.0,
    ) -> Float[np.ndarray, "users items"]:
        """Higher is better: minus the L2 distance to every item.

        With ``weight`` g > 0 (the paper's injection of popularity) the distance D, scaled to [0, 1] for each user, is
        divided by (1 + P)^g, where P is the popularity scaled to [0, 1].
        """
        squared = (points**2).sum(1)[:, None] + self._squares - 2 * points @ self._table.T
        distance = np.sqrt(np.maximum(squared, 0))
        if weight and popularity is not None:
            low, high = distance.min(1, keepdims=True), distance.max(1, keepdims=True)
            scaled = (distance - low) / np.maximum(high - low, 1e-12)
            spread = max(float(popularity.max() - popularity.min()), 1e-12)
            distance = scaled / (1 + (popularity - popularity.min()) / spread) ** weight
        return np.asarray(-distance)


@torch.no_grad()
def embed_titles(
    model: Any,
    titles: Sequence[Int[np.ndarray, "length"]],
    prompts: Prompts,
    *,
    batch: int = 128,
    tally: Tally | None = None,
) -> Float[np.ndarray, "titles hidden"]:
    """The last layer's state at the last token of each title (left padding), in batches of similar length."""
    sequences = [np.concatenate([prompts.bos, title]) for title in titles]
    sequences = [s if len(s) else np.array([prompts.eos]) for s in sequences]
    order = np.argsort([len(s) for s in sequences], kind="stable")
    points = np.empty((len(titles), model.config.hidden_size), dtype=np.float32)
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        tokens, mask = _left_padded([sequences[i] for i in rows], prompts.pad)
        out = body(model)(input_ids=tokens, attention_mask=mask, position_ids=positions(mask), use_cache=False)
        points[rows] = out.last_hidden_state[:, -1].float().numpy()
        if tally is not None:
            tally.title_positions += tokens.numel()
    return points


@torch.no_grad()
def generate_titles(
    model: Any,
    served: Sequence[Prompt],
    prompts: Prompts,
    *,
    beams: int,
    batch: int = 64,
    tally: Tally | None = None,
) -> list[Int[np.ndarray, "length"]]:
    """The title that ``model`` generates for each prompt, as tokens, without the closing quote and what follows it."""
    longest = int(prompts.titles.lengths.max()) + len(prompts.end)
    settings = GenerationConfig(
        max_new_tokens=longest, num_beams=beams, do_sample=False, eos_token_id=prompts.eos, pad_token_id=prompts.pad,
        bos_token_id=int(prompts.bos[0]) if len(prompts.bos) else None,
    )  # fmt: skip
    order = np.argsort([len(p) for p in served], kind="stable")
    titles: list[Int[np.ndarray, length]] = [np.empty(0, dtype=np.int64)] * len(served)
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        tokens, mask = _left_padded([served[i].tokens for i in rows], prompts.pad)
        steps = _Steps()
        out = model.generate(
            input_ids=tokens, attention_mask=mask, generation_config=settings,
            stopping_criteria=StoppingCriteriaList([steps]),
        )  # fmt: skip
        if tally is not None:
            tally.requests += len(rows)
            tally.prompt_positions += tokens.numel()
            tally.generated += steps.taken * len(rows)
        for row, answer in zip(rows, out[:, tokens.shape[1] :].numpy(), strict=True):
            titles[row] = _title(answer, prompts)
    return titles


class _Steps(StoppingCriteria):
    """Counts the passes of a generation; stops nothing."""

    def __init__(self) -> None:
        self.taken = 0

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        self.taken += 1
        return torch.zeros(input_ids.shape[0], dtype=torch.bool)


def _title(answer: Int[np.ndarray, "new"], prompts: Prompts) -> Int[np.ndarray, "length"]:
    """What stands before the end token, without the closing quote."""
    ends = np.flatnonzero(answer == prompts.eos)
    if len(ends):
        answer = answer[: ends[0]]
    quote = prompts.end[:-1]
    if len(quote) and len(answer) >= len(quote) and (answer[-len(quote) :] == quote).all():
        answer = answer[: -len(quote)]
    return answer.astype(np.int64)


def _left_padded(
    sequences: Sequence[Int[np.ndarray, "length"]], pad: int
) -> tuple[Int[Tensor, "batch seq"], Int[Tensor, "batch seq"]]:
    longest = max(map(len, sequences))
    tokens = torch.full((len(sequences), longest), pad)
    mask = torch.zeros((len(sequences), longest), dtype=torch.long)
    for row, sequence in enumerate(sequences):
        tokens[row, longest - len(sequence) :] = torch.from_numpy(sequence)
        mask[row, longest - len(sequence) :] = 1
    return tokens, mask
