"""Names that a gateway answers to: a page of another origin must not reach it through the browser of its user.

A gateway on loopback has no network policy before it. A name of an attacker's may resolve to 127.0.0.1 (DNS
rebinding): then a browser takes the gateway for that name's server, and lets the page read its answers.
"""

import ipaddress
from collections.abc import Set
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from r1plus_gateway.http.errors import RequestError

_LOCALHOST = "localhost"


def check_host(request: web.Request, hosts: Set[str]) -> None:
    """Refuse a request under another name than `hosts`, or of a page that another server gave; `hosts` empty: none.

    Raises:
        RequestError: 421 for its `Host`, 403 for its `Origin`.
    """
    if not hosts:
        return
    if read_name(f"//{request.host}") not in hosts:
        raise RequestError(
            421, "host_not_allowed", f"Host: is none of {', '.join(sorted(hosts))}; call the gateway by one of them"
        )
    origin = request.headers.get("Origin")
    if origin is not None and origin.lower().partition("://")[2] != request.host.lower():
        raise RequestError(
            403, "origin_not_allowed", "Origin: pages of other origins may not call; call from a program, or a server"
        )


def build_host_check(address: str) -> Middleware:
    """Return what refuses requests by `check_host` where an application listens at `address`, if that is loopback's."""
    hosts = _find_names(address)

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            check_host(request, hosts)
        except RequestError as error:
            return web.Response(status=error.status, text=f"{error.message}\n")
        return await handler(request)

    return check


def _find_names(address: str) -> Set[str]:
    """Return the names of loopback's `address`; none if it is another one's."""
    if address.lower() == _LOCALHOST:
        return {_LOCALHOST, "127.0.0.1", "::1"}
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return set()  # It is another name, or empty.
    return {_LOCALHOST, str(parsed)} if parsed.is_loopback else set()


def read_name(address: str) -> str:
    """Return the host of an address in lower case, without its port and brackets; empty if there is none."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""
