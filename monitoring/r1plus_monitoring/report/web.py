"""What the monitor serves: `/verdict` and `/outcomes?since=SEQUENCE` for the operator, `/metrics` for Prometheus,
`/healthz` for people.

Read only, without authentication: the walls let only the operator's and Prometheus' namespaces reach it, and nothing
here holds a prompt or an answer.
"""

import socket
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from r1plus_contract.connections import Bounded
from r1plus_contract.jsonable import dumps
from r1plus_monitoring.report.exposition import Exposition
from r1plus_monitoring.report.publisher import Bulletin

MOST_DIGITS: Final = 18
"""Of a sequence number: more than any monitor will ever count."""


class BoundedRunner(Bounded, web.AppRunner):
    """A runner whose connections and unfinished requests are bounded."""


async def serve(bulletin: Bulletin, exposition: Exposition, listener: socket.socket) -> web.AppRunner:
    """Answer on this socket; the caller cleans the runner up, which closes it."""

    async def verdict(_: web.Request) -> web.Response:
        return web.Response(text=dumps(bulletin.report), content_type="application/json")

    async def outcomes(request: web.Request) -> web.Response:
        since = request.query.get("since", "0")
        if not (since.isascii() and since.isdigit() and len(since) <= MOST_DIGITS):
            return web.Response(status=400, text=f"since: {since!r:.40} must be a whole number, 0 or more\n")
        return web.Response(text=dumps(bulletin.outcomes(int(since))), content_type="application/json")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=exposition.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def health(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    app = web.Application()
    routes = {"/verdict": verdict, "/outcomes": outcomes, "/metrics": metrics, "/healthz": health}
    app.add_routes([web.get(path, answer) for path, answer in routes.items()])
    runner = BoundedRunner(app)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    return runner
