"""Sentences on the cost of the cut that ran and on the quality of the recommendations next to references."""

from pplr_audit.report.blocks.content import listed
from pplr_audit.report.words.quantities import interval, number, percent, signed, size
from pplr_audit.report.words.vocabulary import REFERENCES, cut_words, metric_words
from pplr_audit.runs.documents import Document


def cost_at(findings: Document, cut: tuple[int, int]) -> Document | None:
    """The costs of a cut (k, m), if they were computed."""
    named = {"front": cut[0], "back": cut[1]}
    return next((row for row in findings["costs"] if row["cut"] == named), None)


def cost_at_front(findings: Document, front: int) -> Document | None:
    """The costs with ``front`` blocks in front and, behind, what ran, or less where else no trunk would remain.

    Activations cross only while there is a trunk, so a leak at k must not be priced at a cut that has none.
    """
    run = findings["run"]
    back = max(0, min(run["cut"]["back"], run["layers"] - 1 - front))
    return cost_at(findings, (front, back))


def headline_utility(findings: Document) -> tuple[str, list[Document]]:
    """The metric to speak of first, and its rows over all clients."""
    rows = [row for row in findings["utility"] if row["client"] == "all"]
    metrics = [row["metric"] for row in rows]
    metric = "recall@10" if "recall@10" in metrics else metrics[0] if metrics else ""
    return metric, [row for row in rows if row["metric"] == metric]


def wire_sentence(findings: Document) -> str:
    """Share, memory and traffic of the cut that ran."""
    run = findings["run"]
    cost = next((row for row in findings["costs"] if row["cut"] == run["cut"]), None)
    if cost is None:
        return "The costs of the cut that ran were not computed."
    return (
        f"The cut that ran ({cut_words(run['cut'])}, of {run['layers']} blocks) puts {percent(cost['client_share'])} "
        f"of the parameters ({size(cost['client_bytes'])}) on each client and sends "
        f"{size(cost['wire_bytes_per_round'])} over the wire a round."
    )


def utility_sentence(findings: Document) -> str:
    """The strategy that ran beside the references, in words that respect the intervals."""
    metric, rows = headline_utility(findings)
    own = next((row for row in rows if row["strategy"] == findings["run"]["strategy"]), None)
    if own is None:
        return "Utility was not measured."
    text = f"Recommendations reach {metric_words(metric)} {_amount(own)}"
    others = [row for row in rows if row["strategy"] in REFERENCES]
    if not others:
        return f"{text}; no reference was measured beside it."
    compared = [f"{_relation(own, other)} {REFERENCES[other['strategy']]} {_amount(other)}" for other in others]
    return f"{text}: {listed(compared)}.{_paired(findings, metric)}"


def failed_rivals(findings: Document) -> list[str]:
    """A sentence for each rival whose training broke off, and who is thus missing beside the others."""
    said = findings["run"].get("failed_rivals", ())
    return [f"{row['strategy']} was not measured, as its training broke off: {row['reason']}" for row in said]


def left_out(findings: Document) -> list[str]:
    """A sentence on the users on whom nothing that is recommended is measured; nothing where there are none."""
    users = findings["run"]["data"].get("left_out", {})
    said = [f"{count:,} by their {of} items" for of, count in users.items() if count]
    if not said:
        return []
    return [
        f"Users left out: {listed(said)}. They had all of these items before, and a user's own items are never "
        "recommended. So neither the trained models nor the references could be right for them."
    ]


def _paired(findings: Document, metric: str) -> str:
    """Compare the run with its rivals, user by user; empty where there are none."""
    said = []
    for row in findings.get("differences", ()):
        if (row["metric"], row["measure"], row["client"]) == (metric, "mean", "all"):
            low, high = row["ci"]
            verdict = "more" if low > 0 else "less" if high < 0 else "no difference beyond noise"
            ends = f"[{signed(metric, low)}, {signed(metric, high)}]"
            said.append(f"{signed(metric, row['value'])} {ends} against {row['against']} ({verdict})")
    return f" User by user: {listed(said)}." if said else ""


def _amount(row: Document) -> str:
    return f"{number(row['metric'], row['value'])} {interval(row['metric'], row['ci'])}"


def _relation(own: Document, other: Document) -> str:
    if own["ci"][0] > other["ci"][1]:
        return "above"
    return "below" if own["ci"][1] < other["ci"][0] else "overlapping with"
