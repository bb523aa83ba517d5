"""HTTP exchanges with the API server: bytes to it and from it. Called by the client, which decides everything else.

A simulation of the API server is another `Transport`: the client's retries, fence and errors are the same there.
"""

import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import aiohttp
from yarl import URL

from r1plus_operator.runtime.connection import ApiConnection
from r1plus_operator.runtime.errors import TransportError


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request as it is sent; `target` is path and query, encoded."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A complete answer, whatever its status."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class HttpStream:
    """An answer whose body has not ended: `chunks` are its bytes as they arrive."""

    status: int
    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes]


class Transport(Protocol):
    """What an `ApiClient` sends requests with."""

    async def send(self, request: HttpRequest, seconds: float) -> HttpAnswer:
        """Send a request once and return its answer, within these seconds.

        Raises:
            TransportError: no complete answer came; its reason is Timeout or Transport.
        """

    def open_stream(self, request: HttpRequest, inactivity_s: float) -> AbstractAsyncContextManager[HttpStream]:
        """Send a request and return its answer at its first byte; close the connection at the end of the context.

        Raises:
            TransportError: also while chunks are read: the stream broke, or was silent for `inactivity_s`.
        """

    async def close(self) -> None:
        """Close every connection, streams included."""


class AiohttpTransport:
    """One aiohttp session, opened at the first request."""

    def __init__(self, connection: ApiConnection, *, connect_s: float, user_agent: str) -> None:
        self._connection = connection
        self._connect_s = connect_s
        self._user_agent = user_agent
        self._http: aiohttp.ClientSession | None = None

    async def send(self, request: HttpRequest, seconds: float) -> HttpAnswer:
        """Send a request once; aiohttp repeats one that is idempotent if a kept connection proves to be closed."""
        timeout = aiohttp.ClientTimeout(seconds, sock_connect=self._connect_s, ceil_threshold=seconds + 1)
        try:
            async with self._start_request(request, timeout) as response:
                return HttpAnswer(response.status, response.headers, await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _build_error(error) from error

    @asynccontextmanager
    async def open_stream(self, request: HttpRequest, inactivity_s: float) -> AsyncIterator[HttpStream]:
        """Send a request and leave its answer open."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._connect_s, sock_read=inactivity_s)
        try:
            async with self._start_request(request, timeout) as response:
                try:
                    yield HttpStream(response.status, response.headers, response.content.iter_any())
                finally:
                    if response.status < 400:
                        _abort_connection(response)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _build_error(error) from error

    async def close(self) -> None:
        """Close the session and its connections."""
        if self._http is not None:
            await self._http.close()
            self._http = None

    def _start_request(
        self, request: HttpRequest, timeout: aiohttp.ClientTimeout
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self._get_session().request(
            request.method,
            URL(f"{self._connection.server}{request.target}", encoded=True),
            data=request.body,
            headers=request.headers,
            timeout=timeout,
            allow_redirects=False,
            server_hostname=self._connection.server_name,
        )

    def _get_session(self) -> aiohttp.ClientSession:
        """Return the session; open it at the first request, since aiohttp needs the running loop.

        The connector has no limit of its own: watches hold connections for minutes and must not use up the requests'.
        Answers come uncompressed: inside a cluster the wire is cheaper than either side's processor.
        """
        if self._http is None:
            tls = self._connection.tls
            self._http = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0,
                    keepalive_timeout=60.0,
                    ssl=tls if tls is not None else True,
                    socket_factory=_create_socket,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Accept-Encoding": "identity", "User-Agent": self._user_agent},
            )
        return self._http


def _build_error(error: Exception) -> TransportError:
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return TransportError(text, reason="Timeout" if isinstance(error, TimeoutError) else "Transport")


def _abort_connection(response: aiohttp.ClientResponse) -> None:
    """Abort the connection of a stream that has not ended: closing TLS in order waits 30 s for a dead peer."""
    if response.connection is not None and response.connection.transport is not None:
        response.connection.transport.abort()


def _create_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """Create a socket that notices within a minute that its peer is gone, also while it only reads.

    client-go takes 45 s.
    """
    family, kind, protocol, _, _ = address
    new_socket = socket.socket(family, kind, protocol)
    new_socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):  # macOS spells the first one differently
            new_socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return new_socket
