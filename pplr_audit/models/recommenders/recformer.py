"""RecFormer (Li et al. 2023, arXiv 2305.13731) on any encoder: a user and an item are one kind of text, and items are
ranked by cosine.

What is added to a token's embedding says whether it is a key or a value of an attribute, and which item it belongs to
(section 3.1); both start at zero, so that training begins with the encoder as it was. Score = cosine / temperature
between the encoded history and each encoded item, softmax over the whole catalogue (sections 3.2 and 3.4). Fine-tuning
has two stages: the item table is encoded anew at every epoch, then it is frozen and only the histories are trained.

What a text does not say of an item, such as that it is popular, a frozen table cannot learn: a vector of its own may be
added to each item's encoding, as UniSRec does where users and items are known (Hou et al. 2022, arXiv 2206.05941,
section 2.3).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from torch.utils.checkpoint import checkpoint

from pplr_audit import scenario
from pplr_audit.data.dataset import Ragged
from pplr_audit.data.prompts import Prompt, Prompts, collate
from pplr_audit.models.architectures import architecture, body
from pplr_audit.models.recommenders.task import CatalogueEncoding, Served, by_length, padded, tensors

ITEMS = "items"
"""The item table in the encoding: one unit vector an item."""
POSITIONS = 2048
"""Most positions of a batch that is only encoded, padding included."""
SCORES = 1 << 22
"""Held at once in ranking."""
CHUNK = 32_768
"""Items whose scores are held at once in training, a number a sample each."""
MARKS, IDS = "marks", "ids"


class Marks(nn.Module):
    """Numbers that are embedded and added to each token: its kind (of no item, key, value) and its item's number."""

    def __init__(self, items: int, hidden: int) -> None:
        super().__init__()
        self.kind = nn.Parameter(torch.zeros(3, hidden))
        self.order = nn.Parameter(torch.zeros(items + 1, hidden))

    def forward(
        self, kinds: Int[Tensor, "batch seq"], order: Int[Tensor, "batch seq"]
    ) -> Float[Tensor, "batch seq hidden"]:
        return self.kind[kinds] + self.order[order]


class Ids(nn.Module):
    """A vector a catalogue item, added to its encoding where items are compared; zero at first."""

    def __init__(self, items: int, hidden: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.zeros(items, hidden))


def embeddings(model: Any) -> Any:
    """The module that turns word embeddings into what enters the first block; the client's at every cut."""
    (path,) = (path for path, use in architecture(model).outer_modules.items() if use == "called")
    return body(model).get_submodule(path)


def add_marks(model: Any, items: int) -> None:
    """Put `Marks` for up to ``items`` items beside the word embeddings, in place; the forward pass passes them by."""
    embeddings(model).add_module(MARKS, Marks(items, model.config.hidden_size))


def add_ids(model: Any, items: int) -> None:
    """Put `Ids` of so many items beside the word embeddings, in place: so that they are the client's at every cut."""
    embeddings(model).add_module(IDS, Ids(items, model.config.hidden_size))


def marks(model: Any) -> Any:
    """The `Marks` of a model; None where it has none."""
    return None if architecture(model).causal else getattr(embeddings(model), MARKS, None)


def feeds_blocks(model: Any) -> bool:
    """True if the first block's input depends on trained parameters; items' own vectors come in behind the blocks."""
    if architecture(model).causal:
        return False
    return any(p.requires_grad for name, p in embeddings(model).named_parameters() if not name.startswith(f"{IDS}."))


class RecFormer:
    """RecFormer as a `Task`.

    Args:
        model: uncut, as it is before training, with its marks.
        rounds: of the training.
    """

    def __init__(self, model: Any, prompts: Prompts, settings: scenario.Recformer, *, rounds: int) -> None:
        self.prompts = prompts
        self._pooling, self._temperature = settings.pooling, settings.temperature
        half = -(-rounds // 2)
        self._refreshed = half if settings.refresh_rounds is None else settings.refresh_rounds
        self._refresh_steps = settings.refresh_steps
        self.fixed = self._refreshed == 0
        self._items = [prompts.build(np.array([item])) for item in range(len(prompts.titles))]
        lengths = [len(item) for item in self._items]
        self.catalogue: Sequence[Prompt] = [self._items[row] for rows in by_length(lengths, POSITIONS) for row in rows]
        self.catalogue_positions = padded(lengths, POSITIONS)
        self.base_encoding: CatalogueEncoding = self.encode_catalogue(model)

    def inputs(self, model: Any, prompts: Sequence[Prompt], *, serving: bool) -> dict[str, Tensor]:
        del serving
        batch = collate(prompts, self.prompts.pad)
        tokens, mask, _ = tensors(batch)
        kinds, order = np.zeros_like(batch.tokens), np.zeros_like(batch.tokens)
        for row, prompt in enumerate(prompts):
            of_item = prompt.order > 0
            kinds[row, : len(prompt)] = np.where(of_item, 1 + (prompt.slots >= 0), 0)
            order[row, : len(prompt)] = prompt.order
        added = marks(model)(torch.from_numpy(kinds), torch.from_numpy(order))
        words: Tensor = model.get_input_embeddings()(tokens)
        return {"inputs_embeds": words + added, "attention_mask": mask}

    def points(self, model: Any, prompts: Sequence[Prompt]) -> Float[Tensor, "prompts hidden"]:
        """The prompts as unit vectors, in one batch."""
        asked = self.inputs(model, prompts, serving=False)
        return self._pooled(body(model)(**asked).last_hidden_state.float(), asked["attention_mask"])

    def _pooled(
        self, hidden: Float[Tensor, "batch seq hidden"], mask: Int[Tensor, "batch seq"]
    ) -> Float[Tensor, "batch hidden"]:
        if self._pooling == "cls":
            return normalize(hidden[:, 0], dim=1)
        return normalize((hidden * mask[:, :, None]).sum(1), dim=1)  # its length does not matter

    def logits(
        self, model: Any, like: Float[Tensor, "batch length hidden"], encoding: CatalogueEncoding
    ) -> Float[Tensor, "batch items"]:
        mask = torch.ones(like.shape[:2], dtype=torch.long)
        hidden = body(model)(inputs_embeds=torch.zeros_like(like), attention_mask=mask).last_hidden_state.float()
        return self._pooled(hidden, mask) / self._temperature @ self.table(model, encoding).T

    def table(self, model: Any, encoding: CatalogueEncoding) -> Float[Tensor, "items hidden"]:
        """Return the vectors that histories are compared with: the encoded items plus items' own vectors, if any."""
        own = getattr(embeddings(model), IDS, None)
        return encoding[ITEMS] if own is None else normalize(encoding[ITEMS] + own.vectors, dim=1)

    def loss(self, model: Any, prompts: Sequence[Prompt], encoding: CatalogueEncoding) -> Float[Tensor, ""]:
        return softmax_loss(*self._compared(model, prompts, encoding))

    def losses(self, model: Any, prompts: Sequence[Prompt], encoding: CatalogueEncoding) -> Float[Tensor, "batch"]:
        return softmax_losses(*self._compared(model, prompts, encoding))

    def _compared(
        self, model: Any, prompts: Sequence[Prompt], encoding: CatalogueEncoding
    ) -> tuple[Float[Tensor, "batch hidden"], Float[Tensor, "items hidden"], Int[Tensor, "batch"]]:
        """Return what the loss is of: points, the items that they are compared with, and the true ones."""
        targets = torch.tensor([prompt.target for prompt in prompts])
        return self.points(model, prompts) / self._temperature, self.table(model, encoding), targets

    @torch.no_grad()
    def log_probs(
        self, model: Any, prompts: Sequence[Prompt], encoding: CatalogueEncoding
    ) -> list[Float[np.ndarray, "answer"]]:
        found, items = np.empty((len(prompts), 1)), self.table(model, encoding)
        for rows in self.query_batches(prompts):
            scores = self.points(model, [prompts[row] for row in rows]) @ items.T / self._temperature
            targets = torch.tensor([prompts[row].target for row in rows])
            found[rows] = scores.double().log_softmax(1).gather(1, targets[:, None]).numpy()
        return list(found)

    def query_batches(self, prompts: Sequence[Prompt]) -> list[Int[np.ndarray, "rows"]]:
        return list(by_length([len(prompt) for prompt in prompts], POSITIONS))

    def refreshes(self, round_: int, epoch: int, step: int) -> bool:
        if self.fixed or (round_ == 1 and epoch == step == 0):
            return False  # all begin with the base model, whose table is public
        if round_ > self._refreshed:
            return round_ == self._refreshed + 1 and epoch == step == 0
        return step == 0 or (self._refresh_steps is not None and step % self._refresh_steps == 0)

    def settled(self, round_: int) -> bool:
        return self.fixed or round_ > self._refreshed

    def encode_catalogue(self, model: Any) -> dict[str, Tensor]:
        return {ITEMS: self.encode(model, self._items)}

    @torch.no_grad()
    def encode(self, model: Any, prompts: Sequence[Prompt]) -> Float[Tensor, "prompts hidden"]:
        """The prompts as unit vectors, in batches of nearly equal length."""
        found = torch.empty(len(prompts), model.config.hidden_size)
        for rows in by_length([len(prompt) for prompt in prompts], POSITIONS):
            found[torch.from_numpy(rows)] = self.points(model, [prompts[row] for row in rows])
        return found

    def recommend(
        self, served: Served, history: Ragged, popularity: Float[np.ndarray, "items"]
    ) -> Iterator[tuple[Int[np.ndarray, "rows"], Float[np.ndarray, "rows items"]]]:
        """Encode each history, multiply by the item table."""
        del popularity
        encoding = served.encoding
        if encoding is None:
            with served.model(catalogue=True) as model:
                encoding = self.encode_catalogue(model)
        with served.model() as model, torch.no_grad():
            items = self.table(model, encoding)
        together = max(1, SCORES // len(items))
        lengths = self.prompts.lengths(history)
        order = np.argsort(lengths, kind="stable")
        for rows in np.split(order, range(together, len(order), together)):
            with served.model() as model:
                points = self.encode(model, [self.prompts.build(history[row]) for row in rows])
            served.tally.requests += len(rows)
            served.tally.prompt_positions += padded(lengths[rows], POSITIONS)
            yield rows, (points / self._temperature @ items.T).numpy()

    def generated(
        self, served: Served, prompts: Sequence[Prompt], popularity: Float[np.ndarray, "items"]
    ) -> Iterator[tuple[Int[np.ndarray, "new"], Float[np.ndarray, "items"]]]:
        del served, prompts, popularity
        return iter(())


def softmax_loss(
    points: Float[Tensor, "batch hidden"], table: Float[Tensor, "items hidden"], targets: Int[Tensor, "batch"],
    chunk: int = CHUNK,
) -> Float[Tensor, ""]:  # fmt: skip
    """Mean over the samples of `softmax_losses`."""
    if len(table) <= chunk:
        return cross_entropy(points @ table.T, targets)  # its mean rounds otherwise than the mean of its parts
    return softmax_losses(points, table, targets, chunk).mean()


def softmax_losses(
    points: Float[Tensor, "batch hidden"], table: Float[Tensor, "items hidden"], targets: Int[Tensor, "batch"],
    chunk: int = CHUNK,
) -> Float[Tensor, "batch"]:  # fmt: skip
    """Cross-entropy of each target among all items, whose scores are ``points @ table.T``.

    Beyond ``chunk`` items the scores are computed in chunks, and again in the backward pass, so that encoding does not
    grow with the catalogue.
    """
    if len(table) <= chunk:
        return cross_entropy(points @ table.T, targets, reduction="none")

    def total(points: Tensor, part: Tensor) -> Tensor:
        return (points @ part.T).logsumexp(1)

    sums = [checkpoint(total, points, part, use_reentrant=False) for part in table.split(chunk)]
    return torch.stack(sums).logsumexp(0) - (points * table[targets]).sum(1)
