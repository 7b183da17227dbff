"""RecFormer's reading, loss and ranking, each against a plain computation, and what of it is trained."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from pplr_audit import scenario
from pplr_audit.data.dataset import Catalogue, Dataset, Ragged
from pplr_audit.data.prompts import Prompt, collate, ragged
from pplr_audit.errors import InputError
from pplr_audit.models.build import Recommender, build
from pplr_audit.models.lora import adapter_parameters
from pplr_audit.models.recommenders import recformer
from pplr_audit.models.recommenders.recformer import IDS, ITEMS, MARKS, RecFormer, embeddings, softmax_loss
from pplr_audit.models.recommenders.task import Tally, tensors
from pplr_audit.training.costs.activations import Live
from pplr_audit.training.optimizer import LocalOptimizer, OptimizerState, Stretch

Made = Callable[..., Recommender]


@pytest.fixture(scope="module")
def made(recformer_scenario: scenario.Scenario, small_market: Dataset) -> Made:
    """A recommender as training begins with it; ``backbone`` and fields of ``model.recformer`` can be changed."""

    def one(backbone: Path | None = None, **changes: object) -> Recommender:
        chosen = recformer_scenario.model
        settings = chosen.recformer.model_copy(update=changes)
        name = chosen.backbone if backbone is None else str(backbone)
        return build(
            chosen.model_copy(update={"recformer": settings, "backbone": name}), small_market.catalogue, history=3,
            seed=1, training=recformer_scenario.training,
        )  # fmt: skip

    return one


def shaken(recommender: Recommender) -> Recommender:
    """As after some training: neither the marks nor LoRA's B are zero."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in adapter_parameters(recommender.whole.model).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return recommender


@pytest.fixture(scope="module")
def fresh(made: Made) -> Recommender:
    return made()


@pytest.fixture(scope="module")
def model(made: Made) -> Recommender:
    return shaken(made())


def asked(recommender: Recommender) -> list[Prompt]:
    """Histories of different lengths, each with a target."""
    return [
        recommender.prompts.build(np.array(items), target)
        for items, target in (([1, 2, 3], 4), ([5], 6), ([7, 8], 9), ([10, 11, 12], 0))
    ]


def histories(prompts: list[Prompt]) -> Ragged:
    """What they were built from, oldest first."""
    return ragged([prompt.items[::-1].tolist() for prompt in prompts])


@dataclass
class Whole:
    """Serves by an uncut model."""

    recommender: Recommender
    encoding: Any
    tally: Tally

    def model(self, weights: str = "trained", *, catalogue: bool = False) -> Any:
        del weights, catalogue
        return self.recommender.whole.served(None).model()


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_training_begins_with_the_encoder_as_it_was(
    made: Made, bert_folder: Path, roberta_folder: Path, family: str
) -> None:
    """The marks are zero, so what the model makes of the tokens is what the library makes of them."""
    recommender = made({"bert": bert_folder, "roberta": roberta_folder}[family])
    network, built = recommender.whole.model, asked(recommender)
    assert not any(p.any() for p in embeddings(network).get_submodule(MARKS).parameters())
    tokens, mask, _ = tensors(collate(built, recommender.prompts.pad))
    with torch.no_grad():
        plain = network(input_ids=tokens, attention_mask=mask).last_hidden_state
        marked = network(**recommender.task.inputs(network, built, serving=False)).last_hidden_state
    assert torch.equal(plain[mask == 1], marked[mask == 1])


def test_each_token_gets_the_mark_of_its_kind_and_of_its_item(model: Recommender) -> None:
    built = asked(model)
    inputs = model.task.inputs(model.whole.model, built, serving=False)
    words = model.whole.model.get_input_embeddings().weight
    marks = embeddings(model.whole.model).get_submodule(MARKS)
    assert marks.order.shape == (4, 32), "3 items, and no item"
    for row, prompt in enumerate(built):
        mask = inputs["attention_mask"][row]
        assert mask.tolist() == [1] * len(prompt) + [0] * (len(mask) - len(prompt))
        for place, token in enumerate(prompt.tokens):
            kind = 0 if prompt.order[place] == 0 else 2 if prompt.slots[place] >= 0 else 1
            expected = words[token] + (marks.kind[kind] + marks.order[prompt.order[place]])
            assert torch.equal(inputs["inputs_embeds"][row, place], expected)


def points_of(recommender: Recommender, prompt: Prompt, pooling: str) -> torch.Tensor:
    """One prompt alone, in float64 after the model."""
    network = recommender.whole.model
    with torch.no_grad():
        hidden = network(**recommender.task.inputs(network, [prompt], serving=False)).last_hidden_state[0].double()
    pooled = hidden[0] if pooling == "cls" else hidden.mean(0)
    return pooled / pooled.norm()


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_the_loss_is_the_cross_entropy_of_cosines_over_the_whole_catalogue(made: Made, pooling: str) -> None:
    recommender = shaken(made(pooling=pooling, temperature=0.1))
    network, built = recommender.whole.model, asked(recommender)
    encoding = recommender.task.encode_catalogue(network)
    items = [points_of(recommender, recommender.prompts.build(np.array([i])), pooling) for i in range(48)]
    assert torch.allclose(encoding[ITEMS].double(), torch.stack(items), atol=1e-6)
    cosines = torch.stack([points_of(recommender, p, pooling) for p in built]) @ torch.stack(items).T
    each = [-(row / 0.1).log_softmax(0)[p.target] for row, p in zip(cosines, built, strict=True)]
    with torch.no_grad():
        loss = recommender.task.loss(network, built, encoding)
    assert float(loss) == pytest.approx(float(torch.stack(each).mean()), rel=1e-5)
    found = recommender.task.log_probs(network, built, encoding)
    assert [len(answer) for answer in found] == [1] * len(built)
    assert [-float(answer[0]) for answer in found] == pytest.approx([float(e) for e in each], rel=1e-5)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_longer_neighbor_does_not_move_a_sequence(made: Made, pooling: str) -> None:
    recommender = shaken(made(pooling=pooling))
    long, short, *_ = asked(recommender)
    with torch.no_grad():
        together = recommender.task.points(recommender.whole.model, [long, short])
        alone = recommender.task.points(recommender.whole.model, [short])
    assert torch.allclose(together[1], alone[0], atol=1e-6)
    assert torch.allclose(together.norm(dim=1), torch.ones(2))
    assert not torch.allclose(together[0], together[1], atol=1e-3)


def test_the_two_poolings_are_not_the_same(made: Made) -> None:
    first, second = (made(pooling=pooling).task.base_encoding[ITEMS] for pooling in ("cls", "mean"))
    assert not torch.allclose(first, second, atol=1e-2)


def test_how_many_are_encoded_together_changes_nothing(model: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    built = [model.prompts.build(generator.integers(48, size=generator.integers(1, 4))) for _ in range(30)]
    at_once = model.task.encode(model.whole.model, built)
    monkeypatch.setattr(recformer, "POSITIONS", 1)
    one_by_one = model.task.encode(model.whole.model, built)
    assert torch.allclose(at_once, one_by_one, atol=1e-6)
    assert not at_once.requires_grad


def test_the_positions_of_the_catalogue_are_those_that_encoding_it_puts_through_the_model(model: Recommender) -> None:
    seen = []
    handle = embeddings(model.whole.model).register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["inputs_embeds"].shape[:2].numel()), with_kwargs=True
    )
    model.task.encode_catalogue(model.whole.model)
    handle.remove()
    assert model.task.catalogue_positions == sum(seen) > 48


def test_items_are_ranked_by_cosine(fresh: Recommender) -> None:
    built = [fresh.prompts.build(prompt.items[::-1]) for prompt in asked(fresh)]
    encoding = fresh.task.base_encoding
    served = Whole(fresh, encoding, Tally())
    items = [points_of(fresh, fresh.prompts.build(np.array([i])), "cls") for i in range(48)]
    seen = []
    for rows, scores in fresh.task.recommend(served, histories(built), np.zeros(48)):
        for row, found in zip(rows, scores, strict=True):
            cosines = (torch.stack(items) @ points_of(fresh, built[row], "cls")).numpy()
            assert found * 0.05 == pytest.approx(cosines, abs=1e-5)
            seen.append(int(row))
    assert sorted(seen) == list(range(len(built)))
    assert served.tally.requests == len(built)
    assert served.tally.prompt_positions >= sum(map(len, built))
    assert served.tally.generated == 0


def test_vectors_of_their_own_move_items_in_loss_and_ranking_and_learn(made: Made) -> None:
    """At zero they change nothing; then an item is its encoding and its vector, as a unit vector."""
    plain, own = made(pooling="mean"), made(pooling="mean", ids=True)
    network, encoding, built = own.whole.model, own.task.base_encoding, asked(own)
    with torch.no_grad():
        before = own.task.loss(network, built, encoding)
        assert torch.allclose(before, plain.task.loss(plain.whole.model, built, encoding), atol=1e-6)
    own.task.loss(network, built, encoding).backward()
    vectors = embeddings(network).get_submodule(IDS).vectors
    assert vectors.shape == (48, 32)
    assert bool(vectors.grad.any())
    assert all(bool(row.any()) for row in vectors.grad), "a softmax over the catalogue moves every item"
    with torch.no_grad():
        vectors.add_(torch.randn(vectors.shape, generator=torch.Generator().manual_seed(5)))
        moved = encoding[ITEMS].double() + vectors.double()
        items = moved / moved.norm(dim=1, keepdim=True)
        assert torch.allclose(own.task.table(network, encoding).double(), items, atol=1e-6)
        points = torch.stack([points_of(own, prompt, "mean") for prompt in built])
        expected = cross_entropy(points @ items.T / 0.05, torch.tensor([prompt.target for prompt in built]))
        assert float(own.task.loss(network, built, encoding)) == pytest.approx(float(expected), rel=1e-5)
    assert [-float(answer[0]) for answer in own.task.log_probs(network, built, encoding)] == pytest.approx(
        [-float(row.log_softmax(0)[p.target]) for row, p in zip(points @ items.T / 0.05, built, strict=True)], rel=1e-5
    )
    asking = [own.prompts.build(prompt.items[::-1]) for prompt in built]
    served = own.whole.served(dict(adapter_parameters(network)), encoding)
    found = list(own.task.recommend(served, histories(asking), np.zeros(48)))
    assert sum(len(rows) for rows, _ in found) == len(asking)
    for rows, scores in found:
        for row, each in zip(rows, scores, strict=True):
            assert each * 0.05 == pytest.approx((points_of(own, asking[row], "mean") @ items.T).numpy(), abs=1e-5)


def test_a_history_of_one_item_is_the_item_and_ranks_it_first(fresh: Recommender) -> None:
    built = [fresh.prompts.build(np.array([item])) for item in range(48)]
    served = Whole(fresh, fresh.task.base_encoding, Tally())
    for rows, scores in fresh.task.recommend(served, histories(built), np.zeros(48)):
        assert (scores.argmax(1) == rows).all()


def test_without_a_memory_the_served_model_works_it_out(model: Recommender) -> None:
    built, trained = asked(model), model.whole.served(dict(adapter_parameters(model.whole.model)))
    table = model.task.encode_catalogue(model.whole.model)
    known = model.whole.served(dict(adapter_parameters(model.whole.model)), table)
    first, second = ([s for _, s in model.task.recommend(w, histories(built), np.zeros(48))] for w in (trained, known))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def loss_and_gradient(table: torch.Tensor, chunk: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    points = (torch.randn(5, 8, generator=generator) * 3).requires_grad_()
    loss = softmax_loss(points, table, torch.tensor([0, 6, 12, 6, 19]), chunk)
    loss.backward()
    assert points.grad is not None
    return loss.detach(), points.grad


@pytest.mark.parametrize("chunk", [1, 3, 7, 19])
def test_scores_in_chunks_give_the_loss_and_the_gradient_of_all_at_once(chunk: int) -> None:
    table = torch.nn.functional.normalize(torch.randn(20, 8, generator=torch.Generator().manual_seed(4)), dim=1)
    loss, gradient = loss_and_gradient(table, chunk)
    expected, expected_gradient = loss_and_gradient(table, 20)
    generator = torch.Generator().manual_seed(3)
    points = torch.randn(5, 8, generator=generator) * 3
    assert torch.equal(expected, cross_entropy(points @ table.T, torch.tensor([0, 6, 12, 6, 19])))
    assert loss == pytest.approx(float(expected), rel=1e-6)
    assert torch.allclose(gradient, expected_gradient, atol=1e-7)


def peak(items: int, chunk: int) -> int:
    table, points = torch.randn(items, 8), torch.randn(16, 8).requires_grad_()
    with Live() as live:
        softmax_loss(points, table, torch.zeros(16, dtype=torch.long), chunk).backward()
    return live.peak


def test_in_chunks_the_loss_takes_no_more_memory_for_a_larger_catalogue() -> None:
    one = 4 * 16 * 512  # the scores of a chunk
    small, large = peak(2_048, 512), peak(16_384, 512)
    assert large - small < one, (small, large)
    assert peak(16_384, 16_384) > 4 * large, "all at once it does"


TRAINED: dict[str, Callable[[str], bool]] = {
    "lora": lambda name: ".lora_" in name,
    "embeddings": lambda name: ".lora_" in name or f".{MARKS}." in name,
    "all": lambda name: True,
}


@pytest.mark.parametrize("with_ids", [False, True])
@pytest.mark.parametrize("train", TRAINED)
def test_exactly_what_train_names_is_trained_and_nothing_else_moves(made: Made, train: str, with_ids: bool) -> None:
    recommender = made(train=train, ids=with_ids)
    network, parts = recommender.whole.model, recommender.parts
    everything = dict(network.named_parameters())
    expected = {name for name in everything if TRAINED[train](name) or f".{IDS}." in name}
    assert any(f".{IDS}." in name for name in everything) == with_ids
    assert set(recommender.initial) == expected == {n for n, p in everything.items() if p.requires_grad}
    assert any(".lora_" in name for name in everything) == (train != "all")
    assert set(parts.client_parameters) | set(parts.trunk_parameters) == expected
    assert any(name.endswith("word_embeddings.weight") for name in expected) == (train == "all")

    before = {name: p.detach().clone() for name, p in everything.items()}
    training = scenario.Training(learning_rate=0.01)
    optimizer = LocalOptimizer(adapter_parameters(network), training, Stretch(0, 3), OptimizerState())
    for _ in range(3):
        recommender.task.loss(network, asked(recommender), recommender.task.base_encoding).backward()
        optimizer.step()
    moved = {name for name, p in everything.items() if not torch.equal(before[name], p)}
    still = {name for name in expected - moved if "lora_A" not in name}
    assert moved <= expected
    # A key's bias shifts all scores of a query alike, so that the softmax does not see it.
    assert all("key.bias" in name for name in still), still
    assert any(f".{MARKS}." in name for name in moved) == (train != "lora")


def test_training_all_leaves_the_embeddings_that_attacks_know_as_they_were(made: Made) -> None:
    recommender = made(train="all")
    before = recommender.whole.embeddings.clone()
    with torch.no_grad():
        for model in (recommender.whole.model, recommender.parts.client):
            model.get_input_embeddings().weight.add_(1)
    assert torch.equal(recommender.whole.embeddings, before)


def test_the_base_model_is_back_when_no_adapter_is_given(made: Made) -> None:
    recommender = made(train="all")
    base = recommender.task.encode_catalogue(recommender.whole.model)[ITEMS]
    assert torch.equal(base, recommender.task.base_encoding[ITEMS])
    shaken(recommender)
    assert not torch.allclose(recommender.task.encode_catalogue(recommender.whole.model)[ITEMS], base, atol=1e-3)
    recommender.whole.set(None)
    assert torch.equal(recommender.task.encode_catalogue(recommender.whole.model)[ITEMS], base)


def test_each_recommender_is_refused_on_a_backbone_of_the_other_kind_with_what_would_do(
    bert_folder: Path, llama_folder: Path, small_market: Dataset
) -> None:
    for recommender, backbone, said in (
        ("bigrec", bert_folder, r"bigrec generates .*type bert\), an encoder, cannot \(accepted: recformer, .*llama"),
        ("recformer", llama_folder, r"recformer reads .*type llama\), a decoder, does not \(accepted: bigrec, .*bert"),
    ):
        with pytest.raises(InputError, match=r"^model\.recommender: " + said):
            build(
                scenario.Model(recommender=recommender, backbone=str(backbone)), small_market.catalogue, history=3,
                seed=1,
            )  # fmt: skip


def test_more_tokens_than_the_encoder_has_positions_are_refused(bert_folder: Path, small_market: Dataset) -> None:
    with pytest.raises(InputError, match=r"^model\.max_tokens: 512 exceeds the positions .* up to 130"):
        build(
            scenario.Model(recommender="recformer", backbone=str(bert_folder)), small_market.catalogue, history=3,
            seed=1,
        )  # fmt: skip


def test_roberta_is_given_no_more_tokens_than_it_has_positions_for(roberta_folder: Path) -> None:
    """Its positions begin behind the padding token's: of 130 a sequence has 128."""
    short = Catalogue(("a", "b"), ("A", "AB"), ("", ""))
    chosen = scenario.Model(recommender="recformer", backbone=str(roberta_folder), max_tokens=128)
    recommender = build(chosen, short, history=60, seed=1)
    tried = [recommender.prompts.build(np.array([0] * n + [1] * m)) for n in range(40) for m in range(1, 5)]
    longest = max(tried, key=len)
    assert len(longest) == 128
    assert recommender.task.encode(recommender.whole.model, [longest]).isfinite().all()
    with pytest.raises(InputError, match=r"^model\.max_tokens: 129 exceeds the positions of .* up to 128\)"):
        build(chosen.model_copy(update={"max_tokens": 129}), short, history=60, seed=1)


def test_rounds_of_refreshing_are_half_of_all_unless_stated(made: Made, fresh: Recommender) -> None:
    network = fresh.whole.model
    for rounds, stated, last in ((1, None, 1), (4, None, 2), (5, None, 3), (5, 0, 0), (5, 9, 9)):
        task = RecFormer(network, fresh.prompts, scenario.Recformer(refresh_rounds=stated), rounds=rounds)
        assert [task.settled(r) for r in range(1, 7)] == [r > last for r in range(1, 7)]
        assert task.fixed == (last == 0)
