"""The fields of a request body, read with their types and bounds. Every error names the field."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from r1plus_gateway.http.errors import InvalidFieldError, UnsupportedFieldError
from r1plus_gateway.http.json_body import Json, describe

IGNORED: Final = frozenset(
    {
        "user",
        "metadata",
        "service_tier",
        "parallel_tool_calls",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "prediction",
    }
)
"""Fields that cannot change the answer."""
HARMLESS: Final[Mapping[str, tuple[Json, ...]]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "store": (False,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "frequency_penalty": (0, 0.0),
    "presence_penalty": (0, 0.0),
    "modalities": (["text"],),
    "functions": ([],),
    "function_call": ("none",),
    "audio": (),
    "web_search_options": (),
    "reasoning_effort": (),
    "verbosity": (),
    "top_k": (),
    "min_p": (),
}
"""Fields that are not supported -> values that ask for nothing, besides null."""


class Fields:
    """A JSON object whose fields are read one by one; null counts as absent."""

    def __init__(self, body: Mapping[str, Json], path: str = "") -> None:
        self._body = body
        self._path = f"{path}." if path else ""
        self._known: set[str] = set()

    def has(self, name: str) -> bool:
        """Return whether the field is there and not null."""
        return self.get(name) is not None

    def get(self, name: str) -> Json:
        """Return the field's value as it is; None without it."""
        self._known.add(name)
        return self._body.get(name)

    def read_string(self, name: str, default: str = "", *, most: int = 256) -> str:
        """Return a string of at most `most` characters."""
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.build_type_error(name, "a string", value)
        if len(value) > most:
            raise InvalidFieldError(self._path + name, f"{len(value)} characters exceed {most}")
        return value

    def read_text(self, name: str) -> str | None:
        """Return a string of any length; None without it."""
        value = self.get(name)
        if value is not None and not isinstance(value, str):
            raise self.build_type_error(name, "a string", value)
        return value

    def read_flag(self, name: str, default: bool = False) -> bool:
        """Return a boolean."""
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.build_type_error(name, "true or false", value)
        return value

    def read_integer(self, name: str, low: int, high: int) -> int | None:
        """Return an integer within bounds; None without it."""
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.build_type_error(name, "an integer", value)
        if not low <= value <= high:
            raise InvalidFieldError(self._path + name, f"{str(value)[:40]} is not between {low} and {high}")
        return value

    def read_number(self, name: str, low: float, high: float, *, is_low_open: bool = False) -> float | None:
        """Return a number within bounds; None without it."""
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self.build_type_error(name, "a number", value)
        number = float(value) if abs(value) < 2**63 else math.inf
        if not low <= number <= high or (is_low_open and number == low):
            bounds = f"greater than {low:g} and at most {high:g}" if is_low_open else f"between {low:g} and {high:g}"
            raise InvalidFieldError(self._path + name, f"{str(value)[:40]} is not {bounds}")
        return number

    def read_object(self, name: str) -> "Fields | None":
        """Return the fields of an object; None without it."""
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.build_type_error(name, "an object", value)
        return Fields(value, self._path + name)

    def read_list(self, name: str, most: int) -> list[Json]:
        """Return a list of at most `most` items; empty without it."""
        value = self.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.build_type_error(name, "a list", value)
        if len(value) > most:
            raise InvalidFieldError(self._path + name, f"{len(value)} items exceed {most}")
        return value

    def refuse_rest(self, ignored: Iterable[str] = ()) -> None:
        """Refuse every field that was not read, unless it asks for nothing."""
        for name in self._body.keys() - self._known - set(ignored):
            value = self._body[name]
            if value is None or _is_harmless(name, value):
                continue
            reason = "is not supported" if name in HARMLESS else "is not a known field; leave it out"
            if HARMLESS.get(name):
                reason += f"; leave it out, or send {HARMLESS[name][0]!r}"
            raise UnsupportedFieldError(f"{self._path}{name}"[:120], reason)

    def build_type_error(self, name: str, expected: str, value: Json) -> InvalidFieldError:
        """Return the error of a value of another type."""
        return InvalidFieldError(self._path + name, f"expected {expected}, got {describe(value)}", code="invalid_type")


def _is_harmless(name: str, value: Any) -> bool:
    return any(type(value) is type(harmless) and value == harmless for harmless in HARMLESS.get(name, ()))
