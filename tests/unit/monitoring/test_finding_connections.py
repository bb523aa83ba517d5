"""One peer holds as many unfinished requests as it likes: the servers that it can reach neither grow nor stop."""

import asyncio
import socket
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from unittest.mock import create_autospec

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from r1plus_contract.connections import MOST_CONNECTIONS, MOST_CONNECTIONS_OF_PEER, REQUEST_LIMITS
from r1plus_model_repo.registry import service
from r1plus_monitoring.report.exposition import Exposition
from r1plus_monitoring.report.publisher import ReportPublisher
from r1plus_monitoring.report.web import serve
from r1plus_operator import health
from support.waiting import eventually

HALF_OPEN = 300
UNFINISHED = b"GET /healthz HTTP/1.1\r\n" + b"".join(
    b"X-%d: %s\r\n" % (number, b"a" * 4000) for number in range(REQUEST_LIMITS["max_headers"] - 8)
)
"""As large as a request can be whose end has not come."""
MOST_MEMORY = 64 * 2**20
"""Of a container's 256 MiB, what unfinished requests may take: bytes."""
Start = Callable[[], Awaitable[web.AppRunner]]


def listen() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0), backlog=HALF_OPEN)


async def start_monitor() -> web.AppRunner:
    return await serve(create_autospec(ReportPublisher), create_autospec(Exposition), listen())


async def start_operator() -> web.AppRunner:
    return await health.serve(0, lambda: True, lambda: "", CollectorRegistry())


async def start_registry() -> web.AppRunner:
    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz)])
    runner = service.RegistryRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.SockSite(runner, listen()).start()
    return runner


SERVERS = pytest.mark.parametrize("start", [start_monitor, start_registry, start_operator])


@asynccontextmanager
async def started(start: Start) -> AsyncIterator[tuple[str, int]]:
    """Start a server on loopback; yields its address."""
    runner = await start()
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


async def connect(sockets: ExitStack, address: tuple[str, int], own: str = "127.0.0.1") -> socket.socket:
    """Return a connection from this address of loopback."""
    client = sockets.enter_context(socket.socket())
    client.setblocking(False)
    client.bind((own, 0))
    await asyncio.get_running_loop().sock_connect(client, address)
    return client


async def send_unfinished(client: socket.socket) -> None:
    with suppress(ConnectionError):  # The server has closed it.
        await asyncio.get_running_loop().sock_sendall(client, UNFINISHED)


def is_open(client: socket.socket) -> bool:
    try:
        return client.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


@SERVERS
async def test_finding_b_unfinished_requests_fill_no_memory_and_keep_nobody_out(
    sockets: ExitStack, start: Start
) -> None:
    async with started(start) as address:
        tracemalloc.start()
        clients = []
        for number in range(HALF_OPEN):
            clients.append(await connect(sockets, address, f"127.0.0.{1 + number % 8}"))
            await send_unfinished(clients[-1])
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://{address[0]}:{address[1]}/healthz") as answer,
        ):
            assert (answer.status, (await answer.text()).strip()) == (200, "ok")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < MOST_MEMORY
        await eventually(
            lambda: sum(map(is_open, clients)) <= MOST_CONNECTIONS + 1, "the server has closed the oldest connections"
        )


@SERVERS
async def test_finding_b_a_peer_with_too_many_connections_loses_its_own(sockets: ExitStack, start: Start) -> None:
    async with started(start) as address:
        others = await connect(sockets, address, "127.0.0.2")
        clients = [await connect(sockets, address) for _ in range(HALF_OPEN)]
        await eventually(lambda: sum(map(is_open, clients)) <= MOST_CONNECTIONS_OF_PEER + 1, "the peer has its share")
        assert all(map(is_open, clients[-MOST_CONNECTIONS_OF_PEER:]))
        assert is_open(others)


@SERVERS
async def test_finding_b_a_request_that_does_not_end_is_cut_off(
    sockets: ExitStack, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = dict(REQUEST_LIMITS) | {"keepalive_timeout": 0.2}
    monkeypatch.setattr("r1plus_contract.connections.REQUEST_LIMITS", limits)
    async with started(start) as address:
        client = await connect(sockets, address)
        await send_unfinished(client)
        await eventually(lambda: not is_open(client), "the server has closed it")
