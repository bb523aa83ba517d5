"""One peer holds as many unfinished requests as it likes: the servers that it can reach neither grow nor stop."""

import asyncio
import socket
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from unittest.mock import create_autospec

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge

from r1plus_contract.process.connections import MOST_CONNECTIONS, MOST_CONNECTIONS_OF_PEER, REQUEST_LIMITS
from r1plus_monitoring.report.exposition import Exposition
from r1plus_monitoring.report.publisher import ReportPublisher
from r1plus_monitoring.report.web import serve
from r1plus_operator import health
from r1plus_registry import service
from support.tables import for_each
from support.waiting import eventually

pytestmark = pytest.mark.first_run_counts

HALF_OPEN = 300
UNFINISHED = b"GET /healthz HTTP/1.1\r\n" + b"".join(
    b"X-%d: %s\r\n" % (number, b"a" * 4000) for number in range(REQUEST_LIMITS["max_headers"] - 8)
)
"""As large as a request can be whose end has not come."""
WHOLE = UNFINISHED.replace(b"/healthz", b"/metrics") + b"Host: 127.0.0.1\r\n\r\n"
ANSWER = b"a" * 200_000
MOST_MEMORY = 64 * 2**20
"""Of a container's 256 MiB, what unfinished requests may take: bytes."""
MOST_GARBAGE = 24 * 2**20
"""What is no HTTP and has not ended may take: a piece of each connection, bytes."""
Start = Callable[[], Awaitable[web.AppRunner]]


def listen() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0), backlog=HALF_OPEN)


async def start_monitor() -> web.AppRunner:
    exposition = create_autospec(Exposition)
    exposition.render.return_value = ANSWER
    return await serve(create_autospec(ReportPublisher), exposition, listen())


async def start_operator() -> web.AppRunner:
    metrics = CollectorRegistry()
    Gauge("size", "As large as an answer", ["text"], registry=metrics).labels(ANSWER.decode()).set(1)
    return await health.serve(0, lambda: True, lambda: "", metrics)


async def start_registry() -> web.AppRunner:
    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=ANSWER)

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/metrics", metrics)])
    runner = service.RegistryRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.SockSite(runner, listen()).start()
    return runner


SERVERS = pytest.mark.parametrize("start", [start_monitor, start_registry, start_operator])


@asynccontextmanager
async def started(start: Start) -> AsyncIterator[tuple[str, int]]:
    """Start a server on loopback, whose kernel takes little of an answer; yields its address."""
    runner = await start()
    for site in runner.sites:
        for listener in site._server.sockets:  # type: ignore[attr-defined]
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    # Of port 0 each family of addresses has its own.
    port = next(port for host, port, *_ in runner.addresses if ":" not in host)
    try:
        yield "127.0.0.1", port
    finally:
        await runner.cleanup()


@pytest.fixture
def sockets() -> Iterator[ExitStack]:
    """Closes the test's connections."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture(autouse=True)
def _short_shutdown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r1plus_contract.process.connections.SHUTDOWN_SECONDS", 0.05)


async def connect(sockets: ExitStack, address: tuple[str, int], own: str = "127.0.0.1") -> socket.socket:
    """Return a connection from this address of loopback."""
    client = sockets.enter_context(socket.socket())
    for buffer in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        client.setsockopt(socket.SOL_SOCKET, buffer, 4096)
    client.setblocking(False)
    client.bind((own, 0))
    await asyncio.get_running_loop().sock_connect(client, address)
    return client


async def send_unfinished(client: socket.socket) -> None:
    with suppress(ConnectionError):  # The server has closed it.
        await asyncio.get_running_loop().sock_sendall(client, UNFINISHED)


async def send_what_is_taken(client: socket.socket, data: bytes) -> int:
    """Send until the server has closed the connection, or has taken nothing for a moment; return how much it took."""
    rest = memoryview(data)
    loop = asyncio.get_running_loop()
    with suppress(ConnectionError):
        while rest:
            try:
                rest = rest[client.send(rest) :]
            except BlockingIOError:
                writable = asyncio.Event()
                loop.add_writer(client, writable.set)
                try:
                    async with asyncio.timeout(0.5):
                        await writable.wait()
                except TimeoutError:
                    break
                finally:
                    loop.remove_writer(client)
    return len(data) - len(rest)


async def send_at_once(
    sockets: ExitStack, address: tuple[str, int], data: bytes, count: int = MOST_CONNECTIONS
) -> dict[socket.socket, int]:
    """Send this on so many connections of eight peers; return them with what the server took."""
    clients = [await connect(sockets, address, f"127.0.0.{1 + number % 8}") for number in range(count)]
    taken = await asyncio.gather(*(send_what_is_taken(client, data) for client in clients))
    return dict(zip(clients, taken, strict=True))


async def is_healthy(address: tuple[str, int]) -> bool:
    url = f"http://{address[0]}:{address[1]}/healthz"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return (answer.status, (await answer.text()).strip()) == (200, "ok")


def count_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def traced() -> Iterator[None]:
    """Trace the memory of the test; whole requests and what answers them are both in it."""
    tracemalloc.start()
    yield
    tracemalloc.stop()


def has_answer(client: socket.socket) -> bool:
    """Whether a part of an answer has come, or the connection has ended."""
    try:
        client.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return True


def is_open(client: socket.socket) -> bool:
    try:
        return client.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


@SERVERS
@pytest.mark.usefixtures("traced")
async def test_unfinished_requests_fill_no_memory_and_keep_nobody_out(sockets: ExitStack, start: Start) -> None:
    async with started(start) as address:
        clients = []
        for number in range(HALF_OPEN):
            clients.append(await connect(sockets, address, f"127.0.0.{1 + number % 8}"))
            await send_unfinished(clients[-1])
        assert await is_healthy(address)
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
        await eventually(
            lambda: sum(map(is_open, clients)) <= MOST_CONNECTIONS + 1, "the server has closed the oldest connections"
        )


@SERVERS
async def test_a_peer_with_too_many_connections_loses_its_own(sockets: ExitStack, start: Start) -> None:
    async with started(start) as address:
        others = await connect(sockets, address, "127.0.0.2")
        clients = [await connect(sockets, address) for _ in range(HALF_OPEN)]
        await eventually(lambda: sum(map(is_open, clients)) <= MOST_CONNECTIONS_OF_PEER + 1, "the peer has its share")
        assert all(map(is_open, clients[-MOST_CONNECTIONS_OF_PEER:]))
        assert is_open(others)


@SERVERS
async def test_a_request_that_does_not_end_is_cut_off(
    sockets: ExitStack, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = dict(REQUEST_LIMITS) | {"keepalive_timeout": 0.2}
    monkeypatch.setattr("r1plus_contract.process.connections.REQUEST_LIMITS", limits)
    async with started(start) as address:
        client = await connect(sockets, address)
        await send_unfinished(client)
        await eventually(lambda: not is_open(client), "the server has closed it")


@SERVERS
async def test_answers_that_nobody_reads_keep_no_connection_open(sockets: ExitStack, start: Start) -> None:
    async with started(start) as address:
        before, batches = count_descriptors(), 3
        for _ in range(batches):
            clients = list(await send_at_once(sockets, address, b"GET /metrics HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n"))
            await eventually(lambda clients=clients: all(map(has_answer, clients)), "a part of each answer has come")
        await eventually(
            lambda: count_descriptors() - before <= (batches + 1) * MOST_CONNECTIONS + 1,
            "the server has closed the oldest connections",
        )
        assert await is_healthy(address)


@SERVERS
async def test_an_answer_that_nobody_reads_holds_up_no_end(sockets: ExitStack, start: Start) -> None:
    async with asyncio.timeout(30):
        async with started(start) as address:
            await send_at_once(sockets, address, b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 1)
            assert await is_healthy(address)


@pytest.mark.unit_slow
@SERVERS
@pytest.mark.usefixtures("traced")
async def test_requests_that_wait_behind_unread_answers_are_few(sockets: ExitStack, start: Start) -> None:
    async with started(start) as address:
        sent = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" + 40 * WHOLE
        clients = await send_at_once(sockets, address, sent)
        assert max(clients.values()) < len(sent) // 4
        assert await is_healthy(address)
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY


@SERVERS
@for_each("sent", {"no line of it ends": b"GET /" + b"a" * 3_000_000, "it is no HTTP": b"\0secret\r\n" * 300_000})
@pytest.mark.usefixtures("traced")
async def test_what_is_no_http_is_neither_kept_nor_logged(
    sockets: ExitStack, caplog: pytest.LogCaptureFixture, start: Start, sent: bytes
) -> None:
    async with started(start) as address:
        await send_at_once(sockets, address, sent)
        assert await is_healthy(address)
        assert tracemalloc.get_traced_memory()[1] < MOST_GARBAGE
    assert not caplog.records
