"""Fixtures that several attacks are tested on; a module with a model of its own uses that."""

import pytest

from pplr_audit import scenario
from pplr_audit.data.dataset import Dataset
from pplr_audit.models.build import Recommender, build


@pytest.fixture(scope="module", params=["bigrec", "recformer"])
def model(
    request: pytest.FixtureRequest, small_scenario: scenario.Scenario, recformer_scenario: scenario.Scenario,
    small_market: Dataset,
) -> Recommender:  # fmt: skip
    chosen = small_scenario if request.param == "bigrec" else recformer_scenario
    return build(chosen.model, small_market.catalogue, history=3, seed=1)
