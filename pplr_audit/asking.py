"""How an attack is asked: once, or in turns where it may not know in one of them what it is told in another."""

from collections.abc import Sequence
from copy import deepcopy

import numpy as np

from pplr_audit.errors import BudgetExhausted, NotApplicable
from pplr_audit.knowledge import Knowledge
from pplr_audit.views import Attack, Budget, Guess, View


class Failed(Exception):
    """An attack broke off, or answered what cannot be scored; the reason is the message."""


def ask(attack: Attack, view: View, turns: Sequence[Knowledge], seconds: float) -> Guess:
    """The attack's answer, of all turns together where it is after an attribute; they share the ``seconds``.

    Raises NotApplicable, BudgetExhausted, or Failed: a third party's attack may fail in any way, and the audit goes on.
    """
    budget = Budget(seconds)
    try:
        if attack.secret == "attribute":
            return _in_turns(attack, view, turns, budget)
        return _answer(attack, view, turns[0], budget)
    except (NotApplicable, BudgetExhausted, Failed):
        raise
    except Exception as error:
        raise Failed(f"{type(error).__name__}: {error}") from error


def _in_turns(attack: Attack, view: View, turns: Sequence[Knowledge], budget: Budget) -> Guess:
    """Every row once: as answered in the first turn in which its value was not told.

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
    agreed = {name: said for name, said in facts[0].items() if all(each.get(name) == said for each in facts)}
    return Guess({"rows": np.concatenate(rows), "values": np.concatenate(values)}, agreed)


def _answer(attack: Attack, view: View, knowledge: Knowledge, budget: Budget) -> Guess:
    guess = attack.run(view, knowledge, budget)
    rows = [int(row) for row in guess.arrays["rows"]]
    if len(set(rows)) < len(rows) or not {record.row for record in view.records}.issuperset(rows):
        raise Failed("its answer names rows twice, or rows that its view does not have")
    return guess
