"""Section on users: spread of the leakage of histories over users, and its mean at each client. No user is named."""

from collections.abc import Iterable, Mapping, Sequence

from pplr_audit.report.blocks.content import Block, Cell, Fold, Table, labels, numbers
from pplr_audit.report.findings.by_cut import Pair, said
from pplr_audit.report.findings.details import Mean, spread_of
from pplr_audit.report.findings.series import Finding
from pplr_audit.report.words.quantities import interval, number, percent
from pplr_audit.runs.documents import Document

OPEN_ROWS = 36
"""Rows up to which a table stands open."""


def over_users(secret: str, metric: str, told: Iterable[tuple[str, str, str, Finding]]) -> list[Table]:
    """One row for each finding that is the strongest somewhere; nothing where findings do not say it.

    Args:
        told: phase, cuts and attack in words, and the finding.
    """
    body = []
    for name, cuts, attack, row in told:
        found = spread_of(row["detail"])
        if found is not None:
            low, high = (number(metric, end) for end in found.quartiles)
            body.append(
                (
                    *labels(name, cuts, attack),
                    Cell(percent(found.all_read.value), _note("exact_history", found.all_read), mark="value"),
                    *numbers(number(metric, row["value"]), number(metric, found.median), f"{low} to {high}"),
                    *numbers(number(metric, found.most), number(metric, found.least), f"{found.n:,}"),
                )
            )
    columns = (
        "in", "cuts", "attack", "users with everything read", "pooled", "median user", "middle half of the users",
        "worst-hit user", "least hit", "users",
    )  # fmt: skip
    caption = (
        f"{secret}: {metric} of each attacked user, for the strongest attack at each cut. The pooled figure is over "
        "items, the others are over users. With few users, the worst-hit user is one of few."
    )
    return [Table(caption, columns, tuple(body), headers=2)] if body else []


def by_client(secret: str, metric: str, told: Mapping[str, Mapping[Pair, Finding]], run: Document) -> list[Table]:
    """The mean over the users of each client at the cut that ran, or else at the first."""
    ran = (run["cut"]["front"], run["cut"]["back"])
    body = []
    for name, found in told.items():
        cut = ran if ran in found else min(found, default=None)
        spread = spread_of(found[cut]["detail"]) if cut is not None else None
        if cut is None or spread is None:
            continue
        for client, mean in spread.clients.items():
            cell = Cell(number(metric, mean.value), _note(metric, mean), mark="value")
            body.append((*labels(name, client, said(cut), found[cut]["attack"]), cell, *numbers(f"{mean.n:,}")))
    caption = (
        f"{secret}: {metric} by client, the mean over its users with 95% interval, for the strongest attack at the cut "
        "that ran, or else at the first. Clients with few attacked users are left out, to hide single users."
    )
    columns = ("in", "client", "cut", "attack", metric, "users")
    return [Table(caption, columns, tuple(body), headers=2)] if body else []


def _note(metric: str, mean: Mean) -> str:
    return interval(metric, list(mean.ci)) if mean.ci else "no interval"


def users_behind(
    secret: str, metric: str, places: Sequence[tuple[str, str, str, Finding]],
    told: Mapping[str, Mapping[Pair, Finding]], run: Document,
) -> list[Block]:  # fmt: skip
    """Show the spread over users behind the pooled values; folded at many cuts."""
    tables = [*over_users(secret, metric, places), *by_client(secret, metric, told, run)]
    if not tables:
        return []
    rows = sum(len(table.rows) for table in tables)
    return [*tables] if rows <= OPEN_ROWS else [Fold(f"{secret}: user by user and client by client", tuple(tables))]
