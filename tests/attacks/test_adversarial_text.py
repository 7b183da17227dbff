"""The text of an adversarial attack is read in batches, all of it before any of it again."""

from itertools import chain, islice
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from pplr_audit.attacks.active.adversarial import MOST, auxiliary_text, batches


@pytest.mark.parametrize(("count", "size"), [(24, 8), (26, 8), (8, 8)])
def test_nothing_comes_again_before_all_that_fills_batches_has_come(count: int, size: int) -> None:
    text = cast(Any, range(count))
    a_round = count // size
    found = list(islice(batches(text, size, np.random.default_rng(0)), 3 * a_round))
    assert {len(batch) for batch in found} == {size}
    rounds = [list(chain(*found[start : start + a_round])) for start in range(0, len(found), a_round)]
    assert [len(set(each)) for each in rounds] == [size * a_round] * 3
    assert rounds[0] != rounds[1] != rounds[2]
    same = islice(batches(text, size, np.random.default_rng(0)), 3 * a_round)
    assert found == list(same)


@pytest.mark.parametrize(
    ("steps", "batch", "drawn"), [(400, 8, 3200), (10**6, 8, MOST), (1, 10_000, 10_000), (2, 10_000, 10_000)]
)
def test_as_much_text_is_drawn_as_is_read_but_no_more_than_a_few_thousand_prompts_or_a_batch(
    steps: int, batch: int, drawn: int
) -> None:
    knowledge = cast(Any, SimpleNamespace(draw=lambda count, generator: generator.permutation(count).tolist()))
    text = auxiliary_text(knowledge, steps, batch, 0)
    assert len(text) == drawn
    assert text == auxiliary_text(knowledge, steps, batch, 0) != auxiliary_text(knowledge, steps, batch, 1)
    assert len(next(batches(text, batch, np.random.default_rng(0)))) == batch
