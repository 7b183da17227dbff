"""Ridge inversion of all layers of a wide model beside the deepest alone: one pass of the front serves every layer.

The attack itself is run, `Ridge.run`, on a model of 12 blocks with hidden size 768 over 100,000 positions of auxiliary
prompts: the forward pass, the sums (streamed, so that memory does not grow with the positions), the choice of lambda in
every layer and the reading of one record. Weights are drawn at random: what it costs does not depend on what they know.
The peak is that of a process of its own in which, besides, as many positions of victims cross at every front, are kept
as in an audit, and are all read.
"""

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import llama
import numpy as np
import torch
from measuring import arguments, goal, goal_text, interleaved, machine, ratios, spread, table, write

from pplr_audit.attacks.activation.ridge import Ridge
from pplr_audit.audit.knowledge.known_model import KnownModel
from pplr_audit.audit.replay.records import serving_records
from pplr_audit.audit.replay.spool import Spool
from pplr_audit.audit.tap_points import Trace
from pplr_audit.data.load import load
from pplr_audit.models.build import Recommender, build
from pplr_audit.scenario.schema import Cut, Data, Market, Model
from pplr_audit.threat_model.attack import Budget
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.view import Record, View

RATIO_AT_MOST, BYTES_AT_MOST = 1.5, 4e9
HISTORY = 10


@dataclass(frozen=True)
class Size:
    layers: int
    hidden: int
    positions: int
    """Positions of auxiliary prompts to fit on, at least."""


FULL, QUICK = Size(12, 768, 100_000), Size(3, 64, 4_000)


def prepared(folder: Path, size: Size) -> Recommender:
    """The recommender on a model of that size, over the synthetic market's titles."""
    catalogue = load(Data(market=Market(users=600, items=400, tastes=5)), 0).catalogue
    if not folder.exists():
        llama.save(folder, catalogue, layers=size.layers, hidden=size.hidden)
    return build(Model(backbone=str(folder), cut=Cut(front=1, back=1)), catalogue, history=HISTORY, seed=0)


def prompts_for(model: Recommender, positions: int) -> tuple[int, int]:
    """How many auxiliary prompts have so many positions, drawn as the attack draws them; and how many those are."""
    generator, total, count = np.random.default_rng(0), 0, 0
    while total < positions:
        items = generator.integers(len(model.prompts.titles), size=HISTORY + 1)
        total += len(model.prompts.build(items[:-1], int(items[-1])))
        count += 1
    return count, total


def side(model: Recommender, layers: tuple[int, ...], prompts: int) -> Callable[[], float]:
    """Answers the seconds of an attack that nothing was fitted for before, at the deepest of ``layers``."""
    deepest = max(layers)
    victim = model.prompts.build(np.arange(HISTORY), HISTORY)
    ((_, states),) = model.whole.states([victim], [deepest], None)
    record = Record(0, "client-0", 1, 0, states[deepest])
    view = View("trunk_host", Channel.FRONT_ACTIVATIONS, deepest, None, "none", (record,))

    def once() -> float:
        known = KnownModel(model.whole, None)
        knowledge = Knowledge(
            "base", model.prompts, model.whole.embeddings, known, {}, layers, HISTORY, max(layers) + 1
        )
        started = time.perf_counter()
        guess = Ridge(prompts=prompts).run(view, knowledge, Budget(3600))
        spent = time.perf_counter() - started
        if len(guess.arrays["tokens"]) != len(victim):
            raise SystemExit("the attack did not answer every position")
        return spent

    return once


def peak_of_all(folder: Path, size: Size, quick: bool) -> int:
    """Peak memory in bytes of a process that builds the model, records the victims, and attacks at all layers."""
    call = [sys.executable, __file__, "--peak", str(folder), *(["--quick"] if quick else [])]
    return int(subprocess.run(call, check=True, capture_output=True, text=True).stdout)


def peak(folder: Path, size: Size) -> None:
    model, layers = prepared(folder, size), tuple(range(size.layers))
    count, _ = prompts_for(model, size.positions)
    generator = np.random.default_rng(1)
    victims = [model.prompts.random(HISTORY, generator) for _ in range(count)]
    base: Any = SimpleNamespace(round=1, served=lambda client: None)
    knowledge = Knowledge(
        "base", model.prompts, model.whole.embeddings, KnownModel(model.whole, None), {}, layers, HISTORY, size.layers
    )
    spool, attack = Spool(folder.parent), Ridge(prompts=count)
    serving_records(model.whole, base, {"client-0": list(enumerate(victims))}, layers, spool.put)
    for layer in layers:
        records = tuple(spool.records(Trace("activation", layer)))
        view = View("trunk_host", Channel.INFERENCE_ACTIVATIONS, layer, None, "none", records)
        guess = attack.run(view, knowledge, Budget(3600))
        if len(guess.arrays["tokens"]) != sum(map(len, victims)):
            raise SystemExit("the attack did not answer every position")
        del records, view, guess
    unit = 1 if sys.platform == "darwin" else 1024
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def main() -> None:
    if "--peak" in sys.argv:
        peak(Path(sys.argv[sys.argv.index("--peak") + 1]), QUICK if "--quick" in sys.argv else FULL)
        return
    chosen = arguments(__doc__ or "", repeats=3)
    at, size = machine(), QUICK if chosen.quick else FULL
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "llama"
        model = prepared(folder, size)
        prompts, positions = prompts_for(model, size.positions)
        layers = {"all layers": tuple(range(size.layers)), "the deepest alone": (size.layers - 1,)}
        sides = {name: side(model, which, prompts) for name, which in layers.items()}
        spent = interleaved(sides, chosen.repeats, warm_up=1 if chosen.quick else 0)
        most = peak_of_all(folder, size, chosen.quick)
    over = spread(ratios(spent["all layers"], spent["the deepest alone"]))
    figures: dict[str, Any] = {
        "layers": size.layers, "hidden": size.hidden, "positions": positions, "prompts": prompts,
        "seconds": {name: spread(each) for name, each in spent.items()},
        "ratio": {"over_turns": over, "goal": goal(over.median, RATIO_AT_MOST)},
        "peak_bytes": goal(most, BYTES_AT_MOST),
    }  # fmt: skip
    rows = [
        *([name, spread(each).text(" s", digits=2), ""] for name, each in spent.items()),
        ["all layers / the deepest alone", over.text(digits=2), goal_text(over.median, RATIO_AT_MOST)],
        [
            "peak memory, as many positions recorded and read besides",
            f"{most / 1e9:.2f} GB",
            goal_text(most / 1e9, BYTES_AT_MOST / 1e9),
        ],
    ]
    text = (
        f"{size.layers} blocks of hidden size {size.hidden}, {positions:,} positions in {prompts} prompts;"
        f" {torch.get_num_threads()} threads.\n\n" + table(["what", "median (least–most)", "goal"], rows)
    )
    write("ridge_layers", "Ridge inversion of all layers against the deepest", text, figures, at, chosen.results)


if __name__ == "__main__":
    main()
