"""The log of a run, one JSON object a line: what happened, and when."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pplr_audit.errors import InputError
from pplr_audit.runs.atomic import unwritable, write_all
from pplr_audit.runs.files import open_file, read_file
from pplr_audit.runs.parsing import parsed

EVENTS = "events.jsonl"


class EventLog:
    """``events.jsonl`` in the directory ``root`` of a run."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._open: int | None = None

    def append(self, kind: str, /, **fields: Any) -> None:
        """Append one line: the time (UTC), the kind, the fields. Raises RunError (a full disk)."""
        file = self._root / EVENTS
        if self._open is None:
            try:
                self._open = open_file(self._root, EVENTS, os.O_RDWR | os.O_CREAT | os.O_APPEND)
            except OSError as error:
                raise unwritable(file, error) from error
        record = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "kind": kind, **fields}
        line = json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        size = os.fstat(self._open).st_size
        try:
            write_all(self._open, line)
            os.fsync(self._open)
        except OSError as error:
            os.ftruncate(self._open, size)
            raise unwritable(file, error) from error

    def read(self) -> list[dict[str, Any]]:
        """All events so far, the oldest first; a last line that is still being written is left out.

        Raises InputError that names a line that cannot be read.
        """
        try:
            data = read_file(self._root, EVENTS)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise InputError(f"{self._root / EVENTS}: cannot be read: {error.strerror}") from None
        events = []
        for number, line in enumerate(data.split(b"\n")[:-1], start=1):
            try:
                events.append(parsed(line, self._root))
            except InputError:
                raise InputError(f"{self._root / EVENTS}, line {number}: unreadable; remove the line") from None
        return events

    def cut_half_line(self) -> None:
        """Cut off what stands after the last line end: it was being written when the process was killed."""
        try:
            data = read_file(self._root, EVENTS)
        except FileNotFoundError:
            return
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            fd = open_file(self._root, EVENTS, os.O_RDWR)
            try:
                os.ftruncate(fd, whole)
                os.fsync(fd)
            finally:
                os.close(fd)

    def close(self) -> None:
        """Close the file. The next event opens it again."""
        if self._open is not None:
            os.close(self._open)
        self._open = None
