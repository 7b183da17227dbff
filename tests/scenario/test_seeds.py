"""Seeds by name."""

import subprocess
import sys

import numpy as np
import torch

from pplr_audit.scenario.seeds import derive


def test_the_seed_of_a_name_is_what_it_always_was():
    # Stored runs lean on these: a change here changes every run there is.
    assert derive(0) == 15041073954064335159
    assert derive(0, "coin", 3) == 9997050005980941699


def test_names_seeds_and_their_order_all_count():
    seeds = [derive(0), derive(1), derive(0, "a"), derive(0, "a", "b"), derive(0, "b", "a"), derive(0, "ab")]
    seeds += [derive(0, 1), derive(0, "1"), derive(0, 1, 1), derive(0, 11)]
    assert len(set(seeds)) == len(seeds)


def test_numpy_integers_are_integers():
    assert derive(np.int64(5), np.int64(3)) == derive(5, 3)


def test_another_process_derives_the_same():
    code = "from pplr_audit.scenario.seeds import derive; print(derive(7, 'é', 2))"
    assert int(subprocess.check_output([sys.executable, "-c", code])) == derive(7, "é", 2)


def test_numpy_and_torch_take_it():
    for name in range(100):
        np.random.default_rng(derive(0, name))
        torch.Generator().manual_seed(derive(0, name))
