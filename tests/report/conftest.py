"""A findings document and its evidence as a small real audit would write them: five blocks, five clients."""

import math
from collections.abc import Callable
from typing import Any

import pytest

LAYERS = 5
CLIENTS = ["c0", "c1", "c2", "c3", "c4"]
TITLES = [
    "Toy Story (1995)",
    "Twelve Monkeys (1995)",
    "The Usual Suspects (1995)",
    "Il Postino (1994)",
    "Apollo 13 (1995)",
    "Batman Forever (1995)",
    "Belle de jour (1967)",
    "Star Wars (1977)",
    "Legends of the Fall (1994)",
]
Json = dict[str, Any]


def finding(**changes: Any) -> Json:
    """A finding of the ridge attack; ``changes`` replace its fields."""
    row: Json = {
        "cut": {"front": 1, "back": None},
        "defense": "none",
        "adversary": "server",
        "knowledge": "front",
        "channel": "front_activations",
        "round": 5,
        "client": "all",
        "attack": "ridge",
        "adaptive": True,
        "secret": "history",
        "metric": "item_hit@1",
        "value": 0.93,
        "ci": [0.91, 0.95],
        "baseline": 0.012,
        "n": 200,
        "status": "ok",
        "seconds": 1.8,
        "detail": {},
    }
    return {**row, **changes}


def unmeasured(status: str, reason: str, **changes: Any) -> Json:
    """A finding without a value."""
    gone: Json = {"value": None, "ci": None, "baseline": None, "n": 0, "seconds": None, "status": status}
    return finding(**{**gone, "detail": {"reason": reason}, **changes})


def membership(metric: str, value: float, low: float, high: float, baseline: float, mode: str) -> Json:
    """A finding of the loss attack on the trained model's output."""
    return finding(
        cut=None,
        adversary="outsider",
        knowledge="base",
        channel="model_output",
        attack="loss",
        adaptive=False,
        secret="membership",
        metric=metric,
        value=value,
        ci=[low, high],
        baseline=baseline,
        n=400,
        detail={"mode": mode},
    )


def history_findings() -> list[Json]:
    """Ridge on training and serving activations at every k, the deepest cell out of budget."""
    levels = {
        "token_accuracy": (0.998, 0.06, 0.110),
        "item_hit@1": (0.995, 0.13, 0.012),
        "item_hit@5": (0.999, 0.1, 0.045),
        "exact_history": (0.96, 0.22, 0.0),
    }
    rows = []
    for channel, shift in (("front_activations", 0.0), ("inference_activations", 0.03)):
        for k in range(LAYERS):
            for metric, (top, drop, baseline) in levels.items():
                if channel == "inference_activations" and k == LAYERS - 1:
                    rows.append(
                        unmeasured(
                            "budget_exhausted",
                            "300 s were not enough for 200 victims",
                            channel=channel,
                            cut={"front": k, "back": None},
                            metric=metric,
                        )
                    )
                    continue
                value = round(max(0.02, top - shift * k - drop * k**1.5 / 3), 4)
                half = round(1.96 * math.sqrt(value * (1 - value) / 200) + 0.001, 4)
                ci = [round(max(0.0, value - half), 4), round(min(1.0, value + half), 4)]
                rows.append(
                    finding(
                        channel=channel,
                        cut={"front": k, "back": None},
                        metric=metric,
                        value=value,
                        ci=ci,
                        baseline=baseline,
                        detail=(steps(value, k) if channel == "front_activations" else {})
                        | (over_users(value, k) if metric == "item_hit@1" else {}),
                    )
                )
    return rows


def mean(value: float, half: float, n: int) -> Json:
    """A mean in a finding's detail."""
    ends = [round(max(0.0, value - half), 4), round(min(1.0, value + half), 4)]
    return {"mean": round(min(1.0, value), 4), "ci": ends, "n": n}


def steps(value: float, k: int) -> Json:
    """A round's first step and later ones; the deeper, the more an old copy matters."""
    return {"first_step": mean(value, 0.1, 40), "later_steps": mean(value * (1 - 0.1 * k), 0.05, 160)}


def over_users(value: float, k: int) -> Json:
    """How the users' shares lie around a value."""
    return {
        "over_users": {
            "n": 200, "least": round(value * 0.4, 4), "quartiles": [round(value * 0.8, 4), round(value, 4)],
            "median": round(value * 0.9, 4), "most": 1.0, "all_read": mean(max(0.0, value - 0.2), 0.06, 200),
            "clients": {name: mean(value - 0.01 * (i + k), 0.08, 40) for i, name in enumerate(CLIENTS)},
        }
    }  # fmt: skip


def membership_findings() -> list[Json]:
    """The loss attack with a threshold and against the base model; the lowest rate cannot be resolved."""
    rows = [
        membership("auc", 0.541, 0.484, 0.597, 0.507, "threshold"),
        membership("tpr@0.1", 0.125, 0.07, 0.19, 0.1, "threshold"),
        membership("auc", 0.655, 0.601, 0.708, 0.512, "reference"),
        membership("tpr@0.1", 0.27, 0.18, 0.36, 0.1, "reference"),
    ]
    for mode in ("threshold", "reference"):
        rows.append(
            unmeasured(
                "not_applicable",
                "0.01 is not resolvable with 196 non-members: 300 are needed",
                cut=None,
                adversary="outsider",
                knowledge="base",
                channel="model_output",
                attack="loss",
                adaptive=False,
                secret="membership",
                metric="tpr@0.01",
                detail={"reason": "0.01 is not resolvable with 196 non-members: 300 are needed", "mode": mode},
            )
        )
    return rows


def label_findings() -> list[Json]:
    """The next item, read in front (which carries it less the deeper), behind, and on both sides at once."""
    levels = {"label_hit@1": (0.96, 0.02), "label_hit@10": (0.99, 0.21), "mrr": (0.97, 0.08)}
    sides = {
        ("ridge", "front_activations", "front"): [(k, None) for k in range(LAYERS)],
        ("label_match", "back_gradients", "base"): [(None, m) for m in range(LAYERS)],
        ("bidirectional", "back_gradients", "front"): [(k, m) for k in range(LAYERS) for m in range(LAYERS - k)],
    }
    rows = []
    for (attack, channel, knowledge), cuts in sides.items():
        for metric, (top, baseline) in levels.items():
            same = {"attack": attack, "channel": channel, "knowledge": knowledge, "secret": "label", "metric": metric}
            for k, m in cuts:
                drop = 0.15 * (k or 0) ** 1.4 if m is None else 0.2 * m if k is None else 0.02 * k + 0.05 * m
                value = round(max(0.01, top - drop), 4)
                ci = [round(max(0.0, value - 0.05), 4), round(min(1.0, value + 0.04), 4)]
                rows.append(finding(cut={"front": k, "back": m}, value=value, ci=ci, baseline=baseline, **same))
            closed = {"front": LAYERS, "back": 0}
            rows.append(unmeasured("not_applicable", "no block is left for the server", cut=closed, **same))
    return rows


def utility_rows() -> list[Json]:
    """Three strategies, two metrics, all clients."""
    rows = []
    for strategy, level in (("pplr", 0.128), ("untrained", 0.041), ("popularity", 0.086)):
        for i, client in enumerate(["all", *CLIENTS]):
            for metric, factor in (("recall@10", 1.0), ("ndcg@10", 0.52)):
                value = round(level * factor * (1 + 0.09 * math.sin(3 * i)), 4)
                half = 0.014 if client == "all" else 0.034
                rows.append(
                    {
                        "strategy": strategy,
                        "defense": "none",
                        "client": client,
                        "metric": metric,
                        "value": value,
                        "ci": [round(max(0, value - half), 4), round(value + half, 4)],
                        "n": 943 if client == "all" else 188,
                    }
                )
    return rows


def cost_rows() -> list[Json]:
    """Every cut of five blocks; the one that ran (1, 1) with measurements."""
    rows = []
    for front in range(LAYERS + 1):
        for back in range(LAYERS + 1 - front):
            held = 32_768 + 45_440 * (front + back)
            trunk = front + back < LAYERS
            row: Json = {
                "cut": {"front": front, "back": back},
                "client_parameters": held,
                "client_bytes": 4 * held,
                "client_share": round(held / 260_032, 4),
                "client_flops_per_token": 2 * held,
                "wire_bytes_per_sample": 4 * 375 * 64 * 4 if trunk else 0,
                "wire_bytes_per_round": (4 * 375 * 64 * 4 * 188 if trunk else 0) + 8_192 * (front + back) + 512,
                "seconds_per_round": None,
                "training_flops_per_token": 6 * held,
                "serving_wire_bytes_per_request": 2 * 360 * 64 * 4 if trunk else 0,
                "measured": None,
            }
            if (front, back) == (1, 1):
                row["measured"] = {
                    "wire_bytes_per_sample": row["wire_bytes_per_sample"],
                    "seconds_per_round": 6.4,
                    "wire_bytes_per_round": row["wire_bytes_per_round"] + 61_000,
                }
            rows.append(row)
    return rows


def findings_document() -> Json:
    """A whole findings document."""
    return {
        "schema": "pplr-audit/findings/1",
        "run": {
            "name": "ml-100k-tiny",
            "seed": 7,
            "created": "2025-03-02T10:15:00Z",
            "version": "0.1.0",
            "backbone": "stories260k",
            "recommender": "bigrec",
            "strategy": "pplr",
            "rounds": 5,
            "layers": LAYERS,
            "hidden": 64,
            "cut": {"front": 1, "back": 1},
            "clients": [
                {"name": name, "users": 188, "members": 81, "non_members": 79, "reserve": 28, "samples": 108 + i}
                for i, name in enumerate(CLIENTS)
            ],
            "data": {
                "name": "ml-100k",
                "users": 943,
                "items": 1682,
                "interactions": 100_000,
                "digest": "sha256:0f3a" + "9" * 28,
                "groups": {"members": 405, "non_members": 395, "reserve": 143},
            },
            "prompt": {"max_tokens": 512, "titles_cut_share": 0.0, "items_dropped_share": 0.031},
            "audit": {"victims": 200, "rounds": [5], "knowledge": "strongest"},
            "libraries": {"torch": "2.13.0", "transformers": "5.23.0", "peft": "0.21.2"},
            "hardware": {"cpu": "AMD EPYC 9B14", "cores": 2, "memory_bytes": 8_000_000_000, "platform": "Linux x86_64"},
            "seconds": {"data": 0.8, "training": 192.4, "replay": 31.0, "attacks": 44.2, "report": 0.4},
            "not_measured": [
                "Gradients of the return cut: no attack on back_gradients ran.",
                "Several training seeds: intervals hold for this one run.",
            ],
        },
        "findings": history_findings() + membership_findings(),
        "utility": utility_rows(),
        "costs": cost_rows(),
    }


def evidence_document() -> Json:
    """What stands behind ``findings_document``."""
    examples = []
    for k, misses in ((0, ()), (2, (3,)), (4, (1, 3, 4))):
        slots: list[Json] = [
            {"truth": TITLES[i], "guess": TITLES[i + 4] if i in misses else TITLES[i], "hit": i not in misses}
            for i in range(5)
        ]
        examples.append(
            {
                "attack": "ridge",
                "channel": "front_activations",
                "cut": {"front": k, "back": None},
                "client": "c1",
                "row": 17 + k,
                "slots": slots,
                "truth_text": " ".join(s["truth"] for s in slots),
                "guess_text": " ".join(s["truth"] if s["hit"] else s["truth"][:5] + " ane (1990)" for s in slots),
            }
        )
    fpr = [i / 196 for i in range(197)]
    return {
        "schema": "pplr-audit/evidence/1",
        "examples": examples,
        "roc": [
            {
                "attack": "loss",
                "metric_mode": mode,
                "client": "all",
                "cut": None,
                "fpr": list(fpr),
                "tpr": [round(f**power, 6) for f in fpr],
                "auc": auc,
            }
            for mode, power, auc in (("threshold", 0.85, 0.541), ("against the base model", 0.53, 0.655))
        ],
        "training": [
            {"round": r, "client": name, "loss": round(2.4 - 0.1 * i + 1.2 * math.exp(-r / 2), 4)}
            for r in range(1, 6)
            for i, name in enumerate(CLIENTS)
        ],
        "balance": [
            {
                "round": r,
                "clients": CLIENTS,
                "weights": [round(math.tanh(0.7 / (0.1 + 0.05 * i) ** (r / 5)), 4) for i in range(5)],
                "similarity": [
                    [1.0 if i == j else round(0.93 - 0.01 * abs(i - j), 3) for j in range(5)] for i in range(5)
                ],
                "status": [0.1, 0.15, 0.2, 0.25, 0.3],
            }
            for r in range(1, 6)
        ],
    }


def label_examples() -> list[Json]:
    """Next items beside the first guess of an attack, for three users at two cuts."""
    return [
        {
            "attack": "label_match",
            "channel": "back_gradients",
            "cut": {"front": None, "back": m},
            "client": "c1",
            "row": 17 + i,
            "secret": "label",
            "knowledge": "base",
            "slots": [{"truth": TITLES[i], "guess": TITLES[i if i or m == 0 else 8], "hit": bool(i or m == 0)}],
            "truth_text": "",
            "guess_text": "",
        }
        for m in (0, 3)
        for i in range(3)
    ]


@pytest.fixture
def label_rows() -> list[Json]:
    """Findings on the next item: in front, behind, and on both sides."""
    return label_findings()


@pytest.fixture
def next_items() -> list[Json]:
    """Examples of next items."""
    return label_examples()


@pytest.fixture
def findings() -> Json:
    """A findings document that a test may change."""
    return findings_document()


@pytest.fixture
def evidence() -> Json:
    """Its evidence, that a test may change."""
    return evidence_document()


@pytest.fixture
def a_finding() -> Callable[..., Json]:
    """Makes one finding."""
    return finding


@pytest.fixture
def no_finding() -> Callable[..., Json]:
    """Makes one finding without a value."""
    return unmeasured


@pytest.fixture
def a_membership() -> Callable[..., Json]:
    """Makes one membership finding."""
    return membership
