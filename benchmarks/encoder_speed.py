"""How near an encoder comes to the machine's own peak: encoding items, a training step of RecFormer, and padding.

The peak is the best float32 matrix product of the same turn, over shapes that the model uses and a large square. Work
is what torch counts: matrix products and attention, padded positions included; the share of padding stands beside it.
The model is MiniLM where its package is installed, else a BERT of that shape with random weights; the texts are the
titles of amazon-beauty where the folder PPLR_AUDIT_DATA (or shared/data beside the checkout) holds it, else synthetic.
Padding is told for all users at one client and, as `padding.py` has it, for five clients with few samples.
"""

import copy
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import arguments, goal_text, interleaved, machine, ratios, spread, table, write
from padding import federated, rows, settings, share
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from pplr_audit import scenario
from pplr_audit.data.dataset import Catalogue, Dataset, Ragged
from pplr_audit.data.item_prompts import item_prompts
from pplr_audit.data.load import load
from pplr_audit.data.prompts import Prompt, Prompts
from pplr_audit.data.samples import training_samples
from pplr_audit.data.split import split
from pplr_audit.errors import InputError
from pplr_audit.models import minilm
from pplr_audit.models.backbone import Backbone, load_backbone, set_dropout
from pplr_audit.models.named import NAMED
from pplr_audit.models.recformer import POSITIONS, RecFormer, add_marks
from pplr_audit.models.task import padded
from pplr_audit.pplr.flops import counter
from pplr_audit.pplr.optimizer import LocalOptimizer, OptimizerState, Stretch
from pplr_audit.pplr.schedule import batches

ENCODING, STEP, PADDING = 0.7, 0.5, 0.1
DATA = Path(os.environ.get("PPLR_AUDIT_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
TRAINING = scenario.Training(batch_size=64)
SETTINGS = scenario.Recformer(train="all", attributes=("title",))
HISTORY, MAX_TOKENS = 5, 256
ITEMS = 400
"""That are encoded in one turn."""


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


def product(rows: int, inner: int, columns: int) -> Callable[[], float]:
    """Answers the GFLOP/s of a product of that shape over a second: as long as the others run, so that what slows the
    machine down for a while slows all of them."""
    left, right = torch.randn(rows, inner), torch.randn(inner, columns)

    def once() -> float:
        started, done, spent = time.perf_counter(), 0, 0.0
        while spent < 1:
            left @ right
            done, spent = done + 1, time.perf_counter() - started
        return 2e-9 * rows * inner * columns * done / spent

    return once


def timed(work: Callable[[], object]) -> Callable[[], float]:
    """Answers the GFLOP/s of ``work``, whose FLOP are counted once."""
    with counter() as count:
        work()
    flop = count.get_total_flops()

    def once() -> float:
        started = time.perf_counter()
        work()
        return 1e-9 * flop / (time.perf_counter() - started)

    return once


def step(model: Any, task: RecFormer, prompts: list[Prompt]) -> Callable[[], object]:
    """A local training step: forward, loss, backward, optimizer."""
    model.train().requires_grad_(True)
    optimizer = LocalOptimizer(dict(model.named_parameters()), TRAINING, Stretch(0, 100), OptimizerState())

    def once() -> None:
        task.loss(model, prompts, task.base_memory).backward()
        optimizer.step()

    return once


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
    model: Any = base.model
    add_marks(model, HISTORY)
    alone = [prompts.build(np.array([item])) for item in range(items)]
    task = RecFormer(model.eval(), prompts, SETTINGS, rounds=1)
    generator = np.random.default_rng(0)
    drawn = [prompts.build(generator.integers(items, size=HISTORY), int(generator.integers(items))) for _ in range(512)]
    # The middle of them by length: a batch as the schedule cuts them.
    size = 8 if chosen.quick else TRAINING.batch_size
    batch = sorted(drawn, key=len)[256 : 256 + size]
    plain, dropping = copy.deepcopy(model), copy.deepcopy(model)
    set_dropout(plain, 0.0)
    hidden, inner = model.config.hidden_size, model.config.intermediate_size
    positions = len(batch) * max(map(len, batch))
    shapes = [(POSITIONS, hidden, inner), (positions, hidden, inner), (positions, inner, hidden)]
    shapes += [] if chosen.quick else [(4096, 4096, 4096)]
    sides = {"x".join(map(str, shape)): product(*shape) for shape in shapes}
    products = list(sides)
    sides["encoding items"] = timed(lambda: task.encode(model, alone))
    sides["a training step, no dropout"] = timed(step(plain, task, batch))
    sides["a training step, its own dropout"] = timed(step(dropping, task, batch))
    found = interleaved(sides, chosen.repeats, warm_up=1)
    peak = [max(turn) for turn in zip(*(found[name] for name in products), strict=True)]
    least = {"encoding items": ENCODING, "a training step, no dropout": STEP}
    shares = {name: spread(ratios(found[name], peak)) for name in sides if name not in products}
    users = np.arange(len(data.users))
    pad = padding(everything, training_samples(split(data, scenario.Data().split), users, HISTORY, "last").history)
    few: dict[str, list[float]] = {}
    for name, seeds in settings(chosen.quick).items():
        few |= federated(name, seeds, base.tokenizer)
    lines = [
        ["the best product of a turn", spread(peak).text(" GFLOP/s", 0), ""],
        *([f"product {name}", spread(found[name]).text(" GFLOP/s", 0), ""] for name in products),
    ]
    for name, each in shares.items():
        lines.append([name, spread(found[name]).text(" GFLOP/s", 0), ""])
        wanted = at_least_text(each.median, least[name]) if name in least else ""
        lines.append([f"{name}, of the peak", each.text(digits=2), wanted])
    lines += [[f"padding in {name}", f"{value:.3f}", goal_text(value, PADDING)] for name, value in pad.items()]
    lines += rows(few)
    figures = {
        "gflop_per_second": found, "peak": peak, "share": shares, "padding": pad,
        "padding_few_samples": few,
        "goals": {name: at_least(shares[name].median, value) for name, value in least.items()},
    }  # fmt: skip
    text = (
        f"{base.name}; {items} items of {data.name} are encoded, a step has {len(batch)} histories of {HISTORY} in"
        f" {positions} positions; padding over {len(data.users):,} users and {len(catalogue):,} items.\n\n"
    )
    text += table(["what", "median (least–most)", "goal"], lines)
    write("encoder_speed", "An encoder against the machine's peak", text, figures, at, chosen.results)


if __name__ == "__main__":
    main()
