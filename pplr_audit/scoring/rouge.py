"""ROUGE-1, ROUGE-2 and ROUGE-L as F1: how much of a text was read, by words in common (Lin 2004, *ROUGE*).

Words are tokens here, and nothing is stemmed. The example of Lin (section 3.1) with F1 in place of his beta:

>>> police, kill, killed, the, gunman = range(5)
>>> rouge_n([police, kill, the, gunman], [police, killed, the, gunman], 2)  # "the gunman" of three bigrams
0.3333333333333333
>>> rouge_l([police, kill, the, gunman], [police, killed, the, gunman])
0.75
>>> rouge_l([the, gunman, kill, police], [police, killed, the, gunman])
0.5
"""

from collections import Counter
from collections.abc import Sequence


def rouge_n(guess: Sequence[int], truth: Sequence[int], n: int) -> float:
    """F1 of the n-grams in common, each as often as it stands in both; 0 where either has none.

    >>> rouge_n([1, 1, 2], [1, 2, 2, 3], 1)  # 1 and 2 once each; precision 2/3, recall 2/4
    0.5714285714285714
    """
    ours, theirs = (Counter(zip(*(text[i:] for i in range(n)), strict=False)) for text in (guess, truth))
    return _f1((ours & theirs).total(), ours.total(), theirs.total())


def rouge_l(guess: Sequence[int], truth: Sequence[int]) -> float:
    """F1 of the longest common subsequence."""
    return _f1(longest_common(guess, truth), len(guess), len(truth))


def longest_common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the longest common subsequence, by the bits of one number a row (Hyyrö 2004).

    >>> longest_common([1, 3, 2, 4, 1], [3, 1, 2, 1, 4])
    3
    """
    places: dict[int, int] = {}
    for at, word in enumerate(a):
        places[word] = places.get(word, 0) | 1 << at
    full = (1 << len(a)) - 1
    row = full
    for word in b:
        match = row & places.get(word, 0)
        row = ((row + match) | (row - match)) & full
    return len(a) - row.bit_count()


def _f1(common: int, ours: int, theirs: int) -> float:
    return 2 * common / (ours + theirs) if common else 0.0
