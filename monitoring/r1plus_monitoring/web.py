"""What the monitor serves: `/verdict` for the operator, `/metrics` for Prometheus, `/healthz` for people.

Read only, without authentication: the walls let only the operator's and Prometheus' namespaces reach it, and nothing
here holds a prompt or an answer.
"""

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from r1plus_contract.jsonable import dumps
from r1plus_monitoring.bulletin import Bulletin
from r1plus_monitoring.exposition import Exposition


async def serve(bulletin: Bulletin, exposition: Exposition, host: str, port: int) -> web.AppRunner:
    """Start listening; the caller cleans the runner up. OSError where the port is taken."""

    async def verdict(_: web.Request) -> web.Response:
        return web.Response(text=dumps(bulletin.report), content_type="application/json")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=exposition.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def health(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    app = web.Application()
    app.add_routes([web.get("/verdict", verdict), web.get("/metrics", metrics), web.get("/healthz", health)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner
