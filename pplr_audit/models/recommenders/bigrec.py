"""BIGRec (Bao et al. 2023, arXiv 2308.08434): generate the title of the next item, ground it in the catalogue.

The model is tuned on the title of the next item. At inference it generates a title; that and all titles of the
catalogue are embedded by the *base* model (last layer, last token), and items are ranked by L2 distance.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)  # fmt: skip

from pplr_audit.data.dataset import Ragged
from pplr_audit.data.prompts import Prompt, Prompts, collate
from pplr_audit.errors import InputError
from pplr_audit.models.architectures import body
from pplr_audit.models.backbones.config import NOT_CAUSAL, one_line
from pplr_audit.models.backbones.load import Backbone
from pplr_audit.models.backbones.transformers_api import remembering
from pplr_audit.models.cut import positions
from pplr_audit.models.lora import adapter_off
from pplr_audit.models.recommenders.task import CatalogueEncoding, NotFinite, Served, Tally, tensors

REQUESTS = 128
"""Answered together."""
QUERIES = 64
"""Asked about together."""


class BigRec:
    """BIGRec as a `Task`.

    Args:
        model: uncut and with its adapter; the catalogue's titles are embedded by it, adapter off.
        loss_on: train on the answer alone (``title``) or on all tokens.
        popularity_weight: of the injection of popularity; 0 is none.
    """

    fixed = True
    catalogue: Sequence[Prompt] = ()
    catalogue_positions = 0

    def __init__(
        self, model: Any, prompts: Prompts, *, beams: int, loss_on: Literal["title", "all"] = "title",
        popularity_weight: float = 0.0,
    ) -> None:  # fmt: skip
        self.prompts = prompts
        self.base_encoding: CatalogueEncoding = {}
        self.grounding = Grounding.of_base(model, prompts)
        self._beams, self._loss_on, self._popularity_weight = beams, loss_on, popularity_weight

    def inputs(self, model: Any, prompts: Sequence[Prompt], *, serving: bool) -> dict[str, Tensor]:
        del model
        tokens, mask, _ = tensors(collate(prompts, self.prompts.pad, side="left" if serving else "right"))
        return _placed(tokens, mask)

    def loss(self, model: Any, prompts: Sequence[Prompt], encoding: CatalogueEncoding) -> Float[Tensor, ""]:
        return self.losses(model, prompts, encoding).mean()

    def losses(self, model: Any, prompts: Sequence[Prompt], encoding: CatalogueEncoding) -> Float[Tensor, "batch"]:
        del encoding
        tokens, mask, learned = tensors(collate(prompts, self.prompts.pad, loss_on=self._loss_on))
        return answer_losses(model(**_placed(tokens, mask)).logits, tokens, learned)

    def logits(
        self, model: Any, like: Float[Tensor, "batch length hidden"], encoding: CatalogueEncoding
    ) -> Float[Tensor, "batch length vocab"]:
        del encoding
        mask = torch.ones(like.shape[:2], dtype=torch.long)
        logits: Tensor = model(
            inputs_embeds=torch.zeros_like(like), attention_mask=mask, position_ids=positions(mask), use_cache=False
        ).logits
        return logits.float()

    def log_probs(
        self, model: Any, prompts: Sequence[Prompt], encoding: CatalogueEncoding
    ) -> list[Float[np.ndarray, "answer"]]:
        del encoding
        return answer_log_probs(model, prompts, self.prompts.pad)

    def query_batches(self, prompts: Sequence[Prompt]) -> list[Int[np.ndarray, "rows"]]:
        rows = np.arange(len(prompts))
        return [rows[start : start + QUERIES] for start in range(0, len(rows), QUERIES)]

    def refreshes(self, round_: int, epoch: int, step: int) -> bool:
        del round_, epoch, step
        return False

    def encode_catalogue(self, model: Any) -> dict[str, Tensor]:
        del model
        return {}

    def settled(self, round_: int) -> bool:
        del round_
        return True

    def recommend(
        self, served: Served, history: Ragged, popularity: Float[np.ndarray, "items"]
    ) -> Iterator[tuple[Int[np.ndarray, "rows"], Float[np.ndarray, "rows items"]]]:
        """Generate a title for each history, embed it by the base model, measure distances."""
        for start in range(0, len(history), REQUESTS):
            rows = np.arange(start, min(start + REQUESTS, len(history)))
            yield rows, self._answered(served, [self.prompts.build(history[row]) for row in rows], popularity)[1]

    def generated(
        self, served: Served, prompts: Sequence[Prompt], popularity: Float[np.ndarray, "items"]
    ) -> Iterator[tuple[Int[np.ndarray, "new"], Float[np.ndarray, "items"]]]:
        for start in range(0, len(prompts), REQUESTS):
            yield from zip(*self._answered(served, prompts[start : start + REQUESTS], popularity), strict=True)

    def _answered(
        self, served: Served, asked: Sequence[Prompt], popularity: Float[np.ndarray, "items"]
    ) -> tuple[list[Int[np.ndarray, "new"]], Float[np.ndarray, "rows items"]]:
        """Return what is generated behind each prompt, and the scores of the catalogue by it."""
        with served.model() as model:
            answers = generate_answers(model, asked, self.prompts, beams=self._beams, tally=served.tally)
        with served.model("base") as model:
            titles = [_title(answer, self.prompts) for answer in answers]
            points = embed_titles(model, titles, self.prompts, tally=served.tally)
        return answers, self.grounding.scores(points, popularity, self._popularity_weight)


def _placed(tokens: Int[Tensor, "batch seq"], mask: Int[Tensor, "batch seq"]) -> dict[str, Any]:
    return {"input_ids": tokens, "attention_mask": mask, "position_ids": positions(mask), "use_cache": False}


def token_log_probs(
    logits: Float[Tensor, "batch seq vocab"], tokens: Int[Tensor, "batch seq"]
) -> Float[Tensor, "batch seq-1"]:
    """log p(token t+1 | tokens up to t), at place t."""
    return -torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2).float(), tokens[:, 1:], reduction="none")


def answer_loss(
    logits: Float[Tensor, "batch seq vocab"], tokens: Int[Tensor, "batch seq"], learned: Int[Tensor, "batch seq"]
) -> Float[Tensor, ""]:
    """Mean over the sequences of `answer_losses`."""
    return answer_losses(logits, tokens, learned).mean()


def answer_losses(
    logits: Float[Tensor, "batch seq vocab"], tokens: Int[Tensor, "batch seq"], learned: Int[Tensor, "batch seq"]
) -> Float[Tensor, "batch"]:
    """Return the mean negative log-likelihood of each sequence's learned tokens.

    Per sequence: a mean over all tokens of a batch would let one sequence's length weigh on every other sample.
    """
    losses = -token_log_probs(logits, tokens)
    wanted = learned[:, 1:].to(losses.dtype)
    losses = losses * wanted
    return losses.sum(1) / wanted.sum(1)


@torch.no_grad()
def answer_log_probs(
    model: Any, prompts: Sequence[Prompt], pad: int, *, batch: int = QUERIES
) -> list[Float[np.ndarray, "answer"]]:
    """log-probability of each token of each prompt's answer (title, closing quote, end) under ``model``."""
    found: list[Float[np.ndarray, answer]] = []
    for start in range(0, len(prompts), batch):
        part = prompts[start : start + batch]
        tokens, mask, learned = tensors(collate(part, pad))
        logits = model(**_placed(tokens, mask)).logits
        each = token_log_probs(logits, tokens)
        found += [row[keep.bool()].double().numpy() for row, keep in zip(each, learned[:, 1:], strict=True)]
    return found


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
        out = body(model)(**_placed(tokens, mask))
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
    """The title that ``model`` generates for each prompt, as tokens, without the closing quote and what follows it.

    Raises:
        NotFinite: what the model says of the next token is NaN or infinite.
    """
    answers = generate_answers(model, served, prompts, beams=beams, batch=batch, tally=tally)
    return [_title(answer, prompts) for answer in answers]


@torch.no_grad()
def generate_answers(
    model: Any,
    served: Sequence[Prompt],
    prompts: Prompts,
    *,
    beams: int,
    batch: int = 64,
    tally: Tally | None = None,
) -> list[Int[np.ndarray, "new"]]:
    """All tokens that ``model`` generates for each prompt, the first end token with them, where there is one.

    Raises:
        NotFinite: what the model says of the next token is NaN or infinite.
    """
    longest = int(prompts.titles.lengths.max()) + len(prompts.end)
    settings = GenerationConfig(
        max_new_tokens=longest, num_beams=beams, do_sample=False, eos_token_id=prompts.eos, pad_token_id=prompts.pad,
        bos_token_id=int(prompts.bos[0]) if len(prompts.bos) else None,
    )  # fmt: skip
    order = np.argsort([len(p) for p in served], kind="stable")
    answers: list[Int[np.ndarray, new]] = [np.empty(0, dtype=np.int64)] * len(served)
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        tokens, mask = _left_padded([served[i].tokens for i in rows], prompts.pad)
        steps = _Steps()
        out = model.generate(
            input_ids=tokens, attention_mask=mask, generation_config=settings,
            stopping_criteria=StoppingCriteriaList([steps]), logits_processor=LogitsProcessorList([_Finite()]),
            **read_once(model, tokens, mask, beams),
        )  # fmt: skip
        if tally is not None:
            tally.requests += len(rows)
            tally.prompt_positions += tokens.numel()
            tally.generated += steps.taken * len(rows)
        for row, answer in zip(rows, out[:, tokens.shape[1] :].numpy(), strict=True):
            answers[row] = answer[: int(np.argmax([*(answer == prompts.eos), True])) + 1]
    return answers


def read_once(
    model: Any, tokens: Int[Tensor, "batch seq"], mask: Int[Tensor, "batch seq"], beams: int
) -> dict[str, Any]:
    """Read each prompt but its last token, then repeat keys and values for every beam: the library would repeat the
    prompt and read it once a beam. The last token is left to the library, which wants a token to go on from.
    """
    if beams == 1 or tokens.shape[1] == 1:
        return {}
    cache = DynamicCache(config=model.config)
    body(model)(**{**_placed(tokens[:, :-1], mask[:, :-1]), "use_cache": True}, **remembering(cache))
    cache.batch_repeat_interleave(beams)
    return remembering(cache)


class _Finite(LogitsProcessor):
    """Lets scores of the next token pass that have a best; of NaN the library would choose one without a word."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if not bool((scores < float("inf")).all()):  # NaN is not, either; -inf is what the library rules out
            raise NotFinite("scores of the next token that are not finite")
        return scores


class _Steps(StoppingCriteria):
    """Counts the passes of a generation; stops nothing."""

    def __init__(self) -> None:
        self.taken = 0

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        self.taken += 1
        return torch.zeros(input_ids.shape[0], dtype=torch.bool)


def _title(answer: Int[np.ndarray, "new"], prompts: Prompts) -> Int[np.ndarray, "length"]:
    """Return the tokens before the end token, without the closing quote."""
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


@torch.no_grad()
def require_causal(backbone: Backbone) -> None:
    """Raises InputError unless the states at earlier positions are the same whatever the last token is.

    Whatever a config says of it: a model that sees what it should tell would learn nothing else.
    """
    last = backbone.model.config.vocab_size - 1
    tokens = torch.tensor([[0, last, 0, last], [0, last, 0, 0]])
    try:
        states = backbone.model.base_model(input_ids=tokens, use_cache=False).last_hidden_state[:, :-1]
    except (RuntimeError, ValueError, IndexError) as error:  # sizes that load and do not fit together
        raise InputError(f"model.backbone: {backbone.name}: the model cannot be run: {one_line(error)}") from None
    if not torch.allclose(states[0], states[1], rtol=1e-3, atol=1e-5, equal_nan=True):
        raise InputError(f"model.backbone: {backbone.name}: {NOT_CAUSAL}")
