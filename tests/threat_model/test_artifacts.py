"""Fits are kept by what they follow from: made once, handed out as copies, and told apart by every part of it."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from pplr_audit.threat_model.artifacts import Artifacts, digest
from pplr_audit.threat_model.outcomes import BudgetExhausted, NotApplicable


def test_a_fit_is_made_once_and_handed_out_as_a_copy() -> None:
    artifacts, made = Artifacts(), []

    def make(missing: Sequence[int]) -> Iterator[tuple[int, dict[str, Tensor]]]:
        made.append(list(missing))
        yield from ((place, {"x": torch.full((2,), float(place))}) for place in missing)

    first = artifacts.fitted("fit", {1: {"a": 1}}, make, 1)
    first["x"].zero_()
    sources = {1: {"a": 1}, 2: {"a": 2}, 3: {"a": 3}}
    assert artifacts.fitted("fit", sources, make, 1)["x"].tolist() == [1.0, 1.0]
    assert artifacts.fitted("fit", sources, make, 3)["x"].tolist() == [3.0, 3.0]
    assert artifacts.fitted("fit", sources, make, 2)["x"].tolist() == [2.0, 2.0]
    assert made == [[1], [2, 3]], "whatever is missing is made together"
    artifacts.fitted("other", {1: {"a": 1}}, make, 1)
    assert made[-1] == [1], "another kind is another fit"


def test_a_budget_that_was_not_enough_is_not_tried_again_and_what_was_made_before_stays() -> None:
    artifacts, tries = Artifacts(), []

    def make(missing: Sequence[int]) -> Iterator[tuple[int, dict[str, Tensor]]]:
        tries.append(list(missing))
        yield missing[0], {"x": torch.zeros(1)}
        raise BudgetExhausted("too much")

    sources = {1: {"a": 1}, 2: {"a": 2}}
    for _ in range(2):
        with pytest.raises(BudgetExhausted, match="too much"):
            artifacts.fitted("fit", sources, make, 2)
    assert artifacts.fitted("fit", sources, make, 1)["x"].tolist() == [0.0]
    assert tries == [[1, 2]]


def test_what_cannot_be_made_is_tried_again() -> None:
    artifacts, tries = Artifacts(), []

    def make(missing: Sequence[int]) -> Iterator[tuple[int, dict[str, Tensor]]]:
        tries.append(list(missing))
        raise NotApplicable("nothing to learn from")
        yield

    for _ in range(2):
        with pytest.raises(NotApplicable):
            artifacts.fitted("fit", {1: {}}, make, 1)
    assert len(tries) == 2


@pytest.mark.parametrize("kind", ["", "../fit", "Fit", "a b", "1fit", "a/b"])
def test_a_kind_that_is_no_name_of_a_file_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="accepted: small letters"):
        Artifacts().fitted(kind, {1: {}}, lambda _: [], 1)


def test_a_hash_tells_values_types_shapes_and_names_apart() -> None:
    x = torch.arange(6, dtype=torch.float32)
    told = [
        digest(x), digest(x.double()), digest(x.reshape(2, 3)), digest(x + 1), digest({"a": x}), digest({"b": x}),
        digest(x, x), digest(x.bfloat16()), digest(np.arange(6)), digest(None), digest("a"), digest([1, 2]), digest(),
    ]  # fmt: skip
    assert len(set(told)) == len(told)
    assert digest({"a": x, "b": x}) == digest({"b": x, "a": x}), "names have no order"
    assert digest(x.reshape(2, 3).T) == digest(x.reshape(2, 3).T.contiguous())
