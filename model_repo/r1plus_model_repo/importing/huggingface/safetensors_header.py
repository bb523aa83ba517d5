"""The header of a safetensors file: which tensors it holds and where, each held against the file itself.

Layout: 8 bytes length, little-endian, so many bytes of JSON, then the tensors without a gap up to the file's end
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
"""The format's own limit is 100 MB; the headers of published shards have up to some MiB."""
MOST_TENSORS: Final = 2**17
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
    """One tensor: its type as the file calls it, its shape outermost dimension first, and where it lies. Bytes."""

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
        """What it takes in the file."""
        return self.end - self.begin


class _BadError(ValueError):
    """A header that is none: `FIELD: what is wrong; what to do`."""


def read_tensors(path: Path, name: str | None = None) -> dict[str, Tensor]:
    """The tensors of the file at `path` by name; WeightsError, which calls the file `name`."""
    try:
        with path.open("rb") as stream:
            return _read(stream, path.stat().st_size)
    except OSError as error:
        raise WeightsError(name or str(path), (f"cannot be read: {error.strerror or error}",)) from error
    except _BadError as error:
        raise WeightsError(name or str(path), (str(error),)) from error


def _read(stream: BinaryIO, size: int) -> dict[str, Tensor]:
    header = _header(stream, size)
    room = size - stream.tell()
    if len(header) > MOST_TENSORS:
        raise _BadError(f"header: {len(header)} tensors, at most {MOST_TENSORS} are read; get another file")
    _check_metadata(header.pop(METADATA, {}))
    if not header:
        raise _BadError(f"header: no tensor; {AGAIN}")
    tensors = {name: _tensor(name, said, room) for name, said in header.items()}
    end, before = 0, "the header"
    for name, one in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if one.begin != end:
            kind = "lies in" if one.begin < end else "leaves a gap after"
            raise _BadError(f"tensor {_shown(name)}: offset {one.begin} {kind} {before}, which ends at {end}; {AGAIN}")
        end, before = one.end, _shown(name)
    if end != room:
        raise _BadError(f"header: its tensors take {end} bytes, the file holds {room} of them; {AGAIN}")
    return tensors


def _header(stream: BinaryIO, size: int) -> dict[str, Any]:
    """The JSON object, if the length before it can be one."""
    start = stream.read(len(LFS_POINTER))
    if start == LFS_POINTER:
        raise _BadError("length: this is a Git LFS pointer instead of the file; `git lfs pull` fetches it")
    if size < 8:
        raise _BadError(f"length: the file has {size} bytes; {AGAIN}")
    length = int.from_bytes(start[:8], "little")
    if length > size - 8:
        raise _BadError(f"length: a header of {length} bytes, the file has {size - 8} after it; {AGAIN}")
    if length > MOST_HEADER_BYTES:
        raise _BadError(f"length: a header of {length} bytes, at most {MOST_HEADER_BYTES} are read; get another file")
    stream.seek(8)
    text = stream.read(length)
    if len(text) != length or not text.startswith(b"{"):
        raise _BadError(f"header: no JSON object; {AGAIN}")
    try:
        # As text: of bytes, Python would take UTF-16, too. And no reader of the format knows NaN.
        found = json.loads(text.decode(), object_pairs_hook=_unique, parse_constant=_no_number)
    except _BadError:
        raise
    except (ValueError, RecursionError) as error:
        raise _BadError(f"header: not JSON: {error}; {AGAIN}") from error
    if not isinstance(found, dict):
        raise _BadError(f"header: no JSON object; {AGAIN}")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise _BadError(f"header: {_shown(twice)} stands there twice: no reader could tell which counts; {AGAIN}")
    return found


def _no_number(word: str) -> Any:
    raise _BadError(f"header: not JSON: {word}; {AGAIN}")


def _check_metadata(said: Any) -> None:
    if not isinstance(said, dict) or not all(isinstance(value, str) for value in said.values()):
        raise _BadError(f"{METADATA}: no object of texts; {AGAIN}")


def _tensor(name: str, said: Any, room: int) -> Tensor:
    field = f"tensor {_shown(name)}"
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise _BadError(f"{field}: half a character, which is no text; {AGAIN}")
    if not isinstance(said, dict):
        raise _BadError(f"{field}: no object with dtype, shape and data_offsets; {AGAIN}")
    dtype, shape, offsets = (said.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in ELEMENT_BITS:
        raise _BadError(f"{field}: dtype {dtype!r:.40} is not known; get the model in F16, BF16 or F32")
    if not _whole(shape, MOST_DIMENSION) or len(shape) > MOST_DIMENSIONS:
        most = f"at most {MOST_DIMENSIONS} whole numbers up to {MOST_DIMENSION}"
        raise _BadError(f"{field}: shape {shape!r:.80} is not {most}; {AGAIN}")
    if not _whole(offsets, 2**63) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _BadError(f"{field}: data_offsets {offsets!r:.80} are no begin and end; {AGAIN}")
    found = Tensor(dtype, tuple(shape), *offsets)
    if found.end > room:
        raise _BadError(f"{field}: ends at byte {found.end} of the data, of which the file holds {room}; {AGAIN}")
    if found.elements * ELEMENT_BITS[dtype] != found.bytes * 8:
        raise _BadError(f"{field}: {found.bytes} bytes for shape {list(shape)} of {dtype}; {AGAIN}")
    return found


def _whole(said: Any, most: int) -> TypeGuard[list[int]]:
    return isinstance(said, list) and all(type(number) is int and 0 <= number <= most for number in said)


def _shown(name: str) -> str:
    """A name that anybody may have written, for a message."""
    return name if name.isascii() and name.isprintable() and len(name) <= 120 else f"{name!r:.120}"
