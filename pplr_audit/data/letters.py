"""Text from data as tokens: what looks like a control token is encoded by its letters.

A title may hold ``</s>`` or ``[SEP]``. Encoded as the token of that name it would end a sequence, or part an item in
two, wherever it stands. Control tokens are put around texts by number, never found in them.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

from tokenizers import Tokenizer

Encode = Callable[[Sequence[str]], list[list[int]]]
"""Texts to token numbers, one list each."""

PRIVATE = "\U0010fffd"
"""Stands before the name of a control token where a vocabulary must not find it in a text: a character that no text
uses."""


def encoder(tokenizer: Any) -> Encode:
    """The tokenizer's own encoding, without padding, truncation and control tokens, however a text is spelled.

    Args:
        tokenizer: a fast tokenizer of transformers; it is left as it is.
    """
    inner = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    inner.no_padding()
    inner.no_truncation()
    inner.encode_special_tokens = True
    described = json.loads(inner.to_str())
    added = {token["content"] for token in described["added_tokens"] if token["special"]}
    hidden = _without(described["model"], added | set(tokenizer.all_special_tokens))
    if hidden is not None:
        inner.model = Tokenizer.from_str(json.dumps({"model": hidden})).model

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return [list(found.ids) for found in inner.encode_batch_fast(list(texts), add_special_tokens=False)]

    return encode


def _without(model: dict[str, Any], controls: set[str]) -> dict[str, Any] | None:
    """The description of a tokenizer's model with other names for the control tokens, so that no text leads to them.

    The model's own token for what is unknown keeps its name. None where the vocabulary holds no other control token.
    """
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        hidden = controls & vocabulary.keys() - {model.get("unk_token")}
        named: Any = {PRIVATE + word if word in hidden else word: place for word, place in vocabulary.items()}
    else:  # Unigram's: pairs of a word and its score; the unknown one is told by its place
        known = {word for place, (word, _) in enumerate(vocabulary) if place != model.get("unk_id")}
        hidden = controls & known
        named = [[PRIVATE + word if word in hidden else word, score] for word, score in vocabulary]
    if not hidden:
        return None
    renamed = {**model, "vocab": named}
    if "merges" in model:
        pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
        renamed["merges"] = [pair for pair in pairs if not hidden & {*pair, "".join(pair)}]
    return renamed
