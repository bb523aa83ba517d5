"""Connections of clients: how many, how large a request's head may be, and what is answered to what is no HTTP."""

import logging
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from r1plus_contract.connections import limit_connections
from r1plus_gateway.http.errors import RequestError

MOST_CONNECTIONS: Final = 4096
MOST_CONNECTIONS_OF_PEER: Final = 2048
"""A peer may be an Ingress controller, behind which all clients are."""
RUNNER_OPTIONS: Final[Mapping[str, Any]] = {
    "access_log": None,
    "handler_cancellation": True,
    "auto_decompress": False,
    "max_line_size": 4096,
    "max_field_size": 8190,
    "max_headers": 64,
    "lingering_time": 1.0,  # for the rest of a body that was refused
}

# aiohttp would log what it cannot parse, so a key in a malformed header; handlers' errors are logged by the handlers.
_QUIET: Final = logging.getLogger(f"{__name__}.parser")
_QUIET.setLevel(logging.CRITICAL + 1)


class Connection(web.RequestHandler):
    """One client's connection. What cannot be parsed is not quoted in the answer either."""

    __slots__ = ()

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


class _ConnectionFactory:
    """Makes the protocol of each new connection for a server."""

    def __init__(self, server: Any) -> None:
        self._server = server

    @property
    def connections(self) -> list[Any]:
        """See `r1plus_contract.connections.Server`."""
        connections: list[Any] = self._server.connections
        return connections

    def __call__(self) -> Connection:
        return Connection(self._server, loop=self._server._loop, **self._server._kwargs)


class GatewayRunner(web.AppRunner):
    """A runner that cancels handlers whose clients leave, and that bounds connections."""

    def __init__(self, app: web.Application, **options: Any) -> None:
        super().__init__(app, **RUNNER_OPTIONS, logger=_QUIET, **options)

    @property
    def server(self) -> Any:
        """The factory that a site calls for the protocol of each new connection."""
        server = super().server
        if server is None:
            return None
        return limit_connections(_ConnectionFactory(server), MOST_CONNECTIONS, MOST_CONNECTIONS_OF_PEER)
