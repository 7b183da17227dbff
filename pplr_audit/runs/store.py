"""The run directory: every file whole, checked and under one lock, so that a kill at any moment loses nothing.

A file counts once its checksum is in the ledger; one that a kill left without is as if it had never been written.
"""

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pplr_audit.errors import InputError, RunError
from pplr_audit.runs import ledger as ledgers
from pplr_audit.runs import tensors as codec
from pplr_audit.runs.atomic import TEMPORARY, Pending, make_private_folder
from pplr_audit.runs.directory import LOCK, locked, refused, require_free_or_run, sweep
from pplr_audit.runs.events import EVENTS, EventLog
from pplr_audit.runs.failpoints import reach
from pplr_audit.runs.files import LARGEST_TEXT, TooLarge, folder_of, inside, keep_private, read_file
from pplr_audit.runs.ledger import Entry, Ledger
from pplr_audit.runs.manifest_fields import Manifest
from pplr_audit.runs.parsing import MEND, parsed, shaped, understood

if TYPE_CHECKING:
    from torch import Tensor

    from pplr_audit.runs.tensors import Array

MANIFEST = "manifest.json"
SCENARIO = "scenario.yaml"
_OWN = frozenset({ledgers.NAME, EVENTS, LOCK})


@dataclass(frozen=True)
class Kind:
    """A kind of directory: the schema that its manifest names, and the file that says what it is of."""

    schema: str
    text: str
    named: str
    """The word for it in messages."""


RUN = Kind("pplr-audit/run/2", SCENARIO, "run")
IMPORTED = Kind("pplr-audit/imported/1", "recording.json", "attacked recording")
"""A recording of another system that was attacked."""
TRAINING = Kind("pplr-audit/training-files/1", "training.yaml", "training")
"""One training below a run: a directory with a ledger and a lock of its own, so that processes can write side by
side."""
SCHEMAS = frozenset({RUN.schema, IMPORTED.schema, TRAINING.schema})
"""Schemas of directories that may be taken for each other."""


class Store:
    """Files of a run, or of one training below it, by POSIX paths relative to its directory.

    Use ``Store.open`` or ``Store.load``.
    """

    def __init__(self, root: Path, ledger: Ledger, lock: int | None, kind: Kind = RUN) -> None:
        self.root = root
        self.kind = kind
        self._ledger = ledger
        self._lock = lock
        self._events = EventLog(root)

    @classmethod
    def open(cls, root: Path, text: str, digest: str, kind: Kind = RUN) -> Self:
        """Create the directory of what has this ``digest``, or continue it.

        Args:
            text: says what it is of; written where the directory begins.

        Raises:
            InputError: the directory belongs to something else, to another version, to another process that is
                running, or is none of this kind at all; then nothing in it has been touched.
            RunError: the directory cannot be written.
        """
        require_free_or_run(root)
        try:
            make_private_folder(root.absolute())
        except OSError as error:
            raise refused(root, "cannot be made", error) from None
        lock = locked(root)
        try:
            ledger = Ledger.read(root) if Ledger.exists(root) else Ledger(root, {})
            store = cls(root, ledger, lock, kind)
            if store.exists(MANIFEST):
                store._check_digest(digest)
            store._begin()
            if not store.exists(MANIFEST):
                store.write_text(kind.text, text)
                created = datetime.now(UTC).isoformat(timespec="seconds")
                store.write_json(MANIFEST, {"schema": kind.schema, "digest": digest, "created": created})
        except BaseException:
            os.close(lock)
            raise
        return store

    @classmethod
    def load(cls, root: Path, *, writable: bool = False, kind: Kind = RUN) -> Self:
        """Open a run that exists: for reading beside whoever writes it, or alone for writing too.

        Raises:
            InputError: there is no such directory, it is no run, its ledger or manifest cannot be read, a later
                version wrote it, or (``writable``) another process is running it.
        """
        if not root.is_dir():
            raise InputError(f"{root}: no such directory; give the directory of a {kind.named}")
        for name in (ledgers.NAME, MANIFEST):
            if not os.path.lexists(root / name):
                raise InputError(f"{root}: not a {kind.named} of pplr-audit (it has no {name})")
        lock = locked(root) if writable else None
        try:
            store = cls(root, Ledger.read(root), lock, kind)
            store._check_version()
            if writable:
                store._begin()
        except BaseException:
            if lock is not None:
                os.close(lock)
            raise
        return store

    @property
    def manifest(self) -> dict[str, Any]:
        """``schema``, ``digest``, ``created``, and what ``update_manifest`` added. Raises InputError."""
        return dict(shaped(self.read_json(MANIFEST), Manifest, self.root / MANIFEST))

    def update_manifest(self, **fields: Any) -> None:
        """Set these top-level fields of the manifest and keep the others."""
        self.write_json(MANIFEST, {**self.manifest, **fields})

    def exists(self, path: str) -> bool:
        """True if ``path`` was written to the end. A file that a kill left unrecorded does not count."""
        return _clean(path) in self._ledger.entries

    def paths(self, folder: str = "") -> tuple[str, ...]:
        """All recorded paths below ``folder``, in alphabetical order."""
        prefix = f"{_clean(folder)}/" if folder else ""
        return tuple(sorted(name for name in self._ledger.entries if name.startswith(prefix)))

    def write_bytes(self, path: str, data: bytes) -> None:
        """Write the file at once and record its checksum; all of it is on the disk when this returns.

        Raises:
            InputError: the path leaves the run directory or is one of the store's own.
            RunError: the disk is full or refuses; what was there before stays whole.
        """
        name, entry = _clean(path), Entry.of(data)
        self._require_lock()
        with Pending(self.root, name, data) as pending:
            reach("store.data_written")
            replaces = name in self._ledger.entries
            if replaces:
                # Announced first: killed on either side of the rename, the file still matches what is listed.
                before = self._ledger.settled(name)
                self._ledger.record(name, Entry(entry.sha256, entry.size, before))
            pending.rename()
            reach("store.renamed")
            if replaces:
                self._ledger.settle(name)
            else:
                self._ledger.record(name, entry)
        reach("store.recorded")

    def read_bytes(self, path: str, most: int | None = None) -> bytes:
        """The bytes that were written. Raises InputError that names a missing, truncated or altered file.

        Args:
            most: refuse a file of more bytes, whatever the run recorded; None: of more than this machine's memory.
        """
        most = most or _memory()
        name = _clean(path)
        file = self.root / name
        if name not in self._ledger.entries:
            raise InputError(f"{file}: not in this run")
        data = self._recorded(name, most)
        if data is None and self._lock is None:
            # Whoever holds the lock may have written since; what is on the disk now is announced in the list.
            self._ledger = Ledger.read(self.root)
            data = self._recorded(name, most)
        if data is None:
            raise InputError(f"{file} is truncated or altered; {MEND}")
        return data

    def _recorded(self, name: str, most: int) -> bytes | None:
        """Return the file's content if it is what the list says of it, else None."""
        entry, file = self._ledger.entries.get(name), self.root / name
        if entry is None:
            return None
        if entry.most > most:
            raise TooLarge(f"{file}: {entry.most:,} bytes, where a run has at most {most:,}")
        try:
            data = read_file(self.root, name, entry.most)
        except TooLarge:
            return None
        except FileNotFoundError:
            raise InputError(f"{file} is missing; {MEND}") from None
        except OSError as error:
            raise InputError(f"{file} cannot be read: {error.strerror}") from None
        return data if entry.matches(data) else None

    def write_text(self, path: str, text: str) -> None:
        """``write_bytes`` of ``text`` in UTF-8."""
        self.write_bytes(path, text.encode())

    def read_text(self, path: str) -> str:
        """Read what ``write_text`` wrote. Raises InputError."""
        with understood(self.root / _clean(path)):
            return self.read_bytes(path, LARGEST_TEXT).decode()

    def write_json(self, path: str, value: Any) -> None:
        """Write ``value`` as indented JSON, keys in their own order. Raises ValueError on NaN and infinity."""
        self.write_text(path, as_json(value))

    def read_json(self, path: str) -> dict[str, Any]:
        """The object that ``write_json`` wrote. Raises InputError, as `parsing.parsed` does."""
        return parsed(self.read_bytes(path, LARGEST_TEXT), self.root / _clean(path))

    def write_tensors(
        self, path: str, tensors: "Mapping[str, Array | Tensor]", metadata: Mapping[str, str] | None = None
    ) -> None:
        """Write NumPy arrays or torch tensors, and strings beside them, as one safetensors file."""
        self.write_bytes(path, self.pack(tensors, metadata))

    @staticmethod
    def pack(tensors: "Mapping[str, Array | Tensor]", metadata: Mapping[str, str] | None = None) -> bytes:
        """Return the bytes that ``write_tensors`` would write."""
        return codec.pack(tensors, metadata or {})

    def read_tensors(self, path: str) -> "dict[str, Tensor]":
        """Read what ``write_tensors`` wrote, as torch tensors on the CPU."""
        return codec.unpack(self.read_bytes(path), self.root / _clean(path))

    def read_arrays(self, path: str) -> "dict[str, Array]":
        """Read what ``write_tensors`` wrote, as NumPy arrays; torch is not imported."""
        return codec.unpack_arrays(self.read_bytes(path), self.root / _clean(path))

    def read_metadata(self, path: str) -> dict[str, str]:
        """The strings that ``write_tensors`` wrote beside the tensors."""
        return codec.unpack_metadata(self.read_bytes(path), self.root / _clean(path))

    def remove(self, path: str) -> None:
        """Take the file away, if there is one. Raises RunError where the disk refuses."""
        name = _clean(path)
        self._require_lock()
        if name in self._ledger.entries:
            self._ledger.record(name, None)
        reach("store.unlisted")
        try:
            with folder_of(self.root, name) as (folder, last):
                os.unlink(last, dir_fd=folder)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise RunError(f"{self.root / name}: cannot be removed: {error.strerror}") from error

    def event(self, kind: str, /, **fields: Any) -> None:
        """Append one line to ``events.jsonl``: the time (UTC), the kind, the fields. Raises RunError (a full disk)."""
        self._require_lock()
        self._events.append(kind, **fields)

    def events(self) -> list[dict[str, Any]]:
        """All events so far, the oldest first, as `EventLog.read` has them."""
        return self._events.read()

    def close(self) -> None:
        """Give the lock back. The store is of no use afterwards."""
        self._ledger.close()
        self._events.close()
        if self._lock is not None:
            os.close(self._lock)
        self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self) -> None:
        """Sweep what a kill left behind and stand ready to write."""
        try:
            exposed = keep_private(self.root)
            sweep(self.root)
        except OSError as error:
            raise refused(self.root, "cannot be put in order", error) from None
        if exposed is not None:
            warnings.warn(exposed, RuntimeWarning, stacklevel=3)
        self._events.cut_half_line()
        self._ledger.open()

    def _check_version(self) -> None:
        if not self.exists(MANIFEST):
            raise InputError(
                f"{self.root}: a {self.kind.named} that was killed as it began; start it again with `pplr-audit run`"
            )
        schema = self.read_json(MANIFEST).get("schema")  # first: the fields of another version may be others
        if schema in SCHEMAS and schema != self.kind.schema:
            raise InputError(f"{self.root}: not a {self.kind.named} of pplr-audit, but a directory of {schema!r}")
        if schema != self.kind.schema:
            raise InputError(
                f"{self.root / MANIFEST}: schema {schema!r}, this version of pplr-audit reads {self.kind.schema!r}; "
                f"use the version that wrote the {self.kind.named}, or choose another directory (--out DIR)"
            )

    def _check_digest(self, digest: str) -> None:
        self._check_version()
        theirs = str(self.manifest["digest"])
        if theirs != digest:
            raise InputError(
                f"{self.root}: holds another {self.kind.named} ({theirs[:8]}, not {digest[:8]}): its data, model, "
                "training or seed are others; choose another directory with --out DIR, or remove this one"
            )

    def _require_lock(self) -> None:
        if self._lock is None:
            raise RunError(f"{self.root}: opened for reading only")


def as_json(value: Any) -> str:
    """``value`` as the text of a file of a run. Raises ValueError on NaN and infinity."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _clean(path: str) -> str:
    """The one spelling of ``path``. Raises InputError if it could leave the directory or is the store's own."""
    name = inside(path)
    if name in _OWN or name.endswith(TEMPORARY):
        raise InputError(f"{path!r}: kept by the run directory itself")
    return name


def _memory() -> int:
    """Bytes of this machine."""
    import psutil

    return psutil.virtual_memory().total
