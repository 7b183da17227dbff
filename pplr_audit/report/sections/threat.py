"""Section on the threat model: who sees what, what they know, and which channels no attack has read."""

from pplr_audit.report.blocks.content import Block, Cell, Items, Section, Table, Text, labels, listed
from pplr_audit.report.findings.details import beside_of
from pplr_audit.report.findings.series import distinct, is_measured
from pplr_audit.report.words.vocabulary import (
    ADVERSARIES,
    CHANNELS,
    knowledge_words,
    text_words,
)
from pplr_audit.runs.documents import WITHOUT_TRUNK_UNKNOWN, Document

OUT_OF_SCOPE = (
    "Attacks other than those in the tables. A channel that was not attacked is not safe; it is unknown.",
    WITHOUT_TRUNK_UNKNOWN,
    "Anything outside the channels: timing, memory, a compromised client, text that people share elsewhere.",
    "Users and data other than those audited: the intervals are about users like these, in this one training run.",
)


def threat(findings: Document) -> Section:
    """The adversaries of this audit, and every channel with the attacks that read it."""
    rows, text = findings["findings"], text_words(findings["run"]["audit"])
    blocks: list[Block] = [
        Text(
            "Every adversary knows the base weights, the prompt template and the catalogue unless it says less below."
            + (f" Text from which attacks learn: {text}." if text else "")
        ),
        Table(
            "Adversaries of this audit",
            ("adversary", "sees", "knows", "attacks"),
            tuple(
                labels(
                    name,
                    ADVERSARIES.get(name, "not described"),
                    _knowledge(rows, name),
                    _tried(rows, name),
                )
                for name in distinct(rows, "adversary")
            ),
        ),
        _channels(findings),
        Text("Out of scope:"),
        Items(OUT_OF_SCOPE),
    ]
    return Section("threat", "Threat model: who sees what", tuple(blocks))


def _knowledge(rows: list[Document], adversary: str) -> str:
    known = [str(name) for name in distinct([row for row in rows if row["adversary"] == adversary], "knowledge")]
    return "; ".join(map(knowledge_words, known))


def _tried(rows: list[Document], adversary: str) -> str:
    """Attacks that gave a value; one that cannot read what this adversary sees was not an attack by it."""
    measured = [row for row in rows if row["adversary"] == adversary and is_measured(row)]
    return _attacks(measured, "adversary", adversary) or "none gave a value"


def _attacks(rows: list[Document], field: str, value: str) -> str:
    return listed(sorted({str(row["attack"]) for row in rows if row[field] == value}))


def _channels(findings: Document) -> Table:
    rows = findings["findings"]
    names = [*CHANNELS, *(name for name in distinct(rows, "channel") if name not in CHANNELS)]
    body = []
    for name in names:
        words = CHANNELS.get(name)
        mine = [row for row in rows if row["channel"] == name]
        besides = [row for row in rows if is_measured(row) and name in beside_of(row["detail"])]
        if any(is_measured(row) for row in mine):
            tested = Cell(f"attacked by {_attacks(rows, 'channel', name)}")
        elif besides:
            where = ", ".join(distinct(besides, "channel"))
            tested = Cell(f"read beside {where} by {', '.join(distinct(besides, 'attack'))}")
        elif mine:
            tested = Cell("attacks gave no value", _attacks(rows, "channel", name), mark="status")
        else:
            tested = Cell("not attacked in this audit", mark="status")
        body.append(
            (Cell(name), Cell(words.direction if words else "?"), Cell(words.content if words else "?"), tested)
        )
    return Table(
        "What crosses, and whether an attack of this audit read it",
        ("channel", "direction", "content", "tested"),
        tuple(body),
    )
