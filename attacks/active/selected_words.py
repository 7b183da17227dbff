"""Which words the heads of a trap have selected in a client's round, and which items these words speak for.

Row j of the update of a trap's values is a sum of what enters at the words that head j has selected (`attention_trap`).
Which words a head selects at all is seen on random prompts, run on the adapter that was sent. Of these, the few that
make up a row are found by empirical Bayes (`update.sparse`). The evidence for one word w is then the likelihood ratio
of a row y with and without it,

    log l = q² g / 2 (1 + g s) - log(1 + g s) / 2,    s = wᵀ C⁻¹ w,  q = wᵀ C⁻¹ y,

with C the covariance of all else and g the usual power of a selected word (Tipping and Faul, AISTATS 2003, *Fast
marginal likelihood* for sparse Bayesian models, equations 18 and 19). An item gains by each word of its title

    log((l p + 1 - p) / (l b + 1 - b))

where a head would select the word with probability b in a client of so many samples, and with p in one that has the
item: an item speaks by words that are missing, too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pplr_audit.attacks.update.candidates import Background, covering
from pplr_audit.attacks.update.sparse import powers
from pplr_audit.data.prompts import Prompt, Prompts
from pplr_audit.threat_model.knowledge import Model

OCCURRENCES = 8
"""Random prompts in which each item stands."""
FEW = 0.5
"""Added to each count of how often a word was selected, as in Krichevsky and Trofimov's estimate."""


@dataclass(frozen=True)
class Words:
    """Words as they enter the first block, in random prompts over the whole catalogue."""

    prompts: list[Prompt]
    at: list[Int[np.ndarray, "length"]]
    """The word at each position of each prompt."""
    known: Int[np.ndarray, "words 2"]
    """Token, and 1 where it stands in an item."""
    inputs: Float[Tensor, "words width"]
    """The mean of what enters for it."""
    within: Float[Tensor, "width width"]
    """Covariance of what enters for one word, by position and mark."""
    background: Background
    every: Float[Tensor, "many width"]
    """All that enters, at every position of every prompt."""

    @classmethod
    def of(cls, model: Model, layer: str, prompts: Prompts, history: int, seed: int) -> "Words":
        drawn = covering(prompts, OCCURRENCES, history, np.random.default_rng(seed))
        entered = dict(model.entering(drawn, [layer]))
        inputs = torch.cat([entered[place][layer].double() for place in range(len(drawn))])
        every = np.concatenate([np.stack([each.tokens, each.slots >= 0], 1) for each in drawn])
        known, at = np.unique(every, axis=0, return_inverse=True)
        places = torch.from_numpy(at.reshape(-1))
        counts = torch.bincount(places, minlength=len(known)).double()
        mean = torch.zeros(len(known), inputs.shape[1]).double().index_add_(0, places, inputs) / counts[:, None]
        apart = inputs - mean[places]
        bounds = np.cumsum([len(each) for each in drawn])[:-1]
        return cls(
            drawn,
            np.split(at.reshape(-1), bounds),
            known,
            mean,
            apart.T @ apart / len(apart),
            Background.of(inputs),
            inputs,
        )

    @property
    def noises(self) -> Float[Tensor, "kinds width width"]:
        """Covariances of what a row holds besides words; that within words where a word does not always enter alike."""
        kinds = self.background.kinds
        more = [each for each in (self.within, self.template) if float(each.trace()) > 1e-9 * float(kinds[0].trace())]
        return torch.cat([kinds, *(each[None] for each in more)])

    @property
    def template(self) -> Float[Tensor, "width width"]:
        """Second moments of what enters for words of the template, which everybody knows to be there."""
        public = self.inputs[torch.from_numpy(self.known[:, 1] == 0)]
        return public.T @ public / max(1, len(public))


@dataclass(frozen=True)
class Selection:
    """How often each head selects each word, on the adapter that was sent."""

    selected: Float[np.ndarray, "heads words"]
    """Random prompts in which the head selects the word."""
    present: Int[np.ndarray, "words"]
    """Random prompts that hold the word."""
    prompts: int

    @classmethod
    def of(
        cls, words: Words, rows_of: Callable[[Prompt], Float[Tensor, "heads width"]], check: Callable[[], None]
    ) -> "Selection":
        """Count the word of a title of which most is in the gradient of each single prompt.

        Args:
            rows_of: makes the rows of a prompt's gradient.
        """
        moments, _, alike = words.background.kinds
        inverse = torch.linalg.inv(words.within + words.template + 1e-4 * moments + 1e-9 * alike)
        through = words.inputs @ inverse
        sizes = (through * words.inputs).sum(1)
        counts: np.ndarray | float = 0.0
        present = np.zeros(len(words.known), dtype=np.int64)
        for prompt, at in zip(words.prompts, words.at, strict=True):
            check()
            own = np.unique(at)
            own = own[words.known[own, 1] == 1]
            present[own] += 1
            fits = (through[own] @ rows_of(prompt).double().T).square() / sizes[own, None]
            taken = np.zeros((fits.shape[1], len(words.known)))
            taken[np.arange(len(taken)), own[fits.argmax(0).numpy()]] = 1
            counts = counts + taken
        return cls(np.asarray(counts), present, len(words.prompts))

    def chance(self, head: int, samples: int) -> Float[np.ndarray, "words"]:
        """Return the probability that the head selects each word in a client of so many random samples."""
        once = self.selected[head] / (self.prompts + 1)
        return np.asarray(1 - (1 - once) ** samples)

    def chance_in(self, head: int) -> Float[np.ndarray, "words"]:
        """Return the probability that the head selects each word in a sequence that holds it."""
        return np.asarray((self.selected[head] + FEW * (self.selected[head] > 0)) / (self.present + 2 * FEW))


def evidence(
    row: Float[Tensor, "width"], columns: Float[Tensor, "words width"], noises: Float[Tensor, "kinds width width"],
    iterations: int, check: Callable[[], None] = lambda: None,
) -> Float[np.ndarray, "words"]:  # fmt: skip
    """Return the log-likelihood ratio of each word: in the row, or not."""
    power, noise = powers(row[None], columns, torch.arange(len(columns)), noises, iterations, check)
    covariance = (columns.T * power) @ columns + (noise[:, None, None] * noises).sum(0)
    through = torch.linalg.solve(covariance, torch.cat([columns, row[None]]).T).T
    own, seen = (through[:-1] * columns).sum(1), through[:-1] @ row
    left = (1 - power * own).clamp(min=1e-9)
    own, seen = own / left, seen / left
    there = power[power > 0]
    usual = there.median() if len(there) else row.square().mean()
    told: np.ndarray = (seen.square() * usual / (1 + usual * own) / 2 - (1 + usual * own).log() / 2).numpy()
    return told


Told = Sequence[tuple[Int[np.ndarray, "some"], Float[np.ndarray, "some"]]]
"""Some words of each head, and the log-likelihood ratio of each of these."""


def gains(words: Words, selection: Selection, told: Told, samples: int) -> Float[np.ndarray, "words"]:
    """Return what an item gains in log-odds by each word of its title, in a client of so many samples."""
    found = np.zeros(len(words.known))
    for head, (own, ratio) in enumerate(told):
        by_others = selection.chance(head, samples)[own].clip(1e-6, 1 - 1e-6)
        by_any = 1 - (1 - selection.chance_in(head)[own]) * (1 - by_others)
        there, usual = (np.logaddexp(np.log(p) + ratio, np.log1p(-p)) for p in (by_any, by_others))
        found[own] += there - usual
    return found


def item_odds(prompts: Prompts, words: Words, gained: Float[np.ndarray, "words"]) -> Float[np.ndarray, "items"]:
    """Return the log-odds of each item, but for a constant."""
    of_token = {int(token): float(each) for (token, own), each in zip(words.known, gained, strict=True) if own}
    titles, content = prompts.titles, prompts.content
    own = (set(titles[item][content[item] == 1].tolist()) for item in range(len(titles)))
    return np.array([sum(of_token.get(token, 0.0) for token in tokens) for tokens in own])
