"""Reading batches from full-weight gradients of a decoder of GPT-2-small's shape: how much, at what size, how fast.

Weights are random, and so are the texts: words of the vocabulary, all equally likely. The loss is that of a classifier
with random labels, as in DAGER's published figures, so that every token has a gradient. PPLR_AUDIT_DAGER in the
environment names a checkout of the authors' code (insait-institute/dager-gradient-inversion); its functions for ranks,
spans and search are then run on the same gradients in turn, see `dager_reference`.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bare_text import Shape, classifier, drawn, gradients, known
from dager_reference import Reference
from measuring import arguments, goal_text, in_child, machine, spread, table, write
from torch import Tensor

from pplr_audit.attacks.update.alone import SKETCH, screened
from pplr_audit.attacks.update.checks import SINGLE, Check
from pplr_audit.attacks.update.dager import Settings, read
from pplr_audit.attacks.update.directions import directions
from pplr_audit.attacks.update.first_inputs import TOGETHER
from pplr_audit.attacks.update.spectrum import span
from pplr_audit.threat_model.outcomes import NotApplicable

EXACT, CHECK_SECONDS, READ_SECONDS, GIGABYTES, TIMES = 0.99, 2.0, 10.0, 4.0, 5.0
QUICK = Shape(layers=3, hidden=64, vocabulary=512)


@dataclass(frozen=True)
class Case:
    """One batch of texts."""

    batch: int
    length: int
    noise: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """What was read of one batch, and in what time."""

    case: Case
    exact: float | None
    """Share of the sequences that were read whole; None where the attack says that it does not apply."""
    tokens: float | None
    """Share of the batch's unique tokens among as many of the best ranked."""
    claimed: int
    """Sequences that were named."""
    seconds: float
    busy: float
    """Seconds of processors, which other work on the machine does not change."""
    said: str = ""


def attacked(case: Case, model: Any, update: dict[str, Tensor], tokens: Tensor, shape: Shape) -> Outcome:
    """Read one batch, from gradients to sequences."""
    copy = known(model)
    started, busy = time.perf_counter(), time.process_time()
    settings, true = Settings(longest=case.length, candidates=65_536), [tuple(row) for row in tokens.tolist()]
    try:
        found = read(
            directions(update, copy.linears, {}), copy, None, settings, np.arange(shape.vocabulary), lambda: None
        )
    except NotApplicable as reason:
        seconds, busy = time.perf_counter() - started, time.process_time() - busy
        return Outcome(case, None, None, 0, seconds, busy, str(reason))
    seconds, busy = time.perf_counter() - started, time.process_time() - busy
    named = {text.tokens for text in found.sequences}
    unique = {token for row in true for token in row}
    best = set(found.tokens.tokens[: len(unique)].tolist())
    right = float(np.mean([row in named for row in true]))
    return Outcome(case, right, len(unique & best) / len(unique), len(named), seconds, busy)


def batch_of(case: Case, shape: Shape) -> tuple[Any, dict[str, Tensor], Tensor]:
    """Return a model, gradients and the true tokens."""
    generator = torch.Generator().manual_seed(1000 + case.seed)
    model = classifier(shape, case.seed)
    tokens = drawn(case.batch, case.length, shape, generator)
    return model, gradients(model, tokens, case.noise, generator), tokens


def outcome(case: Case, shape: Shape) -> Outcome:
    model, update, tokens = batch_of(case, shape)
    found = attacked(case, model, update, tokens, shape)
    print(asdict(found), file=sys.stderr, flush=True)
    return found


def span_checks(shape: Shape, threads: int) -> dict[str, float]:
    """Return the seconds in which all words are tried against the spans of all modules, and those to find the spans."""
    model, update, _ = batch_of(Case(4, 32 if shape.hidden > 64 else 8), shape)
    copy = known(model)
    found = directions(update, copy.linears, {})
    started = time.perf_counter()
    tests = [Check(each, span(each.rows, SINGLE)) for each in found]
    sketches = [each.span.sketch(SKETCH).float() for each in tests]
    spans = time.perf_counter() - started
    words = torch.nn.functional.layer_norm(model.get_input_embeddings().weight.detach(), (shape.hidden,))
    started, busy = time.perf_counter(), time.process_time()
    for part in words.split(TOGETHER):
        for test, sketch in zip(tests, sketches, strict=True):
            screened(test, sketch, part)
    seconds, busy = time.perf_counter() - started, time.process_time() - busy
    return {"check": seconds, "busy": busy, "spans": spans, "modules": len(tests), "threads": threads}


def peak(shape: Shape) -> dict[str, Any]:
    """Return the gigabytes that a process of its own takes at most to read four sequences."""
    model, update, tokens = batch_of(CASES["speed"](shape), shape)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    attacked(CASES["speed"](shape), model, update, tokens, shape)
    return {"gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, "before": before}


CASES: dict[str, Callable[[Shape], Case]] = {
    "speed": lambda shape: Case(4, 32) if shape.hidden > 64 else Case(2, 6),
}


def exact_cases(repeats: int, quick: bool) -> list[Case]:
    sizes = [(1, 6), (3, 6)] if quick else [(batch, length) for length in (16, 32) for batch in (1, 2, 4, 8)]
    return [Case(batch, length, seed=seed) for batch, length in sizes for seed in range(repeats)]


def curve_cases(quick: bool) -> list[Case]:
    sizes = [(6, 6), (16, 6)] if quick else [
        *((batch, 8) for batch in (16, 32, 64, 128)), *((batch, 16) for batch in (16, 32, 64)),
        *((batch, 32) for batch in (16, 20, 32)),
    ]  # fmt: skip
    return [Case(batch, length) for batch, length in sizes]


def noise_cases(quick: bool) -> list[Case]:
    base = Case(2, 6) if quick else Case(4, 16)
    return [replace(base, noise=noise) for noise in (1e-6, 1e-5, 1e-4, 1e-3)]


def against(reference: Reference, case: Case, shape: Shape, turns: int) -> dict[str, Any]:
    """Return times and exact sequences of both on the same gradients, turn by turn."""
    rows: list[dict[str, Any]] = []
    for seed in range(turns):
        own = replace(case, seed=seed)
        model, update, tokens = batch_of(own, shape)
        sides: dict[str, Callable[[], tuple[float, float, float | None]]] = {
            "ours": lambda: _ours(own, model, update, tokens, shape),  # noqa: B023
            "theirs": lambda: reference.run(model, update, tokens),  # noqa: B023
        }
        measured = {name: sides[name]() for name in (sides if seed % 2 == 0 else reversed(list(sides)))}
        print(case, measured, file=sys.stderr, flush=True)
        rows.append(
            {name: dict(zip(("seconds", "busy", "exact"), value, strict=True)) for name, value in measured.items()}
        )
    return {"case": asdict(case), "turns": rows}


def _ours(
    case: Case, model: Any, update: dict[str, Tensor], tokens: Tensor, shape: Shape
) -> tuple[float, float, float | None]:
    found = attacked(case, model, update, tokens, shape)
    return found.seconds, found.busy, found.exact


def row_of(found: Outcome) -> list[str]:
    case = found.case
    size = [str(case.batch), str(case.length), f"{case.noise:g}" if case.noise else "none"]
    if found.exact is None:
        return [*size, "not applicable: " + found.said, "", "", f"{found.seconds:.1f} ({found.busy:.1f})"]
    return [
        *size,
        f"{found.exact:.3f}",
        f"{found.tokens:.3f}",
        str(found.claimed),
        f"{found.seconds:.1f} ({found.busy:.1f})",
    ]


HEAD = (
    "sequences",
    "tokens each",
    "noise",
    "exact sequences",
    "unique tokens among as many best",
    "named",
    "seconds (of processors)",
)


def cell_of(side: str, turns: Sequence[dict[str, Any]]) -> str:
    """Return one side's seconds and exact sequences."""
    seconds = spread([turn[side]["seconds"] for turn in turns])
    exact = [turn[side]["exact"] for turn in turns]
    return f"{seconds.text(' s', 1)}{busy([turn[side]['busy'] for turn in turns])}; exact {np.mean(exact):.3f}"


def main() -> None:
    if "--peak" in sys.argv:
        print(json.dumps(peak(QUICK if int(sys.argv[sys.argv.index("--small") + 1]) else Shape())))
        return
    chosen = arguments(__doc__ or "", repeats=3)
    at, shape, quick = machine(), QUICK if chosen.quick else Shape(), bool(chosen.quick)
    exact = [outcome(case, shape) for case in exact_cases(chosen.repeats, quick)]
    checked = [span_checks(shape, torch.get_num_threads()) for _ in range(chosen.repeats)]
    speed = [outcome(replace(CASES["speed"](shape), seed=seed), shape) for seed in range(chosen.repeats)]
    memory = in_child(__file__, "--peak", small=int(quick))
    noise, curve = ([outcome(case, shape) for case in cases(quick)] for cases in (noise_cases, curve_cases))
    folder = os.environ.get("PPLR_AUDIT_DAGER")
    beside = []
    if folder:
        reference = Reference(Path(folder))
        sizes = [CASES["speed"](shape)] + ([] if quick else [Case(16, 16), Case(32, 16)])
        beside = [against(reference, case, shape, chosen.repeats if case.batch < 16 else 1) for case in sizes]
    report(exact, checked, speed, memory, [*noise, *curve], beside, at, chosen.results)


def busy(seconds: Sequence[float]) -> str:
    """Return the seconds of processors in words."""
    return f"; processors {spread(seconds).text(' s', 1)}"


def report(
    exact: Sequence[Outcome], checked: Sequence[dict[str, float]], speed: Sequence[Outcome], memory: dict[str, Any],
    rows: Sequence[Outcome], beside: Sequence[dict[str, Any]], at: dict[str, Any], into: Path | None,
) -> None:  # fmt: skip
    """Write the tables."""
    right = sum((each.exact or 0.0) * each.case.batch for each in exact) / sum(each.case.batch for each in exact)
    check = spread([each["check"] for each in checked])
    seconds, size = spread([each.seconds for each in speed]), speed[0].case
    checking = check.text(" s", 2) + busy([each["busy"] for each in checked])
    reading = seconds.text(" s", 1) + busy([each.busy for each in speed])
    goals = [
        [f"exact sequences of B = 1 to 8, 16 and 32 tokens, {len(exact)} batches", f"{right:.4f}",
         f"≥ {EXACT}: {'met' if right >= EXACT else 'not met'}"],
        [f"all words against the spans of {checked[0]['modules']} modules", checking,
         goal_text(check.median, CHECK_SECONDS)],
        ["… and to find the spans (singular values)", spread([each["spans"] for each in checked]).text(" s", 2), ""],
        [f"B = {size.batch}, {size.length} tokens, from gradients to sequences", reading,
         goal_text(seconds.median, READ_SECONDS)],
        ["… peak memory of a process, model and gradients included", f"{memory['gigabytes']:.2f} GB",
         goal_text(memory["gigabytes"], GIGABYTES)],
    ]  # fmt: skip
    for each in beside:
        turns, case = each["turns"], each["case"]
        times = spread([turn["theirs"]["seconds"] / turn["ours"]["seconds"] for turn in turns])
        name = f"B = {case['batch']}, {case['length']} tokens, beside the authors' code"
        both = f"{cell_of('ours', turns)}; theirs {cell_of('theirs', turns)}"
        met = f"≥ {TIMES:g}×: {'met' if times.median >= TIMES else 'not met'}" if case["batch"] == size.batch else ""
        goals.append([name, f"{both}; {times.text('×', 1)}", met])
    text = (
        "A decoder of GPT-2-small's shape (12 blocks, 768 wide, 50,257 words) with random weights; texts of random"
        " words, all equally likely; loss of a classifier with random labels, so that every token has a gradient. Read"
        " are the gradients of the attention's first weights. The longest length is known. With as many distinct inputs"
        " (a word at a place) as the model is wide no sequence is exact: 96 sequences of 8 tokens, 48 of 16, 24 of"
        " 32. No tolerance was set for any row.\n\n"
        + table(["what", "found", "goal"], goals) + "\n\n## By size and noise\n\n"
        + "Noise is Gaussian, its deviation is that of each number of the gradient.\n\n"
        + table(HEAD, map(row_of, rows))
    )  # fmt: skip
    if not beside:
        text += "\n\nThe authors' code was not run beside this (PPLR_AUDIT_DAGER names its folder)."
    figures = {"exact": exact, "checks": checked, "speed": speed, "memory": memory, "rows": rows, "beside": beside}
    write("dager", "DAGER on full-weight gradients", text, _plain(figures), at, into)


def _plain(figures: dict[str, Any]) -> dict[str, Any]:
    """Return figures as JSON has them."""
    return {
        name: [asdict(each) if isinstance(each, Outcome) else each for each in value]
        if isinstance(value, list)
        else value
        for name, value in figures.items()
    }


if __name__ == "__main__":
    main()
