"""/healthz, /readyz and /metrics of the operator, on one port, and how they detect a process that hangs."""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from r1plus_contract.process.connections import BoundedConnection, ConnectionLimits
from r1plus_operator.runtime.resources import Resource

STUCK_SECONDS = 200.0
"""A watch gets a bookmark at least every two minutes and is closed after 150 silent seconds: later it is stuck."""
LATE_SECONDS = 5.0
"""An event loop this late answers no probe in time; a healthy one is a few milliseconds late."""


class WatchActivity(Protocol):
    """What the health check reads of a reflector."""

    resource: Resource
    last_activity: float


class Pulse:
    """Measures how late the event loop is: a task that sleeps for a second and compares when it woke."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.late = 0.0
        """Seconds, at the last beat."""

    async def run(self) -> None:
        """Measure every second until cancelled."""
        while True:
            due = self._clock() + 1.0
            await asyncio.sleep(1.0)
            self.late = max(0.0, self._clock() - due)


def find_problem(
    watchers: Iterable[WatchActivity],
    late: float,
    *,
    stuck_after: float = STUCK_SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> str:
    """Return why this process should be restarted; empty if it is healthy."""
    now = clock()
    silent = [watcher.resource.name for watcher in watchers if now - watcher.last_activity > stuck_after]
    if silent:
        return f"watches without an answer for {stuck_after:g} s: {', '.join(silent)}"
    return f"the event loop was {late:.1f} s late" if late > LATE_SECONDS else ""


class _Connection(BoundedConnection, web.RequestHandler):
    """One client's connection."""


class HealthRunner(ConnectionLimits, web.AppRunner):
    """A runner with limits on connections and unfinished requests."""

    protocol = _Connection


async def serve(
    port: int, ready: Callable[[], bool], alive: Callable[[], str], registry: CollectorRegistry
) -> web.AppRunner:
    """Start the server. `alive` returns what is wrong, or an empty text. A replica without the Lease is ready as well.

    `/metrics?name[]=…` returns these metrics only, as other Prometheus clients do.
    """

    async def healthz(_: web.Request) -> web.Response:
        problem = alive()
        return web.Response(text=problem or "ok", status=503 if problem else 200)

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(text="ok") if ready() else web.Response(text="caches are not synced", status=503)

    async def metrics(request: web.Request) -> web.Response:
        names = request.query.getall("name[]", None)
        selected_registry = registry.restricted_registry(names) if names else registry
        # In a thread: with thousands of deployments this takes longer than a watch or a write should wait.
        body = await asyncio.to_thread(generate_latest, selected_registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    runner = HealthRunner(app)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner
