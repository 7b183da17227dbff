"""Observations of each type are dealt as their type says: nothing keeps what is its own."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pplr_audit.threat_model import Aggregate, Answer, Channel, Record, Update, View


def update(row: int, client: str, round_: int) -> Update:
    return Update(row, client, round_, {"w": torch.full((2,), float(row))}, {"w": torch.full((2,), -float(row))})


def view(*records: Update) -> View[Update]:
    return View("server", Channel.CLIENT_UPDATE, 1, 1, "none", records)


@pytest.mark.parametrize("clients", [2, 3, 7])
def test_an_update_is_dealt_to_another_client_with_the_adapter_that_it_started_from(clients: int) -> None:
    seen = view(*(update(row, f"client-{row}", 2) for row in range(clients)))
    shuffled = seen.shuffled(np.random.default_rng(3))
    came_from = [int(each.tensors["w"][0]) for each in shuffled.records]
    assert sorted(came_from) == list(range(clients))
    assert all(row != other for row, other in enumerate(came_from))
    for before, after in zip(seen.records, shuffled.records, strict=True):
        assert (after.row, after.client, after.round) == (before.row, before.client, before.round)
        assert torch.equal(after.start["w"], -after.tensors["w"])


def test_updates_of_earlier_rounds_stay_as_their_owners_are_known() -> None:
    earlier = [update(row, f"client-{row}", 1) for row in range(3)]
    seen = view(*earlier, *(update(3 + row, "", 2) for row in range(3)))
    shuffled = seen.shuffled(np.random.default_rng(3)).records
    assert shuffled[:3] == tuple(earlier)
    assert all(int(each.tensors["w"][0]) != each.row for each in shuffled[3:])


def test_where_a_round_has_one_update_or_one_sum_there_is_nobody_to_deal_it_to() -> None:
    assert not view(update(0, "client-0", 2)).dealable
    assert not view(update(0, "client-0", 1), update(1, "client-0", 2)).dealable
    sums = [Aggregate(row, ("client-0", "client-1"), row, {"w": torch.ones(2)}) for row in (1, 2)]
    assert not View("server", Channel.AGGREGATE, 1, 1, "none", tuple(sums)).dealable
    answers = [Answer(row, "client-0", 3, -1, torch.zeros(4)) for row in range(2)]
    assert View("outsider", Channel.MODEL_OUTPUT, None, None, "none", tuple(answers)).dealable


@pytest.mark.parametrize("broken", [{}, {"w": torch.tensor([float("nan")])}, {"w": torch.empty(0)}])
def test_a_broken_update_is_left_out_and_the_others_stay(broken: dict[str, torch.Tensor]) -> None:
    whole = update(0, "client-0", 2)
    seen = view(whole, replace(update(1, "client-1", 2), tensors=broken))
    assert seen.legible().records == (whole,)
    assert seen.rows == {0, 1}


def test_rows_are_those_of_the_records_unless_others_are_asked_about() -> None:
    records = (Record(4, "client-0", 2, 0, torch.ones(2, 3)),)
    assert View("server", Channel.FRONT_ACTIVATIONS, 1, None, "none", records).rows == {4}
    asked = View("peer", Channel.PERSONAL_MODEL, 1, 1, "none", (update(9, "client-0", 2),), {0: "client-1"})
    assert asked.rows == {0}
