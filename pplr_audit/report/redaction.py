"""A report that can leave the house: the same documents without any text that came from data."""

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from pplr_audit.report.details import SPREAD, STEPS, spread_of, steps_of
from pplr_audit.report.document import Document

WITHHELD = "[withheld]"
NOTE = (
    "Redacted: true and recovered texts are withheld, clients are numbered, free text that may quote data is removed."
)


def redacted(findings: Document, evidence: Document) -> tuple[dict[str, Any], dict[str, Any]]:
    """Copies without titles, guesses, client names and user rows. Numbers and the fact of a hit stay.

    Client names go too: a partition by attribute or by user names its clients after the data.
    """
    findings_copy, evidence_copy = copy.deepcopy(dict(findings)), copy.deepcopy(dict(evidence))
    _redact(findings_copy, evidence_copy)
    return findings_copy, evidence_copy


def _redact(findings: dict[str, Any], evidence: dict[str, Any]) -> None:
    """In place; the titles and names are collected before the first of them is removed."""
    without_titles = _title_remover(evidence)
    alias = _client_aliases(findings, evidence)

    for client in findings["run"]["clients"]:
        client["name"] = alias[client["name"]]
    findings["run"]["not_measured"] = [without_titles(line) for line in findings["run"]["not_measured"]]
    if "never_stop" in findings["run"]:
        findings["run"]["never_stop"] = [alias.get(name, WITHHELD) for name in findings["run"]["never_stop"]]
    for rival in findings["run"].get("failed_rivals", ()):
        rival["reason"] = WITHHELD  # it names a client
    notes = findings["run"]["data"].get("notes", {})
    findings["run"]["data"]["notes"] = {name: n for name, n in notes.items() if isinstance(n, int | float)}
    for row in [*findings["findings"], *findings["utility"], *findings.get("differences", ())]:
        row["client"] = alias[row["client"]]
    for row in findings["findings"]:
        row["detail"] = _detail(row, without_titles, alias)

    for example in evidence["examples"]:
        example.update(client=alias[example["client"]], row=None, truth_text=WITHHELD, guess_text=WITHHELD)
        for slot in example["slots"]:
            slot.update(truth=WITHHELD, guess=WITHHELD)
    for row in [*evidence["roc"], *evidence["training"]]:
        row["client"] = alias[row["client"]]
    for entry in evidence["balance"]:
        entry["clients"] = [alias[name] for name in entry["clients"]]


def _client_aliases(findings: Document, evidence: Document) -> dict[str, str]:
    names = [client["name"] for client in findings["run"]["clients"]]
    for part in (findings["findings"], findings["utility"], *(evidence[k] for k in ("examples", "roc", "training"))):
        names += [row["client"] for row in part]
    names += [name for entry in evidence["balance"] for name in entry["clients"]]
    others = [name for name in dict.fromkeys(names) if name != "all"]
    return {"all": "all"} | {name: f"client {number}" for number, name in enumerate(others, start=1)}


def _title_remover(evidence: Document) -> Callable[[str], str]:
    """A second net under ``_detail``: takes every title known from the evidence out of a free text."""
    slots = [slot for example in evidence["examples"] for slot in example["slots"]]
    texts = {slot[side] for slot in slots for side in ("truth", "guess")}
    texts |= {example[side] for example in evidence["examples"] for side in ("truth_text", "guess_text")}
    titles = sorted((text for text in texts if len(text) > 2), key=len, reverse=True)
    if not titles:
        return lambda text: text
    pattern = re.compile("|".join(map(re.escape, titles)))
    return lambda text: pattern.sub(WITHHELD, text)


def _detail(row: Document, without_titles: Callable[[str], str], alias: Mapping[str, str]) -> dict[str, Any]:
    """Numbers, the mode, and the reason, unless that is an exception's message, which may quote anything."""
    kept: dict[str, Any] = {key: value for key, value in row["detail"].items() if isinstance(value, int | float | bool)}
    kept |= {name: mean.document for name, mean in zip(STEPS, steps_of(row["detail"]), strict=True) if mean}
    spread = spread_of(row["detail"])
    if spread is not None:
        known = {alias[name]: mean for name, mean in spread.clients.items() if name in alias}
        kept[SPREAD] = replace(spread, clients=known).document
    if "mode" in row["detail"]:
        kept["mode"] = without_titles(str(row["detail"]["mode"]))
    if "reason" in row["detail"]:
        failed = row["status"] == "failed"
        kept["reason"] = WITHHELD if failed else without_titles(str(row["detail"]["reason"]))
    return kept
