"""Federations of RecFormer at the start of round 1."""

from collections.abc import Callable

from pplr_audit import scenario
from pplr_audit.data.prepare import PrivateData
from pplr_audit.models.build import Recommender, build
from pplr_audit.scenario import plugins
from pplr_audit.training.link import Recorder, Wire
from pplr_audit.training.rounds import Federation, RoundLog, RoundState, assemble, train

Started = tuple[Recommender, Federation]


def of_few_users(setting: scenario.Scenario) -> scenario.Scenario:
    """The scenario with 21 and 13 samples at its two clients: three steps and two in each round."""
    market = setting.data.market.model_copy(update={"users": 60})
    data = setting.data.model_copy(update={"market": market, "audit_users": 40, "test_users": 10})
    return setting.model_copy(update={"data": data})


def start(
    setting: scenario.Scenario,
    private: PrivateData,
    front: int = 1,
    back: int = 1,
    *,
    training: dict[str, object] | None = None,
    recorder: Recorder | None = None,
    **changes: object,
) -> Started:
    """``training``: fields of that section that are other; ``changes``: fields of ``model.recformer``."""
    told = setting.training.model_copy(update=training or {})
    chosen = setting.model.model_copy(
        update={
            "cut": scenario.Cut(front=front, back=back),
            "lora": setting.model.lora.model_copy(update={"dropout": 0.1}),
            "recformer": setting.model.recformer.model_copy(update=changes),
        }
    )
    model = build(
        chosen, private.dataset.catalogue, history=setting.data.history, seed=setting.seed, training=told
    )  # fmt: skip
    strategy = plugins.load("strategies", told.strategy)(told)
    federation = assemble(
        private.samples, model, told, strategy, seed=1, wire=Wire(recorder=recorder)
    )  # fmt: skip
    return model, federation


def finish(
    federation: Federation, rounds: int, first: int = 1, validate: Callable[..., float | None] | None = None
) -> tuple[list[RoundLog], list[RoundState]]:
    """The log of each round, and what each of them started from, and the end."""
    logs: list[RoundLog] = []
    states = [federation.state(first)]

    def done(log: RoundLog, state: RoundState) -> None:
        logs.append(log)
        states.append(state)

    train(federation, rounds, first=first, done=done, validate=validate)
    return logs, states
