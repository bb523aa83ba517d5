"""The calculator that all requests of a gateway share, with a bound on how much of it one caller has at once."""

import asyncio
import contextlib
from contextlib import AbstractContextManager
from typing import Final

from r1plus_assistant.calculation.client import Calculator, SocketCalculator
from r1plus_contract.calculator import MOST_RUNS_AT_ONCE, CalculatorReply
from r1plus_gateway.access.turns import Places, Turns

MOST_AT_ONCE: Final = 4
"""Calculations and programs of one caller: the calculator runs few at once, and all callers share it."""
TURN_SECONDS: Final = 30.0
"""For which a program waits for others."""
MOST_PROGRAMS_AT_ONCE: Final = 1
"""Of one caller: it holds one place of the calculator, or one in the line before it."""


class CallerBusyError(Exception):
    """A caller has as many calculations as it may have at once."""


class CalculatorDesk:
    """A calculator, or none."""

    def __init__(self, calculator: Calculator | None) -> None:
        self._calculator = calculator
        self.start_seconds = calculator.start_seconds if isinstance(calculator, SocketCalculator) else 0.0
        """What a calculation may take beyond its own time, where the first one starts the calculator."""
        self._places = Places()
        self._turns = Turns()
        self._programs = asyncio.Semaphore(MOST_RUNS_AT_ONCE)

    @property
    def is_configured(self) -> bool:
        """Whether there is a calculator."""
        return self._calculator is not None

    @property
    def runs_code(self) -> bool:
        """Whether there is a calculator that runs code."""
        return self._calculator is not None and self._calculator.runs_code

    def take_place(self, group: str) -> AbstractContextManager[None]:
        """Hold one of a caller's places for a block.

        Raises:
            CallerBusyError: all are taken.
        """
        return self._places.take(group, MOST_AT_ONCE, _refuse_place)

    async def calculate(self, expression: str, digits: int) -> CalculatorReply:
        """Return the result of an expression, for a caller that has a place.

        Raises:
            CalculatorUnavailableError: there is no answer.
        """
        assert self._calculator is not None
        return await self._calculator.calculate(expression, digits)

    async def run_code(self, code: str, group: str) -> CalculatorReply:
        """Run a program of a caller, which takes one of its places. Callers take turns.

        Raises:
            CallerBusyError: its turn does not come, or all its places are taken.
            CalculatorUnavailableError: there is no answer.
        """
        assert self._calculator is not None
        async with contextlib.AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(TURN_SECONDS + self.start_seconds):
                    await stack.enter_async_context(self._turns.wait(group, MOST_PROGRAMS_AT_ONCE))
                    await stack.enter_async_context(self._programs)
            except TimeoutError as error:
                message = "other programs have not ended in time; send this one when they have ended"
                raise CallerBusyError(message) from error
            stack.enter_context(self.take_place(group))
            return await self._calculator.run_code(code)


def _refuse_place() -> CallerBusyError:
    return CallerBusyError(
        f"{MOST_AT_ONCE} of your calculations and programs run already; send this one when they have ended"
    )
