"""A watch's bytes on their way, with what goes wrong there."""

import asyncio
from collections import deque

from r1plus_operator.runtime.errors import TransportError
from support.simulation.faults import FaultKind, FaultWindow
from support.simulation.link import Link
from support.simulation.watches import BOOKMARK_SECONDS, Watch, WatchRefusedError, WatchRequest


class SimulatedStream:
    """A watch's bytes on their way, in order. An asynchronous iterator of chunks."""

    def __init__(self, link: Link, request: WatchRequest, inactivity_s: float) -> None:
        self._link = link
        self._faults = link.faults
        self._loop = asyncio.get_running_loop()
        self._plural = request.traits.resource.plural
        self._inactivity_s = inactivity_s
        self._watch = Watch(link.server, request, self._on_line)
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
        self._link.server.on_restart.append(self._on_restart)
        try:
            self._watch.start()
        except WatchRefusedError:
            self._end = self._last_due
        self._plan_upkeep()

    def stop(self) -> None:
        """End, whatever is under way."""
        self._watch.stop()
        if self._on_restart in self._link.server.on_restart:
            self._link.server.on_restart.remove(self._on_restart)
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
        fault = self._link.find_stream_fault(self._plural)
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
        if stall := self._link.count_stall():
            self._delivery = self._loop.call_later(stall, self._deliver)
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
