"""Tokens as the served model counts them: the tokenizer of the demo's smallest engine, without a server."""

from functools import lru_cache

from openvino_genai import Tokenizer

from devcluster.cache import cache_dir
from r1plus_model_repo.importing.smollm2 import build_engines

ENGINE = "smollm2-edge-q4-1"


class EngineTokens:
    """Counts by the engine's own tokenizer; see `r1plus_assistant.memory.packing.TokenCounter`."""

    def __init__(self) -> None:
        tokenizer = Tokenizer(build_engines(cache_dir() / "engines", print)[ENGINE].folder)

        @lru_cache(65_536)
        def count(text: str) -> int:
            return int(tokenizer.encode(text, add_special_tokens=False).input_ids.get_size())

        self._count = count

    def count(self, text: str) -> int:
        """Return the tokens of a text."""
        return self._count(text) if text else 0
