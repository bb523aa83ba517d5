"""The field `math_mode`, and what a request asks to be calculated."""

from dataclasses import dataclass
from typing import Final

from r1plus_gateway.assistant.calculation.math_plan import MathPlan
from r1plus_gateway.http.body.field_tables import FlagField
from r1plus_gateway.http.body.fields import Fields
from r1plus_gateway.http.errors import UnsupportedFieldError

MATH_MODE: Final = FlagField("math_mode")
PRESET: Final = "math"
NO_PLAN: Final = MathPlan()


@dataclass(frozen=True, slots=True)
class MathQuestion:
    """What is to be calculated."""

    text: str
    """What the user says last."""
    is_explicit: bool
    """Whether the request says `math_mode`; else its preset does."""
    plan: MathPlan = NO_PLAN
    translation_tokens: int = 0
    """At most so many for a translation: prompt and answer."""


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
