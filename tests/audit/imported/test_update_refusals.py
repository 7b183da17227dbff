"""Updates of another system that cannot be read are refused in one line with exit code 2; bfloat16 is read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from pplr_audit import pipeline as audit
from pplr_audit.audit.imported.recording import read
from tests.audit.imported.conftest import Draft, Source
from tests.audit.imported.test_import import updates_of
from tests.audit.imported.test_refusals import OBSERVATIONS, refused, replaced

Tensors = dict[str, Tensor]


@pytest.fixture
def draft(source: Source) -> Draft:
    return updates_of(source)


@pytest.fixture
def folder(draft: Draft, write: Callable[..., None], tmp_path: Path) -> Path:
    write(tmp_path / "in", draft.said, draft.tensors, draft.truth)
    return tmp_path / "in"


def first(tensors: Tensors, part: str = "lora_A") -> str:
    return min(name for name in tensors if name.startswith("0/") and part in name)


def without(tensors: Tensors, name: str) -> Tensors:
    return {each: value for each, value in tensors.items() if each != name}


def renamed(tensors: Tensors, old: str, new: str) -> Tensors:
    return {each.replace(old, new) if each == first(tensors) else each: value for each, value in tensors.items()}


def of_row_0(tensors: Tensors, change: Callable[[Tensor], Tensor]) -> Tensors:
    return {name: change(value) if name.startswith("0/") else value for name, value in tensors.items()}


WRONG: list[tuple[Callable[[Tensors], Tensors], list[str]]] = [
    (lambda t: without(t, first(t)), ["is missing (a tensor", "lora_A", "an update of zeros"]),
    (lambda t: {n: v for n, v in t.items() if "lora_B" not in n}, ["is missing, and", "lora_B"]),
    (lambda t: renamed(t, "layers.0.", "blocks.0."), ["blocks.0.", "no tensor of this adapter", "accepted: 0/model"]),
    (lambda t: {**t, first(t): t[first(t)].T.contiguous()}, ["lora_A", "shape [64, 4]; the model says [4, 64]"]),
    (lambda t: {**t, first(t): t[first(t)][:2].contiguous()}, ["lora_A", "shape [2, 64]; the model says [4, 64]"]),
    (lambda t: of_row_0(t, torch.zeros_like), ["all of row 0 is zero", "A does not move while LoRA's B is zero"]),
    (lambda t: {**t, first(t): t[first(t)] * float("nan")}, ["lora_A", "not finite"]),
    (lambda t: {**t, first(t): t[first(t)] / 0}, ["lora_A", "not finite"]),
    (lambda t: renamed(t, "lora_A.default.weight", "lora_magnitude_vector.default.weight"), ["a tensor of DoRA"]),
    (lambda t: renamed(t, "lora_A.default.weight", "lora_E.default"), ["a tensor of AdaLoRA"]),
    (lambda t: renamed(t, "lora_A.default.weight", "ia3_l.default"), ["of IA3 (accepted: lora_A and lora_B"]),
    (lambda t: renamed(t, "lora_A.default.weight", "hada_w1_a.default"), ["a tensor of LoHa"]),
    (lambda t: renamed(t, "lora_A.default.weight", "vera_lambda_b.default"), ["a tensor of VeRA"]),
    (lambda t: {**t, first(t): t[first(t)].int()}, ["int32", "bfloat16"]),
]  # fmt: skip


@pytest.mark.parametrize(("change", "told"), WRONG)
@pytest.mark.parametrize("attack", ["lora_span"])
def test_an_update_that_does_not_fit_is_named(
    folder: Path, draft: Draft, change: Callable[[Tensors], Tensors], told: list[str], attack: str
) -> None:
    replaced(folder, save(change(draft.tensors)))
    message = refused(folder, attack)
    assert OBSERVATIONS in message
    for part in told:
        assert part in message, message


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_updates_in_another_precision_are_read_as_what_they_hold(folder: Path, draft: Draft, kind: torch.dtype) -> None:
    replaced(folder, save({name: value.to(kind) for name, value in draft.tensors.items()}))
    for row, own in read(folder).updates.items():
        for name, value in own.items():
            assert value.dtype == torch.float32
            assert torch.equal(value, draft.tensors[f"{row}/{name}"].to(kind).float())


def test_an_attack_ends_with_a_reason_or_a_value_on_updates_in_bfloat16(folder: Path, draft: Draft) -> None:
    replaced(folder, save({name: value.bfloat16() for name, value in draft.tensors.items()}))
    document: dict[str, Any] = audit.import_recording(
        folder, folder.parent / "out", [{"lora_span": {"shortlist": 8, "iterations": 3}}]
    ).document
    for row in document["findings"]:
        assert row["status"] == "ok" or "32 dimensions" in row["detail"]["reason"], row
