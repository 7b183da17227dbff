"""Numbers in writing: bytes, parameters, rates, seconds. Decimal units throughout (1 MB is 10^6 bytes)."""

from collections.abc import Iterable

MISSING = "–"

_RATES = ("token_accuracy", "exact_history", "item_hit", "label_hit", "tpr", "rouge1", "rouge2", "rougeL", "accuracy",
          "item_recall", "exact_sequences", "owner_hit", "recommendation_hit")  # fmt: skip
_RANKINGS = ("recall", "ndcg", "mrr", "hit")


def percent(share: float | None) -> str:
    """A share as a percentage that never rounds up to all or down to nothing.

    >>> percent(0.931), percent(1), percent(0.9996), percent(0.0004), percent(0)
    ('93.1%', '100%', '99.96%', '0.04%', '0%')
    >>> percent(0.999999), percent(0.0000001)
    ('>99.99%', '<0.01%')
    """
    if share is None:
        return MISSING
    if share in (0, 1):
        return f"{share:.0%}"
    if 0 < share < 0.00005:
        return "<0.01%"
    if 0.99995 < share < 1:
        return ">99.99%"
    digits = 2 if 0 < share < 0.00995 or 0.9995 <= share < 1 else 1
    return f"{100 * share:.{digits}f}%"


def number(metric: str, value: float | None) -> str:
    """A value in the way its metric is read: rates in percent, areas and rankings as decimals.

    >>> number("item_hit@1", 0.5), number("auc", 0.6213), number("recall@10", 0.08591), number("epsilon_lower", 1.234)
    ('50.0%', '0.621', '0.0859', '1.23')
    """
    if value is None:
        return MISSING
    family = metric.split("@")[0]
    if family in _RATES:
        return percent(value)
    if family in _RANKINGS:
        return f"{value:.4f}"
    return f"{value:.2f}" if family.startswith("epsilon") else f"{value:.3f}"


def signed(metric: str, value: float) -> str:
    """A difference of two values of a metric, with its sign.

    >>> signed("recall@10", 0.0123), signed("recall@10", -0.5), signed("auc", 0.0)
    ('+0.0123', '-0.5000', '+0.000')
    """
    return f"{'-' if value < 0 else '+'}{number(metric, abs(value))}"


def is_rate(metric: str) -> bool:
    """True if the metric lies between 0 and 1 and is written in percent."""
    return metric.split("@")[0] in _RATES


def interval(metric: str, ends: list[float] | None) -> str:
    """A 95 % interval.

    >>> interval("auc", [0.5, 0.61])
    '[0.500, 0.610]'
    """
    return MISSING if ends is None else f"[{number(metric, ends[0])}, {number(metric, ends[1])}]"


def _scaled(amount: float, units: tuple[str, ...]) -> tuple[str, str]:
    index = 0
    while amount >= 999.5 and index < len(units) - 1:
        amount, index = amount / 1000, index + 1
    whole = index == 0 or amount >= 99.95
    return f"{amount:.{0 if whole else 1 if amount >= 9.995 else 2}f}", units[index]


def size(amount: float | None) -> str:
    """Bytes.

    >>> size(512), size(67_108_864), size(1_234), size(None)
    ('512 B', '67.1 MB', '1.23 kB', '–')
    """
    return MISSING if amount is None else " ".join(_scaled(amount, ("B", "kB", "MB", "GB", "TB", "PB")))


def count(amount: float | None) -> str:
    """Parameters, operations: three digits and a letter. Whole numbers under 10,000 are written out.

    >>> count(260_032), count(6_738_415_616), count(9_999)
    ('260 k', '6.74 G', '9,999')
    """
    if amount is None:
        return MISSING
    if amount < 10_000:
        return f"{amount:,.0f}"
    return " ".join(_scaled(amount, ("", "k", "M", "G", "T", "P"))).strip()


def several(amount: int, what: str) -> str:
    """A number of things, in the singular where there is one.

    >>> several(1, "round"), several(5, "round")
    ('1 round', '5 rounds')
    """
    return f"{amount:,} {what}{'s' * (amount != 1)}"


def duration(seconds: float | None) -> str:
    """Seconds, minutes or hours.

    >>> duration(1.84), duration(75), duration(7260), duration(0.02)
    ('1.8 s', '1 min 15 s', '2 h 1 min', '0.02 s')
    """
    if seconds is None:
        return MISSING
    if seconds < 59.95:
        return f"{seconds:.1f} s" if seconds >= 0.95 or seconds == 0 else f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def stretches(depths: Iterable[int]) -> list[tuple[int, int]]:
    """First and last of each run of numbers without a gap.

    >>> stretches([0, 1, 2, 5])
    [(0, 2), (5, 5)]
    """
    found: list[tuple[int, int]] = []
    for depth in sorted(depths):
        if found and depth == found[-1][1] + 1:
            found[-1] = (found[-1][0], depth)
        else:
            found.append((depth, depth))
    return found


def ranges(depths: Iterable[int]) -> str:
    """Numbers as a sentence has them.

    >>> ranges([0, 1, 2, 5]), ranges([3])
    ('0 to 2 and 5', '3')
    """
    return " and ".join(f"{low}" if low == high else f"{low} to {high}" for low, high in stretches(depths))
