"""The KV cache of one token, read from the model's files, to check a catalog entry.

Called by the init container `verify` and by `r1plus engine import`. Standard library only.
"""

import re
from dataclasses import dataclass
from pathlib import Path

MODEL = "openvino_model.xml"
MOST_BYTES = 256 * 2**20
"""Largest model description to read; the largest published ones have 30 MiB."""
_STATE = re.compile(
    rb'<layer [^>]*type="ReadValue"[^>]*>\s*<data variable_id="([^"]{1,512})"'
    rb'[^>]*variable_shape="([-0-9?,.\[\] ]{1,64})"'
)
_KV_BYTES = 2
"""Bytes per element: the cache has 16 bits."""


@dataclass(frozen=True, slots=True)
class KvShape:
    """Layers, key/value heads per layer, elements per head."""

    layers: int
    kv_heads: int
    head_size: int

    @property
    def bytes_per_token(self) -> int:
        """Bytes of key and value of one token in all layers, in 16 bits."""
        return 2 * self.layers * self.kv_heads * self.head_size * _KV_BYTES


def read_kv_shape(folder: Path) -> KvShape:
    """Return the shape of the OpenVINO model in `folder`. Raise ValueError if it cannot be read.

    A stateful model has keys and values of each layer in two variables of shape [batch, KV heads, tokens, head size].
    """
    path = folder / MODEL
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{MODEL}: {path.stat().st_size} bytes, at most {MOST_BYTES} are read")
    variables = {name: shape for name, shape in _STATE.findall(path.read_bytes()) if b"key" in name or b"value" in name}
    shapes = set(variables.values())
    if len(shapes) != 1 or len(variables) % 2:
        listing = ", ".join(sorted(shape.decode() for shape in shapes)[:5]) or "none"
        raise ValueError(
            f"{MODEL}: {len(variables)} variables of keys and values with shapes {listing}; expected two of"
            " one shape per layer"
        )
    parts = shapes.pop().decode().replace("[", "").replace("]", "").split(",")
    if len(parts) != 4 or not parts[1].isdigit() or not parts[3].isdigit():
        raise ValueError(f"{MODEL}: keys and values of shape {','.join(parts)}, not [?,KV heads,?,head size]")
    return KvShape(len(variables) // 2, int(parts[1]), int(parts[3]))
