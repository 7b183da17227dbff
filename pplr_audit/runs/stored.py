"""Results that lie in the run directory, checked before they are used again: they may come from a stranger."""

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, model_validator

from pplr_audit.errors import InputError
from pplr_audit.runs.documents import validate_part
from pplr_audit.runs.parsing import shaped, understood
from pplr_audit.scenario import LARGEST

_User = Annotated[str, Field(pattern="^[0-9]{1,10}$")]


class _Influence(BaseModel):
    """How each user moves a finding's value and its differences, by place in ``users``."""

    users: list[Annotated[int, Field(ge=0)]]
    independent: Annotated[int, Field(ge=1, le=LARGEST)]
    low: float
    value: list[float]
    differences: list[list[float]]

    @model_validator(mode="after")
    def _one_value_a_user(self) -> Self:
        if any(len(each) != len(self.users) for each in (self.value, *self.differences)):
            raise ValueError("a list has another length than users")
        return self


class _Cell(BaseModel):
    """The document that `run_cell` answers; an earlier version had no influences."""

    findings: list[dict[str, Any]]
    per_user: dict[str, dict[_User, float]]
    influence: dict[str, _Influence] = {}
    roc: list[dict[str, Any]]


class _Measured(BaseModel):
    """Utility and costs of a training; a rival's has no costs, and an earlier version had no balance."""

    utility: list[dict[str, Any]]
    balance: list[dict[str, Any]] = []
    differences: list[dict[str, Any]] = []
    costs: list[dict[str, Any]] = []


def cell(found: dict[str, Any], file: Path, users: int) -> dict[str, Any]:
    """The findings, scores of single users and curves of a cell.

    Args:
        users: how many there are.

    Raises:
        InputError: names the file and what is wrong in it.
    """
    shaped(found, _Cell, file)
    _require_rows(found, ("findings", "roc"), file)
    with understood(file):
        named = [user for scores in found["per_user"].values() for user in scores]
        named += [user for moved in found.get("influence", {}).values() for user in moved["users"]]
        beyond = [user for user in named if int(user) >= users]
        if beyond:
            raise ValueError(f"per_user: there is no user {beyond[0]}")
    return found


def measured(found: dict[str, Any], file: Path) -> dict[str, Any]:
    """Rows of utility, balance and costs.

    Raises InputError that names the file and what is wrong in it.
    """
    shaped(found, _Measured, file)
    _require_rows(found, ("utility", "balance", "differences", "costs"), file)
    return found


def _require_rows(found: dict[str, Any], parts: tuple[str, ...], file: Path) -> None:
    for part in parts:
        try:
            validate_part(part, found.get(part, []))
        except InputError as error:
            raise InputError(f"{file}: {error}") from None
