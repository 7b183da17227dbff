"""The files of a model folder are regular, bounded and inside it, and the weights are what their header says."""

import json
import os
import shutil
import struct
from pathlib import Path

import pytest
import torch

from pplr_audit.errors import InputError
from pplr_audit.models.backbones import config as reading
from tests.models.architectures import VOCABULARY
from tests.models.backbones.test_folder_of_a_stranger import (
    load,
    save,
    weights,
)


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("gpt2", "transformer.h.0.attn.c_attn.more"),
        ("gpt2", "transformer.h.0.masked_bias"),
        ("llama", "model.layers.0.attn.bias"),
        ("llama", "model.layers.1.self_attn.q_proj.bias"),
        ("bert", "encoder.layer.0.position_ids"),
    ],
)
def test_other_tensors_that_the_model_does_not_have_are_refused(name: str, extra: str, tmp_path: Path) -> None:
    save(tmp_path, name)
    weights(tmp_path, lambda tensors: tensors.update({extra: torch.zeros(2)}))
    with pytest.raises(InputError, match=f"1 tensors are unexpected .*{extra}"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["gpt2", "bert", "roberta", "llama, tied"])
def test_a_body_without_its_prefix_and_norms_by_their_old_names_are_the_same_model(name: str, tmp_path: Path) -> None:
    before = load(save(tmp_path, name))
    prefix = before.model.base_model_prefix + "."

    def renamed(tensors: dict[str, torch.Tensor]) -> None:
        for old in list(tensors):
            new = old.removeprefix(prefix) if old.startswith(prefix) else prefix + old
            new = new.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
            if old != "lm_head.weight":
                tensors[new] = tensors.pop(old)

    weights(tmp_path, renamed)
    assert load(tmp_path).digest == before.digest


def test_headers_are_compared_before_anything_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the file is as long as its header says: it is full of holes, and takes no room."""
    save(tmp_path, "llama")
    path = tmp_path / "model.safetensors"
    header = json.loads(path.read_bytes()[8 : 8 + struct.unpack("<Q", path.read_bytes()[:8])[0]])
    header.pop("__metadata__", None)
    for tensor in header.values():
        if tensor["shape"] == [VOCABULARY, 32]:
            tensor["shape"] = [VOCABULARY * 1024, 32 * 16]
    end = 0
    for tensor in header.values():
        size = 4 * int(torch.tensor(tensor["shape"]).prod())
        tensor["data_offsets"], end = [end, end + size], end + size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    monkeypatch.setattr(reading, "MOST_LAYERS", 4)
    monkeypatch.setattr(
        "pplr_audit.models.backbones.transformers_api.of_tensors", lambda *_: pytest.fail("it was built")
    )
    with pytest.raises(InputError, match=r"2 tensors are misshapen .* \[65536, 512\], expected \[64, 32\]"):
        load(tmp_path)


def test_weights_in_a_format_of_quantization_are_refused(tmp_path: Path) -> None:
    save(tmp_path, "llama")
    name = "model.layers.0.mlp.up_proj.weight"
    weights(tmp_path, lambda tensors: tensors.update({name: torch.zeros(48, 32, dtype=torch.int8)}))
    with pytest.raises(InputError, match=rf"{name} is of type I8 .*quantized weights are not read"):
        load(tmp_path)


def test_a_loaded_model_does_not_follow_its_file(tmp_path: Path) -> None:
    found = load(save(tmp_path, "llama"))
    before = {name: value.clone() for name, value in found.model.state_dict().items()}
    path = tmp_path / "model.safetensors"
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size - 4096)
        file.write(b"\x00" * 4096)
    assert all(torch.equal(value, before[name]) for name, value in found.model.state_dict().items())


def test_a_file_that_leads_out_is_refused(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        folder = save(tmp_path / name, "llama")
        (folder / name).rename(tmp_path / f"outside-{name}")
        (folder / name).symlink_to(tmp_path / f"outside-{name}")
        with pytest.raises(InputError, match=f"{name}: is a link that leads out of the folder"):
            load(folder)


def test_a_link_inside_the_folder_is_followed(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", "llama")
    before = load(folder).digest
    (folder / "model.safetensors").rename(folder / "weights")
    (folder / "model.safetensors").symlink_to("weights")
    assert load(folder).digest == before


def test_a_snapshot_of_the_hubs_cache_is_links_to_its_blobs(tmp_path: Path) -> None:
    plain = save(tmp_path / "plain", "llama")
    repository = tmp_path / "models--owner--model"
    snapshot, blobs = repository / "snapshots" / ("0" * 40), repository / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for path in plain.iterdir():
        shutil.copy(path, blobs / f"blob-{path.name}")
        (snapshot / path.name).symlink_to(Path("../../blobs") / f"blob-{path.name}")
    assert load(snapshot).digest == load(plain).digest
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(plain / "config.json")
    with pytest.raises(InputError, match="leads out"):
        load(snapshot)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "special_tokens_map.json", "model.safetensors"])
def test_a_pipe_and_a_folder_are_no_files(name: str, tmp_path: Path) -> None:
    folder = save(tmp_path / "model", "llama")
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(InputError, match=f"{name}: is no regular file"):
        load(folder)
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(InputError, match=f"{name}: is no regular file"):
        load(folder)


def test_a_file_is_no_larger_than_such_files_are(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        folder = save(tmp_path / name, "llama")
        with (folder / name).open("r+b") as file:
            file.truncate(1 << 30)
        with pytest.raises(InputError, match=f"{name}: is larger than "):
            load(folder)
    deep = save(tmp_path / "deep", "llama")
    (deep / "config.json").write_text("[" * 200_000)
    with pytest.raises(InputError, match=r"config\.json: cannot be read as JSON"):
        load(deep)


def test_a_folder_of_another_kind_says_what_it_is(tmp_path: Path) -> None:
    whole = save(tmp_path / "whole", "llama")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "owner/base\x1b[2J"}))
    with pytest.raises(InputError, match=r"this is an adapter of 'owner/base.*merge it into its base model") as caught:
        load(adapter)
    assert "\x1b" not in str(caught.value)
    shutil.copy(adapter / "adapter_config.json", whole)
    with pytest.raises(InputError, match=r"adapter_config\.json: there is an adapter beside the model.*merge it"):
        load(whole)
    (whole / "adapter_config.json").unlink()
    load(whole)
    outer = tmp_path / "outer"
    shutil.copytree(whole, outer / "0_Transformer")
    (outer / "modules.json").write_text("[]")
    with pytest.raises(InputError, match=r"this is a sentence-transformers folder, .*outer/0_Transformer$"):
        load(outer)
    (whole / "model.safetensors").rename(whole / "model-q4.gguf")
    with pytest.raises(InputError, match=r"only weights in another format \(model-q4\.gguf\)"):
        load(whole)
