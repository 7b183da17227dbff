"""How near an encoder comes to the machine's own peak, encoding items and in training steps of RecFormer; and padding.

In float32 and, where the processor has it, bfloat16: the peak of a format is its best matrix product of the same turn,
over shapes that the model uses and a large square. Work is what torch counts: matrix products and attention, padded
positions included; the share of padding stands beside it. How many times as fast bfloat16 is, is told by the time of
the same work, beside what the products themselves gain. The model is MiniLM where its package is installed, else a BERT
of that shape with random weights; the texts are the titles of amazon-beauty where the folder PPLR_AUDIT_DATA (or
shared/data beside the checkout) holds it, else synthetic. Padding is told for all users at one client and, as
`padding.py` has it, for five clients with few samples.
"""

import copy
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import Spread, arguments, goal_text, interleaved, machine, ratios, spread, table, write
from padding import federated, rows, settings, share
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from pplr_audit import scenario
from pplr_audit.data.dataset import Catalogue, Dataset, Ragged
from pplr_audit.data.load import load
from pplr_audit.data.prompts import Prompt, Prompts
from pplr_audit.data.recformer_prompts import item_prompts
from pplr_audit.data.samples import training_samples
from pplr_audit.data.split import split
from pplr_audit.errors import InputError
from pplr_audit.models.backbones import minilm
from pplr_audit.models.backbones.known_shapes import NAMED
from pplr_audit.models.backbones.load import Backbone, load_backbone, set_dropout
from pplr_audit.models.precision import Precision, choose_attention, compute_in, in_hardware
from pplr_audit.models.recommenders.recformer import POSITIONS, RecFormer
from pplr_audit.models.recommenders.task import padded
from pplr_audit.models.trainable import make_trainable
from pplr_audit.training.costs.flops import counter
from pplr_audit.training.optimizer import LocalOptimizer, OptimizerState, Stretch
from pplr_audit.training.schedule import batches

ENCODING, STEP, FASTER, PADDING = 0.7, 0.5, 2.5, 0.1
PLAIN, DROPPING, LORA = "a training step, no dropout", "a training step, its own dropout", "a LoRA step, no dropout"
STEPS = (PLAIN, DROPPING, LORA)
ENCODED = "encoding items"
GOALS = {ENCODED: ENCODING, PLAIN: STEP, LORA: STEP}
DATA = Path(os.environ.get("PPLR_AUDIT_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
TRAINING = scenario.Training(batch_size=64)
MODELS: dict[str, scenario.Model] = {
    what: scenario.Model(
        backbone="minilm", recommender="recformer",
        recformer=scenario.Recformer(train="lora" if what == LORA else "all", attributes=("title",)),
    )
    for what in STEPS
}  # fmt: skip
HISTORY, MAX_TOKENS = 5, 256
ITEMS = 400
"""That are encoded in one turn."""
Side = tuple[str, str]


def dataset() -> Dataset:
    beauty = DATA / "amazon-beauty"
    if beauty.is_dir():
        return load(scenario.Data(path=str(beauty)), 0)
    return load(scenario.Data(market=scenario.Market(users=20_000, items=ITEMS, tastes=5)), 0)


def backbone(catalogue: Catalogue, folder: Path) -> Backbone:
    try:
        minilm.folder()
    except InputError:
        words = sorted({word for title in catalogue.titles for word in title.split()} | {"title"})
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
        inner = Tokenizer(
            models.WordLevel({w: place for place, w in enumerate(dict.fromkeys(special + words))}, "[UNK]")
        )
        inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        pad, unknown, start, end = special
        PreTrainedTokenizerFast(
            tokenizer_object=inner, pad_token=pad, unk_token=unknown, cls_token=start, sep_token=end
        ).save_pretrained(folder)  # fmt: skip
        BertModel(BertConfig(**NAMED["minilm"].config)).save_pretrained(folder)
        return load_backbone(str(folder), catalogue, seed=0)
    return load_backbone("minilm", catalogue, seed=0)


def product(rows: int, inner: int, columns: int, precision: Precision) -> Callable[[], float]:
    """Answers the GFLOP/s of a product of that shape over a second: as long as the others run, so that what slows the
    machine down for a while slows all of them."""
    kind = getattr(torch, precision)
    left, right = torch.randn(rows, inner, dtype=kind), torch.randn(columns, inner, dtype=kind)

    def once() -> float:
        started, done, spent = time.perf_counter(), 0, 0.0
        while spent < 1:
            torch.nn.functional.linear(left, right)
            done, spent = done + 1, time.perf_counter() - started
        return 2e-9 * rows * inner * columns * done / spent

    return once


def timed(work: Callable[[], object]) -> Callable[[], float]:
    """Answers the seconds of ``work``."""

    def once() -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    return once


def gflop(work: Callable[[], object]) -> float:
    """Of ``work``, done once."""
    with counter() as count:
        work()
    return 1e-9 * count.get_total_flops()


def step(model: Any, task: RecFormer, prompts: list[Prompt]) -> Callable[[], object]:
    """A local training step: forward, loss, backward, optimizer."""
    trained = {name: value for name, value in model.train().named_parameters() if value.requires_grad}
    optimizer = LocalOptimizer(trained, TRAINING, Stretch(0, 100), OptimizerState())

    def once() -> None:
        task.loss(model, prompts, task.base_encoding).backward()
        optimizer.step()

    return once


def works(
    base: Backbone, items: Prompts, alone: list[Prompt], batch: list[Prompt], precision: Precision
) -> dict[str, Callable[[], object]]:
    """What is timed in a number format: encoding ``alone``, and steps over ``batch``."""
    found: dict[str, Callable[[], object]] = {}
    for what, chosen in MODELS.items():
        model: Any = copy.deepcopy(base.model)
        if what != DROPPING:
            set_dropout(model, 0.0)
        choose_attention(model, precision)
        make_trainable(model, chosen, history=HISTORY, items=ITEMS, seed=0)
        compute_in(model, precision)
        task = RecFormer(model.eval(), items, chosen.recformer, rounds=1)
        if what == PLAIN:
            found[ENCODED] = partial(task.encode, model, alone)
        found[what] = step(model, task, batch)
    return found


def padding(prompts: Prompts, histories: Ragged) -> dict[str, float]:
    """Share of padding among the positions of a training epoch, of encoding histories, and of encoding items."""
    lengths = prompts.lengths(histories)
    plan = batches(lengths, TRAINING, seed=0, client="client-0", round_=1)
    items = prompts.lengths(Ragged(np.arange(len(prompts.titles) + 1), np.arange(len(prompts.titles))))
    return {
        "a training epoch": share(lengths, plan),
        "encoding histories": 1 - int(lengths.sum()) / padded(lengths, POSITIONS),
        "encoding items": 1 - int(items.sum()) / padded(items, POSITIONS),
    }


def at_least(value: float, least: float) -> dict[str, Any]:
    return {"value": value, "at_least": least, "met": value >= least}


def at_least_text(value: float, least: float) -> str:
    return f"≥ {least:g}: {'met' if value >= least else 'not met'}"


@dataclass(frozen=True)
class Speeds:
    """What was measured; a side is a format and what is done in it."""

    found: Mapping[Side, list[float]]
    """Seconds of work, GFLOP/s of products, a value a turn."""
    work: Mapping[Side, float]
    """GFLOP of each side that is work."""

    @property
    def formats(self) -> list[str]:
        return list(dict.fromkeys(precision for precision, _ in self.found))

    @property
    def reached(self) -> dict[Side, list[float]]:
        """GFLOP/s."""
        return {s: [self.work[s] / t for t in took] if s in self.work else took for s, took in self.found.items()}

    @property
    def peak(self) -> dict[str, list[float]]:
        """The best product of each turn, by format."""
        products = {
            p: [took for s, took in self.found.items() if s[0] == p and s not in self.work] for p in self.formats
        }
        return {p: [max(turn) for turn in zip(*each, strict=True)] for p, each in products.items()}

    @property
    def shares(self) -> dict[Side, Spread]:
        """Each work's share of its format's peak."""
        return {side: spread(ratios(self.reached[side], self.peak[side[0]])) for side in self.work}

    @property
    def faster(self) -> dict[str, Spread]:
        """How many times as fast each work is in bfloat16."""
        both = (ENCODED, *STEPS) if len(self.formats) > 1 else ()
        return {what: spread(ratios(self.found["float32", what], self.found["bfloat16", what])) for what in both}

    @property
    def gain(self) -> Spread | None:
        """How many times as fast the best product is in bfloat16."""
        return spread(ratios(self.peak["bfloat16"], self.peak["float32"])) if len(self.formats) > 1 else None


def middle_batch(prompts: Prompts, items: int, size: int) -> list[Prompt]:
    """A batch as the schedule cuts them: the middle by length of 512 random histories."""
    generator = np.random.default_rng(0)
    drawn = [prompts.build(generator.integers(items, size=HISTORY), int(generator.integers(items))) for _ in range(512)]
    return sorted(drawn, key=len)[256 : 256 + size]


def measured(base: Backbone, prompts: Prompts, items: int, batch: list[Prompt], *, quick: bool, repeats: int) -> Speeds:
    alone = [prompts.build(np.array([item])) for item in range(items)]
    positions = len(batch) * max(map(len, batch))
    hidden, inner = base.model.config.hidden_size, base.model.config.intermediate_size
    shapes = [(POSITIONS, hidden, inner), (positions, hidden, inner), (positions, inner, hidden)]
    shapes += [] if quick else [(4096, 4096, 4096)]
    formats: list[Precision] = ["float32", *(["bfloat16"] * in_hardware())]  # type: ignore[list-item]
    sides: dict[Side, Callable[[], float]] = {}
    work: dict[Side, float] = {}
    for precision in formats:
        for shape in shapes:
            sides[precision, "product " + "x".join(map(str, shape))] = product(*shape, precision)
        for what, does in works(base, prompts, alone, batch, precision).items():
            work[precision, what] = gflop(does)
            sides[precision, what] = timed(does)
    return Speeds(interleaved(sides, repeats, warm_up=1), work)


def speed_lines(speeds: Speeds) -> list[list[str]]:
    lines: list[list[str]] = []
    reached, peak, shares = speeds.reached, speeds.peak, speeds.shares
    for precision in speeds.formats:
        lines.append([f"{precision}: the best product of a turn", spread(peak[precision]).text(" GFLOP/s", 0), ""])
        for side in (each for each in reached if each[0] == precision):
            lines.append([f"{precision}: {side[1]}", spread(reached[side]).text(" GFLOP/s", 0), ""])
            if side in shares:
                wanted = at_least_text(shares[side].median, GOALS[side[1]]) if side[1] in GOALS else ""
                lines.append([f"{precision}: {side[1]}, of the peak", shares[side].text(digits=2), wanted])
    if speeds.gain is not None:
        lines.append(["bfloat16 / float32: the best product", speeds.gain.text(digits=2), ""])
    for what, each in speeds.faster.items():
        wanted = at_least_text(each.median, FASTER) if what in STEPS else ""
        lines.append([f"bfloat16 / float32: {what}", each.text(digits=2), wanted])
    return lines


def speed_figures(speeds: Speeds) -> dict[str, Any]:
    shares, faster = speeds.shares, speeds.faster
    met = {" ".join(side): at_least(each.median, GOALS[side[1]]) for side, each in shares.items() if side[1] in GOALS}
    return {
        "gflop_per_second": {" ".join(side): each for side, each in speeds.reached.items()}, "peak": speeds.peak,
        "share": {" ".join(side): each for side, each in shares.items()}, "bfloat16_in_float32": faster,
        "product_gain": speeds.gain,
        "goals": met | {f"bfloat16 {what}": at_least(faster[what].median, FASTER) for what in STEPS if what in faster},
    }  # fmt: skip


def main() -> None:
    chosen = arguments(__doc__ or "", repeats=7)
    at, data, items = machine(), dataset(), 40 if chosen.quick else ITEMS
    catalogue = data.catalogue
    some = Catalogue(catalogue.ids[:items], catalogue.titles[:items], catalogue.categories[:items])
    with tempfile.TemporaryDirectory() as name:
        base = backbone(catalogue, Path(name))
    everything, prompts = (
        item_prompts(base.tokenizer, texts, attributes=("title",), max_tokens=MAX_TOKENS, history=HISTORY)
        for texts in (catalogue, some)
    )
    batch = middle_batch(prompts, items, 8 if chosen.quick else TRAINING.batch_size)
    speeds = measured(base, prompts, items, batch, quick=chosen.quick, repeats=chosen.repeats)
    users = np.arange(len(data.users))
    pad = padding(everything, training_samples(split(data, scenario.Data().split), users, HISTORY, "last").history)
    few: dict[str, list[float]] = {}
    for name, seeds in settings(chosen.quick).items():
        few |= federated(name, seeds, base.tokenizer)
    lines = speed_lines(speeds)
    lines += [[f"padding in {name}", f"{value:.3f}", goal_text(value, PADDING)] for name, value in pad.items()]
    lines += rows(few)
    figures = {**speed_figures(speeds), "padding": pad, "padding_few_samples": few}
    text = (
        f"Model: {base.name}. {items} items of {data.name} are encoded. A training step has {len(batch)} histories of"
        f" {HISTORY} items in {len(batch) * max(map(len, batch))} positions. Padding is measured over"
        f" {len(data.users):,} users and {len(catalogue):,} items. The peak is the best matrix product of a turn.\n\n"
    )
    text += table(["what", "median (least–most)", "goal"], lines)
    write("encoder_speed", "An encoder against the machine's peak", text, figures, at, chosen.results)


if __name__ == "__main__":
    main()
