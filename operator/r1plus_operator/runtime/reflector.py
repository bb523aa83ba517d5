"""Cache of a kind's objects that survives a lost connection. client-go's reflector, for asyncio.

LIST in pages → compare with the store → WATCH from there. The next list shows what the watch missed: objects that are
gone from it are reported as deleted. `run` never gives up and never returns; only cancelling ends it.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Generic

from r1plus_operator.runtime.backoff import Backoff
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.errors import (
    ApiError,
    GoneError,
    NotFoundError,
    TooManyRequestsError,
    TransportError,
)
from r1plus_operator.runtime.resources import Resource
from r1plus_operator.runtime.store import Key, P, Store, build_key

_log = logging.getLogger(__name__)
_RETRY = Backoff(first=0.2, cap=30.0)
PAGE_SIZE = 50
"""Objects per request of a list. A page is held whole until it is projected, and annotations may take 256 KiB each."""
_DELETED_PREFIX = b'{"type":"DELETED"'
_VERSION_FIELD = b'"resourceVersion":"'


@dataclass(frozen=True, slots=True)
class ReflectorTiming:
    """Seconds. The defaults suit a real cluster; tests against a scripted server are faster."""

    retry: Backoff = _RETRY
    inactivity: float = 150.0
    """The server sends bookmarks at most two minutes apart: silence for longer means that the stream is dead."""
    shortest_watch: float = 300.0
    longest_watch: float = 600.0
    absent_recheck: float = 30.0
    """How often to ask for an optional kind that the server does not have."""


class Reflector(Generic[P]):
    """One per kind (and label selector).

    `project` turns a raw object into what the store keeps; None leaves it out. It must not keep the raw object's parts
    that it does not need. Objects of a list carry no `apiVersion` and no `kind`.
    `on_change` gets ADDED, MODIFIED or DELETED and the projection (for DELETED the last one known). It is called only
    if the projection differs from the one before, after the store has it, and must not wait for anything: it adds a
    key to a queue.
    """

    def __init__(
        self,
        client: ApiClient,
        resource: Resource,
        *,
        project: Callable[[dict[str, Any]], P | None],
        on_change: Callable[[str, P], None],
        label_selector: str = "",
        namespace: str | None = None,
        index: Callable[[P], str | None] | None = None,
        optional: bool = False,
        on_available: Callable[[], None] = lambda: None,
        page_size: int = PAGE_SIZE,
        metadata_only: bool = False,
        timing: ReflectorTiming | None = None,
        rand: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Treat a server that lacks an `optional` kind (its CRD is not installed) as one without objects.

        `on_available` is called when the server proves to have the kind: there may be no object to report.
        `metadata_only`: the server sends no bodies, so an object costs as much as its metadata.
        """
        self.resource = resource
        self.store: Store[P] = Store(index)
        self.is_available = not optional
        self.last_activity = clock()
        """When, on the monotonic clock, the server last answered or sent an event."""
        self._client = client
        self._project = project
        self._on_change = on_change
        self._selector = label_selector
        self._namespace = namespace
        self._optional = optional
        self._on_available = on_available
        self._page_size = page_size
        self._metadata_only = metadata_only
        self._timing = timing or ReflectorTiming()
        self._rand = rand or random.Random()  # noqa: S311 - jitter is no secret
        self._clock = clock
        self._version: str | None = None
        self._failures = 0
        self._ahead: dict[Key, int] = {}
        """Objects that our own write made newer than the stream -> the version that the stream must reach."""
        self._flights: dict[Key, _Flight] = {}
        self._echoes: dict[int, Key] = {}
        """`_ahead`, the other way round: a version is of one write in the whole cluster."""
        self._has_progressed = False

    @property
    def sync_event(self) -> asyncio.Event:
        """Set once the store has held a complete list (or an optional kind proved absent)."""
        return self.store.sync_event

    def expire(self) -> None:
        """Distrust the store: the next `run` starts with a list, and `sync_event` waits for it. Not while it runs."""
        self._version = None
        self.sync_event.clear()

    async def run(self) -> None:
        """List and watch for ever."""
        while True:
            try:
                if self._version is None:
                    self._version = await self._list_objects()
                has_progressed = await self._follow_stream(self._version)
                # A stream that ends without an event is a failure as well; else the loop would spin.
                delay = 0.0 if has_progressed else self._next_delay()
            except Exception as error:  # noqa: BLE001 - all are retried, each after its delay
                delay = self._handle_failure(error)
            await asyncio.sleep(delay)

    async def write_through(self, key: Key, write: Awaitable[dict[str, Any]]) -> None:
        """Carry out a write to one object (one at a time for each) and store its answer, as the stream will bring it.

        So the next reader sees what was written. Our own write is not reported, whether the answer or the stream comes
        first; a later write of another client is.
        """
        flight = self._flights[key] = _Flight()
        try:
            version = _read_version(answer := await write)
        except BaseException:
            version = 0  # Only the stream says what has become of it.
            raise
        finally:
            del self._flights[key]
            if flight.version > version and flight.report is not None:
                self._report(*flight.report)
        if flight.version < version and (projection := self._project_object(answer)) is not None:
            self.store.upsert(projection)
            self._await_echo(key, version)

    def forget(self, key: Key) -> None:
        """Drop an object that we deleted. The stream will confirm it; other events before that are reported."""
        self.store.drop(key)

    async def _list_objects(self) -> str:
        """Read everything, then change the store in one step, so that no reader sees half a list."""
        fresh: dict[Key, tuple[int, P]] = {}
        newest = ""
        self._ahead.clear()  # The list includes what was written before it began.
        self._echoes.clear()
        pages = self._client.iter_pages(
            self.resource,
            self._namespace,
            label_selector=self._selector,
            limit=self._page_size,
            metadata_only=self._metadata_only,
        )
        while True:
            async with self._client.page_turns:
                if (page := await anext(pages, None)) is None:
                    break
                items, newest = page
                self.last_activity = self._clock()
                for obj in items:
                    if (projection := self._project_object(obj)) is not None:
                        fresh[build_key(projection)] = _read_version(obj), projection
                items.clear()  # Else the page stays in memory until the next one has come.
        self._replace(fresh, int(newest))
        if not self.is_available:
            self.is_available = True
            self._on_available()
        self.sync_event.set()
        return newest

    async def _follow_stream(self, version: str) -> bool:
        """Follow the stream to its end; return whether it sent an event."""
        events = self._client.watch(
            self.resource,
            version,
            namespace=self._namespace,
            label_selector=self._selector,
            lifetime_s=self._rand.uniform(self._timing.shortest_watch, self._timing.longest_watch),
            inactivity_s=self._timing.inactivity,
            skip=self._is_echo,
            metadata_only=self._metadata_only,
        )
        self._has_progressed = False
        async with aclosing(events):
            async for kind, obj in events:
                if kind != "BOOKMARK":
                    self._apply_event(kind, obj)
                self._advance(obj["metadata"]["resourceVersion"])
        return self._has_progressed

    def _advance(self, version: str) -> None:
        """Record that the stream has reached this version."""
        self._has_progressed = True
        self._failures = 0
        self.last_activity = self._clock()
        self._version = version

    def _await_echo(self, key: Key, version: int) -> None:
        self._echoes.pop(self._ahead.get(key, 0), None)
        self._ahead[key] = version
        self._echoes[version] = key

    def _is_echo(self, line: bytes) -> bool:
        """Return whether an event is the echo of a write of ours whose answer is stored already.

        Decided from the bytes, since half of all events are echoes. This is exact: quotes within JSON text are escaped,
        so the match is a field, and the only field of that name is `metadata.resourceVersion`.
        """
        if line.startswith(_DELETED_PREFIX) or line.count(_VERSION_FIELD) != 1:
            return False
        version = line.partition(_VERSION_FIELD)[2].partition(b'"')[0].decode()
        key = self._echoes.pop(int(version), None) if version.isdecimal() else None
        if key is None:
            return False
        del self._ahead[key]
        self._advance(version)
        return True

    def _handle_failure(self, error: Exception) -> float:
        """Decide where to go on (same version or a new list) and return after how many seconds."""
        if isinstance(error, NotFoundError) and self._optional:
            self._mark_absent()
            return self._timing.absent_recheck * self._rand.uniform(0.9, 1.1)
        if not isinstance(error, TransportError | TooManyRequestsError):
            self._version = None
        retry_after = error.retry_after if isinstance(error, ApiError) else None
        delay = max(self._next_delay(), retry_after or 0.0)
        if isinstance(error, ApiError):
            level = logging.INFO if isinstance(error, GoneError | TransportError) else logging.WARNING
            _log.log(level, "Watch of %s was interrupted, retry in %.1f s: %s", self.resource.name, delay, error)
        else:
            _log.error("Watch of %s failed, retry in %.1f s", self.resource.name, delay, exc_info=error)
        return delay

    def _next_delay(self) -> float:
        delay = self._timing.retry.compute_delay(self._failures, self._rand)
        self._failures += 1
        return delay

    def _mark_absent(self) -> None:
        if self.is_available or not self.sync_event.is_set():
            _log.info(
                "The API server does not serve %s, retry every %.0f s", self.resource.name, self._timing.absent_recheck
            )
        self._version = None
        self._failures = 0
        self.is_available = False
        self.last_activity = self._clock()
        self._ahead.clear()
        self._echoes.clear()
        self._replace({}, 0)
        self.sync_event.set()

    def _replace(self, fresh: dict[Key, tuple[int, P]], version: int) -> None:
        """Make the store hold exactly `fresh` and report every difference; objects written since then stay."""
        for flight in self._flights.values():
            flight.version = version
        for key in self.store.keys() - fresh.keys():
            if self._ahead.get(key, 0) <= version:
                self._remove(key)
        for key, (of_object, projection) in fresh.items():
            if self._ahead.get(key, 0) <= of_object:
                self._upsert(projection)

    def _apply_event(self, kind: str, obj: dict[str, Any]) -> None:
        """Apply one event to the store. An object that the projection leaves out counts as deleted."""
        key, version = _read_key(obj), _read_version(obj)
        ahead = self._ahead.get(key, 0)
        if version < ahead:
            return  # From before our own write, whose answer is stored already.
        self._echoes.pop(self._ahead.pop(key, 0), None)
        if version == ahead and kind != "DELETED":
            return  # Our own write.
        if (flight := self._flights.get(key)) is not None:
            flight.version = version
        projection = None if kind == "DELETED" else self._project_object(obj)
        if projection is None:
            self._remove(key)
        else:
            self._upsert(projection)

    def _upsert(self, projection: P) -> None:
        before = self.store.upsert(projection)
        if before is None:
            self._report("ADDED", projection)
        elif before.uid != projection.uid:
            # A namesake took its place between two events: both changes happened.
            self._report("DELETED", before)
            self._report("ADDED", projection)
        elif before != projection:
            self._report("MODIFIED", projection)

    def _remove(self, key: Key) -> None:
        if (before := self.store.drop(key)) is not None:
            self._report("DELETED", before)

    def _project_object(self, obj: dict[str, Any]) -> P | None:
        """Project one object; one that cannot be read keeps its last known state and stops no other."""
        try:
            return self._project(obj)
        except Exception:  # noqa: BLE001 - logged with its trace; the other objects go on
            key = _read_key(obj)
            _log.exception("Could not read %s %s/%s, kept its last known state", self.resource.kind, *key)
            return self.store.get(*key)

    def _report(self, event: str, projection: P) -> None:
        if (flight := self._flights.get(build_key(projection))) is not None:
            flight.report = event, projection
            return
        try:
            self._on_change(event, projection)
        except Exception:  # noqa: BLE001 - logged with its trace; the store is right all the same
            _log.exception("Could not report %s of %s %s/%s", event, self.resource.kind, *build_key(projection))


@dataclass(slots=True)
class _Flight:
    """A write under way, with what the stream has brought of its object meanwhile."""

    version: int = 0
    """Version of the last event, or of a list."""
    report: tuple[str, Any] | None = None
    """The last report, not delivered yet: it may be of the write itself."""


def _read_version(obj: dict[str, Any]) -> int:
    """Return the resourceVersion: of two objects of one kind, the higher one is the newer."""
    return int(obj["metadata"]["resourceVersion"])


def _read_key(obj: dict[str, Any]) -> Key:
    meta = obj["metadata"]
    return meta.get("namespace", ""), meta["name"]
