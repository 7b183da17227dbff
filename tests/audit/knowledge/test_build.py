"""What adversaries know: fronts, public weights, or pairs of a colluding client; and the text that they learn on."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pplr_audit import pipeline as audit
from pplr_audit import scenario
from pplr_audit.attacks.activation.ridge import Ridge
from pplr_audit.audit.documents import not_measured
from pplr_audit.audit.harness import Harness
from pplr_audit.audit.plan import make_plan
from pplr_audit.audit.replay.collusion import Collusion
from pplr_audit.data.allocation import allotted
from pplr_audit.data.prepare import PrivateData, prepare
from pplr_audit.models.build import Recommender, build
from pplr_audit.runs.documents import validate
from pplr_audit.threat_model.attack import Budget
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.outcomes import NotApplicable
from pplr_audit.training.job import Job
from pplr_audit.training.rounds import Federation, RoundState, assemble, train
from pplr_audit.training.spec import own_training
from pplr_audit.training.strategies.pplr import Pplr
from tests.conftest import LAYERS

RIDGE = {"ridge": {"prompts": 32, "held_out": 4}}
COLLUDER = "client-2"
"""Of the small scenario's clients the one with the most samples."""


def changed(setting: scenario.Scenario, training: dict[str, Any] | None = None, **fields: Any) -> scenario.Scenario:
    chosen = setting.model_dump(mode="json")
    chosen["audit"] |= {"attacks": [RIDGE], "cuts": [[0, 1], [1, 1]], **fields}
    chosen["training"] |= {"rounds": 1, **(training or {})}
    return scenario.Scenario.model_validate(chosen)


@pytest.fixture(scope="module")
def private(small_scenario: scenario.Scenario) -> PrivateData:
    return prepare(small_scenario.data, small_scenario.seed)


@pytest.fixture(scope="module")
def model(small_scenario: scenario.Scenario, private: PrivateData) -> Recommender:
    return build(small_scenario.model, private.dataset.catalogue, history=3, seed=small_scenario.seed)


def federated(setting: scenario.Scenario, private: PrivateData, model: Recommender) -> Federation:
    return assemble(
        private.samples, model, setting.training, Pplr(setting.training),
        seed=setting.seed,
    )  # fmt: skip


@pytest.fixture(scope="module")
def states(small_scenario: scenario.Scenario, private: PrivateData, model: Recommender) -> list[RoundState]:
    """What the one round starts from, and the trained models."""
    federation = federated(changed(small_scenario), private, model)
    found = [federation.state(1)]
    train(federation, 1, done=lambda log, state: found.append(state))
    return found


def exposed(
    setting: scenario.Scenario, private: PrivateData, model: Recommender, states: list[RoundState], scratch: Path
) -> Harness:
    files: Any = SimpleNamespace(state=lambda round_: states[round_ - 1], has_crossings=lambda _: False)
    federation = federated(setting, private, model)
    return Harness(
        Job(setting, private, model, federation, own_training(setting)), files, make_plan(setting, LAYERS), scratch
    )


def known_to(harness: Harness, setting: scenario.Scenario, channel: Channel) -> Knowledge:
    cell = next(cell for cell in make_plan(setting, LAYERS).cells if cell.channel == channel)
    (knowledge,) = harness.knowledge(cell)
    return knowledge


def test_an_attack_that_runs_no_copy_of_a_client_is_told_as_with_public_weights(
    small_scenario: scenario.Scenario,
) -> None:
    names = ["ridge", "label_match", "linkage", "length", "fsha", {"attribute": {"name": "gender"}}]
    setting = changed(small_scenario, attacks=names, adversaries=["server", "malicious_server"])
    levels: dict[str, set[str]] = {}
    for cell in make_plan(setting, LAYERS).cells:
        levels.setdefault(cell.attack, set()).add(cell.knowledge)
    front, base = {"front"}, {"base"}
    assert levels == {
        "ridge": front, "label_match": front, "linkage": base, "length": base, "fsha": base, "attribute": base,
    }  # fmt: skip


def test_what_was_not_measured_leaves_out_what_is_read_beside(small_scenario: scenario.Scenario) -> None:
    setting = changed(small_scenario, attacks=["label_match", "fsha"], adversaries=["server", "malicious_server"])
    first, *others = not_measured(setting, make_plan(setting, LAYERS))
    assert "status" in first
    assert "trunk_activations" not in first
    assert "back_gradients" not in first
    assert others[0] == "Clients who collude."
    alone = changed(small_scenario, knowledge="auxiliary")
    said = not_measured(alone, make_plan(alone, LAYERS))
    assert said[1:3] == ["Active adversaries, who also choose what they send.", "Several clients who collude."]


def test_pairs_help_who_sees_activations_and_all_others_have_the_public_weights(
    small_scenario: scenario.Scenario,
) -> None:
    setting = changed(small_scenario, knowledge="auxiliary", adversaries=["server", "trunk_host", "outsider"])
    setting = setting.model_copy(
        update={"audit": setting.audit.model_copy(update={"attacks": ("ridge", "label_match", "loss")})}
    )
    known = {(cell.adversary, cell.channel): cell.knowledge for cell in make_plan(setting, LAYERS).cells}
    asked = [("server", Channel.MODEL_OUTPUT), ("outsider", Channel.MODEL_OUTPUT)]
    assert {level for place, level in known.items() if place not in asked} == {"auxiliary"}
    assert {known[place] for place in asked} == {"base"}


@pytest.mark.parametrize("text", ["catalogue", "public", "none"])
def test_text_is_of_who_has_weights_to_run_on_it(small_scenario: scenario.Scenario, text: str) -> None:
    with pytest.raises(ValueError, match="only for adversaries that have weights"):
        changed(small_scenario, knowledge="auxiliary", auxiliary=text)


@pytest.mark.parametrize("text", ["catalogue", "public"])
def test_random_histories_over_one_catalogue_or_another_are_run_through_the_best_copy(
    small_scenario: scenario.Scenario, private: PrivateData, model: Recommender, states: list[RoundState],
    tmp_path: Path, text: str,
) -> None:  # fmt: skip
    setting = changed(small_scenario, auxiliary=text)
    harness = exposed(setting, private, model, states, tmp_path)
    knowledge = known_to(harness, setting, Channel.INFERENCE_ACTIVATIONS)
    assert knowledge.facts == {}, "nothing was asked for yet"
    own, public = knowledge.pairs("client-0", 2, 6, 2, 0), knowledge.pairs("client-0", 1, 6, 2, 0)
    other = knowledge.pairs("client-1", 1, 6, 2, 0)
    assert public.digest == other.digest != own.digest  # of what is served before the end it has no copy here
    fit_on, choose_on = (list(part) for part in own.run((0, 1)))
    assert (len(fit_on), len(choose_on)) == (6, 2)
    assert knowledge.facts == {"auxiliary": text}
    read = [title for tokens, _ in (*fit_on, *choose_on) for title in model.tokenizer.decode(tokens).split('"')[1:-1:2]]
    assert len(read) == 8 * 4  # three of the history, and the answer
    assert all((title in private.dataset.catalogue.titles) == (text == "catalogue") for title in read)
    of_base, _ = (list(part) for part in public.run((0, 1)))
    for (tokens, trained), (same, base) in zip(fit_on, of_base, strict=True):
        assert torch.equal(tokens, same)
        assert torch.equal(trained[0], knowledge.embeddings[tokens])
        assert not torch.equal(trained[1], base[1])


def test_ridge_learns_from_another_catalogue_what_its_words_allow(
    small_scenario: scenario.Scenario, private: PrivateData, model: Recommender, states: list[RoundState],
    tmp_path: Path,
) -> None:  # fmt: skip
    setting = changed(small_scenario, auxiliary="public")
    harness = exposed(setting, private, model, states, tmp_path)
    cell = next(cell for cell in make_plan(setting, LAYERS).cells if cell.front == 1)
    attack = Ridge(prompts=64, held_out=8)
    guess = attack.run(harness.view(cell), *harness.knowledge(cell), Budget(60))
    (accuracy, *_) = harness.truths(cell)["history"].score(guess, seed=0)
    assert accuracy.metric == "token_accuracy"
    assert accuracy.estimate.value > 0.8


def test_without_text_an_attack_that_learns_from_some_is_not_applicable(
    small_scenario: scenario.Scenario, private: PrivateData, model: Recommender, states: list[RoundState],
    tmp_path: Path,
) -> None:  # fmt: skip
    setting = changed(small_scenario, auxiliary="none")
    harness = exposed(setting, private, model, states, tmp_path)
    cell = next(cell for cell in make_plan(setting, LAYERS).cells if cell.front == 1)
    with pytest.raises(NotApplicable, match="learns from auxiliary text"):
        Ridge().run(harness.view(cell), *harness.knowledge(cell), Budget(60))


@pytest.mark.parametrize("channel", [Channel.FRONT_ACTIVATIONS, Channel.INFERENCE_ACTIVATIONS])
def test_a_colluding_client_hands_on_its_own_prompts_with_what_crossed_of_them_and_has_no_victims(
    small_scenario: scenario.Scenario, private: PrivateData, model: Recommender, states: list[RoundState],
    tmp_path: Path, channel: Channel,
) -> None:  # fmt: skip
    setting = changed(small_scenario, knowledge="auxiliary")
    harness = exposed(setting, private, model, states, tmp_path)
    own = private.samples[COLLUDER]
    assert not set(own.users) & set(harness.rows.victims)
    assert len(harness.rows.victims) == setting.audit.victims
    knowledge = known_to(harness, setting, channel)
    round_ = 1 if channel == Channel.FRONT_ACTIVATIONS else 2
    fit_on, choose_on = (list(part) for part in knowledge.pairs("client-0", round_, 500, 3, 0).run((0, 1)))
    assert (len(fit_on), len(choose_on)) == (len(own) - 3, 3)
    assert knowledge.facts == {"colluder": COLLUDER}
    handed = {tuple(tokens.tolist()) for tokens, _ in (*fit_on, *choose_on)}
    if channel == Channel.FRONT_ACTIVATIONS:
        held = [model.prompts.build(own.history[i], int(own.targets[i])) for i in range(len(own))]
        assert handed == {tuple(prompt.tokens.tolist()) for prompt in held}
    # The front is not known; that what was handed on is what entered the first block is seen from outside.
    words = model.whole.embeddings
    assert all(torch.equal(by_layer[0], words[tokens]) for tokens, by_layer in (*fit_on, *choose_on))
    assert not torch.allclose(knowledge.embeddings, words)
    cells = [cell for cell in make_plan(setting, LAYERS).cells if cell.channel == channel]
    assert all({r.client for r in harness.view(cell).records} == {"client-0", "client-1"} for cell in cells)
    for asked in (knowledge.base, knowledge.copy("client-0", round_)):
        with pytest.raises(NotApplicable, match="no weights"):
            asked.states([], (0,))
        with pytest.raises(NotApplicable, match="no weights"):
            asked.log_probs([])
        with pytest.raises(NotApplicable, match="no weights"):
            asked.logits(0, torch.zeros(1, 1, 1))


def test_all_clients_learn_from_the_one_that_colludes_so_it_is_learned_once(
    small_scenario: scenario.Scenario, private: PrivateData, model: Recommender, states: list[RoundState],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    setting = changed(small_scenario, knowledge="auxiliary")
    harness = exposed(setting, private, model, states, tmp_path)
    passes = []
    original = Collusion.states

    def counted(self: Collusion, places: list[int], layers: tuple[int, ...]) -> Any:
        passes.append(len(places))
        return original(self, places, layers)

    monkeypatch.setattr(Collusion, "states", counted)
    attack = Ridge(prompts=20, held_out=4)
    for cell in make_plan(setting, LAYERS).cells:
        if cell.channel == Channel.FRONT_ACTIVATIONS:
            attack.run(harness.view(cell), *harness.knowledge(cell), Budget(60))
    assert sorted(passes) == [4, 20]


def test_where_nobody_can_collude_the_reason_is_said(
    small_scenario: scenario.Scenario, private: PrivateData, model: Recommender, states: list[RoundState],
    tmp_path: Path,
) -> None:  # fmt: skip
    setting = changed(small_scenario, knowledge="auxiliary")
    pooled = allotted(private, shots=None, pooled=True, seed=1)
    with pytest.raises(NotApplicable, match="one client holds all training samples"):
        known_to(exposed(setting, pooled, model, states, tmp_path), setting, Channel.INFERENCE_ACTIVATIONS)
    few = changed(small_scenario, {"participation": 0.34}, knowledge="auxiliary")
    for seed in range(9):
        harness = exposed(few.model_copy(update={"seed": seed}), private, model, states, tmp_path)
        training = {client.name for client in harness._job.federation.training_in(1, {})}
        if COLLUDER not in training:
            break
    with pytest.raises(NotApplicable, match=f"{COLLUDER}, who colludes, did not train in round 1"):
        known_to(harness, few, Channel.FRONT_ACTIVATIONS)


def test_an_audit_of_a_collusion_names_it_in_every_finding(
    small_scenario: scenario.Scenario, tmp_path: Path
) -> None:  # fmt: skip
    setting = changed(small_scenario, knowledge="auxiliary", attacks=[RIDGE, "label_match"], cuts=[[1, 1]])
    document = audit.run(setting, tmp_path / "run").document
    validate(document)
    rows = [row for row in document["findings"] if row["adversary"] == "server"]
    assert {row["knowledge"] for row in rows} == {"auxiliary"}
    read = [row for row in rows if row["attack"] == "ridge" and row["status"] == "ok"]
    assert {row["channel"] for row in read} == {"front_activations", "inference_activations"}
    assert all(row["detail"]["colluder"] == COLLUDER for row in read)
    hits = [row for row in read if row["metric"] == "item_hit@1"]
    assert all(row["value"] > 2 * row["baseline"] + 0.2 for row in hits)
    (reason,) = {row["detail"]["reason"] for row in rows if row["attack"] == "label_match"}
    assert "the adversary has no weights" in reason
    assert "texts of a colluding client with what crosses of each" in (tmp_path / "run" / "report.md").read_text()


@pytest.mark.parametrize("loss_on", ["title", "all"])
def test_what_is_trained_on_is_known_to_whoever_attacks(
    small_scenario: scenario.Scenario, private: PrivateData, model: Recommender, states: list[RoundState],
    tmp_path: Path, loss_on: str,
) -> None:  # fmt: skip
    setting = changed(small_scenario, {"loss_on": loss_on}, attacks=["label_match"])
    harness = exposed(setting, private, model, states, tmp_path)
    assert known_to(harness, setting, Channel.BACK_GRADIENTS).loss_on == loss_on
