"""Optimized embeddings are read where the words are, from nothing and from the inverter's answer, and not elsewhere."""

from functools import partial
from typing import Any

import numpy as np
import pytest

from pplr_audit import scenario
from pplr_audit.attacks.activation.embedding_match import EmbeddingMatch
from pplr_audit.attacks.activation.ridge import Ridge
from pplr_audit.audit.knowledge.known_model import NoModel
from pplr_audit.data.dataset import Dataset
from pplr_audit.errors import InputError
from pplr_audit.models.build import build
from pplr_audit.threat_model.attack import Budget
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.outcomes import BudgetExhausted, NotApplicable
from pplr_audit.threat_model.view import View
from tests.attacks.test_inverter import Setting

FEW: dict[str, Any] = {"prompts": 1, "held_out": 1}
"""A ridge inverter that reads badly."""


@pytest.fixture(scope="module", params=["bigrec", "recformer"])
def setting(
    request: pytest.FixtureRequest, small_scenario: scenario.Scenario, recformer_scenario: scenario.Scenario,
    small_market: Dataset,
) -> Setting:  # fmt: skip
    chosen = (small_scenario if request.param == "bigrec" else recformer_scenario).model
    return Setting(build(chosen, small_market.catalogue, history=3, seed=1), {})


@pytest.mark.parametrize("layer", [0, 1])
def test_from_nothing_it_reads_what_is_not_deep(setting: Setting, layer: int) -> None:
    guess = EmbeddingMatch("nothing").run(setting.view(layer), setting.knowledge, Budget(120))
    tokens, items = setting.right(guess)
    assert tokens > 0.8
    assert items > 0.9


def test_it_mends_what_the_inverter_misread_and_is_never_farther_than_its_start(setting: Setting) -> None:
    view, knowledge = setting.view(1), setting.knowledge
    floor = setting.right(Ridge(**FEW).run(view, knowledge, Budget(120)))
    none = EmbeddingMatch(steps=1, rate=1e-9, **FEW).run(view, knowledge, Budget(120))
    guess = EmbeddingMatch(**FEW).run(view, knowledge, Budget(120))
    assert setting.right(none)[0] == pytest.approx(floor[0], abs=0.02)
    assert setting.right(guess)[0] >= min(1.0, floor[0] + 0.05)  # the small llama is read whole by any inverter
    assert guess.facts["median_distance"] < none.facts["median_distance"]


def test_it_finds_nothing_in_noise_and_nothing_of_a_user_in_what_crossed_of_another(setting: Setting) -> None:
    attack = EmbeddingMatch(steps=60, **FEW)
    assert setting.right(attack.run(setting.view(1, noise=1e4), setting.knowledge, Budget(120)))[0] < 0.1
    shuffled = setting.view(1).shuffled(np.random.default_rng(0))
    assert setting.right(attack.run(shuffled, setting.knowledge, Budget(120)))[1] < 0.25


def test_it_is_the_same_twice_and_keeps_to_its_budget(setting: Setting) -> None:
    view, knowledge = setting.view(1), setting.knowledge
    once, again = (EmbeddingMatch("nothing", steps=5).run(view, knowledge, Budget(60)) for _ in range(2))
    assert once.arrays["tokens"].tolist() == again.arrays["tokens"].tolist()
    with pytest.raises(BudgetExhausted):
        EmbeddingMatch(**FEW).run(view, knowledge, Budget(-1.0))


def test_it_says_when_it_cannot_answer(setting: Setting) -> None:
    empty = View("server", Channel.FRONT_ACTIVATIONS, 1, None, "none", ())
    with pytest.raises(NotApplicable, match="nothing crossed"):
        EmbeddingMatch().run(empty, setting.knowledge, Budget(60))
    with pytest.raises(NotApplicable, match="row 0 is not finite"):
        EmbeddingMatch().run(setting.view(1, noise=float("nan")), setting.knowledge, Budget(60))
    with pytest.raises(NotApplicable):
        NoModel().enter(1, *[None] * 2)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"start": "zero"}, "embedding_match: start is 'zero'"),
        ({"steps": 0}, "embedding_match: steps is 0"),
        ({"rate": 0}, "embedding_match: rate is 0"),
        ({"rate": True}, "embedding_match: rate is True"),
        ({"rate": float("nan")}, "embedding_match: rate is nan"),
        ({"seed": -1}, "embedding_match: seed is -1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        partial(EmbeddingMatch, **settings)()
