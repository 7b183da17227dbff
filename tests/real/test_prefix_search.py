"""Prefix search on a real language model and real titles: every title token, at every front."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from pplr_audit.attacks.activation.prefix_search import PrefixSearch
from pplr_audit.audit.knowledge.known_model import KnownModel
from pplr_audit.data.load import load
from pplr_audit.data.prompts import Prompt
from pplr_audit.data.samples import training_samples
from pplr_audit.data.split import split
from pplr_audit.models.build import Recommender, build
from pplr_audit.scenario.schema import Cut, Data, Model
from pplr_audit.threat_model.attack import Budget
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.view import Record, View

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
DATA = Path(os.environ.get("PPLR_AUDIT_DATA") or SHARED / "data") / "ml-100k"
MODEL = Path(os.environ.get("PPLR_AUDIT_MODELS") or SHARED / "models") / "stories260k"
FRONTS, HISTORY, VICTIMS = (0, 1, 2, 3, 4), 10, 6

pytestmark = pytest.mark.skipif(
    not (DATA.is_dir() and MODEL.is_dir()), reason=f"NOT TESTED ON REAL DATA: needs {DATA} and {MODEL} (see README)"
)


@pytest.fixture(scope="module")
def real() -> tuple[Recommender, list[Prompt]]:
    """The model, and the training prompts of some users."""
    chosen = Data(path=str(DATA))
    dataset = load(chosen, 0)
    model = build(
        Model(backbone=str(MODEL), max_tokens=512, cut=Cut(front=1, back=1)), dataset.catalogue, history=HISTORY, seed=0
    )
    users = np.random.default_rng(3).choice(len(dataset.users), VICTIMS, replace=False)
    samples = training_samples(split(dataset, chosen.split), np.sort(users), HISTORY, "last")
    return model, [model.prompts.build(samples.history[i], int(samples.targets[i])) for i in range(VICTIMS)]


@pytest.fixture(scope="module")
def attack() -> PrefixSearch:
    return PrefixSearch(prompts=48, held_out=8)


@pytest.fixture(scope="module")
def knowledge(real: tuple[Recommender, list[Prompt]]) -> Knowledge:
    model, _ = real
    known = {("client-0", 1): KnownModel(model.whole, model.initial)}
    base = KnownModel(model.whole, None)
    return Knowledge("front", model.prompts, model.whole.embeddings, base, known, FRONTS, HISTORY, model.layers)


def crossed(real: tuple[Recommender, list[Prompt]], layer: int, drift: float = 0.0) -> View:
    """What crosses of the prompts, under an adapter that is so far from the known one."""
    model, prompts = real
    generator = torch.Generator().manual_seed(0)
    adapter = {n: v + drift * torch.randn(v.shape, generator=generator) for n, v in model.initial.items()}
    seen = sorted(dict(model.whole.states(prompts, [layer], adapter)).items())
    records = tuple(Record(row, "client-0", 1, 0, states[layer]) for row, states in seen)
    return View("server", Channel.FRONT_ACTIVATIONS, layer, None, "none", records)


@pytest.mark.parametrize("layer", FRONTS)
def test_every_title_token_is_read_at_every_front(
    real: tuple[Recommender, list[Prompt]], attack: PrefixSearch, knowledge: Knowledge, layer: int
) -> None:
    model, prompts = real
    same = model.prompts.title_classes()
    guess = attack.run(crossed(real, layer), knowledge, Budget(120))
    tokens = np.split(guess.arrays["tokens"], guess.arrays["token_offsets"][1:-1])
    items = np.split(guess.arrays["items"], guess.arrays["slot_offsets"][1:-1])
    for prompt, read, slots, label in zip(prompts, tokens, items, guess.arrays["labels"], strict=True):
        assert (read == prompt.tokens).all()
        assert same[slots[:, 0]].tolist() == same[prompt.items].tolist()
        assert same[label[0]] == same[prompt.target]
    assert guess.facts["verified"] == 1.0
    assert guess.facts["median_distance"] < 1e-5


@pytest.mark.parametrize("layer", [1, 4])
def test_a_stale_front_reads_them_too(
    real: tuple[Recommender, list[Prompt]], attack: PrefixSearch, knowledge: Knowledge, layer: int
) -> None:
    _, prompts = real
    guess = attack.run(crossed(real, layer, drift=0.01), knowledge, Budget(120))
    truth = np.concatenate([prompt.tokens for prompt in prompts])
    inside = np.concatenate([prompt.slots for prompt in prompts]) >= 0
    assert (guess.arrays["tokens"] == truth)[inside].mean() > 0.99
    assert guess.facts["median_distance"] > 1e-3


def test_titles_are_read_without_the_catalogue_token_by_token(
    real: tuple[Recommender, list[Prompt]], knowledge: Knowledge
) -> None:
    _, prompts = real
    view = crossed(real, 2)
    two = View(view.adversary, view.channel, 2, None, "none", view.records[:2])
    guess = PrefixSearch("tokens", prompts=48, held_out=8).run(two, knowledge, Budget(120))
    assert guess.arrays["tokens"].tolist() == np.concatenate([prompt.tokens for prompt in prompts[:2]]).tolist()
