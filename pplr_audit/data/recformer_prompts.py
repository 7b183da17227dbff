"""RecFormer's input (Li et al. 2023, arXiv 2305.13731, section 3.1): items as flattened attributes, the newest first.

An item is its attributes as text, key and value, key and value. A sequence is the classification token, the items, and
the separator token that the backbone was trained to end with; no target stands in it. All items begin with the key of
their first attribute, which is what parts one from the next.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pplr_audit.data.dataset import Catalogue
from pplr_audit.data.letters import encoder
from pplr_audit.data.prompts import Pieces, Prompts, ragged
from pplr_audit.errors import InputError

ATTRIBUTES: dict[str, Callable[[Catalogue, int], str]] = {
    "title": lambda catalogue, item: catalogue.titles[item],
    # The levels of a path are read as one list of words.
    "categories": lambda catalogue, item: catalogue.categories[item].replace("|", " "),
}
"""Name, which is the key that stands before it, to the value of an item."""


def item_prompts(
    tokenizer: Any,
    catalogue: Catalogue,
    *,
    attributes: Sequence[str] = tuple(ATTRIBUTES),
    attribute_tokens: int = 32,
    max_tokens: int,
    history: int,
) -> Prompts:
    """Prompts over ``catalogue``, as `Prompts` says.

    Args:
        tokenizer: with classification and separator tokens, as encoders have them.
        attributes: names in `ATTRIBUTES`, in order.
        attribute_tokens: values are cut to so many (32 in the paper).

    Raises:
        InputError: the tokenizer has no such tokens, ``max_tokens`` no room, or the first attribute has no token.
    """
    for name in ("cls_token", "sep_token"):
        if getattr(tokenizer, f"{name}_id", None) is None:
            raise InputError(f"model.backbone: its tokenizer has no {name}, which recformer's sequences need")

    encode = encoder(tokenizer)
    keys = encode(attributes)
    whole: list[list[int]] = [[] for _ in range(len(catalogue))]
    content: list[list[bool]] = [[] for _ in range(len(catalogue))]
    for place, (name, key) in enumerate(zip(attributes, keys, strict=True)):
        values = encode([ATTRIBUTES[name](catalogue, item) for item in range(len(catalogue))])
        for item, value in enumerate(values):
            if not place and not ATTRIBUTES[name](catalogue, item):
                raise InputError(
                    f"model.recformer.attributes: item {catalogue.ids[item]!r} has no {name}, with which every item"
                    " must begin; put title first"
                )
            if not value and not place:
                raise InputError(
                    f"model.backbone: its tokenizer gives no token for the {name} "
                    f"{ATTRIBUTES[name](catalogue, item)!r}; use another backbone"
                )
            if value and place:  # the key of the first one is a piece of the template
                whole[item] += key
                content[item] += [False] * len(key)
            whole[item] += value[:attribute_tokens]
            content[item] += [True] * len(value[:attribute_tokens])
    first = keys[0]
    pieces = Pieces(
        prefix=np.array([tokenizer.cls_token_id, *first], dtype=np.int64),
        separator=np.array(first, dtype=np.int64),
        suffix=np.array([tokenizer.sep_token_id], dtype=np.int64),
        end=np.empty(0, dtype=np.int64),
        opening=len(first),
    )
    own = np.array([flag for flags in content for flag in flags], dtype=bool)
    return Prompts(
        tokenizer, pieces, ragged(whole), own, max_tokens=max_tokens, history=history, newest_first=True
    )  # fmt: skip
