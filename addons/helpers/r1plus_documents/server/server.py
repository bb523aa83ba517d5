"""The socket: each connection is handed to a child of its own, which alone reads what arrives on it."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from r1plus_contract.frame_server import refuse_path, remove_old_socket, remove_socket, share_socket
from r1plus_documents.server.worker import LIMITS, run_worker
from r1plus_sandbox.children import ForkedChild
from r1plus_sandbox.confinement import WorkerLimits

log = logging.getLogger(__name__)
MOST_AT_ONCE: Final = 2
"""Documents; further connections wait in the socket's backlog."""
BACKLOG: Final = 64


@dataclass(slots=True)
class DocumentServer:
    """Serves one socket."""

    limits: WorkerLimits
    most_at_once: int
    read: int = 0
    """Documents, since the start."""
    killed: int = 0
    """Children that overran their time, or died."""
    running: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, listener: socket.socket) -> None:
        """Take connections until cancelled."""
        turns = asyncio.Semaphore(self.most_at_once)
        while True:
            await turns.acquire()
            connection, _ = await asyncio.get_running_loop().sock_accept(listener)
            task = asyncio.create_task(self._supervise(connection))
            self.running.add(task)
            task.add_done_callback(self.running.discard)
            task.add_done_callback(lambda _: turns.release())

    async def _supervise(self, connection: socket.socket) -> None:
        """Let a child answer a connection, for as long as it may take."""
        with connection:
            child = ForkedChild(lambda: run_worker(connection.fileno(), self.limits))
        status = None
        try:
            async with asyncio.timeout(self.limits.wall_seconds):
                status = await child.wait()
        except TimeoutError:
            log.warning("Reader of a document was ended after %.0f s", self.limits.wall_seconds)
        finally:
            ending = asyncio.create_task(child.end())
            await asyncio.shield(ending)
            self.read += 1
            if status != 0:
                self.killed += 1
                log.warning("Reader of a document ended with status %s", status)


@contextlib.asynccontextmanager
async def run_reader(
    path: Path, limits: WorkerLimits = LIMITS, most_at_once: int = MOST_AT_ONCE
) -> AsyncIterator[DocumentServer]:
    """Serve until the block ends; what is read then is cut off, and read again by a gateway that asks again.

    Raises:
        SocketError: the path cannot be used.
    """
    remove_old_socket(path)
    server = DocumentServer(limits, most_at_once)
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            listener.bind(str(path))
        except OSError as error:
            raise refuse_path(path, error) from error
        listener.setblocking(False)
        listener.listen(BACKLOG)
        share_socket(path)
        serving = asyncio.create_task(server.serve(listener))
        try:
            yield server
        finally:
            remove_socket(path)
            tasks = [serving, *server.running]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
