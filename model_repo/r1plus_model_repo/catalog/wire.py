"""The base of the API's pydantic models, which accept exactly what the API server does (`make test-long NAME=fuzz-cr`).

No lax conversions, null means absent, numbers as kube-apiserver reads them, and CEL rules with equivalent Python
validators. Patterns are read by RE2 there and by Rust's regex here; for both, `$` is the very end.
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


class _WholeNumber:
    """On an integer: accept what kube-apiserver accepts for `type: integer`, neither strings nor booleans.

    64 bits, or a float that is whole up to a part in 10^9 (4.0; helm writes 1e+06), as in go-openapi. The limits apply
    to the float itself, so one a little above the maximum is rounded up, beyond it.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        integer = handler(source)
        maximum = integer.get("le", _INT64_MAX)

        def read(value: object) -> int:
            if isinstance(value, float) and _is_nearly_whole(value):
                return math.ceil(value) if value > maximum else math.floor(value)
            if not isinstance(value, int) or isinstance(value, bool) or abs(value) > _INT64_MAX:
                raise ValueError("Input should be a valid integer")
            return value

        return no_info_before_validator_function(read, integer)


def _is_nearly_whole(value: float) -> bool:
    if not abs(value) <= _JSON_FLOAT_MAX:
        return False
    whole = int(value)
    return value == whole or (whole != 0 and abs(value - whole) / abs(value + whole) < 1e-9)


def drop_nulls(value: object) -> object:
    """Return a map without nulls, as the API server stores it."""
    return {k: v for k, v in value.items() if v is not None} if isinstance(value, Mapping) else value


WHOLE = _WholeNumber()
JsonInteger = Annotated[int, Field(strict=True)]
"""An integer that a CEL rule reads: CEL does not accept 4.0. For other integers use `WHOLE`.

The rule must read it whatever else is set: `||` and `&&` forgive an error of one side where the other decides.
"""
Number = Annotated[float, Field(strict=True)]
"""A number; neither a string nor a boolean."""


class ApiModel(BaseModel):
    """A frozen model: camelCase on the wire, unknown fields are rejected.

    A null counts as absent: the API server drops it and uses the default, if there is one.
    """

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        aliases = {field.alias for field in cls.model_fields.values()}
        return {key: value for key, value in value.items() if value is not None or key not in aliases}


@dataclass(frozen=True, slots=True)
class Rule:
    """A CEL rule of the API server; a validator of the model checks the same in Python.

    `telling` is a CEL expression for the message, with the values in it. It may only use bounded strings: the cost
    estimate has no bound for a number as text (measured, 1.34).
    """

    rule: str
    message: str
    telling: str = ""

    def as_json(self) -> dict[str, str]:
        """Return the rule as an item of `x-kubernetes-validations`."""
        expression = {"messageExpression": self.telling} if self.telling else {}
        return {"rule": self.rule, "message": self.message, **expression}


def build_rules_config(*rules: Rule) -> ConfigDict:
    """Return the `model_config` of a model with these rules."""
    rule_objects: list[JsonValue] = [dict(rule.as_json()) for rule in rules]
    return ConfigDict(json_schema_extra={"x-kubernetes-validations": rule_objects})
