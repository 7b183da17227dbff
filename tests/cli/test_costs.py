"""`pplr-audit costs`: what it says, and that it says what a real client does over a real link."""

import json
import re
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

from pplr_audit.cli.main import app
from pplr_audit.models.backbones.known_shapes import NAMED
from pplr_audit.models.cut import cut
from pplr_audit.models.lora import adapter_parameters, add_lora, read_adapter
from pplr_audit.models.recommenders.bigrec import read_once
from pplr_audit.report.words.quantities import size
from pplr_audit.scenario.schema import Lora, Training
from pplr_audit.training.costs import flops
from pplr_audit.training.link import Link
from pplr_audit.training.server import Server, TrunkPart
from pplr_audit.training.strategies.fedavg import FedAvg

BATCH, T, STEPS, TITLE = 3, 24, 2, 5
SIZES: dict[str, Any] = {
    "vocab_size": 80, "hidden_size": 32, "intermediate_size": 72, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
}  # fmt: skip
SMALL = ("--batch", str(BATCH), "--tokens", str(T), "--samples", str(STEPS * BATCH), "--title", str(TITLE))


def said(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["costs", *arguments])
    assert result.exit_code == 0, result.stderr
    return result.stdout


def document(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(said(*arguments, "--json"))
    return found


def row(found: dict[str, Any], front: int, back: int) -> dict[str, Any]:
    (one,) = [row for row in found["costs"] if row["cut"] == {"front": front, "back": back}]
    return one  # type: ignore[no-any-return]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small Llama's config.json, and no weights."""
    LlamaConfig(**SIZES, architectures=["LlamaForCausalLM"]).save_pretrained(tmp_path)
    return tmp_path


class Trips:
    """A real server that counts how often a client waits for it."""

    def __init__(self, server: Server) -> None:
        self.waits = 0
        self._server = server

    def __getattr__(self, name: str) -> Any:
        if name in ("forward", "backward", "serve", "personal_model"):
            self.waits += 1
        return getattr(self._server, name)


@pytest.mark.parametrize("place", [(0, 2), (1, 1), (2, 1), (2, 2)])
def test_bytes_flops_and_time_are_those_of_a_client_that_trains_and_serves_over_a_link(
    folder: Path, place: tuple[int, int]
) -> None:
    found = row(document(str(folder), *SMALL, "--link", "1Mbit", "--rtt", "100ms"), *place)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**SIZES)).requires_grad_(False)
    add_lora(model, Lora(), 0)
    initial = read_adapter(adapter_parameters(model))
    parts = cut(model, *place)
    trunk = TrunkPart(parts.trunk, parts.trunk_parameters, parts.trunk_randomness)
    host = Trips(Server(trunk, initial, Training(batch_size=BATCH), FedAvg(Training())))
    link = Link(host)  # type: ignore[arg-type]  # it answers as the server does
    host._server.join("client-0", STEPS * BATCH)

    def seconds(size: int, waits: int) -> float:
        return 8 * size / 1e6 + 0.1 * waits

    side = link.training("client-0", 1)
    if parts.proxy is not None:
        parts.proxy.endpoint = side
    for _ in range(STEPS):
        before, waited = link.sent.total(), host.waits
        tokens = torch.randint(3, 80, (BATCH, T))
        parts.client(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False).logits.sum().backward()
        crossed = link.sent.total() - before
        assert found["wire_bytes_per_step"] == crossed
        assert found["wire_seconds_per_step"] == pytest.approx(seconds(crossed, host.waits - waited))
        side.finish_step()
    link.upload("client-0", 1, {n: 0 * p.detach() for n, p in parts.client_parameters.items()}, 0.5)
    host._server.balance(1)
    link.download("client-0", 1)
    assert found["wire_bytes_per_round"] == link.sent.total()
    assert found["wire_seconds_per_round"] == pytest.approx(seconds(link.sent.total(), host.waits))
    assert found["frozen_parameters"] + found["adapter_parameters"] == sum(p.numel() for p in parts.client.parameters())

    link.sent.clear()
    host.waits = 0
    parts.client.eval()
    settings = GenerationConfig(
        max_new_tokens=TITLE, min_new_tokens=TITLE, num_beams=4, do_sample=False, eos_token_id=1, pad_token_id=2
    )
    prompt, title = torch.randint(3, 80, (1, T - TITLE)), torch.randint(3, 80, (1, TITLE))
    if parts.proxy is not None:
        parts.proxy.endpoint = link.serving("client-0")
    mask = torch.ones_like(prompt)
    with torch.no_grad():
        held = read_once(parts.client, prompt, mask, beams=4)
        parts.client.generate(input_ids=prompt, attention_mask=mask, generation_config=settings, **held)
        if parts.proxy is not None:
            parts.proxy.endpoint = link.serving("client-0", "base")
        parts.client(input_ids=title, attention_mask=torch.ones_like(title), use_cache=False)
    assert found["serving_wire_bytes_per_request"] == link.sent.total()
    assert found["wire_seconds_per_request"] == pytest.approx(seconds(link.sent.total(), host.waits))


def test_flops_are_those_that_torch_counts(folder: Path) -> None:
    found = row(document(str(folder), *SMALL), 4, 0)
    with torch.random.fork_rng(devices=[]):
        model = LlamaForCausalLM(LlamaConfig(**SIZES)).requires_grad_(False)
    add_lora(model, Lora(), 0)
    tokens: Tensor = torch.randint(3, 80, (BATCH, T))
    with flops.counter() as forward:
        out = model(input_ids=tokens, use_cache=False).logits.sum()
    with flops.counter() as backward:
        out.backward()
    assert found["client_flops_per_token"] == forward.get_total_flops() / tokens.numel()
    assert found["training_flops_per_token"] == (
        (forward.get_total_flops() + backward.get_total_flops()) / tokens.numel()
    )


def test_shares_of_a_7b_llama_are_the_known_ones() -> None:
    found = document("llama-7b")
    shares = {k: round(100 * row(found, k, 1)["client_share"], 1) for k in (1, 5, 10, 20, 30)}
    assert shares == {1: 9.9, 5: 21.9, 10: 36.9, 20: 67.0, 30: 97.0}
    assert found["model"]["parameters"] == NAMED["llama-7b"].parameters


def test_a_step_of_a_7b_llama_in_half_precision_and_a_round_of_its_adapter_have_the_known_sizes() -> None:
    found = document("llama-7b", "--batch", "4", "--precision", "float16")
    assert round(row(found, 1, 1)["wire_bytes_per_step"] / 1e6) == 67
    whole = row(found, 31, 1)
    assert round(whole["adapter_bytes"] / 1e6, 1) == 8.4
    assert whole["wire_bytes_per_round"] == 2 * whole["adapter_bytes"] + 8


def test_every_cut_of_a_70b_model_is_in_the_document_and_a_table_of_it_stays_short() -> None:
    found = document("llama-70b", "--precision", "bfloat16", "--client-memory", "80GB")
    cuts = [(row["cut"]["front"], row["cut"]["back"]) for row in found["costs"]]
    assert len(cuts) == len(set(cuts)) == 81 * 82 / 2
    text = said("llama-70b", "--precision", "bfloat16", "--client-memory", "80GB")
    assert len(text.splitlines()) < 30
    assert max(map(len, text.splitlines()[2:-4])) <= 120
    at_one = [row for row in found["costs"] if row["cut"]["back"] == 1]
    deepest = max(row["cut"]["front"] for row in at_one if row["fits_training"])
    assert row(found, deepest, 1)["training_memory_bytes"] <= 80e9 < row(found, deepest + 1, 1)["training_memory_bytes"]
    assert f"a client can train with m=1 at k=0 to {deepest}, and serve at k=0 to " in text.splitlines()[-1]
    assert any(line.split()[:1] == [str(deepest)] and line.rstrip().endswith("yes") for line in text.splitlines())


@pytest.mark.parametrize("model", ["tiny-llama", "llama-70b"])
def test_on_80_columns_no_figure_of_the_table_is_cut_off(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = document(model, "--client-memory", "80GB")
    screen = Console(width=80, file=StringIO())
    monkeypatch.setattr("pplr_audit.cli.main.console", lambda: screen)
    said(model, "--client-memory", "80GB")
    lines = screen.file.getvalue().splitlines()  # type: ignore[attr-defined]
    rows = [line.split() for line in lines if re.match(r" *[0-9]+\*? ", line)]
    assert {each[-1] for each in rows} <= {"yes", "serve", "train", "no"}
    for each in rows:
        priced = row(found, int(each[0].rstrip("*")), 1)
        assert size(priced["training_memory_bytes"]) in " ".join(each)
        assert size(priced["wire_bytes_per_round"]) in " ".join(each)
    assert len(rows) == 6 if model == "tiny-llama" else len(rows) > 10
    assert not any("…" in line for line in lines)


@pytest.mark.parametrize(
    ("memory", "sentence"),
    [
        ("1TB", "every front fits with m=1, in training and in serving."),
        ("1kB", "no front fits with m=1: serving alone takes"),
        ("20MB", "none can be trained with m=1"),
    ],
)
def test_the_last_line_says_what_fits(memory: str, sentence: str) -> None:
    assert sentence in said("tiny-llama", "--client-memory", memory).splitlines()[-1]


def test_an_encoder_is_priced_and_its_dropout_is_named() -> None:
    text = said("minilm")
    assert "has attention dropout (rate 0.1)" in text
    found = document("minilm")
    assert found["assumed"]["beams"] == 1
    assert all(row["cache_bytes"] == 0 for row in found["costs"])


def test_what_an_encoder_trains_is_what_recformer_trains() -> None:
    block, hidden = 2 * 2 * 8 * 384, 384  # LoRA of rank 8 on query and value
    marks = (3 + 1 + 10) * hidden
    lora, embeddings, everything = (
        document("minilm", "--set", f"model.recformer.train={train}") for train in ("lora", "embeddings", "all")
    )
    assert row(lora, 1, 2)["adapter_parameters"] == 3 * block
    assert row(embeddings, 1, 2)["adapter_parameters"] == 3 * block + marks, "they are the client's at every cut"
    assert row(embeddings, 0, 1)["adapter_parameters"] == block + marks
    weights = NAMED["minilm"].parameters
    assert row(everything, 6, 0)["adapter_parameters"] == weights + marks
    for each in (lora, embeddings, everything, document("minilm", "--set", "data.history=4", "--rank", "3")):
        assert each["model"]["parameters"] == weights, "the model is what it is, whatever is trained"
    assert "all weights" in said("minilm", "--set", "model.recformer.train=all")
    fewer = document("minilm", "--set", "data.history=4")
    assert row(fewer, 0, 1)["adapter_parameters"] == block + marks - 6 * hidden


def test_settings_change_what_they_name() -> None:
    plain, other = (document("tiny-llama", *more) for more in ((), ("--set", "training.optimizer=sgd", "--rank", "4")))
    assert row(plain, 1, 1)["optimizer_bytes"] == 2 * row(plain, 1, 1)["adapter_bytes"]
    assert row(other, 1, 1)["optimizer_bytes"] == 0
    assert row(other, 1, 1)["adapter_parameters"] * 2 == row(plain, 1, 1)["adapter_parameters"]
    beams = document("tiny-llama", "--set", "model.beams=1")
    ratio = row(plain, 1, 1)["serving_wire_bytes_per_request"] / row(beams, 1, 1)["serving_wire_bytes_per_request"]
    assert 1 < ratio < 1.2, "the prompt crosses once, whatever the number of beams"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no-such-model"], "no-such-model: no such model and no such folder (accepted: a folder with config.json,"),
        (["tiny-llama", "--link", "fast"], "--link: 'fast' is not understood (accepted:"),
        (["tiny-llama", "--rtt", "20"], "--rtt: '20' is not understood (accepted:"),
        (["tiny-llama", "--client-memory", "8"], "--client-memory: '8' is not understood (accepted:"),
        (["tiny-llama", "--batch", "0"], "--batch: 0 is too few (accepted: a whole number above 0)"),
        (["tiny-llama", "--precision", "int8"], "--precision: unknown precision 'int8' (accepted: float32, bfloat16,"),
        (
            ["tiny-llama", "--tokens", "4096"],
            "--tokens: 4096 exceeds the positions of tiny-llama (accepted: up to 1024",
        ),
        (["tiny-llama", "--title", "512"], "--title: 512 leaves no prompt (accepted: fewer than --tokens, 512)"),
        (["tiny-llama", "--back", "7"], "--back: 7 of 6 blocks (accepted: 0 to 6)"),
        (["tiny-llama", "--set", "data.clients=3"], "--set data.clients=3: changes nothing here"),
        (["tiny-llama", "--set", "data.history=3"], "data.history=3: is of encoders, and tiny-llama is a decoder"),
        (["minilm", "--set", "model.recformer.ids=true"], "ids=true: needs a catalogue, which is not known here"),
        (["tiny-llama", "--set", "model.beams=99"], "--set model.beams=99: model.beams"),
        (["tiny-llama", "--set", "model.lora.targets=[nope]"], "no layer 'nope' in the blocks of this backbone"),
    ],
)
def test_what_is_wrong_is_one_message_with_what_is_accepted(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(app, ["costs", *arguments])
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not result.stdout


def test_a_folder_whose_model_cannot_be_cut_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    result = CliRunner().invoke(app, ["costs", str(tmp_path)])
    assert result.exit_code == 2
    assert "encoder-decoder" in result.stderr


def test_the_same_question_has_the_same_answer(folder: Path) -> None:
    state = torch.get_rng_state()
    assert document(str(folder), *SMALL) == document(str(folder), *SMALL)
    assert torch.equal(state, torch.get_rng_state())
