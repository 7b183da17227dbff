"""What PPLR's balance did: its S, l, w and weights in the last round, by client."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from measuring import table

from pplr_audit.training.rounds import RoundLog

NEAR = 0.02
"""A model whose weights are all this near an even average's is nearly that."""


def kept(log: RoundLog) -> dict[str, Any]:
    """The mixing of a round, as it is kept."""
    mixing = log.mixing
    parts = {"matrix": mixing.matrix, "S": mixing.similarity, "l": mixing.status, "w": mixing.speed}
    return {
        "round": log.round, "clients": list(log.clients), "losses": [log.losses[client] for client in log.clients],
        **{name: None if part is None else part.tolist() for name, part in parts.items()},
    }  # fmt: skip


def section(docs: Mapping[int, Mapping[str, Any]], order: Mapping[int, Sequence[str]], places: Sequence[str]) -> str:
    """Of each strategy and seed whose mixing was kept; empty where none was.

    Args:
        order: of each seed its clients, in the order of ``places``.
    """
    rows = []
    for seed, doc in docs.items():
        for name, mixing in doc.get("mixing", {}).items():
            at = {client: place for place, client in enumerate(mixing["clients"])}
            cells = [_client(mixing, at[c]) if c in at else "–" for c in order[seed]]
            rows.append([name, str(seed), _similar(mixing), *cells, *["–"] * (len(places) - len(cells))])
    if not rows:
        return ""
    text = (
        "The balance in the last round: the range of S off the diagonal, and for each client its loss, l, w, and the"
        " share of its own model in its new model:\n\n"
    )
    return text + table(["strategy", "seed", "S", *places], sorted(rows, key=lambda row: row[0])) + "\n"


def _client(mixing: Mapping[str, Any], at: int) -> str:
    learning = [f"{part} {mixing[part][at]:.3f}" for part in ("l", "w") if mixing[part] is not None]
    return ", ".join([f"loss {mixing['losses'][at]:.3f}", *learning, f"own {100 * mixing['matrix'][at][at]:.1f} %"])


def _similar(mixing: Mapping[str, Any]) -> str:
    if mixing["S"] is None:
        return "–"
    others = [value for i, row in enumerate(mixing["S"]) for j, value in enumerate(row) if i != j]
    return f"{min(others):.4f}–{max(others):.4f}" if others else "–"


def why(docs: Mapping[int, Mapping[str, Any]]) -> Iterator[str]:
    """What PPLR's weights were in the last round beside those of an even average; nothing where none were kept."""
    found = [doc["mixing"]["pplr"] for doc in docs.values() if "pplr" in doc.get("mixing", {})]
    if not found:
        return
    count = len(found[0]["clients"])
    own = [mixing["matrix"][i][i] for mixing in found for i in range(len(mixing["clients"]))]
    off = [max(abs(weight - 1 / len(row)) for weight in row) for mixing in found for row in mixing["matrix"]]
    speeds = [w for mixing in found for w in mixing["w"] or ()]
    some = f" ({len(found)} of {len(docs)} seeds)" if len(found) < len(docs) else ""
    text = (
        f"What did the balance do in the last round{some}? Clients"
        f" kept {100 * min(own):.1f} to {100 * max(own):.1f} % of their own model. An even average of {count} has"
        f" {100 / count:.1f} %. S off the diagonal was {', '.join(dict.fromkeys(map(_similar, found)))}"
        f"{f'; w was {min(speeds):.3f} to {max(speeds):.3f}' if speeds else ''}."
    )
    changed = sum(most > NEAR for most in off)
    if not changed:
        yield (
            f"{text} No weight was more than {100 * max(off):.1f} percentage points from that average. So all clients"
            " got nearly the same model, and the balance can hardly have favored one of them. The difference from"
            " FedAvg is that numbers of samples have no weight."
        )
        return
    rest = " The others got nearly the same model." if changed + 1 < len(off) else ""
    yield (
        f"{text} {changed} of {len(off)} new models had a weight more than {100 * NEAR:.0f} percentage points from that"
        f" average ({100 * max(off):.1f} at most).{rest}"
    )
