"""`knock`: tries TCP connections, all at once."""

import asyncio
import errno
import socket
from contextlib import suppress
from functools import partial
from typing import Final

from r1plus_contract.monitor.isolation import (
    BANNER,
    Against,
    AttemptFinding,
    AttemptOutcome,
    ConnectionTarget,
    Findings,
)
from r1plus_monitoring.isolation_test.attempts import (
    EXPECT_OPEN,
    EXPECT_SHUT,
    Attempt,
    Network,
    Rounds,
    attempt_until_settled,
)
from r1plus_monitoring.isolation_test.network import (
    CONNECT_SECONDS,
    Address,
    HostResolver,
    connect,
    describe_error,
    resolve,
)

CONNECT_ERRORS: Final = frozenset(
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
"""Errors that mean: no connection. Any other is local to this process, and says nothing of isolation."""
_WORST_FIRST: Final = (AttemptOutcome.OPEN, AttemptOutcome.FAILED, AttemptOutcome.SHUT)


async def try_connections(
    connections: tuple[ConnectionTarget, ...], expect: AttemptOutcome, rounds: Rounds, start: float
) -> Findings:
    """Try every connection until its result is stable. `expect` OPEN is for the control, whose attempts are allowed."""
    is_control = expect is AttemptOutcome.OPEN
    required = Against.DECOY if is_control else Against.OWN
    started = Network(start, open_since=start)
    waits = not is_control and any(connection.against is required for connection in connections)
    network = Network(start, open_since=None) if waits else started

    async def attempt(connection: ConnectionTarget) -> AttemptFinding:
        is_required = connection.against is required
        finding = await attempt_until_settled(
            connection.name,
            EXPECT_OPEN if is_control or is_required else EXPECT_SHUT,
            partial(attempt_connection, connection),
            rounds.extend() if is_required else rounds,
            started if is_required else network,
        )
        if is_required and finding.o is AttemptOutcome.OPEN and not network.is_open:
            network.open_since = rounds.now()
        return finding

    return Findings(tuple(await asyncio.gather(*map(attempt, connections))))


async def attempt_connection(connection: ConnectionTarget, resolver: HostResolver = resolve) -> Attempt:
    """Try every address of the connection's name once, all at once: one that is open makes it open."""
    try:
        addresses = await resolver(connection.host, connection.port)
    except OSError as error:
        return Attempt(AttemptOutcome.FAILED, f"{connection.host}: {describe_error(error)}")
    attempts = await asyncio.gather(*(_attempt_address(address, connection.against) for address in addresses))
    no_address = Attempt(AttemptOutcome.FAILED, f"{connection.host}: has no address")
    return min(attempts, key=lambda one: _WORST_FIRST.index(one.outcome), default=no_address)


async def _attempt_address(address: Address, against: Against) -> Attempt:
    try:
        connection = await connect(address)
    except OSError as error:
        is_shut = isinstance(error, TimeoutError) or error.errno in CONNECT_ERRORS
        return Attempt(AttemptOutcome.SHUT if is_shut else AttemptOutcome.FAILED, f"{address} {describe_error(error)}")
    with connection:
        if against is not Against.DECOY:
            return Attempt(AttemptOutcome.OPEN, f"{address} connected")
        if await _read_banner(connection) == BANNER:
            return Attempt(AttemptOutcome.OPEN, f"{address} is the decoy")
    return Attempt(AttemptOutcome.FAILED, f"{address} connected, but it is not the decoy that answers")


async def _read_banner(connection: socket.socket) -> bytes:
    """Read as many bytes as the decoy's banner has. Data of other servers is not read further."""
    data = b""
    with suppress(OSError):
        async with asyncio.timeout(CONNECT_SECONDS):
            while len(data) < len(BANNER):
                chunk = await asyncio.get_running_loop().sock_recv(connection, len(BANNER) - len(data))
                if not chunk:
                    break
                data += chunk
    return data
