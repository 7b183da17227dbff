"""BIGRec's prompt: an instruction, the titles of the history in quotes, and the title of the next item as answer."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pplr_audit.data.letters import encoder
from pplr_audit.data.prompts import Pieces, Prompts, ragged
from pplr_audit.errors import InputError

PREFIX = '### Instruction:\nName the item that comes next.\n### Input:\n"'
SEPARATOR = '", "'
SUFFIX = '"\n### Response:\n"'
END = '"'


def title_prompts(tokenizer: Any, titles: Sequence[str], *, max_tokens: int, history: int) -> Prompts:
    """Prompts over ``titles``, as `Prompts` says.

    Args:
        tokenizer: ``eos_token_id`` is needed, ``bos_token_id`` is used where there is one.

    Raises:
        InputError: ``max_tokens`` has no room for the template and one item, or a title has no token.
    """

    encode = encoder(tokenizer)
    whole = encode(titles)
    empty = next((title for title, ids in zip(titles, whole, strict=True) if not ids), None)
    if empty is not None:
        raise InputError(f"model.backbone: its tokenizer gives no token for the title {empty!r}; use another backbone")
    start = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
    parts = encode([PREFIX, SEPARATOR, SUFFIX, END])
    parts[0], parts[-1] = start + parts[0], [*parts[-1], tokenizer.eos_token_id]
    prefix, separator, suffix, end = (np.array(part, dtype=np.int64) for part in parts)
    pieces = Pieces(prefix, separator, suffix, end)
    texts = ragged(whole)
    content = np.ones(len(texts.values), dtype=bool)
    return Prompts(tokenizer, pieces, texts, content, max_tokens=max_tokens, history=history)
