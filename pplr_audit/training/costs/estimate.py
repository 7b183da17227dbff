"""Costs of each cut to a client, computed from the model's config alone, as `pplr-audit costs` prints them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from transformers import CONFIG_MAPPING, PreTrainedConfig

from pplr_audit import scenario as scenarios
from pplr_audit.errors import InputError, visible
from pplr_audit.models.architectures import architecture, architecture_of, blocks
from pplr_audit.models.backbones import tiny_llama
from pplr_audit.models.backbones.config import read_config
from pplr_audit.models.backbones.folder import ModelFolder
from pplr_audit.models.backbones.known_shapes import NAMED
from pplr_audit.scenario.paths import expanded
from pplr_audit.training.costs import formulas as costs
from pplr_audit.training.costs.memory import Held, memory_rows
from pplr_audit.training.costs.wire_time import ROUND_TRIPS, STEP_TRIPS, WireSpeed, request_trips, steps

Precision = Literal["float32", "bfloat16", "float16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
SETTINGS = ("model.lora.", "model.beams=", "training.optimizer=", "training.local_epochs=")
OF_ENCODERS = ("model.recformer.train=", "data.history=")
"""Fields of a scenario that ``--set`` may name: they change what is computed here and have no option of their own."""


@dataclass(frozen=True)
class CostQuery:
    """The work of one client that a price is wanted for."""

    link: WireSpeed
    back: int = 1
    """Blocks behind, in the table."""
    client_memory: int | None = None
    """Bytes that a client has, if the cuts that fit are to be marked."""
    batch: int = 16
    tokens: int = 512
    """Positions of a training sample, its title included, and padding."""
    samples: int = 1024
    rank: int = 8
    title: int = 16
    """Tokens of the title that is generated."""
    precision: str = "float32"
    settings: Sequence[str] = ()


def price(model: str, asked: CostQuery) -> dict[str, Any]:
    """One JSON document: the model, what was taken for granted, and a row for each cut, with ``fits_training`` and
    ``fits_serving`` where the client's memory is given.

    Raises:
        InputError: no such model, or a setting that is not understood.
    """
    _check_query(asked)
    config, source = _config(model)
    _check_length(model, config, asked)
    encoder = not architecture_of(config.model_type, "MODEL").causal
    chosen = _scenario(model, asked, encoder)
    shape = costs.meta_model(
        config, chosen.model.lora, getattr(torch, asked.precision),
        recformer=chosen.model.recformer if encoder else None, history=chosen.data.history,
    )  # fmt: skip
    request = _request(asked, chosen, encoder)
    return {
        "schema": "pplr-audit/costs/1",
        "model": {"name": model, "source": source, **_described(config, shape)},
        "assumed": _assumed(asked, chosen, request, encoder),
        "costs": _rows(shape, asked, chosen, request),
    }


def _check_query(asked: CostQuery) -> None:
    for option in ("batch", "tokens", "samples", "rank", "title"):
        if getattr(asked, option) < 1:
            raise InputError(f"--{option}: {getattr(asked, option)} is too few (accepted: a whole number above 0)")
        if getattr(asked, option) > scenarios.LARGEST:
            raise InputError(f"--{option}: too many (accepted: a whole number of at most {scenarios.LARGEST})")
    if asked.precision not in PRECISIONS:
        raise InputError(f"--precision: unknown precision {asked.precision[:40]!r} (accepted: {', '.join(PRECISIONS)})")


@dataclass(frozen=True)
class _Request:
    """One request at serving."""

    prompt_tokens: int
    generated_tokens: int
    beams: int


def _request(asked: CostQuery, chosen: scenarios.Scenario, encoder: bool) -> _Request:
    """An encoder generates nothing: what it is given at serving is the prompt alone."""
    if encoder:
        return _Request(asked.tokens, 0, 1)
    return _Request(asked.tokens - asked.title, asked.title, chosen.model.beams)


def _rows(shape: Any, asked: CostQuery, chosen: scenarios.Scenario, request: _Request) -> list[dict[str, Any]]:
    """Compute the row of each cut: parameters, arithmetic, traffic, memory, and time on the wire."""
    epochs, layers = chosen.training.local_epochs, len(blocks(shape))
    if not 0 <= asked.back <= layers:
        raise InputError(f"--back: {asked.back} of {layers} blocks (accepted: 0 to {layers})")
    workload = costs.Workload(
        samples=asked.samples * epochs,
        tokens_per_sample=asked.tokens,
        bytes_per_value=next(shape.parameters()).element_size(),
        title_tokens=request.generated_tokens,
        **asdict(request),
    )
    held = Held(asked.batch, asked.tokens, chosen.training.optimizer, **asdict(request))
    cuts = costs.all_cuts(layers)
    rows = []
    for row, memory in zip(costs.rows_of(shape, cuts, workload), memory_rows(shape, cuts, held), strict=True):
        del row["seconds_per_round"]  # of a run: measured, arithmetic and all
        has_trunk = row["cut"]["front"] + row["cut"]["back"] < layers
        row["adapter_parameters"] = memory["adapter_bytes"] // workload.bytes_per_value
        row["frozen_parameters"] = memory["weight_bytes"] // workload.bytes_per_value
        wire = _wire(row, workload, asked, epochs, has_trunk)
        rows.append({**row, **memory, **wire, **_fits(memory, asked.client_memory)})
    return rows


def _fits(memory: dict[str, int], client_memory: int | None) -> dict[str, bool]:
    """Compare the memory of training and of serving with what a client has, where that is given."""
    if client_memory is None:
        return {}
    return {f"fits_{use}": memory[f"{use}_memory_bytes"] <= client_memory for use in ("training", "serving")}


def _described(config: PreTrainedConfig, shape: Any) -> dict[str, Any]:
    """Describe the model: its family and size."""
    layers = blocks(shape)
    return {
        "model_type": config.model_type,
        "layers": len(layers),
        "hidden_size": config.hidden_size,
        "attention_dropout": costs.attention_dropout(layers[0], architecture(shape).products),
        "parameters": costs.backbone_parameters(config),
    }


def _assumed(asked: CostQuery, chosen: scenarios.Scenario, request: _Request, encoder: bool) -> dict[str, Any]:
    """Repeat the query with all that it left to defaults."""
    elsewhere = ("link", "client_memory", "settings")
    return {
        **{name: value for name, value in asdict(asked).items() if name not in elsewhere},
        "client_memory_bytes": asked.client_memory,
        "link_bits_per_second": asked.link.bits_per_second,
        "round_trip_seconds": asked.link.round_trip_seconds,
        "lora": chosen.model.lora.model_dump(mode="json"),
        "recformer": {"train": chosen.model.recformer.train, "history": chosen.data.history} if encoder else None,
        "optimizer": chosen.training.optimizer,
        "local_epochs": chosen.training.local_epochs,
        **asdict(request),
    }


def _wire(
    row: dict[str, Any], workload: costs.Workload, asked: CostQuery, epochs: int, has_trunk: bool
) -> dict[str, float]:
    """Compute the bytes of a full step, and how long a step, a round and a request wait for the wire."""
    step = asked.batch * row["wire_bytes_per_sample"]
    in_step, in_request = (
        (STEP_TRIPS, request_trips(int(workload.generated_tokens), workload.beams)) if has_trunk else (0, 0)
    )
    in_round = steps(asked.samples, asked.batch, epochs) * in_step + ROUND_TRIPS
    return {
        "wire_bytes_per_step": step,
        "wire_seconds_per_step": asked.link.seconds(step, in_step),
        "wire_seconds_per_round": asked.link.seconds(row["wire_bytes_per_round"], in_round),
        "wire_seconds_per_request": asked.link.seconds(row["serving_wire_bytes_per_request"], in_request),
    }


def _scenario(model: str, asked: CostQuery, encoder: bool) -> scenarios.Scenario:
    for setting in asked.settings:
        named, shown = setting.strip(), visible(setting[:60])
        if named.startswith("model.recformer.ids="):
            raise InputError(
                f"--set {shown}: needs a catalogue, which is not known here; add items x hidden size parameters to the"
                " client, and to what it uploads and gets in a round"
            )
        if not named.startswith((*SETTINGS, *OF_ENCODERS)) or named.startswith("model.lora.rank"):
            raise InputError(
                f"--set {shown}: changes nothing here, or has an option of its own (accepted:"
                " model.lora.targets, model.lora.dropout, model.beams, training.optimizer, training.local_epochs; of"
                " encoders also model.recformer.train, data.history)"
            )
        if named.startswith(OF_ENCODERS) and not encoder:
            raise InputError(f"--set {shown}: is of encoders, and {visible(model[:80])} is a decoder")
    kind = ["model.recommender=recformer"] if encoder else []
    return scenarios.of_model([*asked.settings, *kind, f"model.lora.rank={asked.rank}"])


def _config(model: str) -> tuple[PreTrainedConfig, str]:
    """The model's config, and where it is from."""
    if model == "tiny-llama":
        return tiny_llama.largest_config(), "trained on the spot; a small catalogue gives a smaller vocabulary"
    if model in NAMED:
        named = NAMED[model]
        config: PreTrainedConfig = CONFIG_MAPPING[named.model_type](**named.config)
        return config, f"https://huggingface.co/{named.source}"
    folder = expanded(model, "MODEL")
    if not folder.is_dir():
        shown = visible(model if len(model) <= 80 else f"{model[:80]}...")
        raise InputError(
            f"{shown}: no such model and no such folder (accepted: a folder with config.json, tiny-llama,"
            f" {', '.join(NAMED)})"
        )
    return read_config(ModelFolder(folder))[1], str(folder)


def _check_length(model: str, config: PreTrainedConfig, asked: CostQuery) -> None:
    longest = getattr(config, "max_position_embeddings", None)
    if longest is not None and asked.tokens > longest:
        raise InputError(
            f"--tokens: {asked.tokens} exceeds the positions of {visible(model)} (accepted: up to {longest})"
        )
    if asked.title >= asked.tokens:
        raise InputError(f"--title: {asked.title} leaves no prompt (accepted: fewer than --tokens, {asked.tokens})")
