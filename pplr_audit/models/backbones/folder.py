"""A model folder, which may be a stranger's, as data: which of its files are read, and how large they may be.

Nothing in it is run. A file is read if it is a regular one; a link may lead to another file of the same folder, and in
the hub's own cache to the files of the same repository.
"""

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pplr_audit.errors import InputError, visible

MB = 1 << 20
INDEX = "model.safetensors.index.json"
LARGEST: Mapping[str, int] = {"config.json": 4 * MB, "tokenizer.json": 256 * MB, INDEX: 64 * MB}
"""Bytes of the files that are read whole; the published ones have a fraction of it."""
OTHERS = 16 * MB
OTHER_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.gguf", "*.onnx", "*.h5", "*.msgpack")
"""Weights in formats that are not read; the first three are pickles, which can run code."""


class ModelFolder:
    """The files of one folder.

    Args:
        within: where its links may lead; by default into itself, or of a snapshot in the hub's cache into its
            repository.
    """

    def __init__(self, path: Path, within: Path | None = None) -> None:
        self.path = path
        self._within = (within or _home(path)).resolve()

    def file(self, name: str) -> Path | None:
        """Return where a file really lies; None where there is none.

        Raises:
            InputError: it is no regular file, or a link that leads out of the folder.
        """
        path = self.path / name
        if not os.path.lexists(path):
            return None
        try:
            real = path.resolve(strict=True)
            mode = real.stat().st_mode
        except (OSError, RuntimeError) as error:
            raise InputError(f"{path}: cannot be read: {_reason(error)}") from None
        if not real.is_relative_to(self._within):
            raise InputError(f"{path}: is a link that leads out of the folder; put the file itself there")
        if not stat.S_ISREG(mode):
            raise InputError(f"{path}: is no regular file")
        return real

    def read(self, name: str) -> bytes | None:
        """All bytes of a file; None where there is none. Raises InputError as `file`, and where it is too large."""
        real, most = self.file(name), LARGEST.get(name, OTHERS)
        if real is None:
            return None
        try:
            # Between a look and the opening a file may be put in the place of another: no pipe may hold us then.
            fd = os.open(real, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))
            with open(fd, "rb") as opened:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise InputError(f"{self.path / name}: is no regular file")
                found = opened.read(most + 1)
        except OSError as error:
            raise InputError(f"{self.path / name}: cannot be read: {_reason(error)}") from None
        if len(found) > most:
            raise InputError(f"{self.path / name}: is larger than {most // MB} MB, the most that is read")
        return found

    def read_json(self, name: str) -> dict[str, Any] | None:
        """The object in a JSON file; None where there is no file. Raises InputError as `read`, and where it is none."""
        found = self.read(name)
        if found is None:
            return None
        try:
            value = json.loads(found)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{self.path / name}: cannot be read as JSON: {_reason(error)}") from None
        if not isinstance(value, dict):
            raise InputError(f"{self.path / name}: holds no JSON object")
        return value

    def require_no_adapter(self) -> None:
        """Raises InputError where an adapter lies in the folder, as PEFT saves one."""
        name = "adapter_config.json"
        if not os.path.lexists(self.path / name):
            return
        merge = "merge it into its base model (peft: merge_and_unload, then save_pretrained into an empty folder)"
        if os.path.lexists(self.path / "config.json"):
            raise InputError(
                f"{self.path / name}: there is an adapter beside the model, and adapters are not read; {merge}, or"
                " remove the adapter's files to audit the model without it"
            )
        base = (self.read_json(name) or {}).get("base_model_name_or_path")
        of = f" of {visible(base[:80])!r}" if isinstance(base, str) and base else ""
        raise InputError(f"{self.path}: this is an adapter{of} (adapter_config.json), no model; {merge}")

    def without_config(self, accepted: str) -> InputError:
        """Return the error where there is no config.json: what the folder is instead, as far as it shows."""
        inner = sorted(path.parent.name for path in self.path.glob("*/config.json"))
        if inner:
            kind = "a sentence-transformers folder" if (self.path / "modules.json").is_file() else "a folder of folders"
            return InputError(
                f"{self.path}: there is no config.json; this is {kind}, give the one inside that holds the model:"
                f" {self.path / inner[0]}"
            )
        return InputError(f"{self.path}: there is no config.json; {accepted}")

    def without_weights(self) -> InputError:
        """Return the error where there is no model.safetensors."""
        other = sorted(path.name for pattern in OTHER_WEIGHTS for path in self.path.glob(pattern))
        pickled = [name for name in other if name.endswith((".bin", ".pt", ".pth"))]
        if pickled:
            found = f"only pickled weights ({pickled[0]}), which are never read"
        elif other:
            found = f"only weights in another format ({other[0]})"
        else:
            found = "no weights"
        return InputError(f"{self.path}: there are {found}; expected model.safetensors")


def _home(path: Path) -> Path:
    """A snapshot in the hub's cache is links to the blobs of its repository; any other folder is on its own."""
    whole = path.resolve()
    if whole.parent.name == "snapshots" and whole.parent.parent.name.startswith("models--"):
        return whole.parent.parent
    return whole


def _reason(error: Exception) -> str:
    said = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
    return visible(str(said)[:200])
