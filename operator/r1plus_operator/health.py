"""/healthz, /readyz and /metrics of the operator, on one port; and what they tell of a process that lives but hangs."""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from r1plus_contract.connections import ConnectionLimits
from r1plus_operator.runtime.resources import Resource

STUCK_SECONDS = 200.0
"""A watch brings a bookmark every two minutes at the latest and is cut after 150 silent seconds: then it is stuck."""
LATE_SECONDS = 5.0
"""An event loop this late answers no probe in time; work that waits for others is a few milliseconds late."""


class Watcher(Protocol):
    """What is asked of a reflector."""

    resource: Resource
    last_activity: float


class Pulse:
    """How late the event loop is: a task that wants to wake every second and looks at when it did."""

    def __init__(self) -> None:
        self.late = 0.0
        """Seconds, of the last beat."""

    async def run(self) -> None:
        """Beat for ever."""
        while True:
            due = time.monotonic() + 1.0
            await asyncio.sleep(1.0)
            self.late = max(0.0, time.monotonic() - due)


def problem(watchers: Iterable[Watcher], late: float, *, stuck_after: float = STUCK_SECONDS) -> str:
    """Why this process should be started afresh; empty when all is well."""
    now = time.monotonic()
    silent = [watcher.resource.name for watcher in watchers if now - watcher.last_activity > stuck_after]
    if silent:
        return f"watches without an answer for {stuck_after:g} s: {', '.join(silent)}"
    return f"the event loop was {late:.1f} s late" if late > LATE_SECONDS else ""


class BoundedRunner(ConnectionLimits, web.AppRunner):
    """A runner whose connections and unfinished requests are bounded."""


async def serve(
    port: int, ready: Callable[[], bool], alive: Callable[[], str], registry: CollectorRegistry
) -> web.AppRunner:
    """Start the server. `alive` returns what is wrong, or nothing. A replica without the Lease is ready as well.

    `/metrics?name[]=…` tells of these metrics only, as other Prometheus clients do.
    """

    async def healthz(_: web.Request) -> web.Response:
        found = alive()
        return web.Response(text=found or "ok", status=503 if found else 200)

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(text="ok") if ready() else web.Response(text="caches are not synced", status=503)

    async def metrics(request: web.Request) -> web.Response:
        chosen = request.query.getall("name[]", None)
        asked = registry.restricted_registry(chosen) if chosen else registry
        # In a thread: with thousands of deployments it takes longer than a watch or a write should wait.
        body = await asyncio.to_thread(generate_latest, asked)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    runner = BoundedRunner(app)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner
