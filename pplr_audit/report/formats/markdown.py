"""The report as Markdown: the same sections as the HTML, with every picture replaced by the table beside it."""

import re
from collections.abc import Iterator, Sequence

from pplr_audit.report.blocks.content import (
    Block,
    Cell,
    Facts,
    Figure,
    Fold,
    History,
    Items,
    Section,
    Table,
    Text,
    Word,
)
from pplr_audit.report.findings.redaction import NOTE, redacted
from pplr_audit.report.formats.html import VERDICTS
from pplr_audit.report.sections import sections
from pplr_audit.report.sentences.answer import answer
from pplr_audit.report.sentences.identity import identity
from pplr_audit.report.words.untrusted import cleaned
from pplr_audit.runs.documents import Document, judged

_ALWAYS = re.compile(r"[\\`*\[\]|~$]")
_UNDERSCORE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")  # inside a word (front_activations) it is no markup
_LINK = re.compile(r":(?=//)|(?<=www)\.|@(?=[A-Za-z])", re.IGNORECASE)
_START = re.compile(r"^([#+=-]|\d+(?=[.)]))")


def render_markdown(findings: Document, evidence: Document, *, redact: bool = False) -> str:
    """Both documents as GitHub-flavored Markdown.

    Args:
        findings: a valid findings document (``document.validate``).
        evidence: a valid evidence document (``document.validate_evidence``).
        redact: leave out every text that came from data, with a note in its place.
    """
    findings = judged(findings)
    if redact:
        findings, evidence = redacted(findings, evidence)
    findings, evidence = cleaned(findings), cleaned(evidence)
    parts = [f"# {escaped(findings['run']['name'])}", escaped(identity(findings["run"]))]
    if redact:
        parts.append(f"**{escaped(NOTE)}**")
    parts.append("## The answer")
    parts += [f"**{escaped(s.topic)}**{_tag(s.verdict)} {escaped(s.text)}" for s in answer(findings)]
    parts += map(render_section, sections(findings, evidence))
    return "\n\n".join(part for part in parts if part) + "\n"


def render_section(section: Section) -> str:
    """One section with its heading."""
    parts = [f"## {escaped(section.title)}", *(part for block in section.blocks for part in _block(block))]
    return "\n\n".join(part for part in parts if part)


def escaped(text: str) -> str:
    """Text that no Markdown renderer reads as markup, HTML, a link or a mention.

    >>> print(escaped("<b>*x*</b> front_activations 1.5 [a](http://b)"))
    &lt;b&gt;\\*x\\*&lt;/b&gt; front_activations 1.5 \\[a\\](http\\://b)
    >>> print(escaped("# not a heading"), escaped("1. not a list"))
    \\# not a heading 1\\. not a list
    """
    text = _ALWAYS.sub(r"\\\g<0>", text)
    text = _LINK.sub(r"\\\g<0>", _UNDERSCORE.sub(r"\\_", text))
    text = _START.sub(lambda start: f"{start[0]}\\" if start[0].isdigit() else f"\\{start[0]}", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _tag(verdict: str) -> str:
    return f" ({VERDICTS[verdict]}):" if verdict in VERDICTS else ":"


def _block(block: Block) -> Iterator[str]:
    match block:
        case Text(text):
            yield escaped(text)
        case Items(items):
            yield "\n".join(f"- {escaped(item)}" for item in items)
        case Facts(pairs):
            yield _table(("", ""), [(escaped(name), escaped(value)) for name, value in pairs])
        case Table():
            yield f"*{escaped(block.caption)}*"
            yield _table(block.columns, [tuple(_cell(cell) for cell in row) for row in block.rows])
        case Figure():
            yield f"*{escaped(block.caption)}*"
            for chart in block.charts:
                yield escaped(chart.description)
        case History():
            yield f"**{escaped(block.title)}**: {escaped(block.score)}"
            rows = [(escaped(c.label), _words(c.truth), _words(c.guess), _hit(c.hit)) for c in block.comparisons]
            yield _table((*block.columns, "recovered", "verdict"), rows)
        case Fold():
            yield f"### {escaped(block.title)}"
            for inner in block.blocks:
                yield from _block(inner)


def _table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [tuple(escaped(name) for name in columns), ("---",) * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(cell: Cell) -> str:
    near = "≈ " if cell.mark == "near" else ""
    text = f"**{escaped(cell.text)}**" if cell.mark == "strong" else escaped(cell.text)
    return f"{near}{text}" + (f" {escaped(cell.note)}" if cell.note else "")


def _words(words: tuple[Word, ...]) -> str:
    """Words that the other text does not share stand in bold."""
    return " ".join(escaped(word.text) if word.shared else f"**{escaped(word.text)}**" for word in words) or "(nothing)"


def _hit(hit: bool | None) -> str:
    return "–" if hit is None else "✓ recovered" if hit else "✗ missed"
