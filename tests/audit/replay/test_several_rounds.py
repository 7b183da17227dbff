"""In the last audited round an attack on a sample also reads what crossed of it in earlier audited rounds."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pplr_audit import scenario
from pplr_audit.attacks.activation.linkage import Linkage
from pplr_audit.attacks.activation.ridge import Ridge
from pplr_audit.attacks.active.fsha import Fsha
from pplr_audit.attacks.gradient.label_match import LabelMatch
from pplr_audit.audit.cell import Cell
from pplr_audit.audit.harness import Harness
from pplr_audit.audit.plan import Plan, make_plan
from pplr_audit.data.prepare import prepare
from pplr_audit.models.build import build
from pplr_audit.threat_model.attack import Attack, Budget
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.view import Record
from pplr_audit.training.rounds import train
from tests.audit.knowledge.test_build import changed, exposed, federated
from tests.conftest import LAYERS

UP, BACK = Channel.FRONT_ACTIVATIONS, Channel.BACK_GRADIENTS
RIDGE: dict[str, Any] = {"prompts": 32, "held_out": 4}
Audit = tuple[Harness, Plan]


def audited(setting: scenario.Scenario, tmp_path: Path, **audit: Any) -> Audit:
    """An audit of two rounds of local epochs."""
    training = {"rounds": 2, "local_epochs": 2, "learning_rate": 0.02}
    chosen = changed(setting, training=training, **{"victims": 6, "rounds": "all", **audit})
    private = prepare(chosen.data, chosen.seed)
    model = build(chosen.model, private.dataset.catalogue, history=3, seed=chosen.seed)
    federation = federated(chosen, private, model)
    states = [federation.state(1)]
    train(federation, 2, done=lambda log, state: states.append(state))
    return exposed(chosen, private, model, states, tmp_path), make_plan(chosen, LAYERS)


@pytest.fixture(scope="module")
def both(small_scenario: scenario.Scenario, tmp_path_factory: pytest.TempPathFactory) -> Audit:
    asked = [{"ridge": RIDGE}, "label_match", "length", "linkage", {"attribute": {"name": "gender"}}]
    return audited(small_scenario, tmp_path_factory.mktemp("rounds"), attacks=asked)


def cells_of(plan: Plan, attack: str, channel: Channel) -> list[Cell]:
    """One for each audited round, at one cut."""
    return [c for c in plan.cells if (c.attack, c.channel) == (attack, channel) and 1 in (c.front, c.back)]


def test_the_cell_of_the_last_round_reads_all_of_them_and_no_other_cell_does(both: Audit) -> None:
    _, plan = both
    rounds = {
        (cell.attack, cell.channel, cell.round): cell.also_rounds for cell in plan.cells
    }  # fmt: skip
    assert rounds["ridge", UP, 1] == ()
    assert rounds["ridge", UP, 2] == rounds["label_match", BACK, 2] == (1,)
    others = [also for (attack, channel, _), also in rounds.items() if channel not in (UP, BACK) or attack == "linkage"]
    assert others
    assert not any(others), "in serving a request crosses once, and linkage links the rounds"
    chosen = changed(both[0]._job.scenario, rounds="last")
    assert not any(cell.also_rounds for cell in make_plan(chosen, LAYERS).cells)


@pytest.mark.parametrize(("attack", "channel"), [("ridge", UP), ("label_match", BACK)])
def test_crossings_of_earlier_rounds_stand_behind_those_of_the_last_in_its_rows(
    both: Audit, attack: str, channel: Channel
) -> None:
    harness, plan = both
    first, last = cells_of(plan, attack, channel)
    before, view = harness.view(first), harness.view(last)
    assert [(record.round, record.occurrence) for record in view.records if record.row == 0] == [
        (2, 0), (2, 1), (1, 0), (1, 1),
    ]  # fmt: skip
    users, users_before = (harness.rows.phase_rows("training", round_).users for round_ in (2, 1))
    there = {(users_before[each.row], each.occurrence): each for each in before.records}
    again = [each for each in view.records if each.round == 1]
    assert len(again) == len(before.records) == 12
    for each in again:
        source = there[users[each.row], each.occurrence]
        assert torch.equal(each.tensor, source.tensor)
        assert (each.step, each.batch, each.client) == (source.step, source.batch, source.client)
        for name, tensor in source.also_reads.items():
            assert torch.equal(each.also_reads[name], tensor)
    assert any(users[row] != users_before[row] for row in users), "rows are numbered anew in every round"
    assert set(harness.truths(last)["history"].users_by_row) == {each.row for each in view.records}
    dealt = view.shuffled(np.random.default_rng(0))
    sent = {(each.round, each.occurrence, each.tensor.sum().item()): each.row for each in view.records}
    sources: dict[int, set[int]] = {}
    for each in dealt.records:
        sources.setdefault(each.row, set()).add(sent[each.round, each.occurrence, each.tensor.sum().item()])
    assert all(len(own) == 1 and row not in own for row, own in sources.items()), "all of one row go to one other"


@pytest.mark.parametrize(
    ("attack", "channel"),
    [(Ridge(**RIDGE), UP), (LabelMatch(shortlist=4), BACK)],
    ids=lambda each: getattr(each, "name", ""),
)
def test_a_sample_that_the_last_round_hides_is_read_from_an_earlier_one(
    both: Audit, attack: Attack, channel: Channel
) -> None:
    harness, plan = both
    last = cells_of(plan, attack.name, channel)[-1]
    view, (knowledge,) = harness.view(last), harness.knowledge(last)
    assert {round_ for _, round_ in knowledge.copies} == {1, 2}
    generator = torch.Generator().manual_seed(0)

    def hidden(record: Record) -> Record:
        return replace(record, tensor=record.tensor.std() * torch.randn(record.tensor.shape, generator=generator))

    spoiled = replace(view, records=tuple(hidden(r) if r.round == 2 else r for r in view.records))
    alone = replace(spoiled, records=tuple(r for r in spoiled.records if r.round == 2))
    truth = harness.truths(last)["history" if channel == UP else "label"]
    guesses = [attack.run(each, knowledge, Budget(120)) for each in (view, spoiled, alone)]
    whole, read, lost = (truth.score(guess, seed=0)[0].estimate.value for guess in guesses)
    assert whole == read > lost + 0.3
    assert guesses[1].facts["crossings"] == 24
    assert set(guesses[1].facts["crossings_taken"]) == {"1/0"}, "a round's start is exact in its first epoch"
    control = attack.run(spoiled.shuffled(np.random.default_rng(1)), knowledge, Budget(120))
    assert truth.score(control, seed=0)[0].estimate.value < lost + 0.2


def test_a_colluding_client_hands_on_what_crossed_of_it_in_every_round(
    small_scenario: scenario.Scenario, tmp_path: Path
) -> None:
    harness, plan = audited(small_scenario, tmp_path, attacks=[{"ridge": RIDGE}], knowledge="auxiliary")
    last = cells_of(plan, "ridge", UP)[-1]
    view, (knowledge,) = harness.view(last), harness.knowledge(last)
    assert knowledge.colluder is not None
    assert knowledge.colluder_before.keys() == {1}
    assert knowledge.colluder_before[1].digest != knowledge.colluder.digest
    guess = Ridge(**RIDGE).run(view, knowledge, Budget(120))
    assert guess.facts["crossings"] == len(view.records)
    assert {record.round for record in view.records} == {1, 2}


def test_windows_are_linked_by_all_of_their_crossings_in_a_round(
    small_scenario: scenario.Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    market = small_scenario.data.market.model_copy(update={"users": 36})
    few = {"samples": "all", "market": market, "audit_users": 24, "test_users": 10}
    data = small_scenario.data.model_copy(update=few)
    setting = small_scenario.model_copy(update={"data": data})
    harness, plan = audited(setting, tmp_path, attacks=["linkage"], victims=8)
    last = cells_of(plan, "linkage", UP)[-1]
    view = harness.view(last)
    rows = {record.row for record in view.records}
    assert sorted((r.row, r.occurrence) for r in view.records) == [
        (row, number) for row in sorted(rows) for number in (0, 1)
    ]
    assert {record.round for record in view.records} == {1, 2}, "each window in its own round"
    monkeypatch.setattr(Linkage, "every_crossing", False)  # as an attack that does not ask
    first = harness.view(last)
    assert {record.row: record.tensor.sum().item() for record in first.records} == {
        record.row: record.tensor.sum().item() for record in view.records if not record.occurrence
    }
    assert len(first.records) == len(rows)


def test_a_hijacking_server_is_shown_all_crossings_of_the_last_round_and_its_recording_holds_them(
    small_scenario: scenario.Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"attacks": [{"fsha": {"steps": 5}}], "adversaries": ["malicious_server"]}
    harness, plan = audited(small_scenario, tmp_path, **asked)
    (cell,) = cells_of(plan, "fsha", UP)
    assert cell.also_rounds == (), "there is but the last round of its own training"
    view = harness.view(cell)
    places = [(record.row, record.occurrence) for record in view.records]
    assert sorted(places) == [(row, number) for row in range(6) for number in (0, 1)]
    harness._hijacked.cache_clear()
    monkeypatch.setattr(Fsha, "craft_gradient", None)  # no second training
    again = harness.view(cell)
    assert [(record.row, record.occurrence) for record in again.records] == places
    assert all(torch.equal(one.tensor, other.tensor) for one, other in zip(view.records, again.records, strict=True))
