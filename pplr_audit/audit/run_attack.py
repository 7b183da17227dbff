"""Run an attack: once, or in turns where it must not know in one turn what it learns in another."""

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np

from pplr_audit.threat_model.attack import Attack, Budget, Guess
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.outcomes import BudgetExhausted, Failed, NotApplicable
from pplr_audit.threat_model.view import View

KINDS = frozenset({"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"})
"""Types of numbers that can be sealed, by kind and bytes."""

NO_LAYER = "nothing crosses here, as no trained layer lies in this part of the model"


def run_attack(
    attack: Attack, view: View[Any], turns: Sequence[Knowledge], seconds: float, grace: float = 1.0
) -> Guess:
    """The attack's answer, of all turns together where it is after an attribute; they share the ``seconds``.

    Args:
        grace: as of `Budget`.

    Raises NotApplicable, BudgetExhausted, or Failed: a third party's attack may fail in any way, and the audit goes on.
    InputError and RunError are raised for an artifact of the run that cannot be read or written.
    """
    legible = view.legible()
    budget = Budget(seconds, grace)
    lost = len(view.records) - len(legible.records)
    if lost and not legible.records:
        empty = not any([*record.tensors_read] for record in view.records)
        raise NotApplicable(NO_LAYER if empty else "nothing of what crossed is finite")
    try:
        run = _in_turns if attack.secret == "attribute" else _once
        guess = run(attack, legible, turns, budget)
        return Guess(guess.arrays, {**guess.facts, **({"not_finite": lost} if lost else {})})
    except (NotApplicable, BudgetExhausted, Failed):
        raise
    except Exception as error:
        for knowledge in turns:
            if isinstance(knowledge, Knowledge) and knowledge.artifacts.broken is not None:
                raise knowledge.artifacts.broken from None  # a file of the run, and no failure of the attack
        raise Failed(_text(f"{type(error).__name__}: {error}")) from error


def _once(attack: Attack, view: View[Any], turns: Sequence[Knowledge], budget: Budget) -> Guess:
    return _answer(attack, view, turns[0], budget)


def _in_turns(attack: Attack, view: View[Any], turns: Sequence[Knowledge], budget: Budget) -> Guess:
    """Every row once: as answered in the first turn in which its value was not known.

    Each turn is answered by a copy of the attack, which learned nothing in the others.
    """
    answered: set[int] = set()
    rows, values, facts = [], [], []
    for knowledge in turns:
        guess = _answer(deepcopy(attack), view, knowledge, budget)
        passed = answered | set(knowledge.known_attributes)
        new = np.array([int(row) not in passed for row in guess.arrays["rows"]], dtype=bool)
        rows.append(np.asarray(guess.arrays["rows"])[new])
        values.append(np.asarray(guess.arrays["values"])[new])
        facts.append(guess.facts)
        answered |= {int(row) for row in rows[-1]}
    agreed = {name: fact for name, fact in facts[0].items() if all(each.get(name) == fact for each in facts)}
    return Guess({"rows": np.concatenate(rows), "values": np.concatenate(values)}, agreed)


def _answer(attack: Attack, view: View[Any], knowledge: Knowledge, budget: Budget) -> Guess:
    given = attack.run(view, knowledge, budget)
    guess = Guess(_numbers(given.arrays), _plain(given.facts))
    rows = [int(row) for row in guess.arrays["rows"]]
    if len(set(rows)) < len(rows) or not view.rows.issuperset(rows):
        raise Failed("its answer names rows twice, or rows that its view does not have")
    return guess


def _numbers(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Arrays that can be sealed. Raises Failed for others."""
    for name, array in arrays.items():
        if "/" in name:
            raise Failed(f"its answer names an array {name!r} (accepted: names without /)")
        if not isinstance(array, np.ndarray) or array.dtype.newbyteorder("=").str[1:] not in KINDS:
            what = f"an array of {array.dtype}" if isinstance(array, np.ndarray) else f"a {type(array).__name__}"
            raise Failed(f"{name} of its answer is {what} (accepted: arrays of numbers)")
    return dict(arrays)


def _text(text: str) -> str:
    """Replace the characters that UTF-8 does not have."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _plain(value: Any) -> Any:
    """A fact as JSON has it; None for a number that is not finite. Raises Failed for what JSON does not have."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return _text(value)
    if value is None or (isinstance(value, int) and abs(value) < 2**63):
        return value
    raise Failed(f"a fact of its answer is a {type(value).__name__} (accepted: what JSON has, numbers below 2^63)")
