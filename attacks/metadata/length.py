"""Length: guesses titles from the lengths of sequences alone, by Bayes over titles that add up to such a length.

The server sees each row's mask, so it knows how many tokens the row has. The template is public, and so is how many
tokens each title takes. With n items in the prompt (1 to the most it holds, all as likely beforehand), each uniform
over the catalogue, the titles have S_n tokens together, which follows from the template. The chance that one of them
has l tokens and the others S_n - l is

    P(l | n, S_n) ∝ p(l) · P_{n-1}(S_n - l),    P_m: the distribution of the sum of m title lengths, m-fold convolution

where the answer counts as one title more if the sequence holds it. Titles of one length cannot be told apart: equal
titles count as one, and the order within a length is random. No tensor is read, so this is the baseline for those that
read one.

A sequence has the same mask whenever it crosses, so undefended its later crossings, and those of other rounds, tell
nothing more, and the first one alone is recorded. A defense on the masks can only lengthen them, as the server needs
every token: then the shortest of a round is read.

The signal is that of message lengths in traffic analysis: a sum of sizes from a public list gives away its summands
(Cheng and Avnur, "Traffic Analysis of SSL Encrypted Web Browsing", 1998; Sun et al., IEEE S&P 2002).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from pplr_audit.attacks.decoding.crossings import by_row, facts_of
from pplr_audit.attacks.decoding.titles import DEPTH, LABELS
from pplr_audit.attacks.decoding.word_scores import packed, require_whole
from pplr_audit.data.prompts import Prompts
from pplr_audit.scoring.ranking import best_first
from pplr_audit.threat_model.attack import Budget, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.outcomes import NotApplicable
from pplr_audit.threat_model.view import View


class Length:
    """Ranks the catalogue for each slot by how likely the title's length is, given that of the sequence.

    Args:
        seed: of the order of titles that the length cannot tell apart.
    """

    name = "length"
    secret = "history"
    channels = frozenset({Channel.METADATA})
    controls = 1
    copies = False
    every_crossing = True

    def __init__(self, seed: int = 0) -> None:
        require_whole("length", seed=(seed, 0))
        self.seed = seed

    def run(self, view: View, knowledge: Knowledge, budget: Budget) -> Guess:
        if not view.records:
            raise NotApplicable("nothing crossed that belongs to a victim")
        lengths = TitleLengths(knowledge.prompts, knowledge.history)
        generator = np.random.default_rng(self.seed)
        rows, tokens, claimed, slots, labels, told = [], [], [], [], [], []
        for row, crossings in by_row(view.records).items():
            budget.check()
            length = min(len(record.tensor) for record in crossings)
            found = lengths.told(length)
            if found is None:
                continue  # no sequence over this catalogue is so long
            rows.append(row)
            sequence, words = lengths.sequence(length, found, generator)
            tokens.append(sequence)
            claimed.append(words)
            slots.append(np.stack([lengths.best(each, DEPTH, generator) for each in found.slots]))
            labels.append(lengths.best(found.answer, LABELS, generator))
            told.append(lengths.bits(found.slots[0]))
        if not rows:
            raise NotApplicable("no row is as long as a sequence over this catalogue can be")
        answer = packed(rows, tokens, claimed, slots, labels if lengths.answers else None)
        facts = {
            "bits_told_of_an_item": float(np.mean(told)), "bits_of_an_item": float(np.log2(lengths.items)),
            **facts_of(view.records),
        }  # fmt: skip
        return Guess(answer, facts)


@dataclass(frozen=True)
class Told:
    """Inference from a sequence's length on the number of its items and the lengths of their titles."""

    count: Float[np.ndarray, "history"]
    """P(n items), n from 1."""
    slots: list[Float[np.ndarray, "lengths"]]
    """P(the slot is there and its title has l tokens), l from 0, for each slot that can be there."""
    answer: Float[np.ndarray, "lengths"]
    """P(the answer has l tokens); that of an item more, where the sequence holds none."""


class TitleLengths:
    """The public catalogue and template, as far as lengths go.

    Args:
        history: the most items of a prompt.
    """

    def __init__(self, prompts: Prompts, history: int) -> None:
        self._prompts, self._history = prompts, history
        self._of = prompts.titles.lengths
        self.items = len(self._of)
        self.answers = len(prompts.end) > 0
        """Whether a training sequence ends with the answer's title."""
        share = np.bincount(self._of) / self.items
        self._sums = [np.ones(1)]
        for _ in range(history + self.answers):
            self._sums.append(np.convolve(self._sums[-1], share))
        # One item for each title; what speaks for it is how many items have it.
        _, self._first, count = np.unique(prompts.title_classes(), return_index=True, return_counts=True)
        self._chance = count / np.bincount(self._of)[self._of[self._first]]

    def told(self, length: int) -> Told | None:
        """Posterior given that a sequence has ``length`` tokens; None where none can."""
        each = [self._of_one(n + self.answers, self._titles(length, n)) for n in range(1, self._history + 1)]
        weight = np.array([one.sum() for one in each])
        if weight.sum() == 0:
            return None
        joint = np.stack(each) / weight.sum()
        # A slot is there if there are more items than stand before it.
        slots = [joint[slot:].sum(0) for slot in range(self._history) if weight[slot:].sum() > 0]
        return Told(weight / weight.sum(), slots, joint.sum(0))

    def best(
        self, chance: Float[np.ndarray, "lengths"], depth: int, generator: np.random.Generator
    ) -> Int[np.ndarray, "depth"]:
        """The ``depth`` most likely titles, one item for each, -1 where there are fewer."""
        order = generator.permutation(len(self._first))
        mass = chance[self._of[self._first]] * self._chance
        found = self._first[best_first(mass, order)[:depth]]
        return np.pad(found, (0, depth - len(found)), constant_values=-1)

    def bits(self, chance: Float[np.ndarray, "lengths"]) -> float:
        """Return the gain in bits on an item over knowing the catalogue alone."""
        prior = np.bincount(self._of) / self.items
        posterior, there = chance / chance.sum(), chance > 0
        return float((posterior[there] * np.log2(posterior[there] / prior[there])).sum())

    def sequence(
        self, length: int, told: Told, generator: np.random.Generator
    ) -> tuple[Int[np.ndarray, "length"], Bool[np.ndarray, "length"]]:
        """The template with titles that fill it to ``length`` tokens: the likeliest number of them, the likeliest
        length for each in turn; and which tokens are words of a title in the history."""
        prompts = self._prompts
        count = int(told.count.argmax()) + 1
        left, pieces = self._titles(length, count), [prompts.prefix]
        claimed = np.zeros(length, dtype=bool)
        for slot in range(count + self.answers):
            if slot:
                pieces.append(prompts.separator if slot < count else prompts.suffix)
            chance = self._of_one(count + self.answers - slot, left)
            item = self.best(chance, 1, generator)[0]
            title, at = prompts.titles[item], sum(map(len, pieces))
            if slot < count:  # what follows is the answer
                claimed[at : at + len(title)] = prompts.content[item]
            pieces.append(title)
            left -= len(title)
        pieces.append(prompts.end if self.answers else prompts.suffix)
        return np.concatenate(pieces), claimed

    def _titles(self, length: int, count: int) -> int:
        """Tokens of all titles together in a sequence of ``length`` tokens with ``count`` items."""
        prompts = self._prompts
        around = len(prompts.prefix) + len(prompts.suffix) + len(prompts.end)
        return length - around - (count - 1) * len(prompts.separator)

    def _of_one(self, titles: int, total: int) -> Float[np.ndarray, "lengths"]:
        """P(one title has l tokens and all ``titles`` together have ``total``), l from 0."""
        share, others = self._sums[1], self._sums[titles - 1]
        rest = total - np.arange(len(share))
        possible = (rest >= 0) & (rest < len(others))
        return np.where(possible, share * others[np.clip(rest, 0, len(others) - 1)], 0.0)
