"""Monitors that answer with JSON documents, byte for byte as those of an earlier version sent them."""

import itertools
import json
import os
from typing import Any

from aiohttp import web

from r1plus_contract import names

Json = dict[str, Any]
VERDICT, OUTCOMES, PROGRESS = "/verdict", "/outcomes", "/progress"
"""Paths at which the operator asks. `/progress` is answered by a Job that fills a volume."""

# Of this process: others have their monitors on the same loopback at the same port.
_addresses = (f"127.{200 + os.getpid() % 50}.{i // 250}.{i % 250 + 2}" for i in itertools.count())


def as_sent(document: Json) -> str:
    """Return the text of a document, as monitors write it: sorted keys, no spaces."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


class StoredMonitor:
    """A pod's monitor at an address of its own, at the monitor's real port."""

    def __init__(self, answers: Json | None = None) -> None:
        """`answers`: path -> document. The page of `/outcomes` is the whole one, as if it was asked for since 0."""
        self.answers: Json = dict(answers or {})
        self.address = ""
        self.verdicts_sent = 0
        self.asked_since: list[int] = []
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen; an address that somebody else has taken is passed over."""
        app = web.Application()
        app.add_routes([web.get(path, self._answer) for path in (VERDICT, OUTCOMES, PROGRESS)])
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        for address in _addresses:
            try:
                await web.TCPSite(self._runner, address, names.PORT_MONITOR).start()
            except OSError:
                continue
            self.address = address
            return

    async def stop(self) -> None:
        """Answer no more."""
        if self._runner:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        document = self.answers.get(request.path)
        if document is None:
            return web.Response(status=503)
        self.verdicts_sent += request.path == VERDICT
        if request.path == OUTCOMES:
            since = int(request.query["since"])
            self.asked_since.append(since)
            document = {**document, "outcomes": [one for one in document["outcomes"] if one["sequence"] > since]}
        return web.Response(text=as_sent(document), content_type="application/json")
