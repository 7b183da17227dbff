"""Updates and activations side by side on ml-100k: how much of a history a server reads at every choice of layers.

Whole audits by the product's own pipeline, for every pair (k, m) of a model: RecFormer on MiniLM (width 384), or BIGRec
on a Llama of width 768 whose weights are drawn at random (``--kind decoder``); each with one client per user and with
five silos. `lora_span` reads the client's update and the trunk's, `update_label` the next items of a silo, `ridge` the
activations that enter the trunk. A small market stands in for the data with ``--quick``, and a small model for the
decoder.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import llama
from client import DATA
from measuring import arguments, machine, table, write

from pplr_audit import pipeline as audit
from pplr_audit.data.load import load
from pplr_audit.scenario.schema import Scenario

BLOCKS = {"encoder": 6, "decoder": 3}
WIDTH = {"encoder": 384, "decoder": 768}
VICTIMS = {"encoder": 12, "decoder": 6}
ATTACKS = {
    "per_user": ["lora_span", "ridge"], "kmeans": ["lora_span", {"update_label": {"prompts": 256}}, "ridge"],
}  # fmt: skip
READS = {"lora_span": "item_recall", "update_label": "item_recall", "ridge": "item_hit@1"}
"""Metric that says which share of the items asked for was named."""


def asked(kind: str, partition: str, blocks: int, folder: Path, quick: bool) -> Scenario:
    """The audit of every pair of layers."""
    cuts = [[front, back] for front in range(1, blocks + 1) for back in range(blocks + 1 - front)]
    data: dict[str, Any] = (
        {"market": {"users": 120, "items": 48, "tastes": 3}} if quick else {"path": str(DATA / "ml-100k")}
    )
    targets = {"encoder": ["query", "key", "value"], "decoder": ["q_proj", "k_proj", "v_proj"]}[kind]
    encoder = {"backbone": "minilm", "recommender": "recformer", "recformer": {"refresh_rounds": 0, "train": "lora"}}
    decoder = {"backbone": str(folder / "llama"), "recommender": "bigrec", "beams": 1}
    alone = partition == "per_user"
    return Scenario.model_validate(
        {
            "name": f"updates-{kind}-{partition}",
            "data": {
                **data, "partition": partition, "clients": 5, "history": 10, "audit_users": 100, "test_users": 20,
                "reserve": 0.1,
            },
            "model": {
                **(encoder if kind == "encoder" else decoder), "lora": {"rank": 8, "alpha": 16, "targets": targets},
            },
            "training": {
                "rounds": 1, "learning_rate": 1e-3, "local_epochs": 3 if alone else 1,
                "participation": (0.5 if quick else 0.08) if alone else 1.0,
            },
            "audit": {
                "cuts": cuts, "adversaries": ["server"], "attacks": ATTACKS[partition],
                "victims": 4 if quick else VICTIMS[kind], "budget": {"seconds": 1800},
            },
        }
    )  # fmt: skip


def measured(setting: Scenario, out: Path) -> list[dict[str, Any]]:
    """Run the audit, and return the finding of each attack, channel and cut."""
    rows = audit.run(setting, out).document["findings"]
    return [row for row in rows if row["attack"] in READS and row["metric"] == READS[row["attack"]]]


def cell(row: Mapping[str, Any] | None) -> str:
    """Return value, interval, and the strongest of what it is compared with; or that there is none."""
    if row is None:
        return "does not cross"
    if row["status"] != "ok":
        return str(row["status"]).replace("_", " ")
    beside = {each["name"]: each["value"] for each in row["comparisons"]}
    name = max(beside, key=lambda each: beside[each])
    low, high = row["ci"]
    return f"{row['value']:.2f} [{low:.2f}, {high:.2f}], {name} {beside[name]:.2f}"


def page(rows: Sequence[Mapping[str, Any]], blocks: int) -> str:
    """Return the table of one audit, and the reasons of what could not be read."""
    closed = {(front, blocks - front) for front in range(blocks + 1)}
    found = {(row["attack"], row["channel"], row["cut"]["front"], row["cut"]["back"]): row for row in rows}
    found = {
        key: row for key, row in found.items() if key[2:] not in closed or key[1] in ("client_update", "aggregate")
    }
    ways = sorted({key[:2] for key in found if key[1] != "aggregate"})
    pairs = sorted({(front, back) for *_, front, back in found if front is not None and back is not None})

    def told(attack: str, channel: str, front: int, back: int) -> str:
        row = found.get((attack, channel, front, back))
        if row is None and (front, back) not in closed:
            row = found.get((attack, channel, front, None))
        return cell(row)

    lines = [[str(front), str(back), *(told(*way, front, back) for way in ways)] for front, back in pairs]
    head = ["k", "m", *(f"`{attack}` on {channel.replace('_', ' ')}" for attack, channel in ways)]
    reasons = {
        f"- `{row['attack']}` on {row['channel'].replace('_', ' ')}: {row['detail']['reason']}"
        for row in found.values() if row["status"] != "ok"
    }  # fmt: skip
    return table(head, lines) + ("\n\n" + "\n".join(sorted(reasons)) if reasons else "")


def main() -> None:
    chosen, at = arguments(__doc__ or "", repeats=1, kind=("encoder", "decoder")), machine()
    parts, figures = list[str](), dict[str, Any]()
    blocks = 3 if chosen.quick and chosen.kind == "decoder" else BLOCKS[chosen.kind]
    names = {"per_user": "One client per user", "kmeans": "Five silos"}
    for partition, name in names.items():
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            setting = asked(chosen.kind, partition, blocks, folder, chosen.quick)
            if chosen.kind == "decoder":
                width = 192 if chosen.quick else WIDTH["decoder"]
                llama.save(folder / "llama", load(setting.data, 0).catalogue, layers=blocks, hidden=width)
            rows = measured(setting, folder / "run")
            seconds = json.loads((folder / "run" / "manifest.json").read_text(encoding="utf-8"))["seconds"]
        figures[partition] = {"rows": rows, "seconds": seconds}
        parts.append(f"## {name}\n\n{page(rows, blocks)}")
        print(parts[-1], flush=True)
    text = "\n\n".join(parts)
    write(f"updates_{chosen.kind}", "What updates and activations say, at every cut", text, figures, at, chosen.results)


if __name__ == "__main__":
    main()
