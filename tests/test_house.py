"""The house itself: what it runs in, what it declares, and which pages it keeps."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_what_a_shell_has_set_reaches_no_program_of_ours() -> None:
    odd = ["PYTHONUNBUFFERED", "PYTHONPATH", "OPENBLAS_CORETYPE", "OMP_NUM_THREADS", "PPLR_AUDIT_CACHE", "LC_ALL"]
    kept = {"HOME": "/h o", "PATH": os.environ["PATH"], "CI": "true", "PIP_INDEX_URL": "https://x/", "no_proxy": "a,b"}
    done = subprocess.run(
        [ROOT / ".ci" / "alone", "ONE=1", "env", "-0"],
        env={**dict.fromkeys(odd, "1"), **kept, "LANG": "de_DE"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    got = dict(line.split("=", 1) for line in done.stdout.rstrip("\0").split("\0"))
    assert got == {**kept, "LANG": "C.UTF-8", "ONE": "1"}


@pytest.mark.parametrize("target", ["demo", "test", "schema"])
def test_all_that_make_runs_is_run_that_way(target: str) -> None:
    done = subprocess.run(["make", "-nB", target], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [line for line in done.stdout.splitlines() if not line.startswith(("touch ", "make:"))]
    assert len(lines) >= 4
    assert [line for line in lines if not line.startswith(".ci/alone ")] == []
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == "exec .ci/alone make test"
