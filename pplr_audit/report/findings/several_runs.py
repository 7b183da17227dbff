"""What updates say in several runs that were trained in different ways, by the settings in which they differ."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pplr_audit.errors import InputError
from pplr_audit.report.findings.recipe import settings_of
from pplr_audit.report.findings.series import Finding, distinct, first_defense, headline, overall, place, strongest
from pplr_audit.report.findings.update_channels import UPDATES, attacked
from pplr_audit.runs.documents import Document

ALONG = {"batch size": "local steps", "clients": "local steps", "local steps": "local epochs"}
"""Settings that move with another: runs that differ in both differ in one."""
UNORDERED = frozenset({"local epochs", "seed"})
"""Numbers against which nothing is drawn: epochs are told as steps, and seeds have no order."""


@dataclass(frozen=True)
class Reading:
    """What one channel of updates gives of one secret in one run."""

    secret: str
    metric: str
    channel: str
    settings: Mapping[str, Any]
    """Settings in which the runs differ, by name."""
    row: Finding | None
    """The strongest finding at the cuts that all runs audited, else one that was tried."""


def require_comparable(runs: Mapping[str, Document]) -> None:
    """Raises InputError that names the runs where they are of different data, or one says nothing of updates.

    Args:
        runs: findings documents by the directory that they were read from.
    """
    first, *others = runs
    for name, document in runs.items():
        if not attacked(document):
            raise InputError(f"{name}: no attack on updates is part of this run, so there is nothing to compare")
        if "training" not in document["run"]:
            raise InputError(
                f"{name}: its findings do not say how a round was trained; continue it with pplr-audit run"
            )
    for name in others:
        if runs[name]["run"]["data"]["digest"] != runs[first]["run"]["data"]["digest"]:
            raise InputError(f"{name} and {first} are of different data, so that their figures cannot be compared")


def all_settings(document: Document) -> dict[str, Any]:
    """Return the settings of a run by which runs are told apart."""
    run = document["run"]
    return {"strategy": run["strategy"], **settings_of(run), "rounds": run["rounds"], "seed": run["seed"]}


def differing(documents: Sequence[Document]) -> list[str]:
    """Return the names of the settings in which runs differ."""
    told = [all_settings(document) for document in documents]
    names = dict.fromkeys(name for each in told for name in each)
    return [name for name in names if len({repr(each.get(name)) for each in told}) > 1]


def readings(documents: Sequence[Document]) -> Iterator[Reading]:
    """Yield what each channel gives in each run, secret by secret, at the cuts that all runs audited."""
    names, rows = differing(documents), [_of_updates(document) for document in documents]
    every = [row for own in rows for row in own]
    for secret in distinct(every, "secret"):
        metric = headline([row for row in every if row["secret"] == secret], secret)
        for channel in UPDATES if metric is not None else ():
            mine = [[r for r in own if (r["secret"], r["channel"]) == (secret, channel)] for own in rows]
            cuts = set.intersection(*({place(row["cut"]) for row in own} for own in mine))
            for document, own in zip(documents, mine, strict=True):
                at = [row for row in own if row["metric"] == metric and place(row["cut"]) in cuts]
                settings = {name: all_settings(document).get(name, "–") for name in names}
                if cuts:
                    yield Reading(secret, str(metric), channel, settings, strongest(at) or next(iter(at), None))


def lines(found: Sequence[Reading], setting: str) -> dict[str, list[Reading]]:
    """Return the readings of one secret and channel in order of one setting, a line for all else that differs.

    A line has readings of at least two values of the setting, and one of each.
    """
    apart: dict[str, dict[float, Reading]] = {}
    for each in found:
        aside = {setting, ALONG.get(setting, setting)}
        rest = ", ".join(f"{name} {value}" for name, value in each.settings.items() if name not in aside)
        if is_number(each.settings[setting]) and setting not in UNORDERED:
            apart.setdefault(rest, {}).setdefault(each.settings[setting], each)
    return {rest: [own[at] for at in sorted(own)] for rest, own in apart.items() if len(own) > 1}


def is_number(value: Any) -> bool:
    """True if a setting can be put in order."""
    return isinstance(value, int | float)


def _of_updates(document: Document) -> list[Finding]:
    rows = overall(document["findings"])
    defense = first_defense(rows)
    return [r for r in rows if r["channel"] in UPDATES and r["cut"] is not None and r["defense"] == defense]
