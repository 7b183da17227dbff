"""Queries are answered by the personal models; to a server by those that it made and holds."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pplr_audit import scenario
from pplr_audit.audit.queries import asked
from pplr_audit.audit.replay.records import query_records
from pplr_audit.data.dataset import Dataset
from pplr_audit.models.build import Recommender, build
from pplr_audit.training.rounds import RoundState
from pplr_audit.training.side_by_side import allowed


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


@pytest.mark.parametrize("of", ["small_scenario", "recformer_scenario"])
def test_queries_asked_side_by_side_have_the_same_bits(
    of: str, small_market: Dataset, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pplr_audit.models.recommenders.recformer.POSITIONS", 800)
    settings = request.getfixturevalue(of)
    made = build(settings.model, small_market.catalogue, history=3, seed=1)
    generator = np.random.default_rng(1)
    prompts = [
        made.prompts.build(generator.integers(0, 20, size=generator.integers(1, 4)), int(generator.integers(0, 20)))
        for _ in range(150)
    ]
    assert len(made.whole.task.query_batches(prompts)) > 2
    for adapter in (None, drawn(made, 3)):
        wanted = made.whole.log_probs(prompts, adapter)
        with allowed(2):
            found = asked(made.whole, prompts, adapter)
        assert all(np.array_equal(each, other) for each, other in zip(found, wanted, strict=True))
