"""The socket: frames in, frames out. Requests are handed on as they are; only workers read them."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from r1plus_calculator.server.pool import Pool
from r1plus_calculator.server.wire import encode_failure
from r1plus_calculator.server.worker import Evaluator, answer
from r1plus_contract.calculator import (
    ANSWER_SECONDS,
    MOST_REQUEST_BYTES,
    CalculatorHealth,
    CalculatorReply,
    FailureCode,
)
from r1plus_contract.jsonable import dumps
from r1plus_sandbox.confinement import WorkerLimits
from r1plus_sandbox.frames import FrameError, pack, read_frame
from r1plus_sandbox.sockets import refuse_path, remove_old_socket, remove_socket, share_socket

log = logging.getLogger(__name__)
MOST_CONNECTIONS: Final = 256
REQUEST_SECONDS: Final = 2.0
"""For a client to send its request, and to take its reply."""
DRAIN_SECONDS: Final = 3.0
"""For running calculations after SIGTERM."""


@dataclass(slots=True)
class CalculatorServer:
    """Serves one socket with one pool."""

    pool: Pool
    connections: set[asyncio.Task[None] | None] = field(default_factory=set)
    """Those that are being answered."""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection: one request, one reply."""
        task = asyncio.current_task()
        self.connections.add(task)
        try:
            if len(self.connections) > MOST_CONNECTIONS:
                return
            async with asyncio.timeout(REQUEST_SECONDS):
                payload = await _read_request(reader)
            reply = await self._answer(payload)
            async with asyncio.timeout(REQUEST_SECONDS):
                writer.write(pack(reply))
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, OSError):
            pass  # the client has left, or is too slow
        finally:
            await _close(writer)
            self.connections.discard(task)

    async def _answer(self, payload: bytes) -> bytes:
        if not payload:
            return encode_failure(FailureCode.INVALID_REQUEST, f"a request has 1 to {MOST_REQUEST_BYTES} bytes")
        if _asks_for_health(payload):
            return dumps(CalculatorReply(health=self.describe())).encode()
        return await self.pool.ask(payload)

    def describe(self) -> CalculatorHealth:
        """Return how the calculator is."""
        pool = self.pool
        return CalculatorHealth(pool.is_ready, len(pool.idle), pool.running, pool.waiting, pool.answered, pool.killed)


async def _close(writer: asyncio.StreamWriter) -> None:
    """Close a connection; what its client does not take in time is dropped."""
    writer.close()
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            await writer.wait_closed()
    except (TimeoutError, OSError):
        writer.transport.abort()


async def _read_request(reader: asyncio.StreamReader) -> bytes:
    """Return a request; empty if its length is out of bounds."""
    try:
        return await read_frame(reader, MOST_REQUEST_BYTES)
    except FrameError:
        return b""


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
) -> AsyncIterator[CalculatorServer]:
    """Serve until the block ends; then let running calculations end.

    Raises:
        SocketError: the path cannot be used.
    """
    pool = Pool(limits or WorkerLimits(), size, evaluate, answer_seconds)
    server = CalculatorServer(pool)
    remove_old_socket(path)
    pool.start()
    try:
        listener = await asyncio.start_unix_server(server.handle, path, backlog=MOST_CONNECTIONS)
        share_socket(path)
        try:
            yield server
        finally:
            listener.close()
            remove_socket(path)
            if running := [task for task in server.connections if task is not None]:
                await asyncio.wait(running, timeout=DRAIN_SECONDS)
    except OSError as error:
        raise refuse_path(path, error) from error
    finally:
        await pool.stop()
