"""What a compromised pod may answer to the operator, the gateway or the monitor: each reads one answer, and little of it."""

import asyncio
import resource
import socket
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache

import aiohttp
import pytest

from r1plus_gateway.serving import evidence
from r1plus_monitoring.probe.client import TritonEngine
from r1plus_operator.observe.monitors import monitor_poller
from support.tables import for_each
from support.waiting import DEADLINE_SECONDS

MOST_GROWN = 64 * 1024
"""KiB of memory."""
OK = b"HTTP/1.1 200 OK\r\n"
PIECE = 64 * 1024
FLOOD_BYTES = 128 * 2**20
MOST_TAKEN = 32 * 2**20
"""Of a flood, with what the kernel keeps of both ends."""


def repeat(piece: bytes, head: bytes = b"") -> Iterator[bytes]:
    """Yield a flood."""
    block = piece * (PIECE // len(piece) + 1)
    yield head
    for _ in range(FLOOD_BYTES // len(block)):
        yield block


@cache
def pack_zeros() -> tuple[bytes, ...]:
    """Return an answer of a quarter of a megabyte that unpacks to a quarter of a gigabyte."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    body = b"".join(packer.compress(bytes(2**20)) for _ in range(256)) + packer.flush()
    return (OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body,)


FLOODS: dict[str, Callable[[], Iterable[bytes]]] = {
    "interim answers": lambda: repeat(b"HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n"),
    "answers without a request": lambda: repeat(OK + b"Content-Length: 0\r\n\r\n"),
    "a head": lambda: repeat(b"A: b\r\n", OK),
    "a long line": lambda: repeat(b"x", OK + b"A: "),
    "a body": lambda: repeat(b'"a":1,', OK + b"\r\n{"),
    "chunks with extensions": lambda: repeat(b"1;" + b"x" * 4000 + b"\r\n \r\n", OK + b"Transfer-Encoding: chunked\r\n\r\n"),
    "an extension": lambda: repeat(b"x", OK + b"Transfer-Encoding: chunked\r\n\r\n1;"),
    "trailers": lambda: repeat(b"A: b\r\n", OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n"),
    "a packed body": pack_zeros,
}  # fmt: skip


@dataclass
class Flood:
    """A server that answers each connection by a flood."""

    make: Callable[[], Iterable[bytes]]
    taken = 0
    """Bytes that clients have taken from it, those in the kernel included."""
    url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            for piece in self.make():
                writer.write(piece)
                await writer.drain()
                self.taken += len(piece)
            await reader.read()
        except OSError:
            pass
        finally:
            writer.transport.abort()


@asynccontextmanager
async def serve_flood(make: Callable[[], Iterable[bytes]]) -> AsyncIterator[Flood]:
    flood = Flood(make)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        flood.url = f"127.0.0.1:{listener.getsockname()[1]}"
        server = await asyncio.start_server(flood.answer, sock=listener)
        yield flood
        server.close()


async def ask_as_operator(target: str) -> object:
    async with monitor_poller.open_session() as session:
        try:
            async with session.get(f"http://{target}/verdict", allow_redirects=False) as response:
                return len(await monitor_poller._read_bounded(response, "MonitorReport", 256 * 1024))
        except (aiohttp.ClientError, OSError, TimeoutError, monitor_poller.ContractError):
            return None


async def ask_as_gateway(target: str) -> object:
    async with evidence.open_session() as session:
        return await evidence.MonitorReader(session)(target)


async def ask_as_monitor(target: str) -> object:
    engine = TritonEngine(target, target, 1.0, target)
    try:
        return await engine.is_model_ready(), await engine.count_user_requests()
    finally:
        await engine.close()


CLIENTS = {"operator": ask_as_operator, "gateway": ask_as_gateway, "monitor": ask_as_monitor}


@for_each("client", {name: name for name in CLIENTS})
@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
async def test_a_flood_is_cut_off_before_it_takes_memory_or_time(
    client: str, flood: Callable[[], Iterable[bytes]]
) -> None:
    async with serve_flood(flood) as server:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        async with asyncio.timeout(DEADLINE_SECONDS):
            await CLIENTS[client](server.url)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
        assert server.taken < MOST_TAKEN
        assert grown < MOST_GROWN
