"""The page that `paper_table.py` writes, out of what is kept of each run: the answer first, then the tables."""

import json
from collections.abc import Iterator, Mapping, Sequence
from statistics import mean
from typing import Any

import paper_mixing
from measuring import table
from paper_groups import Group
from paper_numbers import Row, over_all, over_seeds, ratios, side, unpaired, verdict

Docs = Mapping[int, Mapping[str, Any]]
"""What has run of a group, by seed."""
METRICS = ("recall@10", "ndcg@10", "recall@20", "ndcg@20")
FLOORS = ("untrained", "popularity")
GOAL = 0.95
OLDER = (
    "Runs of an unknown commit are older than a change to the batches of clients with few samples"
    " (`pplr_audit/training/schedule.py`). Their samples came in another order than with today's code, and with more"
    " padding. This holds for all strategies of such a run alike, unless another commit continued it.\n"
)


READING = """How to read this page:

- Every model ranks the full catalogue, without the items of the user's history.
- A group is one data set with one recommender. Its section has its numbers of clients, samples, rounds and test users.
- A figure in a table is the mean over seeds ± their standard deviation. With a single seed it has its 95 % interval
  over users.
- Intervals were computed at the end of a run, by the code of the commit that its section names.
- Differences within a seed compare the same users in pairs.
- An interval over seeds and users is Student's interval over the seeds, each of which has its own test users. Where the
  interval over users alone is wider, that one is used.
- "More" and "less" without further words mean that this interval and the interval of each seed exclude 0.
"""


def page(
    chosen: Sequence[Group],
    found: Mapping[str, Docs],
    seeds: Sequence[int],
    strangers: Sequence[str] = (),
    failed: Sequence[str] = (),
) -> str:
    """The page.

    Args:
        found: by group.
        strangers: kept files of no run that there is with these settings.
        failed: what went wrong in the call that writes the page.
    """
    done = sum(
        len(group.strategies) - len(broken(doc)) for group in chosen for doc in found[group.name].values()
    )  # fmt: skip
    cells = sum(len(group.strategies) * len(seeds) for group in chosen)
    parts = [
        "# PPLR beside its rivals\n",
        f"{done} of {cells} cells (strategy, data set, recommender, seed) have run.\n",
        READING,
    ]
    if failed:
        parts.append("Failed in the last call:\n\n" + "\n".join(f"- {each}" for each in failed) + "\n")
    if strangers:
        parts.append(f"Kept from earlier settings, not shown: {', '.join(f'`{name}`' for name in strangers)}.\n")
    if any("unknown" in doc.get("code", ["unknown"]) for docs in found.values() for doc in docs.values()):
        parts.append(OLDER)
    parts += [
        "## The answer\n",
        "\n".join(line for group in chosen for line in answer(group, found[group.name])) + "\n",
    ]
    parts += [text for group in chosen for text in section(group, found[group.name], seeds)]
    return "\n".join([*parts, made_by(found)])


def made_by(found: Mapping[str, Docs]) -> str:
    """The command, and the commits of all runs."""
    told = (commit for docs in found.values() for doc in docs.values() for commit in doc.get("code", ["unknown"]))
    commits = sorted(dict.fromkeys(told), key=lambda commit: commit == "unknown")
    return f"Command: `python benchmarks/paper_table.py`. Commit: {', '.join(commits) or 'none'}.\n"


def broken(doc: Mapping[str, Any]) -> list[Any]:
    """Rivals that did not come to their end."""
    return list(doc["run"].get("failed_rivals", ()))


def both(docs: Docs, *strategies: str) -> Docs:
    """The seeds in which all of these were measured."""
    return {
        seed: doc
        for seed, doc in docs.items()
        if {*strategies} <= {row["strategy"] for row in doc["utility"]}
    }  # fmt: skip


def values(docs: Docs, part: str, **wanted: str) -> list[dict[str, Any]]:
    """The row of each seed with these fields, where it has an interval."""
    rows = ((row for row in doc[part] if all(row[k] == v for k, v in wanted.items())) for doc in docs.values())
    return [found for found in (next(each, None) for each in rows) if found is not None and found["ci"] is not None]


def references(docs: Docs, strategy: str, reference: str) -> list[dict[str, Any]]:
    """A strategy less a reference in pairs, Recall@10, of each seed that keeps it."""
    kept = {seed: doc for seed, doc in docs.items() if "references" in doc}
    return values(kept, "references", strategy=strategy, against=reference, metric="recall@10")


def by_size(doc: Mapping[str, Any]) -> dict[str, int]:
    """The clients that have test users and how many, the most first."""
    sizes = {row["client"]: row["n"] for row in doc["utility"] if row["client"] != "all"}
    return dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0])))


def place_names(count: int) -> list[str]:
    """``largest``, ``2nd``, ``3rd``, …"""
    ends = {1: "st", 2: "nd", 3: "rd"}
    told = [f"{n}{'th' if n % 100 in (11, 12, 13) else ends.get(n % 10, 'th')}" for n in range(1, count + 1)]
    return ["largest", *told[1:]]


def at_place(docs: Docs, place: int, strategy: str, metric: str) -> list[dict[str, Any]]:
    """Of each seed the row of the client at that place by size."""
    rows = []
    for doc in docs.values():
        clients = list(by_size(doc))
        if place < len(clients):
            rows += values({0: doc}, "utility", strategy=strategy, client=clients[place], metric=metric)
    return rows


def section(group: Group, docs: Docs, seeds: Sequence[int]) -> Iterator[str]:
    yield f"## {group.name}\n"
    if not docs:
        yield "No cell has run yet.\n"
        return
    missing = [seed for seed in seeds if seed not in docs]
    yield (
        f"- Seeds that have run: {', '.join(map(str, docs))}"
        f"{'; not yet: ' + ', '.join(map(str, missing)) if missing else ''}."
    )
    yield f"- Size: {budget(docs)}"
    yield f"- Machine and code: {ran_on(docs)}"
    yield f"- {spent(docs)}"
    data = {name: value for name, value in group.data.items() if name != "path"}
    told = json.dumps({"data": data, "model": group.model, "training": group.training})
    yield f"- Settings that are not the defaults: `{told}`. {group.note}".rstrip() + "\n"
    lost = [f"{each['strategy']} (seed {seed})" for seed, doc in docs.items() for each in broken(doc)]
    if lost:
        yield f"Broke off: {', '.join(lost)}.\n"
    strategies = [*group.strategies, *FLOORS]
    rows = [
        [name, *(over_seeds(values(docs, "utility", strategy=name, client="all", metric=m)) for m in METRICS)]
        for name in strategies
    ]
    yield table(["strategy", *METRICS], rows) + "\n"
    yield from clients(strategies, docs)
    measures = ("standard_deviation", "worst_client", "jain")
    rows = [
        [name, *(over_seeds(values(docs, "balance", strategy=name, metric="recall@10", measure=m)) for m in measures)]
        for name in strategies
    ]
    yield "Balance of Recall@10 between clients:\n"
    yield table(["strategy", "standard deviation", "worst client", "Jain's index"], rows) + "\n"
    rows = []
    for rival in group.strategies[1:]:
        for metric in ("recall@10", "ndcg@10"):
            found = values(docs, "differences", against=rival, metric=metric, measure="mean", client="all")
            each = "; ".join(f"[{row['ci'][0]:+.4f}, {row['ci'][1]:+.4f}]" for row in found)
            rows.append([rival, metric, over_seeds(found, signed=True), each, verdict(found)])
    yield "PPLR minus each rival, the same users in pairs:\n"
    yield table(["rival", "metric", "mean over seeds", "interval of each seed", "verdict"], rows) + "\n"
    rows = [
        [name, *(f"{over_seeds(found, signed=True)} ({verdict(found)})" if found else "–" for found in each)]
        for name in group.strategies
        if any(each := [references(docs, name, floor) for floor in FLOORS])
    ]
    if rows:
        yield "Recall@10 of each strategy minus the references, the same users in pairs, in seeds that store them:\n"
        yield table(["strategy", *(f"minus {floor}" for floor in FLOORS)], rows) + "\n"
    order = {seed: list(by_size(doc)) for seed, doc in docs.items()}
    mixed = paper_mixing.section(docs, order, place_names(max(map(len, order.values()))))
    if mixed:
        yield mixed


def clients(strategies: Sequence[str], docs: Docs) -> Iterator[str]:
    """All metrics at each client, the clients by size."""
    sizes = [list(by_size(doc).values()) for doc in docs.values()]
    places = place_names(max(map(len, sizes)))
    told = [f"{name} {', '.join(str(s[n]) for s in sizes if n < len(s))}" for n, name in enumerate(places)]
    yield (
        "At each client. Each seed forms its clients anew, so client-0 of one seed is not client-0 of another. A row"
        " compares clients of the same rank by number of test users: the largest of each seed, then the second largest,"
        f" and so on. Test users, seed by seed: {'; '.join(told)}.\n"
    )
    rows = [
        [strategy, name, *(over_seeds(at_place(docs, place, strategy, metric)) for metric in METRICS)]
        for strategy in strategies
        for place, name in enumerate(places)
    ]
    yield table(["strategy", "client", *METRICS], rows) + "\n"


def budget(docs: Docs) -> str:
    """What the runs had, told once where all seeds have the same."""
    said = []
    for doc in docs.values():
        run = doc["run"]
        samples = sum(client["samples"] for client in run["clients"])
        users = next(row["n"] for row in doc["utility"] if row["client"] == "all")
        said.append(
            f"{len(run['clients'])} clients, {samples:,} training samples, {run['rounds']} round"
            f"{'s' * (run['rounds'] != 1)}, {users:,} test users, {run['data']['items']:,} items"
        )
    return "; ".join(dict.fromkeys(said)) + "."


def ran_on(docs: Docs) -> str:
    """The machines, days and code of the cells."""
    said = []
    for doc in docs.values():
        run, at = doc["run"], doc["run"]["hardware"]
        code = ", then ".join(doc.get("code", ["unknown"]))
        said.append(
            f"{at['cpu']}, {at['cores']} cores, {at['memory_bytes'] / 1e9:.0f} GB, torch {run['libraries']['torch']},"
            f" {run['created'][:10]}, commit {code}"
        )
    return "; ".join(dict.fromkeys(said)) + "."


def spent(docs: Docs) -> str:
    """Where the wall time went, of each seed."""
    trained, rest, calls = [], [], []
    for doc in docs.values():
        phases = doc["run"]["seconds"]
        if "training_seconds" in doc:
            trained.append(f"{sum(doc['training_seconds'].values()) / 60:.0f}")
            rest.append(f"{sum(s for name, s in phases.items() if not name.startswith('training')) / 60:.0f}")
        else:
            calls.append(f"{sum(phases.values()) / 60:.0f}")
    parts = []
    if trained:
        parts.append(
            f"training {', '.join(trained)} min (sum over the rounds), preparing and measuring {', '.join(rest)} min"
            " (of the calls that ended normally)"
        )
    if calls:
        parts.append(f"{', '.join(calls)} min (of the calls that ended normally, training included)")
    return (
        f"Wall time of each seed, all strategies together: {'; '.join(parts)}. Unfinished rounds and measurements of"
        " killed calls are not included. The machine may have been shared with other work, so these times are no"
        " measure of speed."
    )


def answer(group: Group, docs: Docs) -> Iterator[str]:
    """Does PPLR balance clients, does it beat FedAvg, by how much, is that more than noise, what does it keep?"""
    if not docs:
        yield f"- {group.name}: has not run."
        return
    yield f"- **{group.name}** ({len(docs)} seed{'s' * (len(docs) > 1)})"
    yield f"  - {balanced(docs)}"
    yield f"  - {beaten(docs)}"
    yield f"  - {centralized(docs)}"
    yield from (f"  - {text}" for text in paper_mixing.why(docs))


def against(docs: Docs, rival: str, measure: str = "mean", metric: str = "recall@10") -> list[dict[str, Any]]:
    return values(docs, "differences", against=rival, measure=measure, metric=metric, client="all")


def balanced(docs: Docs) -> str:
    """Against FedAvg, in pairs."""
    even = against(docs, "fedavg", "standard_deviation")
    worst, jain = against(docs, "fedavg", "worst_client"), against(docs, "fedavg", "jain")
    if not even or not worst or not jain:
        return "Does it balance clients? FedAvg has not run beside it."
    signs = [-side(even), side(worst), side(jain)]
    said = {(True, False): "yes", (False, True): "no, it is less even", (True, True): "in part"}
    short = said.get((1 in signs, -1 in signs), "no difference from FedAvg that is more than noise")
    return (
        f"Does it balance clients? {short[0].upper()}{short[1:]}. PPLR minus FedAvg, Recall@10: standard deviation over"
        f" clients {over_all(even).text('+.4f')} ({verdict(even, 'less even', 'more even')}); worst client"
        f" {over_all(worst).text('+.4f')} ({verdict(worst, 'better', 'worse')}); Jain's index"
        f" {over_all(jain).text('+.4f')} ({verdict(jain, 'more even', 'less even')})."
    )


def beaten(docs: Docs) -> str:
    """Is PPLR better than FedAvg on the whole?"""
    docs = both(docs, "pplr", "fedavg")
    told, signs = [], []
    for metric in ("recall@10", "ndcg@10"):
        gain = against(docs, "fedavg", metric=metric)
        theirs = values(docs, "utility", strategy="fedavg", client="all", metric=metric)
        if not gain or not theirs:
            return "Does it beat FedAvg? FedAvg has not run beside it."
        reached = mean(row["value"] for row in theirs)
        own = values(docs, "utility", strategy="pplr", client="all", metric=metric)
        shares = [percent(row, less=1) for row in ratios(own, theirs, gain)]
        share = f", or {over_all(shares).text('+.0f')} %," if shares else ""
        told.append(f"{metric} {over_all(gain).text('+.4f')}{share} beside FedAvg's {reached:.4f} ({verdict(gain)})")
        signs.append(side(gain))
    said = {(True, False): "yes", (False, True): "no, it is worse", (True, True): "in part"}
    short = said.get((1 in signs, -1 in signs), "no difference that is more than noise")
    return f"Does it beat FedAvg? {short[0].upper()}{short[1:]}. PPLR minus FedAvg: {'; '.join(told)}."


def percent(row: Row, less: float = 0) -> Row:
    return {"value": 100 * (row["value"] - less), "ci": [100 * (end - less) for end in row["ci"]]}


def centralized(docs: Docs) -> str:
    """How much of centralized training PPLR keeps, and whether that has anything to keep."""
    docs = both(docs, "pplr", "centralized", *FLOORS)
    own, pooled, *floors = (
        values(docs, "utility", strategy=name, client="all", metric="recall@10")
        for name in ("pplr", "centralized", *FLOORS)
    )
    less = against(docs, "centralized")
    asked = "How much of centralized training does it keep?"
    if not own or not pooled or not less:
        return f"{asked} Centralized training has not run beside it."
    reached = mean(row["value"] for row in pooled)
    untrained, popularity = (mean(row["value"] for row in each) for each in floors)
    beyond_untrained, beyond_popularity = (
        side(above(docs, name, pooled, each)) for name, each in zip(FLOORS, floors, strict=True)
    )
    if reached <= untrained:
        return (
            f"{asked} Undecided (goal {100 * GOAL:.0f} %). With this budget, centralized training itself (Recall@10"
            f" {reached:.4f}) is not above the untrained model ({untrained:.4f}; popularity {popularity:.4f}). So all"
            " differences above are between models that have learned little or nothing."
        )
    text = f"{asked} {kept(own, pooled, less)}"
    if beyond_untrained <= 0:
        own_gain = references(docs, "pplr", "untrained")
        sure = len(own_gain) == len(docs) and side(own_gain) > 0
        text += (
            f" But with this budget, centralized training reaches {reached:.4f} and the untrained model"
            f" {untrained:.4f}, which is no difference beyond noise."
            + (
                " So it is undecided whether the goal is met. PPLR did learn: minus the untrained model, in pairs,"
                f" {over_all(own_gain).text('+.4f')} ({verdict(own_gain)})."
                if sure
                else " So it is undecided whether the goal is met, and whether FedAvg or PPLR learned anything."
            )
        )
    if beyond_popularity <= 0:
        how = "worse" if beyond_popularity < 0 else "not better by more than noise"
        text += (
            f" Ranking by popularity alone reaches {popularity:.4f}; centralized training reaches {reached:.4f}, which"
            f" is {how}."
        )
    return text


def above(docs: Docs, reference: str, pooled: Sequence[Row], floor: Sequence[Row]) -> Sequence[Row]:
    """Return centralized training minus a reference, Recall@10: in pairs where all seeds store them, else unpaired."""
    paired = references(docs, "centralized", reference)
    return paired if len(paired) == len(docs) else unpaired(pooled, floor)


def kept(own: Sequence[Row], pooled: Sequence[Row], less: Sequence[Row]) -> str:
    """The share with its interval, and what it says of the goal."""
    difference = f"Difference in Recall@10: {over_all(less).text('+.4f')} ({verdict(less)})."
    shares = ratios(own, pooled, less)
    if not shares:
        return f"There is no share, as centralized training has a Recall@10 of 0 in one seed. {difference}"
    share = over_all([percent(row) for row in shares])
    met = "met" if share.low >= 100 * GOAL else "not met" if share.high < 100 * GOAL else "undecided"
    each = "; ".join(f"[{100 * s['ci'][0]:.0f}, {100 * s['ci'][1]:.0f}]" for s in shares)
    by_seed = f"over the users of each seed: {each}" if len(shares) > 1 else "over users alone"
    return f"{share.text('.0f')} % of its Recall@10 ({by_seed}). {difference} Goal {100 * GOAL:.0f} %: {met}."
