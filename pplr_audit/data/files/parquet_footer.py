"""A Parquet file's own statement of its size, read from its last bytes without unpacking anything.

Source: Apache Parquet's ``parquet.thrift`` (FileMetaData, RowGroup) and Thrift's compact protocol.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

MAGIC = b"PAR1"
LARGEST = 1 << 22
"""Bytes that a footer may have; those of data sets have some thousand."""
DEEPEST = 20
"""Structs within structs; Parquet has five."""
# Kinds of values in the compact protocol.
TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT, UUID = range(1, 14)
SIZES = {TRUE: 0, FALSE: 0, BYTE: 1, DOUBLE: 8, UUID: 16}


class NoFooter(Exception):
    """The file does not end as a Parquet file does; the message says why."""


@dataclass(frozen=True)
class RowGroup:
    """Rows that are stored together."""

    rows: int
    size: int
    """Bytes of its pages, unpacked; of values that repeat there is one and a number each."""


def row_groups(path: Path) -> list[RowGroup]:
    """The groups of rows in the order of the file. Raises NoFooter, and OSError for a file that cannot be read."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if size < 12:
            raise NoFooter("too short")
        file.seek(size - 8)
        length, magic = int.from_bytes(file.read(4), "little"), file.read(4)
        if magic != MAGIC:
            raise NoFooter("does not end with PAR1")
        if length > min(size - 12, LARGEST):
            raise NoFooter(f"a footer of {length} bytes")
        file.seek(size - 8 - length)
        found: list[RowGroup] = []
        try:
            _Compact(file.read(length), found).file()
        except IndexError:
            raise NoFooter("the footer is cut short") from None
    if any(group.rows < 0 or group.size < 0 for group in found):
        raise NoFooter("a negative size")
    return found


class _Compact:
    """Reads the few fields that are wanted and passes over the others."""

    def __init__(self, data: bytes, found: list[RowGroup]) -> None:
        self._data, self._at, self._found = data, 0, found

    def file(self) -> None:
        self._struct({4: self._groups})

    def _groups(self) -> None:
        count, _ = self._list()
        for _ in range(count):
            values = {2: 0, 3: 0}

            def size(values: dict[int, int] = values) -> None:
                values[2] = self._number()

            def rows(values: dict[int, int] = values) -> None:
                values[3] = self._number()

            self._struct({2: size, 3: rows})
            self._found.append(RowGroup(values[3], values[2]))

    def _struct(self, wanted: Mapping[int, Callable[[], None]], depth: int = 0) -> None:
        field = 0
        while (head := self._byte()) & 15:
            field = field + (head >> 4) if head >> 4 else self._number()
            if field in wanted:
                wanted[field]()
            else:
                self._pass_over(head & 15, depth)

    def _pass_over(self, kind: int, depth: int) -> None:
        if depth > DEEPEST:
            raise NoFooter("structs in structs without end")
        if kind in (I16, I32, I64):
            self._varint()
        elif kind == BINARY:
            self._skip(self._varint())
        elif kind in (LIST, SET):
            count, each = self._list()
            for _ in range(count):
                self._item(each, depth)
        elif kind == MAP:
            if count := self._varint():
                kinds = self._byte()
                for _ in range(count):
                    self._item(kinds >> 4, depth)
                    self._item(kinds & 15, depth)
        elif kind == STRUCT:
            self._struct({}, depth + 1)
        elif kind in SIZES:
            self._skip(SIZES[kind])
        else:
            raise NoFooter(f"a value of kind {kind}")

    def _item(self, kind: int, depth: int) -> None:
        # Within a list a truth value has a byte of its own.
        self._pass_over(BYTE if kind in (TRUE, FALSE) else kind, depth + 1)

    def _list(self) -> tuple[int, int]:
        head = self._byte()
        return (self._varint() if head >> 4 == 15 else head >> 4), head & 15

    def _number(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _varint(self) -> int:
        value = shift = 0
        while shift < 70:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
        raise NoFooter("a number without end")

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _skip(self, count: int) -> None:
        self._at += count
        if self._at > len(self._data):
            raise IndexError
