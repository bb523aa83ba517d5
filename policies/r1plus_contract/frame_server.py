"""A process of a pod that answers at a Unix socket: one connection, one request, one reply, each a frame."""

import asyncio
import contextlib
import logging
import os
import signal
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from r1plus_contract.frames import FrameError, pack, read_frame

log = logging.getLogger(__name__)
MOST_CONNECTIONS: Final = 256
REQUEST_SECONDS: Final = 2.0
"""For a client to send its request, and to take its reply."""
DRAIN_SECONDS: Final = 3.0
"""For answers that run when the server ends."""
SOCKET_MODE: Final = 0o660
"""The gateway has a user of its own, and a group in common."""
Answer = Callable[[bytes], Awaitable[bytes]]
"""A request's content, empty if its length was out of bounds, to the reply's."""


class SocketError(RuntimeError):
    """The socket's path cannot be used."""


@dataclass(slots=True)
class FrameServer:
    """Answers connections."""

    answer: Answer
    most_request_bytes: int
    cancels: bool = False
    """Whether an answer is cancelled when its client leaves, or closes its half of the connection."""
    connections: set[asyncio.Task[None] | None] = field(default_factory=set)
    """Those that are being answered."""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection."""
        task = asyncio.current_task()
        self.connections.add(task)
        try:
            if len(self.connections) > MOST_CONNECTIONS:
                return
            async with asyncio.timeout(REQUEST_SECONDS):
                payload = await self._read_request(reader)
            reply = await self._answer(payload, reader)
            async with asyncio.timeout(REQUEST_SECONDS):
                writer.write(pack(reply))
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, OSError):
            pass  # the client has left, or is too slow
        finally:
            await _close(writer)
            self.connections.discard(task)

    async def _answer(self, payload: bytes, reader: asyncio.StreamReader) -> bytes:
        if not self.cancels:
            return await self.answer(payload)
        return await _answer_while_connected(self.answer(payload), reader)

    async def _read_request(self, reader: asyncio.StreamReader) -> bytes:
        """Return a request; empty if its length is out of bounds."""
        try:
            return await read_frame(reader, self.most_request_bytes)
        except FrameError:
            return b""


async def _answer_while_connected(answer: Awaitable[bytes], reader: asyncio.StreamReader) -> bytes:
    """Return the answer.

    Raises:
        ConnectionResetError: the client has left meanwhile; the answer is cancelled.
    """
    answering, leaving = asyncio.ensure_future(answer), asyncio.ensure_future(reader.read(1))
    try:
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        if answering.done():
            return answering.result()
        raise ConnectionResetError("the client has left, or has sent more than one request")
    finally:
        for future in (answering, leaving):
            future.cancel()
        await asyncio.gather(answering, leaving, return_exceptions=True)


async def _close(writer: asyncio.StreamWriter) -> None:
    """Close a connection; what its client does not take in time is dropped."""
    writer.close()
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            await writer.wait_closed()
    except (TimeoutError, OSError):
        writer.transport.abort()


@contextlib.asynccontextmanager
async def serve_frames(
    path: Path, answer: Answer, most_request_bytes: int, *, cancels: bool = False
) -> AsyncIterator[FrameServer]:
    """Serve until the block ends; then let running answers end.

    Raises:
        SocketError: the path cannot be used.
    """
    server = FrameServer(answer, most_request_bytes, cancels)
    remove_old_socket(path)
    try:
        listener = await asyncio.start_unix_server(server.handle, path, backlog=MOST_CONNECTIONS)
        share_socket(path)
    except OSError as error:
        raise refuse_path(path, error) from error
    try:
        yield server
    finally:
        listener.close()
        remove_socket(path)
        if running := [task for task in server.connections if task is not None]:
            await asyncio.wait(running, timeout=DRAIN_SECONDS)


async def serve_until_sigterm(server: contextlib.AbstractAsyncContextManager[object], what: str, where: str) -> None:
    """Run a server until the process is to end; `what` and `where` are for the log."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with server:
        log.info("%s listens on %s", what, where)
        await stop.wait()
    log.info("%s stopped", what)


def refuse_path(path: Path, error: OSError) -> SocketError:
    """Return what a failed call on the path means."""
    return SocketError(f"{path}: {error.strerror}; mount a volume there that this user may write to")


def share_socket(path: Path) -> None:
    """Let the gateway connect."""
    path.chmod(SOCKET_MODE)


def remove_socket(path: Path) -> None:
    """Remove the socket of a process that ends."""
    path.unlink(missing_ok=True)


def remove_old_socket(path: Path) -> None:
    """Remove what a predecessor left that was killed.

    Raises:
        SocketError: something else is there.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise SocketError(f"{path}: {error.strerror}; name a path that can be used") from error
    if not stat.S_ISSOCK(mode):
        raise SocketError(f"{path}: is no socket; remove it, or name another path")
    path.unlink()
