"""Defended federations at the start of round 1, and what crosses while they train."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pplr_audit import scenario
from pplr_audit.data.prepare import PrivateData
from pplr_audit.data.samples import Samples
from pplr_audit.models.build import Recommender, build
from pplr_audit.scenario import plugins
from pplr_audit.threat_model.channels import Channel, Crossing
from pplr_audit.training.defending import Composed, compose
from pplr_audit.training.link import Wire
from pplr_audit.training.rounds import Federation, RoundLog, RoundState, assemble, train


def start(
    setting: scenario.Scenario, private: PrivateData, defenses: Any, recorder: list[Crossing] | None = None,
    *, front: int = 1, back: int = 1, dropout: float = 0.1, samples: Mapping[str, Samples] | None = None,
    **training: object,
) -> tuple[Recommender, Federation]:  # fmt: skip
    """``samples``: others than all; ``training``: fields of that section that are other."""
    told = setting.training.model_copy(update=training)
    lora = setting.model.lora.model_copy(update={"dropout": dropout})
    chosen = setting.model.model_copy(update={"cut": scenario.Cut(front=front, back=back), "lora": lora})
    model = build(chosen, private.dataset.catalogue, history=setting.data.history, seed=setting.seed, training=told)
    strategy = plugins.load("strategies", told.strategy)(told)

    def keep(crossing: Crossing) -> None:
        assert recorder is not None
        recorder.append(replace(crossing, tensors={name: value.clone() for name, value in crossing.tensors.items()}))

    composed = defenses if isinstance(defenses, Composed) else compose(defenses, told)
    federation = assemble(
        private.samples if samples is None else samples, model, told, strategy, seed=1,
        wire=Wire(keep if recorder is not None else None), defenses=composed,
    )  # fmt: skip
    return model, federation


def finish(federation: Federation, rounds: int, first: int = 1) -> tuple[list[RoundLog], list[RoundState]]:
    """The log of each round, and what each of them started from, and the end."""
    logs: list[RoundLog] = []
    states = [federation.state(first)]

    def done(log: RoundLog, state: RoundState) -> None:
        logs.append(log)
        states.append(state)

    train(federation, rounds, first=first, done=done)
    return logs, states


def on(crossings: Sequence[Crossing], channel: Channel) -> list[Crossing]:
    return [crossing for crossing in crossings if crossing.channel == channel]
