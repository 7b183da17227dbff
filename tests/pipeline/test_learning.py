"""On the synthetic market a recommender that learns stands out from one that does not, and none beats the law."""

from functools import partial

import numpy as np
import pytest

from pplr_audit import scenario
from pplr_audit.data.popularity import popularity_of
from pplr_audit.data.prepare import prepare
from pplr_audit.models.backbones import tiny_llama
from pplr_audit.models.build import build
from pplr_audit.scenario import plugins
from pplr_audit.scoring.intervals import mean_estimate
from pplr_audit.training.rounds import assemble, train
from pplr_audit.training.utility import evaluate as utility

SMALLER = (
    "data.market.users=160", "data.market.items=60", "data.history=4", "data.audit_users=40", "data.clients=2",
)  # fmt: skip
"""Few items and fast steps: what the quickstart's own samples teach beyond the form of an answer is within noise."""
SHALLOW = partial(tiny_llama.Recipe, layers=3, tokens=150_000)
"""Half of the blocks of the quickstart's backbone, trained on three quarters of the tokens: a third of the time."""


def hits(learning_rate: float, rounds: int, samples: str) -> dict[str, np.ndarray]:
    """Recall@10 by user of a recommender as the quickstart's, of its base model and of mere popularity."""
    training = (f"training.learning_rate={learning_rate}", f"training.rounds={rounds}")
    told = scenario.load("quickstart", [*SMALLER, *training, f"data.samples={samples}"])
    private = prepare(told.data, told.seed)
    model = build(told.model, private.dataset.catalogue, history=told.data.history, seed=told.seed)
    strategy = plugins.load("strategies", told.training.strategy)(told.training)
    federation = assemble(private.samples, model, told.training, strategy, seed=told.seed)
    train(federation, told.training.rounds, done=lambda log, state: None)
    users = utility.tested(private.split, private.members)
    at = private.population.client_of[users]
    popularity = popularity_of(private.split, private.members, len(private.dataset.catalogue))

    def measured(served, own: np.ndarray) -> np.ndarray:
        ranking = utility.recommended(
            served, model.task, private.split, own, history=told.data.history, popularity=popularity
        )
        return ranking.metrics["recall@10"]

    order = [users[at == place] for place in range(len(federation.clients))]
    trained = [measured(c.served(federation.link), own) for c, own in zip(federation.clients, order, strict=True)]
    everyone = np.concatenate(order)
    alike = np.tile(popularity, (len(everyone), 1))
    popular = utility.rank([(np.arange(len(everyone)), alike)], everyone, private.split)
    return {
        "trained": np.concatenate(trained),
        "untrained": measured(model.whole.served(None), everyone),
        "popularity": popular.metrics["recall@10"],
        "best": np.array([private.dataset.best_recall[10]]),
    }


def gain(one: np.ndarray, other: np.ndarray):
    return mean_estimate(one - other, np.arange(len(one)), seed=0)


@pytest.fixture(autouse=True, scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PPLR_AUDIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(tiny_llama, "Recipe", SHALLOW)
        yield


def test_training_beats_the_base_model_and_popularity_and_stays_below_the_law():
    found = hits(1e-2, rounds=3, samples="all")
    assert gain(found["trained"], found["untrained"]).low > 0
    assert gain(found["trained"], found["popularity"]).low > 0.05
    assert found["trained"].mean() < found["best"][0]


def test_a_model_that_does_not_learn_is_told_from_one_that_does():
    found = hits(1e-12, rounds=1, samples="last")
    assert np.array_equal(found["trained"], found["untrained"])
