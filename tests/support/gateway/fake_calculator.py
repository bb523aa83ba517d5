"""A calculator in memory."""

import asyncio

from r1plus_contract.calculator import Calculation, CalculationFailure, CalculatorReply, CodeRun, FailureCode


class FakeCalculator:
    """Answers every expression by `result`, unless it is told otherwise."""

    def __init__(self, *, runs_code: bool = True) -> None:
        self.result = "42"
        self.runs_code = runs_code
        self.run = CodeRun("42\n", "None", None)
        """What every program prints and gives."""
        self.programs: list[str] = []
        self.asked: list[tuple[str, int]] = []
        self.failure: CalculationFailure | None = None
        self.is_verified = True
        self.trouble: Exception | None = None
        self.gate: asyncio.Event | None = None
        """Answers wait for it."""

    def fail(self, code: FailureCode, message: str = "it cannot") -> None:
        """Answer with a failure from now on."""
        self.failure = CalculationFailure(code, message)

    async def run_code(self, code: str) -> CalculatorReply:
        """See `Calculator`."""
        self.programs.append(code)
        if self.gate is not None:
            await self.gate.wait()
        if self.trouble is not None:
            raise self.trouble
        return CalculatorReply(run=self.run) if self.failure is None else CalculatorReply(failure=self.failure)

    async def calculate(self, expression: str, digits: int) -> CalculatorReply:
        """See `Calculator`."""
        self.asked.append((expression, digits))
        if self.gate is not None:
            await self.gate.wait()
        if self.trouble is not None:
            raise self.trouble
        if self.failure is not None:
            return CalculatorReply(failure=self.failure)
        check = "counted twice" if self.is_verified else "no second method could compute it"
        return CalculatorReply(Calculation(expression, self.result, self.result, self.is_verified, check, ("a note",)))
