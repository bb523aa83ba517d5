"""An `ApiClient`'s way to the simulated server: latency, faults and streams, without a socket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from r1plus_operator.runtime.errors import ApiError, TransportError
from r1plus_operator.runtime.transport import HttpAnswer, HttpRequest, HttpStream
from support.simulation import http_api
from support.simulation.exchange import Exchange
from support.simulation.faults import FaultKind, Faults, build_error
from support.simulation.http_api import HttpApi
from support.simulation.link import Link
from support.simulation.server import SimulatedApiServer
from support.simulation.stream import SimulatedStream
from support.simulation.watches import WatchRequest

_SILENT = frozenset({FaultKind.PARTITION, FaultKind.TIMEOUT_BEFORE_WRITE, FaultKind.TIMEOUT_AFTER_WRITE})


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
        """Take the name by which faults know the `replica`, and the one that owns fields written without another."""
        self._link = Link(server, HttpApi(server), faults, replica, user, user_agent)
        self._streams: set[SimulatedStream] = set()

    async def send(self, request: HttpRequest, seconds: float) -> HttpAnswer:
        """Send a request; a process that stands still sends nothing whose time is over when it goes on."""
        waited = await self._wait_for_process() if self._link.count_stall() else 0.0
        if waited >= seconds:
            raise TransportError("TimeoutError", reason="Timeout")
        return await Exchange(self._link, request, seconds - waited).future

    @asynccontextmanager
    async def open_stream(self, request: HttpRequest, inactivity_s: float) -> AsyncIterator[HttpStream]:
        """Open a watch."""
        await self._wait_for_process()
        try:
            watch = await self._ask_for_stream(request, inactivity_s)
        except ApiError as error:
            if isinstance(error, TransportError):
                raise
            answer = http_api.build_refusal(error)
            yield HttpStream(answer.status, answer.headers, _iterate(answer.body))
            return
        stream = SimulatedStream(self._link, watch, inactivity_s)
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

    async def _ask_for_stream(self, request: HttpRequest, inactivity_s: float) -> WatchRequest:
        """Return what the server will send; raise its refusal."""
        parsed, faults = http_api.parse(request), self._link.faults
        fault = self._link.find_request_fault(parsed)
        delay = sum(faults.draw_ways())
        if fault is not None and fault.kind == FaultKind.DELAY:
            delay += fault.seconds * faults.rand.random()
        elif fault is not None and fault.kind in _SILENT:
            await asyncio.sleep(inactivity_s)
            raise TransportError("TimeoutError", reason="Timeout")
        elif fault is not None and fault.kind in (FaultKind.REFUSED, FaultKind.BROKEN_AFTER_WRITE):
            raise TransportError("ConnectionRefusedError")
        await asyncio.sleep(delay)
        if fault is not None and fault.kind != FaultKind.DELAY:
            raise build_error(fault, "watch", parsed.plural, "")
        return self._link.api.build_watch(request, parsed)

    async def _wait_for_process(self) -> float:
        """Wait while this replica's process stands still; return for how long."""
        began = self._link.faults.read_time()
        while stall := self._link.count_stall():  # noqa: ASYNC110 - of virtual time
            await asyncio.sleep(stall)
        return self._link.faults.read_time() - began


async def _iterate(body: bytes) -> AsyncIterator[bytes]:
    yield body
