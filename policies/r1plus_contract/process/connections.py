"""Limits on the connections and unfinished requests of our servers, and on what servers answer to our clients: neither
fills the other's memory.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final, Protocol

MOST_CONNECTIONS: Final = 64
"""Connections at once."""
MOST_CONNECTIONS_OF_PEER: Final = 32
"""Connections at once from one address. The operator and Prometheus have one or two to a server, an Ingress more."""
_SLACK: Final = 64
"""Part of the bound of a peer by which it may be exceeded for a moment."""
MOST_WAITING_REQUESTS: Final = 1
"""Whole requests of a connection that wait for the answer to another one; our clients send one at a time."""
RECEIVE_BYTES: Final = 64 * 1024
"""What the kernel keeps of a connection that is not read; by default it may be 6 MB."""
SHUTDOWN_SECONDS: Final = 1.0
"""For answers that run when a server ends; aiohttp waits twice as long. A client may read nothing for ever."""
REQUEST_LIMITS: Final[Mapping[str, Any]] = MappingProxyType(
    {"max_line_size": 2048, "max_field_size": 4096, "max_headers": 48, "keepalive_timeout": 30.0}
)
"""For aiohttp's `AppRunner`. The largest field is a token, of 1 to 2 kB. A connection without a whole request is
closed
after `keepalive_timeout` seconds; our clients close an unused one after 15."""


MOST_RESPONSE_BYTES: Final = 2 * 1024 * 1024
"""Of one answer on the wire, head and all: twice the largest that a client of ours reads."""
_PIECE_BYTES: Final = 4096
"""What is parsed at once of an answer: at most some hundred heads."""
PLAIN: Final[Mapping[str, str]] = MappingProxyType({"Accept-Encoding": "identity"})
"""Headers of a client that unpacks nothing."""


class Connection(Protocol):
    """The connection of a client; a `BoundedConnection`."""

    @property
    def peername(self) -> Any:
        """The client's address and port; None where it has gone."""

    @property
    def rank(self) -> int:
        """How much is lost with the connection: those with the least go first."""

    def evict(self) -> None:
        """Close it without finishing the request."""


class Server(Protocol):
    """Creates a protocol for each connection; `ConnectionFactory`."""

    @property
    def connections(self) -> list[Any]:
        """The open connections, the oldest first."""

    def __call__(self) -> Any:
        """Return the protocol of a new connection."""


class BoundedConnection:
    """Mixed into aiohttp's `RequestHandler`, which the contract does not import: one connection costs little memory.

    A loop may read up to 8 MB before anything else runs, and aiohttp keeps each piece that it could not parse, twice.
    So after the first such piece all others are dropped. It also reads 32 requests ahead, each with a whole head.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._max_msg_queue_size, self._msg_queue_resume_size = MOST_WAITING_REQUESTS, 0
        self._client: Any = None
        self._is_broken = False

    @property
    def rank(self) -> int:
        """See `Connection`."""
        return 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin. aiohttp forgets a transport that it closes, though what is unsent keeps it open."""
        self._client = transport
        self._client.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        super().connection_made(transport)  # type: ignore[misc]

    def connection_lost(self, exc: BaseException | None) -> None:
        """End."""
        self._client = None
        super().connection_lost(exc)  # type: ignore[misc]

    def data_received(self, data: bytes) -> None:
        """Parse what has come, unless something before it could not be parsed."""
        if self._is_broken:
            return
        super().data_received(data)  # type: ignore[misc]
        messages: Any = self._messages  # type: ignore[attr-defined]
        self._is_broken = bool(messages) and hasattr(messages[-1][0], "exc")

    def evict(self) -> None:
        """Close it at once. aiohttp waits until the client has read what is unsent, so perhaps for ever."""
        if self._client is not None:
            self._client.abort()

    def handle_error(
        self, request: Any, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> Any:
        """Return the answer to a request that failed, or that is no HTTP: such a one is not quoted, nor logged."""
        if status < 500:
            exc, message = None, "the request is not valid HTTP, or its head is too large\n"
        return super().handle_error(request, status, exc, message)  # type: ignore[misc]

    def log_exception(self, *args: Any, **options: Any) -> None:
        """Log what a handler raised."""
        if options.get("exc_info") is not None:
            super().log_exception(*args, **options)  # type: ignore[misc]


class ConnectionFactory:
    """Makes the protocol of each new connection for an aiohttp server."""

    def __init__(self, server: Any, protocol: type[Any]) -> None:
        """`protocol`: a `RequestHandler` with `BoundedConnection`."""
        self._server = server
        self._protocol = protocol

    @property
    def connections(self) -> list[Any]:
        """The open connections, the oldest first."""
        connections: list[Any] = self._server.connections
        return connections

    def __call__(self) -> Any:
        """Return the protocol of a new connection."""
        return self._protocol(self._server, loop=self._server._loop, **self._server._kwargs)


def limit_connections(
    server: Server, most: int = MOST_CONNECTIONS, most_of_peer: int = MOST_CONNECTIONS_OF_PEER
) -> Callable[[], Any]:
    """Return a factory of the server's protocols that closes the oldest connections where there are too many.

    A peer with too many loses its own first, so that no other client is cut off. Where there are too many in all, the
    peer that has the most loses its own. A new one is never refused: otherwise a client that holds all connections
    would lock out the others.
    """
    return _BoundedFactory(server, most, most_of_peer)


class _BoundedFactory:
    """See `limit_connections`.

    A look at thousands of connections takes milliseconds, so a flood must not cause one with each. There is one for all
    that come in a turn of the loop, and only where a bound can be exceeded.
    """

    def __init__(self, server: Server, most: int, most_of_peer: int) -> None:
        self._server = server
        self._most, self._most_of_peer = most, most_of_peer
        self._slack = most_of_peer // _SLACK
        self._room = min(most, most_of_peer)
        """Connections that may come before the next look."""
        self._is_due = False
        self._unseen = 0
        """Connections that have come since a look is due: it may not see them yet."""

    def __call__(self) -> Any:
        """Return the protocol of a new connection."""
        self._room -= 1
        self._unseen += 1
        if self._room < 0 and not self._is_due:
            self._is_due, self._unseen = True, 0
            loop = asyncio.get_running_loop()
            # The server knows the new connection a turn later.
            loop.call_soon(loop.call_soon, self._close_excess)
        return self._server()

    def _close_excess(self) -> None:
        self._is_due = False
        ranked = sorted(self._server.connections, key=lambda connection: connection.rank)
        of_peer: Counter[str] = Counter()
        places = []
        for connection in reversed(ranked):
            peer = str((connection.peername or ("",))[0])
            of_peer[peer] += 1
            places.append((-connection.rank, of_peer[peer], peer, connection))
        # Of equal ranks the peer with the most goes first, so that a flood from many addresses shuts no other out.
        ordered = sorted(places, key=lambda place: place[:2])
        kept = [place for place in ordered if place[1] <= self._most_of_peer][: self._most]
        staying = {id(connection) for *_, connection in kept}
        for connection in ranked:
            if id(connection) not in staying:
                connection.evict()
        most_of_one = max(Counter(peer for *_, peer, _ in kept).values(), default=0)
        room = min(self._most - len(kept), self._most_of_peer - most_of_one)
        self._room = max(room, self._slack) - self._unseen


class ConnectionLimits:
    """Mixed into aiohttp's `AppRunner`, which the contract does not import: clients cannot fill the memory."""

    protocol: type[Any]
    """`RequestHandler` with `BoundedConnection`."""

    def __init__(self, app: Any, *, shutdown_timeout: float | None = None, **options: Any) -> None:
        timeout = SHUTDOWN_SECONDS if shutdown_timeout is None else shutdown_timeout
        super().__init__(  # type: ignore[call-arg]
            app, access_log=None, shutdown_timeout=timeout, **options, **REQUEST_LIMITS
        )

    async def cleanup(self) -> None:
        """End. What a client has not read by then is dropped: aiohttp would leave its connection open."""
        server: Any = super().server  # type: ignore[misc]
        connections: list[Connection] = server.connections if server is not None else []
        await super().cleanup()  # type: ignore[misc]
        for connection in connections:
            connection.evict()

    @property
    def server(self) -> Any:
        """The factory that a site calls for the protocol of each new connection."""
        server = super().server  # type: ignore[misc]
        return limit_connections(ConnectionFactory(server, self.protocol)) if server is not None else None


class BoundedResponse:
    """Mixed into aiohttp's `ResponseHandler`, which the contract does not import: one answer to each request.

    aiohttp reads interim answers (1xx), and whole ones without a request, without end. It keeps each parsed, a
    hundred times as large as on the wire, and meanwhile nothing else of the process runs.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._room = 0
        self._has_answer = self._is_refused = False

    def set_response_params(self, **options: Any) -> None:
        """Begin a request."""
        self._room, self._has_answer = MOST_RESPONSE_BYTES, False
        super().set_response_params(**options)  # type: ignore[misc]

    def data_received(self, data: bytes) -> None:
        """Parse what has come, in pieces, up to what one answer may take. aiohttp calls it without data as well."""
        for start in range(0, len(data) or 1, _PIECE_BYTES):
            piece = data[start : start + _PIECE_BYTES]
            self._room -= len(piece)
            if self._room < 0:
                self._refuse()
            if self._is_refused:
                return
            super().data_received(piece)  # type: ignore[misc]

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Take the head of an answer."""
        if self._has_answer or data[0].code < 200:
            self._refuse()
        else:
            self._has_answer = True
            super().feed_data(data, size)  # type: ignore[misc]

    def _refuse(self) -> None:
        """Close the connection: who waits for the answer gets the error of a server that is gone."""
        self._is_refused = True
        transport: Any = self.transport  # type: ignore[attr-defined]
        if transport is not None:
            transport.abort()


def limit_responses(connector: Any, handler: Callable[..., Any]) -> Any:
    """Return aiohttp's connector, whose connections have this protocol: `ResponseHandler` with `BoundedResponse`."""
    connector._factory = partial(handler, loop=connector._loop)
    return connector
