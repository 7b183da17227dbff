"""What `lora_span` reads of LoRA updates, by rank, layers, steps, optimizer, dropout, batch and clients, one at a time.

Two recommenders: BIGRec on a random Llama, 768 wide, with titles of made-up words (33 to 40 different tokens a client),
and RecFormer on MiniLM with the synthetic market or, with `--data`, real data. Both begin as after four public steps.
Beside `lora_span` stands a plain span ranking: each token by the share of its input that lies in the span of the rows,
at its best place, and each item by the mean of its tokens. Both are given the same candidates: all titles.

`recall@b`: share of a client's b different title tokens among the b that are ranked best. `item_hit@n`: share of its n
items among the n that are ranked best (`item_hit@10` for MiniLM with ten items). A mean of several clients has all of
their tokens and items.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from llama import save
from measuring import RESULTS, machine, table, write

from pplr_audit import scenario
from pplr_audit.attacks.update.candidates import TitleInputs
from pplr_audit.attacks.update.directions import directions
from pplr_audit.attacks.update.lora_span import LoraSpan
from pplr_audit.audit.knowledge.known_model import KnownModel
from pplr_audit.data.dataset import Catalogue
from pplr_audit.data.prepare import prepare
from pplr_audit.data.prompts import Prompt, Prompts
from pplr_audit.errors import InputError
from pplr_audit.models.build import Recommender, build
from pplr_audit.scenario import Scenario
from pplr_audit.threat_model import Aggregate, Budget, Channel, Knowledge, LocalSteps, NotApplicable, Recipe, View

TOKENS = (33, 40)
"""Different title tokens of a client of the Llama."""
LAYERS: Mapping[str, Mapping[str, Any]] = {
    "llama": {"q, v": ["q_proj", "v_proj"], "q, k, v": ["q_proj", "k_proj", "v_proj"], "all": "all"},
    "minilm": {"q, v": ["query", "value"], "q, k, v": ["query", "key", "value"], "all": "all"},
}
NAMES = {"llama": "a random Llama", "minilm": "MiniLM"}
TITLES = {"llama": "BIGRec on a random Llama, 768 wide", "minilm": "RecFormer on MiniLM, 384 wide"}
RATES = {"llama": {"sgd": 0.1, "adamw": 1e-4}, "minilm": {"sgd": 0.01, "adamw": 1e-4}}
"""Learning rates. At .1 the marks of RecFormer's items move so far in one step that the next ones see other inputs."""
HISTORY = {"llama": 7, "minilm": 10}
WARM = Recipe("pplr", 1, 1, 16, "adamw", 1e-3, 0.0, "constant", 0.0, "factors")


@dataclass(frozen=True)
class Point:
    """One setting of local training; as it is, the one that others differ from."""

    model: str
    rank: int = 8
    layers: str = "q, k, v"
    optimizer: str = "sgd"
    steps: int = 1
    dropout: float = 0.0
    batch: int = 1
    clients: int = 1

    @property
    def label(self) -> str:
        """Settings in which it differs from the usual one."""
        usual = Point(self.model)
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        return ", ".join(f"{n} {v}" for n, v in own.items() if v != getattr(usual, n)) or "as above"


def points(model: str, quick: bool) -> list[Point]:
    """Return the settings, one after the other changed, and several steps of AdamW at rank 16."""
    base = Point(model)
    if quick:
        return [base, replace(base, optimizer="adamw", steps=2), replace(base, clients=2)]
    return [
        base,
        *(replace(base, rank=rank) for rank in (4, 16, 64)),
        *(replace(base, layers=layers) for layers in ("q, v", "all")),
        *(replace(base, steps=steps) for steps in (5, 20)),
        *(replace(base, optimizer="adamw", steps=steps) for steps in (1, 5, 20)),
        replace(base, optimizer="adamw", steps=5, rank=16),
        replace(base, dropout=0.1),
        *(replace(base, batch=batch) for batch in (4, 16)),
        *(replace(base, clients=clients) for clients in (2, 4)),
    ]


@dataclass(frozen=True)
class World:
    """A recommender after some public steps, and the prompts of clients."""

    model: Recommender
    known: KnownModel
    prompts: Sequence[Prompt]


def made_up(items: int) -> Catalogue:
    """Return a catalogue whose titles are of three words without meaning."""
    drawn = np.random.default_rng(0)
    words = [
        "".join(drawn.choice([*"bdfgklmnprstvz"]) + drawn.choice([*"aeiou"]) for _ in range(3)) for _ in range(900)
    ]
    titles = tuple(" ".join(drawn.choice(words, 3, replace=False)) for _ in range(items))
    return Catalogue(tuple(map(str, range(items))), titles, ("",) * items)


def llama(point: Point, quick: bool, folder: Path) -> tuple[Recommender, Iterator[Prompt]]:
    catalogue, place = made_up(60 if quick else 1000), folder / "llama"
    if not place.exists():
        save(place, catalogue, layers=2, hidden=96 if quick else 768)
    settings = scenario.Model.model_validate({**_settings(point), "backbone": str(place), "recommender": "bigrec"})
    model = build(settings, catalogue, history=HISTORY["llama"], seed=0)
    drawn = np.random.default_rng(1)
    texts = (model.prompts.random(HISTORY["llama"] - 1, drawn) for _ in iter(int, 1))
    return model, (text for text in texts if quick or TOKENS[0] <= len(tokens_of([text], model.prompts)) <= TOKENS[1])


def minilm(point: Point, quick: bool, data: Path | None) -> tuple[Recommender, Iterator[Prompt]]:
    market = {"users": 60, "items": 60, "tastes": 3} if quick else {"users": 600, "items": 1000, "tastes": 5}
    asked = Scenario.model_validate({
        "data": {"history": 10, "audit_users": 40, **({"path": str(data)} if data else {"market": market})},
        "model": {**_settings(point), "backbone": "minilm", "recommender": "recformer"},
    })  # fmt: skip
    private = prepare(asked.data, 0)
    model = build(asked.model, private.dataset.catalogue, history=10, seed=0)
    texts = (
        model.prompts.build(own.history[row], int(own.targets[row]))
        for own in private.samples.values()
        for row in range(len(own))
    )
    return model, (text for text in texts if len(text.items) == 10)


def _settings(point: Point) -> dict[str, Any]:
    lora = {"rank": point.rank, "dropout": point.dropout, "targets": LAYERS[point.model][point.layers]}
    return {"lora": lora, "dropout": point.dropout, "precision": "float32"}


@cache
def world(point: Point, quick: bool, folder: Path, data: Path | None, count: int) -> World:
    """Return the world of a point, of which only what shapes the model may be other than usual."""
    model, texts = llama(point, quick, folder) if point.model == "llama" else minilm(point, quick, data)
    start, drawn = KnownModel(model.whole, None), np.random.default_rng(0)
    batches = [[model.prompts.random(HISTORY[point.model], drawn) for _ in range(16)] for _ in range(4)]
    moved = start.trained(batches, WARM, [1.0] * 4)
    known = KnownModel(model.whole, {name: value - moved[name] for name, value in start.adapter.items()})
    return World(model, known, [next(texts) for _ in range(count)])


@contextmanager
def dropping(model: Recommender) -> Iterator[None]:
    """Within the block, the model drops out what its settings say; else it never does."""
    model.whole.model.train()
    try:
        yield
    finally:
        model.whole.model.eval()


def held(texts: Sequence[Prompt]) -> set[int]:
    """Return the items that are in the texts; an answer that no text holds is left out."""
    return {int(item) for text in texts for item in (*text.items, *([text.target] if len(text) > text.answer else []))}


def tokens_of(texts: Sequence[Prompt], prompts: Prompts) -> set[int]:
    """Return the title tokens that are items' own."""
    return {int(t) for item in held(texts) for t in prompts.titles[item][prompts.content[item] > 0]}


def updates(point: Point, own: World, rows: int) -> tuple[list[list[Prompt]], View[Any], Knowledge]:
    """Train rows x clients, and return the texts of each row, what a server is sent of it, and what it knows."""
    each = point.batch
    names = [f"client-{number}" for number in range(rows * point.clients)]
    texts = {name: list(own.prompts[number * each :][:each]) for number, name in enumerate(names)}
    recipe = replace(
        WARM, optimizer=point.optimizer, learning_rate=RATES[point.model][point.optimizer], batch_size=each
    )
    with dropping(own.model), torch.random.fork_rng():
        torch.manual_seed(0)
        sent = {name: own.known.trained([texts[name]] * point.steps, recipe, [1.0] * point.steps) for name in names}
    records, truth = list[Aggregate](), list[list[Prompt]]()
    for row in range(rows):
        part = names[row * point.clients :][: point.clients]
        total = {name: torch.stack([sent[client][name] for client in part]).sum(0) for name in own.known.adapter}
        records.append(Aggregate(row, tuple(part), 1, total))
        truth.append([text for client in part for text in texts[client]])
    steps = {(name, 1): LocalSteps(each, (1.0,) * point.steps) for name in names}
    knowledge = Knowledge(
        "front", own.model.prompts, own.model.whole.embeddings, KnownModel(own.model.whole, None),
        {(name, 1): own.known for name in names}, (), HISTORY[point.model] - (point.model == "llama"),
        own.model.layers, clients=tuple(names), recipe=recipe, steps=steps,
    )  # fmt: skip
    return truth, View("server", Channel.AGGREGATE, own.model.layers, 0, "none", tuple(records)), knowledge


def plain(view: View[Any], own: World, knowledge: Knowledge) -> list[tuple[Int[np.ndarray, "items"], list[int]]]:
    """Return items and tokens of each row by the share of their inputs that lies in the span of the rows."""
    prompts, drawn = own.model.prompts, np.random.default_rng(0)
    usual = [prompts.random(knowledge.history, drawn) for _ in range(64)]
    found, made = [], dict[str, TitleInputs]()
    for seen in view.records:
        rows = directions(seen.tensors, own.known.linears, own.known.adapter)[0]
        first = made.setdefault(rows.shares, TitleInputs(own.known, rows.shares, prompts, usual))
        basis = torch.linalg.qr(rows.rows.T).Q.float()
        shares = np.concatenate([_shares(rows.placed(inputs), basis) for _, inputs in first.table()])
        by_item = np.array([shares[first.title(item)].mean() for item in range(len(prompts.titles))])
        ranked = [int(token) for token, mark in first.words[np.argsort(-shares)] if mark]
        found.append((np.argsort(-by_item), ranked))
    return found


def _shares(
    inputs: Float[torch.Tensor, "words places width"], basis: Float[torch.Tensor, "width rank"]
) -> Float[np.ndarray, "words"]:
    inside = (inputs @ basis).square().sum(-1) / inputs.square().sum(-1)
    return np.asarray(inside.amax(1).numpy())


def hit(ranked: Sequence[int], true: set[int]) -> float:
    return len(set([*dict.fromkeys(ranked)][: len(true)]) & true) / len(true)


def measured(point: Point, own: World, rows: int) -> dict[str, Any]:
    """Return recall of tokens and items by `lora_span` and by the plain ranking, for each row."""
    truth, view, knowledge = updates(point, own, rows)
    prompts, classes = own.model.prompts, own.model.prompts.title_classes()
    tokens = [tokens_of(texts, prompts) for texts in truth]
    items = [set(classes[[*held(texts)]].tolist()) for texts in truth]
    found: dict[str, Any] = {**asdict(point), "b": [len(each) for each in tokens], "n": [len(each) for each in items]}
    plainly = plain(view, own, knowledge)
    found["plain"] = {
        "recall": [hit(ranked, true) for (_, ranked), true in zip(plainly, tokens, strict=True)],
        "item_hit": [hit(classes[ranked].tolist(), true) for (ranked, _), true in zip(plainly, items, strict=True)],
    }
    started = time.process_time()
    try:
        guess = LoraSpan().run(view, knowledge, Budget(1e6))
    except NotApplicable as reason:
        return {**found, "not_applicable": str(reason)}
    arrays, own_hits = guess.arrays, {"recall": list[float](), "item_hit": list[float]()}
    for place, row in enumerate(arrays["rows"].tolist()):
        for name, ranked, true in (("recall", "token", tokens[row]), ("item_hit", "item", items[row])):
            start, stop = arrays[f"{ranked}_offsets"][place : place + 2]
            best = arrays[f"ranked_{ranked}s"][start:stop]
            own_hits[name].append(hit((classes[best] if ranked == "item" else best).tolist(), true))
    return {**found, "lora_span": own_hits, "facts": guess.facts, "busy": time.process_time() - started}


HEAD = (
    "what is other", "b", "recall@b, plain", "recall@b, `lora_span`", "n", "item_hit@n, plain",
    "item_hit@n, `lora_span`",
)  # fmt: skip


def line(row: Mapping[str, Any]) -> list[str]:
    """Return a row of the table of one model."""
    own, facts = row.get("lora_span"), Point(**{field.name: row[field.name] for field in fields(Point)}).label
    cells = [f"{np.mean(row['plain'][name]):.2f}" for name in ("recall", "item_hit")]
    ours = [f"{np.mean(own[name]):.2f}" for name in ("recall", "item_hit")] if own else ["not applicable"] * 2
    sizes = [str(min(each)) if min(each) == max(each) else f"{min(each)}–{max(each)}" for each in (row["b"], row["n"])]
    return [facts, sizes[0], cells[0], ours[0], sizes[1], cells[1], ours[1]]


def goals(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return the figures that have a goal, where they were measured."""
    llama, minilm = Point("llama"), Point("minilm")
    adamw = replace(llama, rank=16, optimizer="adamw", steps=5)
    asked = [
        (llama, "recall", "random Llama, one step of SGD: recall@b", "≥ 0.98", 0.98),
        (adamw, "recall", "random Llama, rank 16, five steps of AdamW: recall@b", "≥ 0.34", 0.34),
        (minilm, "recall", "MiniLM, one step of SGD: recall@b", "> 0.82", 0.82 + 1e-9),
        (minilm, "item_hit", "MiniLM, one step of SGD: item_hit@10", "", 0.0),
    ]  # fmt: skip
    found = []
    for point, name, said, wanted, least in asked:
        for row in rows:
            if all(row[key] == value for key, value in asdict(point).items()) and "lora_span" in row:
                value = float(np.mean(row["lora_span"][name]))
                met = f"{wanted}: {'met' if value >= least else 'not met'}" if wanted else ""
                found.append([said, f"{np.mean(row['plain'][name]):.2f}", f"{value:.2f}", met])
    return found


def report(model: str, rows: Sequence[Mapping[str, Any]], count: int) -> str:
    reasons = dict.fromkeys(row["not_applicable"] for row in rows if "not_applicable" in row)
    parts = [
        f"{TITLES[model]}. {count} clients (or means of clients) a row; each value is their mean. Usual: LoRA of rank 8"
        " on q, k, v, one step of SGD on one sample, no dropout, one client. `dropout` is that of LoRA and of the"
        f" backbone. Rates: {RATES[model]['sgd']:g} (sgd), {RATES[model]['adamw']:g} (adamw). Layers of the first block"
        " are read. b and n are the numbers of different title tokens and of items that are looked for.",
        table(["what", "plain", "`lora_span`", "goal"], goals(rows)),
        table(HEAD, map(line, rows)),
        *(f"Not applicable: {reason}." for reason in reasons),
    ]  # fmt: skip
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small form that shows that the script works")
    parser.add_argument("--model", choices=[*LAYERS], action="append", help="default: both")
    parser.add_argument("--clients", type=int, help="clients a row (default: 4)")
    parser.add_argument("--data", type=Path, help="real data for MiniLM (default: the synthetic market)")
    parser.add_argument("--results", type=Path, help="where to write (default: benchmarks/results; --quick: nowhere)")
    chosen = parser.parse_args()
    for model in chosen.model or LAYERS:
        try:
            measure(model, chosen)
        except InputError as missing:
            print(f"{model} was not measured: {missing}", file=sys.stderr)


def measure(model: str, chosen: argparse.Namespace) -> None:
    """Measure all settings of one model, and write its page."""
    at, rows, quick = machine(), list[dict[str, Any]](), chosen.quick
    count = chosen.clients or (2 if quick else 4)
    with tempfile.TemporaryDirectory() as folder:
        for point in points(model, quick):
            shape = replace(Point(model), rank=point.rank, layers=point.layers, dropout=point.dropout)
            own = world(shape, quick, Path(folder), chosen.data, count * (2 if quick else 16))
            rows.append(measured(point, own, count))
            print(rows[-1], file=sys.stderr, flush=True)
    into, title = chosen.results or (None if quick else RESULTS), f"`lora_span` on {NAMES[model]}"
    write(f"lora_span_{model}", title, report(model, rows, count), {"rows": rows}, at, into)


if __name__ == "__main__":
    main()
