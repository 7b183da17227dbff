"""A report that can leave the house: the same documents without any text that came from data or from the machine.

What is kept is listed here, and all else goes: a field that a later version adds stays only where it is a number.
``docs/privacy.md`` says the same to users.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pplr_audit.report.findings.details import SPREAD, STEPS, beside_of, spread_of, steps_of
from pplr_audit.report.words.vocabulary import AUXILIARY, CHANNELS
from pplr_audit.runs.documents import Document

WITHHELD = "[withheld]"
NOTE = (
    "Redacted: true and recovered texts, reasons, settings of attacks, hardware, and names of folders are withheld; "
    "clients are numbered."
)
PUBLIC = frozenset({"synthetic", "tiny-llama", "minilm"})
"""Names of data and models that ship; others are names of folders."""
_OF_RUN = (
    "name", "seed", "created", "version", "backbone_digest", "recommender", "precision", "strategy", "rounds",
    "layers", "hidden", "cut", "prompt", "seconds", "not_measured", "plugins",
)  # fmt: skip
_INTERVALS = ("model_free_ci", "interval_covers")
"""Details that are pairs of numbers."""
_WORD = re.compile(r"[a-z][a-z0-9_]{0,40}")
"""Names that attacks give to modes and facts."""


def redacted(findings: Document, evidence: Document) -> tuple[dict[str, Any], dict[str, Any]]:
    """Copies without titles, guesses, reasons, client names and user rows. Numbers and the fact of a hit stay.

    Client names go, too: a partition by attribute or by user names its clients after the data.
    """
    alias = _aliases(findings, evidence)
    return _findings(findings, alias), _evidence(evidence, alias)


def redacted_training(document: Document) -> dict[str, Any]:
    """The same of the document of a training, which has no findings."""
    return _findings(document, _aliases(document, {}))


def _findings(document: Document, alias: "Aliases") -> dict[str, Any]:
    return {
        **document,
        "run": _run(document["run"], alias),
        **{
            part: [{**row, "client": alias[row["client"]]} for row in document[part]]
            for part in ("utility", "differences", "utility_seeds")
            if part in document
        },
        **{
            part: [_finding(row, alias) for row in document[part]]
            for part in ("findings", "strategies", "seeds")
            if part in document
        },
    }


def _run(run: Document, alias: "Aliases") -> dict[str, Any]:
    data, hardware = run["data"], run["hardware"]
    kept = {name: run[name] for name in _OF_RUN if name in run}
    kept |= _numbers(run)
    kept |= {
        "backbone": _public(run["backbone"]),
        "clients": [{"name": alias[client["name"]], **_numbers(client)} for client in run["clients"]],
        "data": {
            **_numbers(data), "name": _public(data["name"]), "digest": data["digest"],
            **{part: _numbers(data[part]) for part in ("notes", "left_out", "groups") if part in data},
        },
        "libraries": {name: version.partition("+")[0] for name, version in run["libraries"].items()},
        "hardware": {name: value if _is_number(value) else WITHHELD for name, value in hardware.items()},
    }  # fmt: skip
    if "training" in run:
        kept["training"] = _recipe(run["training"])
    if "audit" in run:
        audit = run["audit"]
        kept["audit"] = {**_numbers(audit), "rounds": audit["rounds"], "knowledge": audit["knowledge"]}
        if audit.get("auxiliary") in AUXILIARY:
            kept["audit"]["auxiliary"] = audit["auxiliary"]
    if "never_stop" in run:
        kept["never_stop"] = [alias[name] for name in run["never_stop"]]
    if "failed_rivals" in run:
        kept["failed_rivals"] = [{**rival, "reason": WITHHELD} for rival in run["failed_rivals"]]
    return kept


def _recipe(training: Document) -> dict[str, Any]:
    """Keep how a round is trained, which says nothing of users; a name is kept where it is a word of code."""
    adapter = training["adapter"]
    kept = {**_numbers(training), "steps": list(training["steps"]), "adapter": None}
    kept |= {name: _word(training[name]) for name in ("optimizer", "averaging")}
    if adapter is not None:
        kept["adapter"] = {**_numbers(adapter), "targets": [_word(name) for name in adapter["targets"]]}
    return kept


def _word(name: str) -> str:
    return name if _WORD.fullmatch(name) else WITHHELD


def _finding(row: Document, alias: "Aliases") -> dict[str, Any]:
    """Keep of a finding's detail the numbers, the mode, what the adversary had, and that there is a reason."""
    detail = {name: value for name, value in _numbers(row["detail"]).items() if name not in alias}
    detail |= _intervals(row["detail"]) | _had(row["detail"], alias)
    detail |= {name: mean.document for name, mean in zip(STEPS, steps_of(row["detail"]), strict=True) if mean}
    spread = spread_of(row["detail"])
    if spread is not None:
        known = {alias[name]: mean for name, mean in spread.clients.items() if name in alias}
        detail[SPREAD] = replace(spread, clients=known).document
    mode = row["detail"].get("mode")
    if mode is not None:
        detail["mode"] = _word(mode) if isinstance(mode, str) else WITHHELD
    if "reason" in row["detail"]:
        detail["reason"] = WITHHELD
    return {**row, "client": alias[row["client"]], "detail": detail}


def _intervals(detail: Document) -> dict[str, Any]:
    """The pairs of numbers that a warning is made of."""
    told = {name: detail[name] for name in _INTERVALS if isinstance(detail.get(name), list | tuple)}
    return {name: ends for name, ends in told.items() if len(ends) == 2 and all(map(_is_number, ends))}


def _had(detail: Document, alias: "Aliases") -> dict[str, Any]:
    """What the adversary read and learned from, in this program's own words: without it a report understates that."""
    had: dict[str, Any] = {}
    if isinstance(detail.get("auxiliary"), str) and detail["auxiliary"] in AUXILIARY:
        had["auxiliary"] = detail["auxiliary"]
    if isinstance(detail.get("colluder"), str):
        had["colluder"] = alias[detail["colluder"]]
    beside = [channel for channel in beside_of(detail) if channel in CHANNELS]
    return had | ({"beside": beside} if beside else {})


def _evidence(evidence: Document, alias: "Aliases") -> dict[str, Any]:
    return {
        **evidence,
        "examples": [
            {
                **example, "client": alias[example["client"]], "row": None, "truth_text": WITHHELD,
                "guess_text": WITHHELD, "settings": _numbers(example.get("settings", {})),
                "slots": [{**slot, "truth": WITHHELD, "guess": WITHHELD} for slot in example["slots"]],
            }
            for example in evidence["examples"]
        ],
        **{
            part: [{**row, "client": alias[row["client"]]} for row in evidence[part]] for part in ("roc", "training")
        },
        "balance": [{**entry, "clients": [alias[name] for name in entry["clients"]]} for entry in evidence["balance"]],
    }  # fmt: skip


class Aliases(dict[str, str]):
    """Client names to numbered ones; one that is named nowhere else is withheld."""

    def __missing__(self, name: str) -> str:
        return WITHHELD


def _aliases(findings: Document, evidence: Document) -> Aliases:
    names = [client["name"] for client in findings["run"]["clients"]]
    rows = [
        *(findings.get(part, ()) for part in ("findings", "strategies", "seeds", "utility", "differences")),
        *(evidence.get(part, ()) for part in ("examples", "roc", "training")),
    ]
    names += [row["client"] for part in rows for row in part]
    names += [name for entry in evidence.get("balance", ()) for name in entry["clients"]]
    others = [name for name in dict.fromkeys(names) if name != "all"]
    return Aliases({"all": "all"} | {name: f"client {number}" for number, name in enumerate(others, start=1)})


def _numbers(told: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers under names that code gives."""
    return {name: value for name, value in told.items() if _is_number(value) and _WORD.fullmatch(name)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _public(name: str) -> str:
    return name if name in PUBLIC else WITHHELD
