"""A stream of server-sent events to one client: heartbeats, and the end of a client that does not read."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Final

from aiohttp import web

from r1plus_gateway.http.accounting.bill import SlowReaderError
from r1plus_gateway.http.completions.answers import HEARTBEAT, EventWriter
from r1plus_gateway.http.parts import LEFT
from r1plus_gateway.serving.generation import Generation
from r1plus_gateway.settings import GatewayLimits

TICK_SECONDS: Final = 2.0
HEADERS: Final[Mapping[str, str]] = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",  # proxies do not hold events back
}


class EventStream:
    """The client's end. One timer for each stream looks at it every two seconds; nothing is timed for each token."""

    def __init__(
        self,
        request: web.Request,
        generation: Generation,
        limits: GatewayLimits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._request = request
        self._generation = generation
        self._limits = limits
        self._clock = clock
        self._tick_seconds = min(TICK_SECONDS, limits.heartbeat_seconds / 4, limits.slow_reader_seconds / 4)
        self._response: web.StreamResponse | None = None
        self._is_chunked = True
        self._written_bytes = 0
        self._written_at = self._progress_at = clock()
        self._sent_bytes = 0
        self.is_slow = False

    def __enter__(self) -> "EventStream":
        self._timer = asyncio.get_running_loop().call_later(self._tick_seconds, self._look)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._timer.cancel()

    def follow(self, generation: Generation) -> None:
        """Watch another generation, which goes on with the answer."""
        self._generation = generation
        generation.on_overflow = self.cut

    @property
    def tick_seconds(self) -> float:
        """How often who waits without a generation has to look whether a heartbeat is due."""
        return self._tick_seconds

    @property
    def is_started(self) -> bool:
        """Whether the status and the headers have been sent."""
        return self._response is not None

    async def start(self, headers: Mapping[str, str]) -> None:
        """Send status 200 and the headers."""
        response = web.StreamResponse(headers={**HEADERS, **headers})
        self._response = response
        await response.prepare(self._request)
        self._is_chunked = "Transfer-Encoding" in response.headers  # not for a client of HTTP/1.0

    @property
    def needs_heartbeat(self) -> bool:
        """Whether nothing has been written for so long that a proxy may close the connection."""
        return self._clock() - self._written_at >= self._limits.heartbeat_seconds

    async def write(self, data: bytes) -> None:
        """Send events; waits while the client does not read."""
        assert self._response is not None
        self._written_bytes += len(data)
        self._written_at = self._clock()
        await self._response.write(data)

    @property
    def has_sent_all(self) -> bool:
        """Whether the client is there, and the kernel has taken everything that was written."""
        transport = self._request.transport
        return transport is not None and not transport.is_closing() and not transport.get_write_buffer_size()

    def write_at_once(self, data: bytes) -> None:
        """Send events to a client for which `has_sent_all` holds, without waiting and without aiohttp's layers."""
        self._written_bytes += len(data)
        self._written_at = self._clock()
        transport = self._request.transport
        assert transport is not None
        transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked else data)

    async def write_heartbeat(self) -> None:
        """Send a comment, which clients ignore."""
        await self.write(HEARTBEAT)

    async def finish(self) -> web.StreamResponse:
        """End the stream."""
        assert self._response is not None
        await self._response.write_eof()
        return self._response

    def cut(self) -> None:
        """Close the connection at once: the handler is cancelled, as for any client that leaves."""
        self.is_slow = True
        if self._request.transport is not None:
            self._request.transport.abort()

    @contextmanager
    def blame_slow_reader(self) -> Iterator[None]:
        """Tell a client that was cut off from one that has left.

        Raises:
            SlowReaderError: it was cut off within the block.
        """
        try:
            yield
        except LEFT:
            if self.is_slow:
                raise SlowReaderError from None
            raise

    def _look(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._tick_seconds, self._look)
        if self.needs_heartbeat:
            self._generation.wake()
        transport = self._request.transport
        if transport is None:
            return
        unsent = transport.get_write_buffer_size()
        sent = self._written_bytes - unsent
        if not unsent or sent > self._sent_bytes:
            self._sent_bytes, self._progress_at = sent, self._clock()
        elif self._clock() - self._progress_at >= self._limits.slow_reader_seconds:
            self.cut()


async def write_text(stream: EventStream, generation: Generation, events: EventWriter) -> bytes:
    """Write text as it arrives until the request has ended; return the events that are still to be written."""

    def write_at_once() -> bool:
        """Write what has arrived, unless the client is behind: then the task that waits writes it, and waits for it."""
        if not stream.has_sent_all:
            return False
        if text := generation.take():
            stream.write_at_once(events.build_piece(text))
        return True

    data = events.build_first()
    while True:
        if text := generation.take():
            data += events.build_piece(text)
        if generation.is_ended:
            return data
        if data:
            await stream.write(data)
            data = b""
        elif stream.needs_heartbeat:
            await stream.write_heartbeat()
        await generation.wait(write_at_once)


async def read_whole(generation: Generation, stream: EventStream | None = None) -> str:
    """Return the text once the request has ended. Heartbeats keep the stream's connection meanwhile."""
    text = bytearray()

    def take() -> bool:
        text.extend(generation.take())
        return True

    while not generation.is_ended:
        await generation.wait(take)
        if stream is not None and stream.needs_heartbeat:
            await stream.write_heartbeat()
    take()
    return text.decode("utf-8", "replace")
