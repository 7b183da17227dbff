"""The rows of the findings document, sorted by training: the run's own and its defended ones, rivals, further seeds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pplr_audit.audit.attacking import Audited
from pplr_audit.audit.over_seeds import findings_over_seeds, utility_over_seeds
from pplr_audit.audit.plan import Plan
from pplr_audit.runs.verdicts import with_verdicts
from pplr_audit.training.run_job import Trained
from pplr_audit.training.spec import TrainingSpec
from pplr_audit.training.utility.user_scores import compared

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Outcome:
    """The finished trainings of a run, and those that broke off."""

    own: Trained
    others: Sequence[Trained]
    broken: Mapping[TrainingSpec, str]
    """The reason of each."""


def is_main(spec: TrainingSpec, plan: Plan) -> bool:
    """True for the run's own training and its defended ones, under the run's own seed: what the report is about."""
    return spec.seed == plan.own.seed and spec.strategy == plan.own.strategy


def findings_of(audited: Audited, *, seed: int) -> dict[str, Rows]:
    """Return ``findings`` and, where they were asked for, ``strategies`` (rivals attacked) and ``seeds``.

    A finding is corrected for those of its own training alone: adding a rival or a seed changes none.
    """
    plan = audited.plan
    judged = {spec: _judged([spec], audited, seed) for spec in plan.attacked if not is_main(spec, plan)}
    main = [spec for spec in plan.attacked if is_main(spec, plan)]
    findings = _judged(main, audited, seed)
    rivals = [row for spec, rows in judged.items() if spec.seed == plan.own.seed for row in rows]
    others = [row for spec, rows in judged.items() if spec.seed != plan.own.seed for row in rows]
    parts = {"findings": findings}
    if rivals:
        parts["strategies"] = rivals
    if others:
        parts["seeds"] = findings_over_seeds([*findings, *rivals, *others])
    return parts


def measured(outcome: Outcome, *, seed: int) -> dict[str, Rows]:
    """Return utility, balance, differences and costs: the run's own, then the others', then the references.

    Where several seeds ran, ``utility_seeds`` holds their means.
    """
    own, label = outcome.own, outcome.own.spec.strategy
    beside = [each for each in outcome.others if each.spec.seed == own.spec.seed]
    parts: dict[str, Rows] = {}
    for part in ("utility", "balance"):
        rows = own.measured.get(part, [])
        first = sum(row["strategy"] == label for row in rows)
        others = [row for each in beside for row in each.measured.get(part, ())]
        parts[part] = [*rows[:first], *others, *rows[first:]]
    parts["differences"] = [row for each in beside for row in compared(own.scores, each.scores, seed=seed)]
    parts["costs"] = list(own.measured.get("costs", ()))
    if len(beside) < len(outcome.others):
        parts["utility_seeds"] = utility_over_seeds([own, *outcome.others])
    return parts


def _judged(specs: Iterable[TrainingSpec], audited: Audited, seed: int) -> Rows:
    cells: list[Mapping[str, Any]] = [cell for spec in specs for cell in audited.cells[spec.name]]
    return with_verdicts(cells, seed=seed)
