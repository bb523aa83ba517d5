"""The names that the gateway's servers answer to, as aiohttp checks and refuses."""

from collections.abc import Set
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from r1plus_contract.process.hosts import FORBIDDEN, MISDIRECTED, find_host_problem, find_loopback_names
from r1plus_gateway.http.errors import RequestError

_CODES: Final = {MISDIRECTED: "host_not_allowed", FORBIDDEN: "origin_not_allowed"}


def check_host(request: web.Request, hosts: Set[str]) -> None:
    """Refuse a request under another name than `hosts`, or of a page that another server gave; `hosts` empty: none.

    Raises:
        RequestError: 421 for its `Host`, 403 for its `Origin`.
    """
    problem = find_host_problem(request.host, request.headers.get("Origin"), hosts)
    if problem is not None:
        status, message = problem
        raise RequestError(status, _CODES[status], message)


def build_host_check(address: str) -> Middleware:
    """Return what refuses requests by `check_host` where an application listens at `address`, if that is loopback's."""
    hosts = find_loopback_names(address)

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            check_host(request, hosts)
        except RequestError as error:
            return web.Response(status=error.status, text=f"{error.message}\n")
        return await handler(request)

    return check
