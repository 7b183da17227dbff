"""How much of a training epoch is padding where clients have few samples: the setting of ``paper_table.py``.

Five clients share 1,024 samples in batches of 16, an encoder reads the newest four titles. The plan of batches is made
of the real histories' lengths, over all rounds and seeds of the table; nothing is trained. Without the data folder a
synthetic market stands in. The goal is for the seed with most of it.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int
from measuring import arguments, goal, goal_text, machine, spread, table, write
from paper_table import SEEDS, groups

from pplr_audit import scenario
from pplr_audit.data.allocation import allotted
from pplr_audit.data.prepare import prepare
from pplr_audit.errors import InputError
from pplr_audit.models.backbones.load import load_backbone
from pplr_audit.models.build import prompts_over
from pplr_audit.training.schedule import batches

AT_MOST = 0.1


def share(lengths: Int[np.ndarray, "samples"], plan: Iterable[Int[np.ndarray, "batch"]]) -> float:
    """Share of padding among the positions of a plan's batches."""
    return 1 - int(lengths.sum()) / sum(len(rows) * int(lengths[rows].max()) for rows in plan)


def settings(quick: bool) -> dict[str, list[scenario.Scenario]]:
    """The table's encoder groups whose data is there, by data set: one scenario a seed."""
    found = {
        group.name.split(",")[0]: [group.scenario(seed) for seed in SEEDS]
        for group in groups(False)
        if group.model["recommender"] == "recformer"
    }
    there = {} if quick else {name: each for name, each in found.items() if prepared(each[0])}
    if there:
        return there
    market = scenario.Data(market=scenario.Market(users=2000, items=200, tastes=5), clients=5, history=4, audit_users=2)
    return {"synthetic": [each.model_copy(update={"data": market}) for each in next(iter(found.values()))]}


def prepared(chosen: scenario.Scenario) -> bool:
    try:
        prepare(chosen.data, chosen.seed)
    except InputError:
        return False
    return True


def federated(name: str, seeds: Iterable[scenario.Scenario], tokenizer: Any = None) -> dict[str, list[float]]:
    """Padding of a training, all rounds and clients together, by seed: at the clients, and pooled in one place.

    Args:
        tokenizer: None: that of the scenario's backbone.
    """
    shares: dict[str, list[float]] = {f"{name}, five clients": [], f"{name}, centralized": []}
    for chosen in seeds:
        private = prepare(chosen.data, chosen.seed)
        catalogue, training = private.dataset.catalogue, chosen.training
        tokenizer = tokenizer or load_backbone(chosen.model.backbone, catalogue, seed=0).tokenizer
        prompts = prompts_over(chosen.model, tokenizer, catalogue, chosen.data.history)
        for kind, pooled in zip(shares, (False, True), strict=True):
            trained = allotted(private, shots=training.shots, pooled=pooled, seed=chosen.seed).samples
            real = positions = 0
            for client, samples in trained.items():
                lengths = prompts.lengths(samples.history, samples.targets)
                for round_ in range(1, training.rounds + 1):
                    plan = batches(lengths, training, seed=chosen.seed, client=client, round_=round_)
                    real += int(lengths.sum())
                    positions += sum(len(rows) * int(lengths[rows].max()) for rows in plan)
            shares[kind].append(1 - real / positions)
    return shares


def rows(found: Mapping[str, list[float]]) -> list[list[str]]:
    return [
        [f"padding in training, {name}", spread(each).text(), goal_text(max(each), AT_MOST)]
        for name, each in found.items()
    ]


def main() -> None:
    chosen = arguments(__doc__ or "", repeats=1)
    at = machine()
    found: dict[str, list[float]] = {}
    for name, seeds in settings(chosen.quick).items():
        found |= federated(name, seeds)
    text = "Share of padding in all positions: median over seeds (least–most). The goal is for the largest.\n\n"
    text += table(["what", "share", "goal"], rows(found))
    figures = {"padding": found, "goals": {name: goal(max(each), AT_MOST) for name, each in found.items()}}
    write("padding", "Padding when clients have few samples", text, figures, at, chosen.results)


if __name__ == "__main__":
    main()
