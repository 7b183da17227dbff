"""Who is known and who is asked for: every value in every turn, everyone asked for once, rare values together."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pplr_audit.audit.truth.attribute import AttributeTruth
from pplr_audit.audit.victims.attribute_folds import FEW, Deal, deal
from pplr_audit.data.dataset import Dataset
from pplr_audit.data.prompts import Prompt
from pplr_audit.threat_model.outcomes import NotApplicable


def with_kind(market: Dataset, values: list[str]) -> Dataset:
    rest = [""] * (len(market.users) - len(values))
    return replace(market, attributes={"kind": (*values, *rest)})


@pytest.mark.parametrize("folds", [2, 5, 10])
def test_each_value_is_dealt_evenly_and_the_folds_are_even(small_market: Dataset, folds: int) -> None:
    source = with_kind(small_market, ["a"] * 33 + ["b"] * 21 + ["c"] * 12)
    dealt = deal(source, "kind", range(66), folds, seed=1)
    assert sorted(dealt.values) == sorted(dealt.folds) == list(range(66))
    for users in ([user for user, own in dealt.values.items() if own == value] for value in "abc"):
        sizes = Counter(dealt.folds[user] for user in users)
        assert max(sizes.values()) - min(sizes[fold] for fold in range(folds)) <= 1
    sizes = Counter(dealt.folds.values())
    assert max(sizes.values()) - min(sizes.values()) <= 1
    assert deal(source, "kind", range(65, -1, -1), folds, seed=1) == dealt
    assert deal(source, "kind", range(66), folds, seed=2).folds != dealt.folds


def test_rare_values_count_as_one_or_are_left_out(small_market: Dataset) -> None:
    common = ["a"] * 30 + ["b"] * 30
    together = deal(with_kind(small_market, [*common, *"ccccdddddd"]), "kind", range(70), 5, seed=1)
    assert Counter(together.values.values()) == {"a": 30, "b": 30, "other": FEW}
    alone = deal(with_kind(small_market, [*common, *"ccccddddd"]), "kind", range(69), 5, seed=1)
    assert set(alone.values.values()) == {"a", "b"}
    assert set(alone.folds) == set(range(60))


def test_users_who_do_not_say_it_are_in_no_fold(small_market: Dataset) -> None:
    dealt = deal(with_kind(small_market, ["a"] * 20 + ["b"] * 20), "kind", range(100), 5, seed=1)
    assert sorted(dealt.folds) == list(range(40))


def test_without_the_attribute_or_too_few_users_it_is_not_applicable_and_says_what_there_is(
    small_market: Dataset,
) -> None:
    with pytest.raises(NotApplicable, match=r"synthetic has no attribute 'zip' .*\(there is: age_group, gender\)"):
        deal(small_market, "zip", range(60), 5, seed=1)
    with pytest.raises(NotApplicable, match=r"there is: none"):
        deal(replace(small_market, attributes={}), "zip", range(60), 5, seed=1)
    for values in (["a"] * 50, ["a"] * 50 + ["b"] * 9):
        with pytest.raises(NotApplicable, match=r"too few of 60 victims have a known kind .*a: 50.*audit\.victims"):
            deal(with_kind(small_market, values), "kind", range(60), 5, seed=1)


def truth_of(dealt: Deal, users: Any) -> AttributeTruth:
    """Row 100 + u is of user u."""
    rows = {100 + user: user for user in users}
    nothing = np.zeros(0, dtype=np.int64)
    prompts = dict.fromkeys(rows, Prompt(nothing, nothing, nothing, 0, nothing))
    return dealt.truth(rows, dict.fromkeys(rows, "client-0"), prompts, 3)


@pytest.mark.parametrize("folds", [2, 3, 10])
def test_in_its_turn_nobody_is_told_and_in_all_others_everybody(small_market: Dataset, folds: int) -> None:
    dealt = deal(with_kind(small_market, ["a"] * FEW + ["b"] * 23), "kind", range(40), folds, seed=3)
    truth = truth_of(dealt, range(40))
    assert len(truth.known_by_turn) == folds
    untold = Counter(row for told in truth.known_by_turn for row in truth.values if row not in told)
    assert untold == dict.fromkeys(range(100, 100 + FEW + 23), 1)
    for told in truth.known_by_turn:
        assert all(told[row] == dealt.values[row - 100] for row in told)
        assert Counter(told.values())["a"] >= 5
        with pytest.raises(TypeError):
            told[100] = "b"  # type: ignore[index]


def test_where_too_few_of_them_cross_it_is_not_applicable(small_market: Dataset) -> None:
    dealt = deal(with_kind(small_market, ["a"] * 20 + ["b"] * 20), "kind", range(40), 5, seed=1)
    truth_of(dealt, range(40))
    one_fold = [user for user in range(40) if dealt.folds[user] == 0]
    short = [*range(20), *range(20, 25)]  # of five, one at least is asked for in some turn
    for users in ((), range(20), one_fold, short):
        with pytest.raises(NotApplicable, match="too few victims to learn their kind"):
            truth_of(dealt, users)


def test_each_value_needs_somebody_in_its_fold_to_be_told_from() -> None:
    values = {user: "a" if user < 20 else "b" for user in range(40)}
    apart = Deal("kind", values, {user: user // 10 for user in range(40)})
    with pytest.raises(NotApplicable, match="too few victims to learn their kind"):
        truth_of(apart, range(40))
    met = Deal("kind", values, {user: user // 10 if user < 39 else 0 for user in range(40)})
    assert truth_of(met, range(40)).comparable
