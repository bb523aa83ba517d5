"""What answers for the monitors of pods that a test plays: an HTTP server that says what the test lets it say."""

import itertools
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from aiohttp import web
from aiohttp.typedefs import Handler

from r1plus_contract import names
from r1plus_contract.engine.engine_fetch import PROGRESS_PATH, FillProgress
from r1plus_contract.jsonable import dumps
from r1plus_contract.monitor.outcomes import OutcomePage, ProbeOutcome
from r1plus_contract.verdict import MonitorReport, SweepFigures, Watch, WatchStanding
from support.waiting import eventually

_addresses: Iterator[str] = (f"127.{100 + os.getpid() % 100}.{i // 250}.{i % 250 + 2}" for i in itertools.count())
"""Of this process: others, as workers of pytest-xdist, have their monitors on the same loopback at the same port."""


class Monitors:
    """An HTTP server on a loopback address of its own, at the monitor's real port."""

    def __init__(self) -> None:
        self.address = next(_addresses)
        self.report: MonitorReport | None = None
        self.outcomes: tuple[ProbeOutcome, ...] = ()
        """What the continuous check gave; of the identity and suite in the report."""
        self.progress: FillProgress | None = None
        """Of a Job that fills a volume."""
        self.asked_since: list[int] = []
        self.asked: list[str] = []
        """Paths of all requests."""
        self._verdicts = 0
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen; at the next address where another process has this one."""
        app = web.Application(middlewares=[self._count])
        routes = {"/verdict": self._verdict, "/outcomes": self._page, PROGRESS_PATH: self._progress}
        app.add_routes([web.get(path, answer) for path, answer in routes.items()])
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        while True:
            with suppress(OSError):
                await web.TCPSite(self._runner, self.address, names.PORT_MONITOR).start()
                return
            self.address = next(_addresses)

    async def stop(self) -> None:
        """Stop listening, if it was started."""
        if self._runner:
            await self._runner.cleanup()

    def stand(self, standing: WatchStanding, *, lost: tuple[str, ...] = (), correct: int = 210) -> None:
        """Let the watch over the pod say this, after a count."""
        assert self.report is not None
        count = SweepFigures(correct, 210, 0.0, 1.0, "2026-01-01T00:00:00Z", lost)
        watch = Watch(standing, 210, 2.0, confirmation=count, lost_since_gate=lost)
        self.report = replace(self.report, watch=watch, sequence=self.report.sequence + 1)

    async def is_asked_again(self) -> None:
        """Wait until what it says now was told, and the next question was asked."""
        before = self._verdicts
        await eventually(lambda: self._verdicts >= before + 2, f"the monitor at {self.address} is asked again")

    @web.middleware
    async def _count(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.asked.append(request.path)
        return await handler(request)

    async def _verdict(self, _: web.Request) -> web.Response:
        self._verdicts += 1
        return _answer(self.report)

    async def _progress(self, _: web.Request) -> web.Response:
        return _answer(self.progress)

    async def _page(self, request: web.Request) -> web.Response:
        """`/outcomes?since=`."""
        said = self.report
        if said is None:
            return _answer(None)
        since = int(request.query["since"])
        self.asked_since.append(since)
        after = tuple(outcome for outcome in self.outcomes if outcome.sequence > since)
        return _answer(
            OutcomePage("e1", said.revision, said.identity, said.suite_hash, "1", 210, 1, len(self.outcomes), after)
        )


def _answer(said: MonitorReport | FillProgress | OutcomePage | None) -> web.Response:
    if said is None:
        return web.Response(status=503)
    return web.Response(text=dumps(said), content_type="application/json")
