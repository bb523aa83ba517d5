"""One request to a model: it waits for a slot, is sent to a pod, is sent once more if that pod is gone, and streams.

The HTTP handler waits for progress with `wait` and takes text with `take`. `cancel` ends it in every state.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import grpc

from r1plus_contract.inference import MOST_TOKEN_BYTES
from r1plus_gateway.access.caller import AnswerEvidence, TokenUsage
from r1plus_gateway.serving.errors import (
    AnswerFailedError,
    CallerRevokedError,
    ModelUnavailableError,
    QueueFullError,
    ServingError,
)
from r1plus_gateway.serving.evidence import UNVERIFIED
from r1plus_gateway.serving.fair_queue import FairQueue
from r1plus_gateway.serving.pods import Pod, PodPool
from r1plus_gateway.serving.triton_wire import Progress, build_usage_request, classify_status
from r1plus_gateway.settings import ModelSettings

USAGE_SECONDS: Final = 5.0
"""Longest wait for what a cut request has used: the engine ends it after its present step."""


END_SECONDS: Final = 1.0
"""Longest wait for the end of a stream whose last response was an error."""


MOST_ANSWER_BYTES: Final = 4 * 1024 * 1024
"""Of one answer, whose text may be held until it is whole: 131,072 tokens of 32 bytes each. More where the settings let
more wait for a reader."""
MOST_RESPONSES_PER_TOKEN: Final = 4
"""An engine sends one for each token, and few without news."""
MOST_ANSWERS_TO_QUESTION: Final = 16
"""Responses to a request that generates nothing; an engine sends one."""


class State(StrEnum):
    """How far a request is."""

    QUEUED = "queued"
    WAITING = "waiting"
    """Sent to a pod; no response yet."""
    STREAMING = "streaming"
    ENDED = "ended"


@dataclass(slots=True)
class Times:
    """Monotonic seconds; 0 before it happened."""

    arrived: float
    """Of the request at the gateway."""
    queued: float
    started: float = 0.0
    first_token: float = 0.0
    ended: float = 0.0


class Generation:
    """A request in flight. One task of its own sends it and reads the responses."""

    def __init__(
        self,
        pool: PodPool,
        queue: FairQueue,
        caller: str,
        request: Any,
        *,
        queue_seconds: float,
        silence_seconds: float,
        most_waiting_bytes: int,
        counted_prompt_tokens: int = 0,
        arrived: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`most_waiting_bytes`: of text that the reader has not taken; beyond it the request is cut. `arrived`: when
        the request came, by `clock`; None: now. `counted_prompt_tokens`: by the engine, before; 0: not counted.
        """
        self._pool = pool
        self._queue = queue
        self._caller = caller
        self._request = request
        self._queue_seconds = queue_seconds
        self._silence_seconds = silence_seconds
        self._most_waiting_bytes = most_waiting_bytes
        self._counted_prompt_tokens = counted_prompt_tokens
        self._clock = clock
        self._progress = Progress()
        self._has_changed = False
        self._waiter: asyncio.Future[None] | None = None
        self._on_text: Callable[[], bool] | None = None
        """Of the task that is in `wait`, until it is woken."""
        self._call: Any = None
        self._is_cancelled = False
        self._is_revoked = False
        self.state = State.QUEUED
        self.error: ServingError | None = None
        self.evidence: AnswerEvidence = UNVERIFIED
        self.on_overflow: Callable[[], None] = lambda: None
        """Called when too much text waits; the request is cut then."""
        self.on_start: Callable[[], None] = lambda: None
        """Called when it has a slot."""
        now = clock()
        self.times = Times(now if arrived is None else arrived, now)
        self._task = pool.start(self._run())
        self._task.add_done_callback(self._conclude)

    @property
    def is_ended(self) -> bool:
        """Whether all text has arrived, or the request has failed."""
        return self.state is State.ENDED

    @property
    def has_begun(self) -> bool:
        """Whether a response has arrived."""
        return self._progress.has_begun

    @property
    def is_counted(self) -> bool:
        """Whether the engine has counted its prompt before it began."""
        return self._counted_prompt_tokens > 0

    @property
    def finish_reason(self) -> str:
        """Why it ended; empty before the end."""
        return self._progress.finish_reason

    @property
    def usage(self) -> TokenUsage:
        """Tokens by the last response seen; of a cut request those that the engine counted, if it says so."""
        return bound_usage(self._progress, self._pool.model)

    async def wait(self, on_text: Callable[[], bool] | None = None) -> None:
        """Wait until text has arrived, the request has ended, or `wake` was called.

        `on_text` is called when text arrives meanwhile; if it returns true, it has taken the text, and the wait goes
        on. The task that reads calls it, so such a token costs no switch to the task that waits.
        """
        if not self._has_changed:
            self._waiter, self._on_text = asyncio.get_running_loop().create_future(), on_text
            try:
                await self._waiter
            finally:
                self._waiter = self._on_text = None
        self._has_changed = False

    def wake(self) -> None:
        """Let `wait` return. A future alone costs less for each token than an asyncio.Event."""
        self._has_changed = True
        self._on_text = None  # the waiting task takes what comes from here on
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def take(self) -> bytes:
        """Return the text that has arrived since the last call: whole UTF-8 characters."""
        return self._progress.take()

    def cancel(self) -> None:
        """Cancel in any state; the engine's slot is free at its next token.

        A second one does not stop the task, which asks what was used.
        """
        if not (self.has_begun or self._is_cancelled):
            self._task.cancel()
        self._is_cancelled = True
        if self._call is not None:
            self._call.cancel()

    def revoke(self) -> None:
        """Cancel what still runs, with CallerRevokedError as its error."""
        if not self.is_ended:
            self._is_revoked = True
            self.cancel()

    async def end(self) -> None:
        """Cancel what still runs, and wait for its task."""
        if not self.is_ended:
            self.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            if not len(self._pool):
                self._pool.choose()  # says that there is no pod
            async with asyncio.timeout(self._queue_seconds):
                await self._queue.enter(self._pool.model.name, self._caller)
            try:
                self.on_start()
                await self._send_with_retry()
            finally:
                self._queue.leave(self._pool.model.name, self._caller)
        except ServingError as error:
            self.error = error
        except TimeoutError:
            self.error = QueueFullError(f"no slot was free for {self._queue_seconds:g} s; try again later")

    def _conclude(self, _: asyncio.Task[None]) -> None:
        """End it with its task, which does nothing itself where it is cancelled before it has begun."""
        if self._is_revoked and not self.is_ended:
            self.error = CallerRevokedError()
        self._end()

    async def _send_with_retry(self) -> None:
        self.times.started = self._clock()
        pod = self._pool.choose()
        try:
            await self._send(pod)
        except (ModelUnavailableError, QueueFullError) as error:
            if isinstance(error, ModelUnavailableError):
                self._pool.report_failure(pod)
            if self._progress.has_begun or self._is_cancelled:
                raise AnswerFailedError("the pod ended before its answer did; try again") from error
            try:
                other = self._pool.choose(exclude=pod)
            except ModelUnavailableError:
                raise error from None
            await self._send(other)

    async def _send(self, pod: Pod) -> None:
        self.state = State.WAITING
        with self._pool.occupy(pod):
            pod.evidence.refresh()
            call = self._call = pod.open_stream()
            if self._is_cancelled:
                call.cancel()
            try:
                async with asyncio.timeout(self._silence_seconds) as silence:
                    await self._read(pod, call, silence)
            except asyncio.InvalidStateError as error:  # the call ended while the request was written
                raise classify_status(await call.code(), await call.details() or "") from error
            except grpc.aio.AioRpcError as error:
                if self.has_begun and error.code() is not grpc.StatusCode.UNAVAILABLE:
                    await self._read_final_usage(pod)
                raise classify_status(error.code(), error.details() or "") from error
            except (TimeoutError, asyncio.CancelledError) as error:
                self._is_cancelled = True
                call.cancel()
                await self._read_final_usage(pod)
                if isinstance(error, TimeoutError):
                    raise AnswerFailedError(f"the engine was silent for {self._silence_seconds:g} s") from None
                raise
            finally:
                call.cancel()  # of no effect once it has ended

    async def _read_final_usage(self, pod: Pod) -> None:
        """Ask what the engine has counted for a request that was cut: its last responses were not seen.

        A pod that has gone, or an older image, leaves the usage as it was seen. One that does not answer in time has
        worked on the prompt, which was counted before. What was seen is never lowered.
        """
        progress, counted = self._progress, Progress(prompt_tokens=self._counted_prompt_tokens)
        try:
            said = await ask_pod(pod, build_usage_request(self._request.id), USAGE_SECONDS)
        except AnswerFailedError:
            said = counted
        except ServingError:
            return
        if not said.has_begun:
            said = counted
        progress.prompt_tokens = max(progress.prompt_tokens, said.prompt_tokens)
        progress.completion_tokens = max(progress.completion_tokens, said.completion_tokens)

    async def _read(self, pod: Pod, call: Any, silence: asyncio.Timeout) -> None:
        await call.write(self._request)
        await call.done_writing()
        progress = self._progress
        while (response := await call.read()) is not grpc.aio.EOF:
            silence.reschedule(asyncio.get_running_loop().time() + self._silence_seconds)
            is_first = not progress.has_begun
            await _update(progress, call, response)
            if is_first:
                await self._begin(pod)
            self._check_size()
            if progress.finish_reason:
                self._end()
            elif progress.waiting_bytes > self._most_waiting_bytes:
                self.on_overflow()
                silence.reschedule(None)
                call.cancel()
                await self._read_final_usage(pod)
                return
            if self._on_text is None or not self._on_text():
                self.wake()
        if not progress.finish_reason:
            raise AnswerFailedError("the pod ended the stream before the answer's end; try again")

    def _check_size(self) -> None:
        """Refuse an answer that no engine gives within the model's context: its text may be held until it is whole.

        Raises:
            AnswerFailedError: it is larger.
        """
        tokens = self._pool.model.context_tokens
        most_bytes = min(max(MOST_ANSWER_BYTES, self._most_waiting_bytes), MOST_TOKEN_BYTES * tokens)
        most_responses = MOST_RESPONSES_PER_TOKEN * tokens
        if self._progress.text_bytes > most_bytes or self._progress.responses > most_responses:
            raise AnswerFailedError(
                f"the engine's answer is larger than {most_bytes} bytes or {most_responses} responses, which"
                f" {tokens} tokens of context cannot be; report it to the platform team"
            )

    async def _begin(self, pod: Pod) -> None:
        self.times.first_token = self._clock()
        self.evidence = await pod.evidence.get(self._pool.model.revisions)
        self.state = State.STREAMING

    def _end(self) -> None:
        if self.state is not State.ENDED:
            self.state = State.ENDED
            self.times.ended = self._clock()
        self.wake()


def bound_usage(progress: Progress, model: ModelSettings) -> TokenUsage:
    """Return the tokens that an engine has counted for a generation.

    Neither is more than the model's context: an engine must not use up a caller's budget by what it says.
    """
    most = model.context_tokens
    return TokenUsage(min(progress.prompt_tokens, most), min(progress.completion_tokens, most))


async def _update(progress: Progress, call: Any, response: Any) -> None:
    """Read a response. After an error the server ends the stream, which is not cancelled at that moment."""
    try:
        progress.update(response)
    except ServingError:
        with contextlib.suppress(TimeoutError, grpc.aio.AioRpcError):
            async with asyncio.timeout(END_SECONDS):
                while await call.read() is not grpc.aio.EOF:
                    pass
        raise


async def count_tokens(pool: PodPool, request: Any, seconds: float) -> int:
    """Ask a pod how many tokens a prompt has (`count_only`).

    Raises:
        ServingError: no pod says so.
    """
    pod = pool.choose()
    with pool.occupy(pod):
        try:
            return (await ask_pod(pod, request, seconds)).prompt_tokens
        except ModelUnavailableError:
            pool.report_failure(pod)
            raise


async def ask_pod(pod: Pod, request: Any, seconds: float) -> Progress:
    """Send a request that generates nothing; return what the pod answers.

    Raises:
        ServingError: it does not within `seconds`, refuses, or generates.
    """
    progress = Progress()
    call = pod.open_stream(timeout=seconds)
    try:
        await call.write(request)
        await call.done_writing()
        while (response := await call.read()) is not grpc.aio.EOF:
            await _update(progress, call, response)
            if progress.text_bytes or progress.responses > MOST_ANSWERS_TO_QUESTION:
                raise AnswerFailedError(
                    "the engine generates where it was asked to count; report it to the platform team"
                )
    except grpc.aio.AioRpcError as error:
        raise classify_status(error.code(), error.details() or "") from error
    except asyncio.InvalidStateError as error:
        raise classify_status(await call.code(), await call.details() or "") from error
    finally:
        call.cancel()
    return progress
