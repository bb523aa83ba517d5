"""Whether a text has a value: as it was said, and not as a part of another word or number."""

import re
from functools import lru_cache


def has_value(text: str, value: str) -> bool:
    """Return whether the value is in the text."""
    return _compile(value).search(text) is not None


@lru_cache(4096)
def _compile(value: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w)(?<!\d[.,:]){re.escape(value)}(?!\w|[.,:]\d)", re.IGNORECASE)
