"""What `math_mode` does about a question: which of three ways leads to an expression. Pure."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from r1plus_assistant.calculation.conversions import Conversion, ConversionRefusal, find_conversion
from r1plus_assistant.calculation.expressions import find_expressions
from r1plus_assistant.calculation.translation import TranslationError, TranslationTask, read_task
from r1plus_assistant.calculation.units import NUMBER, Unit

MOST_LINE_BYTES: Final = 160
"""Of one result in the prompt."""
NOTE_BYTES: Final = 64
"""Of what is around them."""


class ExpressionRoute(StrEnum):
    """Where an expression comes from."""

    TEXT = "text"
    """The text has it."""
    UNITS = "units"
    """Rules for questions that ask for another unit."""
    TRANSLATION = "translation"
    """The model has written it; nothing verifies that it is what was asked."""


@dataclass(frozen=True, slots=True)
class PlannedExpression:
    """An expression to calculate."""

    expression: str
    route: ExpressionRoute
    unit: Unit = NUMBER


@dataclass(frozen=True, slots=True)
class Skip:
    """Why nothing is calculated, and what to do."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class MathPlan:
    """Expressions, or a question to translate, or why there is neither."""

    expressions: tuple[PlannedExpression, ...] = ()
    task: TranslationTask | None = None
    skip: Skip | None = None

    @property
    def note_bytes(self) -> int:
        """At most so many bytes are added to the prompt."""
        count = len(self.expressions) + (self.task is not None)
        return NOTE_BYTES + MOST_LINE_BYTES * count if count else 0


def plan_math(question: str, *, can_translate: bool) -> MathPlan:
    """Plan what is calculated of a question; `can_translate`: whether the engine takes grammars."""
    if found := find_expressions(question):
        return MathPlan(tuple(PlannedExpression(one.expression, ExpressionRoute.TEXT) for one in found))
    match find_conversion(question):
        case ConversionRefusal(message, code):
            return MathPlan(skip=Skip(code, f"nothing was calculated: {message}"))
        case Conversion(expression, unit):
            return MathPlan((PlannedExpression(expression, ExpressionRoute.UNITS, unit),))
    try:
        task = read_task(question)
    except TranslationError as error:
        return MathPlan(skip=Skip(error.code, f"nothing was calculated: {error}"))
    if not can_translate:
        message = "nothing was calculated: the text has no expression, and this model's engine takes no grammar"
        return MathPlan(skip=Skip("not_translatable", f"{message}; write the expression"))
    return MathPlan(task=task)
