"""The main job on another architecture than Llama, from its folder to the findings, with targets by family."""

from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from pplr_audit import pipeline as audit
from pplr_audit import scenario
from pplr_audit.data.dataset import Dataset
from pplr_audit.errors import InputError
from pplr_audit.models.backbones.tiny_llama import Recipe, train_tokenizer


def save(folder: Path, small_market: Dataset) -> Path:
    tokenizer = train_tokenizer(small_market.catalogue, Recipe())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=len(tokenizer), n_embd=32, n_layer=3, n_head=4, n_positions=512, bos_token_id=0,
                eos_token_id=1, pad_token_id=2,
            )
        )  # fmt: skip
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


QUICK = ("data.market={users: 120, items: 48, tastes: 3}", "data.clients=3", "data.history=3", "data.audit_users=80",
         "data.test_users=5", "training.rounds=1")  # fmt: skip


def test_the_quickstart_takes_another_backbone(tmp_path: Path, small_market: Dataset) -> None:
    backbone = f"model.backbone={save(tmp_path / 'gpt2', small_market)}"
    chosen = scenario.load("quickstart", [backbone, *QUICK])
    document = audit.train(chosen, tmp_path / "run").document
    assert {row["strategy"] for row in document["utility"]} >= {"pplr"}
    (costs,) = [row for row in document["costs"] if row["measured"]]
    assert costs["client_parameters"] == costs["measured"]["client_parameters"]


def test_the_quickstart_refuses_an_encoder_and_says_which_backbones_it_takes(tmp_path: Path, bert_folder: Path) -> None:
    chosen = scenario.load("quickstart", [f"model.backbone={bert_folder}", *QUICK])
    with pytest.raises(
        InputError, match=r"an encoder, cannot \(accepted: recformer, or a backbone of model_type llama"
    ):
        audit.train(chosen, tmp_path / "run")


def test_gpt2_is_trained_split_and_its_histories_are_read_at_every_cut(tmp_path: Path, small_market: Dataset) -> None:
    save(tmp_path / "gpt2", small_market)
    chosen = scenario.Scenario.model_validate(
        {
            "seed": 1,
            "data": {
                "market": {"users": 120, "items": 48, "tastes": 3}, "clients": 3, "history": 3, "audit_users": 80,
                "test_users": 5,
            },
            "model": {"backbone": str(tmp_path / "gpt2"), "beams": 2, "max_tokens": 256, "lora": {"rank": 4}},
            "training": {"rounds": 1, "learning_rate": 0.01, "batch_size": 8},
            "audit": {"victims": 6, "attacks": [{"ridge": {"prompts": 48, "held_out": 8}}], "adversaries": ["server"]},
        }
    )  # fmt: skip
    document = audit.run(chosen, tmp_path / "run").document
    rows = [row for row in document["findings"] if row["metric"] == "token_accuracy" and row["status"] == "ok"]
    assert [row["cut"]["front"] for row in rows] == [0, 1, 2] * 2
    assert all(row["value"] > row["baseline"] + 0.3 for row in rows)
    (costs,) = [row for row in document["costs"] if row["measured"]]
    assert costs["client_parameters"] == costs["measured"]["client_parameters"]
    assert costs["wire_bytes_per_round"] == pytest.approx(costs["measured"]["wire_bytes_per_round"])
    kept = (tmp_path / "run" / "scenario.yaml").read_text()
    assert "targets: null" in kept
    assert scenario.from_text(kept) == chosen
