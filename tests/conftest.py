"""Small things that are real: a Llama built from a config with its own tokenizer, and a small market."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

# Two test workers on two cores. It stands before torch, whose runtime reads it when it is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from hypothesis import settings
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)  # fmt: skip

from pplr_audit import pipeline as audit
from pplr_audit import scenario
from pplr_audit.data.bigrec_prompts import END, PREFIX, SEPARATOR, SUFFIX
from pplr_audit.data.dataset import Dataset
from pplr_audit.data.prepare import PrivateData
from pplr_audit.data.synthetic import market
from pplr_audit.scenario import plugins

LAYERS = 3

# The same examples on every machine, so that a red test is about the change; and no time limit, since machines differ.
# HYPOTHESIS_PROFILE=explore draws new ones: what it finds becomes a test of its own.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Two test workers on two cores."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def gradients_stay_on() -> Iterator[None]:
    """What leaves them off fails here, and not in whichever test comes next."""
    yield
    assert torch.is_grad_enabled()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Put a package with these entry points, and these files beside them, onto the path; answers its folder."""

    def installed(package: str, version: str, entry_points: str, **modules: str) -> Path:
        folder = tmp_path / f"site-{package}"
        described = folder / f"{package.replace('-', '_')}-{version}.dist-info"
        described.mkdir(parents=True)
        (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        (described / "entry_points.txt").write_text(entry_points)
        for name, code in modules.items():
            (folder / f"{name}.py").write_text(code)
        monkeypatch.syspath_prepend(folder)
        plugins._read.cache_clear()
        return folder

    yield installed
    monkeypatch.undo()
    plugins._read.cache_clear()


@pytest.fixture(scope="session")
def small_market() -> Dataset:
    return market(scenario.Market(users=120, items=48, tastes=3), 1)


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory, small_market: Dataset) -> Path:
    """A model folder as transformers writes it: 3 blocks, hidden 32, weights drawn at random."""
    folder = tmp_path_factory.mktemp("llama")
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator([*small_market.catalogue.titles, prompt_text(["x"], "y")], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="</s>", model_max_length=512
    )
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(7)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def small_scenario(llama_folder: Path) -> scenario.Scenario:
    """Seconds from start to end: 3 clients, 2 rounds, random weights."""
    return scenario.Scenario.model_validate(
        {
            "name": "small",
            "seed": 1,
            "data": {
                "market": {"users": 120, "items": 48, "tastes": 3}, "clients": 3, "history": 3, "audit_users": 80,
                "test_users": 30,
            },
            "model": {
                "backbone": str(llama_folder), "beams": 1, "max_tokens": 256,
                "lora": {"rank": 4, "targets": ["q_proj", "v_proj", "down_proj"]},
            },
            "training": {"rounds": 2, "learning_rate": 0.01, "batch_size": 8},
            "audit": {"victims": 12, "attacks": [{"ridge": {"prompts": 48, "held_out": 8}}, "loss"]},
        }
    )  # fmt: skip


ENCODER: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
    "max_position_embeddings": 130, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
    "initializer_range": 0.2,
}  # fmt: skip


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory, small_market: Dataset) -> Path:
    """A small BERT with a WordPiece tokenizer of the small market: 3 blocks, hidden 32, random weights, dropout."""
    folder = tmp_path_factory.mktemp("bert")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    catalogue = small_market.catalogue
    words = sorted({word for text in (*catalogue.titles, *catalogue.categories) for word in text.lower().split()})
    letters = [chr(code) for code in range(33, 127)]
    # Written down, as what a trainer finds is not the same every time; every other word is in pieces.
    known = [*special, *letters, *(f"##{letter}" for letter in letters), "title", "categories", *words[::2]]
    vocabulary = {token: place for place, token in enumerate(dict.fromkeys(known))}
    inner = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, **names)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        BertModel(BertConfig(vocab_size=len(tokenizer), pad_token_id=0, **ENCODER)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def roberta_folder(tmp_path_factory: pytest.TempPathFactory, small_market: Dataset) -> Path:
    """A small RoBERTa with a byte-level BPE tokenizer, whose classification token is also the begin token."""
    folder = tmp_path_factory.mktemp("roberta")
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<s>", "<pad>", "</s>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    inner.train_from_iterator([*small_market.catalogue.titles, *small_market.catalogue.categories], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>", cls_token="<s>", sep_token="</s>"
    )
    with torch.random.fork_rng():
        torch.manual_seed(7)
        RobertaModel(RobertaConfig(vocab_size=len(tokenizer), pad_token_id=1, **ENCODER)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def recformer_scenario(bert_folder: Path) -> scenario.Scenario:
    """The small scenario with RecFormer: 2 rounds, of which the first encodes the item table anew."""
    return scenario.Scenario.model_validate(
        {
            "name": "small-recformer",
            "seed": 1,
            "data": {
                "market": {"users": 120, "items": 48, "tastes": 3}, "clients": 2, "history": 3, "audit_users": 80,
                "test_users": 30,
            },
            "model": {
                "backbone": str(bert_folder), "recommender": "recformer", "max_tokens": 128, "lora": {"rank": 4},
                "recformer": {"refresh_rounds": 1},
            },
            "training": {"rounds": 2, "learning_rate": 0.01, "batch_size": 8},
            "audit": {
                "victims": 12, "cuts": [[1, 0], [2, 0]],
                "attacks": [{"ridge": {"prompts": 48, "held_out": 8}}, "loss"],
            },
        }
    )  # fmt: skip


@pytest.fixture(scope="session")
def finished(small_scenario: scenario.Scenario, tmp_path_factory: pytest.TempPathFactory) -> audit.AuditResult:
    """The small scenario, run to its end without a disturbance."""
    return audit.run(small_scenario, tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture(scope="session")
def trained(small_scenario: scenario.Scenario, tmp_path_factory: pytest.TempPathFactory) -> audit.AuditResult:
    """The small scenario, trained and not attacked."""
    return audit.train(small_scenario, tmp_path_factory.mktemp("trained") / "run")


def prompt_text(titles: Sequence[str], target: str) -> str:
    """A training sequence of BIGRec as text (oldest title first), without its end token."""
    return f"{PREFIX}{SEPARATOR.join(titles)}{SUFFIX}{target}{END}"


def users_of(private: PrivateData, client: str) -> np.ndarray:
    """The users who train at ``client``."""
    at = private.population.clients.index(client)
    return np.flatnonzero((private.population.client_of == at) & (private.population.member == 1))


def comparable(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Findings, utility and costs without the times."""
    findings = [{**row, "seconds": 0} for row in document["findings"]]
    costs = [{**row, "seconds_per_round": 0, "measured": 0} for row in document["costs"]]
    return [*findings, *document["utility"], *costs]
