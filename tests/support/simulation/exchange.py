"""One request and its answer on their way, with what goes wrong there."""

import asyncio

from r1plus_operator.runtime.errors import TransportError
from r1plus_operator.runtime.transport import HttpAnswer, HttpRequest
from support.simulation import http_api
from support.simulation.faults import FaultKind, build_error
from support.simulation.link import Link

_NEVER_ARRIVES = frozenset({FaultKind.PARTITION, FaultKind.TIMEOUT_BEFORE_WRITE})
_AFTER_WRITE = frozenset({FaultKind.TIMEOUT_AFTER_WRITE, FaultKind.BROKEN_AFTER_WRITE, FaultKind.ERROR_AFTER_WRITE})


class Exchange:
    """A request that was sent: `future` gets its answer. It takes place even if nobody waits for it any more."""

    __slots__ = ("_answer", "_back", "_fault", "_left", "_link", "_loop", "_parsed", "_request", "future")

    def __init__(self, link: Link, request: HttpRequest, seconds: float) -> None:
        """Send a request that may take so long."""
        self._link = link
        self._request = request
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[HttpAnswer] = self._loop.create_future()
        self._answer: HttpAnswer | None = None
        self._left = seconds
        self._parsed = http_api.parse(request)
        self._fault = link.find_request_fault(self._parsed)
        way, self._back = link.faults.draw_ways()
        if self._fault is not None and self._fault.kind == FaultKind.DELAY:
            way += self._fault.seconds * link.faults.rand.random()
        self._set_out(way)

    def _set_out(self, way: float) -> None:
        kind = self._fault.kind if self._fault else None
        if kind == FaultKind.REFUSED:
            self._loop.call_soon(self._fail, "ConnectionRefusedError", "Transport")
        elif kind in _NEVER_ARRIVES or way >= self._left:
            # The server drops what arrives after the timeout that it was given.
            self._loop.call_later(self._left, self._fail)
        elif way:
            self._left -= way
            self._loop.call_later(way, self._arrive)
        else:
            self._arrive()

    def _arrive(self) -> None:
        """Carry out the request at the server, and send the answer back."""
        kind = self._fault.kind if self._fault else None
        try:
            self._answer = self._answer_request()
        except Exception as error:  # noqa: BLE001 - a fault of the simulation, which the caller must not wait for
            if not self.future.done():
                self.future.set_exception(error)
            return
        if kind == FaultKind.BROKEN_AFTER_WRITE:
            self._fail("ServerDisconnectedError: Server disconnected", "Transport")
        elif kind == FaultKind.TIMEOUT_AFTER_WRITE or self._back >= self._left:
            self._loop.call_later(self._left, self._fail)
        elif self._back:
            self._left -= self._back
            self._loop.call_later(self._back, self._deliver)
        else:
            self._deliver()

    def _answer_request(self) -> HttpAnswer:
        link, fault, parsed = self._link, self._fault, self._parsed
        answer = None
        if fault is None or fault.kind == FaultKind.DELAY or fault.kind in _AFTER_WRITE:
            answer = link.api.answer(self._request, parsed, link.user, link.agent)
        if answer is not None and (fault is None or fault.kind != FaultKind.ERROR_AFTER_WRITE):
            return answer
        assert fault is not None
        return http_api.build_refusal(build_error(fault, parsed.verb, parsed.plural, parsed.name))

    def _deliver(self) -> None:
        """Hand over the answer, unless the process stands still or has left."""
        if self.future.done():
            return
        stall = self._link.count_stall()
        if stall >= self._left:
            self._loop.call_later(stall, self._fail)
        elif stall:
            self._left -= stall
            self._loop.call_later(stall, self._deliver)
        else:
            assert self._answer is not None
            self.future.set_result(self._answer)

    def _fail(self, text: str = "TimeoutError", reason: str = "Timeout") -> None:
        if not self.future.done():
            self.future.set_exception(TransportError(text, reason=reason))
