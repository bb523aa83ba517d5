"""Tokens of a text, estimated: the engine's count of the whole prompt corrects what was packed by them."""

import re
from typing import Final

TEMPLATE_TOKENS: Final = 256
"""At most so many tokens of a chat template, where the engine cannot count: a few for each message."""
_DIGIT: Final = re.compile(r"[0-9]")


class EstimatedTokens:
    """Estimates tokens by the bytes of a text; the engine's count of the whole prompt corrects it."""

    def count(self, text: str) -> int:
        """Return about four bytes a token, of digits and other scripts one and two."""
        others = len(text.encode("utf-8", "replace")) - len(text)
        digits = len(_DIGIT.findall(text))
        return (len(text) - digits + 3) // 4 + digits + (others + 1) // 2
