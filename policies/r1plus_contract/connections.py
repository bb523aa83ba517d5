"""How many connections a server of ours holds and how large an unfinished request may be: no peer fills its memory."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, Protocol

MOST: Final = 64
"""Connections at once."""
MOST_OF_PEER: Final = 32
"""Connections at once from one address. The operator and Prometheus have one or two to a server, an Ingress more."""
REQUEST_LIMITS: Final[Mapping[str, Any]] = MappingProxyType(
    {"max_line_size": 2048, "max_field_size": 4096, "max_headers": 48, "keepalive_timeout": 30.0}
)
"""For aiohttp's `AppRunner`. The largest field is a token, of 1 to 2 kB. A connection without a whole request is closed
after `keepalive_timeout` seconds; our clients close an unused one after 15."""


class Connection(Protocol):
    """Of a client; aiohttp's `RequestHandler`."""

    @property
    def peername(self) -> Any:
        """The client's address and port; None where it has gone."""

    def force_close(self) -> None:
        """Close it without finishing the request."""


class Server(Protocol):
    """Makes a protocol for each connection; aiohttp's `Server`."""

    @property
    def connections(self) -> list[Any]:
        """Those that are open, the oldest first."""

    def __call__(self) -> Any:
        """Return the protocol of a new connection."""


def bounded(server: Server, most: int = MOST, most_of_peer: int = MOST_OF_PEER) -> Callable[[], Any]:
    """Return a factory of the server's protocols that closes the oldest connections where there are too many.

    A peer with too many loses its own first, so that nobody else's request is cut off. A new one is never refused:
    whoever holds all connections open would otherwise keep everybody else out.
    """

    def close_excess() -> None:
        connections: list[Connection] = server.connections
        of_peer: Counter[str] = Counter()
        kept = 0
        for connection in reversed(connections):
            peer = str((connection.peername or ("",))[0])
            if kept >= most or of_peer[peer] >= most_of_peer:
                connection.force_close()
            else:
                kept += 1
                of_peer[peer] += 1

    def accept() -> Any:
        # The server knows the new connection a moment later: one more than the limit may be open.
        asyncio.get_running_loop().call_soon(close_excess)
        return server()

    return accept


class Bounded:
    """Mixed into aiohttp's `AppRunner`, which the contract does not import: who reaches its port fills no memory."""

    def __init__(self, app: Any, **options: Any) -> None:
        super().__init__(app, access_log=None, **options, **REQUEST_LIMITS)  # type: ignore[call-arg]

    @property
    def server(self) -> Any:
        """What a site asks for the protocol of each new connection, and nothing else."""
        server = super().server  # type: ignore[misc]
        return bounded(server) if server is not None else None
