"""Who is known and who is asked for: every value on both sides, nobody on two, rare values together."""

from collections import Counter
from dataclasses import replace

import pytest

from pplr_audit.attributes import FEW, deal
from pplr_audit.data.dataset import Dataset
from pplr_audit.errors import NotApplicable


def with_kind(market: Dataset, values: list[str]) -> Dataset:
    rest = [""] * (len(market.users) - len(values))
    return replace(market, attributes={"kind": (*values, *rest)})


def test_each_value_is_on_both_sides_by_the_share_and_nobody_on_two(small_market: Dataset) -> None:
    source = with_kind(small_market, ["a"] * 40 + ["b"] * 20)
    dealt = deal(source, "kind", range(60), 0.3, seed=1)
    assert Counter(dealt.known.values()) == {"a": 12, "b": 6}
    assert Counter(dealt.asked.values()) == {"a": 28, "b": 14}
    assert not set(dealt.known) & set(dealt.asked)
    assert deal(source, "kind", range(59, -1, -1), 0.3, seed=1) == dealt
    assert deal(source, "kind", range(60), 0.3, seed=2).known != dealt.known


def test_rare_values_count_as_one_or_are_left_out(small_market: Dataset) -> None:
    common = ["a"] * 30 + ["b"] * 30
    together = deal(with_kind(small_market, [*common, *"ccccdddddd"]), "kind", range(70), 0.5, seed=1)
    assert Counter(together.known.values()) == {"a": 15, "b": 15, "other": FEW}
    alone = deal(with_kind(small_market, [*common, *"cccc"]), "kind", range(64), 0.5, seed=1)
    assert set(alone.known.values()) == set(alone.asked.values()) == {"a", "b"}


def test_users_who_do_not_say_it_are_on_neither_side(small_market: Dataset) -> None:
    dealt = deal(with_kind(small_market, ["a"] * 20 + ["b"] * 20), "kind", range(100), 0.5, seed=1)
    assert sorted([*dealt.known, *dealt.asked]) == list(range(40))


def test_without_the_attribute_or_too_few_users_it_is_not_applicable_and_says_what_there_is(
    small_market: Dataset,
) -> None:
    with pytest.raises(NotApplicable, match=r"synthetic has no attribute 'zip' .*\(there is: age_group, gender\)"):
        deal(small_market, "zip", range(60), 0.5, seed=1)
    with pytest.raises(NotApplicable, match=r"there is: none"):
        deal(replace(small_market, attributes={}), "zip", range(60), 0.5, seed=1)
    for values in (["a"] * 50, ["a"] * 50 + ["b"] * 8):
        with pytest.raises(NotApplicable, match=r"too few of 60 victims say their kind .*a: 50.*audit\.victims"):
            deal(with_kind(small_market, values), "kind", range(60), 0.5, seed=1)
