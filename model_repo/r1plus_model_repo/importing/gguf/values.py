"""The values of a GGUF header, read from an untrusted file.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, little-endian. No memory is allocated by what the
file claims: each length is checked against the rest of the file and against a limit before a byte of it is read.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import BinaryIO

MOST_HEADER_BYTES = 256 * 2**20
"""Of the whole header. The largest published vocabularies (256,000 tokens, merges and scores) take 20 MiB."""
MOST_STRING_BYTES = 2**20
KEPT_ITEMS = 1024
"""Longest array whose items are kept; of longer ones (vocabularies) only the length is kept."""


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
    """A header that cannot be read: `FIELD: what is wrong; what to do`."""


@dataclass(frozen=True, slots=True)
class Array:
    """A list of values of one kind; `items` is empty if it is longer than KEPT_ITEMS."""

    kind: Kind
    length: int
    items: tuple[Scalar, ...]


Value = Scalar | Array


class Cursor:
    """The read position in a file of `size` bytes, and the name of the current field for error messages."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self._size = size
        self.position = 0
        self.field = "header"

    def make_error(self, what: str, remedy: str = AGAIN) -> BadHeaderError:
        """Return an error at this position."""
        return BadHeaderError(f"{self.field}: {what}; {remedy}")

    def check_room(self, count: int, least: int, what: str) -> None:
        """Raise BadHeaderError if the rest of the file cannot hold `count` things of at least `least` bytes each."""
        remaining = min(self._size, MOST_HEADER_BYTES) - self.position
        if count * least > remaining:
            raise self.make_error(
                f"{count} {what}, but {self._size - self.position} bytes are left at byte {self.position}"
            )

    def read_bytes(self, count: int) -> bytes:
        """Return the next bytes."""
        if count > self._size - self.position:
            raise self.make_error(
                f"the file ends at byte {self._size}, {count} more are expected at byte {self.position}"
            )
        if self.position + count > MOST_HEADER_BYTES:
            raise self.make_error(
                f"the header is longer than {MOST_HEADER_BYTES} bytes", "no published model has one: get another file"
            )
        content = self._stream.read(count)
        if len(content) != count:
            raise self.make_error(f"the file ended at byte {self.position + len(content)} while it was read")
        self.position += count
        return content

    def read_number(self, kind: Kind) -> int | float:
        """Read one number."""
        form = "<" + _FORMATS[kind]
        value: int | float = struct.unpack(form, self.read_bytes(struct.calcsize(form)))[0]
        return value

    def read_count(self, kind: Kind = Kind.UINT64) -> int:
        """Read one whole number."""
        return int(self.read_number(kind))

    def read_text(self) -> str:
        """Read a length and that many bytes of UTF-8."""
        length = self.read_count()
        if length > MOST_STRING_BYTES:
            raise self.make_error(f"a text of {length} bytes, at most {MOST_STRING_BYTES} are read")
        data = self.read_bytes(length)
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise self.make_error(f"not UTF-8 at byte {self.position - length + error.start}") from error

    def read_kind(self) -> Kind:
        """Read the type of the next value."""
        number = self.read_count(Kind.UINT32)
        try:
            return Kind(number)
        except ValueError as error:
            raise self.make_error(f"type {number} is not a GGUF type (0 to {max(Kind)})") from error

    def read_value(self) -> Value:
        """Read a type and a value of it."""
        kind = self.read_kind()
        return self._read_array() if kind is Kind.ARRAY else self._read_scalar(kind)

    def _read_scalar(self, kind: Kind) -> Scalar:
        if kind is Kind.STRING:
            return self.read_text()
        number = self.read_number(kind)
        if kind is not Kind.BOOL:
            return number
        if number not in (0, 1):
            raise self.make_error(f"a truth value is 0 or 1, not {number}")
        return bool(number)

    def _read_array(self) -> Array:
        kind, length = self.read_kind(), self.read_count()
        if kind is Kind.ARRAY:
            raise self.make_error("an array of arrays", "the backend cannot read one: write the file without this key")
        least = 8 if kind is Kind.STRING else struct.calcsize("<" + _FORMATS[kind])
        self.check_room(length, least, "items")
        if kind is Kind.STRING:
            # One at a time, so that memory holds only one.
            if length > KEPT_ITEMS:
                for _ in range(length):
                    self.read_text()
                return Array(kind, length, ())
            return Array(kind, length, tuple(self.read_text() for _ in range(length)))
        if length > KEPT_ITEMS:
            self._skip(length * least)
            return Array(kind, length, ())
        return Array(kind, length, tuple(self._read_scalar(kind) for _ in range(length)))

    def _skip(self, count: int) -> None:
        piece = 2**16
        for start in range(0, count, piece):
            self.read_bytes(min(piece, count - start))
