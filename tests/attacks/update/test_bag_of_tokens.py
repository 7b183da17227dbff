"""Bags of tokens: a mixture of p-values as another optimizer finds it, and titles made of tokens that are there."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

from pplr_audit.attacks.update.bag_of_tokens import Titles, mixture
from pplr_audit.data.prompts import Prompts, ragged


def catalogue(titles: list[list[int]]) -> Prompts:
    texts, nothing = ragged(titles), np.array([0])
    found: Any = SimpleNamespace(
        titles=texts, content=ragged([[1] * len(title) for title in titles]), prefix=nothing, separator=nothing,
        suffix=nothing, end=nothing, bos=nothing, eos=0, pad=0,
    )  # fmt: skip
    return found  # type: ignore[no-any-return]


@pytest.mark.parametrize(("share", "shape"), [(0.3, 0.1), (0.7, 0.25)])
def test_themixture_is_the_one_that_makes_the_p_values_likeliest(share: float, shape: float) -> None:
    """Pounds and Morris 2003, equation 2, maximized by a library's optimizer."""
    drawn = np.random.default_rng(0)
    p = np.where(drawn.random(4000) < share, drawn.random(4000) ** (1 / shape), drawn.random(4000)).clip(1e-12)

    def unlikely(x: np.ndarray) -> float:
        return -float(np.log(1 - x[0] + x[0] * x[1] * p ** (x[1] - 1)).sum())

    best = minimize(unlikely, [0.5, 0.5], bounds=[(1e-6, 1 - 1e-6), (1e-3, 1 - 1e-6)]).x
    found = mixture(p)
    assert found == pytest.approx(tuple(best), abs=0.02)
    assert found == pytest.approx((share, shape), abs=0.06)


def test_a_title_of_rare_tokens_tells_more_and_one_that_is_not_there_rules_a_title_out() -> None:
    common, rare = [*range(1, 5)], [*range(10, 30)]
    titles = [[1, 2], [1, rare[0]], [rare[1], rare[2]], [1, rare[3]]]
    titles += [[common[place % 4], rare[4 + place % 16]] for place in range(60)]
    names = Titles(catalogue(titles))
    evidence = np.zeros(200)
    there = {1, 2, rare[0], rare[1], rare[2]}
    evidence[[*there]] = 1.0
    bag = names.bag(evidence)
    surely = dict(zip(names.tokens.tolist(), bag.present > 0.5, strict=True))
    assert {token for token, held in surely.items() if held} == there
    odds = names.items(bag)
    assert odds[2] > odds[1] > odds[0] > odds[3], "two rare tokens, one, none, and one that is not there"
    assert odds[0] > 0 > odds[3]


def test_noise_on_every_row_is_told_from_what_moved_by_tokens_that_no_prompt_can_hold() -> None:
    titles = [[token, token + 40] for token in range(1, 41)]
    names, drawn = Titles(catalogue(titles)), np.random.default_rng(1)
    evidence = np.abs(drawn.normal(size=2000))
    there = np.arange(1, 11)
    evidence[np.concatenate([there, there + 40])] += 6.0
    odds = names.items(names.bag(evidence))
    assert set(np.argsort(-odds)[:10].tolist()) == set(range(10))


def test_evidence_that_is_the_same_for_all_tokens_tells_nothing_of_any() -> None:
    names = Titles(catalogue([[token, token + 40] for token in range(1, 41)]))
    odds = names.items(names.bag(np.ones(2000)))
    assert np.ptp(odds) == pytest.approx(0)
