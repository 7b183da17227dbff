"""One cell of an audit: an attack on a view, its answer sealed, then scored against the truth and its control."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pplr_audit.audit.cell import Cell, without_value
from pplr_audit.audit.run_attack import run_attack
from pplr_audit.audit.sealed_guess import SealedGuess
from pplr_audit.audit.truth.comparisons import (
    CONTROL,
    DRAWS,
    baseline,
    comparisons,
    influences,
    interval,
    listed,
)
from pplr_audit.audit.truth.protocol import Truth
from pplr_audit.audit.truth.score import Score
from pplr_audit.runs.failpoints import reach
from pplr_audit.runs.store import Store
from pplr_audit.runs.verdicts import SIGNED
from pplr_audit.scenario.seeds import derive
from pplr_audit.scoring.intervals import mean_estimate
from pplr_audit.scoring.verdicts import Comparison
from pplr_audit.threat_model.attack import Attack, Guess, also_reads
from pplr_audit.threat_model.channels import ONCE_A_ROUND
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.outcomes import BudgetExhausted, Failed, NotApplicable, Unscored
from pplr_audit.threat_model.questions import QUESTIONS
from pplr_audit.threat_model.view import View


class CellInputs(Protocol):
    """Source of what a cell needs; the truth is opened only after the guess is sealed."""

    def view(self, cell: Cell) -> View[Any]: ...
    def knowledge(self, cell: Cell) -> Sequence[Knowledge]: ...
    def truths(self, cell: Cell) -> Mapping[str, Truth]: ...
    def reserve_view(self, cell: Cell) -> View[Any] | None: ...


def run_cell(
    cell: Cell, attack: Attack, inputs: CellInputs, store: Store, *, budget: float, seed: int
) -> dict[str, Any]:
    """The cell's findings and what the report shows of it; from the run directory where they are there already.

    A cell that failed is tried again when the run is continued. Raises InputError for a damaged file of the run.
    """
    result = result_path(cell)
    if is_done(cell, store):
        return dict(store.read_json(result))
    started = time.perf_counter()
    try:
        if SealedGuess.exists(store, cell.slug):
            sealed = SealedGuess.open(store, cell.slug)
        else:
            sealed = attempt(cell, attack, inputs, budget, seed).seal(cell, store)
        document = scored(cell, attack, inputs.truths(cell), sealed, seed)
    except NotApplicable as reason:
        document = without_value(cell, attack, "not_applicable", str(reason))
    except Unscored as reason:
        document = without_value(cell, attack, "skipped", str(reason), sealed.seconds)
    except BudgetExhausted as reason:
        document = without_value(cell, attack, "budget_exhausted", str(reason), time.perf_counter() - started)
    except Failed as reason:
        store.event("attack_failed", cell=cell.slug, error=str(reason))
        return without_value(cell, attack, "failed", str(reason), time.perf_counter() - started)
    store.write_json(result, document)
    return document


@dataclass(frozen=True)
class Attempt:
    """The answers of an attack and of its controls, before they are sealed."""

    answer: Guess
    controls: Sequence[Guess]
    on_reserve: Sequence[Guess]
    crossed: Sequence[tuple[int, int]]
    """Row and step of each record of the view."""
    seconds: float
    """Wall time of the attack, without its controls."""

    def seal(self, cell: Cell, store: Store) -> SealedGuess:
        """Write the answers with their hash."""
        return SealedGuess.seal(
            store, cell.slug, self.answer, self.controls, self.crossed, self.seconds, self.on_reserve
        )


def is_done(cell: Cell, store: Store) -> bool:
    """True if the cell's findings are in the run directory."""
    return store.exists(result_path(cell))


def result_path(cell: Cell) -> str:
    return f"cells/{cell.slug}.json"


def attempt(cell: Cell, attack: Attack, inputs: CellInputs, budget: float, seed: int) -> Attempt:
    """Run the attack and its controls; no truth is open. Raises NotApplicable, BudgetExhausted or Failed."""
    view, turns = inputs.view(cell), inputs.knowledge(cell)
    started = time.perf_counter()
    guess = run_attack(attack, view, turns, budget)
    seconds = time.perf_counter() - started
    reach("attack")
    # One record cannot be dealt to another row: then there is no control, and the findings have none.
    controls = [
        _control(
            attack, inputs.view(cell).shuffled(np.random.default_rng(derive(seed, "control", cell.drawn_by, number))),
            turns, budget,
        )
        for number in range(attack.controls if view.dealable else 0)
    ]  # fmt: skip
    reserve = None
    if trains_reserve(cell, attack):
        reserve = inputs.reserve_view(cell)
    on_reserve = [] if reserve is None else [_control(attack, reserve, turns, budget)]
    also = {"beside": sorted(also_reads(attack))} if also_reads(attack) else {}
    known = {name: fact for knowledge in turns for name, fact in knowledge.facts.items()}
    answer = Guess(guess.arrays, {**known, **also, **guess.facts})
    crossed = [(record.row, record.step) for record in view.records]
    return Attempt(answer, controls, on_reserve, crossed, seconds)


def trains_reserve(cell: Cell, attack: Attack) -> bool:
    """True if a cell's control is a round that the clients train on users of the reserve."""
    return bool(attack.controls) and cell.channel in ONCE_A_ROUND and QUESTIONS[attack.secret].on_reserve


def _control(attack: Attack, shuffled: View[Any], turns: Sequence[Knowledge], budget: float) -> Guess:
    """Run the attack where there is nothing to find; without this control its answer has no baseline.

    It works by the same budget, but is broken off at twice of it, so that an attack that was just in time is not lost
    to a control that was not.
    """
    try:
        return run_attack(attack, shuffled, turns, budget, grace=2.0)
    except (NotApplicable, BudgetExhausted, Failed) as reason:
        raise type(reason)(f"its control, on what crossed of other rows: {reason}") from reason


def _by_step(score: Score, users: Mapping[int, int], steps: Mapping[int, int], seed: int) -> dict[str, Any]:
    """Return the mean score with its 95 % interval, separately for users attacked in the round's first step, where the
    adversary's copy is exact, and in later steps. Empty unless both occur.

    Args:
        users, steps: by row.
    """
    kinds: dict[str, dict[int, float]] = {"first_step": {}, "later_steps": {}}
    for row, step in steps.items():
        if step >= 0 and users.get(row) in score.per_user:
            kinds["later_steps" if step else "first_step"][row] = score.per_user[users[row]]
    if not all(kinds.values()):
        return {}
    return {
        name: _mean(score.metric, list(of.values()), [users[row] for row in of], seed) for name, of in kinds.items()
    }


def _mean(metric: str, values: Sequence[float], users: Sequence[int], seed: int) -> dict[str, Any]:
    """Mean, interval and number of values, by user; what lies between -1 and 1 is taken as a share, so that it has an
    interval of one user, too."""
    span, low = (2.0, -1.0) if metric in SIGNED else (1.0, 0.0)
    found = mean_estimate((np.array(values) - low) / span, np.array(users), seed=seed)
    mean, *ci = (low + span * each for each in (found.value, found.low, found.high))
    return {"mean": mean, "ci": ci, "n": found.n}


def scored(cell: Cell, attack: Attack, truths: Mapping[str, Truth], sealed: SealedGuess, seed: int) -> dict[str, Any]:
    """Score the secret that the attack is after, and the others that its answer says something about."""
    guess, steps, seconds = sealed.guess, sealed.steps, sealed.seconds
    dealt_anew = DRAWS if attack.controls else 0
    result: dict[str, Any] = {"findings": [], "per_user": {}, "influence": {}, "roc": []}
    for secret, truth in truths.items():
        if secret != attack.secret and not truth.answered(guess):
            continue
        drawn = derive(seed, "interval") % 2**32
        try:
            scores = truth.score(guess, seed=drawn)
            draws = _draws(truth, sealed, dealt_anew, derive(seed, "control", cell.drawn_by, secret))
            curves = _curves(cell, truth, guess, scores)
        except (ValueError, LookupError, TypeError) as error:
            raise Failed(f"its answer cannot be scored: {type(error).__name__}: {error}") from error
        for score in scores:
            found = comparisons(score, *(of.get(_key(score), ()) for of in draws))
            by_step = _by_step(score, truth.users_by_row, steps, drawn)
            result["findings"].append(_row(cell, secret, guess, score, found, seconds, by_step))
            result["influence"]["/".join(_key(score))] = influences(score, found)
        result["per_user"] |= {
            "/".join(_key(s)): {str(user): value for user, value in s.per_user.items()} for s in scores if s.per_user
        }
        result["roc"] += curves
    return result


def _row(
    cell: Cell, secret: str, guess: Guess, score: Score, found: Sequence[Comparison], seconds: float,
    by_step: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """One finding."""
    at_control = [each.reference.value for each in found if each.reference.name == CONTROL]
    control = {CONTROL: at_control[0]} if at_control else {}
    return cell.row(
        score.metric, "ok", secret=secret, value=score.estimate.value, ci=[*interval(score, found)],
        baseline=baseline(score, found), n=score.estimate.n, seconds=seconds, comparisons=listed(found),
        detail={**guess.facts, **score.detail, **by_step, **control},
    )  # fmt: skip


def _key(score: Score) -> tuple[str, str]:
    return score.metric, str(score.detail.get("mode", ""))


def _draws(
    truth: Truth, sealed: SealedGuess, dealt_anew: int, seed: int
) -> tuple[Mapping[tuple[str, str], Sequence[Score]], ...]:
    """Return the attack's scores in each draw of its control, and in that on users of the reserve, by metric and mode.

    Args:
        dealt_anew: number of draws to fill up to with the attack's own answers, dealt to other rows.
    """
    more = truth.redealt(sealed.guess, dealt_anew - len(sealed.controls), np.random.default_rng(seed))
    return tuple(_scored(truth, drawn) for drawn in ([*sealed.controls, *more], sealed.on_reserve))


def _scored(truth: Truth, drawn: Sequence[Guess]) -> Mapping[tuple[str, str], Sequence[Score]]:
    found: dict[tuple[str, str], list[Score]] = {}
    for control in drawn:
        for score in truth.score(control, seed=None):
            found.setdefault(_key(score), []).append(score)
    return found


def _curves(cell: Cell, truth: Truth, guess: Guess, scores: list[Score]) -> list[dict[str, Any]]:
    value = {_key(score)[1]: score.estimate.value for score in scores if score.metric == "auc"}
    cut = cell.row("auc", "ok")["cut"]
    return [
        {"attack": cell.attack, "metric_mode": mode, "client": "all", "cut": cut, "fpr": fpr.tolist(),
         "tpr": tpr.tolist(), "auc": value[mode]}
        for mode, (fpr, tpr) in truth.curves(guess).items()
    ]  # fmt: skip
