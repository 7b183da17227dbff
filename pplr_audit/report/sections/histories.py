"""Recovered histories beside the truth. What differs is underlined and said in words, not only colored."""

from difflib import SequenceMatcher

from pplr_audit.report.content import Comparison, Fold, History, Section, Text, Word
from pplr_audit.report.document import Document
from pplr_audit.report.redaction import WITHHELD
from pplr_audit.report.vocabulary import cut_words

SHOWN = 6
"""Histories open on the page; the others are folded."""


def histories(evidence: Document) -> Section:
    """Every example, slot by slot, then the whole text as it was read."""
    title = "Histories as an attack recovered them"
    examples = [_history(example) for example in evidence["examples"]]
    if not examples:
        return Section(
            "histories", title, (Text("No attack in this audit recovers text, so there are no examples to show."),)
        )
    lead = Text(
        "Examples show what the numbers mean; they do not replace them. Words that the truth and the guess do not "
        "share are underlined. A slot counts as recovered when the attack's first guess is the true item."
    )
    folded = (
        (Fold(f"More examples ({len(examples) - SHOWN})", tuple(examples[SHOWN:])),) if len(examples) > SHOWN else ()
    )
    return Section("histories", title, (lead, *examples[:SHOWN], *folded))


def _history(example: Document) -> History:
    user = "" if example["row"] is None else f", user row {example['row']}"
    hits = sum(slot["hit"] for slot in example["slots"])
    slots = [
        _comparison(str(i), slot["truth"], slot["guess"], slot["hit"]) for i, slot in enumerate(example["slots"], 1)
    ]
    texts = [_comparison("as read", example["truth_text"], example["guess_text"], None)]
    return History(
        f"{example['attack']} on {example['channel']} at {cut_words(example['cut'])}: {example['client']}{user}",
        f"{hits} of {len(example['slots'])} items recovered",
        tuple(slots + (texts if example["truth_text"] != WITHHELD and example["guess_text"] else [])),
    )


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
