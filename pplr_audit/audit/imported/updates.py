"""Updates of a recording: whole, of the shapes of its model's adapter, of LoRA, and not all zero."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from pplr_audit.errors import InputError

OTHER_KINDS = {
    "lora_magnitude_vector": "DoRA", "lora_E": "AdaLoRA", "ia3_l": "IA3", "hada_w": "LoHa", "lokr_w": "LoKr",
    "vera_": "VeRA", "boft_": "BOFT", "oft_": "OFT", "prompt_embeddings": "prompt tuning",
    "prompt_encoder": "prompt tuning",
}  # fmt: skip
"""Parts of the names that peft gives to tensors of adapters that are no plain LoRA, by the kind of adapter."""


def require_fit(own: Mapping[str, Tensor], like: Mapping[str, Tensor], before: str, file: Path) -> None:
    """Raises InputError for a tensor that the adapter does not have, or has in another shape.

    Args:
        like: the tensors that there may be.
        before: stands before each name in the file.
    """
    for name, tensor in own.items():
        if name not in like:
            kind = next((kind for part, kind in OTHER_KINDS.items() if part in name), None)
            if kind is not None:
                raise InputError(f"{file}: {before + name!r}: a tensor of {kind} (accepted: lora_A and lora_B of LoRA)")
            raise InputError(
                f"{file}: {before + name!r}: no tensor of this adapter on this side of the cut"
                f" (accepted: {before}{min(like, default='')}, ...)"
            )
        if tensor.shape != like[name].shape:
            raise InputError(
                f"{file}: {before + name!r}: shape {[*tensor.shape]}; the model says {[*like[name].shape]}"
            )


def require_whole(own: Mapping[str, Tensor], like: Mapping[str, Tensor], before: str, file: Path) -> None:
    """Raises InputError for an update that lacks a tensor, or says nothing as all of it is zero."""
    require_fit(own, like, before, file)
    if missing := sorted(like.keys() - own.keys()):
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(
            f"{file}: {before + missing[0]!r} is missing{more} (a tensor that was not trained has an update of zeros)"
        )
    if not any(bool(tensor.any()) for tensor in own.values()):
        raise InputError(
            f"{file}: all of row {before[:-1]} is zero, which says nothing: no step was taken, or B was left out, as A "
            "does not move while LoRA's B is zero"
        )
