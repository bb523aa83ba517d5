"""The calculator that all requests of a gateway share, with a bound on how much of it one caller has at once."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from r1plus_contract.calculator import CalculatorReply
from r1plus_gateway.calculation.client import Calculator, SocketCalculator

MOST_AT_ONCE: Final = 4
"""Calculations and programs of one caller: the calculator runs few at once, and all callers share it."""


class CallerBusyError(Exception):
    """A caller has as many calculations as it may have at once."""


class CalculatorDesk:
    """A calculator, or none."""

    def __init__(self, calculator: Calculator | None) -> None:
        self._calculator = calculator
        self.start_seconds = calculator.start_seconds if isinstance(calculator, SocketCalculator) else 0.0
        """What a calculation may take beyond its own time, where the first one starts the calculator."""
        self._running: Counter[str] = Counter()

    @property
    def is_configured(self) -> bool:
        """Whether there is a calculator."""
        return self._calculator is not None

    @property
    def runs_code(self) -> bool:
        """Whether there is a calculator that runs code."""
        return self._calculator is not None and self._calculator.runs_code

    @contextmanager
    def take_place(self, group: str) -> Iterator[None]:
        """Hold one of a caller's places for the block.

        Raises:
            CallerBusyError: all are taken.
        """
        if self._running[group] >= MOST_AT_ONCE:
            raise CallerBusyError(
                f"{MOST_AT_ONCE} of your calculations and programs run already; send this one when they have ended"
            )
        self._running[group] += 1
        try:
            yield
        finally:
            self._running[group] -= 1
            if not self._running[group]:
                del self._running[group]

    async def calculate(self, expression: str, digits: int) -> CalculatorReply:
        """Return the result of an expression, for a caller that has a place.

        Raises:
            CalculatorUnavailableError: there is no answer.
        """
        assert self._calculator is not None
        return await self._calculator.calculate(expression, digits)

    async def run_code(self, code: str) -> CalculatorReply:
        """Run a program, for a caller that has a place.

        Raises:
            CalculatorUnavailableError: there is no answer.
        """
        assert self._calculator is not None
        return await self._calculator.run_code(code)
