"""A score beside all that it must stand above: chance, popularity and its like, and the attack's own control.

The control is what the attack scores where there is nothing to find, drawn several times: on what crossed of other
rows, as often as the attack was run on that, and for histories and next items also on its own answers, each dealt to
another user of the same client. What is answered for a row follows from what crossed of it, so both are draws of the
same thing; only the second is free. What is read of an update must also stand above what the same attack reads of the
update that the same client would have sent, had it trained on users of the reserve.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from pplr_audit.audit.truth.score import Score
from pplr_audit.scoring.influence import Influence, of_mean
from pplr_audit.scoring.verdicts import Comparison, Measured, Reference, agreeing, compared, less

DRAWS = 10
"""Fewest draws of a control, where answers can be dealt anew."""
CONTROL = "control"
RESERVE = "reserve"
"""The control of an update: the same client's, had it trained on users of the reserve."""
DIGITS = 6
"""Significant digits of an influence in the run directory: more than any verdict turns on, and a third of the bytes."""


def control_of(score: Score, draws: Sequence[Score], name: str = CONTROL) -> Reference:
    """Return the mean over several draws of a control, with the variance of what is common to all users of a draw."""
    values = np.array([draw.estimate.value for draw in draws])
    about = {"draws": len(draws), "least": float(values.min()), "most": float(values.max())}
    if score.influence:
        drawn = [draw.measured.influence for draw in draws]
        moved = _mean(drawn, len(draws))
        return Reference(name, float(values.mean()), moved, {}, _unseen(values, drawn), about=about)
    values_of: dict[int, list[float]] = {}
    for draw in draws:
        for user, value in draw.per_user.items():
            values_of.setdefault(user, []).append(value)
    per_user = {user: float(np.mean(each)) for user, each in values_of.items()}
    moved = of_mean(per_user, score.weights)[1] if per_user else {}
    spread = _unseen(values, [of_mean(draw.per_user, score.weights)[1] for draw in draws if draw.per_user])
    return Reference(name, float(values.mean()), moved, per_user, spread, about=about)


def _unseen(values: Float[np.ndarray, "draws"], influences: Sequence[Influence]) -> float:
    """Return the variance of the mean over draws that its users do not show: that of something common to all users.

    Draws that deal each user's answer by itself differ as their users differ, which redrawing users shows already.
    """
    if len(influences) < 2:
        return 0.0
    users = sorted({user for each in influences for user in each})
    by_draw = np.array([[each.get(user, 0.0) for user in users] for each in influences])
    return max(float(values.var(ddof=1) - by_draw.var(axis=0, ddof=1).sum()), 0.0) / len(values)


def comparisons(score: Score, draws: Sequence[Score], on_reserve: Sequence[Score] = ()) -> list[Comparison]:
    """The score beside each thing that it must stand above; ``draws`` of its control, and of that ``on_reserve``, if
    there are any.
    """
    own, controls = score.measured, {CONTROL: draws, RESERVE: on_reserve}
    references = [*score.against, *(control_of(score, drawn, name) for name, drawn in controls.items() if drawn)]
    return [compared(own, reference) for reference in references]


def interval(score: Score, found: Sequence[Comparison]) -> tuple[float, float]:
    """The score's own 95 % interval, which holds what is known exactly where the test against it does not reject."""
    low = score.estimate.low
    for each in found:
        if each.exact:
            low = agreeing(low, each.reference.value, each.p)
    return low, score.estimate.high


def baseline(score: Score, found: Sequence[Comparison]) -> float:
    """The number to be read beside the value: chance, where that is exactly known; else the most of its comparisons."""
    return (
        score.baseline
        if any(each.exact for each in found)
        else max([score.baseline, *(each.reference.value for each in found)])
    )


def listed(found: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Return the comparisons as a finding lists them."""
    return [
        {"name": each.reference.name, "value": each.reference.value, "ci": list(each.ci),
         "difference": each.difference, "difference_ci": list(each.difference_ci), "p": each.p, **each.reference.about}
        for each in found
    ]  # fmt: skip


def influences(score: Score, found: Sequence[Comparison]) -> dict[str, Any]:
    """Return how each user moves the value and its differences, for a correction over several findings."""
    own: Measured = score.measured
    users = sorted({*own.influence, *(user for each in found for user in each.reference.influence)})
    moved = [less(own.influence, each.reference.influence) for each in found]
    return {
        "users": users, "independent": own.independent, "low": own.low, "value": _rounded(own.influence, users),
        "differences": [_rounded(each, users) for each in moved],
    }  # fmt: skip


def _mean(influences: Sequence[Influence], count: int) -> Influence:
    users = sorted({user for each in influences for user in each})
    return {user: sum(each.get(user, 0.0) for each in influences) / count for user in users}


def _rounded(influence: Mapping[int, float], users: Sequence[int]) -> list[float]:
    return [float(f"{influence.get(user, 0.0):.{DIGITS}g}") for user in users]
