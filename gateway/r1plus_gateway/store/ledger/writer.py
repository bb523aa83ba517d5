"""The one writer of the tenant's data: a thread that commits what waits for it in one transaction.

Many requests share one commit, so the volume's latency is paid once. A step that must happen (a settlement) is kept and
tried again until it is committed; any other step fails at once. The event loop never waits for a driver.

While the data cannot be written, what must happen is tried again together. What fails by itself (for want of memory, by
a defect) is tried again alone and more slowly, so it fails no other step.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from r1plus_gateway.access.caller import AccessError
from r1plus_gateway.store.errors import BusyError, StoreError, UnavailableError
from r1plus_gateway.store.keys.content_cipher import UnreadableContentError
from r1plus_gateway.store.ledger.repository import LedgerRepository

log = logging.getLogger(__name__)
T = TypeVar("T")
Step = Callable[[LedgerRepository], T]
MOST_BATCH: Final = 128
MOST_PENDING: Final = 2000
"""Steps that wait, those that must happen not counted."""
RETRY_SECONDS: Final = 0.5
FAILURE_RETRY_SECONDS: Final = 5.0
"""Between two tries of steps that must happen and fail by themselves."""
MOST_FAILED: Final = 2000
"""Such steps that are kept."""
REFUSALS: Final = (AccessError, ValueError, UnreadableContentError)
"""What a step refuses with; what it has written until then is whole, and is committed."""


@dataclass(slots=True)
class _Job:
    step: Callable[[LedgerRepository], Any]
    is_required: bool
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    has_failed: bool = False
    """Whether it has failed by itself."""


_Outcome = tuple[_Job, Any, BaseException | None]


class Writer:
    """A queue of steps, and the thread that runs them."""

    def __init__(
        self,
        open_repository: Callable[[], AbstractContextManager[LedgerRepository]],
        *,
        most_pending: int = MOST_PENDING,
        retry_seconds: float = RETRY_SECONDS,
        failure_retry_seconds: float = FAILURE_RETRY_SECONDS,
        most_failed: int = MOST_FAILED,
    ) -> None:
        """Take what opens a transaction; it raises StoreError while there is none."""
        self._open_repository = open_repository
        self._most_pending = most_pending
        self._retry_seconds = retry_seconds
        self._queue: deque[_Job] = deque()
        self._retries: deque[_Job] = deque()
        self._retry_at = 0.0
        self._failure_retry_seconds = failure_retry_seconds
        self._most_failed = most_failed
        self._failed: deque[_Job] = deque()
        """What must happen and has failed by itself."""
        self._failed_at = 0.0
        self._wakes = threading.Condition()
        self._stops_at: float | None = None
        self._thread = threading.Thread(target=self._run, name="gateway-writer", daemon=True)
        self._thread.start()

    @property
    def pending(self) -> int:
        """Steps that wait."""
        return len(self._queue) + len(self._retries) + len(self._failed)

    def submit(self, step: Step[T], *, is_required: bool = False) -> "asyncio.Future[T]":
        """Queue a step and return its result as a future, which is set after the commit.

        A required step runs even if its future is cancelled, and is tried again while the data cannot be written. If it
        fails otherwise, its future says so, and it is tried again as well.

        Raises:
            BusyError: too many steps wait.
            UnavailableError: the writer has stopped.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        # A required step may outlive who waits for it.
        future.add_done_callback(_retrieve_error)
        with self._wakes:
            if self._stops_at is not None:
                raise UnavailableError("The gateway is stopping")
            if not is_required and len(self._queue) >= self._most_pending:
                raise BusyError(f"{len(self._queue)} requests wait for the tenant's data already")
            self._queue.append(_Job(step, is_required, loop, future))
            self._wakes.notify()
        return future

    def close(self, seconds: float = 10.0) -> int:
        """Run what waits, for at most some seconds, and stop. Return how many required steps are left."""
        with self._wakes:
            self._stops_at = time.monotonic() + seconds
            self._failed_at = 0.0  # one more try
            self._wakes.notify()
        self._thread.join(seconds + 5.0)
        return sum(job.is_required for job in (*self._queue, *self._retries, *self._failed))

    def _run(self) -> None:
        while jobs := self._take():
            self._perform(jobs)

    def _take(self) -> list[_Job]:
        """Wait for steps and return the next batch; none at the end."""
        with self._wakes:
            while True:
                now = time.monotonic()
                is_retry_due = bool(self._retries) and now >= self._retry_at
                is_failed_due = bool(self._failed) and now >= self._failed_at
                if self._queue or is_retry_due or is_failed_due:
                    break
                if self._stops_at is not None and (not self._retries or now >= self._stops_at):
                    return []
                waiting = ((self._retries, self._retry_at), (self._failed, self._failed_at))
                self._wakes.wait(min((max(0.0, at - now) for kept, at in waiting if kept), default=None))
            if self._stops_at is not None and now >= self._stops_at:
                return []
            if is_failed_due:
                return [self._failed.popleft()]
            jobs: list[_Job] = []
            sources = (self._retries, self._queue) if is_retry_due else (self._queue,)
            for source in sources:
                while source and len(jobs) < MOST_BATCH:
                    jobs.append(source.popleft())
            return jobs

    def _perform(self, jobs: list[_Job]) -> None:
        jobs = [job for job in jobs if job.is_required or not job.future.cancelled()]
        if not jobs:
            return
        try:
            with self._open_repository() as repository:
                outcomes = [_attempt(job, repository) for job in jobs]
        except StoreError as error:
            self._keep_required(jobs, error)
            return
        except Exception as error:  # noqa: BLE001 - who waits for the step gets it, and the log
            if len(jobs) > 1:
                # One step's defect fails no other step.
                for job in jobs:
                    self._perform([job])
                return
            self._keep_failed(jobs[0])
            outcomes = [(jobs[0], None, error)]
        else:
            if jobs[0].has_failed:
                self._failed_at = 0.0  # what has failed before may work now, too
        _deliver(outcomes)

    def _keep_failed(self, job: _Job) -> None:
        """Keep a step that has failed by itself, if it must happen. It is called where an exception is handled."""
        more = "; it is tried again, and after a restart of the gateway its pods say what it used"
        log.error("Step of the ledger failed%s", more if job.is_required else "", exc_info=not job.has_failed)
        job.has_failed = True
        if not job.is_required:
            return
        with self._wakes:
            self._failed.append(job)
            self._failed_at = time.monotonic() + self._failure_retry_seconds
            if len(self._failed) > self._most_failed:
                self._failed.popleft()
                log.error("%d steps of the ledger have failed, so the oldest is not tried again", self._most_failed)

    def _keep_required(self, jobs: list[_Job], error: StoreError) -> None:
        required = [job for job in jobs if job.is_required]
        if required:
            log.warning("Tenant's data cannot be written, %d settlements wait: %s", len(required), error)
            with self._wakes:
                self._retries.extendleft(reversed(required))
                self._retry_at = time.monotonic() + self._retry_seconds
        _deliver([(job, None, error.renew()) for job in jobs if not job.is_required])


def _attempt(job: _Job, repository: LedgerRepository) -> _Outcome:
    try:
        return job, job.step(repository), None
    except REFUSALS as error:
        if job.is_required:
            raise  # it has nothing to refuse
        return job, None, error


def _deliver(outcomes: list[_Outcome]) -> None:
    """Set the futures, with one wake-up per event loop."""
    for loop in {outcome[0].loop for outcome in outcomes}:
        own = [outcome for outcome in outcomes if outcome[0].loop is loop]
        with contextlib.suppress(RuntimeError):  # The loop is closed: nothing waits.
            loop.call_soon_threadsafe(_set_results, own)


def _set_results(outcomes: list[_Outcome]) -> None:
    for job, result, error in outcomes:
        if job.future.done():
            continue
        if error is None:
            job.future.set_result(result)
        else:
            job.future.set_exception(error)


def _retrieve_error(future: "asyncio.Future[Any]") -> None:
    if not future.cancelled():
        future.exception()
