"""Name resolution and connections, each with a timeout of its own: the system calls have none."""

import asyncio
import os
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

CONNECT_SECONDS: Final = 2.0
RESOLVE_SECONDS: Final = 6.0
"""The system's resolver retries after 5 s: the first query of a new pod may have been lost."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where one connection goes."""

    family: int
    where: tuple[Any, ...]
    """As the system defines it: host, port and what the family adds."""

    def __str__(self) -> str:
        return str(self.where[0])


class HostResolver(Protocol):
    """Finds the addresses of a name; raises OSError."""

    async def __call__(self, host: str, port: int) -> tuple[Address, ...]: ...


async def resolve(host: str, port: int) -> tuple[Address, ...]:
    """Resolve all addresses of a host; raise OSError, TimeoutError among them.

    In a thread of its own, which the process does not wait for at its end. A resolver whose server is blocked takes
    most of a minute, and cannot be stopped.
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
        addresses, error = _look_up(host, port)
        # Closed: the answer came after the end.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, addresses, error)

    threading.Thread(target=ask, daemon=True).start()
    async with asyncio.timeout(RESOLVE_SECONDS):
        return await answer


def _look_up(host: str, port: int) -> tuple[tuple[Address, ...], OSError | None]:
    try:
        entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:
        return (), OSError("is not a valid host name")
    except OSError as error:
        return (), error
    return tuple(dict.fromkeys(Address(family, where) for family, _, _, _, where in entries)), None


async def connect(address: Address) -> socket.socket:
    """Open a connection, for the caller to close; raise OSError, TimeoutError among them."""
    connection = socket.socket(address.family, socket.SOCK_STREAM)
    connection.setblocking(False)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await asyncio.get_running_loop().sock_connect(connection, address.where)
    except BaseException:
        connection.close()
        raise
    return connection


def describe_error(error: OSError) -> str:
    """Describe a network error in the system's words, which asyncio replaces by its own."""
    if error.errno is None:
        return "timed out" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
    words = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno)
    return str(words).lower()
