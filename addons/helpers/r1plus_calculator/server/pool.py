"""Workers that are ready before a request comes. Each answers one request and ends, so no request sees another's."""

import asyncio
import contextlib
import logging
import signal
import socket
import time
from dataclasses import dataclass, field
from typing import Final

from r1plus_calculator.server.wire import encode_failure
from r1plus_calculator.server.worker import READY, Evaluator, run_worker
from r1plus_contract.calculator import ANSWER_SECONDS, MOST_REPLY_BYTES, FailureCode
from r1plus_contract.frames import LENGTH_BYTES, FrameError, pack, read_length
from r1plus_sandbox.children import ForkedChild
from r1plus_sandbox.confinement import WorkerLimits

log = logging.getLogger(__name__)
START_SECONDS: Final = 20.0
"""For a fork to become ready; a quiet machine takes some ten milliseconds."""
LEAST_SECONDS: Final = 0.5
"""A request that would get less than this is refused instead."""
MARGIN_SECONDS: Final = 0.2
"""Of the time for a reply, for all but computing."""
MOST_WAITING: Final = 64
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds between starts of workers that do not become ready."""
_TIME_LIMIT: Final = encode_failure(
    FailureCode.TIME_LIMIT,
    "the calculation takes longer than it may; write a simpler expression, or calculate it in parts",
)
_BUSY: Final = encode_failure(FailureCode.BUSY, "the calculator has no free worker; try again in a second")
_DIED: Final = encode_failure(
    FailureCode.FAILED, "the calculation ended without a result; write the expression in another way, or try again"
)


@dataclass(slots=True)
class _Job:
    payload: bytes
    reply: asyncio.Future[bytes]
    deadline: float
    """On the loop's clock; the reply is sent before."""
    is_taken: bool = False
    """Whether a worker has it."""


class Worker:
    """A forked process, from the side of its supervisor."""

    def __init__(self, limits: WorkerLimits, evaluate: Evaluator) -> None:
        own, its = socket.socketpair()
        self._child = ForkedChild(lambda: run_worker(its.fileno(), limits, evaluate))
        self.pid = self._child.pid
        its.close()
        own.setblocking(False)
        self._socket = own

    async def start(self) -> str:
        """Wait until it is ready; return why it is not, or nothing."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(START_SECONDS):
                first = await loop.sock_recv(self._socket, 1)
                if first == READY:
                    return ""
                return (await loop.sock_recv(self._socket, 500)).decode(errors="replace") or "it ended while it started"
        except (TimeoutError, OSError) as error:
            return f"no sign of it: {type(error).__name__}"

    def listen(self) -> asyncio.Task[bytes]:
        """Wait for its reply in the background; before a request was sent, this ends only if it dies."""
        return asyncio.create_task(self._read_reply())

    async def _read_reply(self) -> bytes:
        length = read_length(await self._receive(LENGTH_BYTES), MOST_REPLY_BYTES)
        return await self._receive(length)

    async def _receive(self, count: int) -> bytes:
        """Return so many bytes.

        Raises:
            FrameError: it has ended before.
        """
        data = b""
        while len(data) < count:
            chunk = await asyncio.get_running_loop().sock_recv(self._socket, count - len(data))
            if not chunk:
                raise FrameError("the worker has ended")
            data += chunk
        return data

    async def send(self, payload: bytes) -> None:
        """Send its request."""
        await asyncio.get_running_loop().sock_sendall(self._socket, pack(payload))

    async def end(self) -> int:
        """Kill it if it still runs; return its exit status, negative for a signal."""
        status = await self._child.end()
        self._socket.close()
        return status


@dataclass(slots=True)
class WorkerPool:
    """So many workers at a time, and a queue before them."""

    limits: WorkerLimits
    size: int
    evaluate: Evaluator
    answer_seconds: float = ANSWER_SECONDS
    """Within which a request has a reply."""
    idle: dict[int, Worker] = field(default_factory=dict)
    """Ready workers by their process ids."""
    running: int = 0
    answered: int = 0
    killed: int = 0
    _jobs: asyncio.Queue[_Job] = field(default_factory=asyncio.Queue)
    _slots: list[asyncio.Task[None]] = field(default_factory=list)
    _endings: set[asyncio.Task[int]] = field(default_factory=set)
    """Workers that are being killed and reaped, also when their slots are stopped meanwhile."""
    _pause: float = FIRST_PAUSE

    @property
    def waiting(self) -> int:
        """How many requests wait for a worker."""
        return self._jobs.qsize()

    @property
    def is_ready(self) -> bool:
        """Whether a request would find a worker, now or soon."""
        return bool(self.idle or self.running)

    def start(self) -> None:
        """Start the workers."""
        self._slots = [asyncio.create_task(self._run_slot()) for _ in range(self.size)]

    async def stop(self) -> None:
        """Kill all workers."""
        for slot in self._slots:
            slot.cancel()
        await asyncio.gather(*self._slots, return_exceptions=True)
        await asyncio.gather(*self._endings, return_exceptions=True)

    async def ask(self, payload: bytes) -> bytes:
        """Return the reply to a request, within `answer_seconds`."""
        if self._jobs.qsize() >= MOST_WAITING:
            return _BUSY
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.answer_seconds - MARGIN_SECONDS
        job = _Job(payload, loop.create_future(), deadline)
        self._jobs.put_nowait(job)
        try:
            # Without a worker until then, nobody takes it.
            async with asyncio.timeout_at(deadline - LEAST_SECONDS):
                await asyncio.shield(job.reply)
        except TimeoutError:
            if not job.is_taken:
                job.reply.cancel()
                return _BUSY
        return await job.reply

    async def _run_slot(self) -> None:
        """Keep one worker ready or running."""
        while True:
            worker = Worker(self.limits, self.evaluate)
            try:
                trouble = await worker.start()
                if not trouble:
                    self._pause = FIRST_PAUSE
                    await self._serve(worker)
                    continue
            finally:
                self.idle.pop(worker.pid, None)
                ending = asyncio.create_task(worker.end())
                self._endings.add(ending)
                ending.add_done_callback(self._endings.discard)
                await asyncio.shield(ending)
            log.error("Worker did not start: %s", trouble)
            await asyncio.sleep(self._pause)
            self._pause = min(2 * self._pause, LONGEST_PAUSE)

    async def _serve(self, worker: Worker) -> None:
        """Wait for a request, and answer it with this worker."""
        self.idle[worker.pid] = worker
        reply = worker.listen()
        try:
            job = await self._wait_for_job(reply)
            self.idle.pop(worker.pid, None)
            if job is None:
                self.killed += 1
                log.warning("Worker died while it was idle, replaced")
                return
            self.running += 1
            try:
                await self._answer(worker, job, reply)
            finally:
                self.running -= 1
        finally:
            reply.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await reply

    async def _wait_for_job(self, reply: asyncio.Task[bytes]) -> _Job | None:
        """Return the next job whose client still has time; None if the worker dies before."""
        while True:
            taking = asyncio.create_task(self._jobs.get())
            try:
                await asyncio.wait({taking, reply}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                taking.cancel()
            job = taking.result() if taking.done() and not taking.cancelled() else None
            if reply.done():
                if job is not None:
                    self._jobs.put_nowait(job)
                return None
            if job is not None and not job.reply.done():
                job.is_taken = True
                return job

    async def _answer(self, worker: Worker, job: _Job, reply: asyncio.Task[bytes]) -> None:
        loop = asyncio.get_running_loop()
        left = min(self.limits.wall_seconds, job.deadline - loop.time())
        started = time.monotonic()
        try:
            async with asyncio.timeout(left):
                await worker.send(job.payload)
                answer = await reply
            self.answered += 1
        except TimeoutError:
            self.killed += 1
            answer = _TIME_LIMIT
        except (FrameError, OSError):
            self.killed += 1
            status = await worker.end()
            has_overrun = status == -signal.SIGXCPU or time.monotonic() - started > self.limits.cpu_seconds
            answer = _TIME_LIMIT if has_overrun else _DIED
            log.warning("Worker ended without a reply, status %d", status)
        if not job.reply.done():
            job.reply.set_result(answer)
