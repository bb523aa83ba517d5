"""An `ApiClient`'s way to the simulated server: latency, faults and streams, without a socket."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from r1plus_operator.runtime.errors import ApiError, TransportError
from r1plus_operator.runtime.transport import HttpAnswer, HttpRequest, HttpStream
from support.simulation import http_api
from support.simulation.faults import REQUEST_KINDS, STREAM_KINDS, FaultKind, Faults, FaultWindow, build_error
from support.simulation.http_api import HttpApi, ParsedRequest
from support.simulation.server import SimulatedApiServer
from support.simulation.watches import BOOKMARK_SECONDS, Watch, WatchRefusedError, WatchRequest

_LOST = frozenset({FaultKind.PARTITION, FaultKind.TIMEOUT_BEFORE_WRITE, FaultKind.TIMEOUT_AFTER_WRITE})
_AFTER_WRITE = frozenset({FaultKind.TIMEOUT_AFTER_WRITE, FaultKind.BROKEN_AFTER_WRITE, FaultKind.ERROR_AFTER_WRITE})


class SimulatedTransport:
    """One replica's connections."""

    def __init__(
        self,
        server: SimulatedApiServer,
        *,
        user: str,
        faults: Faults,
        replica: str = "",
        user_agent: str = "simulated",
    ) -> None:
        self._server = server
        self._api = HttpApi(server)
        self._user = user
        self._faults = faults
        self._replica = replica
        self._agent = user_agent
        self._streams: set[SimulatedStream] = set()

    async def send(self, request: HttpRequest, seconds: float) -> HttpAnswer:
        """Send a request; what it does takes place on the way, though the caller may have left by then."""
        loop = asyncio.get_running_loop()
        if not self._faults.find_stall(self._replica):
            exchange = _Exchange(self, request, seconds, loop)
            return await exchange.future
        began = loop.time()
        await self._wait_for_process()
        left = seconds - (loop.time() - began)
        if left <= 0:
            raise TransportError("TimeoutError", reason="Timeout")
        exchange = _Exchange(self, request, left, loop)
        return await exchange.future

    @asynccontextmanager
    async def open_stream(self, request: HttpRequest, inactivity_s: float) -> AsyncIterator[HttpStream]:
        """Open a watch."""
        parsed = http_api.parse(request)
        await self._wait_for_process()
        try:
            watch = await self._ask_for_stream(request, parsed, inactivity_s)
        except ApiError as error:
            if isinstance(error, TransportError):
                raise
            answer = http_api.build_refusal(error)
            yield HttpStream(answer.status, answer.headers, _iterate(answer.body))
            return
        stream = SimulatedStream(self, watch, inactivity_s)
        self._streams.add(stream)
        try:
            stream.start()
            yield HttpStream(200, {}, stream)
        finally:
            self._streams.discard(stream)
            stream.stop()

    async def close(self) -> None:
        """Break every stream."""
        for stream in tuple(self._streams):
            stream.break_off("closed")

    async def _ask_for_stream(self, request: HttpRequest, parsed: ParsedRequest, inactivity_s: float) -> WatchRequest:
        plural = parsed.route.resource.plural if parsed.route else ""
        fault = self._faults.find(REQUEST_KINDS, self._replica, "watch", plural)
        delay = 2 * self._faults.draw_latency()
        if fault is not None:
            if fault.kind in _LOST:
                await asyncio.sleep(inactivity_s)
                raise TransportError("TimeoutError", reason="Timeout")
            if fault.kind in (FaultKind.REFUSED, FaultKind.BROKEN_AFTER_WRITE):
                raise TransportError("ConnectionRefusedError")
            if fault.kind != FaultKind.DELAY:
                await asyncio.sleep(delay)
                raise build_error(fault, "watch", plural, "")
            delay += fault.seconds * self._faults.rand.random()
        await asyncio.sleep(delay)
        return self._api.build_watch(request, parsed)

    async def _wait_for_process(self) -> None:
        """Wait while this replica's process stands still."""
        while end := self._faults.find_stall(self._replica):  # noqa: ASYNC110 - of virtual time
            await asyncio.sleep(max(0.0, end - self._faults.read_time()))


class _Exchange:
    """One request and its answer: two timers, whoever waits."""

    __slots__ = ("_answer", "_back", "_fault", "_left", "_loop", "_parsed", "_request", "_transport", "future")

    def __init__(
        self, transport: SimulatedTransport, request: HttpRequest, seconds: float, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._transport = transport
        self._request = request
        self._loop = loop
        self.future: asyncio.Future[HttpAnswer] = loop.create_future()
        self._answer: HttpAnswer | None = None
        parsed = self._parsed = http_api.parse(request)
        faults = transport._faults
        plural = parsed.route.resource.plural if parsed.route else ""
        fault = self._fault = faults.find(REQUEST_KINDS, transport._replica, parsed.verb, plural)
        self._left = seconds
        if fault is not None and fault.kind in (FaultKind.PARTITION, FaultKind.TIMEOUT_BEFORE_WRITE):
            loop.call_later(seconds, self._fail, "TimeoutError", "Timeout")
            return
        if fault is not None and fault.kind == FaultKind.REFUSED:
            loop.call_soon(self._fail, "ConnectionRefusedError", "Transport")
            return
        delay, self._back = faults.draw_ways()
        if fault is not None and fault.kind == FaultKind.DELAY:
            delay += fault.seconds * faults.rand.random()
        if not delay:
            self._arrive()
            return
        if delay >= seconds:
            # The server drops what arrives after the timeout that it was given.
            loop.call_later(seconds, self._fail, "TimeoutError", "Timeout")
            return
        self._left -= delay
        loop.call_later(delay, self._arrive)

    def _arrive(self) -> None:
        """Carry out the request at the server."""
        transport, fault = self._transport, self._fault
        if fault is not None and fault.kind != FaultKind.DELAY and fault.kind not in _AFTER_WRITE:
            route = self._parsed.route
            plural, name = (route.resource.plural, route.name) if route else ("", "")
            self._answer = http_api.build_refusal(build_error(fault, self._parsed.verb, plural, name))
        else:
            try:
                self._answer = transport._api.answer(self._request, self._parsed, transport._user, transport._agent)
            except Exception as error:  # noqa: BLE001 - a fault of the simulation, which the caller must not wait for
                if not self.future.done():
                    self.future.set_exception(error)
                return
            if fault is not None and fault.kind == FaultKind.TIMEOUT_AFTER_WRITE:
                self._loop.call_later(self._left, self._fail, "TimeoutError", "Timeout")
                return
            if fault is not None and fault.kind == FaultKind.BROKEN_AFTER_WRITE:
                self._fail("ServerDisconnectedError: Server disconnected", "Transport")
                return
            if fault is not None and fault.kind == FaultKind.ERROR_AFTER_WRITE:
                self._answer = http_api.build_refusal(build_error(fault, self._parsed.verb, "", ""))
        if not self._back:
            self._deliver()
        elif self._back >= self._left:
            self._loop.call_later(self._left, self._fail, "TimeoutError", "Timeout")
        else:
            self._left -= self._back
            self._loop.call_later(self._back, self._deliver)

    def _deliver(self) -> None:
        """Hand over the answer, unless the process stands still or has left."""
        if self.future.done():
            return
        faults = self._transport._faults
        if end := faults.find_stall(self._transport._replica):
            wait = max(0.0, end - faults.read_time())
            if wait >= self._left:
                self._loop.call_later(wait, self._fail, "TimeoutError", "Timeout")
            else:
                self._left -= wait
                self._loop.call_later(wait, self._deliver)
            return
        assert self._answer is not None
        self.future.set_result(self._answer)

    def _fail(self, text: str, reason: str) -> None:
        if not self.future.done():
            self.future.set_exception(TransportError(text, reason=reason))


class SimulatedStream:
    """A watch's bytes on their way, in order. An asynchronous iterator of chunks."""

    def __init__(self, transport: SimulatedTransport, request: WatchRequest, inactivity_s: float) -> None:
        self._transport = transport
        self._faults = transport._faults
        self._loop = asyncio.get_running_loop()
        self._plural = request.traits.resource.plural
        self._inactivity_s = inactivity_s
        self._watch = Watch(transport._server, request, self._on_line)
        self._lines: deque[tuple[float, bytes]] = deque()
        """When each is due, on the loop's clock."""
        self._last_due = 0.0
        self._delivery: asyncio.TimerHandle | None = None
        self._upkeep: asyncio.TimerHandle | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._ready: list[bytes] = []
        self._error: TransportError | None = None
        self._is_over = False
        self._last_read = self._loop.time()
        self._end = self._last_read + request.seconds
        self._next_bookmark = self._last_read + BOOKMARK_SECONDS * (0.9 + 0.2 * self._faults.rand.random())

    def start(self) -> None:
        """Begin to send."""
        self._transport._server.on_restart.append(self._on_restart)
        try:
            self._watch.start()
        except WatchRefusedError:
            self._end = self._last_due
        self._plan_upkeep()

    def stop(self) -> None:
        """End, whatever is under way."""
        self._watch.stop()
        if self._on_restart in self._transport._server.on_restart:
            self._transport._server.on_restart.remove(self._on_restart)
        for handle in (self._delivery, self._upkeep):
            if handle is not None:
                handle.cancel()

    def break_off(self, text: str) -> None:
        """Break the connection: lines under way are lost."""
        self._watch.stop()
        self._error = self._error or TransportError(f"ClientPayloadError: {text}")
        self._lines.clear()
        self._wake()

    def __aiter__(self) -> "SimulatedStream":
        return self

    async def __anext__(self) -> bytes:
        """Return the lines that have arrived; end with the stream."""
        while not self._ready:
            if self._error is not None:
                raise self._error
            if self._is_over and not self._lines:
                raise StopAsyncIteration
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        chunk = self._ready[0] if len(self._ready) == 1 else b"".join(self._ready)
        self._ready.clear()
        return chunk

    def _on_restart(self) -> None:
        self.break_off("the API server was restarted")

    def _on_line(self, line: bytes) -> None:
        """Put a line on its way: it arrives after those before it."""
        now = self._loop.time()
        due = now + self._faults.draw_latency()
        fault = self._faults.find(STREAM_KINDS, self._transport._replica, "watch", self._plural)
        if fault is not None:
            due = self._apply_fault(fault, now, due)
        self._last_due = max(due, self._last_due)
        self._lines.append((self._last_due, line))
        if self._delivery is None:
            self._delivery = self._loop.call_at(self._last_due, self._deliver)

    def _send_bookmark(self, now: float) -> None:
        """Put a bookmark behind the lines that are under way; if there are none, it has arrived."""
        line = self._watch.build_bookmark()
        if line is not None and not self._faults.is_calm:
            self._on_line(line)
        elif line is not None:
            self._last_due = max(now, self._last_due)
            self._lines.append((self._last_due, line))
            if self._delivery is None:
                self._deliver()

    def _apply_fault(self, fault: FaultWindow, now: float, due: float) -> float:
        """Return when a line is due under a fault; cut the stream if that is the fault."""
        if fault.kind == FaultKind.EVENTS_LATE:
            return due + fault.seconds * self._faults.rand.random()
        if fault.kind in (FaultKind.EVENTS_STALLED, FaultKind.PARTITION):
            return max(due, now + fault.end - self._faults.read_time())
        delay = fault.seconds * self._faults.rand.random() if fault.kind == FaultKind.STREAM_CUT else 0.0
        self._loop.call_later(delay, self.break_off, "Connection reset by peer")
        return due

    def _deliver(self) -> None:
        self._delivery = None
        now = self._loop.time()
        if end := self._faults.find_stall(self._transport._replica):
            wait = max(0.0, end - self._faults.read_time())
            self._delivery = self._loop.call_later(wait, self._deliver)
            return
        while self._lines and self._lines[0][0] <= now:
            self._ready.append(self._lines.popleft()[1])
        if self._ready:
            self._last_read = now
            self._wake()
        if self._lines:
            self._delivery = self._loop.call_at(self._lines[0][0], self._deliver)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _plan_upkeep(self) -> None:
        due = min(self._end, self._next_bookmark, self._last_read + self._inactivity_s)
        self._upkeep = self._loop.call_at(due, self._keep_up)

    def _keep_up(self) -> None:
        """Send a bookmark, end the stream, or notice that it is silent: whichever is due."""
        now = self._loop.time()
        if now >= self._end:
            self._watch.stop()
            self._is_over = True
            self._wake()
            if self._lines:
                return
        elif now >= self._last_read + self._inactivity_s:
            self._error = TransportError("SocketTimeoutError: Timeout on reading data from socket", reason="Timeout")
            self._wake()
            return
        elif now >= self._next_bookmark:
            self._next_bookmark = now + BOOKMARK_SECONDS * (0.9 + 0.2 * self._faults.rand.random())
            self._send_bookmark(now)
        if not self._is_over:
            self._plan_upkeep()


async def _iterate(body: bytes) -> AsyncIterator[bytes]:
    yield body
