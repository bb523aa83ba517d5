"""What goes wrong between an operator and the API server, by a plan: windows of time, and how often within them."""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from r1plus_operator.runtime.errors import ApiError, ApiServerError, ConflictError, TooManyRequestsError
from support.simulation import refusals


class FaultKind(StrEnum):
    """What a fault does to a request, or to a stream."""

    DELAY = "delay"
    """A request arrives late, by up to `seconds`."""
    CONFLICT = "conflict"
    """409, and nothing was written."""
    GONE = "gone"
    """410 for lists that go on and for watches."""
    TOO_MANY = "too-many"
    """429; `seconds` is its Retry-After."""
    SERVER_ERROR = "server-error"
    """500, and nothing was written."""
    ERROR_AFTER_WRITE = "error-after-write"
    """500, though the write took place."""
    TIMEOUT_BEFORE_WRITE = "timeout-before-write"
    """No answer, and nothing was written."""
    TIMEOUT_AFTER_WRITE = "timeout-after-write"
    """No answer, though the write took place."""
    BROKEN_AFTER_WRITE = "broken-after-write"
    """The connection breaks at once, though the write took place."""
    STREAM_CUT = "stream-cut"
    """A watch breaks, up to `seconds` after its first event within the window."""
    EVENTS_LATE = "events-late"
    """Each event of a watch comes up to `seconds` late; their order stays."""
    EVENTS_STALLED = "events-stalled"
    """A watch sends nothing until the window ends; then all of it."""
    PARTITION = "partition"
    """A replica's requests reach nobody, and its streams are silent, without an error."""
    REFUSED = "refused"
    """A replica's connections are refused at once, and its streams break at their next line."""
    STALL = "stall"
    """A replica's process stands still: what arrives is read when the window ends."""


REQUEST_KINDS = frozenset(
    {
        FaultKind.DELAY,
        FaultKind.CONFLICT,
        FaultKind.GONE,
        FaultKind.TOO_MANY,
        FaultKind.SERVER_ERROR,
        FaultKind.ERROR_AFTER_WRITE,
        FaultKind.TIMEOUT_BEFORE_WRITE,
        FaultKind.TIMEOUT_AFTER_WRITE,
        FaultKind.BROKEN_AFTER_WRITE,
        FaultKind.PARTITION,
        FaultKind.REFUSED,
    }
)
STREAM_KINDS = frozenset(
    {FaultKind.STREAM_CUT, FaultKind.EVENTS_LATE, FaultKind.EVENTS_STALLED, FaultKind.PARTITION, FaultKind.REFUSED}
)
_WRITES_ONLY = frozenset({FaultKind.CONFLICT, FaultKind.ERROR_AFTER_WRITE})


@dataclass(frozen=True, slots=True)
class FaultWindow:
    """One fault from `start` until `end`, seconds since the epoch. Empty sets mean all."""

    kind: FaultKind
    start: float
    end: float
    share: float = 1.0
    """Of the requests, or of a watch's events, that it meets."""
    seconds: float = 1.0
    replicas: frozenset[str] = frozenset()
    resources: frozenset[str] = frozenset()
    """Plurals."""
    verbs: frozenset[str] = frozenset()
    """As RBAC names them."""

    def meets(self, replica: str, verb: str, plural: str) -> bool:
        """Whether it is about such a request."""
        return (
            (not self.replicas or replica in self.replicas)
            and (not self.verbs or verb in self.verbs)
            and (not self.resources or plural in self.resources)
        )


class Faults:
    """The plan, and the latency of what goes right."""

    def __init__(
        self,
        rand: random.Random,
        read_time: Callable[[], float],
        windows: Iterable[FaultWindow] = (),
        *,
        latency: tuple[float, float] = (0.001, 0.02),
    ) -> None:
        """`latency`: seconds of one way, drawn between the two."""
        self.rand = rand
        self.read_time = read_time
        self.latency = latency
        self._windows = sorted(windows, key=lambda window: window.start)
        self._active: list[FaultWindow] = []
        self._next_look = 0.0
        self.counts: dict[FaultKind, int] = {}
        """How often each fault was made."""

    def add(self, window: FaultWindow) -> None:
        """Add a window to the plan."""
        self._windows.append(window)
        self._next_look = 0.0

    def draw_ways(self) -> tuple[float, float]:
        """Return the seconds to the server and back; one of them is mostly 0, since a timer costs as much as a write."""
        draw = self.rand.random()
        if draw < 0.4:
            return self.draw_latency(), 0.0
        if draw < 0.8:
            return 0.0, self.draw_latency()
        return self.draw_latency(), self.draw_latency()

    def draw_latency(self) -> float:
        """Return the seconds that one way takes."""
        low, high = self.latency
        return low + (high - low) * self.rand.random()

    def find(self, kinds: frozenset[FaultKind], replica: str, verb: str, plural: str) -> FaultWindow | None:
        """Return the fault that meets this request or event now, if the draw says so."""
        for window in self._list_active():
            if window.kind not in kinds or not window.meets(replica, verb, plural):
                continue
            if window.kind in _WRITES_ONLY and verb in ("get", "list", "watch"):
                continue
            if window.kind == FaultKind.GONE and verb not in ("list", "watch"):
                continue
            if window.share >= 1.0 or self.rand.random() < window.share:
                self.counts[window.kind] = self.counts.get(window.kind, 0) + 1
                return window
        return None

    @property
    def is_calm(self) -> bool:
        """Whether no fault is due now."""
        return not self._list_active()

    def find_stall(self, replica: str) -> float:
        """Return until when a replica's process stands still; 0 if it runs."""
        ends = (
            window.end
            for window in self._list_active()
            if window.kind == FaultKind.STALL and (not window.replicas or replica in window.replicas)
        )
        return max(ends, default=0.0)

    def _list_active(self) -> list[FaultWindow]:
        now = self.read_time()
        if now >= self._next_look:
            self._windows = [window for window in self._windows if window.end > now]
            self._active = [window for window in self._windows if window.start <= now]
            later = (window.start for window in self._windows if window.start > now)
            self._next_look = min([*later, *(window.end for window in self._active)], default=float("inf"))
        return self._active


def build_error(window: FaultWindow, verb: str, plural: str, name: str) -> ApiError:
    """Return what the server answers under a fault."""
    match window.kind:
        case FaultKind.CONFLICT:
            return ConflictError(
                409,
                "Conflict",
                f'Operation cannot be fulfilled on {plural} "{name}": the object has been modified; please apply your changes to the latest version and try again',
            )
        case FaultKind.GONE:
            return refusals.expired("too old resource version")
        case FaultKind.TOO_MANY:
            text = "too many requests, please try again later"
            return TooManyRequestsError(429, "TooManyRequests", text, retry_after=max(1.0, window.seconds))
        case _:
            return ApiServerError(
                500, "InternalError", f"Internal error occurred: {verb} {plural}: etcdserver: request timed out"
            )
