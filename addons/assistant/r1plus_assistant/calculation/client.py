"""The client of the calculator's socket: one connection per expression, a deadline, and errors that say what to do."""

import re
from typing import Final, Protocol

from r1plus_assistant.helper_socket import HelperUnavailableError, exchange_frames
from r1plus_contract.calculator import (
    ANSWER_SECONDS,
    MOST_OUTPUT_BYTES,
    MOST_REPLY_BYTES,
    Calculation,
    CalculationRequest,
    CalculatorReply,
    CodeRequest,
    CodeRun,
)
from r1plus_contract.jsonable import ContractError, dumps, loads

GRACE_SECONDS: Final = 0.5
"""Beyond the time in which a calculator answers."""
MOST_REPLY_VALUES: Final = 256
_PLAIN: Final = re.compile(r"[ -;=?-~]*")
"""Printable ASCII in one line, without angle brackets: a result enters prompts, and no mark of a template is one."""


class CalculatorUnavailableError(Exception):
    """The calculator is away, or does not answer as it should; the message says what to do."""


class Calculator(Protocol):
    """What computes expressions, and runs code."""

    @property
    def runs_code(self) -> bool:
        """Whether it runs code."""

    async def calculate(self, expression: str, digits: int) -> CalculatorReply:
        """Return the result of an expression, or why it has none.

        Raises:
            CalculatorUnavailableError: there is no answer.
        """

    async def run_code(self, code: str) -> CalculatorReply:
        """Return what a program prints and gives, or why it was not run to its end.

        Raises:
            CalculatorUnavailableError: there is no answer.
        """


class SocketCalculator:
    """A calculator at a Unix socket."""

    def __init__(
        self,
        path: str,
        answer_seconds: float = ANSWER_SECONDS + GRACE_SECONDS,
        start_seconds: float = 0.0,
        *,
        runs_code: bool = False,
    ) -> None:
        """`start_seconds`: what its process may need to start, where a request starts it."""
        self._path = path
        self.runs_code = runs_code
        self.start_seconds = start_seconds
        self._answer_seconds = answer_seconds + start_seconds

    async def calculate(self, expression: str, digits: int) -> CalculatorReply:
        """See `Calculator`."""
        return await self._ask(dumps(CalculationRequest(expression, digits)).encode())

    async def run_code(self, code: str) -> CalculatorReply:
        """See `Calculator`. The program is stopped if this is cancelled."""
        return await self._ask(dumps(CodeRequest(code)).encode())

    async def _ask(self, request: bytes) -> CalculatorReply:
        try:
            reply = await exchange_frames(self._path, "calculator", request, MOST_REPLY_BYTES, self._answer_seconds)
            read = loads(CalculatorReply, reply, tolerant=True, most_values=MOST_REPLY_VALUES)
            if read.calculation is not None:
                _check(read.calculation)
            if read.run is not None:
                _check_run(read.run)
            return read
        except HelperUnavailableError as error:
            raise CalculatorUnavailableError(str(error)) from error
        except ContractError as error:
            message = "the calculator's answer is not understood; ask the platform team to look at its release"
            raise CalculatorUnavailableError(message) from error


def _check_run(run: CodeRun) -> None:
    """Refuse more text than a calculator sends. Raises ContractError."""
    for name, most in (("output", 2 * MOST_OUTPUT_BYTES), ("value", MOST_OUTPUT_BYTES), ("error", MOST_OUTPUT_BYTES)):
        if len((getattr(run, name) or "").encode()) > most:
            raise ContractError(f"{name}: more than {most} bytes")


def _check(calculation: Calculation) -> None:
    """Refuse what no calculator writes. Raises ContractError."""
    for name in ("expression", "exact", "numeric"):
        text = getattr(calculation, name)
        if text is not None and not _PLAIN.fullmatch(text):
            raise ContractError(f"{name}: characters that no expression has")
