"""A file as a stream of blocks of whole records in UTF-8, plain or gzipped; bounded and fingerprinted.

Nothing larger than a block is held, so that a reader's memory depends on what it keeps and not on the file.
"""

import codecs
import gzip
import hashlib
import io
import os
import re
import stat
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

import numpy as np

from pplr_audit.data.dataset import Source
from pplr_audit.errors import InputError

PIECE = 1 << 24
"""Bytes read at a time; a block is a piece up to its last record's end, and what was left of the one before."""
LONGEST_RECORD = 1 << 24
"""Bytes that one record may have: a file without line ends is not read into memory whole."""
EXPANSION, FREE = 250, 1 << 26
"""A compressed file may unpack to ``EXPANSION`` times its size, or to ``FREE`` bytes where that is more: interactions
shrink some 3 to 20 times, a zip bomb a thousand times."""
ENCODINGS = ("utf-8", "utf-16", "cp1252")
"""Tried in this order where a format does not say its encoding; UTF-16 needs its byte order mark."""
_ESCAPE = re.compile(rb'\\[\\"]')
_ESCAPED = re.compile(rb'\\"[^",;|\t\r\n]')
"""No field ends here, nor is the mark doubled: the backslash before it says that it belongs to the field."""


@dataclass(frozen=True)
class Block:
    """Whole records, each ended by ``\\n``."""

    line: int
    """The number of its first line in the file, from 1."""
    data: bytes
    whole: bool = True
    """False for the last block of a file that does not end with a line end."""

    @cached_property
    def lines(self) -> int:
        return occurrences(self.data, b"\n")


class NotText(Exception):
    """A file is not in the encoding tried.

    Args:
        damaged: all the same it holds more letters beyond ASCII that are in it than bytes that are not.
    """

    def __init__(self, line: int, byte: int, *, damaged: bool = False) -> None:
        self.line, self.byte, self.damaged = line, byte, damaged


class Escaped(Exception):
    """Quotation marks that belong to a quoted field have a backslash before them, which was not expected."""


class Stream:
    """The blocks of one file; after the last of them ``source`` says what was read.

    Args:
        quoted: whether line ends between quotation marks belong to the record.
        escaped: whether a quotation mark behind a backslash opens and closes nothing.
    """

    def __init__(self, path: Path, encoding: str, *, quoted: bool = False, escaped: bool = False) -> None:
        self.path, self.encoding, self.quoted, self.escaped = path, encoding, quoted, escaped
        self._hash, self._size = hashlib.sha256(), 0

    def __iter__(self) -> Iterator[Block]:
        """Every record in order.

        Raises NotText; Escaped; InputError as `unpacked`, for an empty file, an endless record.
        """
        text = self._counted()
        if self.encoding != "utf-8":
            text = _transcoded(text, self.encoding)
        line, blank, letters = 1, True, 0
        for block in _without_blank_end(_records(text, self.quoted, self.escaped, self.path)):
            if blank := blank and not block.strip():
                line += occurrences(block, b"\n")
                continue
            if self.encoding == "utf-8" and not block.isascii():
                letters = _check_utf8(block, line, letters)
            ended = block.endswith(b"\n")
            found = Block(line, block if ended else block + b"\n", ended)
            yield found
            line += found.lines
        if blank:
            raise InputError(f"{self.path}: the file is empty")

    @property
    def source(self) -> Source:
        return Source.of(self.path, self.encoding, self._size, self._hash.digest())

    def _counted(self) -> Iterator[bytes]:
        for piece in unpacked(self.path):
            self._hash.update(piece)
            self._size += len(piece)
            yield piece


def occurrences(data: bytes, byte: bytes, start: int = 0, end: int | None = None) -> int:
    """Count one byte in ``data[start:end]``; for a frequent one faster than ``bytes.count``."""
    return int(np.count_nonzero(np.frombuffer(data, np.uint8)[start:end] == ord(byte)))


def unpacked(path: Path) -> Iterator[bytes]:
    """The bytes of a file in pieces of at most ``PIECE``, unpacked if it is gzipped (told by its first two bytes).

    Raises InputError if it is missing, unreadable, a gzip that is cut short or damaged, or one that unpacks to more
    than is plausible.
    """
    total = 0
    try:
        with _regular(path) as raw:
            packed = raw.peek(2)[:2] == b"\x1f\x8b"
            most = max(FREE, EXPANSION * path.stat().st_size) if packed else None
            file: IO[bytes] = gzip.GzipFile(fileobj=raw) if packed else raw  # type: ignore[assignment]
            while piece := file.read(PIECE):
                total += len(piece)
                if most is not None and total > most:
                    raise InputError(
                        f"{path}: unpacks to more than {EXPANSION} times its size (accepted: up to that, or up to "
                        f"{FREE >> 20} MB; if the file is right, unpack it first)"
                    )
                yield piece
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: a folder (accepted: a file)") from None
    except EOFError:
        raise InputError(f"{path}: the gzip file is cut short (after {total} unpacked bytes)") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: the gzip file is damaged (after {total} unpacked bytes: {error})") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


def _regular(path: Path) -> io.BufferedReader:
    """Open a file, which is read more than once. Raises InputError for a pipe or a device, without waiting for it."""
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise InputError(f"{path}: no regular file (accepted: a file, not a pipe or a device)")


def not_text(path: Path, encodings: Sequence[str], worst: NotText) -> InputError:
    """Return the error about a file that is in none of ``encodings``, or damaged; ``worst`` is how the first failed."""
    where = f"{path}, line {worst.line}: byte 0x{worst.byte:02x} is not"
    if worst.damaged:
        return InputError(f"{where} UTF-8, though most of the file is (accepted: one encoding throughout)")
    return InputError(f"{where} text (accepted: {' or '.join(name.upper() for name in encodings)})")


def fingerprint(sources: Iterable[Source]) -> str:
    """SHA-256 in hex over the files read, in the order given."""
    return hashlib.sha256(b"".join(source.digest for source in sources)).hexdigest()


def _transcoded(pieces: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)()
    line, first = 1, True
    for piece in pieces:
        if first and encoding == "utf-16" and not piece.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise NotText(1, piece[0])
        first = False
        try:
            text = decoder.decode(piece)
        except UnicodeDecodeError as error:
            raise NotText(line + piece.count(b"\n", 0, error.start), piece[error.start]) from None
        line += text.count("\n")
        yield text.encode("utf-8", "replace")
    try:
        decoder.decode(b"", True)
    except UnicodeDecodeError as error:
        raise NotText(line, error.object[error.start]) from None


def _records(pieces: Iterable[bytes], quoted: bool, escaped: bool, path: Path) -> Iterator[bytes]:
    """The same bytes, cut behind the ends of records; line ends become ``\\n``, a byte order mark goes."""
    rest, line, first, old = b"", 1, True, False
    for piece in pieces:
        if first:
            piece, first = piece.removeprefix(codecs.BOM_UTF8), False
            old = b"\r" in piece[:-1] and b"\n" not in piece
        if old:  # lines end as they did on a Mac before 2001
            piece = piece.replace(b"\r", b"\n")
        data = rest + piece
        if quoted and not escaped and _ESCAPED.search(data):
            raise Escaped
        end = _last_end(_ESCAPE.sub(b"..", data) if escaped else data, quoted)
        line += occurrences(data, b"\n", 0, end)
        if len(data) - end > LONGEST_RECORD:
            raise InputError(
                f"{path}, line {line}: a record of more than {LONGEST_RECORD >> 20} MB "
                "(accepted: one record a line, quotation marks in pairs)"
            )
        if end:
            yield _plain_ends(data[:end])
        rest = data[end:]
    if rest:
        yield _plain_ends(rest)


def _without_blank_end(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Blank lines at the end of a file say nothing."""
    last = b""
    for block in blocks:
        if last:
            yield last
        last = block
    if last.strip():
        yield last.rstrip(b"\n") + (b"\n" if last.endswith(b"\n") else b"")


def _plain_ends(data: bytes) -> bytes:
    return data.replace(b"\r\n", b"\n") if b"\r" in data else data


def _last_end(data: bytes, quoted: bool) -> int:
    """Return where the last whole record ends. Quotation marks inside a record come in pairs (RFC 4180)."""
    end = data.rfind(b"\n") + 1
    if not quoted:
        return end
    odd = data.count(b'"', 0, end) % 2
    while end and odd:
        before = data.rfind(b"\n", 0, end - 1) + 1
        odd = (odd + data.count(b'"', before, end)) % 2
        end = before
    return end


def _check_utf8(block: bytes, line: int, before: int) -> int:
    """Count the letters beyond ASCII so far, ``before`` of them before this block. Raises NotText."""
    try:
        block.decode()
    except UnicodeDecodeError as error:
        wrong = block.decode("utf-8", "replace").count("\ufffd") - block.count("\ufffd".encode())
        # In text of one byte a letter, hardly any two of them happen to make one of UTF-8.
        damaged = before + _letters(block.decode("utf-8", "ignore").encode()) > wrong
        place = line + block.count(b"\n", 0, error.start)
        raise NotText(place, block[error.start], damaged=damaged) from None
    return before + _letters(block)


def _letters(block: bytes) -> int:
    """Count the characters of more than one byte: each has one byte from 0xc0 on."""
    return int(np.count_nonzero(np.frombuffer(block, np.uint8) >= 0xC0))
