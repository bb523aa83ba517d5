"""Fakes for the runtime's tests: a clock that a test moves, and an API server that follows a script.

The scripted server makes the faults that a real one will not make on request. Everything else is tested against the
real one, in tests/apiserver.
"""

import asyncio
import heapq
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
from aiohttp import web

from r1plus_operator.runtime.backoff import Backoff
from r1plus_operator.runtime.client import ApiClient, Limits
from r1plus_operator.runtime.connection import Connection
from r1plus_operator.runtime.resources import Resource

CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
LIMITS = Limits(request=0.5, connect=0.5, retry=Backoff(first=0.001, cap=0.002), longest_retry_after=2.0)
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ManualClock:
    """Time that stands still until `advance`; timers fire in order and see the time they asked for."""

    def __init__(self) -> None:
        self._now = 0.0
        self._order = itertools.count()
        self._timers: list[tuple[float, int, ManualTimer]] = []

    def time(self) -> float:
        return self._now

    def call_at(self, when: float, callback: Callable[[], Any], /) -> "ManualTimer":
        timer = ManualTimer(callback)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    @property
    def live_timers(self) -> int:
        return sum(not timer.cancelled for _, _, timer in self._timers)

    def advance(self, seconds: float) -> None:
        until = self._now + seconds
        while self._timers and self._timers[0][0] <= until:
            when, _, timer = heapq.heappop(self._timers)
            self._now = max(self._now, when)
            if not timer.cancelled:
                timer.callback()
        self._now = until


class ManualTimer:
    def __init__(self, callback: Callable[[], Any]) -> None:
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


async def eventually(condition: Callable[[], object], deadline_s: float = 10.0) -> None:
    """Wait until the condition holds; an assertion error when it still does not after the deadline."""
    until = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < until, f"not so within {deadline_s} s"
        await asyncio.sleep(0.002)


class ScriptedServer:
    """Answers lists, watches and writes each from their own list of answers, in order; records every request.

    A script that is used up goes on with its last answer.
    """

    def __init__(self) -> None:
        self.lists: list[Answer] = []
        self.watches: list[Answer] = []
        self.writes: list[Answer] = []
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.headers: list[dict[str, str]] = []
        self.url = ""

    def asked(self, what: str) -> list[dict[str, str]]:
        """The queries of all requests of a sort: list, watch or write."""
        return [query for sort, query, _ in self.requests if sort == what]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        sort = "write" if request.method != "GET" else "watch" if "watch" in request.query else "list"
        self.requests.append((sort, dict(request.query), await request.read()))
        self.headers.append(dict(request.headers))
        script = {"list": self.lists, "watch": self.watches, "write": self.writes}[sort]
        answer = script.pop(0) if len(script) > 1 else script[0]
        return await answer(request)


@asynccontextmanager
async def scripted_server() -> AsyncIterator[ScriptedServer]:
    server = ScriptedServer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


def client_of(server: ScriptedServer, limits: Limits = LIMITS) -> ApiClient:
    return ApiClient(Connection(server=server.url), limits=limits)


def config_map(name: str, *, rv: int = 1, uid: str = "", data: str = "", namespace: str = "ns") -> dict[str, Any]:
    meta = {"namespace": namespace, "name": name, "uid": uid or f"uid-{name}", "resourceVersion": str(rv)}
    return {"metadata": meta, "data": {"value": data}}


def page(rv: int, *objects: dict[str, Any], more: str = "") -> Answer:
    """A page of a list; `more` is the token of the next one."""
    body = {"kind": "List", "metadata": {"resourceVersion": str(rv), "continue": more}, "items": list(objects)}
    return _body(200, body)


def ok(body: dict[str, Any] | None = None) -> Answer:
    return _body(200, body or {"kind": "ConfigMap"})


def refusal(code: int, reason: str = "", *, headers: dict[str, str] | None = None, **details: Any) -> Answer:
    status = {"kind": "Status", "code": code, "reason": reason, "message": f"scripted {code}", "details": details}
    return _body(code, status, headers)


def raw(code: int, body: bytes) -> Answer:
    async def respond(_: web.Request) -> web.Response:
        return web.Response(status=code, body=body)

    return respond


def dropped() -> Answer:
    """The connection is reset without an answer."""

    async def respond(request: web.Request) -> web.Response:
        _abort(request)
        return web.Response()

    return respond


def silent() -> Answer:
    """No answer, and the connection stays open."""

    async def respond(request: web.Request) -> web.Response:
        await _until_client_leaves(request)
        return web.Response()

    return respond


def stream(*events: tuple[str, dict[str, Any]] | bytes, then: str = "end") -> Answer:
    """A watch that says these events, `then`: end | hold (open and silent) | drop (reset)."""

    async def respond(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for event in events:
            line = event if isinstance(event, bytes) else event_line(*event)
            await response.write(line)
        if then == "hold":
            await _until_client_leaves(request)
        elif then == "drop":
            _abort(request)
        return response

    return respond


def event_line(kind: str, obj: dict[str, Any]) -> bytes:
    return orjson.dumps({"type": kind, "object": obj}) + b"\n"


def error_event(code: int, reason: str = "") -> tuple[str, dict[str, Any]]:
    return "ERROR", {"kind": "Status", "code": code, "reason": reason, "message": "scripted"}


def bookmark(rv: int) -> tuple[str, dict[str, Any]]:
    return "BOOKMARK", {"metadata": {"resourceVersion": str(rv)}}


def _body(code: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> Answer:
    async def respond(_: web.Request) -> web.Response:
        return web.Response(status=code, body=orjson.dumps(body), headers=headers, content_type="application/json")

    return respond


async def _until_client_leaves(request: web.Request) -> None:
    """aiohttp's server cancels no handler when the client goes, so its transport is looked at."""
    await eventually(lambda: request.transport is None or request.transport.is_closing(), deadline_s=60.0)


def _abort(request: web.Request) -> None:
    assert request.transport is not None
    request.transport.abort()
