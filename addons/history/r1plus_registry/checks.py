"""Checks that facts fit the database and its indexes, before anything is written.

The sender is the operator, but much of the content comes from a tenant's pod: a faulty pod must only spoil its own
facts. Called by the service with what `r1plus_contract.jsonable` has read.
"""

import dataclasses
import math
from typing import Any, Final

from r1plus_contract.history import Facts
from r1plus_registry.errors import DocumentError

MOST_FACTS: Final = 5000
"""Limit per delivery."""
MOST_KEY_BYTES: Final = 253
"""Limit for a text in a natural key: PostgreSQL indexes 2,700 bytes in total."""
MOST_TEXT_BYTES: Final = 4096
"""Limit for any other text."""
MOST_INTEGER: Final = 2**63 - 1
_KEYS: Final = {
    "uid", "namespace", "name", "spec_digest", "sha256", "id", "deployment", "revision", "suite_hash",
    "scorer_version", "lost_items", "control", "acknowledged", "decided_at", "source", "reason", "since", "image",
    "inherited_from",
}  # fmt: skip
_LONG_KEYS: Final = {"image": 512}


def check_facts(facts: Facts) -> Facts:
    """Return the facts with NULs replaced, which PostgreSQL cannot store in texts.

    Raises:
        DocumentError: a fact cannot be recorded; the message has its path.
    """
    count = sum(len(getattr(facts, field.name) or ()) for field in dataclasses.fields(facts) if field.name != "live")
    if count > MOST_FACTS:
        raise DocumentError(f"Facts: {count} facts, at most {MOST_FACTS} in one delivery")
    clean_facts: Facts = _clean_value(facts, "facts", "")
    return clean_facts


def _clean_value(value: Any, path: str, name: str) -> Any:
    if isinstance(value, str):
        return _clean_text(value, path, name)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise DocumentError(f"{path}: {value} is not a finite number")
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value <= MOST_INTEGER:
            raise DocumentError(f"{path}: {value:.3g} is not between 0 and 2^63 - 1")
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return dataclasses.replace(value, **{n: _clean_value(getattr(value, n), f"{path}.{n}", n) for n in names})
    if isinstance(value, tuple | list):
        return type(value)(_clean_value(one, f"{path}[{number}]", name) for number, one in enumerate(value))
    if isinstance(value, dict):
        return {_clean_text(key, path, ""): _clean_value(one, f"{path}.{key}", "") for key, one in value.items()}
    return value


def _clean_text(text: str, path: str, name: str) -> str:
    limit = _LONG_KEYS.get(name, MOST_KEY_BYTES) if name in _KEYS else MOST_TEXT_BYTES
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise DocumentError(f"{path}: has half a character (a lone surrogate)") from error
    # Enums are texts too and keep their type.
    if (size := len(data)) > limit:
        raise DocumentError(f"{path}: {size} bytes, at most {limit} are recorded")
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}") if "\0" in text else text
