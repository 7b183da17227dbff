"""The loss attack separates what was learned from what was not, and nothing else."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch

from pplr_audit import scenario
from pplr_audit.attacks.membership.loss import Loss
from pplr_audit.audit.knowledge.known_model import KnownModel
from pplr_audit.data.dataset import Dataset
from pplr_audit.data.prompts import Prompt, collate
from pplr_audit.models.build import Recommender, build
from pplr_audit.models.cut import positions
from pplr_audit.models.lora import adapter_parameters, read_adapter
from pplr_audit.models.recommenders.bigrec import answer_loss, tensors
from pplr_audit.scoring.membership import auc
from pplr_audit.threat_model.attack import Budget
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.outcomes import NotApplicable
from pplr_audit.threat_model.view import Record, View


@pytest.fixture(scope="module")
def model(small_scenario: scenario.Scenario, small_market: Dataset) -> Recommender:
    return build(small_scenario.model, small_market.catalogue, history=3, seed=1)


@pytest.fixture(scope="module")
def by_heart(model: Recommender) -> dict[str, torch.Tensor]:
    """Trained on the first 20 of 40 queries."""
    return overfitted(model, queries(model, 40)[:20], 120)


def queries(model: Recommender, count: int) -> list[Prompt]:
    generator = np.random.default_rng(4)
    return [model.prompts.build(generator.integers(48, size=3), int(generator.integers(48))) for _ in range(count)]


def overfitted(model: Recommender, prompts: list[Prompt], steps: int) -> dict[str, torch.Tensor]:
    """An adapter trained on ``prompts`` until it knows them by heart."""
    network = model.whole.model
    parameters = adapter_parameters(network)
    before = read_adapter(parameters)
    optimizer = torch.optim.AdamW(parameters.values(), lr=0.02)
    tokens, mask, learned = tensors(collate(prompts, model.prompts.pad))
    for _ in range(steps):
        logits = network(input_ids=tokens, attention_mask=mask, position_ids=positions(mask), use_cache=False).logits
        answer_loss(logits, tokens, learned).backward()
        optimizer.step()
        optimizer.zero_grad()
    after = read_adapter(parameters)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(before[name])
    return after


def looked_at(model: Recommender, prompts: list[Prompt], adapter: dict[str, torch.Tensor]) -> tuple[View, Knowledge]:
    answers = model.whole.log_probs(prompts, adapter)
    records = [Record(row, "client-0", 3, -1, torch.from_numpy(answer)) for row, answer in enumerate(answers)]
    view = View("outsider", Channel.MODEL_OUTPUT, None, None, "none", tuple(records))
    base = KnownModel(model.whole, None)
    known = Knowledge(
        "base", model.prompts, model.whole.embeddings, base, {}, (0,), 3, 3, queries=dict(enumerate(prompts))
    )  # fmt: skip
    return view, known


@pytest.mark.parametrize("mode", ["threshold", "reference"])
def test_members_of_an_overfitted_model_stand_out(
    model: Recommender, by_heart: dict[str, torch.Tensor], mode: str
) -> None:
    prompts = queries(model, 40)
    view, known = looked_at(model, prompts, by_heart)
    guess = Loss().run(view, known, Budget(60))
    labels = (guess.arrays["rows"] < 20).astype(int)
    assert auc(guess.arrays[mode], labels) > 0.9


def test_of_a_model_that_has_learned_nothing_the_reference_mode_says_nothing(model: Recommender) -> None:
    prompts = queries(model, 40)
    view, known = looked_at(model, prompts, dict(model.initial))
    guess = Loss().run(view, known, Budget(60))
    assert np.allclose(guess.arrays["reference"], 0, atol=1e-6)


def test_shuffled_outputs_give_chance(model: Recommender, by_heart: dict[str, torch.Tensor]) -> None:
    prompts = queries(model, 40)
    view, known = looked_at(model, prompts, by_heart)
    attack = Loss()
    values = []
    for number in range(20):
        guess = attack.run(view.shuffled(np.random.default_rng(number)), known, Budget(60))
        values.append(auc(guess.arrays["threshold"], (guess.arrays["rows"] < 20).astype(int)))
    assert abs(float(np.mean(values)) - 0.5) < 0.1


def test_the_base_model_is_asked_once_for_each_query(model: Recommender) -> None:
    class Counting:
        digest = "counts"

        def __init__(self) -> None:
            self.asked = 0

        def states(
            self, prompts: Sequence[Prompt], layers: Sequence[int]
        ) -> Iterator[tuple[int, dict[int, torch.Tensor]]]:
            raise AssertionError

        def log_probs(self, prompts: Sequence[Prompt]) -> list[np.ndarray]:
            self.asked += len(prompts)
            return [np.zeros(3)] * len(prompts)

    prompts = queries(model, 6)
    view, known = looked_at(model, prompts, dict(model.initial))
    base = Counting()
    counted = Knowledge("base", known.prompts, known.embeddings, base, {}, (0,), 3, 3, queries=known.queries)
    attack = Loss()
    for number in range(3):
        attack.run(view.shuffled(np.random.default_rng(number)), counted, Budget(60))
    assert base.asked == 6


def test_an_answer_to_no_query_is_not_applicable(model: Recommender) -> None:
    prompts = queries(model, 4)
    view, known = looked_at(model, prompts, dict(model.initial))
    fewer = Knowledge("base", known.prompts, known.embeddings, known.base, {}, (0,), 3, 3, queries={0: prompts[0]})
    with pytest.raises(NotApplicable, match="3 answers belong to no query"):
        Loss().run(view, fewer, Budget(60))
