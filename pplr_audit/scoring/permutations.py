"""Owners named by chance: how many names are right when the true ones are dealt at random.

Named are n things, each of which belongs to another of n owners. If the owners were dealt at random, the number that is
right has the distribution of a hit polynomial (Riordan, *An Introduction to Combinatorial Analysis*, 1958, chapter 7):
with c_j the number of things that owner j was named for, and e_k the elementary symmetric polynomials of the c_j,

    P(hits >= h) = sum over k >= h of (-1)^(k - h) C(k - 1, h - 1) e_k(c) (n - k)! / n!

>>> named_by_chance([1, 1, 1, 1, 1], 5)  # all five right: 1 / 5!
0.008333333333333333
>>> named_by_chance([5, 0, 0, 0, 0], 1)  # one owner named five times is right exactly once
1.0
"""

from collections.abc import Sequence
from fractions import Fraction
from math import comb, factorial


def named_by_chance(named: Sequence[int], hits: int) -> float:
    """Return the probability of ``hits`` right names or more.

    Args:
        named: by owner the number of things that it was named for; the sum is at most the number of owners.
    """
    if hits <= 0:
        return 1.0
    n, polynomial = len(named), [1]
    for count in named:
        polynomial = [
            high + count * low for high, low in zip([*polynomial, 0], [0, *polynomial], strict=True)
        ]  # fmt: skip
    terms = (
        Fraction((-1) ** (k - hits) * comb(k - 1, hits - 1) * polynomial[k] * factorial(n - k), factorial(n))
        for k in range(hits, n + 1)
    )
    return float(sum(terms, Fraction(0)))
