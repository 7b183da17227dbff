"""The trained tensors of a model that have a row for each token or item: which of them, and where their rows lie.

A row of the word embeddings learns from the sequences that hold its token, and from no others. A row of the head, or of
items' own vectors, learns from every sequence: one way from those that it is the answer to, and another from the rest.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from pplr_audit.models.recommenders.recformer import IDS

Learns = Literal["reading", "answering"]


@dataclass(frozen=True)
class Rows:
    """A trained tensor with a row for each token, or for each item of the catalogue."""

    name: str
    of: Literal["tokens", "items"]
    learns: Learns
    """``reading``: a row is trained by the sequences that hold its token alone; ``answering``: by every sequence, as
    one that is the answer or is not (and by reading, too, where the head is tied to the word embeddings)."""
    axis: int = 0
    """Axis along which the tokens or items are counted."""


def rows_of(model: Any, trained: Iterable[str]) -> dict[str, Rows]:
    """Return the tensors with a row a token or item among those that are trained, by name.

    Of LoRA these are A at the word embeddings, (rank, tokens), and B at the head, (tokens, rank).
    """
    words, head = model.get_input_embeddings(), _head(model)
    tied = head is not None and getattr(head, "weight", None) is getattr(words, "weight", None)
    found: list[Rows] = []
    for path, module in model.named_modules():
        if module is words:
            learns: Learns = "answering" if tied else "reading"
            found += [Rows(f"{path}.{name}", "tokens", learns) for name in ("weight", "base_layer.weight")]
            found.append(Rows(f"{path}.lora_embedding_A.default", "tokens", "reading", axis=1))
        if module is head:
            names = ("weight", "base_layer.weight", "lora_B.default.weight")
            found += [Rows(f"{path}.{name}", "tokens", "answering") for name in names]
        if path.rpartition(".")[2] == IDS:
            found.append(Rows(f"{path}.vectors", "items", "answering"))
    present = {*trained}
    return {each.name: each for each in found if each.name in present}


def _head(model: Any) -> nn.Module | None:
    """Return the layer that makes scores of words; None of a model without one."""
    asked = getattr(model, "get_output_embeddings", None)
    found: nn.Module | None = asked() if asked is not None else None
    return found
