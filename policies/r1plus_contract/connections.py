"""Limits on the connections and unfinished requests of our servers: no client fills their memory."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, Protocol

MOST_CONNECTIONS: Final = 64
"""Connections at once."""
MOST_CONNECTIONS_OF_PEER: Final = 32
"""Connections at once from one address. The operator and Prometheus have one or two to a server, an Ingress more."""
REQUEST_LIMITS: Final[Mapping[str, Any]] = MappingProxyType(
    {"max_line_size": 2048, "max_field_size": 4096, "max_headers": 48, "keepalive_timeout": 30.0}
)
"""For aiohttp's `AppRunner`. The largest field is a token, of 1 to 2 kB. A connection without a whole request is
closed
after `keepalive_timeout` seconds; our clients close an unused one after 15."""


class Connection(Protocol):
    """The connection of a client; aiohttp's `RequestHandler`."""

    @property
    def peername(self) -> Any:
        """The client's address and port; None where it has gone."""

    def force_close(self) -> None:
        """Close it without finishing the request."""


class Server(Protocol):
    """Creates a protocol for each connection; aiohttp's `Server`."""

    @property
    def connections(self) -> list[Any]:
        """The open connections, the oldest first."""

    def __call__(self) -> Any:
        """Return the protocol of a new connection."""


def limit_connections(
    server: Server, most: int = MOST_CONNECTIONS, most_of_peer: int = MOST_CONNECTIONS_OF_PEER
) -> Callable[[], Any]:
    """Return a factory of the server's protocols that closes the oldest connections where there are too many.

    A peer with too many loses its own first, so that no other client is cut off. A new one is never refused:
    otherwise a
    client that holds all connections would lock out the others.
    """

    def close_excess() -> None:
        connections: list[Connection] = server.connections
        of_peer: Counter[str] = Counter()
        open_count = 0
        for connection in reversed(connections):
            peer = str((connection.peername or ("",))[0])
            if open_count >= most or of_peer[peer] >= most_of_peer:
                connection.force_close()
            else:
                open_count += 1
                of_peer[peer] += 1

    def accept() -> Any:
        # The server knows the new connection a moment later: one more than the limit may be open.
        asyncio.get_running_loop().call_soon(close_excess)
        return server()

    return accept


class ConnectionLimits:
    """Mixed into aiohttp's `AppRunner`, which the contract does not import: clients cannot fill the memory."""

    def __init__(self, app: Any, **options: Any) -> None:
        super().__init__(app, access_log=None, **options, **REQUEST_LIMITS)  # type: ignore[call-arg]

    @property
    def server(self) -> Any:
        """The factory that a site calls for the protocol of each new connection."""
        server = super().server  # type: ignore[misc]
        return limit_connections(server) if server is not None else None
