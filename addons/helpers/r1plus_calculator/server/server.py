"""The socket: frames in, frames out. Requests are handed on as they are; only workers read them."""

import contextlib
import json
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from r1plus_calculator.server.code_runs import CodeRunner
from r1plus_calculator.server.pool import WorkerPool
from r1plus_calculator.server.wire import encode_failure
from r1plus_calculator.server.worker import Evaluator, answer
from r1plus_contract.calculator import (
    ANSWER_SECONDS,
    CODE_REQUEST_START,
    ENV_INTERPRETER,
    MOST_REQUEST_BYTES,
    CalculatorHealth,
    CalculatorReply,
    FailureCode,
)
from r1plus_contract.frame_server import serve_frames
from r1plus_contract.jsonable import dumps
from r1plus_sandbox.confinement import WorkerLimits


@dataclass(slots=True)
class CalculatorServer:
    """Serves one socket with one pool."""

    pool: WorkerPool
    code_runner: CodeRunner | None = None
    """None: no code is run."""
    connections: Collection[object] = ()
    """Those that are being answered."""

    async def answer(self, payload: bytes) -> bytes:
        """Return the reply to a request."""
        if not payload:
            return encode_failure(FailureCode.INVALID_REQUEST, f"a request has 1 to {MOST_REQUEST_BYTES} bytes")
        if payload.startswith(CODE_REQUEST_START):
            return _NO_INTERPRETER if self.code_runner is None else await self.code_runner.answer(payload)
        if _asks_for_health(payload):
            return dumps(CalculatorReply(health=self.describe())).encode()
        return await self.pool.ask(payload)

    def describe(self) -> CalculatorHealth:
        """Return how the calculator is."""
        pool = self.pool
        return CalculatorHealth(pool.is_ready, len(pool.idle), pool.running, pool.waiting, pool.answered, pool.killed)


_NO_INTERPRETER: Final = encode_failure(
    FailureCode.INVALID_REQUEST,
    f"code: this calculator runs none; start it with {ENV_INTERPRETER}, the path of the program monty",
)
_HEALTH_REQUEST_BYTES: Final = 64


def _asks_for_health(payload: bytes) -> bool:
    """Return whether the expression is empty. Longer requests are read by workers only."""
    if len(payload) > _HEALTH_REQUEST_BYTES:
        return False
    try:
        request = json.loads(payload)
    except (ValueError, RecursionError):
        return False
    return isinstance(request, dict) and request.get("expression") == ""


@contextlib.asynccontextmanager
async def run_calculator(
    path: Path,
    limits: WorkerLimits | None = None,
    size: int = 4,
    evaluate: Evaluator = answer,
    answer_seconds: float = ANSWER_SECONDS,
    code_runner: CodeRunner | None = None,
) -> AsyncIterator[CalculatorServer]:
    """Serve until the block ends; then let running calculations end.

    Raises:
        SocketError: the path cannot be used.
    """
    pool = WorkerPool(limits or WorkerLimits(), size, evaluate, answer_seconds)
    server = CalculatorServer(pool, code_runner)
    pool.start()
    try:
        async with serve_frames(path, server.answer, MOST_REQUEST_BYTES, cancels=True) as frames:
            server.connections = frames.connections
            yield server
    finally:
        await pool.stop()
