"""Writing of a safetensors file, one tensor after the other: the header comes first, so shapes are announced first.

Layout: huggingface/safetensors, safetensors/src/tensor.rs (`serialize`): 8 bytes length, JSON padded with blanks to a
multiple of 8, then the tensors without a gap. The same tensors give the same bytes.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from r1plus_model_repo.importing.huggingface.safetensors_header import ELEMENT_BITS, METADATA

_ALIGNMENT: Final = 8


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """A tensor that will be written: its type, and its shape, outermost dimension first."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Bytes in the file."""
        return math.prod(self.shape) * ELEMENT_BITS[self.dtype] // 8


def write_safetensors(path: Path, plans: Mapping[str, TensorPlan], blocks: Iterable[bytes]) -> None:
    """Write the file: `blocks` are the tensors' bytes, in the order of `plans`, cut anywhere.

    Raises:
        ValueError: the blocks are not as many bytes as the plans announce.
    """
    header: dict[str, object] = {METADATA: {"format": "pt"}}
    end = 0
    for name, plan in plans.items():
        header[name] = {"dtype": plan.dtype, "shape": list(plan.shape), "data_offsets": [end, end + plan.bytes]}
        end += plan.bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    written = 0
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for block in blocks:
            stream.write(block)
            written += len(block)
    if written != end:
        raise ValueError(f"{path.name}: {written} bytes of tensors, {end} are announced")
