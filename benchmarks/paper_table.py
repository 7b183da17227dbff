"""PPLR beside its rivals on real data: recommendations, balance between clients, and what more than noise is.

Every cell of the table is one strategy on one data set with one recommender and one seed: five clients by k-means,
1,024 training samples, five rounds, at most 2,000 test users. The cells of one seed are one run of pplr-audit with
rivals, so they share clients, samples, test users and the order of batches. It takes hours: runs are kept, a second
call goes on where the first stopped (``--minutes`` ends it early), and the page, written after each run, says which
cells have run. The item table of ``recformer`` is the base model's throughout (``refresh_rounds: 0``).
"""

import argparse
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from measuring import RESULTS, table

from pplr_audit import audit, plugins, scenario
from pplr_audit.errors import InputError, RunError

DATA = Path(os.environ.get("PPLR_AUDIT_DATA", Path(__file__).parents[2] / "shared" / "data"))
PAGE = Path(__file__).parents[1] / "docs" / "results.md"
RUNS = Path("runs") / "paper-table"
KEPT = RESULTS / "paper_table"
"""What has run stays in the repository, so that another machine goes on from there."""
SEEDS = (0, 1, 2)
RIVALS: tuple[Any, ...] = ("fedavg", "local", "centralised")
MORE: tuple[Any, ...] = (
    "fedprox", "ditto", {"pplr": {"ablate": ["similarity"]}}, {"pplr": {"ablate": ["speed"]}},
    {"pplr": {"ablate": ["heating"]}},
)  # fmt: skip
"""On one data set besides."""
METRICS = ("recall@10", "ndcg@10", "recall@20", "ndcg@20")
ENCODER = {
    "backbone": "minilm", "recommender": "recformer", "max_tokens": 256, "dropout": 0.0,
    "recformer": {"pooling": "mean", "refresh_rounds": 0, "attributes": ["title"]},
}  # fmt: skip
DECODER = {"backbone": "tiny-llama", "recommender": "bigrec", "beams": 4}


@dataclass(frozen=True)
class Group:
    """One data set and recommender: all strategies, all seeds."""

    name: str
    data: Mapping[str, Any]
    model: Mapping[str, Any]
    training: Mapping[str, Any]
    rivals: tuple[Any, ...] = RIVALS

    @property
    def slug(self) -> str:
        return self.name.replace(", ", "-")

    def scenario(self, seed: int) -> scenario.Scenario:
        values = {
            "name": f"{self.slug}-{seed}", "seed": seed, "data": self.data, "model": self.model,
            "training": {**self.training, "rivals": list(self.rivals)},
        }  # fmt: skip
        return scenario.from_text(json.dumps(values), self.name)

    @property
    def strategies(self) -> list[str]:
        entries = map(plugins.name_and_settings, self.rivals)
        return ["pplr", *(f"{n} without {', '.join(s['ablate'])}" if "ablate" in s else n for n, s in entries)]


def groups(quick: bool) -> list[Group]:
    if quick:
        market = {"clients": 3, "audit_users": 20, "market": {"users": 120, "items": 48, "tastes": 3}, "history": 4}
        small = {"rounds": 1, "learning_rate": 5e-3, "shots": 48}
        return [Group("synthetic, bigrec", market, {**DECODER, "beams": 1}, small, (*RIVALS, MORE[3]))]
    shared = {"clients": 5, "audit_users": 2, "test_users": 2000}
    sets = {
        "amazon-games": {"path": str(DATA / "amazon-games"), "split": "given", **shared},
        "ml-1m": {"path": str(DATA / "ml-1m"), "split": "leave_one_out", **shared},
    }

    def showing(items: int) -> dict[str, dict[str, Any]]:
        """A step's time grows with its tokens: the encoder is shown the newest four items, by their titles alone."""
        return {name: {**data, "history": items} for name, data in sets.items()}

    budget = {"rounds": 5, "shots": 1024, "batch_size": 16}
    # On amazon-games 5e-4 taught nothing; on ml-1m, centralised, 2e-3 did as well as training all weights at 1e-4.
    slow, fast = {**budget, "learning_rate": 2e-3}, {**budget, "learning_rate": 5e-3}
    few, many = showing(4), showing(10)
    return [
        Group("ml-1m, recformer", few["ml-1m"], ENCODER, slow, (*RIVALS, *MORE)),
        Group("amazon-games, recformer", few["amazon-games"], ENCODER, slow),
        Group("ml-1m, bigrec", many["ml-1m"], DECODER, fast),
        Group("amazon-games, bigrec", many["amazon-games"], DECODER, fast),
    ]


def slug(group: Group, seed: int) -> str:
    """The run of one seed; where the data lies does not matter."""
    chosen = group.scenario(seed)
    named = chosen.data.model_copy(update={"path": Path(chosen.data.path).name})
    return f"{group.slug}-{seed}-{scenario.digest(chosen.model_copy(update={'data': named}))[:8]}"


def documents(kept: Path, group: Group, seeds: Sequence[int]) -> dict[int, dict[str, Any]]:
    """What has run of a group, by seed."""
    paths = {seed: kept / f"{slug(group, seed)}.json" for seed in seeds}
    return {seed: json.loads(path.read_text(encoding="utf-8")) for seed, path in paths.items() if path.is_file()}


def run(root: Path, kept: Path, group: Group, seed: int) -> None:
    """Train and measure what is left of one run, and keep what the page is made of."""
    started = time.perf_counter()
    found = audit.train(group.scenario(seed), root / slug(group, seed)).document
    document = {part: found[part] for part in ("run", "utility", "balance", "differences")}
    document["wall_seconds"] = sum(found["run"]["seconds"].values())
    kept.mkdir(parents=True, exist_ok=True)
    (kept / f"{slug(group, seed)}.json").write_text(json.dumps(document) + "\n", encoding="utf-8")
    print(f"{group.name}, seed {seed}: {time.perf_counter() - started:.0f} s in this call", flush=True)


def values(docs: Mapping[int, Mapping[str, Any]], part: str, **wanted: str) -> list[dict[str, Any]]:
    """The row of each seed with these fields."""
    rows = ((row for row in doc[part] if all(row[k] == v for k, v in wanted.items())) for doc in docs.values())
    return [found for found in (next(each, None) for each in rows) if found is not None]


def over_seeds(rows: Sequence[Mapping[str, Any]], *, signed: bool = False) -> str:
    """Mean over seeds, and how far they are apart; of one seed its interval over users."""
    if not rows:
        return "–"
    figures = [row["value"] for row in rows]
    sign = "+" if signed else ""
    if len(figures) == 1:
        low, high = rows[0]["ci"]
        return f"{figures[0]:{sign}.4f} [{low:{sign}.4f}, {high:{sign}.4f}]"
    return f"{mean(figures):{sign}.4f} ± {stdev(figures):.4f}"


def section(group: Group, docs: Mapping[int, Mapping[str, Any]], seeds: Sequence[int]) -> Iterator[str]:
    yield f"## {group.name}\n"
    missing = [seed for seed in seeds if seed not in docs]
    if not docs:
        yield "No cell has run yet.\n"
        return
    some = next(iter(docs.values()))
    seconds = [doc["wall_seconds"] for doc in docs.values()]
    yield (
        f"Seeds that have run: {', '.join(map(str, docs))}"
        f"{'; not yet: ' + ', '.join(map(str, missing)) if missing else ''}. Wall time of a seed's run, all its"
        f" strategies together: {', '.join(f'{s / 60:.0f} min' for s in seconds)}."
        f" {len(some['run']['clients'])} clients, {some['run']['data']['items']:,} items. {ran_on(docs)}\n"
    )
    data = {name: value for name, value in group.data.items() if name != "path"}
    told = json.dumps({"data": data, "model": group.model, "training": group.training})
    yield f"Settings, where they are not the defaults: `{told}`.\n"
    strategies = [*group.strategies, "untrained", "popularity"]
    clients = list(dict.fromkeys(row["client"] for row in some["utility"]))
    rows = [
        [name, *(over_seeds(values(docs, "utility", strategy=name, client="all", metric=m)) for m in METRICS)]
        for name in strategies
    ]
    yield table(["strategy", *METRICS], rows) + "\n"
    own = [client for client in clients if client != "all"]
    rows = [
        [name, *(over_seeds(values(docs, "utility", strategy=name, client=c, metric="recall@10")) for c in own)]
        for name in strategies
    ]
    yield "Recall@10 at each client:\n"
    yield table(["strategy", *own], rows) + "\n"
    measures = ("standard_deviation", "worst_client", "jain")
    rows = [
        [name, *(over_seeds(values(docs, "balance", strategy=name, metric="recall@10", measure=m)) for m in measures)]
        for name in strategies
    ]
    yield "Balance between clients, of Recall@10:\n"
    yield table(["strategy", "standard deviation", "worst client", "Jain's index"], rows) + "\n"
    rows = []
    for rival in group.strategies[1:]:
        for metric in ("recall@10", "ndcg@10"):
            found = values(docs, "differences", against=rival, metric=metric, measure="mean", client="all")
            each = "; ".join(f"[{row['ci'][0]:+.4f}, {row['ci'][1]:+.4f}]" for row in found)
            rows.append([rival, metric, over_seeds(found, signed=True), each, verdict(found)])
    yield "PPLR less each rival, the same users in pairs:\n"
    yield table(["rival", "metric", "mean over seeds", "interval of each seed", "says"], rows) + "\n"


def ran_on(docs: Mapping[int, Mapping[str, Any]]) -> str:
    """The machines and days of the cells."""
    said = []
    for doc in docs.values():
        run, at = doc["run"], doc["run"]["hardware"]
        said.append(
            f"{at['cpu']}, {at['cores']} cores, {at['memory_bytes'] / 1e9:.0f} GB, torch {run['libraries']['torch']},"
            f" {run['created'][:10]}"
        )
    return "; ".join(dict.fromkeys(said)) + "."


def verdict(rows: Sequence[Mapping[str, Any]], more: str = "more", less: str = "less") -> str:
    """What all seeds together say: a difference only where every seed's interval leaves out 0 on the same side."""
    if not rows:
        return "not run"
    if all(row["ci"][0] > 0 for row in rows):
        return more
    return less if all(row["ci"][1] < 0 for row in rows) else "no more than noise"


def answer(chosen: Sequence[Group], found: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> Iterator[str]:
    """Does PPLR balance clients, does it beat FedAvg, by how much, is that more than noise?"""
    for group in chosen:
        docs = found[group.name]
        if not docs:
            yield f"- {group.name}: has not run."
            continue
        against = {"against": "fedavg", "metric": "recall@10", "client": "all"}
        gain = values(docs, "differences", measure="mean", **against)
        even = values(docs, "differences", measure="standard_deviation", **against)
        worst = values(docs, "differences", measure="worst_client", **against)
        pooled = values(docs, "utility", strategy="centralised", client="all", metric="recall@10")
        own = values(docs, "utility", strategy="pplr", client="all", metric="recall@10")
        to_pooled = {"against": "centralised", "metric": "recall@10", "client": "all"}
        less = values(docs, "differences", measure="mean", **to_pooled)
        floors = [
            values(docs, "utility", strategy=s, client="all", metric="recall@10") for s in ("untrained", "popularity")
        ]
        yield (
            f"- {group.name} ({len(docs)} seed{'s' * (len(docs) > 1)}): against FedAvg, Recall@10"
            f" {over_seeds(gain, signed=True)} ({verdict(gain)}); standard deviation over clients"
            f" {over_seeds(even, signed=True)} ({verdict(even, 'less even', 'more even')}); worst client"
            f" {over_seeds(worst, signed=True)} ({verdict(worst, 'better', 'worse')})."
            f" {_kept(own, pooled, floors, less)}"
        )


def _kept(
    own: Sequence[Any], pooled: Sequence[Any], floors: Sequence[Sequence[Any]], less: Sequence[Mapping[str, Any]]
) -> str:
    """How much of centralised training PPLR keeps, and whether that has anything to keep.

    Args:
        less: PPLR less centralised training.
    """
    reached, floor = mean(row["value"] for row in pooled), max(row["value"] for each in floors for row in each)
    if reached <= floor:
        return (
            "Centralised training itself is not above the untrained model and mere popularity at this budget, so what"
            " PPLR keeps of it (goal 95 %) cannot be told, and the differences are between models that have learned"
            " little or nothing."
        )
    kept = mean(row["value"] for row in own) / reached
    text = (
        f"PPLR has {100 * kept:.0f} % of the Recall@10 of centralised training (difference"
        f" {over_seeds(less, signed=True)}, {verdict(less)})"
    )
    if min(row["ci"][0] for row in pooled) > floor:
        return f"{text}; goal 95 %: {'met' if kept >= 0.95 else 'not met'}."
    return (
        f"{text}. But at this budget that itself reaches {reached:.4f} where the untrained model or popularity has"
        f" {floor:.4f}, which its interval holds: whether the goal of 95 % is met cannot be told, nor whether FedAvg"
        " or PPLR learned anything to differ in."
    )


def page(chosen: Sequence[Group], kept: Path, seeds: Sequence[int]) -> str:
    found = {group.name: documents(kept, group, seeds) for group in chosen}
    done = sum(len(docs) * len(group.strategies) for group, docs in zip(chosen, found.values(), strict=True))
    cells = sum(len(group.strategies) * len(seeds) for group in chosen)
    parts = [
        "# PPLR beside its rivals\n",
        f"Written by `benchmarks/paper_table.py`; {done} of {cells} cells (strategy, data set, recommender, seed) have"
        " run. Five clients by k-means, 1,024 training samples, five rounds, at most 2,000 test users, full ranking"
        " with the history masked. A figure is the mean over seeds ± their standard deviation; of a single seed it"
        " stands with its 95 % interval over users. Differences of a seed are of the same users in pairs, and count as"
        " more than noise only where the interval of every seed says so.\n",
        "## The answer\n",
        "\n".join(answer(chosen, found)) + "\n",
        *(text for group in chosen for text in section(group, found[group.name], seeds)),
    ]
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a synthetic market and one seed; the page is printed")
    parser.add_argument("--runs", type=Path, default=RUNS, help=f"where runs are kept (default: {RUNS})")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no further run after so many")
    parser.add_argument("--only", default="", help="groups whose name holds this text")
    parser.add_argument("--results", type=Path, help="the page (default: docs/results.md; --quick: printed only)")
    asked = parser.parse_args()
    started = time.monotonic()
    seeds = SEEDS[:1] if asked.quick else SEEDS
    chosen = groups(asked.quick)
    into = asked.results or (None if asked.quick else PAGE)
    kept = asked.runs if asked.quick else KEPT
    for seed in seeds:  # a first seed of everything before a second of anything
        for group in chosen:
            if asked.only not in group.name or seed in documents(kept, group, [seed]):
                continue
            if time.monotonic() - started > 60 * asked.minutes:
                break
            try:
                run(asked.runs, kept, group, seed)
            except (InputError, RunError) as error:
                raise SystemExit(f"{group.name}, seed {seed}: {error}") from None
            if into is not None:
                into.write_text(page(chosen, kept, seeds), encoding="utf-8")
    text = page(chosen, kept, seeds)
    if into is None:
        print(text)
    else:
        into.write_text(text, encoding="utf-8")
        print(into)


if __name__ == "__main__":
    main()
