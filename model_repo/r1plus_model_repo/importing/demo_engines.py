"""Names of the engines that can be made anywhere, without the libraries that they are made with."""

from typing import Final

DEMO_ENGINES: Final = ("smollm2-full-f16", "smollm2-lite-q8-0", "smollm2-edge-q4-1", "smollm2-full-q4-1")
"""What `smollm2` makes."""
DEMO_EMBEDDING_ENGINE: Final = "all-minilm-l6-v2"
"""What `embedding.minilm` makes."""
