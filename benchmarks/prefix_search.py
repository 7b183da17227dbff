"""Prefix search on a 12-block GPT-2-sized model: what it costs beside trying the whole vocabulary at every position.

The attack itself is run, `PrefixSearch.run`, on sequences of ten titles that cross at every front of the model (weights
drawn at random; the titles of ml-100k where the folder PPLR_AUDIT_DATA, or shared/data beside the checkout, holds them,
else synthetic). The unit is a block that one candidate's token is put through. The naive search is given cached
prefixes too, so that it needs T V of them a block; its time is measured on a few positions and extrapolated. The attack
is charged with its shortlist: the ridge inverter's auxiliary prompts are run through the front once for all sequences,
and here a single sequence bears all of it.
"""

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import arguments, goal, goal_text, machine, spread, table, write
from transformers import GPT2Config, GPT2LMHeadModel

from pplr_audit.attacks.activation.prefix_search import PrefixSearch
from pplr_audit.audit.knowledge.known_model import KnownModel
from pplr_audit.data.dataset import Catalogue
from pplr_audit.data.load import load
from pplr_audit.data.prompts import Prompt
from pplr_audit.models.backbones.tiny_llama import Recipe, train_tokenizer
from pplr_audit.models.build import Recommender, build
from pplr_audit.models.token_tree import Prefix
from pplr_audit.scenario.schema import Cut, Data, Market, Model
from pplr_audit.threat_model.attack import Budget, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.view import Record, View

SHARE_AT_MOST = 0.01
HISTORY = 10
DATA = Path(os.environ.get("PPLR_AUDIT_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data") / "ml-100k"


@dataclass(frozen=True)
class Size:
    layers: int
    hidden: int
    vocabulary: int
    """Rows of the embedding; the tokenizer uses as many as it needs."""
    auxiliary: int
    """Prompts that the ridge inverter is fitted on."""
    sampled: int
    """Positions at which the naive search is timed."""
    candidates: int
    """Of the vocabulary, at each of them."""


FULL, QUICK = Size(12, 768, 50_257, 32, 3, 1024), Size(3, 64, 2_000, 16, 2, 256)


def prepared(folder: Path, size: Size) -> Recommender:
    """The recommender on a model of that size."""
    catalogue = titles()
    tokenizer = train_tokenizer(catalogue, Recipe())
    config = GPT2Config(
        vocab_size=size.vocabulary, n_embd=size.hidden, n_layer=size.layers, n_head=max(size.hidden // 64, 2),
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    model = Model(backbone=str(folder), max_tokens=512, cut=Cut(front=1, back=1))
    return build(model, catalogue, history=HISTORY, seed=0)


def titles() -> Catalogue:
    data = Data(path=str(DATA)) if DATA.is_dir() else Data(market=Market(users=600, items=400, tastes=5))
    return load(data, 0).catalogue


def known_by(model: Recommender, fronts: tuple[int, ...]) -> Knowledge:
    base = KnownModel(model.whole, None)
    return Knowledge("base", model.prompts, model.whole.embeddings, base, {}, fronts, HISTORY, model.layers)


def drawn(model: Recommender, generator: np.random.Generator) -> Prompt:
    items = generator.integers(len(model.prompts.titles), size=HISTORY + 1)
    return model.prompts.build(items[:-1], int(items[-1]))


def crossing(model: Recommender, prompt: Prompt, fronts: tuple[int, ...]) -> dict[int, View]:
    """What crosses of one sequence, by front."""
    ((_, states),) = model.whole.states([prompt], fronts, None)
    return {
        front: View(
            "server", Channel.FRONT_ACTIVATIONS, front, None, "none", (Record(0, "client-0", 1, 0, states[front]),)
        )
        for front in fronts
    }  # fmt: skip


def timed(attack: PrefixSearch, view: View, knowledge: Knowledge) -> tuple[Guess, float]:
    started = time.perf_counter()
    guess = attack.run(view, knowledge, Budget(3600))
    return guess, time.perf_counter() - started


def share_right(guess: Guess, prompt: Prompt) -> float:
    return float((guess.arrays["tokens"] == prompt.tokens)[prompt.slots >= 0].mean())


def naive_seconds(model: Recommender, prompt: Prompt, front: int, size: Size) -> list[float]:
    """Seconds a candidate, at some positions of the sequence."""
    known, found = KnownModel(model.whole, None), []
    for position in np.linspace(1, len(prompt) - 1, size.sampled).astype(int):
        chain = known.extend(Prefix(), prompt.tokens[:position], range(-1, position - 1), (front,))
        prefix = chain.along(range(position))
        started = time.perf_counter()
        known.extend(prefix, np.arange(size.candidates), [-1] * size.candidates, (front,))
        found.append((time.perf_counter() - started) / size.candidates)
    return found


def main() -> None:
    chosen = arguments(__doc__ or "", repeats=3)
    at, size = machine(), QUICK if chosen.quick else FULL
    fronts = tuple(range(size.layers))
    deepest, generator = fronts[-1], np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as parent:
        model = prepared(Path(parent) / "gpt2", size)
        attack, knowledge = PrefixSearch(prompts=size.auxiliary, held_out=8), known_by(model, fronts)
        single, alone = PrefixSearch(prompts=size.auxiliary, held_out=8), known_by(model, (deepest,))
        sequences: list[dict[str, Any]] = []
        for _ in range(chosen.repeats):
            prompt = drawn(model, generator)
            views = crossing(model, prompt, fronts)
            all_fronts = {front: timed(attack, view, knowledge) for front, view in views.items()}
            guess, seconds = timed(single, views[deepest], alone)
            sequences.append(
                {
                    "tokens": len(prompt), "right": {k: share_right(g, prompt) for k, (g, _) in all_fronts.items()},
                    "right_deepest_alone": share_right(guess, prompt),
                    "evaluations": {k: g.facts["evaluations"] for k, (g, _) in all_fronts.items()},
                    "evaluations_deepest_alone": guess.facts["evaluations"],
                    "seconds": {k: s for k, (_, s) in all_fronts.items()}, "seconds_deepest_alone": seconds,
                    "words": len(model.tokenizer), "naive_evaluations": deepest * len(prompt) * size.vocabulary,
                }
            )  # fmt: skip
        each = naive_seconds(model, prompt, deepest, size)
    naive = spread([value * len(prompt) * size.vocabulary for value in each])
    report(sequences, naive, size, deepest, len(model.prompts.titles), at, chosen.results)


def report(
    sequences: list[dict[str, Any]], naive: Any, size: Size, deepest: int, items: int, at: dict[str, Any],
    results: Path | None,
) -> None:  # fmt: skip
    first, later = sequences[0], sequences[1:]
    share = first["evaluations_deepest_alone"] / first["naive_evaluations"]
    used = size.vocabulary / first["words"]  # how many times smaller a naive search of the tokenizer's words would be
    right = min(min(s["right_deepest_alone"], *s["right"].values()) for s in sequences)
    figures: dict[str, Any] = {
        "layers": size.layers, "hidden": size.hidden, "vocabulary": size.vocabulary, "titles": items,
        "auxiliary": size.auxiliary, "front": deepest, "sequences": sequences, "least_right": right,
        "naive_seconds": naive, "share_of_naive_with_shortlist": goal(share, SHARE_AT_MOST),
    }  # fmt: skip
    rows = [
        ["title tokens right, at the worst front", f"{right:.4f}", ""],
        ["evaluations of the naive search", f"{first['naive_evaluations']:,}", ""],
        ["evaluations for the first sequence, shortlist included", f"{first['evaluations_deepest_alone']:,}", ""],
        ["… as a share of the naive search", f"{share:.5f}", goal_text(share, SHARE_AT_MOST)],
        [
            f"… as a share of a naive search over the {first['words']:,} words that the tokenizer knows",
            f"{share * used:.5f}",
            "",
        ],
        ["seconds for the first sequence, shortlist included", f"{first['seconds_deepest_alone']:.1f} s", ""],
        ["naive search, extrapolated", naive.text(" s for a sequence", digits=0), ""],
        [
            "first sequence at all fronts: evaluations, each front by itself; seconds, together",
            f"{sum(first['evaluations'].values()):,}; {total(first):.1f} s",
            "",
        ],
    ]
    if later:
        own = spread([s["seconds_deepest_alone"] for s in later])
        part = later[0]["evaluations_deepest_alone"] / later[0]["naive_evaluations"]
        rows += [
            [
                "a later sequence: evaluations, shortlist included; seconds, as it was fitted before",
                f"{later[0]['evaluations_deepest_alone']:,}; {own.text(' s', digits=2)}",
                "",
            ],
            ["… as shares of the two naive searches", f"{part:.6f}; {part * used:.5f}", ""],
            ["a later sequence at all fronts", spread([total(s) for s in later]).text(" s", digits=2), ""],
        ]
    text = (
        f"GPT-2 with {size.layers} blocks of hidden size {size.hidden} and {size.vocabulary:,} words, random weights;"
        f" {items:,} titles, ten in a sequence of {first['tokens']} tokens; {size.auxiliary} auxiliary prompts;"
        f" {torch.get_num_threads()} threads. Figures are for front {deepest} unless a row says otherwise. An"
        " evaluation runs one token of a candidate through one block. The naive search tries every word at every"
        f" position, with cached prefixes; its time is extrapolated from {size.candidates} candidates at {size.sampled}"
        " positions.\n\n"
    ) + table(["what", "found", "goal"], rows)
    write("prefix_search", "Prefix search against the naive search", text, figures, at, results)


def total(sequence: dict[str, Any]) -> float:
    return float(sum(sequence["seconds"].values()))


if __name__ == "__main__":
    main()
