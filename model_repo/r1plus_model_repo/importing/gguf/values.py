"""The values of a GGUF header, read from a file that nobody vouches for.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, little-endian. Nothing is set aside by what the file
claims: a length is held against what is left of the file, and against a limit, before a byte of it is read.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import BinaryIO

MOST_HEADER_BYTES = 256 * 2**20
"""Of the header in all. The largest published vocabularies (256,000 tokens, their merges and scores) take 20 MiB."""
MOST_STRING_BYTES = 2**20
KEPT_ITEMS = 1024
"""Arrays up to this length are kept; of longer ones (vocabularies) the length is."""


class Kind(IntEnum):
    """Types of metadata values."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


_FORMATS = {
    Kind.UINT8: "B",
    Kind.INT8: "b",
    Kind.UINT16: "H",
    Kind.INT16: "h",
    Kind.UINT32: "I",
    Kind.INT32: "i",
    Kind.FLOAT32: "f",
    Kind.BOOL: "B",
    Kind.UINT64: "Q",
    Kind.INT64: "q",
    Kind.FLOAT64: "d",
}
Scalar = int | float | bool | str
AGAIN = "the file is cut short or damaged: fetch it again and compare its sha256 with the publisher's"


class BadHeaderError(ValueError):
    """A header that cannot be read on: `FIELD: what is wrong; what to do`."""


@dataclass(frozen=True, slots=True)
class Array:
    """A list of values of one kind; `items` is empty where it is longer than KEPT_ITEMS."""

    kind: Kind
    length: int
    items: tuple[Scalar, ...]


Value = Scalar | Array


class Cursor:
    """Where reading stands in a file of `size` bytes, and the field that is being read, for what goes wrong there."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self._size = size
        self.at = 0
        self.field = "header"

    def bad(self, what: str, remedy: str = AGAIN) -> BadHeaderError:
        """The error at this place."""
        return BadHeaderError(f"{self.field}: {what}; {remedy}")

    def room_for(self, count: int, least: int, what: str) -> None:
        """Refuse a count of things, of at least `least` bytes each, that what is left cannot hold."""
        left = min(self._size, MOST_HEADER_BYTES) - self.at
        if count * least > left:
            raise self.bad(f"{count} {what}, but {self._size - self.at} bytes are left at byte {self.at}")

    def take(self, count: int) -> bytes:
        """The next bytes."""
        if count > self._size - self.at:
            raise self.bad(f"the file ends at byte {self._size}, {count} more were to follow at byte {self.at}")
        if self.at + count > MOST_HEADER_BYTES:
            raise self.bad(
                f"the header is longer than {MOST_HEADER_BYTES} bytes", "no published model's is: get another file"
            )
        found = self._stream.read(count)
        if len(found) != count:
            raise self.bad(f"the file ended at byte {self.at + len(found)} while it was read")
        self.at += count
        return found

    def number(self, kind: Kind) -> int | float:
        """One number, as it is stored."""
        form = "<" + _FORMATS[kind]
        found: int | float = struct.unpack(form, self.take(struct.calcsize(form)))[0]
        return found

    def count(self, kind: Kind = Kind.UINT64) -> int:
        """One whole number."""
        return int(self.number(kind))

    def text(self) -> str:
        """A length and so many bytes of UTF-8."""
        length = self.count()
        if length > MOST_STRING_BYTES:
            raise self.bad(f"a text of {length} bytes, at most {MOST_STRING_BYTES} are read")
        data = self.take(length)
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise self.bad(f"not UTF-8 at byte {self.at - length + error.start}") from error

    def kind(self) -> Kind:
        """The type of what follows."""
        number = self.count(Kind.UINT32)
        try:
            return Kind(number)
        except ValueError as error:
            raise self.bad(f"type {number} is none of GGUF's, which are 0 to {max(Kind)}") from error

    def value(self) -> Value:
        """A type and a value of it."""
        kind = self.kind()
        return self._array() if kind is Kind.ARRAY else self._scalar(kind)

    def _scalar(self, kind: Kind) -> Scalar:
        if kind is Kind.STRING:
            return self.text()
        found = self.number(kind)
        if kind is not Kind.BOOL:
            return found
        if found not in (0, 1):
            raise self.bad(f"a truth value is 0 or 1, not {found}")
        return bool(found)

    def _array(self) -> Array:
        kind, length = self.kind(), self.count()
        if kind is Kind.ARRAY:
            raise self.bad("an array of arrays", "the backend reads none: write the file without this key")
        least = 8 if kind is Kind.STRING else struct.calcsize("<" + _FORMATS[kind])
        self.room_for(length, least, "items")
        if kind is Kind.STRING:
            # One after the other, whatever their number, so that memory holds one.
            if length > KEPT_ITEMS:
                for _ in range(length):
                    self.text()
                return Array(kind, length, ())
            return Array(kind, length, tuple(self.text() for _ in range(length)))
        if length > KEPT_ITEMS:
            self._skip(length * least)
            return Array(kind, length, ())
        return Array(kind, length, tuple(self._scalar(kind) for _ in range(length)))

    def _skip(self, count: int) -> None:
        piece = 2**16
        for start in range(0, count, piece):
            self.take(min(piece, count - start))
