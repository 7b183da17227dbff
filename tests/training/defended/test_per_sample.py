"""Gradients of single samples equal those of one sample at a time: front, trunk and back, in both recommenders."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pplr_audit import scenario
from pplr_audit.data.prepare import prepare
from pplr_audit.models.lora import load_adapter
from pplr_audit.threat_model import Defense, PerSample, Turn
from pplr_audit.threat_model.channels import Channel, Crossing
from pplr_audit.training.defending import Composed
from pplr_audit.training.link import Wire
from pplr_audit.training.rounds import Federation, assemble
from pplr_audit.training.strategies.local import LocalOnly
from tests.training.defended.federations import on, start

SAMPLES = 6
CUTS = ((1, 1), (0, 0), (2, 1))


class Spy(Defense):
    """Clips by one norm over both ends, and keeps what it was given."""

    acts = frozenset({"samples"})

    def __init__(self, norm: float) -> None:
        self.norm, self.norms = norm, torch.zeros(0)
        self.given: dict[str, Tensor] = {}

    def tell(self, gradients: PerSample, turn: Turn) -> Mapping[str, Tensor]:
        return {"squared_norms": sum(gradients.squared_norms().values(), torch.zeros(turn.batch))}

    def combine(self, gradients: PerSample, heard: Mapping[str, Tensor], turn: Turn) -> Mapping[str, Tensor]:
        by_row = [gradients.weighted_sum(row) for row in torch.eye(turn.batch)]
        self.given |= {name: torch.stack([row[name] for row in by_row]) for name in by_row[0]}
        self.norms = (self.tell(gradients, turn)["squared_norms"] + heard.get("squared_norms", 0)).sqrt()
        return gradients.weighted_sum((self.norm / self.norms).clamp(max=1.0))


class ByHooks:
    """An engine as a library would bring it: one backward pass, gradients from what enters and leaves linear layers.

    For y = x W^T the gradient of a sample is the sum over its positions of dL/dy^T x; norms need no more than that.
    """

    def __init__(self, module: nn.Module, parameters: Mapping[str, nn.Parameter]) -> None:
        names = {id(parameter): name for name, parameter in parameters.items()}
        self._entered: dict[str, Tensor] = {}
        self._found: dict[str, Tensor] = {}
        self._like = dict(parameters)
        self.handles = []
        for layer in module.modules():
            name = names.get(id(layer.weight)) if isinstance(layer, nn.Linear) else None
            if name is not None:
                self.handles.append(layer.register_forward_hook(partial(self._enters, name)))
                self.handles.append(layer.register_full_backward_hook(partial(self._leaves, name)))

    def _enters(self, name: str, _: nn.Module, given: tuple[Tensor, ...], __: Tensor) -> None:
        self._entered[name] = given[0].detach()

    def _leaves(self, name: str, _: nn.Module, __: Any, gradient: tuple[Tensor, ...]) -> None:
        self._found[name] = torch.einsum("bso,bsi->boi", gradient[0], self._entered[name])

    def backward(self, output: Tensor, gradient: Tensor, entered: Tensor | None) -> Tensor | None:
        torch.autograd.backward(output, gradient)
        return None if entered is None else entered.grad

    def squared_norms(self) -> dict[str, Tensor]:
        return {name: value.flatten(1).square().sum(1) for name, value in self._found.items()}

    def weighted_sum(self, weights: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
        assert isinstance(weights, Tensor)
        return {name: torch.einsum("b,boi->oi", weights, self._found[name]) for name in self._like}

    def clear(self) -> None:
        self._entered, self._found = {}, {}

    def close(self) -> None:
        for handle in self.handles:
            handle.remove()


class SpyByHooks(Spy):
    """The same with an engine of its own."""

    def __init__(self, norm: float) -> None:
        super().__init__(norm)
        self.engines: list[ByHooks] = []

    def per_sample(self, module: nn.Module, parameters: Mapping[str, nn.Parameter]) -> PerSample:
        self.engines.append(ByHooks(module, parameters))
        return self.engines[-1]


@dataclass(frozen=True)
class Moved:
    """A cut model with another adapter to begin with: at LoRA's own start half of all gradients are zero."""

    task: Any
    parts: Any
    initial: dict[str, Tensor]


@pytest.fixture
def setting(request: pytest.FixtureRequest) -> scenario.Scenario:
    chosen: scenario.Scenario = request.getfixturevalue(
        "small_scenario" if request.param == "bigrec" else "recformer_scenario"
    )
    everything = chosen.model.recformer.model_copy(update={"train": "all", "ids": True})
    changed = {"dropout": 0.0} | ({"recformer": everything} if request.param.endswith("it") else {})
    return chosen.model_copy(update={"model": chosen.model.model_copy(update=changed)})


@pytest.fixture(params=[(torch.float64, 1e-6), (torch.float32, 1e-5)], ids=["float64", "float32"])
def precision(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[torch.dtype, float]]:
    """Type of all weights, and the relative error that is left to it."""
    single = torch.Tensor.float
    # Losses are computed in float32 whatever the model computes in; here in what is wider.
    monkeypatch.setattr(torch.Tensor, "float", lambda self: self if self.dtype == torch.float64 else single(self))
    yield request.param
    torch.set_default_dtype(torch.float32)


def alone(federation: Federation, model: Moved, rows: list[int], encoding: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The gradient of each sample: a plain step over the cut with a batch of that sample and no other."""
    client, parts = federation.clients[0], model.parts
    parameters = {**parts.client_parameters, **parts.trunk_parameters}
    found: dict[str, list[Tensor]] = {name: [] for name in parameters}
    for row in rows:
        side = federation.link.training(client.name, 1)
        if parts.proxy is not None:
            parts.proxy.endpoint = side
        model.task.loss(parts.client, client._prompts(np.array([row])), encoding).backward()
        for name, parameter in parameters.items():
            found[name].append(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
            parameter.grad = None
    return {name: torch.stack(values) for name, values in found.items()}


@pytest.mark.parametrize(
    ("setting", "kind_of_spy", "front", "back"),
    [
        *((name, Spy, *cut) for name in ("bigrec", "recformer", "recformer, all of it") for cut in CUTS),
        ("bigrec", SpyByHooks, 1, 1),
        ("bigrec", SpyByHooks, 2, 1),
    ],
    indirect=["setting"],
)
def test_each_sample_has_the_gradient_that_it_has_alone_and_one_norm_clips_both_ends(
    setting: scenario.Scenario, precision: tuple[torch.dtype, float], kind_of_spy: type[Spy], front: int, back: int
) -> None:
    kind, tolerance = precision
    private = prepare(setting.data, setting.seed)
    told = setting.training.model_copy(update={"optimizer": "sgd", "learning_rate": 1.0, "batch_size": SAMPLES})
    built, _ = start(setting, private, "none", front=front, back=back, dropout=0.0)
    for module in (built.parts.client, built.parts.trunk):
        if module is not None:
            module.to(kind)
    torch.set_default_dtype(kind)
    generator = torch.Generator().manual_seed(0)
    initial = {n: 0.05 * torch.randn(t.shape, generator=generator, dtype=kind) for n, t in built.initial.items()}
    model = Moved(built.task, built.parts, initial)
    encoding = {name: value.to(kind) for name, value in built.task.base_encoding.items()}
    held = {**built.parts.client_parameters, **built.parts.trunk_parameters}
    few = {"client-0": private.samples["client-0"].take(np.arange(SAMPLES))}
    lengths = built.task.prompts.lengths(few["client-0"].history, few["client-0"].targets)
    assert len(set(lengths.tolist())) > 1, "the batch must have padding"

    plain = assemble(few, model, told, LocalOnly(told), seed=1)
    load_adapter(held, initial)
    expected = alone(plain, model, [int(row) for row in plain.clients[0].plan(1)[0]], encoding)
    norms = torch.sqrt(sum((value.double().flatten(1) ** 2).sum(1) for value in expected.values()))
    spy, seen = kind_of_spy(norm=float(norms.median())), list[Crossing]()
    federation = assemble(
        few, model, told, LocalOnly(told), seed=1, wire=Wire(seen.append), defenses=Composed("spy", (spy,), ("spy",))
    )  # fmt: skip
    client = federation.clients[0]
    client.resume(initial, client.shared.optimizer, encoding)
    client.train_round(federation.link, 1)
    after = {name: parameter.detach().clone() for name, parameter in held.items()}

    assert set(spy.given) == set(expected)
    for name, value in expected.items():
        assert float(((spy.given[name] - value).double().flatten(1).norm(dim=1) / norms).max()) < tolerance, name
        assert float(value.abs().max()) > 0, name
    torch.testing.assert_close(spy.norms.double(), norms, rtol=tolerance, atol=0)
    weights = (spy.norm / norms).clamp(max=1.0).to(kind)
    assert 0 < int((weights < 1).sum()) < SAMPLES
    clipped = {name: torch.tensordot(weights, value, dims=1) for name, value in expected.items()}
    size = torch.sqrt(sum(value.double().square().sum() for value in clipped.values()))
    for name, value in clipped.items():  # a step at rate 1, so what is left is rounding of the weights themselves
        assert float((initial[name] - after[name] - value).double().norm() / size) < 10 * tolerance, name
    ends = [bool(built.parts.client_parameters), bool(built.parts.trunk_parameters)]
    told_each = [c.tensors["squared_norms"] for c in on(seen, Channel.METADATA) if "squared_norms" in c.tensors]
    assert [tuple(values.shape) for values in told_each] == [(SAMPLES,)] * (sum(ends) if built.parts.trunk else 0)
    if isinstance(spy, SpyByHooks):
        assert len(spy.engines) == sum(ends)
        assert not any(handle.id in handle.hooks_dict_ref() for engine in spy.engines for handle in engine.handles)
