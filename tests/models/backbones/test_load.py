"""A backbone is whole or it is refused, with the folder and the file named."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from pplr_audit.data.dataset import Catalogue
from pplr_audit.errors import InputError
from pplr_audit.models.backbones import tiny_llama
from pplr_audit.models.backbones.load import Backbone, digest, load_backbone

CATALOGUE = Catalogue(("1", "2", "3"), ("Amber Road", "Birch Garden", "Copper Storm"), ("A", "A", "B"))


def load(folder: Path | str) -> Backbone:
    return load_backbone(str(folder), CATALOGUE, seed=0)


def save(folder: Path, *, tied: bool = False, vocabulary: int | None = None) -> Path:
    """A whole folder: a random model and a tokenizer."""
    tokenizer = tiny_llama.train_tokenizer(CATALOGUE, tiny_llama.Recipe())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=vocabulary or len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=2,
                num_attention_heads=2, tie_word_embeddings=tied, bos_token_id=0, eos_token_id=1, pad_token_id=2,
            )
        )  # fmt: skip
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole, tmp_path / "model"))


def rewrite(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("tied", [False, True])
def test_a_whole_folder_loads_frozen_in_float32_with_the_weights_it_holds(tmp_path: Path, tied: bool) -> None:
    found = load(save(tmp_path, tied=tied))
    assert not found.model.training
    assert not any(p.requires_grad for p in found.model.parameters())
    assert {p.dtype for p in found.model.parameters()} == {torch.float32}
    assert found.model.config._attn_implementation == "sdpa"
    stored = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(found.model.state_dict()[name], tensor) for name, tensor in stored.items())
    ends = found.model.get_input_embeddings().weight, found.model.get_output_embeddings().weight
    assert (ends[0] is ends[1]) == tied
    assert load(tmp_path).digest == found.digest


def test_half_precision_weights_are_read_as_float32(folder: Path) -> None:
    weights(folder, lambda tensors: tensors.update({n: t.bfloat16() for n, t in tensors.items()}))
    rewrite(folder / "config.json", dtype="bfloat16")
    assert {p.dtype for p in load(folder).model.parameters()} == {torch.float32}


def test_weights_in_several_files_load(whole: Path, tmp_path: Path) -> None:
    found = load(whole)
    found.model.save_pretrained(tmp_path, max_shard_size="20KB")
    found.tokenizer.save_pretrained(tmp_path)
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 1
    assert load(tmp_path).digest == found.digest
    shards[0].unlink()
    with pytest.raises(InputError, match=shards[0].name):
        load(tmp_path)


def test_the_digest_tells_weights_and_tokenizers_apart_and_not_uses(folder: Path) -> None:
    found = load(folder)
    found.tokenizer(["Amber", "Amber Road"], padding=True, truncation=True, max_length=2)
    assert digest(found.model, found.tokenizer) == found.digest
    with torch.no_grad():
        found.model.get_output_embeddings().weight[0, 0] += 1e-6
    assert digest(found.model, found.tokenizer) != found.digest
    described = json.loads((folder / "tokenizer.json").read_text())
    described["model"]["merges"] = described["model"]["merges"][:-1]
    (folder / "tokenizer.json").write_text(json.dumps(described))
    assert load(folder).digest != found.digest


def drop(*names: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / name).unlink() for name in names] and None


def pickled_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def truncated(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-64])


def overwritten(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"not safetensors at all")


def broken_index(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text('{"weight_map": []}')


def index_that_climbs_out(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "elsewhere.safetensors")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../elsewhere.safetensors"}}')


def missing_tensor(folder: Path) -> None:
    weights(folder, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))


def unexpected_tensor(folder: Path) -> None:
    weights(folder, lambda tensors: tensors.update(extra=torch.zeros(2)))


def misshapen_tensor(folder: Path) -> None:
    weights(folder, lambda tensors: tensors.update({"model.norm.weight": torch.zeros(5)}))


def not_a_number(folder: Path) -> None:
    weights(folder, lambda tensors: tensors["model.norm.weight"].fill_(float("nan")))


def no_end_token(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings.pop("eos_token")
    path.write_text(json.dumps(settings))


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (drop("config.json"), "there is no config.json"),
    (lambda folder: (folder / "config.json").write_text("{") and None, r"config\.json: cannot be read"),
    (
        lambda folder: (folder / "config.json").write_text("[]") and None,
        r"config\.json: holds no JSON object",
    ),
    (lambda folder: rewrite(folder / "config.json", model_type="t5"), r"'t5' is not supported: an encoder-decoder"),
    (lambda folder: rewrite(folder / "config.json", num_attention_heads=3), r"config\.json: "),
    (lambda folder: rewrite(folder / "config.json", num_hidden_layers=3), r"says 3 blocks .* holds 2"),
    (lambda folder: rewrite(folder / "config.json", num_hidden_layers=1), r"says 1 blocks .* holds 2"),
    (drop("model.safetensors"), "no weights"),
    (pickled_only, "only pickled weights .pytorch_model.bin"),
    (truncated, r"model\.safetensors: cannot be read"),
    (overwritten, r"model\.safetensors: cannot be read"),
    (broken_index, r"index\.json: "),
    (index_that_climbs_out, r"index\.json: '\.\./elsewhere\.safetensors' is no file"),
    (missing_tensor, r"missing in .*model\.layers\.1\.mlp\.up_proj\.weight"),
    (unexpected_tensor, "unexpected in .*extra"),
    (misshapen_tensor, r"misshapen in .*model\.norm\.weight"),
    (not_a_number, r"not finite .*model\.norm\.weight"),
    (drop("tokenizer.json", "tokenizer_config.json"), r"tokenizer\.json"),
    (lambda folder: (folder / "tokenizer.json").write_text("{}") and None, r"tokenizer\.json"),
    (no_end_token, "no end token"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_a_folder_that_is_not_whole_is_refused(folder: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(folder)
    with pytest.raises(InputError, match=message) as caught:
        load(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_with_more_tokens_than_the_embedding_has_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the embedding in .* has 20 rows"):
        load(save(tmp_path, vocabulary=20))


def test_rows_without_a_token_are_allowed(tmp_path: Path) -> None:
    assert load(save(tmp_path, vocabulary=1024)).model.get_input_embeddings().num_embeddings == 1024


def test_padding_falls_back_to_the_end_token_and_the_begin_token_is_optional(folder: Path) -> None:
    assert load(folder).tokenizer.bos_token_id == 0
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    del settings["pad_token"], settings["bos_token"]
    path.write_text(json.dumps(settings))
    tokenizer = load(folder).tokenizer
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 1
    assert tokenizer.bos_token_id is None


@pytest.mark.parametrize("name", ["no-such-owner/no-such-model", "../nowhere/at/all", "no such folder"])
def test_a_name_that_leads_nowhere_says_what_was_tried(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"no folder here.*accepted: tiny-llama, minilm, a folder with config.json"):
        load(name)


def test_a_hub_name_loads_from_the_hubs_own_cache_when_offline(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, commit = tmp_path / "models--owner--model", "0" * 40
    shutil.copytree(whole, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    found = load("owner/model")
    assert found.name == "owner/model"
    assert found.digest == load(whole).digest


def test_loading_is_silent_and_leaves_logging_and_random_state_alone(
    whole: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = torch.get_rng_state(), logging.get_verbosity(), logging.is_progress_bar_enabled()
    load(whole)
    assert capfd.readouterr() == ("", "")
    after = torch.get_rng_state(), logging.get_verbosity(), logging.is_progress_bar_enabled()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_tiny_llama_is_trained_on_the_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = tiny_llama.Recipe(layers=1, hidden=16, intermediate=16, steps=2)
    monkeypatch.setattr(tiny_llama, "Recipe", lambda: quick)
    found = load_backbone("tiny-llama", CATALOGUE, seed=0, cache=tmp_path)
    assert found.name == "tiny-llama"
    assert isinstance(found.tokenizer, PreTrainedTokenizerFast)
    assert load_backbone("tiny-llama", CATALOGUE, seed=0, cache=tmp_path).digest == found.digest
    assert load_backbone("tiny-llama", CATALOGUE, seed=1, cache=tmp_path).digest != found.digest


def test_real_weights_predict_real_text() -> None:
    models = Path(os.environ.get("PPLR_AUDIT_MODELS", Path(__file__).parents[3] / ".." / "shared" / "models"))
    if not (models / "stories260k").is_dir():
        pytest.skip(f"no stories260k in {models}; set PPLR_AUDIT_MODELS to the folder that holds it")
    found = load(models / "stories260k")
    text = "Once upon a time, there was a little girl named Lily."
    tokens = torch.tensor([[found.tokenizer.bos_token_id, *found.tokenizer.encode(text, add_special_tokens=False)]])
    with torch.no_grad():
        assert float(found.model(input_ids=tokens, labels=tokens).loss) < 0.5
