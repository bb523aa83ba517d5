"""Names to addresses and addresses to connections, each within a time that the system's own calls do not keep."""

import asyncio
import os
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

CONNECT_SECONDS: Final = 2.0
RESOLVE_SECONDS: Final = 6.0
"""The system's resolver asks again after 5 s: the first question of a new pod may have been lost."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where one connection goes."""

    family: int
    where: tuple[Any, ...]
    """As the system has it: host, port and whatever its family adds."""

    def __str__(self) -> str:
        return str(self.where[0])


class Resolver(Protocol):
    """Finds the addresses of a name; raises OSError."""

    async def __call__(self, host: str, port: int) -> tuple[Address, ...]: ...


async def resolve(host: str, port: int) -> tuple[Address, ...]:
    """All addresses that the system's resolver knows; raises OSError, TimeoutError among them.

    In a thread of its own, which the process does not wait for when it ends: a resolver whose server is walled off
    takes most of a minute, and cannot be stopped.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[tuple[Address, ...]] = loop.create_future()

    def settle(addresses: tuple[Address, ...], error: OSError | None) -> None:
        if answer.done():
            return
        if error:
            answer.set_exception(error)
        else:
            answer.set_result(addresses)

    def ask() -> None:
        addresses, error = _looked_up(host, port)
        # Closed: the answer came after the end.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, addresses, error)

    threading.Thread(target=ask, daemon=True).start()
    async with asyncio.timeout(RESOLVE_SECONDS):
        return await answer


def _looked_up(host: str, port: int) -> tuple[tuple[Address, ...], OSError | None]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:
        return (), OSError("is no name that can be looked up")
    except OSError as error:
        return (), error
    return tuple(dict.fromkeys(Address(family, where) for family, _, _, _, where in found)), None


async def connect(address: Address) -> socket.socket:
    """A connection, for the caller to close; raises OSError, TimeoutError among them."""
    connection = socket.socket(address.family, socket.SOCK_STREAM)
    connection.setblocking(False)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await asyncio.get_running_loop().sock_connect(connection, address.where)
    except BaseException:
        connection.close()
        raise
    return connection


def said(error: OSError) -> str:
    """What an error of the network says, in words: asyncio puts its own in their place."""
    if error.errno is None:
        return "timed out" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
    words = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno)
    return str(words).lower()
