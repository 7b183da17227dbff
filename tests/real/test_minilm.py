"""The real MiniLM: its files are the published ones, and what crosses its cuts can be read as depth goes on."""

import csv
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pplr_audit.attacks.learners.normal_equations import NormalEquations, nearest
from pplr_audit.data.dataset import Catalogue
from pplr_audit.errors import InputError
from pplr_audit.models.architectures import blocks, body
from pplr_audit.models.backbones import minilm
from pplr_audit.models.backbones.load import Backbone, load_backbone

DATA = Path(os.environ.get("PPLR_AUDIT_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
CATALOGUE = Catalogue(("1", "2"), ("Amber Road", "Birch Garden"), ("A", "B"))
PUBLISHED = (1.000, 1.000, 1.000, 0.9995, 0.998, 0.952, 0.929)
"""Token accuracy of the ridge inverter by layer, from what enters block 0 to what leaves block 5."""
TITLES, OTHERS, TOGETHER = 8_000, 800, 4
HELD_OUT = 25
"""Of the attacker's texts, to choose lambda on."""


@pytest.fixture(scope="module")
def real() -> Backbone:
    try:
        minilm.folder()
    except InputError as reason:
        if "not installed" not in str(reason):
            raise
        pytest.skip(f"NOT TESTED ON REAL WEIGHTS: {reason}")
    return load_backbone("minilm", CATALOGUE, seed=0)


def test_the_installed_minilm_is_the_published_one(real: Backbone) -> None:
    assert minilm.DIGESTS["model.safetensors"].startswith("53aa5117")
    assert not real.causal
    assert len(blocks(real.model)) == 6
    assert real.model.get_input_embeddings().weight.shape == (30_522, 384)


def test_a_copy_with_one_bit_changed_is_refused(real: Backbone, tmp_path: Path) -> None:
    del real
    copy = Path(shutil.copytree(minilm.folder(), tmp_path / "model", copy_function=shutil.copyfile))
    minilm.check(copy)
    with (copy / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    with pytest.raises(InputError, match=r"model\.safetensors: not the published"):
        minilm.check(copy)


def texts() -> list[str]:
    """Titles of Amazon Games joined four at a time, in a fixed random order: the attacker's first, then the others."""
    source = DATA / "amazon-games" / "items.tsv"
    if not source.is_file():
        pytest.skip(f"NOT TESTED ON REAL DATA: no {source}; set PPLR_AUDIT_DATA to the folder that holds amazon-games")
    with source.open(encoding="utf-8", newline="") as file:
        titles = [row["title"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    order = torch.randperm(len(titles), generator=torch.Generator().manual_seed(0))[: TITLES + OTHERS].tolist()
    return [" ".join(titles[item] for item in order[at : at + TOGETHER]) for at in range(0, len(order), TOGETHER)]


def states(
    backbone: Backbone, given: list[str], batch: int = 64
) -> Iterator[tuple[list[Float[Tensor, "positions hidden"]], Int[Tensor, "positions"]]]:
    """What enters each block, and what leaves the last one, at every token but special ones, in batches."""
    tokenizer = backbone.tokenizer
    encoded = sorted((tokenizer.encode(text, add_special_tokens=True) for text in given), key=len)
    for start in range(0, len(encoded), batch):
        part = tokenizer.pad({"input_ids": encoded[start : start + batch]}, return_tensors="pt")
        with torch.no_grad():
            seen = body(backbone.model)(**part, output_hidden_states=True).hidden_states
        ids = part["input_ids"]
        of_title = ~torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
        yield [hidden[of_title] for hidden in seen], ids[of_title]


def test_the_ridge_inverter_reads_titles_at_every_layer_as_published(real: Backbone) -> None:
    given = texts()
    own, others = given[: TITLES // TOGETHER], given[TITLES // TOGETHER :]
    table = real.model.get_input_embeddings().weight
    words = torch.nn.functional.normalize(table, dim=1)
    sums = [NormalEquations(table.shape[1]) for _ in PUBLISHED]
    for hidden, tokens in states(real, own[HELD_OUT:]):
        for sum_, x in zip(sums, hidden, strict=True):
            sum_.add(x, tokens, table)
    ((held, answers),) = states(real, own[:HELD_OUT])
    inverters = [sum_.solve(x, answers, table) for sum_, x in zip(sums, held, strict=True)]
    right, positions = torch.zeros(len(PUBLISHED)), 0
    for hidden, truth in states(real, others):
        positions += len(truth)
        right += torch.tensor(
            [int((nearest(inverter(x), words) == truth).sum()) for inverter, x in zip(inverters, hidden, strict=True)]
        )
    assert (right / positions).tolist() == pytest.approx(PUBLISHED, abs=0.01)
