"""Keeps a kind's objects in memory, whatever happens to the connection. client-go's reflector, for asyncio.

LIST in pages → compare with the store → WATCH from there. What the watch missed shows in the next list: objects that
are gone from it are reported as deleted. `run` never gives up and never returns; only cancelling ends it.
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
from r1plus_operator.runtime.store import Key, P, Store, key_of

_log = logging.getLogger(__name__)
_RETRY = Backoff(first=0.2, cap=30.0)
PAGE_SIZE = 50
"""Objects per request of a list. A page is held whole until it is projected, and annotations may take 256 KiB each."""
_DELETED = b'{"type":"DELETED"'
_VERSION_FIELD = b'"resourceVersion":"'


@dataclass(frozen=True, slots=True)
class Timing:
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
        timing: Timing | None = None,
        rand: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`optional`: a server that lacks the kind (its CRD is not installed) counts as one without objects.

        `on_available` is called when it turns out that the server has it: there may be no object to report.
        `metadata_only`: the server sends no bodies, so that an object costs what its metadata does.
        """
        self.resource = resource
        self.store: Store[P] = Store(index)
        self.available = not optional
        self.last_activity = clock()
        """When, on the monotonic clock, the server was last heard of."""
        self._client = client
        self._project = project
        self._on_change = on_change
        self._selector = label_selector
        self._namespace = namespace
        self._optional = optional
        self._on_available = on_available
        self._page_size = page_size
        self._metadata_only = metadata_only
        self._timing = timing or Timing()
        self._rand = rand or random.Random()  # noqa: S311 - jitter is no secret
        self._clock = clock
        self._version: str | None = None
        self._failures = 0
        self._ahead: dict[Key, int] = {}
        """Objects that the answer to a write of ours made newer than the stream, and the version that it must reach."""
        self._flights: dict[Key, _Flight] = {}
        self._echoes: dict[int, Key] = {}
        """`_ahead`, the other way round: a version is of one write in the whole cluster."""
        self._heard = False

    @property
    def synced(self) -> asyncio.Event:
        """Set once the store has held a complete list (or an optional kind proved absent)."""
        return self.store.synced

    def expire(self) -> None:
        """Trust the store no more: the next `run` starts with a list, and `synced` waits for it. Not while it runs."""
        self._version = None
        self.synced.clear()

    async def run(self) -> None:
        """List and watch for ever."""
        while True:
            try:
                if self._version is None:
                    self._version = await self._list()
                heard = await self._watch(self._version)
                # A stream that ends at once without an event is a failure, too; else the loop would spin.
                delay = 0.0 if heard else self._backoff()
            except Exception as error:  # noqa: BLE001 - all are retried, each after its delay
                delay = self._after_failure(error)
            await asyncio.sleep(delay)

    async def write_through(self, key: Key, write: Awaitable[dict[str, Any]]) -> None:
        """Carry out a write to one object (one at a time for each) and take its answer in, as the stream will bring it.

        So the next reader sees what was written, and our own write is no news: it is not reported, whether the answer
        or the stream comes first. What somebody else did after it is.
        """
        flight = self._flights[key] = _Flight()
        try:
            version = _version(answer := await write)
        except BaseException:
            version = 0  # Nothing is known of it but what the stream says.
            raise
        finally:
            del self._flights[key]
            if flight.heard > version and flight.news is not None:
                self._report(*flight.news)
        if flight.heard < version and (projected := self._projected(answer)) is not None:
            self.store.put(projected)
            self._await_echo(key, version)

    def forget(self, key: Key) -> None:
        """We deleted it. The stream will say so, and if it has other news before, they are reported."""
        self.store.drop(key)

    async def _list(self) -> str:
        """Read everything, then change the store in one step, so that no reader sees half a list."""
        fresh: dict[Key, tuple[int, P]] = {}
        newest = ""
        self._ahead.clear()  # The list knows what was written before it began.
        self._echoes.clear()
        pages = self._client.pages(
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
                    if (projected := self._projected(obj)) is not None:
                        fresh[key_of(projected)] = _version(obj), projected
                items.clear()  # Else they are kept until the next page is there.
        self._replace(fresh, int(newest))
        if not self.available:
            self.available = True
            self._on_available()
        self.synced.set()
        return newest

    async def _watch(self, version: str) -> bool:
        """Follow the stream to its end; whether it said anything."""
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
        self._heard = False
        async with aclosing(events):
            async for kind, obj in events:
                if kind != "BOOKMARK":
                    self._take(kind, obj)
                self._advance(obj["metadata"]["resourceVersion"])
        return self._heard

    def _advance(self, version: str) -> None:
        """The stream has come so far."""
        self._heard = True
        self._failures = 0
        self.last_activity = self._clock()
        self._version = version

    def _await_echo(self, key: Key, version: int) -> None:
        self._echoes.pop(self._ahead.get(key, 0), None)
        self._ahead[key] = version
        self._echoes[version] = key

    def _is_echo(self, line: bytes) -> bool:
        """Whether an event is the stream's word of a write of ours whose answer has been taken in.

        Told from the bytes, since half of all events are that. Exact: quotes within JSON text are escaped, so what is
        looked for is a field, and where it is the only one of that name it is `metadata.resourceVersion`.
        """
        if line.startswith(_DELETED) or line.count(_VERSION_FIELD) != 1:
            return False
        version = line.partition(_VERSION_FIELD)[2].partition(b'"')[0].decode()
        key = self._echoes.pop(int(version), None) if version.isdecimal() else None
        if key is None:
            return False
        del self._ahead[key]
        self._advance(version)
        return True

    def _after_failure(self, error: Exception) -> float:
        """Decide where to go on (same place or a new list) and after how many seconds."""
        if isinstance(error, NotFoundError) and self._optional:
            self._mark_absent()
            return self._timing.absent_recheck * self._rand.uniform(0.9, 1.1)
        if not isinstance(error, TransportError | TooManyRequestsError):
            self._version = None
        asked = error.retry_after if isinstance(error, ApiError) else None
        delay = max(self._backoff(), asked or 0.0)
        if isinstance(error, ApiError):
            level = logging.INFO if isinstance(error, GoneError | TransportError) else logging.WARNING
            _log.log(level, "Watch of %s was interrupted, retry in %.1f s: %s", self.resource.name, delay, error)
        else:
            _log.error("Watch of %s failed, retry in %.1f s", self.resource.name, delay, exc_info=error)
        return delay

    def _backoff(self) -> float:
        delay = self._timing.retry.delay(self._failures, self._rand)
        self._failures += 1
        return delay

    def _mark_absent(self) -> None:
        if self.available or not self.synced.is_set():
            _log.info(
                "The API server does not serve %s, retry every %.0f s", self.resource.name, self._timing.absent_recheck
            )
        self._version = None
        self._failures = 0
        self.available = False
        self.last_activity = self._clock()
        self._ahead.clear()
        self._echoes.clear()
        self._replace({}, 0)
        self.synced.set()

    def _replace(self, fresh: dict[Key, tuple[int, P]], version: int) -> None:
        """Make the store hold exactly `fresh`, reporting every difference; what was written since then stays."""
        for flight in self._flights.values():
            flight.heard = version
        for key in self.store.keys() - fresh.keys():
            if self._ahead.get(key, 0) <= version:
                self._remove(key)
        for key, (of_object, projected) in fresh.items():
            if self._ahead.get(key, 0) <= of_object:
                self._put(projected)

    def _take(self, kind: str, obj: dict[str, Any]) -> None:
        """Take in one event. An object that the projection leaves out is as good as deleted."""
        key, version = _raw_key(obj), _version(obj)
        ahead = self._ahead.get(key, 0)
        if version < ahead:
            return  # From before our own write, whose answer has been taken in.
        self._echoes.pop(self._ahead.pop(key, 0), None)
        if version == ahead and kind != "DELETED":
            return  # Our own write.
        if (flight := self._flights.get(key)) is not None:
            flight.heard = version
        projected = None if kind == "DELETED" else self._projected(obj)
        if projected is None:
            self._remove(key)
        else:
            self._put(projected)

    def _put(self, projected: P) -> None:
        before = self.store.put(projected)
        if before is None:
            self._report("ADDED", projected)
        elif before.uid != projected.uid:
            # A namesake took its place while nobody looked: both changes happened.
            self._report("DELETED", before)
            self._report("ADDED", projected)
        elif before != projected:
            self._report("MODIFIED", projected)

    def _remove(self, key: Key) -> None:
        if (before := self.store.drop(key)) is not None:
            self._report("DELETED", before)

    def _projected(self, obj: dict[str, Any]) -> P | None:
        """One object that the projection cannot read must not stop the others: its last known state stays."""
        try:
            return self._project(obj)
        except Exception:  # noqa: BLE001 - logged with its trace; the other objects go on
            key = _raw_key(obj)
            _log.exception("Could not read %s %s/%s, kept its last known state", self.resource.kind, *key)
            return self.store.get(*key)

    def _report(self, event: str, projected: P) -> None:
        if (flight := self._flights.get(key_of(projected))) is not None:
            flight.news = event, projected
            return
        try:
            self._on_change(event, projected)
        except Exception:  # noqa: BLE001 - logged with its trace; the store is right all the same
            _log.exception("Could not report %s of %s %s/%s", event, self.resource.kind, *key_of(projected))


@dataclass(slots=True)
class _Flight:
    """A write under way: what the stream has said of its object meanwhile."""

    heard: int = 0
    """Version of the last event, or of a list."""
    news: tuple[str, Any] | None = None
    """The last report, held back: it may be of the write itself."""


def _version(obj: dict[str, Any]) -> int:
    """Of two states of the objects of one kind, the one with the higher resourceVersion is the newer."""
    return int(obj["metadata"]["resourceVersion"])


def _raw_key(obj: dict[str, Any]) -> Key:
    meta = obj["metadata"]
    return meta.get("namespace", ""), meta["name"]
