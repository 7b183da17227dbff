"""Titles generated in serving are recorded as they cross a live link, token by token."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pplr_audit import scenario
from pplr_audit.audit.replay.generated import Recommended, generated_records
from pplr_audit.audit.tap_points import Trace
from pplr_audit.data.prepare import PrivateData, prepare
from pplr_audit.data.samples import serving_samples
from pplr_audit.models.recommenders import bigrec
from pplr_audit.threat_model.channels import Channel, Crossing
from pplr_audit.threat_model.view import Record
from tests.audit.replay.test_records import trained_at
from tests.conftest import users_of


@pytest.fixture(scope="module")
def private(small_scenario: scenario.Scenario) -> PrivateData:
    return prepare(small_scenario.data, small_scenario.seed)


def wordy(monkeypatch: pytest.MonkeyPatch, end: int) -> None:
    """Let the model, which is too small to do so itself, go on before it ends a title."""

    def without_end(self: object, input_ids: Tensor, scores: Tensor) -> Tensor:
        scores = scores.clone()
        scores[:, end] = -float("inf")
        return scores

    monkeypatch.setattr(bigrec._Finite, "__call__", without_end)


@pytest.mark.parametrize("front", [0, 1, 2])
def test_generated_tokens_are_recorded_as_they_cross(
    small_scenario: scenario.Scenario, private: PrivateData, front: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, federation, _, states = trained_at(small_scenario, private, front, 0)
    wordy(monkeypatch, model.prompts.eos)
    client = federation.clients[0]
    asked = serving_samples(private.split, users_of(private, client.name)[:4], small_scenario.data.history)
    prompts = [model.prompts.build(asked.history[i]) for i in range(len(asked))]
    live: list[Crossing] = []
    for prompt in prompts:
        federation.link.recorder = live.append
        with client.served(federation.link).model() as live_model:
            (answer,) = bigrec.generate_answers(live_model, [prompt], model.prompts, beams=1)
        federation.link.recorder = None
        sent = [c.tensors["hidden"][0] for c in live if c.channel == Channel.INFERENCE_ACTIVATIONS]
        live.clear()
        assert len(sent) == len(answer) > 2, "the prompt, and each token but the last"
        found: dict[Trace, Record] = {}
        given = Recommended({client.name: [(7, prompt)]}, {7: answer}, {7: 0})
        generated_records(model.whole, states[-1], given, [front], found.__setitem__)
        assert [*found] == [Trace("generated", front)]
        (record,) = found.values()
        assert (record.row, record.client, record.step) == (7, client.name, -1)
        torch.testing.assert_close(record.tensor, torch.cat(sent[1:]), rtol=1e-4, atol=1e-5)


def test_an_answer_ends_with_the_first_end_token_and_one_without_words_leaves_no_record(
    small_scenario: scenario.Scenario, private: PrivateData
) -> None:
    model, federation, _, states = trained_at(small_scenario, private, 1, 1)
    client = federation.clients[0]
    prompt = model.prompts.build(private.samples[client.name].history[0])
    answers = bigrec.generate_answers(model.whole.model, [prompt], model.prompts, beams=2)
    titles = bigrec.generate_titles(model.whole.model, [prompt], model.prompts, beams=2)
    assert np.array_equal(bigrec._title(answers[0], model.prompts), titles[0])
    assert (answers[0] == model.prompts.eos).sum() <= 1
    found: list[Record] = []
    given = Recommended({client.name: [(0, prompt)]}, {0: np.array([model.prompts.eos])}, {0: 3})
    generated_records(model.whole, states[-1], given, [1], lambda _, record: found.append(record))
    assert found == []
