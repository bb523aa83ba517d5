"""The header of a safetensors file: its tensors and their place, each checked against the file itself.

Layout: 8 bytes length, little-endian, that many bytes of JSON, then the tensors without a gap up to the file's end
(huggingface/safetensors, safetensors/src/tensor.rs: `read_metadata`, `Metadata::validate`). The weights are never read.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeGuard

from r1plus_model_repo.importing.errors import WeightsError
from r1plus_model_repo.importing.gguf.values import AGAIN

SUFFIX: Final = ".safetensors"
MOST_HEADER_BYTES: Final = 16 * 2**20
"""The format allows 100 MB; headers of published shards have a few MiB at most."""
MOST_TENSORS: Final = 2**17
MOST_CONTAINERS: Final = 4 * MOST_TENSORS
"""A tensor has three: its object, its shape and its offsets."""
MOST_DIMENSIONS: Final = 8
MOST_DIMENSION: Final = 2**48
METADATA: Final = "__metadata__"
LFS_POINTER: Final = b"version https://git-lfs"
ELEMENT_BITS: Final[Mapping[str, int]] = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: its type, its shape (outermost dimension first), and its begin and end in the data, in bytes."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes in the file."""
        return self.end - self.begin


class _HeaderError(ValueError):
    """An invalid header: `FIELD: what is wrong; what to do`."""


def read_tensors(path: Path, name: str | None = None) -> dict[str, Tensor]:
    """Return the tensors of the file at `path` by name. Raise WeightsError, which calls the file `name`."""
    try:
        with path.open("rb") as stream:
            return _read_checked(stream, path.stat().st_size)
    except OSError as error:
        raise WeightsError(name or str(path), (f"cannot be read: {error.strerror or error}",)) from error
    except _HeaderError as error:
        raise WeightsError(name or str(path), (str(error),)) from error


def _read_checked(stream: BinaryIO, size: int) -> dict[str, Tensor]:
    header = _read_header(stream, size)
    room = size - stream.tell()
    if len(header) > MOST_TENSORS:
        raise _HeaderError(f"header: {len(header)} tensors, at most {MOST_TENSORS} are read; get another file")
    _check_metadata(header.pop(METADATA, {}))
    if not header:
        raise _HeaderError(f"header: no tensor; {AGAIN}")
    tensors = {name: _parse_tensor(name, entry, room) for name, entry in header.items()}
    end, before = 0, "the header"
    for name, one in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if one.begin != end:
            kind = "lies in" if one.begin < end else "leaves a gap after"
            raise _HeaderError(
                f"tensor {_quote_name(name)}: offset {one.begin} {kind} {before}, which ends at {end}; {AGAIN}"
            )
        end, before = one.end, _quote_name(name)
    if end != room:
        raise _HeaderError(f"header: its tensors take {end} bytes, the file has {room}; {AGAIN}")
    return tensors


def _read_header(stream: BinaryIO, size: int) -> dict[str, Any]:
    """Read the JSON object after checking its length."""
    start = stream.read(len(LFS_POINTER))
    if start == LFS_POINTER:
        raise _HeaderError("length: this is a Git LFS pointer instead of the file; `git lfs pull` fetches it")
    if size < 8:
        raise _HeaderError(f"length: the file has {size} bytes; {AGAIN}")
    length = int.from_bytes(start[:8], "little")
    if length > size - 8:
        raise _HeaderError(f"length: a header of {length} bytes, the file has {size - 8} after it; {AGAIN}")
    if length > MOST_HEADER_BYTES:
        raise _HeaderError(
            f"length: a header of {length} bytes, at most {MOST_HEADER_BYTES} are read; get another file"
        )
    stream.seek(8)
    text = stream.read(length)
    if len(text) != length or not text.startswith(b"{"):
        raise _HeaderError(f"header: not a JSON object; {AGAIN}")
    if text.count(b"[") + text.count(b"{") > MOST_CONTAINERS:
        raise _HeaderError(f"header: more than {MOST_CONTAINERS} lists and objects; get another file")
    try:
        # As text, because Python would accept UTF-16 in bytes. No reader of the format accepts NaN.
        content = json.loads(text.decode(), object_pairs_hook=_reject_duplicates, parse_constant=_reject_constant)
    except _HeaderError:
        raise
    except (ValueError, RecursionError) as error:
        raise _HeaderError(f"header: not JSON: {error}; {AGAIN}") from error
    if not isinstance(content, dict):
        raise _HeaderError(f"header: not a JSON object; {AGAIN}")
    return content


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        duplicate = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise _HeaderError(f"header: {_quote_name(duplicate)} occurs twice, which is ambiguous; {AGAIN}")
    return fields


def _reject_constant(word: str) -> Any:
    raise _HeaderError(f"header: not JSON: {word}; {AGAIN}")


def _check_metadata(metadata: Any) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _HeaderError(f"{METADATA}: not an object of texts; {AGAIN}")


def _parse_tensor(name: str, entry: Any, room: int) -> Tensor:
    field = f"tensor {_quote_name(name)}"
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise _HeaderError(f"{field}: half a character (a lone surrogate); {AGAIN}")
    if not isinstance(entry, dict):
        raise _HeaderError(f"{field}: not an object with dtype, shape and data_offsets; {AGAIN}")
    dtype, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in ELEMENT_BITS:
        raise _HeaderError(f"{field}: dtype {dtype!r:.40} is not known; get the model in F16, BF16 or F32")
    if not _is_int_list(shape, MOST_DIMENSION) or len(shape) > MOST_DIMENSIONS:
        most = f"at most {MOST_DIMENSIONS} whole numbers up to {MOST_DIMENSION}"
        raise _HeaderError(f"{field}: shape {shape!r:.80} is not {most}; {AGAIN}")
    if not _is_int_list(offsets, 2**63) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _HeaderError(f"{field}: data_offsets {offsets!r:.80} are not a begin and an end; {AGAIN}")
    tensor = Tensor(dtype, tuple(shape), *offsets)
    if tensor.end > room:
        raise _HeaderError(f"{field}: ends at byte {tensor.end} of the data, but the file has only {room}; {AGAIN}")
    if tensor.elements * ELEMENT_BITS[dtype] != tensor.bytes * 8:
        raise _HeaderError(f"{field}: {tensor.bytes} bytes for shape {list(shape)} of {dtype}; {AGAIN}")
    return tensor


def _is_int_list(value: Any, most: int) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(number) is int and 0 <= number <= most for number in value)


def _quote_name(name: str) -> str:
    """Return an untrusted name in a form that is safe for a message."""
    return name if name.isascii() and name.isprintable() and len(name) <= 120 else f"{name!r:.120}"
