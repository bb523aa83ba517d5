"""A container that runs while somebody uses it: the first connection starts it, and an idle time ends it.

`serve` listens where the gateway connects, and hands each connection on to the process, which listens in a folder of
its own. So a calculator without requests takes no memory. In a cluster such a container runs all the time.
"""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from r1plus_edge.pods.container import FIRST_BACKOFF, Container, Program
from r1plus_edge.pods.places import short_path
from r1plus_edge.start.machine import read_free_memory
from r1plus_operator.plan.observation import ContainerFacts

log = logging.getLogger(__name__)
IDLE_SECONDS: Final = 300.0
START_SECONDS: Final = 120.0
"""From the first connection until it listens: SymPy needs some four seconds of a processor."""
GRACE_SECONDS: Final = 5.0
SOCKET: Final = "helper.sock"
"""Of the process itself, in its working directory."""
_CONNECT_SECONDS: Final = 0.05
_LOOK_SECONDS: Final = 1.0
_BACKLOG: Final = 128
_MOST_CHUNK: Final = 64 * 1024
_SOCKET_MODE: Final = 0o600


class OnDemandContainer(Container):
    """One helper. It counts as ready also while it does not run: the next connection starts it."""

    def __init__(
        self,
        program: Program,
        on_change: Callable[[], None],
        front: Path,
        *,
        idle_seconds: float = IDLE_SECONDS,
        read_memory: Callable[[], int] = read_free_memory,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`front`: path of the socket that the gateway knows; `read_memory`: bytes that are free on this machine."""
        super().__init__(program, on_change)
        self._front = front
        self._idle_seconds = idle_seconds
        self._read_memory = read_memory
        self._clock = clock
        self._connections: set[asyncio.Task[None] | None] = set()
        self._wanted = asyncio.Event()
        self._used_at = 0.0
        self._restarts_before = 0
        """Restarts until the last start by a connection."""
        self.was_used = asyncio.Event()
        """Set by the first connection."""

    @property
    def facts(self) -> ContainerFacts:
        """What a kubelet would report of one that is well."""
        return replace(super().facts, ready=True)

    async def run(self) -> None:
        """Listen until cancelled; run the process while there is something to do for it."""
        with _listen(self._front) as listener:
            server = await asyncio.start_unix_server(self._handle, sock=listener)
            try:
                while True:
                    await self._wanted.wait()
                    await self._run_until_idle()
            finally:
                server.close()
                for connection in self._connections:
                    if connection is not None:
                        connection.cancel()

    async def _run_until_idle(self) -> None:
        self._restarts_before = self.restarts
        running = asyncio.create_task(super().run())
        try:
            while not (running.done() or self._is_idle()):
                await asyncio.wait({running}, timeout=min(_LOOK_SECONDS, self._idle_seconds))
        finally:
            if not self._connections:
                self._wanted.clear()
            await self.end(GRACE_SECONDS)
            running.cancel()
            (result,) = await asyncio.gather(running, return_exceptions=True)
            self._process = None  # Its number may be another's by the time that the pod ends.
        if isinstance(result, OSError):
            log.error("Container %s cannot run: %s", self.program.name, result)
            await asyncio.sleep(FIRST_BACKOFF)

    def _is_idle(self) -> bool:
        return not self._connections and self._clock() - self._used_at > self._idle_seconds

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hand a connection on. One that cannot be is closed, and the gateway says that the helper broke off."""
        task = asyncio.current_task()
        self._connections.add(task)
        try:
            if self.pid is not None or self._has_room():
                self._wanted.set()
                self.was_used.set()
                async with asyncio.timeout(START_SECONDS):
                    inner_reader, inner_writer = await self._connect()
                with contextlib.closing(inner_writer):
                    await _exchange(reader, writer, inner_reader, inner_writer)
        except (TimeoutError, OSError) as error:
            problem = str(error) or type(error).__name__
            log.warning("Container %s did not answer: %s; see %s", self.program.name, problem, self.program.log)
        finally:
            self._connections.discard(task)
            self._used_at = self._clock()
            writer.close()

    def _has_room(self) -> bool:
        request, free = self.program.memory_request, self._read_memory()
        if free >= request:
            return True
        log.error(
            "Container %s is not started: it needs %d MiB of memory, and %d MiB are free; end something else",
            self.program.name,
            request // 2**20,
            free // 2**20,
        )
        return False

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the process, as soon as it listens.

        Raises:
            OSError: it has ended instead, and waits for its next start.
        """
        with short_path(self.program.folder / SOCKET) as path:
            while True:
                try:
                    return await asyncio.open_unix_connection(path)
                except OSError:
                    if self.pid is None and self.restarts > self._restarts_before:
                        raise
                    await asyncio.sleep(_CONNECT_SECONDS)


async def _exchange(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    inner_reader: asyncio.StreamReader,
    inner_writer: asyncio.StreamWriter,
) -> None:
    """Copy both ways until the process has closed its side."""
    sending = asyncio.create_task(_copy(reader, inner_writer))
    try:
        await _copy(inner_reader, writer)
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_MOST_CHUNK):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


@contextlib.contextmanager
def _listen(path: Path) -> Iterator[socket.socket]:
    """Listen at a path that only this user may connect to."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener, short_path(path) as short:
        listener.bind(short)
        path.chmod(_SOCKET_MODE)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)
