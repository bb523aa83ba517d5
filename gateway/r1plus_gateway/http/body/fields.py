"""The fields of a request body, read with their types and bounds. Every error names the field."""

import math
from collections.abc import Mapping, Set
from typing import Any

import orjson

from r1plus_gateway.http.body.json_body import Json, describe
from r1plus_gateway.http.errors import InvalidFieldError, UnsupportedFieldError


class Fields:
    """A JSON object whose fields are read one by one; null counts as absent."""

    def __init__(self, body: Mapping[str, Json], path: str = "") -> None:
        self._body = body
        self._path = f"{path}." if path else ""

    def change(self, values: Mapping[str, Json]) -> "Fields":
        """Return the fields with other values; None: without the field."""
        changed = Fields({**self._body, **values})
        changed._path = self._path
        return changed

    def locate(self, name: str) -> str:
        """Return the path of a field from the body, for errors."""
        return self._path + name

    def names(self, name: str) -> bool:
        """Return whether the field is there, also as null: where a change tells that from absence."""
        return name in self._body

    def has(self, name: str) -> bool:
        """Return whether the field is there and not null."""
        return self.get(name) is not None

    def get(self, name: str) -> Json:
        """Return the field's value as it is; None without it."""
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
        is_rounded = isinstance(value, float) and abs(value) >= 2**63
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # JSON has one kind of number: some programs write 16.0
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.build_type_error(name, "an integer", value)
        if is_rounded or not low <= value <= high:
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

    def list_present(self, names: Set[str]) -> list[str]:
        """Return the places of those of these fields that are there and not null."""
        return [self._path + name for name in sorted(names & self._body.keys()) if self.has(name)]

    def refuse_rest(
        self, known: Set[str], unsupported: Mapping[str, tuple[Json, ...]], reasons: Mapping[str, str] | None = None
    ) -> None:
        """Refuse every field that is not known.

        `unsupported`: those that are, with these values, as good as absent; `reasons`: why some of them are refused.
        """
        for name in sorted(self._body.keys() - known):
            value, harmless = self._body[name], unsupported.get(name, ())
            if value is None or any(_is_same(value, one) for one in harmless):
                continue
            reason = "is not supported" if name in unsupported else "is not a known field; leave it out"
            reason = (reasons or {}).get(name, reason)
            if harmless:
                reason += f"; leave it out, or send {orjson.dumps(harmless[0]).decode()}"
            raise UnsupportedFieldError(f"{self._path}{name}"[:120], reason)

    def build_missing_error(self, name: str) -> InvalidFieldError:
        """Return the error of a field that is missing or empty."""
        return InvalidFieldError(self._path + name, "is missing or empty", code="missing_required_parameter")

    def build_value_error(self, name: str, message: str) -> InvalidFieldError:
        """Return the error of a value that is not allowed."""
        return InvalidFieldError(self._path + name, message)

    def build_type_error(self, name: str, expected: str, value: Json) -> InvalidFieldError:
        """Return the error of a value of another type."""
        return InvalidFieldError(self._path + name, f"expected {expected}, got {describe(value)}", code="invalid_type")


def _is_same(value: Any, other: Any) -> bool:
    """Compare as JSON does: true is not 1."""
    return isinstance(value, bool) == isinstance(other, bool) and bool(value == other)
