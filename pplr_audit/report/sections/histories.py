"""Recovered histories, items and next items beside the truth. What differs is underlined, not only colored."""

from collections.abc import Sequence
from difflib import SequenceMatcher

from pplr_audit.report.blocks.content import Comparison, Fold, History, Section, Text, Word
from pplr_audit.report.findings.redaction import WITHHELD
from pplr_audit.report.findings.series import spelled
from pplr_audit.report.words.vocabulary import cut_words
from pplr_audit.runs.documents import Document

SETS = {"items": "items", "targets": "next items"}
"""Secrets of updates, which are sets."""
SHOWN = 6
"""Number of each kind open on the page; the others are folded."""


def histories(evidence: Document) -> Section:
    """Every history, slot by slot and as it was read; then items read of updates, then next items, a cut together."""
    title = "What an attack recovered, beside the truth"
    read = [e for e in evidence["examples"] if e.get("secret", "history") == "history"]
    first: dict[str, Document] = {}
    for example in read:
        first.setdefault(_place(example), example)
    # one user of each attack and cut before a second one
    read = [*first.values(), *(e for e in read if first[_place(e)] is not e)]
    sets = [_set(e) for e in evidence["examples"] if e.get("secret") in SETS]
    next_items = _next_items([e for e in evidence["examples"] if e.get("secret") == "label"])
    found = [*map(_history, read), *sets, *next_items]
    if not found:
        return Section(
            "histories", title, (Text("No attack in this audit recovers text, so there are no examples to show."),)
        )
    lead = Text(
        "Examples show what the numbers mean; they do not replace them. Words that the truth and the guess do not "
        "share are underlined. An item counts as recovered when the attack's first guess is the true one; of an "
        "update, when it is among as many ranked first as there are true ones. There a wrong guess stands beside an "
        "item that was missed."
    )
    shown = [*found[: min(SHOWN, len(read))], *sets[:SHOWN], *next_items[:SHOWN]]
    hidden = [each for each in found if each not in shown]
    folded = (Fold(f"More examples ({len(hidden)})", tuple(hidden)),) if hidden else ()
    return Section("histories", title, (lead, *shown, *folded))


def _history(example: Document) -> History:
    hits = sum(slot["hit"] for slot in example["slots"])
    slots = [
        _comparison(str(i), slot["truth"], slot["guess"], slot["hit"]) for i, slot in enumerate(example["slots"], 1)
    ]
    texts = [_comparison("as read", example["truth_text"], example["guess_text"], None)]
    return History(
        f"{_place(example)}: {_user(example)}",
        f"{hits} of {len(example['slots'])} items recovered",
        tuple(slots + (texts if example["truth_text"] != WITHHELD and example["guess_text"] else [])),
    )


def _set(example: Document) -> History:
    """True items beside those that were ranked first; the places say nothing of an order."""
    hits = sum(slot["hit"] for slot in example["slots"])
    return History(
        f"{_place(example)}: {SETS[example['secret']]} of {_user({**example, 'row': None})}",
        f"{hits} of the {len(example['slots'])} ranked first are true",
        tuple(
            _comparison(str(i), slot["truth"], slot["guess"], slot["hit"]) for i, slot in enumerate(example["slots"], 1)
        ),
        ("rank", "true items"),
    )


def _next_items(examples: Sequence[Document]) -> list[History]:
    """One table for each attack and cut, a line for each victim."""
    groups: dict[str, list[Document]] = {}
    for example in examples:
        groups.setdefault(_place(example), []).append(example)
    return [
        History(
            f"{place}: the next item",
            f"{sum(e['slots'][0]['hit'] for e in group)} of {len(group)} next items recovered",
            tuple(
                _comparison(_user(e), **{key: e["slots"][0][key] for key in ("truth", "guess", "hit")}) for e in group
            ),
            ("user", "true next item"),
        )
        for place, group in groups.items()
    ]


def _place(example: Document) -> str:
    told = f" ({spelled(example['settings'])})" if example.get("settings") else ""
    knowing = f", knowing {example['knowledge']}" if "knowledge" in example else ""
    return f"{example['attack']}{told} on {example['channel']} at {cut_words(example['cut'])}{knowing}"


def _user(example: Document) -> str:
    user = "" if example["row"] is None else f", user row {example['row']}"
    return f"{example['client']}{user}"


def _comparison(label: str, truth: str, guess: str, hit: bool | None) -> Comparison:
    true_words, guessed_words = truth.split(), guess.split()
    blocks = SequenceMatcher(None, true_words, guessed_words, autojunk=False).get_matching_blocks()
    in_truth = {block.a + i for block in blocks for i in range(block.size)}
    in_guess = {block.b + i for block in blocks for i in range(block.size)}
    return Comparison(
        label,
        tuple(Word(word, i in in_truth) for i, word in enumerate(true_words)),
        tuple(Word(word, i in in_guess) for i, word in enumerate(guessed_words)),
        hit,
    )
