"""The tenant's calculator: what the gateway asks it, and what both agree on.

One request and one reply go over a Unix socket, then the calculator closes it. Each is a frame: its length in bytes
(big-endian, 4 bytes), then JSON in UTF-8, whose keys are camelCase (`jsonable`).
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

ENV_SOCKET: Final = "R1PLUS_CALCULATOR_SOCKET"
"""Path of the socket, for both sides. A gateway without it has no calculator."""
DEFAULT_SOCKET: Final = "/run/r1plus/calculator/calculator.sock"
LENGTH_BYTES: Final = 4
MOST_REQUEST_BYTES: Final = 16 * 1024
"""An expression of the longest kind, with each character escaped."""
MOST_REPLY_BYTES: Final = 64 * 1024
ANSWER_SECONDS: Final = 2.5
"""Within so long a request has a reply, or an error."""
MOST_DIGITS: Final = 50
"""Significant digits of a numeric result."""
DEFAULT_DIGITS: Final = 15
ENV_INTERPRETER: Final = "R1PLUS_CALCULATOR_INTERPRETER"
"""Path of the program `monty`, for the calculator. Without it no code is run."""
DEFAULT_INTERPRETER: Final = "/opt/r1plus/dependencies/bin/monty"
"""In the gateway's image."""
CODE_REQUEST_START: Final = b'{"code":'
"""Of every request that runs code, and of no other one: keys of requests are sorted."""
MOST_OUTPUT_BYTES: Final = 8 * 1024
"""Of what a run prints, and of its value or error."""
MOST_RUNS_AT_ONCE: Final = 2
"""Of code; further ones wait, if they can still be answered in time."""


class FailureCode(StrEnum):
    """Why there is no result. The first seven are about the expression or code, the others about the calculator."""

    SYNTAX = "syntax"
    AMBIGUOUS = "ambiguous"
    UNKNOWN_NAME = "unknown_name"
    LIMIT = "limit"
    UNDEFINED = "undefined"
    NO_RESULT = "no_result"
    DISAGREEMENT = "disagreement"
    TIME_LIMIT = "time_limit"
    MEMORY_LIMIT = "memory_limit"
    BUSY = "busy"
    INVALID_REQUEST = "invalid_request"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class CalculationRequest:
    """One expression; an empty one asks for the calculator's health."""

    expression: str
    digits: int = DEFAULT_DIGITS
    """Significant digits of the numeric result, 1 to `MOST_DIGITS`."""


@dataclass(frozen=True, slots=True)
class CodeRequest:
    """Python code to run."""

    code: str


@dataclass(frozen=True, slots=True)
class CodeRun:
    """What a run of code printed, and how it ended."""

    output: str
    """Of its standard output, then of its standard error."""
    value: str | None
    """The last expression's value, as `print` writes it; None if the code has ended with an error."""
    error: str | None
    """Traceback of the exception that nothing has caught, or of the error of its syntax."""


@dataclass(frozen=True, slots=True)
class Calculation:
    """A result."""

    expression: str
    """As the calculator has read it, with every operator written."""
    exact: str | None
    """In the grammar of expressions; None where only a number was found."""
    numeric: str | None
    """None where variables remain, or where the digits are not certain."""
    verified: bool
    """Whether a second method that shares no code with the first gave the same."""
    check: str
    """What that method did, or why there is none."""
    notes: tuple[str, ...] = ()
    """What has to be known to read the result: real solutions only, for example."""


@dataclass(frozen=True, slots=True)
class CalculationFailure:
    """Why there is no result: cause and remedy in words."""

    code: FailureCode
    message: str
    position: int | None = None
    """Characters of the expression before the one to blame."""


@dataclass(frozen=True, slots=True)
class CalculatorHealth:
    """How the calculator is."""

    is_ready: bool
    idle_workers: int
    running: int
    waiting: int
    answered: int
    """Since its start."""
    killed: int
    """Workers that overran their time, or died."""


@dataclass(frozen=True, slots=True)
class CalculatorReply:
    """Exactly one of the four."""

    calculation: Calculation | None = None
    failure: CalculationFailure | None = None
    health: CalculatorHealth | None = None
    run: CodeRun | None = None
