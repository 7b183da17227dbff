"""What a cut of RecFormer is said to cost, in traffic, arithmetic and memory, against a client that really runs."""

from typing import Any

import pytest
import torch
from torch import Tensor

from pplr_audit import scenario
from pplr_audit.data.popularity import popularity_of
from pplr_audit.data.prepare import PrivateData, prepare
from pplr_audit.models.backbones.transformers_api import from_config
from pplr_audit.models.cut import CutModel, cut
from pplr_audit.models.recommenders.recformer import IDS, embeddings, marks
from pplr_audit.models.recommenders.task import Tally
from pplr_audit.models.trainable import make_trainable
from pplr_audit.training.costs.activations import Live
from pplr_audit.training.costs.flops import counter
from pplr_audit.training.costs.formulas import Workload, all_cuts, meta_model, rows_of
from pplr_audit.training.costs.memory import Held, memory_rows
from pplr_audit.training.costs.run_costs import SERVING, cost_rows
from pplr_audit.training.job import Job
from pplr_audit.training.optimizer import LocalOptimizer, OptimizerState, Stretch
from pplr_audit.training.spec import own_training
from pplr_audit.training.utility import evaluate as utility
from tests.models.architectures import LAYERS, VOCABULARY, config
from tests.training.recformers import finish, of_few_users, start

BATCH, T, HISTORY = 3, 24, 4
TRAIN: dict[str, dict[str, Any]] = {
    "lora": {"train": "lora"}, "embeddings": {"train": "embeddings"}, "all": {"train": "all"},
    "ids": {"train": "embeddings", "ids": True}, "lora and ids": {"train": "lora", "ids": True},
}  # fmt: skip
"""What is changed of ``model.recformer``."""
CATALOGUE = 40
CUTS = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 1), (0, 3)]


@pytest.fixture(scope="module")
def recformer_scenario(recformer_scenario: scenario.Scenario) -> scenario.Scenario:
    return of_few_users(recformer_scenario)


@pytest.fixture(scope="module")
def private(recformer_scenario: scenario.Scenario) -> PrivateData:
    return prepare(recformer_scenario.data, recformer_scenario.seed)


@pytest.mark.parametrize(
    ("place", "train", "rounds"),
    [*(((1, 1), train, rounds) for train in TRAIN for rounds in (1, 2)),
     *((place, train, 2) for place in ((0, 0), (2, 1), (0, 2)) for train in ("lora", "lora and ids"))],
)  # fmt: skip
def test_computed_costs_are_those_of_a_training_that_ran(
    recformer_scenario: scenario.Scenario, private: PrivateData, place: tuple[int, int], train: str, rounds: int
) -> None:
    """With two rounds the last one encodes the catalogue, with one it does not."""
    chosen = recformer_scenario.model
    changed = chosen.recformer.model_copy(update=TRAIN[train])
    setting = recformer_scenario.model_copy(update={"model": chosen.model_copy(update={"recformer": changed})})
    model, federation = start(setting, private, *place, **TRAIN[train])
    logs, _ = finish(federation, rounds)
    tally, link = Tally(), federation.link
    before, encoded = link.sent.copy(), link.catalogue_bytes
    users = utility.tested(private.split, private.members)
    for client in federation.clients:
        own = users[private.population.client_of[users] == int(client.name[-1])]
        utility.recommended(
            client.served(link, tally), model.task, private.split, own, history=3,
            popularity=popularity_of(private.split, private.members, 48),
        )  # fmt: skip
    served = sum(link.sent[channel] - before[channel] for channel in SERVING) - (link.catalogue_bytes - encoded)
    rows = cost_rows(Job(setting, private, model, federation, own_training(setting)), logs, tally, served)
    (row,) = [row for row in rows if row["measured"] is not None]
    measured = row["measured"]
    assert (row["cut"]["front"], row["cut"]["back"]) == place
    for name in (
        "client_parameters", "client_bytes", "client_share", "wire_bytes_per_sample", "wire_bytes_per_round",
        "serving_wire_bytes_per_request",
    ):  # fmt: skip
        assert measured[name] == pytest.approx(row[name], rel=1e-9), name
    assert (logs[-1].catalogue > 0) == (rounds == 2 and sum(place) < LAYERS)
    assert (measured["serving_wire_bytes_per_request"] > 0) == (sum(place) < LAYERS)


def made(train: str, settings: Any, lora: scenario.Lora) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = from_config(settings)
    model.requires_grad_(False)
    chosen = scenario.Model(
        recommender="recformer", lora=lora, recformer=scenario.Recformer(**TRAIN[train])
    )  # fmt: skip
    make_trainable(model, chosen, history=HISTORY, items=CATALOGUE, seed=0)
    return model


def shape(train: str, settings: Any, lora: scenario.Lora) -> Any:
    chosen = scenario.Recformer(**TRAIN[train])
    return meta_model(settings, lora, recformer=chosen, history=HISTORY, items=CATALOGUE)


class Passing:
    """A far side that does no arithmetic and keeps nothing, and whose output needs a gradient, as the real one's."""

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        return hidden + torch.zeros((), requires_grad=True)


def part(train: str, settings: Any, lora: scenario.Lora, place: tuple[int, int]) -> CutModel:
    parts = cut(made(train, settings, lora), *place)
    if parts.proxy is not None:
        parts.proxy.endpoint = Passing()  # type: ignore[assignment]
    parts.client.train()
    return parts


def loss_of(parts: CutModel) -> Tensor:
    """What `RecFormer.inputs` and the encoder do; the sum stands for pooling and scores."""

    def inputs() -> dict[str, Tensor]:
        mask = torch.ones(BATCH, T, dtype=torch.long)
        mask[0, -3:] = 0
        tokens, kinds = torch.randint(3, VOCABULARY, (BATCH, T)), torch.randint(0, 3, (BATCH, T))
        order = torch.randint(0, HISTORY + 1, (BATCH, T))
        words = parts.client.get_input_embeddings()(tokens) + marks(parts.client)(kinds, order)
        return {"inputs_embeds": words, "attention_mask": mask}

    total: Tensor = parts.client(**inputs()).last_hidden_state.sum()
    return total


@pytest.mark.parametrize("name", ["bert", "roberta"])
@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("train", TRAIN)
def test_flops_are_those_that_torch_counts(train: str, dropout: bool, name: str) -> None:
    settings, lora = config(name, dropout=dropout), scenario.Lora(rank=2, dropout=0.1 * dropout)
    work = Workload(samples=10, tokens_per_sample=T)
    for place, row in zip(CUTS, rows_of(shape(train, settings, lora), CUTS, work), strict=True):
        parts = part(train, settings, lora, place)
        with counter() as counts:
            loss = loss_of(parts)
            assert row["client_flops_per_token"] == counts.get_total_flops() / (BATCH * T), place
            if loss.requires_grad:
                loss.backward()
        assert row["training_flops_per_token"] == counts.get_total_flops() / (BATCH * T), place


@pytest.mark.parametrize("train", TRAIN)
def test_parameters_are_those_of_a_model_that_is_really_cut(train: str) -> None:
    settings, lora = config("bert"), scenario.Lora(rank=2)
    work = Workload(samples=10, tokens_per_sample=T)
    for row in rows_of(shape(train, settings, lora), all_cuts(LAYERS), work):
        place = row["cut"]["front"], row["cut"]["back"]
        parts = part(train, settings, lora, place)
        assert row["client_parameters"] == sum(p.numel() for p in parts.client.parameters())
        wire = row["wire_bytes_per_round"] - 10 * row["wire_bytes_per_sample"] - work.status_bytes
        assert wire == 2 * sum(p.nbytes for p in parts.client_parameters.values())


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("train", TRAIN)
def test_weights_gradients_and_moments_are_those_of_a_real_client(train: str, optimizer: Any) -> None:
    settings, lora = config("bert", dropout=False), scenario.Lora(rank=2)
    held = Held(BATCH, T, optimizer)
    for place, row in zip(CUTS, memory_rows(shape(train, settings, lora), CUTS, held), strict=True):
        parts = part(train, settings, lora, place)
        trained = list(parts.client_parameters.values())
        assert row["weight_bytes"] == sum(p.nbytes for p in parts.client.parameters() if not p.requires_grad)
        assert row["adapter_bytes"] == sum(p.nbytes for p in trained)
        if not trained:
            continue
        own = getattr(embeddings(parts.client), IDS, None)
        (loss_of(parts) + (0.0 if own is None else own.vectors.sum())).backward()
        assert row["gradient_bytes"] == sum(p.grad.nbytes for p in trained if p.grad is not None)
        local = LocalOptimizer(
            parts.client_parameters, scenario.Training(optimizer=optimizer), Stretch(0, 1), OptimizerState()
        )
        local.step()
        assert row["optimizer_bytes"] == sum(moment.nbytes for moment in local.state().moments.values())


def kept(parts: CutModel) -> int:
    """Bytes that autograd keeps of a step, each storage once, without parameters and buffers."""
    own = {t.untyped_storage()._cdata for t in (*parts.client.parameters(), *parts.client.buffers())}
    found: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        found[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = loss_of(parts)
    del loss
    return sum(tensor.untyped_storage().nbytes() for number, tensor in found.items() if number not in own)


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("train", TRAIN)
def test_activations_are_those_that_autograd_keeps(train: str, dropout: bool) -> None:
    settings, lora = config("bert", dropout=dropout), scenario.Lora(rank=2, dropout=0.1 * dropout)
    rows = memory_rows(shape(train, settings, lora), CUTS, Held(BATCH, T))
    for place, row in zip(CUTS, rows, strict=True):
        assert row["activation_bytes"] == kept(part(train, settings, lora, place)), place


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("train", TRAIN)
def test_the_peak_of_a_step_is_the_measured_one_within_3_percent(train: str, dropout: bool) -> None:
    # Not exactly: at which moment most is alive depends on where backward steps free what they have used.
    settings, lora = config("bert", dropout=dropout), scenario.Lora(rank=2, dropout=0.1 * dropout)
    cuts = [(0, 1), (2, 1)]
    for place, row in zip(cuts, memory_rows(shape(train, settings, lora), cuts, Held(BATCH, T)), strict=True):
        parts = part(train, settings, lora, place)
        with Live() as live:
            loss_of(parts).backward()
        said = row["activation_bytes"] + row["working_bytes"]
        assert said == pytest.approx(live.peak, rel=0.03), place
