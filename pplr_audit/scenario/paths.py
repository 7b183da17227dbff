"""Paths as users write them, and where what is costly to make is kept."""

import os
from pathlib import Path

from pplr_audit.errors import InputError


def expanded(text: str | Path, what: str) -> Path:
    """``text`` as a path that can be looked at, ``~`` resolved; whether anything is there is another question.

    Raises:
        InputError: no file system takes it; ``what`` (a field, a flag) begins the message.
    """
    try:
        path = Path(text).expanduser()
        if "\0" in str(path):
            raise ValueError("a character that ends text")
        path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).rstrip(".")
        shown = str(text) if len(str(text)) <= 80 else f"{str(text)[:80]}..."
        raise InputError(f"{what}: {shown!r} cannot be a path: {reason} (accepted: a file or a folder)") from None
    return path


def cache_root() -> Path:
    """Return the folder of trained models: ``PPLR_AUDIT_CACHE`` if set, else the platform's cache folder."""
    import platformdirs

    root = os.environ.get("PPLR_AUDIT_CACHE")
    return Path(root) if root else Path(platformdirs.user_cache_dir("pplr-audit"))
