"""A hijacking server pulls the clients' fronts to where it reads them; what it sends really moves them."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pplr_audit import pipeline as audit
from pplr_audit import scenario
from pplr_audit.attacks.active.fsha import Fsha
from pplr_audit.audit import plan
from pplr_audit.audit.harness import Harness
from pplr_audit.audit.knowledge.known_model import KnownModel
from pplr_audit.audit.own_trainings.hijack import HijackingServer, hijackable
from pplr_audit.audit.run_cell import run_cell
from pplr_audit.data.prepare import PrivateData, prepare
from pplr_audit.errors import InputError
from pplr_audit.models.build import Recommender
from pplr_audit.runs.store import Store
from pplr_audit.scenario import plugins
from pplr_audit.threat_model.attack import Budget, as_active
from pplr_audit.threat_model.channels import Channel, Crossing
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.outcomes import BudgetExhausted, NotApplicable
from pplr_audit.threat_model.view import Record, View
from pplr_audit.training.checkpoints import TrainingFiles
from pplr_audit.training.job import Inputs
from pplr_audit.training.link import Wire
from pplr_audit.training.rounds import Federation, RoundState, assemble, train
from pplr_audit.training.run_job import loaded
from tests.conftest import LAYERS

ROUNDS, FRONT, STEPS = 8, 1, 120


@pytest.fixture(scope="module")
def private(small_scenario: scenario.Scenario) -> PrivateData:
    return prepare(small_scenario.data, small_scenario.seed)


def known(model: Recommender) -> Knowledge:
    base = KnownModel(model.whole, None)
    return Knowledge("base", model.prompts, model.whole.embeddings, base, {}, (FRONT,), 3, LAYERS)


Trained = tuple[Recommender, Fsha, Knowledge, list[RoundState], list[float]]


@pytest.fixture(scope="module")
def trained(small_scenario: scenario.Scenario, private: PrivateData) -> Callable[[bool], Trained]:
    """All rounds, under a server that hijacks or one that only has the same pilot and decoder."""

    @cache
    def run(hijacks: bool) -> Trained:
        longer = small_scenario.training.model_copy(update={"rounds": ROUNDS})
        model, training = hijackable(
            small_scenario.model_copy(update={"training": longer}), private, FRONT, LAYERS, "float32"
        )  # fmt: skip
        knowledge, attack = known(model), Fsha(steps=STEPS)
        crafter = attack.craft_gradient(knowledge, FRONT, Budget(300))
        federation = started(
            private, model, training, {"kind": partial(HijackingServer, crafter=crafter)} if hijacks else {}
        )
        states, losses = [federation.state(1)], []

        def done(log: Any, state: RoundState) -> None:
            states.append(state)
            losses.append(float(np.mean(list(log.losses.values()))))

        train(federation, ROUNDS, done=done)
        return model, attack, knowledge, states, losses

    return run


def started(
    private: PrivateData, model: Recommender, training: scenario.Training, more: dict[str, Any]
) -> Federation:  # fmt: skip
    strategy = plugins.load("strategies", training.strategy)(training)
    return assemble(private.samples, model, training, strategy, seed=1, **more)


def read(trained: Trained, private: PrivateData, round_: int, change: Callable[[View], View] = lambda v: v) -> float:
    """Title tokens right, of what crosses of every client's samples after so many rounds."""
    model, attack, knowledge, states, _ = trained
    prompts, records = [], []
    for client, own in private.samples.items():
        asked = [model.prompts.build(own.history[i], int(own.targets[i])) for i in range(8)]
        for place, seen in model.whole.states(asked, [FRONT], states[round_].adapters[client]):
            records.append(Record(len(prompts), client, round_, 0, seen[FRONT]))
            prompts.append(asked[place])
    view = View("malicious_server", Channel.FRONT_ACTIVATIONS, FRONT, None, "none", tuple(records))
    guess = attack.run(change(view), knowledge, Budget(60)).arrays
    offsets, tokens = guess["token_offsets"], guess["tokens"]
    hits = []
    for place, row in enumerate(guess["rows"]):
        prompt, answer = prompts[row], tokens[offsets[place] : offsets[place + 1]]
        right = np.zeros(len(prompt), dtype=bool)
        right[: len(answer)] = answer[: len(prompt)] == prompt.tokens[: len(answer)]
        hits.append(right[prompt.slots >= 0])
    return float(np.concatenate(hits).mean())


def test_hijacked_fronts_stay_readable_where_honestly_trained_ones_drift_away(
    trained: Callable[[bool], Trained], private: PrivateData
) -> None:
    assert read(trained(True), private, 0) > 0.95
    assert read(trained(True), private, ROUNDS) > 0.95
    assert read(trained(False), private, ROUNDS) < 0.85


def test_it_finds_nothing_of_a_user_in_the_activations_of_another_nor_in_noise(
    trained: Callable[[bool], Trained], private: PrivateData
) -> None:
    def noisy(view: View) -> View:
        generator = torch.Generator().manual_seed(1)
        noise = [1e3 * torch.randn(record.tensor.shape, generator=generator) for record in view.records]
        records = [Record(r.row, r.client, r.round, r.step, n) for r, n in zip(view.records, noise, strict=True)]
        return View(view.adversary, view.channel, view.front, view.back, view.defense, tuple(records))

    own = read(trained(True), private, ROUNDS)
    dealt = read(trained(True), private, ROUNDS, lambda view: view.shuffled(np.random.default_rng(0)))
    assert dealt < own / 3
    assert read(trained(True), private, ROUNDS, noisy) < 0.1


def test_fronts_that_began_elsewhere_are_pulled_to_the_pilot(
    small_scenario: scenario.Scenario, private: PrivateData
) -> None:
    """As fronts would that were private at the start: the decoder cannot read them, and then it can."""
    rounds = 10
    longer = small_scenario.training.model_copy(update={"rounds": rounds})
    model, training = hijackable(
        small_scenario.model_copy(update={"training": longer}), private, FRONT, LAYERS, "float32"
    )
    knowledge, attack, generator = known(model), Fsha(steps=STEPS), torch.Generator().manual_seed(5)
    model.initial.update({n: v + 0.3 * torch.randn(v.shape, generator=generator) for n, v in model.initial.items()})
    crafter = attack.craft_gradient(knowledge, FRONT, Budget(300))
    federation = started(private, model, training, {"kind": partial(HijackingServer, crafter=crafter)})
    states = [federation.state(1)]
    train(federation, rounds, done=lambda _, state: states.append(state))
    run = model, attack, knowledge, states, []
    assert read(run, private, 0) < 0.2
    assert read(run, private, rounds) > 0.5


def test_what_it_sends_crosses_and_is_all_that_the_front_goes_along(
    small_scenario: scenario.Scenario, private: PrivateData
) -> None:
    model, training = hijackable(small_scenario, private, FRONT, LAYERS, "float32")
    one_step = {"optimizer": "sgd", "learning_rate": 1.0, "batch_size": 64}
    sent: list[Tensor] = []

    def crafter(hidden: Tensor, mask: Tensor) -> Tensor:
        del mask
        sent.append(torch.randn(hidden.shape, generator=torch.Generator().manual_seed(0)) * 1e-3)
        return sent[-1]

    seen: list[Crossing] = []
    more = {"kind": partial(HijackingServer, crafter=crafter), "wire": Wire(recorder=seen.append)}
    federation = started(private, model, training.model_copy(update=one_step), more)
    client, own = federation.clients[0], private.samples["client-0"]
    before = client.shared.adapter
    client.train_round(federation.link, 1)
    (crossed,) = (c.tensors["gradient"] for c in seen if c.channel == Channel.TRUNK_GRADIENTS)
    assert torch.equal(crossed, sent[0])
    # The same step by hand.
    front = model.whole.front(FRONT, None)
    prompts = [model.prompts.build(own.history[row], int(own.targets[row])) for row in client.plan(1)[0]]
    front(prompts)[0].backward(crossed)
    moved = 0.0
    for name, parameter in front.named_parameters():
        if parameter.requires_grad:
            full = name.replace("_inner.", "model.")
            assert parameter.grad is not None
            assert torch.allclose(client.shared.adapter[full], before[full] - parameter.grad, atol=1e-6)
            moved += float(parameter.grad.abs().sum())
    assert moved > 0


def test_a_front_without_anything_to_train_cannot_be_pulled(
    small_scenario: scenario.Scenario, recformer_scenario: scenario.Scenario, private: PrivateData
) -> None:
    with pytest.raises(NotApplicable, match="nothing before this cut is trained"):
        hijackable(small_scenario, private, 0, LAYERS, "float32")
    marked, _ = hijackable(recformer_scenario, prepare(recformer_scenario.data, 1), 0, LAYERS, "float32")
    assert marked.parts.front == 0, "RecFormer's new embeddings are trained, and are the client's"
    own = recformer_scenario.model.recformer.model_copy(update={"train": "lora", "ids": True})
    behind = recformer_scenario.model_copy(
        update={"model": recformer_scenario.model.model_copy(update={"recformer": own})}
    )  # fmt: skip
    with pytest.raises(NotApplicable, match="nothing before this cut is trained"):
        hijackable(behind, prepare(behind.data, 1), 0, LAYERS, "float32")


def test_the_audit_runs_a_training_of_its_own_at_each_front_and_says_so(
    small_scenario: scenario.Scenario, trained_run: audit.AuditResult, private: PrivateData,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    load = plugins.load
    monkeypatch.setattr(plugins, "load", lambda kind, name: Fsha if name == "fsha" else load(kind, name))
    asked = {
        "attacks": ({"fsha": {"steps": 100}}, "ridge"), "adversaries": ("server", "malicious_server"),
        "cuts": ((0, 1), (1, 1)),
    }  # fmt: skip
    setting = small_scenario.model_copy(update={"audit": small_scenario.audit.model_copy(update=asked)})
    made = plan.make_plan(setting, LAYERS)
    hijacking = [cell for cell in made.cells if as_active(made.attack(cell))]
    assert [(c.adversary, c.front, c.back, c.round) for c in hijacking] == [
        ("malicious_server", k, None, setting.training.rounds) for k in (0, 1)
    ]
    assert made.hijacked == 2
    reasons = {(cell.attack, cell.adversary): reason for cell, reason in made.impossible}
    assert "chooses what is sent, and server does not" in reasons["fsha", "server"]
    assert "does not choose what is sent" in reasons["ridge", "malicious_server"]

    with Store.load(trained_run.directory, writable=True) as store:
        job = Inputs(audit.Clock(audit.Silent()).phase).job(made.own, setting, made.rounds)
        files = TrainingFiles(loaded(store.root, made.own), made.rounds)
        harness = Harness(job, files, made, store.root)
        shut, open_ = (run_cell(c, made.attack(c), harness, store, budget=120, seed=1) for c in hijacking)
    assert {row["status"] for row in shut["findings"]} == {"not_applicable"}
    rows = {row["metric"]: row for row in open_["findings"]}
    assert rows["token_accuracy"]["status"] == "ok"
    assert rows["token_accuracy"]["value"] > rows["token_accuracy"]["baseline"] + 0.3
    assert rows["token_accuracy"]["detail"]["hijacked_steps"] > 0
    assert rows["token_accuracy"]["adversary"] == "malicious_server"


@pytest.fixture(scope="module")
def trained_run(
    small_scenario: scenario.Scenario, tmp_path_factory: pytest.TempPathFactory
) -> audit.AuditResult:  # fmt: skip
    return audit.train(small_scenario, tmp_path_factory.mktemp("hijack") / "run")


def test_it_says_when_it_cannot_answer(private: PrivateData, small_scenario: scenario.Scenario) -> None:
    model, _ = hijackable(small_scenario, private, FRONT, LAYERS, "float32")
    knowledge, attack = known(model), Fsha(steps=2)
    empty = View("malicious_server", Channel.FRONT_ACTIVATIONS, FRONT, None, "none", ())
    with pytest.raises(NotApplicable, match="no training was hijacked"):
        attack.run(empty, knowledge, Budget(60))
    with pytest.raises(BudgetExhausted):
        attack.craft_gradient(knowledge, FRONT, Budget(-1))
    attack.craft_gradient(knowledge, FRONT, Budget(60))
    with pytest.raises(NotApplicable, match="nothing crossed"):
        attack.run(empty, knowledge, Budget(60))
    broken = View(*[getattr(empty, n) for n in ("adversary", "channel", "front", "back", "defense")], (
        Record(0, "client-0", 1, 0, torch.full((5, 32), float("nan"))),
    ))  # fmt: skip
    with pytest.raises(NotApplicable, match="row 0 is not finite"):
        attack.run(broken, knowledge, Budget(60))


def test_the_same_seed_sends_the_same(private: PrivateData, small_scenario: scenario.Scenario) -> None:
    model, _ = hijackable(small_scenario, private, FRONT, LAYERS, "float32")
    hidden, mask = torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(0)), torch.ones(2, 9).long()

    def pulls(start: str, seed: int) -> Sequence[Tensor]:
        crafter = Fsha(start=start, steps=3, seed=seed).craft_gradient(known(model), FRONT, Budget(60))
        return [crafter(hidden, mask) for _ in range(2)]

    for start in ("base", "random"):
        torch.rand(1)  # whatever else is drawn
        first, again, other = pulls(start, 0), pulls(start, 0), pulls(start, 1)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"start": "front"}, r"fsha: start is 'front' \(accepted: base, random\)"),
        ({"steps": 0}, r"fsha: steps is 0 \(accepted: a whole number, 1 or more\)"),
        ({"critic_steps": True}, r"fsha: critic_steps is True"),
        ({"batch": 2.5}, r"fsha: batch is 2.5"),
        ({"seed": -1}, r"fsha: seed is -1 \(accepted: a whole number, 0 or more\)"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Fsha(**settings)
