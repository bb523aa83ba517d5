"""One watch stream on its way through the proxy: lines can be held, dropped, doubled; the stream itself can break.

What a real API server never does is not done here either: the events of one tenant stay in order, and no bookmark
overtakes an event.
"""

import asyncio
import heapq
import itertools
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import orjson
from aiohttp import ClientConnectionResetError

from faults.calls import LASTS, Call, Event, Fault, Json

CHECK_SECONDS = 1.0
"""How often a stream without events looks whether its client is still there."""


class Judge(Protocol):
    """Decides about events."""

    def event(self, event: Event) -> Fault | None:
        """What happens to it."""

    def jitter(self) -> float:
        """Seconds by which an ordinary event is late."""


class Sink(Protocol):
    """Where lines go: an aiohttp response."""

    async def write(self, data: bytes) -> None:
        """Send."""


class Stream:
    """Takes the server's lines by `take`; `pump` writes to the client what is due."""

    def __init__(
        self,
        call: Call,
        judge: Judge,
        response: Sink,
        *,
        late: float = LASTS[Fault.LATE],
        swallow: float = LASTS[Fault.SWALLOW],
    ) -> None:
        self.call = call
        self.frozen = False
        """Nothing gets through any more, and the connection stays open: a half-open connection."""
        self._judge = judge
        self._late = late
        self._swallow = swallow
        self._response = response
        self._heap: list[tuple[float, int, bytes, bool]] = []
        self._order = itertools.count()
        self._due: dict[str, float] = {}
        self._swallowed: dict[tuple[str, str], tuple[float, int]] = {}
        self._withdrawn: set[int] = set()
        self._changed = asyncio.Event()
        self._last_line = b""

    @property
    def pending(self) -> int:
        """Lines that are held back."""
        return len(self._heap)

    def shown_by(self, namespace: str) -> float:
        """When the last event so far of this namespace is to be shown, in the loop's time."""
        held = [due for (where, _), (due, _) in self._swallowed.items() if where == namespace]
        return max([self._due.get(namespace, 0.0), *held])

    def take(self, line: bytes) -> None:
        """One line from the server."""
        body: Json = orjson.loads(line)
        now = asyncio.get_running_loop().time()
        if body["type"] in ("BOOKMARK", "ERROR"):
            if not self._swallowed:
                self._push(max([now, *self._due.values()]), line)
            return
        meta = body["object"]["metadata"]
        event = Event(body["type"], self.call.plural, meta.get("namespace", ""), meta["name"])
        fault = self._judge.event(event)
        key = (event.namespace, event.name)
        if (older := self._swallowed.pop(key, None)) is not None:
            self._withdrawn.add(older[1])
        if fault is Fault.SWALLOW:
            due = now + self._swallow
            self._swallowed[key] = (due, self._push(due, line))
            return
        delay = self._late if fault is Fault.LATE else self._judge.jitter()
        due = self._due[event.namespace] = max(self._due.get(event.namespace, 0.0), now + delay)
        for _ in range(2 if fault is Fault.TWICE else 1):
            self._push(due, line)

    def truncate(self) -> None:
        """Break off in the middle of a line."""
        self._push(0.0, (self._last_line or b'{"type":"MODIFIED","object":{}}')[:20], last=True)

    def error(self, code: int, reason: str) -> None:
        """The server's ERROR event, then the end."""
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason}
        self._push(0.0, orjson.dumps({"type": "ERROR", "object": status | {"message": "injected"}}) + b"\n", last=True)

    def end(self) -> None:
        """The server closes the stream, as it does every few minutes: after all that is still held."""
        self._push(max([0.0, *(due for due, *_ in self._heap)]), b"", last=True)

    async def pump(self, gone: Callable[[], bool]) -> None:
        """Write what is due until the stream is over or the client has `gone`."""
        while not gone():
            now = asyncio.get_running_loop().time()
            while self._heap and self._heap[0][0] <= now and not self.frozen:
                _, number, line, last = heapq.heappop(self._heap)
                if number in self._withdrawn:
                    self._withdrawn.discard(number)
                    continue
                self._swallowed = {key: held for key, held in self._swallowed.items() if held[1] != number}
                with suppress(ClientConnectionResetError):
                    await self._response.write(line)
                self._last_line = line
                if last:
                    return
            self._changed.clear()
            due = self._heap[0][0] - now if self._heap and not self.frozen else CHECK_SECONDS
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), min(due, CHECK_SECONDS))

    def _push(self, due: float, line: bytes, *, last: bool = False) -> int:
        number = next(self._order)
        heapq.heappush(self._heap, (due, number, line, last))
        self._changed.set()
        return number
