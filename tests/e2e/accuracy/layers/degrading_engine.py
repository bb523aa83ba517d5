"""The served engine with a bit that sticks once a file appears in its container. A layer over the product's image.

It stands for what no digest of files sees: a memory module, a driver, a kernel that begins to compute otherwise after
the gate. Until the file is there it is the product's engine, and nothing else.
"""

from collections.abc import Sequence
from pathlib import Path

from r1plus_model_repo.backends.openvino.sound_engine import EngineSettings
from r1plus_model_repo.backends.openvino.sound_engine import OpenVinoEngine as SoundEngine

__all__ = ["EngineSettings", "OpenVinoEngine"]

FAULT = Path("/tmp/degraded")


class OpenVinoEngine(SoundEngine):
    """The product's engine but for what comes out of it."""

    def decode(self, ids: Sequence[int]) -> str:
        """The last bit of every token sticks while the fault is there."""
        return super().decode([token | 1 for token in ids] if FAULT.exists() else ids)
