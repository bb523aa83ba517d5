"""The client of the calculator's socket: one connection per expression, a deadline, and errors that say what to do."""

import re
from typing import Final, Protocol

from r1plus_contract.calculator import (
    ANSWER_SECONDS,
    MOST_REPLY_BYTES,
    Calculation,
    CalculationRequest,
    CalculatorReply,
)
from r1plus_contract.jsonable import ContractError, dumps, loads
from r1plus_gateway.helper_socket import HelperUnavailableError, exchange_frames

GRACE_SECONDS: Final = 0.5
"""Beyond the time in which a calculator answers."""
MOST_REPLY_VALUES: Final = 256
_PLAIN: Final = re.compile(r"[ -;=?-~]*")
"""Printable ASCII in one line, without angle brackets: a result enters prompts, and no mark of a template is one."""


class CalculatorUnavailableError(Exception):
    """The calculator is away, or does not answer as it should; the message says what to do."""


class Calculator(Protocol):
    """What computes expressions."""

    async def calculate(self, expression: str, digits: int) -> CalculatorReply:
        """Return the result of an expression, or why it has none.

        Raises:
            CalculatorUnavailableError: there is no answer.
        """


class SocketCalculator:
    """A calculator at a Unix socket."""

    def __init__(
        self, path: str, answer_seconds: float = ANSWER_SECONDS + GRACE_SECONDS, start_seconds: float = 0.0
    ) -> None:
        """`start_seconds`: what its process may need to start, where a request starts it."""
        self._path = path
        self.start_seconds = start_seconds
        self._answer_seconds = answer_seconds + start_seconds

    async def calculate(self, expression: str, digits: int) -> CalculatorReply:
        """See `Calculator`."""
        request = dumps(CalculationRequest(expression, digits)).encode()
        try:
            reply = await exchange_frames(self._path, "calculator", request, MOST_REPLY_BYTES, self._answer_seconds)
            read = loads(CalculatorReply, reply, tolerant=True, most_values=MOST_REPLY_VALUES)
            if read.calculation is not None:
                _check(read.calculation)
            return read
        except HelperUnavailableError as error:
            raise CalculatorUnavailableError(str(error)) from error
        except ContractError as error:
            message = "the calculator's answer is not understood; ask the platform team to look at its release"
            raise CalculatorUnavailableError(message) from error


def _check(calculation: Calculation) -> None:
    """Refuse what no calculator writes. Raises ContractError."""
    for name in ("expression", "exact", "numeric"):
        text = getattr(calculation, name)
        if text is not None and not _PLAIN.fullmatch(text):
            raise ContractError(f"{name}: characters that no expression has")
