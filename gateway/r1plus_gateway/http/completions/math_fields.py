"""The field `math_mode`: a question that is calculated before the model answers."""

from dataclasses import dataclass
from typing import Final

from r1plus_gateway.http.body.field_tables import FlagField
from r1plus_gateway.http.body.fields import Fields
from r1plus_gateway.http.errors import NotConfiguredError, UnsupportedFieldError

MATH_MODE: Final = FlagField("math_mode")
PRESET: Final = "math"
NOT_CONFIGURED: Final = (
    "this gateway has no calculator, so nothing was calculated. Ask the platform team to set spec.gateway.calculator:"
    " true in the R1PlusTenant"
)


@dataclass(frozen=True, slots=True)
class MathQuestion:
    """A text whose quantities are to be calculated."""

    text: str
    """What the user says last."""
    is_explicit: bool
    """Whether the request says `math_mode`; else its preset does."""


def read_math(fields: Fields, preset: str, text: str, *, has_tools: bool) -> MathQuestion | None:
    """Read `math_mode`; without it the preset decides.

    Raises:
        UnsupportedFieldError: it is asked for together with tools.
    """
    is_explicit = fields.has(MATH_MODE.name)
    is_on = MATH_MODE.read(fields) if is_explicit else preset == PRESET
    if not is_on:
        return None
    if has_tools and is_explicit:
        raise UnsupportedFieldError(MATH_MODE.name, "cannot be held together with tools; send one of them")
    return None if has_tools else MathQuestion(text, is_explicit)


def build_no_calculator_error() -> NotConfiguredError:
    """Return the error of a request that asks for a calculator by name, where there is none."""
    return NotConfiguredError("calculator_not_configured", NOT_CONFIGURED, param=MATH_MODE.name)
