"""BIGRec's loss, generation and grounding, each against a plain computation."""

import numpy as np
import pytest
import torch
from transformers import GenerationConfig

from pplr_audit import scenario
from pplr_audit.data.dataset import Dataset
from pplr_audit.data.prompts import collate
from pplr_audit.models.build import Recommender, build
from pplr_audit.models.cut import positions
from pplr_audit.models.lora import adapter_off, adapter_parameters
from pplr_audit.models.recommenders import bigrec
from pplr_audit.models.recommenders.bigrec import (
    Grounding,
    answer_log_probs,
    answer_loss,
    embed_titles,
    generate_titles,
)
from pplr_audit.models.recommenders.task import tensors


@pytest.fixture(scope="module")
def model(small_scenario: scenario.Scenario, small_market: Dataset) -> Recommender:
    made = build(small_scenario.model, small_market.catalogue, history=3, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():  # an adapter that is not zero
        for parameter in adapter_parameters(made.whole.model).values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return made


def test_the_loss_is_the_mean_over_sequences_of_their_own_means(model: Recommender) -> None:
    built = [model.prompts.build(np.array([1, 2, 3]), 4), model.prompts.build(np.array([5]), 6)]
    tokens, mask, learned = tensors(collate(built, model.prompts.pad))
    network = model.whole.model
    with torch.no_grad():
        loss = answer_loss(network(input_ids=tokens, attention_mask=mask, use_cache=False).logits, tokens, learned)
        each = []
        for prompt in built:
            alone = torch.from_numpy(prompt.tokens)[None]
            logits = network(input_ids=alone, use_cache=False).logits[0, :-1].log_softmax(-1)
            picked = logits.gather(1, alone[0, 1:, None])[:, 0]
            each.append(float(-picked[prompt.answer - 1 :].mean()))
    assert float(loss) == pytest.approx(np.mean(each), rel=1e-5)


def test_a_longer_neighbor_does_not_change_a_sample_s_part_of_the_loss(model: Recommender) -> None:
    """The token mean of a padded batch would."""
    short, long = model.prompts.build(np.array([5]), 6), model.prompts.build(np.array([1, 2, 3]), 4)
    answers = answer_log_probs(model.whole.model, [short, long], model.prompts.pad)
    alone = answer_log_probs(model.whole.model, [short], model.prompts.pad)
    assert answers[0] == pytest.approx(alone[0], abs=1e-5)


def test_log_probabilities_are_of_the_answer_alone_end_token_included(model: Recommender) -> None:
    prompt = model.prompts.build(np.array([1, 2]), 4)
    (answer,) = answer_log_probs(model.whole.model, [prompt], model.prompts.pad)
    assert len(answer) == len(prompt) - prompt.answer == len(model.prompts.titles[4]) + len(model.prompts.end)
    assert (answer < 0).all()


def test_batched_generation_is_that_of_one_at_a_time(model: Recommender) -> None:
    served = [model.prompts.build(np.array(items)) for items in ([1, 2, 3], [4], [5, 6])]
    together = generate_titles(model.whole.model, served, model.prompts, beams=2)
    for prompt, title in zip(served, together, strict=True):
        (alone,) = generate_titles(model.whole.model, [prompt], model.prompts, beams=2)
        assert title.tolist() == alone.tolist()


def test_a_prompt_is_read_once_for_all_beams_and_the_titles_are_those_of_reading_it_for_each(
    model: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = [model.prompts.build(np.array(items)) for items in ([1, 2, 3], [4], [5, 6], [7, 8, 9])]
    rows: list[tuple[int, int]] = []
    words = model.whole.model.get_input_embeddings()
    handle = words.register_forward_pre_hook(lambda _, args: rows.append(tuple(args[0].shape)))
    once = generate_titles(model.whole.model, served, model.prompts, beams=3)
    handle.remove()
    longest = max(map(len, served))
    assert rows[0] == (len(served), longest - 1)
    assert {length for _, length in rows[1:]} == {1}
    assert {count for count, _ in rows[1:]} == {3 * len(served)}
    monkeypatch.setattr(bigrec, "read_once", lambda *_: {})
    for title, each in zip(once, generate_titles(model.whole.model, served, model.prompts, beams=3), strict=True):
        assert title.tolist() == each.tolist()


def test_what_is_generated_stops_before_the_closing_quote_and_the_end(
    model: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    title = model.prompts.titles[7]

    def answer(
        input_ids: torch.Tensor, attention_mask: torch.Tensor, generation_config: GenerationConfig, **_: object
    ) -> torch.Tensor:
        del attention_mask, generation_config
        said = torch.from_numpy(np.concatenate([title, model.prompts.end, [model.prompts.pad] * 3]))
        return torch.cat([input_ids, said[None].expand(len(input_ids), -1)], dim=1)

    monkeypatch.setattr(model.whole.model, "generate", answer)
    (got,) = generate_titles(model.whole.model, [model.prompts.build(np.array([1]))], model.prompts, beams=1)
    assert got.tolist() == title.tolist()


def test_items_are_embedded_by_the_base_model_at_the_last_token(model: Recommender) -> None:
    network = model.whole.model
    titles = [model.prompts.titles[i] for i in (0, 5, 9)]
    with adapter_off(network):
        points = embed_titles(network, titles, model.prompts)
        for point, title in zip(points, titles, strict=True):
            tokens = torch.from_numpy(np.concatenate([model.prompts.bos, title]))[None]
            with torch.no_grad():
                hidden = network(tokens, output_hidden_states=True).hidden_states[-1][0, -1]
            assert point == pytest.approx(hidden.numpy(), abs=1e-5)
    assert not np.allclose(points, embed_titles(network, titles, model.prompts), atol=1e-3)


def test_a_title_generated_exactly_is_ranked_first(model: Recommender) -> None:
    with adapter_off(model.whole.model):
        points = embed_titles(model.whole.model, [model.prompts.titles[i] for i in range(20)], model.prompts)
    assert (model.task.grounding.scores(points).argmax(1) == np.arange(20)).all()


def test_distances_are_euclidean() -> None:
    generator = np.random.default_rng(0)
    table, points = generator.normal(size=(5, 3)), generator.normal(size=(2, 3))
    grounding = Grounding(None, table)  # type: ignore[arg-type]
    expected = [[-np.linalg.norm(point - item) for item in table] for point in points]
    assert grounding.scores(points) == pytest.approx(np.array(expected))


def test_popularity_is_weighed_in_as_in_the_paper() -> None:
    table, point = np.array([[0.0], [1.0], [2.0]]), np.array([[0.0]])
    popularity = np.array([0.0, 5.0, 10.0])
    scores = Grounding(None, table).scores(point, popularity, 2.0)  # type: ignore[arg-type]
    assert scores[0] == pytest.approx([0, -0.5 / 1.5**2, -1 / 2**2])


def test_the_adapter_is_off_within_and_on_again_after(model: Recommender) -> None:
    tokens = torch.from_numpy(model.prompts.build(np.array([1])).tokens)[None]
    network = model.whole.model
    with torch.no_grad():
        on = network(tokens, position_ids=positions(torch.ones_like(tokens))).logits
        with adapter_off(network):
            off = network(tokens).logits
        again = network(tokens).logits
    assert torch.equal(on, again)
    assert not torch.allclose(on, off)
    assert all(p.requires_grad for p in adapter_parameters(network).values())
