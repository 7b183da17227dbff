"""An encoder is a backbone too: its body is loaded whole or refused, and BIGRec does not take it."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertForMaskedLM, BertModel, RobertaForMaskedLM

from pplr_audit import scenario
from pplr_audit.errors import InputError
from pplr_audit.models.architectures import blocks
from pplr_audit.models.build import build
from tests.models.architectures import LAYERS, VOCABULARY
from tests.models.encoder_folder import CATALOGUE, load, save


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole, tmp_path / "model"))


def weights(folder: Path, **changes: torch.Tensor | None) -> None:
    tensors = load_file(folder / "model.safetensors")
    for name, value in changes.items():
        tensors.pop(name, None)
        if value is not None:
            tensors[name] = value
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("library", "name"), [(BertModel, "bert"), (BertForMaskedLM, "bert"), (RobertaForMaskedLM, "roberta")]
)
def test_the_body_of_an_encoder_loads_with_the_weights_it_holds_whatever_stands_on_top(
    tmp_path: Path, library: Any, name: str
) -> None:
    found = load(save(tmp_path, library, name))
    assert not found.causal
    assert len(blocks(found.model)) == LAYERS
    assert not found.model.training
    assert not any(p.requires_grad for p in found.model.parameters())
    assert {p.dtype for p in found.model.parameters()} == {torch.float32}
    assert found.model.config._attn_implementation == "sdpa"
    stored = {key.removeprefix(f"{name}."): value for key, value in load_file(tmp_path / "model.safetensors").items()}
    assert all(torch.equal(value, stored[key]) for key, value in found.model.state_dict().items())
    assert not any(key.startswith(("pooler", "cls", "lm_head")) for key in found.model.state_dict())
    assert found.model.get_input_embeddings().weight.shape == (VOCABULARY, 32)
    assert load(tmp_path).digest == found.digest


def test_a_hub_name_loads_an_encoder_from_the_hubs_own_cache_when_offline(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, commit = tmp_path / "models--owner--model", "0" * 40
    shutil.copytree(whole, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert load("owner/model").digest == load(whole).digest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder.layer.1.attention.self.query.weight": None}, r"1 tensors are missing .*1\.attention\.self\.query"),
        ({"extra.weight": torch.zeros(2)}, r"1 tensors are unexpected .*extra\.weight"),
        ({"embeddings.LayerNorm.weight": torch.zeros(5)}, r"misshapen .*embeddings\.LayerNorm\.weight"),
        ({"embeddings.LayerNorm.weight": torch.full((32,), float("inf"))}, "not finite"),
    ],
)
def test_an_encoder_that_is_not_whole_is_refused(
    folder: Path, changes: dict[str, torch.Tensor | None], message: str
) -> None:
    weights(folder, **changes)
    with pytest.raises(InputError, match=message) as caught:
        load(folder)
    assert str(folder) in str(caught.value)


def test_pickled_weights_of_an_encoder_are_never_read(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"only pickled weights .pytorch_model\.bin., which are never read"):
        load(folder)


def test_bigrec_on_an_encoder_is_refused_with_the_reason_and_what_is_accepted(whole: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"^model\.recommender: bigrec generates the title .*type bert.* cannot \(accepted: .*llama.*gpt2\)$",
    ):
        build(scenario.Model(backbone=str(whole)), CATALOGUE, history=2, seed=0)
