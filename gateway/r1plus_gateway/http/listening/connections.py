"""Connections of clients: how many, how large a request's head may be, and what is answered to what is no HTTP."""

import asyncio
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from aiohttp import web

from r1plus_contract.process.connections import RECEIVE_BYTES, BoundedConnection, ConnectionFactory, limit_connections
from r1plus_gateway.http.errors import RequestError

MOST_CONNECTIONS: Final = 4096
MOST_INTERNAL_CONNECTIONS: Final = 64
"""To the internal port, so that a probe gets in while the public port is full."""
BACKLOG: Final = 1024
MOST_HANDSHAKES: Final = 1024
"""TLS handshakes at once; further clients are closed."""
MOST_HANDSHAKES_OF_PEER: Final = 256
HANDSHAKE_SECONDS: Final = 10.0
ACCEPT_AGAIN_SECONDS: Final = 0.5
"""After an error, such as too many open files."""
CANCEL_SECONDS: Final = 1.0
"""For a cancelled handler to begin its settlement, which is waited for elsewhere."""
SEND_BYTES: Final = 16 * 1024
"""What may be unsent before the next write waits."""
MOST_LOOK_SECONDS: Final = 2.0
"""Between two looks at clients that do not read."""
SETTLE_SECONDS: Final = 0.2
"""For who has just connected to send a request, before idle connections are closed."""
MOST_CONNECTIONS_OF_PEER: Final = 2048
"""A peer may be an Ingress controller, behind which all clients are."""
UNKNOWN_EXPECTATION: Final = "Expect: is not 100-continue, the only one that there is; leave the header out"
RUNNER_OPTIONS: Final[Mapping[str, Any]] = {
    "access_log": None,
    "handler_cancellation": True,
    "auto_decompress": False,
    "max_line_size": 4096,
    "max_field_size": 8190,
    "max_headers": 64,
    "lingering_time": 1.0,  # for the rest of a body that was refused
}

log = logging.getLogger(__name__)
# aiohttp would log what it cannot parse, so a key in a malformed header; handlers' errors are logged by the handlers.
_QUIET: Final = logging.getLogger(f"{__name__}.parser")
_QUIET.setLevel(logging.CRITICAL + 1)


class ClientConnection(BoundedConnection, web.RequestHandler):
    """One client's connection. What cannot be parsed is not quoted in the answer either."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._unsent_bytes = 0
        self._progress_at = 0.0

    @property
    def rank(self) -> int:
        """0 nothing is lost, 1 an answer that is written, 2 one that is being made.

        Only a caller with a credential keeps a connection busy, so others do not cut its answers off.
        """
        return 2 if self._current_request is not None else int(self._request_in_progress)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        super().connection_made(transport)
        self._client.set_write_buffer_limits(high=SEND_BYTES)

    def evict(self) -> None:
        """Close it; at once if that has begun already, and the client does not read the rest."""
        if self.transport is None:
            super().evict()
        else:
            self.force_close()

    def cut_slow_reader(self, now: float, seconds: float) -> None:
        """End the connection of a client that has taken nothing for so long. An event stream cuts its own."""
        is_watched = self._client is not None and self._current_request is None
        unsent = self._client.get_write_buffer_size() if is_watched else 0
        if not unsent or unsent < self._unsent_bytes:
            self._progress_at = now
        elif now - self._progress_at >= seconds:
            self._client.abort()
        self._unsent_bytes = unsent

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 - aiohttp calls it so
        """Let a running answer end within `timeout` seconds; then cancel it. aiohttp's own waits for it twice."""
        task = self._task_handler
        if self._request_in_progress and task is not None:
            self._force_close = True  # no request follows
            _, running = await asyncio.wait([task], timeout=timeout)
            if running:
                task.cancel()
                await asyncio.wait([task], timeout=CANCEL_SECONDS)
        await super().shutdown(CANCEL_SECONDS)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer. aiohttp refuses an `Expect` before any handler sees the request, and in plain text."""
        if isinstance(resp, web.HTTPExpectationFailed):
            resp = RequestError(417, "expectation_failed", UNKNOWN_EXPECTATION).build_response()
        return await super().finish_response(request, resp, start_time)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the answer to a request that no handler has seen."""
        if request.writer.output_size > 0:
            raise ConnectionError("a part of the answer is sent already")
        error = RequestError(status, "invalid_request", "the request is not valid HTTP, or its head is too large")
        if status >= 500:
            error = RequestError(status, "internal_error", "the gateway failed; report this request")
        response = error.build_response()
        response.headers["Server"] = "r1plus"  # instead of aiohttp's, with its version
        response.force_close()
        return response


def create_listener(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return adopt_listener(socket.create_server((host, port), family=family, backlog=BACKLOG))


def adopt_listener(listener: socket.socket) -> socket.socket:
    """Return a socket that listens, set up for clients."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)  # connections inherit it
    listener.setblocking(False)
    return listener


class TlsSite(web.BaseSite):
    """A site that accepts by itself, so that it bounds what has not finished its TLS handshake.

    Such a connection costs 50 KB and belongs to no server yet, so `limit_connections` does not see it.
    """

    def __init__(self, runner: web.BaseRunner, listener: socket.socket, context: ssl.SSLContext) -> None:
        super().__init__(runner, ssl_context=context)
        self._connect: Any = runner.server
        self._listener = listener
        self._accepting: asyncio.Task[None] | None = None
        self._handshakes: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def name(self) -> str:
        """See `BaseSite`."""
        host, port = self._listener.getsockname()[:2]
        return f"https://{host}:{port}"

    async def start(self) -> None:
        """Begin to accept."""
        await super().start()
        self._accepting = asyncio.create_task(self._accept())
        self._server = _Listening(self._listener)  # type: ignore[assignment]

    async def stop(self) -> None:
        """Accept no more, and give up handshakes."""
        await super().stop()
        tasks = [*self._tasks, *([self._accepting] if self._accepting else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._listener.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, address = await loop.sock_accept(self._listener)
            except OSError as error:
                log.warning("No connection could be accepted: %s", error)
                await asyncio.sleep(ACCEPT_AGAIN_SECONDS)
                continue
            peer = str(address[0])
            if self._handshakes[peer] >= MOST_HANDSHAKES_OF_PEER or len(self._tasks) >= MOST_HANDSHAKES:
                client.close()
                continue
            self._handshakes[peer] += 1  # Here, for many are accepted before the first task begins.
            task = asyncio.create_task(self._shake_hands(client, peer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _shake_hands(self, client: socket.socket, peer: str) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._connect, client, ssl=self._ssl_context, ssl_handshake_timeout=HANDSHAKE_SECONDS
            )
        except OSError:  # TLS errors and time-outs are some
            client.close()
        finally:
            self._handshakes[peer] -= 1
            if not self._handshakes[peer]:
                del self._handshakes[peer]


class _Listening:
    """Where a site listens, for its runner."""

    def __init__(self, listener: socket.socket) -> None:
        self.sockets = [listener]

    def close(self) -> None:
        """The site closes it."""
        self.sockets.clear()


class GatewayRunner(web.AppRunner):
    """A runner that cancels handlers whose clients leave, bounds connections, and cuts clients that do not read."""

    def __init__(
        self,
        app: web.Application,
        *,
        slow_reader_seconds: float = 30.0,
        read_drain_seconds: Callable[[], float] | None = None,
        most_connections: int | None = None,
        **options: Any,
    ) -> None:
        """`read_drain_seconds`: longest time for running answers, asked when they have to end.

        `most_connections`: fewer than MOST_CONNECTIONS.
        """
        super().__init__(app, **RUNNER_OPTIONS, logger=_QUIET, **options)
        self._read_drain_seconds = read_drain_seconds
        self._slow_reader_seconds = slow_reader_seconds
        self._most_connections = most_connections
        self._watch: asyncio.Task[None] | None = None

    async def setup(self) -> None:
        """Begin, before any site."""
        await super().setup()
        self._watch = asyncio.create_task(self._cut_slow_readers())

    async def cleanup(self) -> None:
        """End: a client that does not read holds up the drain no longer than otherwise."""
        try:
            if self._read_drain_seconds is not None:
                self._shutdown_timeout = self._read_drain_seconds()
                for site in self.sites:
                    await site.stop()
                await asyncio.sleep(SETTLE_SECONDS)
            await super().cleanup()
        finally:
            if self._watch is not None:
                self._watch.cancel()

    async def _cut_slow_readers(self) -> None:
        loop, seconds = asyncio.get_running_loop(), self._slow_reader_seconds
        while True:
            await asyncio.sleep(min(MOST_LOOK_SECONDS, seconds / 4))
            server = super().server
            connections: list[Any] = server.connections if server is not None else []
            for connection in connections:
                connection.cut_slow_reader(loop.time(), seconds)

    @property
    def server(self) -> Any:
        """The factory that a site calls for the protocol of each new connection."""
        server = super().server
        if server is None:
            return None
        most = min(MOST_CONNECTIONS, self._most_connections or MOST_CONNECTIONS)
        most_of_peer = min(MOST_CONNECTIONS_OF_PEER, max(1, most // 2))
        return limit_connections(ConnectionFactory(server, ClientConnection), most, most_of_peer)
