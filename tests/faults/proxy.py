"""A reverse proxy between the operator and the real kube-apiserver that makes single requests and events go wrong.

TLS on both sides; the operator's bearer token is passed through, so it is authenticated and authorised by the server
itself. Everything the operator does goes through here: what it wrote is counted here, from the server's own answers.
"""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from types import TracebackType
from typing import Protocol, Self

import aiohttp
import orjson
from aiohttp import web

from devcluster.apiserver_only import ApiServer
from faults.calls import LASTS, Call, Fault, Json, parse
from faults.stream import Judge, Stream
from r1plus_operator.runtime.framing import LineCutter

_REASONS = {401: "Unauthorized", 403: "Forbidden", 409: "Conflict", 429: "TooManyRequests", 500: "InternalError"}
_REFUSALS = {Fault.CONFLICT: 409, Fault.ERROR: 500, Fault.SHED: 429, Fault.FORBID: 403, Fault.EXPIRE: 401}
_PASSED_ON = ("Authorization", "Content-Type", "Accept", "User-Agent")


class Director(Judge, Protocol):
    """Decides about requests, and is told what was done."""

    def request(self, call: Call) -> Fault | None:
        """What happens to a request; asked once for each."""

    def done(self, call: Call, status: int, body: bytes) -> None:
        """The server's answer to a write, whether or not the operator gets to see it."""

    def over(self, call: Call) -> None:
        """A request has been answered, or its connection reset; told once for each."""

    async def overtaken(self, call: Call) -> None:
        """Returns when a write that is held up on its way may be done."""

    async def kill(self) -> None:
        """Kill the operator and start it again."""

    @property
    def released(self) -> asyncio.Event:
        """Set when requests that are held back may go on."""


class Proxy:
    """`async with Proxy(server, director) as proxy`: the operator's kubeconfig names `proxy.url`."""

    def __init__(self, server: ApiServer, director: Director) -> None:
        self._server = server
        self._director = director
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self.streams: set[Stream] = set()
        """The watches that are open now."""
        self.url = ""

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=ssl.create_default_context(cafile=self._server.ca)),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None),
        )
        app = web.Application(client_max_size=8 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        certificate = self._server.server_cert("fault-proxy")
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate.certificate, certificate.key)
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=tls).start()
        self.url = f"https://127.0.0.1:{self._runner.addresses[0][1]}"
        # A client that vanishes in mid-answer is what this proxy is for.
        logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream in self.streams:
            stream.end()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        writes = request.method != "GET"
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        body = orjson.loads(raw) if writes and raw else None
        sent: Json | None = body if isinstance(body, dict) else None
        agent = request.headers.get("User-Agent", "")
        call = parse(request.method, request.path, request.query, sent, token, agent)
        if call is None:
            return await self._forward(request, raw, None, None)
        fault = self._director.request(call)
        while fault is Fault.HOLD:
            await self._director.released.wait()
            fault = self._director.request(call)
        try:
            return await self._answer(request, raw, call, fault)
        finally:
            self._director.over(call)

    async def _answer(self, request: web.Request, raw: bytes, call: Call, fault: Fault | None) -> web.StreamResponse:
        if fault in _REFUSALS:
            return _refusal(_REFUSALS[fault])
        if fault is Fault.DROP_BEFORE:
            return _hang_up(request)
        if fault is Fault.OVERTAKEN:
            _hang_up(request)
            await self._director.overtaken(call)
        if fault is Fault.DELAY:
            await asyncio.sleep(LASTS[fault])
        if call.verb == "watch":
            return await self._watch(request, call, fault)
        return await self._forward(request, raw, call, fault)

    async def _forward(
        self, request: web.Request, raw: bytes, call: Call | None, fault: Fault | None
    ) -> web.StreamResponse:
        try:
            async with self._upstream(request, raw) as answer:
                content = await answer.read()
        except aiohttp.ClientError:
            return _hang_up(request)  # the API server is away
        if call is not None and call.is_write:
            self._director.done(call, answer.status, content)
        if fault is Fault.KILL:
            await self._director.kill()
        if fault in (Fault.KILL, Fault.LOSE_REPLY):
            return _hang_up(request)
        headers = {k: v for k, v in answer.headers.items() if k in ("Content-Type", "Retry-After", "Audit-Id")}
        return web.Response(status=answer.status, body=content, headers=headers)

    async def _watch(self, request: web.Request, call: Call, fault: Fault | None) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        stream = Stream(call, self._director, response)
        if fault is Fault.GONE:
            await response.prepare(request)
            stream.error(410, "Expired")
            await stream.pump(partial(_gone, request))
            return response
        try:
            async with self._upstream(request, b"") as answer:
                if answer.status != 200:
                    return web.Response(status=answer.status, body=await answer.read(), content_type="application/json")
                await response.prepare(request)
                self.streams.add(stream)
                await self._relay(request, answer, stream)
        except aiohttp.ClientError:
            return _hang_up(request)
        finally:
            self.streams.discard(stream)
        return response

    async def _relay(self, request: web.Request, answer: aiohttp.ClientResponse, stream: Stream) -> None:
        """The server's lines to the client, until either ends."""
        drinking = asyncio.create_task(_drink(answer, stream))
        try:
            await stream.pump(partial(_gone, request))
        finally:
            drinking.cancel()
            await asyncio.gather(drinking, return_exceptions=True)

    @asynccontextmanager
    async def _upstream(self, request: web.Request, raw: bytes) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask the server the same. An answer that is not read to its end is cut off.

        Closing TLS in order would wait for the server, and a loop that ends before that leaves the connection open.
        """
        assert self._session is not None
        passed_on = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        headers = {"Accept-Encoding": "identity"} | passed_on  # aiohttp would ask for gzip on its own
        url = f"{self._server.url}{request.raw_path}"
        async with self._session.request(request.method, url, data=raw or None, headers=headers) as answer:
            try:
                yield answer
            finally:
                if answer.connection is not None and answer.connection.transport is not None:
                    answer.connection.transport.abort()


async def _drink(answer: aiohttp.ClientResponse, stream: Stream) -> None:
    """Take the server's lines until it ends the stream or dies."""
    cutter = LineCutter()
    with suppress(aiohttp.ClientError):
        async for chunk in answer.content.iter_any():
            for line in cutter.feed(chunk):
                stream.take(line + b"\n")
    stream.end()


def _gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def _refusal(code: int) -> web.Response:
    """A Status as the API server would send it."""
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "injected",
        "reason": _REASONS[code],
        "code": code,
    }
    headers = {"Retry-After": f"{LASTS[Fault.SHED]:.0f}"} if code == 429 else {}
    return web.Response(status=code, body=orjson.dumps(status), content_type="application/json", headers=headers)


def _hang_up(request: web.Request) -> web.StreamResponse:
    """Reset the connection: no answer, or no more of it."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=599)
