"""A hook that answers what it must not ends in one message that names defense and hook; what was saved stays."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from pplr_audit import scenario
from pplr_audit.data.prepare import PrivateData, prepare
from pplr_audit.errors import InputError, RunError
from pplr_audit.threat_model import Channel, Defense
from pplr_audit.training.defending import Composed
from pplr_audit.training.rounds import assemble, train
from pplr_audit.training.strategies.fedavg import FedAvg
from tests.training.defended.federations import start


@pytest.fixture(scope="module")
def private(small_scenario: scenario.Scenario) -> PrivateData:
    return prepare(small_scenario.data, small_scenario.seed)


def broken(acts: str, hook: str, answer: Callable[..., Any], channel: Channel | None = None, **more: Any) -> Defense:
    """A defense that acts at one place and whose ``hook`` gives ``answer``; its other hooks are in ``more``."""

    def call(self: Defense, *given: Any) -> Any:
        return answer(*given)

    fields: dict[str, Any] = {"acts": frozenset({acts}), hook: call, **more}
    if channel is not None:
        fields["channels"] = frozenset({channel})
    if acts == "sum":
        fields["removes"] = frozenset({Channel.CLIENT_UPDATE})
    made: Defense = type("Broken", (Defense,), fields)()
    return made


def half(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.half() for name, value in tensors.items()}


def flat(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.flatten() for name, value in tensors.items()}


def raises(*_: Any) -> Any:
    raise ValueError("it\nbroke")


FRONT = Channel.FRONT_ACTIVATIONS
CASES: dict[str, tuple[Defense, str]] = {
    "another type": (broken("wire", "apply", lambda c, t: half(c.tensors), FRONT),
                     r"apply answers hidden as float16 \[\d+, \d+, 32\], where float32 \[\d+, \d+, 32\] is needed"),
    "another shape": (broken("wire", "apply", lambda c, t: flat(c.tensors), FRONT),
                      r"apply answers hidden as float32 \[\d+\], where float32"),
    "other names": (broken("wire", "apply", lambda c, t: {"state": c.tensors["hidden"]}, FRONT),
                    "apply answers state, where hidden is needed"),
    "no tensors": (broken("wire", "apply", lambda c, t: None, FRONT), "apply answers a NoneType and no tensors"),
    "no tensor": (broken("wire", "apply", lambda c, t: {"hidden": 3}, FRONT), "apply answers as 'hidden' a int"),
    "a code that is none": (broken("wire", "encode", lambda c, t: [1], FRONT, decode=lambda s, c, t: c.tensors),
                            "encode answers a list and no tensors by name"),
    "a code that does not come back": (
        broken("wire", "decode", lambda c, t: flat(c.tensors), FRONT, encode=lambda s, c, t: c.tensors),
        r"decode answers hidden as float32 \[\d+\]"),
    "an error": (broken("wire", "apply", raises, FRONT), "apply breaks off with ValueError: it broke"),
    "gradients of other layers": (broken("gradients", "gradients", lambda g, t: {}),
                                  "gradients answers nothing, where .*lora_A.* is needed"),
    "a gradient of another shape": (broken("gradients", "gradients", lambda g, t: flat(g)), "gradients answers .* as"),
    "told what is no tensor": (broken("samples", "tell", lambda g, t: {"n": 1}, combine=lambda s, g, h, t: {}),
                               "tell answers as 'n' a int and no tensor"),
    "a sum of no layer": (broken("samples", "combine", lambda g, h, t: {}), "combine answers nothing, where"),
    "an engine that is none": (broken("samples", "per_sample", lambda m, p: 3, combine=lambda s, g, h, t: {}),
                               "per_sample answers a int and no PerSample"),
    "too few steps": (broken("sampler", "batches", lambda n, size, g: [np.arange(3)]),
                      r"batches answers no list of \d+ batches for \d+ samples"),
    "a row that is not there": (broken("sampler", "batches", lambda n, s, g: [np.array([10**6])] * -(-len(n) // s)),
                                r"batches answers a batch that is no list of rows from 0 to \d+"),
    "a row twice": (broken("sampler", "batches", lambda n, s, g: [np.array([0, 0])] * -(-len(n) // s)),
                    "batches answers a batch with a sample twice"),
    "updates of nobody": (broken("updates", "updates", lambda u, t: {}), "updates answers too few or too many clients"),
    "an update of other layers": (broken("updates", "updates", lambda u, t: {client: {} for client in u}),
                                  "updates answers nothing, client-0, where"),
    "a sum of another type": (broken("sum", "sum", lambda u, t: half(next(iter(u.values())))),
                              r"sum answers .* as float16 .* where float64"),
    "memory of no tensor": (broken("gradients", "gradients", lambda g, t: t.kept.update(steps=3)),
                            "gradients breaks off with TypeError: 'steps' is a int, and only tensors can be kept"),
}  # fmt: skip


@pytest.mark.parametrize("why", CASES)
def test_a_wrong_answer_is_one_message(small_scenario: scenario.Scenario, private: PrivateData, why: str) -> None:
    defense, message = CASES[why]
    model, _ = start(small_scenario, private, "none")
    training = small_scenario.training.model_copy(update={"strategy": "fedavg"})
    federation = assemble(
        private.samples, model, training, FedAvg(training), seed=1, defenses=Composed("x", (defense,), ("broken",))
    )  # fmt: skip
    saved: list[int] = []
    with pytest.raises(InputError, match=rf"^defenses: broken: its hook {message}") as refused:
        train(federation, 1, done=lambda log, state: saved.append(state.round))
    assert "\n" not in str(refused.value)
    assert saved == []


def test_numbers_that_a_defense_spoils_are_told_with_its_name(
    small_scenario: scenario.Scenario, private: PrivateData
) -> None:
    defense = broken("gradients", "gradients", lambda g, t: {n: v * float("nan") for n, v in g.items()})
    model, _ = start(small_scenario, private, "none")
    training = small_scenario.training.model_copy(update={"strategy": "fedavg"})
    composed = Composed("spoils", (defense,), ("spoils",))
    federation = assemble(private.samples, model, training, FedAvg(training), seed=1, defenses=composed)
    with pytest.raises(RunError, match=r"not finite .* the defense spoils is in force and may be the cause"):
        train(federation, 1, done=lambda log, state: None)
