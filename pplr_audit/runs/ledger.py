"""The ledger of a run's whole files: an append-only list of paths with their SHA-256 and size.

One line a change, so that a write costs the same in a run of ten files and of ten thousand. A line is on the disk
before the change counts; a line cut short by a kill never counted. Opening for writing rewrites the list once,
without what is out of date.
"""

import json
import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from pplr_audit.errors import InputError, RunError
from pplr_audit.runs.atomic import unwritable, write_all, write_whole
from pplr_audit.runs.files import inside, open_file, read_file
from pplr_audit.runs.parsing import parsed

NAME = "checksums.jsonl"
SCHEMA = "pplr-audit/checksums/1"


@dataclass(frozen=True)
class Entry:
    """Recorded content of a file. ``before`` is what it held when a write was announced that may not have happened."""

    sha256: str
    size: int
    before: "Entry | None" = None

    @staticmethod
    def of(data: bytes) -> "Entry":
        return Entry(sha256(data).hexdigest(), len(data))

    @property
    def after(self) -> "Entry":
        return Entry(self.sha256, self.size)

    @property
    def most(self) -> int:
        """Bytes that the file has at most."""
        return self.size if self.before is None else max(self.size, self.before.size)

    def matches(self, data: bytes) -> bool:
        digest = sha256(data).hexdigest()
        return digest == self.sha256 or (self.before is not None and digest == self.before.sha256)


class Ledger:
    """The list in memory and on the disk, kept the same."""

    def __init__(self, root: Path, entries: dict[str, Entry]) -> None:
        self._root = root
        self.entries = entries
        self._fd: int | None = None

    @staticmethod
    def exists(root: Path) -> bool:
        """True if a run has such a list, whatever it is."""
        return os.path.lexists(root / NAME)

    @staticmethod
    def read(root: Path) -> "Ledger":
        """The list of a run as it stands; of one that begins, the empty list is ``Ledger(root, {})``.

        Raises InputError that names the file and the line that cannot be read.
        """
        path = root / NAME
        try:
            data = read_file(root, NAME)
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from None
        # What follows the last line end was being written when the process was killed.
        lines = data.split(b"\n")[:-1]
        entries: dict[str, Entry] = {}
        for number, line in enumerate(lines, start=1):
            try:
                record = parsed(line, path)
                if number == 1:
                    schema = record["schema"]
                elif "sha256" in record:
                    entries[inside(record["path"])] = _entry(record)
                else:
                    entries.pop(record["path"], None)
            except (InputError, KeyError, TypeError):
                raise InputError(f"{path}, line {number}: unreadable; restore the file from a copy") from None
            if number == 1:
                _check_schema(path, schema)
        if not lines:
            raise InputError(f"{path}: empty; restore the file from a copy")
        return Ledger(root, entries)

    def open(self) -> None:
        """Rewrite the list without what is out of date and stand ready to append. Raises RunError (a full disk)."""
        self.entries = {name: self.settled(name) for name in self.entries}
        lines = [{"schema": SCHEMA}, *(_record(name, entry) for name, entry in self.entries.items())]
        write_whole(self._root, NAME, b"".join(_line(line) for line in lines))
        self._fd = open_file(self._root, NAME, os.O_WRONLY | os.O_APPEND)

    def record(self, name: str, entry: Entry | None) -> None:
        """Put ``entry`` under ``name``, or take the name out (None). On the disk when this returns.

        Raises RunError (a full disk), and then the list is as before.
        """
        if self._fd is None:
            raise RunError(f"{self._root}: opened for reading only")
        size = os.fstat(self._fd).st_size
        try:
            write_all(self._fd, _line(_record(name, entry)))
            os.fsync(self._fd)
        except OSError as error:
            os.ftruncate(self._fd, size)
            raise unwritable(self._root / NAME, error) from error
        if entry is None:
            self.entries.pop(name, None)
        else:
            self.entries[name] = entry

    def settle(self, name: str) -> None:
        """The announced write has happened: what the file held before no longer counts."""
        self.entries[name] = self.entries[name].after

    def settled(self, name: str) -> Entry:
        """Return what the file holds, once it is known whether an announced write happened before the process ended."""
        entry = self.entries[name]
        if entry.before is None:
            return entry
        try:
            found = sha256(read_file(self._root, name, entry.most)).hexdigest()
        except (OSError, InputError):
            found = ""  # whoever reads the file says what is wrong with it
        return entry.before if found == entry.before.sha256 else entry.after

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _check_schema(path: Path, schema: object) -> None:
    if schema != SCHEMA:
        raise InputError(f"{path}: schema {schema!r}, this version reads {SCHEMA!r}; use a newer pplr-audit")


def _entry(record: dict[str, Any]) -> Entry:
    before, digest, size = record.get("before"), record["sha256"], record["size"]
    if not isinstance(digest, str) or not isinstance(size, int) or size < 0:
        raise TypeError
    return Entry(digest, size, None if before is None else _entry(before))


def _record(name: str, entry: Entry | None) -> dict[str, Any]:
    if entry is None:
        return {"path": name}
    record: dict[str, Any] = {"path": name, "sha256": entry.sha256, "size": entry.size}
    if entry.before is not None:
        record["before"] = {"sha256": entry.before.sha256, "size": entry.before.size}
    return record


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode() + b"\n"
