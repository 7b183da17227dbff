"""The architecture that a config.json describes, built from the fields that its family is known to have.

All other fields are passed over: a config can also name code to run, files to fetch and ways to attend, and none of
that makes the model. A field that would make it another model than the one that is built here is refused.
"""

from collections.abc import Callable, Mapping
from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig

from pplr_audit.errors import InputError, visible
from pplr_audit.models.architectures import RATES, Architecture, architecture_of
from pplr_audit.models.backbones.folder import ModelFolder

ACCEPTED = (
    "accepted: tiny-llama, minilm, a folder with config.json, *.safetensors and tokenizer.json, or a Hugging Face hub"
    " name"
)
MOST_LAYERS = 1024
MOST = 1 << 24
"""Largest value of any size; the largest published one is 10,485,760 positions."""

Met = Callable[[Any, Architecture], bool]


def _given(value: Any, _: Architecture) -> bool:
    return value not in (None, False, [], {}, "")


NOT_CAUSAL = "this model is not causal: each token sees the tokens after it, so in training it would see the answer"
UNQUANTIZED = "quantized weights are not read; give the model as it was before, or dequantize it and save it"
REFUSED: Mapping[str, tuple[Met, str]] = {
    "quantization_config": (_given, UNQUANTIZED),
    "compression_config": (_given, UNQUANTIZED),
    "auto_map": (
        _given,
        "the model has code of its own, which is never run, and without that code it may be another model. If the"
        " library's own model is meant, remove the field",
    ),
    "use_bidirectional_attention": (lambda value, kind: kind.causal and _given(value, kind), NOT_CAUSAL),
    "is_causal": (lambda value, kind: kind.causal and value is not None and not value, NOT_CAUSAL),
    "is_decoder": (
        lambda value, kind: not kind.causal and _given(value, kind), "an encoder used as a decoder is not supported",
    ),
    "add_cross_attention": (_given, "a model that attends to the states of another model is not supported"),
    "is_encoder_decoder": (_given, "an encoder-decoder is not supported"),
    "position_embedding_type": (
        lambda value, kind: value not in (None, "absolute"), "only absolute positions are supported",
    ),
    "attn_logit_softcapping": (_given, "it caps its attention scores, which the attention used here (sdpa) does not"),
    "pruned_heads": (_given, "a model without some of its heads is not supported"),
}  # fmt: skip
"""Fields that make it another model than the one that the other fields describe: when it is refused, and why."""


def read_config(folder: ModelFolder) -> tuple[Architecture, PreTrainedConfig]:
    """Read and check ``config.json``; nothing else of the folder is looked at, if there is one.

    Raises:
        InputError: there is none, it cannot be read, or the architecture cannot be cut.
    """
    path = folder.path / "config.json"
    said = folder.read_json("config.json")
    if said is None:
        folder.require_no_adapter()
        raise folder.without_config(ACCEPTED)
    kind = architecture_of(said.get("model_type"), str(path))
    for name, (met, reason) in REFUSED.items():
        if name in said and met(said[name], kind):
            raise InputError(f"{path}: {name} is {_shown(name, said[name])}: {reason}")
    # No rate stands for the library's own; of other fields, nothing can mean something.
    fields = {
        name: said[name] for name in kind.fields if name in said and (name not in RATES or said[name] is not None)
    }
    for name, value in fields.items():
        if name in RATES and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1):
            raise InputError(f"{path}: {name} is {visible(str(value)[:40])} (accepted: from 0 up to, not including, 1)")
        _require_bounded(value, MOST_LAYERS if name in ("num_hidden_layers", "n_layer") else MOST, f"{path}: {name}")
    try:
        return kind, CONFIG_MAPPING[said["model_type"]](**fields)
    except Exception as error:  # the library validates with exceptions of its own
        raise InputError(f"{path}: {one_line(error)}") from None


def _shown(name: str, value: Any) -> str:
    """A value for a message; of a quantization only its method."""
    if name in ("quantization_config", "compression_config") and isinstance(value, dict):
        value = value.get("quant_method", "there")
    return visible(str(value)[:60]).lower() if isinstance(value, bool) else visible(str(value)[:60])


def _require_bounded(value: Any, most: int, place: str, depth: int = 4) -> None:
    """Raises InputError for a number beyond ``most``, a list of more than `MOST_LAYERS` and what holds either.

    No field is nested as deep as ``depth``.

    JSON as Python reads it also has NaN and infinity, which no size and no rate is.
    """
    if not depth:
        raise InputError(f"{place} is nested too deep")
    if isinstance(value, dict):
        value = list(value.values())
    elif isinstance(value, int | float) and not abs(value) <= most:
        raise InputError(f"{place} is {str(value)[:40]} (accepted: up to {most})")
    if isinstance(value, list):
        if len(value) > MOST_LAYERS:
            raise InputError(f"{place} holds {len(value)} values (accepted: up to {MOST_LAYERS})")
        for each in value:
            _require_bounded(each, most, place, depth - 1)


def one_line(error: BaseException) -> str:
    """Return a library's error as one line for a message of ours."""
    return visible(" ".join(str(error).split())[:500]) or type(error).__name__
