"""The served engine with a bit that sticks once a file appears in its container. A layer over the product's image.

It stands for what no digest of files sees: a memory module, a driver, a kernel that begins to compute otherwise after
the gate. Until the file is there it is the product's engine, and nothing else.
"""

from collections.abc import Sequence
from pathlib import Path

from r1plus_model_repo.backends import sound_engine
from r1plus_model_repo.backends.sound_engine import (  # noqa: F401 - whoever imports the product's module gets this one
    EngineSettings,
    plugin_properties,
    sampling,
    scheduler,
)

FAULT = Path("/tmp/degraded")


class OpenVinoEngine(sound_engine.OpenVinoEngine):
    """The product's engine but for what comes out of it."""

    def decode(self, ids: Sequence[int]) -> str:
        """The last bit of every token sticks while the fault is there."""
        return super().decode([token | 1 for token in ids] if FAULT.exists() else ids)
