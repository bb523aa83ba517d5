"""A calculator within a test, and a client that sends what no gateway would."""

import asyncio
import json
import sysconfig
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

from r1plus_calculator.server.code_runs import CodeRunner
from r1plus_calculator.server.preload import preload
from r1plus_calculator.server.server import CalculatorServer, run_calculator
from r1plus_calculator.server.worker import Evaluator, answer
from r1plus_contract.calculator import LENGTH_BYTES, CalculationRequest, CodeRequest
from r1plus_contract.frames import pack
from r1plus_contract.jsonable import dumps
from r1plus_sandbox.confinement import WorkerLimits
from r1plus_sandbox.programs import ProgramLimits
from support.waiting import eventually

INTERPRETER = Path(sysconfig.get_path("scripts")) / "monty"
PATIENT = WorkerLimits(cpu_seconds=60, wall_seconds=60.0)
"""For what has to be answered, however busy the machine is."""
PATIENT_PROGRAM = ProgramLimits(cpu_seconds=60, wall_seconds=60.0)


def build_code_runner(limits: ProgramLimits = PATIENT_PROGRAM) -> CodeRunner:
    """Return what runs code with the installed interpreter."""
    return CodeRunner(INTERPRETER, limits, answer_seconds=limits.wall_seconds + 1)


@cache
def preload_once() -> None:
    """Load SymPy as the calculator's process does, once for all tests."""
    preload()


class CalculatorClient:
    """Sends one frame per connection."""

    def __init__(self, path: Path, seconds: float = 120.0) -> None:
        """Take the socket's path, and how long to wait for an answer."""
        self.path = path
        self._seconds = seconds

    async def send(self, data: bytes) -> bytes:
        """Send these bytes, and return all that comes until the connection is closed. Raises TimeoutError."""
        reader, writer = await asyncio.open_unix_connection(self.path)
        try:
            writer.write(data)
            return await asyncio.wait_for(reader.read(), self._seconds)
        finally:
            writer.close()

    async def ask(self, payload: bytes) -> Any:
        """Send a request, and return its reply."""
        data = await self.send(pack(payload))
        assert int.from_bytes(data[:LENGTH_BYTES], "big") == len(data) - LENGTH_BYTES
        return json.loads(data[LENGTH_BYTES:])

    async def run(self, code: str) -> Any:
        """Send code, and return its reply."""
        return await self.ask(dumps(CodeRequest(code)).encode())

    async def calculate(self, expression: str, digits: int = 15) -> Any:
        """Send an expression, and return its reply."""
        return await self.ask(dumps(CalculationRequest(expression, digits)).encode())


@asynccontextmanager
async def running_calculator(
    folder: Path,
    *,
    size: int = 2,
    limits: WorkerLimits = PATIENT,
    evaluate: Evaluator = answer,
    code_runner: CodeRunner | None = None,
) -> AsyncIterator[tuple[CalculatorServer, CalculatorClient]]:
    """Run a calculator whose workers are ready."""
    path = folder / "calculator.sock"
    seconds = limits.wall_seconds + 0.5
    async with run_calculator(path, limits, size, evaluate, seconds, code_runner) as server:
        await eventually(lambda: len(server.pool.idle) == size, "all workers are ready")
        yield server, CalculatorClient(path)
