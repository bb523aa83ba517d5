"""What the monitor serves: `/verdict` and `/outcomes?since=SEQUENCE` for the operator, `/metrics` for Prometheus,
`/healthz` for people.

Read only, without authentication. Network policies let only the namespaces of the operator and of Prometheus reach
it, and nothing here contains a prompt or an answer. On loopback no page in a browser reaches it, by whatever name.
"""

import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import CONTENT_TYPE_LATEST

from r1plus_contract.jsonable import dumps
from r1plus_contract.process.connections import BoundedConnection, ConnectionLimits
from r1plus_contract.process.hosts import find_host_problem, find_loopback_names
from r1plus_monitoring.report.exposition import Exposition
from r1plus_monitoring.report.publisher import ReportPublisher

MOST_DIGITS: Final = 18
"""Of a sequence number: more than any monitor will ever count."""


class _Connection(BoundedConnection, web.RequestHandler):
    """One client's connection."""


class MonitorRunner(ConnectionLimits, web.AppRunner):
    """A runner whose connections and unfinished requests are bounded."""

    protocol = _Connection


async def count_nothing() -> int | None:
    """Return that the number of requests is not known."""
    return None


def _build_host_check(address: str) -> Middleware:
    hosts = find_loopback_names(address)

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        problem = find_host_problem(request.host, request.headers.get("Origin"), hosts)
        if problem is not None:
            status, message = problem
            return web.Response(status=status, text=f"{message}\n")
        return await handler(request)

    return check


async def serve(
    publisher: ReportPublisher,
    exposition: Exposition,
    listener: socket.socket,
    count_user_requests: Callable[[], Awaitable[int | None]] = count_nothing,
) -> web.AppRunner:
    """Serve on this socket; the caller cleans the runner up, which closes it."""

    async def get_verdict(_: web.Request) -> web.Response:
        report = replace(publisher.report, user_requests=await count_user_requests())
        return web.Response(text=dumps(report), content_type="application/json")

    async def get_outcomes(request: web.Request) -> web.Response:
        since = request.query.get("since", "0")
        if not (since.isascii() and since.isdigit() and len(since) <= MOST_DIGITS):
            return web.Response(status=400, text=f"since: {since!r:.40} must be a whole number, 0 or more\n")
        return web.Response(text=dumps(publisher.build_outcome_page(int(since))), content_type="application/json")

    async def get_metrics(_: web.Request) -> web.Response:
        return web.Response(body=exposition.render(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def get_health(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    app = web.Application(middlewares=[_build_host_check(str(listener.getsockname()[0]))])
    routes = {"/verdict": get_verdict, "/outcomes": get_outcomes, "/metrics": get_metrics, "/healthz": get_health}
    app.add_routes([web.get(path, handler) for path, handler in routes.items()])
    runner = MonitorRunner(app)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    return runner
