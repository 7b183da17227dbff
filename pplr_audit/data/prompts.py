"""The one prompt of BIGRec: the same token pieces for training, inference and the attacks.

A prompt is put together from pieces that are tokenized apart (prefix, each title, separators, suffix), so that the
tokens of a title do not depend on its neighbours, and every position is known to be template or title.
"""

PREFIX = '### Instruction:\nName the item that comes next.\n### Input:\n"'
SEPARATOR = '", "'
SUFFIX = '"\n### Response:\n"'
END = '"'


def prompt_text(titles: list[str], target: str | None = None) -> str:
    """The prompt as text (oldest title first); with ``target``, the whole training sequence without its end token."""
    prompt = PREFIX + SEPARATOR.join(titles) + SUFFIX
    return prompt if target is None else prompt + target + END
