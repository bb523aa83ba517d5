"""Work queue of keys that need a pass, and its workers. client-go's workqueue, for asyncio.

A key is *dirty* from `add` until a worker takes it, and *processing* until `finish`. So a key is never in two workers'
hands, and any number of adds while it waits are one pass. An add while it is processed makes one more pass after
`finish`. `fairness` decides the order.
"""

import asyncio
import heapq
import itertools
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from typing import Generic, TypeVar

from r1plus_operator.runtime.backoff import Backoff
from r1plus_operator.runtime.fairness import (
    Cancellable,
    Clock,
    Contention,
    Lane,
    Lanes,
    Priority,
    Room,
)

_log = logging.getLogger(__name__)
K = TypeVar("K", bound=Hashable)

RETRIES = Backoff(first=0.005, cap=120.0, jitter=0.2)


class ShutDownError(Exception):
    """The queue is shut down. Ends a worker; never reaches a handler."""


class WorkQueue(Generic[K]):
    """One per controller; every method but `get` returns at once. Used from one event loop only."""

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        retries: Backoff = RETRIES,
        rand: random.Random | None = None,
        lane: Callable[[K], Lane] = lambda _: Lane(),
        most_of_group: int | None = None,
        contention: Contention | None = None,
    ) -> None:
        """Use the event loop of the first delayed add as clock, unless one is given.

        `lane` returns a key's group and whether it is urgent. `most_of_group` bounds what is out at once (`Lanes`).
        `contention` is shared with what else keeps groups apart.
        """
        self._clock = clock
        self._retries = retries
        self._rand = rand or random.Random()  # noqa: S311 - jitter is no secret
        self._lane = lane
        self._contention = contention or Contention()
        self._ready: Lanes[K] = Lanes(lane, most_of_group, self._contention)
        self._dirty: dict[K, Priority] = {}
        """Key -> the highest priority that an add gave it."""
        self._timed: set[K] = set()
        """Of the dirty keys those for which nobody waits: their time has come."""
        self._processing: dict[K, float] = {}
        """Key -> when it was taken."""
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._closed = False
        self.has_workers = False
        """Whether a worker has asked for a key."""
        self._failures: dict[K, int] = {}
        self._doublings: dict[K, int] = {}
        """Of them, how many in a row used the queue's own delay."""
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._order = itertools.count()
        self._timer: tuple[float, Cancellable] | None = None
        self._is_looking = False
        """Whether a timer wakes the workers when a group may be alone."""

    @property
    def depth(self) -> int:
        """How many keys wait for a worker."""
        return len(self._ready)

    @property
    def delay_depth(self) -> int:
        """How many keys wait for their time."""
        return len(self._due)

    def count_failures(self, key: K) -> int:
        """Return how often in a row `add_failed` was called for the key since `forget`."""
        return self._failures.get(key, 0)

    def add(self, key: K, priority: Priority = Priority.NORMAL) -> None:
        """Ask for a pass over the key that starts after now."""
        if priority < Priority.LOW:
            self._timed.discard(key)
        self._add(key, priority)

    def add_after(self, key: K, seconds: float) -> None:
        """Ask for a pass over the key in `seconds`. Of several delayed adds the earliest counts."""
        if self._closed:
            return
        if seconds <= 0:
            self.add(key)
            return
        clock = self._get_clock()
        when = clock.time() + seconds
        if when >= self._due.get(key, float("inf")):
            return
        self._due[key] = when
        heapq.heappush(self._heap, (when, next(self._order), key))
        self._set_timer(clock)

    def add_failed(self, key: K, after: float | None = None) -> None:
        """Ask for another pass after a failed one, `after` seconds later; None: the delay doubles with each failure."""
        self._failures[key] = self._failures.get(key, 0) + 1
        if after is None:
            doublings = self._doublings.get(key, 0)
            self._doublings[key] = doublings + 1
            after = self._retries.compute_delay(doublings, self._rand)
        else:
            self._doublings.pop(key, None)
        self.add_after(key, after)

    def forget(self, key: K) -> None:
        """Reset the key's failures after a pass that ended well: the next failure starts from the shortest delay."""
        self._failures.pop(key, None)
        self._doublings.pop(key, None)

    async def get(self) -> K:
        """Wait for a key. The caller must call `finish` with it.

        Raises:
            ShutDownError: after `shut_down`.
        """
        self.has_workers = True
        clock = self._get_clock()
        while (key := self._ready.pop(clock.time())) is None:
            if self._closed:
                raise ShutDownError
            self._wake_when_alone(clock)
            await self._wait()
        now, priority = clock.time(), self._dirty.pop(key)
        self._processing[key] = now
        if priority is not Priority.LOW and key not in self._timed:
            self._contention.record(self._lane(key).group, now)
        self._timed.discard(key)
        return key

    def finish(self, key: K) -> None:
        """End the pass over the key, whether it went well or not."""
        clock, room, taken = self._get_clock(), self._ready.return_key(key), self._processing.pop(key)
        now = clock.time()
        rest = self._ready.compute_rest(room, now - taken, now)
        if rest > 0:
            clock.call_at(now + rest, lambda: self._free(room))
        else:
            self._free(room)
        if key in self._dirty:
            self._make_ready(key)

    def shut_down(self) -> None:
        """End every worker after its current key. Keys that wait are dropped: the next start lists everything again."""
        self._closed = True
        self._ready.clear()
        self._dirty.clear()
        self._timed.clear()
        self._due.clear()
        self._heap.clear()
        if self._timer:
            self._timer[1].cancel()
            self._timer = None
        self._wake_all()

    def _add(self, key: K, priority: Priority) -> None:
        if self._closed or self._dirty.get(key, len(Priority)) <= priority:
            return
        self._dirty[key] = priority
        if key not in self._processing:
            self._make_ready(key)

    def _get_clock(self) -> Clock:
        self._clock = self._clock or asyncio.get_running_loop()
        return self._clock

    def _free(self, room: Room) -> None:
        if self._ready.free(room):
            self._wake_one()

    def _make_ready(self, key: K) -> None:
        self._ready.push(key, self._dirty[key])
        self._wake_one()

    def _wake_all(self) -> None:
        while self._waiters:
            self._wake_one()

    def _wake_one(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _wake_when_alone(self, clock: Clock) -> None:
        """Wake the workers once a group whose keys have no room may be alone: then it has more."""
        alone_at = self._contention.find_next_alone(clock.time())
        if len(self._ready) and alone_at is not None and not self._is_looking:
            self._is_looking = True
            clock.call_at(alone_at, self._look_again)

    def _look_again(self) -> None:
        self._is_looking = False
        self._wake_all()

    async def _wait(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except BaseException:
            with suppress(ValueError):
                self._waiters.remove(waiter)
            if len(self._ready) and not waiter.cancelled():
                self._wake_one()  # This waiter was woken for a key and cannot take it.
            raise

    def _set_timer(self, clock: Clock) -> None:
        """Set the one timer for the whole heap to its earliest entry."""
        if not self._heap:
            return
        earliest = self._heap[0][0]
        if self._timer:
            if self._timer[0] <= earliest:
                return
            self._timer[1].cancel()
        self._timer = (earliest, clock.call_at(earliest, self._fire))

    def _fire(self) -> None:
        clock, self._timer = self._clock, None
        if clock is None or self._closed:
            return
        now = clock.time()
        while self._heap and self._heap[0][0] <= now:
            when, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == when:  # else an earlier add took its place
                del self._due[key]
                if key not in self._dirty:
                    self._timed.add(key)
                self._add(key, Priority.NORMAL)
        self._set_timer(clock)


async def run_workers(
    queue: WorkQueue[K],
    n: int,
    handle: Callable[[K], Awaitable[None]],
    *,
    on_error: Callable[[K, Exception], float | None],
) -> None:
    """Run `n` workers until the queue is shut down (returns) or the caller is cancelled (so are they).

    A handler that returns clears the key's failures; where it wants another pass it adds one itself. After one that
    raises, `on_error` reports it and returns in how many seconds to try again; None means the queue's own backoff.
    """
    async with asyncio.TaskGroup() as group:
        for _ in range(n):
            group.create_task(_run_worker(queue, handle, on_error))


async def _run_worker(
    queue: WorkQueue[K],
    handle: Callable[[K], Awaitable[None]],
    on_error: Callable[[K, Exception], float | None],
) -> None:
    while True:
        try:
            key = await queue.get()
        except ShutDownError:
            return
        try:
            await handle(key)
        except Exception as error:  # noqa: BLE001 - it is reported, and the key is tried again
            _retry(queue, key, error, on_error)
        else:
            queue.forget(key)
        finally:
            queue.finish(key)


def _retry(queue: WorkQueue[K], key: K, error: Exception, on_error: Callable[[K, Exception], float | None]) -> None:
    delay = None
    try:
        delay = on_error(key, error)
    except Exception:  # noqa: BLE001 - logged with its trace; the key is tried again
        _log.exception("The error handler failed for key %s", key)
    queue.add_failed(key, delay)
