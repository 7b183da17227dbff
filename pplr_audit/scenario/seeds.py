"""Seeds by name: one scenario seed, and a seed of its own for everything that is drawn. Imports nothing of ours.

>>> derive(0, "coin", "client-0") == derive(0, "coin", "client-0")
True
>>> derive(0, "coin", "client-0") == derive(0, "coin", "client-1")
False
"""

import hashlib
import json


def derive(seed: int, *names: str | int) -> int:
    """The seed of what ``names`` name, under the scenario's ``seed``.

    It is the first 8 bytes (big-endian) of the SHA-256 of the JSON array ``[seed, *names]`` written without spaces and
    in ASCII, so that it is the same on every machine, in every process and in every version of Python, and so that
    drawing one thing more never shifts what another thing draws. ``1`` and ``"1"`` are different names.

    Returns an integer in [0, 2**64): fit for ``np.random.default_rng`` and ``torch.Generator.manual_seed``;
    scikit-learn takes 32 bits only (``% 2**32``).
    """
    path = [int(seed), *(name if isinstance(name, str) else int(name) for name in names)]
    text = json.dumps(path, separators=(",", ":"), ensure_ascii=True)
    return int.from_bytes(hashlib.sha256(text.encode("ascii")).digest()[:8], "big")
