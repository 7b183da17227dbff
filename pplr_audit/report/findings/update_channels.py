"""The channels that carry updates: the strongest attack on each, for each secret, and how the others ended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pplr_audit.report.findings.series import Finding, distinct, headline, is_measured, overall, reason, strongest
from pplr_audit.report.words.vocabulary import KINDS, STATUS
from pplr_audit.runs.documents import Document

UPDATES = KINDS["updates"]


@dataclass(frozen=True)
class Said:
    """What one channel says of one secret, under one strategy and defense."""

    secret: str
    channel: str
    under: Mapping[str, str]
    """Strategy and defense, as far as there are several."""
    found: Finding | None
    """The strongest finding by the secret's headline metric at any cut; none where no attack has a value."""
    tried: Sequence[Finding]
    """All findings; those at the cut that ran first, so that they give the reasons."""

    @property
    def ended(self) -> str:
        """Say of each attack whether it has a value somewhere, or else how it ended."""
        return "; ".join(f"{rows[0]['attack']} {_status(rows)}" for rows in self._attacks)

    @property
    def reason(self) -> str:
        """The first reason why an attack has no value, where another has one."""
        told = (f"{rows[0]['attack']}: {reason(rows[0])}" for rows in self._attacks if not any(map(is_measured, rows)))
        return next(told, "") if self.found is not None else ""

    @property
    def _attacks(self) -> list[list[Finding]]:
        return [[row for row in self.tried if row["attack"] == name] for name in distinct(self.tried, "attack")]


def attacked(findings: Document) -> bool:
    """True if some attack on an update was part of the audit, whatever came of it."""
    return any(row["channel"] in UPDATES and row["cut"] is not None for row in findings["findings"])


def said_by_updates(findings: Document) -> list[Said]:
    """Return what each channel says, secret by secret; rivals that were attacked behind the own strategy."""
    every = overall([*findings["findings"], *findings.get("strategies", ())])
    rows = [row for row in every if row["channel"] in UPDATES and row["cut"] is not None]
    rows = sorted(rows, key=lambda row: row["cut"] != findings["run"]["cut"])
    fields = [name for name in ("strategy", "defense") if len({row.get(name) for row in rows}) > 1]
    told = []
    for secret in distinct(every, "secret"):
        of_secret = [row for row in rows if row["secret"] == secret]
        metric = headline(of_secret, secret)
        for channel in UPDATES:
            groups: dict[tuple[str, ...], list[Finding]] = {}
            for row in (row for row in of_secret if row["channel"] == channel):
                groups.setdefault(tuple(str(row.get(field)) for field in fields), []).append(row)
            for key, own in groups.items():
                found = strongest(row for row in own if row["metric"] == metric)
                told.append(Said(secret, channel, dict(zip(fields, key, strict=True)), found, own))
    return told


def _status(rows: Sequence[Finding]) -> str:
    return STATUS["ok" if any(map(is_measured, rows)) else rows[0]["status"]]
