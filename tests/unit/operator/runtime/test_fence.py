"""The client's fence: no write is sent, sent again or left under way without the Lease; reads need none."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.errors import ApiError, FencedError, TransportError
from support.runtime.api_server import (
    CONFIG_MAPS,
    LIMITS,
    Answer,
    client_of,
    ok,
    page,
    refusal,
    scripted_server,
    silent,
)

OBJECT: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "ns"}}
WRITES: dict[str, Callable[[ApiClient], Awaitable[Any]]] = {
    "apply": lambda client: client.apply(CONFIG_MAPS, OBJECT, field_manager="test"),
    "patch": lambda client: client.patch(CONFIG_MAPS, "a", "ns", {"data": {"x": "1"}}),
    "create": lambda client: client.create(CONFIG_MAPS, OBJECT),
    "delete": lambda client: client.delete(CONFIG_MAPS, "a", "ns"),
    "delete by uid": lambda client: client.delete(CONFIG_MAPS, "a", "ns", uid="u"),
}
EVERY_WRITE = pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
BUSY = refusal(429, "TooManyRequests")


async def sent(write: Callable[[ApiClient], Awaitable[Any]], remaining: list[float], *answers: Answer) -> Any:
    """What a write under this fence ended with, and the queries of what was sent of it."""
    async with scripted_server() as server:
        server.writes = list(answers)
        async with client_of(server) as client:
            client.fence = lambda: remaining.pop(0) if len(remaining) > 1 else remaining[0]
            try:
                await write(client)
            except ApiError as error:
                return error, server.asked("write")
            return None, server.asked("write")


@EVERY_WRITE
@pytest.mark.parametrize("remaining", [0.0, -3.0], ids=["at the last moment", "long after"])
async def test_no_write_is_sent_without_the_lease(
    write: Callable[[ApiClient], Awaitable[Any]], remaining: float
) -> None:
    error, queries = await sent(write, [remaining], ok())
    assert isinstance(error, FencedError)
    assert queries == []


@EVERY_WRITE
async def test_with_the_lease_each_is_sent_and_tells_the_server_how_long_it_may_take(
    write: Callable[[ApiClient], Awaitable[Any]],
) -> None:
    error, queries = await sent(write, [30.25], ok())
    assert (error, [query["timeout"] for query in queries]) == (None, ["30.250s"])


@EVERY_WRITE
async def test_none_is_sent_again_after_the_lease(write: Callable[[ApiClient], Awaitable[Any]]) -> None:
    error, queries = await sent(write, [9.0, -1.0], BUSY, ok())
    assert isinstance(error, FencedError)
    assert len(queries) == 1


@EVERY_WRITE
async def test_none_is_under_way_after_the_lease(write: Callable[[ApiClient], Awaitable[Any]]) -> None:
    async with asyncio.timeout(LIMITS.request / 2):  # Before the client's own limit.
        error, _ = await sent(write, [0.1], silent())
    assert isinstance(error, TransportError)
    assert error.reason == "Timeout"


async def test_reading_needs_no_lease() -> None:
    async with scripted_server() as server:
        server.lists = [ok(), page(1)]
        async with client_of(server) as client:
            client.fence = lambda: -1.0
            await client.get(CONFIG_MAPS, "a", "ns")
            await client.list(CONFIG_MAPS)
        assert [query.get("timeout") for query in server.asked("list")] == [None, None]
