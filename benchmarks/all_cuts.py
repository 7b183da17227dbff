"""The audit of every cut beside the audit of one: one training, one replay and one pass over the front serve them all.

Whole runs take turns in one process, each from an empty directory: of all cuts, of the deepest front alone (whose
forward pass is the longest), and of the middle one. The phases are those that the run's manifest records. The model's
weights are drawn at random, so that beams run to their full length and the utility phase is the longest it can be.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llama
from measuring import arguments, goal, goal_text, interleaved, machine, ratios, spread, table, write

from pplr_audit import pipeline as audit
from pplr_audit.data.load import load
from pplr_audit.scenario.schema import Scenario

AT_MOST = 2.0
PHASES = {"the whole run": None, "the attack phase": "attacking"}


def scenario_of(folder: Path, cuts: Any, quick: bool) -> Scenario:
    """The quickstart's market and attacks on the model in ``folder``; utility on few users, since it has no cut."""
    market = {"users": 120, "items": 48, "tastes": 3} if quick else {"users": 600, "items": 160, "tastes": 5}
    return Scenario.model_validate(
        {
            "name": "all-cuts",
            "data": {"market": market, "test_users": 50},
            "model": {"backbone": str(folder), "beams": 1},
            "training": {"rounds": 1 if quick else 3},
            "audit": {"cuts": cuts, "adversaries": ["server", "outsider"], "attacks": ["ridge", "loss"]},
        }
    )


def seconds(scenario: Scenario) -> dict[str, float]:
    """Run it in a folder of its own; answers the seconds of each phase."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        document = audit.run(scenario, out).document
        failed = [row for row in document["findings"] if row["status"] not in ("ok", "not_applicable")]
        if failed:
            raise SystemExit(f"a cell did not end well: {failed[0]['attack']}, {failed[0]['detail']}")
        return dict(json.loads((out / "manifest.json").read_text(encoding="utf-8"))["seconds"])


def main() -> None:
    chosen = arguments(__doc__ or "", repeats=5)
    at, layers, hidden = machine(), 6, 32 if chosen.quick else 128
    cuts: dict[str, Any] = {
        "all": "all",
        "deepest": [[layers - 1, 0]],
        "middle": [[layers // 2, 1]],
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "llama"
        scenarios = {name: scenario_of(path, value, chosen.quick) for name, value in cuts.items()}
        catalogue = load(scenarios["all"].data, scenarios["all"].seed).catalogue
        llama.save(path, catalogue, layers=layers, hidden=hidden)
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in cuts}

        def side(name: str) -> Callable[[], float]:
            def once() -> float:
                runs[name].append(seconds(scenarios[name]))
                return sum(runs[name][-1].values())

            return once

        warm_up = 0 if chosen.quick else 1
        interleaved({name: side(name) for name in cuts}, chosen.repeats, warm_up)
        runs = {name: each[warm_up:] for name, each in runs.items()}

    figures: dict[str, Any] = {"layers": layers, "hidden": hidden, "repeats": chosen.repeats, "runs": runs, "ratio": {}}
    rows = []
    for label, phase in PHASES.items():
        spent = {
            name: [sum(run.values()) if phase is None else run[phase] for run in each] for name, each in runs.items()
        }
        for name in spent:
            rows.append([f"{label}, {name}", spread(spent[name]).text(" s", digits=2), ""])
        for one in ("deepest", "middle"):
            over = spread(ratios(spent["all"], spent[one]))
            figures["ratio"][f"{label}: all / {one}"] = {"over_runs": over, "goal": goal(over.median, AT_MOST)}
            rows.append([f"{label}, all / {one}", over.text(digits=2), goal_text(over.median, AT_MOST)])
    text = (
        f"A model of {layers} blocks with hidden size {hidden}: all cuts have {layers} different fronts."
        f" {chosen.repeats} interleaved runs of each; a ratio compares two runs of the same turn.\n\n"
        + table(["what", "median (least–most)", "goal"], rows)
    )
    write("all_cuts", "The audit of all cuts against the audit of one", text, figures, at, chosen.results)


if __name__ == "__main__":
    main()
