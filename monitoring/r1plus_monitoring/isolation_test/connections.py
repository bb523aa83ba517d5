"""`knock`: tries doors of the network, all at once."""

import asyncio
import errno
import socket
from contextlib import suppress
from functools import partial
from typing import Final

from r1plus_contract.isolation import BANNER, Against, Door, Findings, Outcome
from r1plus_monitoring.isolation_test.attempts import DOOR, WALL, Rounds, Seen, settled
from r1plus_monitoring.isolation_test.network import CONNECT_SECONDS, Address, Resolver, connect, resolve, said

NO_WAY: Final = frozenset(
    {
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.EHOSTUNREACH,
        errno.EHOSTDOWN,
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.ETIMEDOUT,
        errno.EPERM,
        errno.EACCES,
        errno.EADDRNOTAVAIL,
        errno.EAFNOSUPPORT,
    }
)
"""Errors by which there is no connection. Any other is this process's own trouble, and says nothing of a wall."""
_WORST: Final = (Outcome.OPEN, Outcome.FAILED, Outcome.SHUT)


async def knock(doors: tuple[Door, ...], expect: Outcome, rounds: Rounds, began: float) -> Findings:
    """Try every door until it has settled. `expect` OPEN is for the control, which is let through all of them."""
    tries = (
        settled(
            door.name,
            DOOR if expect is Outcome.OPEN or door.against is Against.OWN else WALL,
            partial(look, door),
            rounds,
            began,
        )
        for door in doors
    )
    return Findings(tuple(await asyncio.gather(*tries)))


async def look(door: Door, resolver: Resolver = resolve) -> Seen:
    """One attempt, at every address of the door's name at once: one that is open makes it open."""
    try:
        addresses = await resolver(door.host, door.port)
    except OSError as error:
        return Seen(Outcome.FAILED, f"{door.host}: {said(error)}")
    seen = await asyncio.gather(*(_at(address, door.against) for address in addresses))
    none = Seen(Outcome.FAILED, f"{door.host}: has no address")
    return min(seen, key=lambda one: _WORST.index(one.outcome), default=none)


async def _at(address: Address, against: Against) -> Seen:
    try:
        connection = await connect(address)
    except OSError as error:
        shut = isinstance(error, TimeoutError) or error.errno in NO_WAY
        return Seen(Outcome.SHUT if shut else Outcome.FAILED, f"{address} {said(error)}")
    with connection:
        if against is not Against.DECOY:
            return Seen(Outcome.OPEN, f"{address} connected")
        if await _banner(connection) == BANNER:
            return Seen(Outcome.OPEN, f"{address} is the decoy")
    return Seen(Outcome.FAILED, f"{address} connected, and it is not the decoy that answers")


async def _banner(connection: socket.socket) -> bytes:
    """As much as was said of what the decoy says. What somebody else may have said is nobody's to keep."""
    heard = b""
    with suppress(OSError):
        async with asyncio.timeout(CONNECT_SECONDS):
            while len(heard) < len(BANNER):
                more = await asyncio.get_running_loop().sock_recv(connection, len(BANNER) - len(heard))
                if not more:
                    break
                heard += more
    return heard
