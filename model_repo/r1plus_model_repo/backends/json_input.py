"""JSON that a client sent, read strictly: what two readers may read differently is an error."""

import json
from typing import Any, NoReturn


def load_json(text: str) -> Any:
    """Return the value. Raise ValueError with the reason, also for a duplicate key, NaN, or nesting without end."""
    try:
        return json.loads(text, object_pairs_hook=_build_object, parse_constant=_reject_constant)
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error.msg} at character {error.pos}") from error


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        keys = [key for key, _ in pairs]
        duplicate = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"has the key {duplicate!r:.60} twice")
    return document


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"has {name}, which is no JSON number")
