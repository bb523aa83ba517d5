"""How much KV cache one token takes, read from the model's own files: what a catalog entry claims is checked by it.

Called by the init container `verify` and by `r1plus engine import`. Standard library only.
"""

import re
from dataclasses import dataclass
from pathlib import Path

MODEL = "openvino_model.xml"
MOST_BYTES = 256 * 2**20
"""Of a model's description; the largest published ones have 30 MiB."""
_STATE = re.compile(
    rb'<layer [^>]*type="ReadValue"[^>]*>\s*<data variable_id="([^"]{1,512})"'
    rb'[^>]*variable_shape="([-0-9?,.\[\] ]{1,64})"'
)
_KV_BYTES = 2
"""Per element: the cache is kept in 16 bits."""


@dataclass(frozen=True, slots=True)
class KvShape:
    """Layers, key/value heads per layer, elements per head."""

    layers: int
    kv_heads: int
    head_size: int

    @property
    def bytes_per_token(self) -> int:
        """Key and value of one token in every layer, in 16 bits."""
        return 2 * self.layers * self.kv_heads * self.head_size * _KV_BYTES


def kv_shape(folder: Path) -> KvShape:
    """The shape of the OpenVINO model in `folder`; ValueError says what of it cannot be read.

    A stateful model keeps keys and values of each layer in two variables of shape [batch, KV heads, tokens, head size].
    """
    path = folder / MODEL
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{MODEL}: {path.stat().st_size} bytes, at most {MOST_BYTES} are read")
    found = {name: shape for name, shape in _STATE.findall(path.read_bytes()) if b"key" in name or b"value" in name}
    shapes = set(found.values())
    if len(shapes) != 1 or len(found) % 2:
        told = ", ".join(sorted(shape.decode() for shape in shapes)[:5]) or "none"
        raise ValueError(f"{MODEL}: {len(found)} variables of keys and values with shapes {told}; two alike per layer")
    parts = shapes.pop().decode().replace("[", "").replace("]", "").split(",")
    if len(parts) != 4 or not parts[1].isdigit() or not parts[3].isdigit():
        raise ValueError(f"{MODEL}: keys and values of shape {','.join(parts)}, not [?,KV heads,?,head size]")
    return KvShape(len(found) // 2, int(parts[1]), int(parts[3]))
