"""Queries are answered by the personal models; to a server by those that it made and holds."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pplr_audit import scenario
from pplr_audit.audit.replay.records import query_records
from pplr_audit.data.dataset import Dataset
from pplr_audit.models.build import Recommender, build
from pplr_audit.training.rounds import RoundState


@pytest.fixture(scope="module")
def model(small_scenario: scenario.Scenario, small_market: Dataset) -> Recommender:
    return build(small_scenario.model, small_market.catalogue, history=3, seed=1)


def drawn(model: Recommender, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: value + 0.05 * torch.randn(value.shape, generator=generator) for name, value in model.initial.items()}


def test_a_personal_model_beside_the_shared_one_answers_outsiders_and_the_shared_one_the_server(
    model: Recommender,
) -> None:
    shared, personal = drawn(model, 1), drawn(model, 2)
    state = RoundState(3, {"a": shared, "b": shared}, {}, personal={"a": personal})
    prompts = [model.prompts.build(np.array([1, 2, 3]), 4), model.prompts.build(np.array([5, 6]), 7)]
    queries = {client: list(enumerate(prompts, first)) for client, first in (("a", 0), ("b", 2))}
    outside, held = (query_records(model.whole, state, queries, held=held) for held in (False, True))
    for records, of_a in ((outside, personal), (held, shared)):
        wanted = [*model.whole.log_probs(prompts, of_a), *model.whole.log_probs(prompts, shared)]
        assert [record.row for record in records] == [0, 1, 2, 3]
        assert [record.client for record in records] == ["a", "a", "b", "b"]
        assert all(np.array_equal(r.tensor.numpy(), each) for r, each in zip(records, wanted, strict=True))
