"""Tensors with a row for each token or item: found in every architecture, with what a row learns from."""

from typing import Any

import pytest
from transformers import AutoModel, AutoModelForCausalLM

from pplr_audit import scenario
from pplr_audit.data.dataset import Dataset
from pplr_audit.models.build import build as build_model
from pplr_audit.models.rows import rows_of
from tests.models.architectures import CONFIGS, ENCODERS, VOCABULARY, build, config


def all_rows(name: str, **changed: Any) -> tuple[Any, dict[str, Any]]:
    kind = AutoModel if name in ENCODERS else AutoModelForCausalLM
    model = build(kind, config(name, **changed))
    return model, rows_of(model, dict(model.named_parameters()))


@pytest.mark.parametrize("name", CONFIGS)
def test_words_and_head_are_found_and_nothing_else(name: str) -> None:
    model, found = all_rows(name)
    parameters = dict(model.named_parameters())
    assert {parameters[each].shape[rows.axis] for each, rows in found.items()} == {VOCABULARY}
    tied = name not in ENCODERS and model.get_output_embeddings().weight is model.get_input_embeddings().weight
    learns = sorted(rows.learns for rows in found.values())
    assert learns == (["reading"] if name in ENCODERS else ["answering"] if tied else ["answering", "reading"])


def test_a_tied_head_makes_the_word_embeddings_learn_from_answers() -> None:
    _, found = all_rows("llama", tie_word_embeddings=True)
    assert {rows.learns for rows in found.values()} == {"answering"}
    _, found = all_rows("llama", tie_word_embeddings=False)
    assert {name: rows.learns for name, rows in found.items()} == {
        "model.embed_tokens.weight": "reading", "lm_head.weight": "answering",
    }  # fmt: skip


@pytest.mark.parametrize(("train", "ids", "of"), [("all", True, {"tokens", "items"}), ("embeddings", True, {"items"}),
                                                  ("all", False, {"tokens"}), ("lora", False, set())])  # fmt: skip
def test_recformer_has_rows_of_items_and_of_words_as_far_as_they_are_trained(
    recformer_scenario: scenario.Scenario, small_market: Dataset, train: Any, ids: bool, of: set[str]
) -> None:
    settings = recformer_scenario.model.recformer.model_copy(update={"train": train, "ids": ids})
    chosen = recformer_scenario.model.model_copy(update={"recformer": settings})
    whole = build_model(chosen, small_market.catalogue, history=3, seed=1).whole
    assert {rows.of for rows in whole.rows.values()} == of
    for name, rows in whole.rows.items():
        assert len(whole.initial[name]) == (48 if rows.of == "items" else len(whole.embeddings))
        assert name in whole.held_by_client(0, 0), "the client holds it at every cut"
