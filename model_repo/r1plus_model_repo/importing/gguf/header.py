"""The header of a GGUF file: its metadata and the place of its tensors, each checked against the file itself.

`gguf` (PyPI) has a reader for trusted files. It maps the file, believes its counts (2^63 tensors make a loop of 2^63)
and checks no tensor's end. So it, and the backend's reader, only see a file that this module has accepted.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from r1plus_model_repo.importing.errors import WeightsError
from r1plus_model_repo.importing.gguf.values import AGAIN, BadHeaderError, Cursor, Kind, Value

MAGIC = b"GGUF"
VERSIONS = (2, 3)
"""The same layout. Version 1 (2023) has shorter counts."""
MOST_KEYS = 65_536
MOST_TENSORS = 1_048_576
MOST_DIMENSIONS = 4
MOST_NAME_BYTES = 256
ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MOST_ALIGNMENT = "general.alignment", 32, 2**20
_NAME = re.compile(r"[^\x00-\x20/\\\x7f-\x9f]+")
BLOCKS: Mapping[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
}
"""Tensor type -> name, elements per block, bytes per block. From ggml.h; a test compares with `GGML_QUANT_SIZES`."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor: `shape` innermost dimension first, as the file has it; `offset` in bytes from the data's start."""

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    bytes: int

    @property
    def elements(self) -> int:
        """Number of weights."""
        product = 1
        for dimension in self.shape:
            product *= dimension
        return product


@dataclass(frozen=True, slots=True)
class Header:
    """The content of a GGUF header, in file order.

    `data_offset`: bytes from the start of the file to the first tensor.
    """

    version: int
    metadata: Mapping[str, Value]
    tensors: tuple[TensorInfo, ...]
    alignment: int
    data_offset: int


def read_header(path: Path) -> Header:
    """Read the header of the file at `path`. Raise WeightsError with the field, the value and what to do."""
    if path.exists() and not path.is_file():
        raise WeightsError(str(path), ("is not a regular file; give a .gguf file, or a folder with a model",))
    try:
        with path.open("rb") as stream:
            return _read_all_parts(stream, path.stat().st_size)
    except OSError as error:
        raise WeightsError(str(path), (f"cannot be read: {error.strerror or error}",)) from error
    except BadHeaderError as error:
        raise WeightsError(str(path), (str(error),)) from error


def _read_all_parts(stream: BinaryIO, size: int) -> Header:
    cursor = Cursor(stream, size)
    version = _read_version(cursor, size)
    cursor.field = "tensor_count"
    tensor_count = _read_limited_count(cursor, MOST_TENSORS, 24, "tensors")
    cursor.field = "metadata_kv_count"
    key_count = _read_limited_count(cursor, MOST_KEYS, 13, "keys")
    metadata = _read_metadata(cursor, key_count)
    alignment = _get_alignment(cursor, metadata)
    tensors = _read_tensors(cursor, tensor_count)
    data = -(-cursor.position // alignment) * alignment
    _check_placement(cursor, tensors, alignment, size - data)
    return Header(version, metadata, tensors, alignment, data)


def _read_version(cursor: Cursor, size: int) -> int:
    if size == 0:
        raise BadHeaderError(f"magic: the file has 0 bytes; {AGAIN}")
    cursor.field = "magic"
    magic = cursor.read_bytes(len(MAGIC))
    if magic != MAGIC:
        raise cursor.make_error(
            f"{magic!r} instead of {MAGIC!r}", "this is not a GGUF file; give one, or a folder with a model"
        )
    cursor.field = "version"
    version = cursor.read_count(Kind.UINT32)
    if version in VERSIONS:
        return version
    byte_swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
    if byte_swapped in VERSIONS:
        raise cursor.make_error("the file is big-endian", "convert it on, or for, a little-endian machine")
    raise cursor.make_error(
        f"{version} is not read, only 2 and 3 are", "convert the model again with a current converter"
    )


def _read_limited_count(cursor: Cursor, most: int, least_bytes: int, what: str) -> int:
    count = cursor.read_count()
    if count > most:
        raise cursor.make_error(f"{count} {what}, at most {most} are read")
    cursor.check_room(count, least_bytes, what)
    return count


def _read_metadata(cursor: Cursor, count: int) -> dict[str, Value]:
    metadata: dict[str, Value] = {}
    for index in range(count):
        cursor.field = f"metadata key {index + 1} of {count}"
        name = _read_name(cursor)
        if name in metadata:
            raise cursor.make_error(f"{name!r} occurs twice", "it is ambiguous: get another file")
        cursor.field = name
        metadata[name] = cursor.read_value()
    return metadata


def _read_name(cursor: Cursor) -> str:
    name = cursor.read_text()
    if len(name.encode()) > MOST_NAME_BYTES:
        raise cursor.make_error(f"a name of {len(name.encode())} bytes, at most {MOST_NAME_BYTES} are read")
    if not _NAME.fullmatch(name) or ".." in name:
        raise cursor.make_error(
            f"{name!r:.120} is a path or has blanks or control characters",
            "names are words joined by dots: get the file from its publisher",
        )
    return name


def _get_alignment(cursor: Cursor, metadata: Mapping[str, Value]) -> int:
    cursor.field = ALIGNMENT_KEY
    alignment = metadata.get(ALIGNMENT_KEY, DEFAULT_ALIGNMENT)
    if type(alignment) is not int or not 8 <= alignment <= MOST_ALIGNMENT or alignment & (alignment - 1):
        raise cursor.make_error(f"{alignment!r:.40} is not a power of two from 8 to {MOST_ALIGNMENT}")
    return alignment


def _read_tensors(cursor: Cursor, count: int) -> tuple[TensorInfo, ...]:
    tensors: dict[str, TensorInfo] = {}
    for index in range(count):
        cursor.field = f"tensor {index + 1} of {count}"
        name = _read_name(cursor)
        if name in tensors:
            raise cursor.make_error(f"{name!r} occurs twice", "it is ambiguous: get another file")
        cursor.field = f"tensor {name}"
        tensors[name] = _read_tensor(cursor, name)
    return tuple(tensors.values())


def _read_tensor(cursor: Cursor, name: str) -> TensorInfo:
    dimensions = cursor.read_count(Kind.UINT32)
    if not 1 <= dimensions <= MOST_DIMENSIONS:
        raise cursor.make_error(f"{dimensions} dimensions, 1 to {MOST_DIMENSIONS} are read")
    shape = tuple(cursor.read_count() for _ in range(dimensions))
    number = cursor.read_count(Kind.UINT32)
    if number not in BLOCKS:
        raise cursor.make_error(f"type {number} is not known", "get the model in another quantisation, such as Q8_0")
    kind, per_block, block_bytes = BLOCKS[number]
    if 0 in shape or shape[0] % per_block:
        remainder = f"{shape[0]} is not a multiple of {per_block}, the block of {kind}"
        raise cursor.make_error(f"shape {list(shape)}: " + ("a dimension of 0" if 0 in shape else remainder))
    offset = cursor.read_count()
    info = TensorInfo(name, shape, kind, offset, 0)
    return TensorInfo(name, shape, kind, offset, info.elements // per_block * block_bytes)


def _check_placement(cursor: Cursor, tensors: tuple[TensorInfo, ...], alignment: int, room: int) -> None:
    """Check that every tensor is within the file, aligned, and overlaps no other."""
    for one in tensors:
        cursor.field = f"tensor {one.name}"
        if one.offset % alignment:
            raise cursor.make_error(f"offset {one.offset} is not a multiple of {alignment}, the alignment")
        if one.offset + one.bytes > room:
            end = one.offset + one.bytes
            raise cursor.make_error(f"ends at byte {end} of the data, but the file has only {max(room, 0)}")
    for before, after in pairwise(sorted(tensors, key=lambda one: (one.offset, one.bytes))):
        if after.offset < before.offset + before.bytes:
            cursor.field = f"tensor {after.name}"
            end = before.offset + before.bytes
            raise cursor.make_error(f"offset {after.offset} lies in {before.name}, which ends at {end}")
