"""Clients of real data are the same on any number of threads."""

import os
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from pplr_audit import scenario
from pplr_audit.data.prepare import prepare

DATA = Path(os.environ.get("PPLR_AUDIT_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")


def test_the_same_seed_makes_the_same_clients_on_one_thread_and_on_two() -> None:
    if not (DATA / "amazon-games").is_dir():
        pytest.skip(f"NOT TESTED ON REAL DATA: no {DATA / 'amazon-games'}; set PPLR_AUDIT_DATA")
    data = scenario.Data(path=str(DATA / "amazon-games"), split="given", clients=5, audit_users=2)
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            found.append(prepare(data, 0).population.client_of)
    assert np.array_equal(*found)
