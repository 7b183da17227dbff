"""Attacks on membership made of scores alone: the test of an AUC and its correction, as many attacks as wanted."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm

from pplr_audit.scoring.influence import of_auc
from pplr_audit.scoring.intervals import Estimate, proportion_interval
from pplr_audit.scoring.membership import within_groups_auc
from pplr_audit.scoring.rank_test import auc_p
from pplr_audit.scoring.verdicts import ALPHA, Claim, Measured, Reference, compared, corrected, variance_of


def _beside_the_package(name: str) -> Any:
    """A module of benchmarks/, which are programs and no package."""
    file = Path(__file__).parents[2] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


simulated = _beside_the_package("simulated_audits")
"""Whole audits of such scores, and the ideal test."""


def above(areas: Sequence[float], side: int, generator: np.random.Generator, together: float = 0.0) -> list[bool]:
    """Tell for each attack whether it is above its baseline in one audit, by the test of an AUC and its correction.

    Args:
        areas: by attack, the true AUC (binormal).
        side: members, and as many non-members.
        together: how far the attacks' scores go together, from 0 to 1.
    """
    labels, clients = simulated.candidates(side)
    shared = generator.normal(size=2 * side)
    claims = []
    for area in areas:
        noise = together**0.5 * shared + (1 - together) ** 0.5 * generator.normal(size=2 * side)
        scores = noise + labels * norm.ppf(area) * 2**0.5
        own = measured(scores, labels, clients)
        p = compared(own, Reference("chance", 0.5, p=auc_p(scores, labels, clients))).p
        claims.append(Claim(p, (own.influence,)))
    return [p <= ALPHA for p in corrected(claims, seed=int(generator.integers(2**31)), draws=1000)]


def measured(scores: Any, labels: Any, clients: Any) -> Measured:
    """An AUC with its influence, and the interval that follows from it."""
    value = within_groups_auc(scores, labels, clients)
    moved = of_auc(scores, labels, np.arange(len(scores)), clients)
    pairs = len(scores) // 2
    low, high = proportion_interval(value, variance_of(moved, pairs), pairs)
    return Measured(Estimate(value, low, high, len(scores)), moved, pairs)
