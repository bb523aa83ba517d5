"""Names of the engines that `smollm2` makes, without the libraries that it makes them with."""

from typing import Final

DEMO_ENGINES: Final = ("smollm2-full-f16", "smollm2-lite-q8-0", "smollm2-edge-q4-1", "smollm2-full-q4-1")
