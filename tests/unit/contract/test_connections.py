"""How often a flood of connections makes a server look at all of them: a look takes milliseconds of its event loop."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from r1plus_contract.process.connections import limit_connections
from support.tables import for_each

MOST, MOST_OF_PEER = 256, 128
FLOOD = 10 * MOST


class Client:
    """A connection, which the server knows of a turn of the loop after it has made its protocol."""

    def __init__(self, server: "CountingServer", peer: str) -> None:
        self.peername = (peer, 1)
        self.rank = 0
        self._connections = server.open
        asyncio.get_running_loop().call_soon(self._connections.append, self)

    def evict(self) -> None:
        if self in self._connections:
            self._connections.remove(self)


class CountingServer:
    """Counts how often its connections are looked at."""

    def __init__(self) -> None:
        self.open: list[Client] = []
        self.looks = 0
        self.peer = ""

    @property
    def connections(self) -> list[Any]:
        self.looks += 1
        return list(self.open)

    def __call__(self) -> Client:
        return Client(self, self.peer)


async def connect(server: CountingServer, accept: Callable[[], Any], peer: str) -> None:
    """Connect, and let the server do what it does then."""
    server.peer = peer
    accept()
    await wait_turns()


async def wait_turns() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


@for_each("at_once", {"one after the other": 1, "a backlog in a turn": 100})
@for_each("addresses", {"of one address": 1, "of many": 50})
async def test_a_flood_costs_few_looks_and_stays_within_the_bounds(at_once: int, addresses: int) -> None:
    server = CountingServer()
    accept = limit_connections(server, MOST, MOST_OF_PEER)
    for number in range(FLOOD):
        server.peer = f"10.0.0.{number % addresses}"
        accept()
        if number % at_once == at_once - 1:
            await wait_turns()
    most = MOST_OF_PEER if addresses == 1 else MOST
    slack = MOST_OF_PEER // 64 + at_once
    assert most <= len(server.open) <= most + slack
    assert server.looks <= FLOOD / max(at_once, slack - 1) + 1


async def test_who_connects_and_leaves_just_below_a_bound_costs_few_looks() -> None:
    server = CountingServer()
    accept = limit_connections(server, MOST, MOST_OF_PEER)
    for _ in range(MOST_OF_PEER):
        await connect(server, accept, "10.0.0.1")
    before = server.looks
    for _ in range(FLOOD):
        server.open.pop().evict()
        await connect(server, accept, "10.0.0.1")
    assert server.looks - before <= FLOOD / (MOST_OF_PEER // 64) + 1


@pytest.mark.parametrize("most_of_peer", [1, 32])
async def test_a_small_bound_is_exact(most_of_peer: int) -> None:
    server = CountingServer()
    accept = limit_connections(server, 64, most_of_peer)
    await connect(server, accept, "10.0.0.2")
    for _ in range(200):
        await connect(server, accept, "10.0.0.1")
        assert len(server.open) <= most_of_peer + 1
    assert server.open[0].peername == ("10.0.0.2", 1), "another address has lost none"
    server.peer = "10.0.0.3"
    for _ in range(100):
        accept()
    await wait_turns()
    await connect(server, accept, "10.0.0.3")
    assert [one.peername[0] for one in server.open].count("10.0.0.3") == most_of_peer


async def test_a_flood_of_many_addresses_shuts_out_no_address_with_few() -> None:
    """However many come after it: who has one connection sends its request when it can."""
    server = CountingServer()
    accept = limit_connections(server, MOST, MOST_OF_PEER)
    await connect(server, accept, "10.1.0.1")
    for number in range(FLOOD):
        await connect(server, accept, f"10.0.0.{number % 50}")
    assert len(server.open) <= MOST + MOST_OF_PEER // 64 + 1
    assert server.open[0].peername == ("10.1.0.1", 1)


async def test_what_is_being_answered_goes_last() -> None:
    """Of an address with too many, and of all."""
    server = CountingServer()
    accept = limit_connections(server, MOST, MOST_OF_PEER)
    for peer in ("10.1.0.1", "10.0.0.0"):
        await connect(server, accept, peer)
    busy = list(server.open)
    for client in busy:
        client.rank = 2
    for number in range(FLOOD):
        await connect(server, accept, f"10.0.0.{number % 50}")
    assert server.open[:2] == busy
    for _ in range(FLOOD):
        await connect(server, accept, "10.1.0.1")
    assert server.open[:2] == busy
