"""An API server that follows a script: it makes the faults that a real one will not make on request.

Everything else is tested against the real one, in tests/apiserver.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import orjson
from aiohttp import web

from r1plus_operator.runtime.backoff import Backoff
from r1plus_operator.runtime.client import ApiClient, RequestLimits
from r1plus_operator.runtime.connection import ApiConnection
from r1plus_operator.runtime.resources import Resource

CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
LIMITS = RequestLimits(request=60.0, connect=60.0, retry=Backoff(first=0.001, cap=0.002), longest_retry_after=2.0)
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


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
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


def client_of(server: ScriptedServer, limits: RequestLimits = LIMITS) -> ApiClient:
    return ApiClient(ApiConnection(server=server.url), limits=limits)


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
        await _until_client_leaves()

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
            await _until_client_leaves()
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


async def _until_client_leaves() -> NoReturn:
    """Wait to be cancelled, as the server does when the connection is gone."""
    await asyncio.Event().wait()
    raise AssertionError("nobody sets it")


def _abort(request: web.Request) -> None:
    assert request.transport is not None
    request.transport.abort()
