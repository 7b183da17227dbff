"""Cells ahead: attacks and scores of several cells at a time, in forks of this process.

A fork attacks and hands back its answers; this process seals them before any fork opens a truth. What a cell's fork
finds is what the cell finds here: cells share nothing but fits, which are named by all that they follow from.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from pplr_audit.audit.artifacts import StoredArtifacts
from pplr_audit.audit.cell import Cell
from pplr_audit.audit.harness import Harness
from pplr_audit.audit.plan import Plan
from pplr_audit.audit.run_cell import Attempt, attempt, is_done, result_path, scored
from pplr_audit.audit.sealed_guess import SealedGuess
from pplr_audit.audit.tap_points import phase_of
from pplr_audit.runs.store import Store
from pplr_audit.threat_model.artifacts import Tensors
from pplr_audit.threat_model.attack import as_active
from pplr_audit.threat_model.outcomes import BudgetExhausted, Failed, NotApplicable
from pplr_audit.training.side_by_side import side_by_side, width

Made = list[tuple[str, str, Tensors]]
_ENDED = (NotApplicable, BudgetExhausted, Failed)


def kind_of(cell: Cell) -> tuple[Any, ...]:
    """Return what cells have in common that share fits: the attack, on what one phase of one round recorded."""
    return cell.attack, cell.settings, cell.adversary, cell.knowledge, phase_of(cell.channel), cell.round


def run_ahead(
    cells: Sequence[Cell], part: Plan, harness: Harness, store: Store, artifacts: StoredArtifacts, budget: float
) -> None:
    """Attack and score cells of which one like them has been run here, so that what they share is there.

    A cell that ends without a value is left to whoever runs it next.
    """
    left = [cell for cell in cells if not is_done(cell, store) and as_active(part.attack(cell)) is None]
    if width(len(left)) < 2:
        return
    todo = [cell for cell in left if not SealedGuess.exists(store, cell.slug)]
    tasks = [partial(_attempt, cell, part, harness, artifacts, budget) for cell in todo]
    for cell, (found, made) in zip(todo, side_by_side(tasks), strict=True):
        artifacts.adopt(made)
        if isinstance(found, Attempt):
            found.seal(cell, store)
    sealed = [cell for cell in left if SealedGuess.exists(store, cell.slug)]
    for cell, document in zip(
        sealed, side_by_side([partial(_scored, cell, part, harness, store) for cell in sealed]), strict=True
    ):
        if document is not None:
            store.write_json(result_path(cell), document)


def _attempt(
    cell: Cell, part: Plan, harness: Harness, artifacts: StoredArtifacts, budget: float
) -> tuple[Attempt | None, Made]:
    """Attack in a fork; return the answers and the fits that were made, which only its parent may write."""
    made: Made = []
    artifacts.apart = made
    try:
        return attempt(cell, part.attack(cell), harness, budget, cell.seed), made
    except _ENDED:
        return None, made


def _scored(cell: Cell, part: Plan, harness: Harness, store: Store) -> dict[str, Any] | None:
    sealed = SealedGuess.open(store, cell.slug)
    try:
        return scored(cell, part.attack(cell), harness.truths(cell), sealed, cell.seed)
    except _ENDED:
        return None
