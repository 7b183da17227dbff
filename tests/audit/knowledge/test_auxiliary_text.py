"""The text that an adversary runs copies on: real windows of the reserve's users, and where they end, random ones."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pplr_audit import pipeline as audit
from pplr_audit import scenario
from pplr_audit.audit.knowledge import build as knowledge_builder
from pplr_audit.audit.knowledge.build import KnowledgeBuilder
from pplr_audit.audit.plan import make_plan
from pplr_audit.audit.victims.rows import Rows
from pplr_audit.data.prepare import PrivateData, prepare
from pplr_audit.data.prompts import Prompt
from pplr_audit.data.samples import training_samples
from pplr_audit.models.build import Recommender, build
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.training.job import Job
from pplr_audit.training.spec import own_training
from tests.conftest import LAYERS

RESERVE = 12
"""Users of the reserve among the small scenario's 120: a tenth of each client's."""


@pytest.fixture(scope="module")
def private(small_scenario: scenario.Scenario) -> PrivateData:
    return prepare(small_scenario.data, small_scenario.seed)


@pytest.fixture(scope="module")
def model(small_scenario: scenario.Scenario, private: PrivateData) -> Recommender:
    return build(small_scenario.model, private.dataset.catalogue, history=3, seed=small_scenario.seed)


@pytest.fixture
def knowledge(small_scenario: scenario.Scenario, private: PrivateData, model: Recommender) -> Knowledge:
    return handed(small_scenario, private, model)


def handed(setting: scenario.Scenario, private: PrivateData, model: Recommender, **fields: Any) -> Knowledge:
    """What the harness hands over about what is served, where it needs no trained model."""
    chosen = setting.model_dump(mode="json")
    chosen["audit"] |= {"knowledge": "base", "attacks": ["ridge"], **fields}
    setting = scenario.Scenario.model_validate(chosen)

    def untrained(*_: Any) -> Any:
        pytest.fail("no trained model is asked for")

    no_model: Any = untrained
    job, plan = Job(setting, private, model, no_model, own_training(setting)), make_plan(setting, LAYERS)
    of = KnowledgeBuilder(job, plan, Rows(job, untrained), untrained, untrained, rounds=no_model).of
    return of(next(cell for cell in plan.cells if cell.channel == Channel.INFERENCE_ACTIVATIONS))


def read(prompts: Iterable[Prompt]) -> Counter[tuple[int, ...]]:
    return Counter(tuple(prompt.tokens.tolist()) for prompt in prompts)


def windows(private: PrivateData, model: Recommender, reserve: int) -> Counter[tuple[int, ...]]:
    """The training prompts of all users of the reserve, or of all others."""
    users = np.flatnonzero(private.population.reserve == reserve)
    own = training_samples(private.split, users, 3, "last")
    return read(model.prompts.build(own.history[row], int(own.targets[row])) for row in range(len(own)))


def draw(knowledge: Knowledge, count: int, seed: int = 0) -> list[Prompt]:
    return knowledge.draw(count, np.random.default_rng(seed))


def test_matched_text_is_all_of_the_reserve_and_of_nobody_else(
    private: PrivateData, model: Recommender, knowledge: Knowledge
) -> None:
    drawn = draw(knowledge, RESERVE)
    assert read(drawn) == windows(private, model, reserve=1)
    assert sum(read(drawn).values()) == RESERVE
    # Nobody's by chance either: this market has no two users alike.
    assert not read(drawn) & windows(private, model, reserve=0)
    assert all(prompt.answer < len(prompt) and prompt.target >= 0 for prompt in drawn), "each has its label"
    assert knowledge.facts == {"auxiliary": "matched", "auxiliary_users": RESERVE, "auxiliary_random": 0}


def test_no_user_who_trains_in_any_client_is_among_the_auxiliary_windows(
    private: PrivateData, model: Recommender, knowledge: Knowledge
) -> None:
    trains = {int(user) for own in private.samples.values() for user in own.users}
    assert trains == set(private.members.tolist())
    assert not trains & set(private.others(RESERVE, seed=0).tolist())
    own = training_samples(private.split, np.array(sorted(trains)), 3, "all")
    trained_on = read(model.prompts.build(own.history[row], int(own.targets[row])) for row in range(len(own)))
    for seed in range(5):
        assert not read(draw(knowledge, RESERVE, seed)) & trained_on


def test_without_a_reserve_matched_text_is_random_and_that_is_said(
    small_scenario: scenario.Scenario, model: Recommender
) -> None:
    data = small_scenario.data.model_copy(update={"reserve": 0})
    everyone = prepare(data, small_scenario.seed)
    assert not len(everyone.reserve)
    told, generator = handed(small_scenario, everyone, model), np.random.default_rng(0)
    assert read(draw(told, 9)) == read(model.prompts.random(3, generator) for _ in range(9))
    assert told.facts == {"auxiliary": "matched", "auxiliary_users": 0, "auxiliary_random": 9}


def test_no_victim_no_candidate_and_no_number_of_a_user_is_handed_over(
    private: PrivateData, small_scenario: scenario.Scenario, knowledge: Knowledge
) -> None:
    others = private.others(RESERVE + 1, seed=1)
    assert len(others) == RESERVE
    assert not set(others) & {*private.victims(80, small_scenario.seed), *private.candidates()}
    assert knowledge.others is not None
    assert knowledge.others.users.tolist() == list(range(RESERVE))


def test_no_user_is_drawn_twice_while_there_are_others(
    private: PrivateData, model: Recommender, knowledge: Knowledge
) -> None:
    for seed in range(20):
        assert read(draw(knowledge, RESERVE - 5, seed)) <= windows(private, model, reserve=1)


def test_where_they_are_too_few_all_of_them_stand_among_random_ones_and_that_is_said(
    private: PrivateData, model: Recommender, knowledge: Knowledge
) -> None:
    drawn, own = draw(knowledge, 2 * RESERVE), windows(private, model, reserve=1)
    assert own <= read(drawn)
    assert not read(drawn) - own & windows(private, model, reserve=0)
    is_real = [tuple(prompt.tokens.tolist()) in own for prompt in drawn]
    assert 2 < sum(is_real[:RESERVE]) < RESERVE - 2, "those held out are of both kinds"
    assert knowledge.facts == {"auxiliary": "matched", "auxiliary_users": RESERVE, "auxiliary_random": RESERVE}
    draw(knowledge, 3)
    assert knowledge.facts["auxiliary_random"] == RESERVE, "the largest draw counts, in whatever order cells are run"


def test_without_others_all_is_random_and_that_is_said(knowledge: Knowledge) -> None:
    alone = replace(knowledge, others=None)
    generator = np.random.default_rng(0)
    assert read(draw(alone, 9)) == read(alone.prompts.random(3, generator) for _ in range(9))
    assert alone.facts == {"auxiliary": "matched", "auxiliary_users": 0, "auxiliary_random": 9}


def test_text_over_the_catalogue_is_random_and_of_no_user(
    small_scenario: scenario.Scenario, private: PrivateData, model: Recommender
) -> None:
    told = handed(small_scenario, private, model, auxiliary="catalogue")
    generator = np.random.default_rng(5)
    assert told.others is None
    assert read(draw(told, 30, seed=5)) == read(model.prompts.random(3, generator) for _ in range(30))
    assert told.facts == {"auxiliary": "catalogue"}
    counted = np.bincount([item for prompt in draw(told, 2000) for item in prompt.held], minlength=48)
    assert counted.min() > 0.5 * counted.mean(), "each item as likely as any other"


def test_the_seed_decides_and_each_attack_has_windows_of_its_own(
    small_scenario: scenario.Scenario, private: PrivateData, model: Recommender, knowledge: Knowledge
) -> None:
    def order(known: Knowledge, seed: int) -> list[list[int]]:
        return [prompt.tokens.tolist() for prompt in draw(known, 60, seed)]

    again = handed(small_scenario, private, model)
    assert order(again, 0) == order(knowledge, 0)
    assert order(again, 0) != order(again, 1)
    assert again.others is not None
    again.others.history.values[:] = 0  # an attack may do that
    assert read(draw(handed(small_scenario, private, model), RESERVE)) == windows(private, model, reserve=1)


def test_of_very_many_users_a_few_thousand_are_drawn_by_the_seed(
    small_scenario: scenario.Scenario, private: PrivateData, model: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(knowledge_builder, "OTHERS", 7)
    told = handed(small_scenario, private, model)
    assert read(draw(told, 7)) <= windows(private, model, reserve=1)
    draw(told, 8)
    assert told.facts["auxiliary_users"] == 7
    assert private.others(7, 0).tolist() == private.others(7, 0).tolist() != private.others(7, 1).tolist()


def test_beside_a_colluding_client_no_other_users_are_handed_over(
    small_scenario: scenario.Scenario, private: PrivateData, model: Recommender
) -> None:
    assert handed(small_scenario, private, model, knowledge="auxiliary").others is None


def test_a_finding_and_the_report_say_how_many_of_each_an_attack_learned_from(finished: audit.AuditResult) -> None:
    rows = [row for row in finished.document["findings"] if row["attack"] == "ridge" and row["status"] == "ok"]
    said = {(row["detail"]["auxiliary_users"], row["detail"]["auxiliary_random"]) for row in rows}
    assert said == {(RESERVE, 48 + 8 - RESERVE)}
    report = (finished.directory / "report.md").read_text()
    assert f"histories of {RESERVE} users of the reserve and {56 - RESERVE} random ones over the same cat" in report
    assert report.count("histories of the reserve's users, and random ones") == 2, "in the threat model and in how"
