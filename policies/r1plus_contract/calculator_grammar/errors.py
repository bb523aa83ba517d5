"""Errors of an expression. Each says what is wrong, why, and what to write instead.

CalculatorError
 ├── ExpressionSyntaxError   the text does not follow the grammar
 ├── AmbiguousError          it can be read in two ways, and the calculator does not guess
 ├── UnknownNameError        a function that does not exist, or a wrong number of arguments
 ├── LimitExceededError      larger than the calculator takes
 ├── UndefinedError          it has no value: a division by zero, a limit that does not exist
 ├── NoResultError           it has a value that the calculator cannot find or write
 └── DisagreementError       the result failed its check, so it is withheld
"""

from typing import ClassVar


class CalculatorError(Exception):
    """An expression without a result. `position` counts characters from 0; None where no place is to blame."""

    code: ClassVar[str] = "failed"

    def __init__(self, message: str, position: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.position = position


class ExpressionSyntaxError(CalculatorError):
    """The text does not follow the grammar."""

    code = "syntax"


class AmbiguousError(CalculatorError):
    """The text can be read in two ways."""

    code = "ambiguous"


class UnknownNameError(CalculatorError):
    """A function that does not exist, or a wrong number of arguments."""

    code = "unknown_name"


class LimitExceededError(CalculatorError):
    """The expression, a number in it, or its result is too large."""

    code = "limit"


class UndefinedError(CalculatorError):
    """The expression has no value."""

    code = "undefined"


class NoResultError(CalculatorError):
    """The calculator finds no result, or cannot write it."""

    code = "no_result"


class DisagreementError(CalculatorError):
    """The result failed its check."""

    code = "disagreement"
