"""The `metadata` of a request: pairs of strings that the answer repeats, in OpenAI's bounds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from r1plus_gateway.http.body.fields import Fields
from r1plus_gateway.http.body.json_body import Json
from r1plus_gateway.http.errors import InvalidFieldError

MOST_PAIRS: Final = 16
MOST_NAME_CHARACTERS: Final = 64
MOST_VALUE_CHARACTERS: Final = 512


@dataclass(frozen=True, slots=True)
class MetadataField:
    """Pairs of strings."""

    name: str = "metadata"
    is_required: bool = False

    def read(self, fields: Fields) -> Mapping[str, str]:
        """Return the pairs; none without the field.

        Raises:
            InvalidFieldError: there are too many, one is too long, or a value is no string.
        """
        pairs = fields.get(self.name)
        if pairs is None and self.is_required:
            raise fields.build_missing_error(self.name)
        if pairs is None:
            return {}
        if not isinstance(pairs, dict):
            raise fields.build_type_error(self.name, "an object", pairs)
        if len(pairs) > MOST_PAIRS:
            raise fields.build_value_error(self.name, f"{len(pairs)} pairs exceed {MOST_PAIRS}")
        for name, value in pairs.items():
            self._check_pair(fields, name, value)
        return pairs

    def build_schema(self) -> dict[str, Json]:
        """See `Field`."""
        return {
            "type": "object",
            "maxProperties": MOST_PAIRS,
            "propertyNames": {"maxLength": MOST_NAME_CHARACTERS},
            "additionalProperties": {"type": "string", "maxLength": MOST_VALUE_CHARACTERS},
        }

    def _check_pair(self, fields: Fields, name: str, value: Json) -> None:
        if len(name) > MOST_NAME_CHARACTERS:
            message = f"a name of {len(name)} characters exceeds {MOST_NAME_CHARACTERS}"
            raise fields.build_value_error(self.name, message)
        path = f"{fields.locate(self.name)}.{name}"
        if not isinstance(value, str):
            raise InvalidFieldError(path, "expected a string", code="invalid_type")
        if len(value) > MOST_VALUE_CHARACTERS:
            raise InvalidFieldError(path, f"{len(value)} characters exceed {MOST_VALUE_CHARACTERS}")


METADATA: Final = MetadataField()
