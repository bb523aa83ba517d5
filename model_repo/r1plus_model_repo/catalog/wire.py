"""What the API's pydantic models share, so that they judge an object exactly as the API server does (`make fuzz-cr`).

No lax conversions, null as absence, numbers as kube-apiserver reads them, and CEL rules beside the validators that say
the same in Python. Patterns are read by RE2 there and by Rust's regex here, to both of which `$` is the very end.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, JsonValue, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_before_validator_function

DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DNS_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
LABEL_VALUE = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
_INT64_MAX, _JSON_FLOAT_MAX = 2**63 - 1, 2**53 - 1


class _Whole:
    """On an integer: what kube-apiserver takes for `type: integer`, which is neither a word nor a boolean.

    64 bits, or a float that is whole but for a part in 10^9 (4.0; helm writes 1e+06): go-openapi's measure. The limits
    hold for the float itself, so that one a little above the largest is rounded up, beyond it.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        integer = handler(source)
        most = integer.get("le", _INT64_MAX)

        def read(value: object) -> int:
            if isinstance(value, float) and _nearly_whole(value):
                return math.ceil(value) if value > most else math.floor(value)
            if not isinstance(value, int) or isinstance(value, bool) or abs(value) > _INT64_MAX:
                raise ValueError("Input should be a valid integer")
            return value

        return no_info_before_validator_function(read, integer)


def _nearly_whole(value: float) -> bool:
    if not abs(value) <= _JSON_FLOAT_MAX:
        return False
    whole = int(value)
    return value == whole or (whole != 0 and abs(value - whole) / abs(value + whole) < 1e-9)


def without_nulls(value: object) -> object:
    """A map as the API server keeps it."""
    return {k: v for k, v in value.items() if v is not None} if isinstance(value, Mapping) else value


WHOLE = _Whole()
JsonInteger = Annotated[int, Field(strict=True)]
"""An integer that a CEL rule reads: to CEL 4.0 is none. Elsewhere `WHOLE` is what counts."""
Number = Annotated[float, Field(strict=True)]
"""A number, neither a word nor a boolean."""


class ApiModel(BaseModel):
    """camelCase on the wire and nothing else, unknown fields refused, never changed after reading.

    A null is no value: the API server drops it, and fills in the default where there is one.
    """

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absence(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        known = {field.alias for field in cls.model_fields.values()}
        return {key: value for key, value in given.items() if value is not None or key not in known}


@dataclass(frozen=True, slots=True)
class Rule:
    """A CEL rule as the API server checks it; a validator of the model says the same in Python.

    `telling` is a CEL expression for the message, with the values in it; of bounded strings only, since to the cost
    estimate a number in words has no bound (measured, 1.34).
    """

    rule: str
    message: str
    telling: str = ""

    def as_json(self) -> dict[str, str]:
        """As `x-kubernetes-validations` lists it."""
        told = {"messageExpression": self.telling} if self.telling else {}
        return {"rule": self.rule, "message": self.message, **told}


def ruled(*rules: Rule) -> ConfigDict:
    """The `model_config` of a model that the API server holds to `rules`."""
    listed: list[JsonValue] = [dict(rule.as_json()) for rule in rules]
    return ConfigDict(json_schema_extra={"x-kubernetes-validations": listed})
