"""Requests to the engine, one after the other: a bounded queue, a deadline, and a process that comes and goes."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

from r1plus_contract.embedder import EmbedderHealth, EmbedderReply, EmbeddingFailure, EmbeddingFailureCode
from r1plus_contract.jsonable import dumps
from r1plus_embedder.child import ChildError
from r1plus_embedder.files import EngineFiles

T = TypeVar("T")
log = logging.getLogger(__name__)
MOST_WAITING: Final = 16
"""Requests that wait for the engine. More are refused at once: they would wait longer than anyone stays."""
GRACE_SECONDS: Final = 1.0
"""Of the time in which a client has its answer: to write it."""
FAILED: Final = b'"failure":{'


class Process(Protocol):
    """`child.EngineProcess`."""

    @property
    def has_ended(self) -> bool:
        """Whether it is gone."""

    async def ask(self, payload: bytes) -> bytes:
        """Return the reply to a request."""

    async def end(self) -> None:
        """Kill it."""


@dataclass(slots=True)
class EngineHost:
    """The engine, loaded or not."""

    files: EngineFiles
    start: Callable[[], Awaitable[Process]]
    answer_seconds: float
    idle_seconds: float
    waiting: int = 0
    answered: int = 0
    failed: int = 0
    loads: int = 0
    _process: Process | None = None
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _idle: asyncio.TimerHandle | None = None
    _answers: set[asyncio.Task[bytes]] = field(default_factory=set)
    _endings: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def is_loaded(self) -> bool:
        """Whether the engine is in memory."""
        return self._process is not None and not self._process.has_ended

    def describe(self) -> EmbedderHealth:
        """Return how the embedder is."""
        files = self.files
        return EmbedderHealth(
            files.identity,
            files.dimensions,
            files.most_tokens,
            self.is_loaded,
            self.waiting,
            self.answered,
            self.failed,
        )

    async def ask(self, payload: bytes) -> bytes:
        """Return the engine's reply to a request, or a failure.

        A request that is cancelled while it waits is dropped. One that is computed runs to its end: loading the engine
        again would cost the others more.
        """
        if self.waiting >= MOST_WAITING:
            self.failed += 1
            return encode_failure(EmbeddingFailureCode.BUSY, f"{MOST_WAITING} requests wait already; try again later")
        self.waiting += 1
        has_turn = asyncio.Event()
        answering = _keep(self._answers, self._answer(payload, has_turn))
        answering.add_done_callback(self._count_out)
        try:
            return await asyncio.shield(answering)
        except asyncio.CancelledError:
            if not has_turn.is_set():
                answering.cancel()
            raise

    async def _answer(self, payload: bytes, has_turn: asyncio.Event) -> bytes:
        try:
            async with asyncio.timeout(self.answer_seconds - GRACE_SECONDS), self._turn:
                has_turn.set()
                reply = await self._ask_process(payload)
        except TimeoutError:
            self.failed += 1
            message = f"no vectors within {self.answer_seconds:g} s; send fewer texts at once, or try again later"
            return encode_failure(EmbeddingFailureCode.TIME_LIMIT, message)
        except ChildError as error:
            self.failed += 1
            log.error("Engine failed: %s", error)
            message = f"{error}; the next request loads it again, and the log of container embedder says why"
            return encode_failure(EmbeddingFailureCode.FAILED, message)
        except asyncio.CancelledError:
            self.failed += 1
            raise
        self._count(reply)
        return reply

    def _count_out(self, _: object) -> None:
        self.waiting -= 1

    def _count(self, reply: bytes) -> None:
        """Count a reply without reading its vectors: keys are sorted, so a failure comes after `"embeddings":null`."""
        if FAILED in reply[:64]:
            self.failed += 1
        else:
            self.answered += 1

    async def _ask_process(self, payload: bytes) -> bytes:
        self._stop_idling()
        process = self._process
        if process is None or process.has_ended:
            process = self._process = await self.start()
            self.loads += 1
            log.info("Engine %s loaded", self.files.identity)
        try:
            reply = await process.ask(payload)
        except BaseException:
            # What it still computes would be read as the answer to the next request.
            self._process = None
            await asyncio.shield(_keep(self._endings, process.end()))
            raise
        self._idle = asyncio.get_running_loop().call_later(self.idle_seconds, self._free)
        return reply

    def _stop_idling(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _free(self) -> None:
        """End the process: nobody has needed it for a while."""
        if self._process is not None and not self._turn.locked():
            log.info("Engine freed after %g s without a request", self.idle_seconds)
            process, self._process = self._process, None
            _keep(self._endings, process.end())

    async def stop(self) -> None:
        """Drop what waits and what is computed, and end the process."""
        self._stop_idling()
        for task in self._answers:
            task.cancel()
        await asyncio.gather(*self._answers, return_exceptions=True)
        if self._process is not None:
            await self._process.end()
        await asyncio.gather(*self._endings)


def _keep(tasks: set[asyncio.Task[T]], work: Coroutine[None, None, T]) -> asyncio.Task[T]:
    """Run in the background; the event loop alone would not keep the task."""
    task = asyncio.create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task


def encode_failure(code: EmbeddingFailureCode, message: str) -> bytes:
    """Return the reply of a request without vectors."""
    return dumps(EmbedderReply(failure=EmbeddingFailure(code, message))).encode()
