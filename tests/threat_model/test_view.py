"""Views hold no user, and a shuffled one leaves nothing to find."""

import numpy as np
import pytest
import torch

from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.view import Record, View


def test_the_view_handed_to_an_attack_holds_no_user_and_a_shuffled_one_keeps_no_row_in_place() -> None:
    records = tuple(Record(row, f"client-{row % 2}", 1, 0, torch.full((2, 3), float(row))) for row in range(9))
    view = View("server", Channel.FRONT_ACTIVATIONS, 1, None, "none", records)
    shuffled = view.shuffled(np.random.default_rng(1))
    for record in shuffled.records:
        came_from = int(record.tensor[0, 0])
        assert came_from != record.row
        assert came_from % 2 == record.row % 2  # of the same client
    told = {"row", "client", "round", "step", "tensor", "batch", "also_reads", "occurrence", "generated"}
    assert set(Record.__dataclass_fields__) == told


@pytest.mark.parametrize("clients", ["ab", "abc", "aab", "aabbc", "abcdef"])
def test_where_a_client_has_one_record_it_is_dealt_across_clients(clients: str) -> None:
    records = tuple(Record(row, name, 1, 0, torch.full((2, 3), float(row))) for row, name in enumerate(clients))
    shuffled = View("server", Channel.FRONT_ACTIVATIONS, 1, None, "none", records).shuffled(np.random.default_rng(1))
    came_from = [int(record.tensor[0, 0]) for record in shuffled.records]
    assert sorted(came_from) == list(range(len(clients)))
    assert all(row != other for row, other in enumerate(came_from))
    assert [record.client for record in shuffled.records] == list(clients)
