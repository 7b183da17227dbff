"""bfloat16 under autocast: near float32, the same bits at every cut, and float32 in all that is kept or crosses."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pplr_audit import scenario
from pplr_audit.data.dataset import Dataset
from pplr_audit.data.prepare import PrivateData, prepare
from pplr_audit.models import precision
from pplr_audit.models.build import Recommender, build
from pplr_audit.models.recommenders.bigrec import generate_titles
from pplr_audit.training.link import Wire
from pplr_audit.training.rounds import assemble, train
from pplr_audit.training.strategies.pplr import Pplr


def made(told: scenario.Scenario, market: Dataset, chosen: str, front: int = 1, back: int = 1) -> Recommender:
    settings = told.model.model_copy(update={"precision": chosen, "cut": scenario.Cut(front=front, back=back)})
    return build(settings, market.catalogue, history=3, seed=1)


@pytest.fixture(scope="module")
def private(small_scenario: scenario.Scenario) -> PrivateData:
    return prepare(small_scenario.data, small_scenario.seed)


def test_it_is_near_float32_and_really_another_format(small_scenario: scenario.Scenario, small_market: Dataset) -> None:
    losses = {}
    for chosen in ("float32", "bfloat16"):
        model = made(small_scenario, small_market, chosen)
        prompts = [model.prompts.build(np.array([1, 2, 3]), 4), model.prompts.build(np.array([5]), 6)]
        losses[chosen] = float(model.task.loss(model.whole.model, prompts, {}).detach())
        assert model.precision == chosen
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)
    assert losses["bfloat16"] != losses["float32"]


@pytest.mark.parametrize(("chosen", "attention"), [("float32", "sdpa"), ("bfloat16", "eager")])
def test_every_block_of_every_part_attends_as_its_number_format_is_fast_in(
    small_scenario: scenario.Scenario, small_market: Dataset, chosen: str, attention: str
) -> None:
    model = made(small_scenario, small_market, chosen)
    parts = (model.whole.model, model.parts.client, model.parts.trunk)
    found = [
        m.config._attn_implementation
        for part in parts
        for m in part.modules()
        if type(m).__name__.endswith("Attention")
    ]
    assert found
    assert set(found) == {attention}
    masks = {model.whole.model.config._attn_implementation, model.parts.client.config._attn_implementation}
    assert masks == {attention}


def test_a_training_has_the_same_bits_at_every_cut_and_keeps_and_sends_float32(
    small_scenario: scenario.Scenario, small_market: Dataset, private: PrivateData
) -> None:
    ends, sent = [], set()
    for front, back in ((1, 1), (0, 0), (3, 0)):
        model = made(small_scenario, small_market, "bfloat16", front, back)
        training = small_scenario.training
        federation = assemble(
            private.samples, model, training, Pplr(training), seed=1,
            wire=Wire(recorder=lambda c: sent.update((str(c.channel), t.dtype) for t in c.tensors.values())),
        )  # fmt: skip
        train(federation, 1, done=lambda log, state: ends.append(state.adapters))
    assert all(value.dtype == torch.float32 for adapter in ends[0].values() for value in adapter.values())
    for other in ends[1:]:
        assert all(torch.equal(v, other[c][n]) for c, adapter in ends[0].items() for n, v in adapter.items())
    assert {dtype for channel, dtype in sent if "activations" in channel or "gradients" in channel} == {torch.float32}


def test_a_copy_computes_with_its_own_weights(small_scenario: scenario.Scenario, small_market: Dataset) -> None:
    model = made(small_scenario, small_market, "bfloat16")
    tokens = torch.tensor([[1, 2, 3]])
    before = model.whole.model(input_ids=tokens).logits
    other = copy.deepcopy(model.whole.model)
    assert torch.equal(other(input_ids=tokens).logits, before)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert not other(input_ids=tokens).logits.any()
    assert torch.equal(model.whole.model(input_ids=tokens).logits, before)


def test_a_recformer_has_the_same_bits_at_every_cut(recformer_scenario: scenario.Scenario) -> None:
    """What enters an encoder's block is multiplied at once; a cast of it that were kept would sum its gradients."""
    data = prepare(recformer_scenario.data, recformer_scenario.seed)
    ends = []
    for front, back in ((3, 0), (2, 0), (1, 1)):
        model = made(recformer_scenario, data.dataset, "bfloat16", front, back)
        training = recformer_scenario.training
        federation = assemble(data.samples, model, training, Pplr(training), seed=1)
        train(federation, 1, done=lambda log, state: ends.append(state.adapters))
    for other in ends[1:]:
        assert all(torch.equal(v, other[c][n]) for c, adapter in ends[0].items() for n, v in adapter.items())


def test_it_generates_over_the_link_what_the_whole_model_generates(
    small_scenario: scenario.Scenario, small_market: Dataset, private: PrivateData
) -> None:
    model = made(small_scenario, small_market, "bfloat16")
    training = small_scenario.training
    federation = assemble(
        private.samples, model, training, Pplr(training), seed=1
    )  # fmt: skip
    prompts = [model.prompts.build(np.array([1, 2, 3])), model.prompts.build(np.array([7]))]
    said = []
    for served in (federation.clients[0].served(federation.link), model.whole.served(None)):
        with served.model() as network:
            said.append([t.tolist() for t in generate_titles(network, prompts, model.prompts, beams=2)])
    assert said[0] == said[1]


@pytest.mark.parametrize(
    ("instructions", "width", "auto"),
    [(True, 384, "bfloat16"), (True, 256, "bfloat16"), (True, 64, "float32"), (False, 384, "float32")],
)
def test_auto_is_what_the_processor_is_fast_in(
    monkeypatch: pytest.MonkeyPatch, instructions: bool, width: int, auto: str
) -> None:
    monkeypatch.setattr(precision, "in_hardware", lambda: instructions)
    model = SimpleNamespace(config=SimpleNamespace(hidden_size=width))
    assert precision.resolved("auto", model) == auto
    assert precision.resolved("float32", model) == "float32"
    assert precision.resolved("bfloat16", model) == "bfloat16"


def test_a_processor_with_amx_or_avx512_instructions_has_the_format(monkeypatch: pytest.MonkeyPatch) -> None:
    for avx512, amx in ((False, False), (True, False), (False, True)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda told=avx512: told)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda told=amx: told)
        assert precision.in_hardware() == (avx512 or amx)
