"""Every attack runs on every architecture: one small audit each, with all attacks at one cut."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedTokenizerFast

from pplr_audit import pipeline as audit
from pplr_audit import scenario
from pplr_audit.attacks.activation.attribute import Attribute
from pplr_audit.attacks.activation.embedding_match import EmbeddingMatch
from pplr_audit.audit.knowledge.known_model import KnownModel
from pplr_audit.data.dataset import Dataset
from pplr_audit.data.synthetic import market
from pplr_audit.models.architectures import ARCHITECTURES
from pplr_audit.models.build import build as build_model
from pplr_audit.scenario import plugins
from pplr_audit.threat_model.attack import Budget
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.view import Record, View
from tests.attacks.test_inverter import Setting
from tests.conftest import prompt_text
from tests.models.architectures import build, config

MARKET: dict[str, Any] = {"users": 64, "items": 40, "tastes": 3}
QUICK: dict[str, dict[str, Any]] = {
    "ridge": {"prompts": 24, "held_out": 4},
    "embedding_match": {"start": "nothing", "steps": 10},
    "inverter": {"prompts": 8, "held_out": 2, "epochs": 1, "kind": "linear"},
    "label_match": {"shortlist": 2},
    "fsha": {"steps": 3},
    "crafted_adapter": {"prompts": 2, "iterations": 5},
    "sdar": {"steps": 3},
    "gradient_match": {"samples": 64, "tries": 4},
    "update_label": {"prompts": 40, "clients": 2},
    "dager": {"shortlist": 64, "beam": 4, "candidates": 4096},
    "bidirectional": {"prompts": 12, "held_out": 2, "shortlist": 2},
}
"""Settings under which an attack is soon done; the others have none that cost time."""
OF_USERS = {"attribute", "update_attribute"}
"""Attacks that take the name of an attribute, and more users than there are here."""
WITHOUT_ROWS = {"token_rows"}
"""Attacks on tensors that BIGRec does not train."""
OF_PEERS = {"unmixing"}
"""Attacks of a client, who is no adversary here."""
TOO_NARROW = {"lora_span", "trunk_steps"}
"""Attacks for which these layers are too narrow: more different words enter than they are wide."""


def folder(kind: str, catalogue: Dataset, place: Path, **changes: Any) -> Path:
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<s>", "</s>", "<pad>"]
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    inner.train_from_iterator([*catalogue.catalogue.titles, *[prompt_text(["x"], "y")] * 30], trainer)
    names = {"cls_token": "<s>", "sep_token": "</s>"} if not ARCHITECTURES[kind].causal else {"bos_token": "<s>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", pad_token="<pad>", **names)
    positions = {"n_positions": 260} if kind == "gpt2" else {"max_position_embeddings": 260}
    made = config(kind, dropout=False, vocab_size=512, **positions | changes)
    build(AutoModelForCausalLM if ARCHITECTURES[kind].causal else AutoModel, made).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


def small(kind: str, backbone: Path) -> scenario.Scenario:
    return scenario.Scenario.model_validate(
        {
            "seed": 1,
            "data": {"market": MARKET, "clients": 2, "history": 2, "audit_users": 32, "test_users": 2},
            "model": {
                "backbone": str(backbone), "recommender": "bigrec" if ARCHITECTURES[kind].causal else "recformer",
                "beams": 1, "max_tokens": 200, "lora": {"rank": 3},
                **({} if ARCHITECTURES[kind].causal else {"recformer": {"ids": True}}),
            },
            "training": {"rounds": 1, "learning_rate": 0.01, "batch_size": 16},
            "audit": {
                "victims": 3, "cuts": [[1, 1]], "adversaries": ["server", "malicious_server", "outsider"],
                "attacks": [{name: QUICK.get(name, {})} for name in plugins.names("attacks") if name not in OF_USERS],
            },
        }
    )  # fmt: skip


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_attack_runs_on_every_architecture(kind: str, tmp_path: Path) -> None:
    data = market(scenario.Market(**MARKET), 1)
    chosen = small(kind, folder(kind, data, tmp_path / "model"))
    findings = audit.run(chosen, tmp_path / "run").document["findings"]
    assert not [row["detail"] for row in findings if row["status"] not in ("ok", "not_applicable")]
    ran = {row["attack"] for row in findings if row["status"] == "ok"}
    left_out = OF_USERS | TOO_NARROW | OF_PEERS | (WITHOUT_ROWS if ARCHITECTURES[kind].causal else set())
    assert ran == set(plugins.names("attacks")) - left_out
    # Of a causal model's first block every word can be told: who knows it reads all, whatever the architecture.
    exact = [row["value"] for row in findings if row["attack"] == "prefix_search" and row["metric"] == "token_accuracy"]
    assert all(value > 0.95 for value in exact if value is not None)
    assert attribute_told(chosen, data) == 24


def attribute_told(chosen: scenario.Scenario, data: Dataset) -> int:
    """How many rows the attack that needs more victims answers, of what this model's first block makes of prompts."""
    model = build_model(chosen.model, data.catalogue, history=2, seed=1)
    drawn = np.random.default_rng(0)
    prompts = [model.prompts.random(2, drawn) for _ in range(48)]
    states = dict(model.whole.states(prompts, [1], None))
    records = [Record(row, f"client-{row % 2}", 1, 0, states[row][1]) for row in range(48)]
    knowledge = Knowledge(
        "base", model.prompts, model.whole.embeddings, KnownModel(model.whole, None), {}, (1,), 2, model.layers,
        known_attributes={row: "FM"[row // 2 % 2] for row in range(24)},
    )  # fmt: skip
    view = View("server", Channel.FRONT_ACTIVATIONS, 1, None, "none", tuple(records))
    return len(Attribute("gender").run(view, knowledge, Budget(60)).arrays["rows"])


def test_optimized_embeddings_are_read_on_gemma_too(tmp_path: Path) -> None:
    """Its embedding module scales the weight: compared with the weight alone, 7 of 100 tokens fit, and here 34."""
    data = market(scenario.Market(**MARKET), 1)
    chosen = small("gemma3_text", folder("gemma3_text", data, tmp_path)).model
    setting = Setting(build_model(chosen, data.catalogue, history=3, seed=1), {})
    guess = EmbeddingMatch("nothing").run(setting.view(1), setting.knowledge, Budget(120))
    assert setting.right(guess)[0] > 0.25
