"""A network that breaks: a TCP proxy in front of the API server, and a client that reaches it only through there.

TLS goes through it untouched, so the client under test and the server are both the real ones.
"""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from devcluster.apiserver_only import ApiServer
from r1plus_operator.runtime import connection
from r1plus_operator.runtime.client import ApiClient


class FaultProxy:
    """`async with FaultProxy(url) as proxy`: reach the server through `proxy.url`, then break it."""

    def __init__(self, url: str) -> None:
        target = urlsplit(url)
        assert target.hostname is not None
        assert target.port is not None
        self._target = (target.hostname, target.port)
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking, self._answering = asyncio.Event(), asyncio.Event()
        """Set while what is sent to the server gets there, and while its answers come back."""
        self.restore()
        self._server: asyncio.Server | None = None
        self.accepted = 0
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"https://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def cut(self) -> None:
        """Reset every connection."""
        for writer in list(self._writers):
            writer.transport.abort()

    def refuse(self) -> None:
        """Reset every connection, and each new one, until `restore`."""
        self._refusing = True
        self.cut()

    def freeze(self) -> None:
        """Let no byte through, with every connection open: the half-open connection."""
        self._asking.clear()
        self._answering.clear()

    def hold_requests(self) -> None:
        """Let answers through, and no request: whoever goes on after an answer has sent something that lies here."""
        self._asking.clear()

    def restore(self) -> None:
        """Work again."""
        self._refusing = False
        self._asking.set()
        self._answering.set()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self._refusing:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Both directions until either ends. Leaves no transport open, however it ends."""
        with self._tracked(writer), suppress(OSError):
            up_reader, up_writer = await asyncio.open_connection(*self._target)
            with self._tracked(up_writer):
                pumps = {asyncio.create_task(self._pump(reader, up_writer, self._asking))}
                pumps.add(asyncio.create_task(self._pump(up_reader, writer, self._answering)))
                try:
                    await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for pump in pumps:
                        pump.cancel()
                    await asyncio.gather(*pumps, return_exceptions=True)

    @contextmanager
    def _tracked(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        self._writers.add(writer)
        try:
            yield
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, flowing: asyncio.Event) -> None:
        """Waits until each piece is sent on, so that nothing is left over when the other side ends."""
        sink.transport.set_write_buffer_limits(high=0)
        while data := await source.read(65536):
            await flowing.wait()
            sink.write(data)
            await sink.drain()


@asynccontextmanager
async def broken_network(server: ApiServer) -> AsyncIterator[tuple[FaultProxy, ApiClient]]:
    """A proxy, and a client that reaches the server only through it."""
    direct = connection.from_kubeconfig(server.kubeconfig)
    async with FaultProxy(direct.server) as proxy, ApiClient(dataclasses.replace(direct, server=proxy.url)) as client:
        yield proxy, client
