"""The loop, a thread that owns the engine: it admits requests, steps, sends text, and drops cancelled requests.

The queue is limited in requests and in tokens: callers cannot be told apart, and one of them may send without end.

Continuous batching: a request joins and leaves the running batch at any step. The loop depends neither on Triton nor
on an engine; both implement Protocols, so that tests use fakes.
"""

import math
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from r1plus_contract.inference import QUEUE_FULL, FinishReason
from r1plus_model_repo.backends.heartbeat import FIRST_SECONDS, IDLE_SECONDS, PASS_SECONDS, LoopHeartbeat, limit_pass
from r1plus_model_repo.backends.requests import RefusedError, SchemaMemoryFullError
from r1plus_model_repo.backends.text.answer_text import AnswerText

JOIN_SECONDS = 1.0
WAITING_PER_SLOT, LEAST_WAITING = 16, 64
"""Waiting requests allowed per slot of the batch, and at least in total: more would wait for minutes."""
MOST_WAITING_TOKENS = 4 * 2**20
"""Limit for the tokens of all waiting prompts: about 150 MiB if a token is a Python integer."""
CANCEL_LOOKS = 16
"""Waiting requests checked for cancellation per pass: each check costs a message to the server."""
PIECES_PER_STEP = 4
"""Pieces of answers per step, about: with more requests each piece has several tokens. On its way to the client a piece
costs most of a millisecond of a processor, which an engine on CPU wants itself."""
MOST_GATHER_SECONDS = 0.3
"""After that long a piece is sent however few tokens it has: a step of a large engine takes longer than its sending."""
DRAIN_SECONDS, DRAIN_EVERY_SECONDS = 5.0, 120.0
"""How long, and how often, requests wait for those that run to end where the engine is to be renewed and never idle."""


@dataclass(frozen=True, slots=True)
class Job:
    """A request prepared for the engine. `prompt` and `sampling` are the engine's own types."""

    prompt: Any
    prompt_tokens: int
    sampling: Any
    stop: tuple[str, ...] = ()
    constraint: str = ""
    """Input that constrains the answer, if the engine may fail on that input alone."""


class Handle(Protocol):
    """One running generation."""

    def read(self) -> tuple[Sequence[int], FinishReason | None]:
        """Return new tokens since the last call and, once it has ended, the reason.

        Raise RefusedError once the engine has refused this request alone.
        """

    def cancel(self) -> None:
        """Free its slot and its cache at the next step."""


class Pipeline(Protocol):
    """The engine. Only the loop's thread calls it."""

    def add(self, job: Job) -> Handle:
        """Start a generation. Raise RefusedError or SchemaMemoryFullError if it refuses this request alone."""

    def step(self) -> None:
        """Run one forward pass over all running requests."""

    def decode(self, ids: Sequence[int]) -> str:
        """Convert tokens to text."""

    def is_renewal_due(self) -> bool:
        """Return whether `renew` should be called as soon as nothing runs."""

    def renew(self) -> None:
        """Free what the engine keeps beyond its requests. Nothing runs; it may take as long as its start."""

    def measure_schemas(self) -> tuple[int, float]:
        """Return the bytes of compiled schemas and grammars, and which part of their limit these are."""


class NeverRenewed:
    """The part of a `Pipeline` that keeps nothing beyond its requests."""

    def is_renewal_due(self) -> bool:
        """See `Pipeline`."""
        return False

    def renew(self) -> None:
        """See `Pipeline`."""

    def measure_schemas(self) -> tuple[int, float]:
        """See `Pipeline`: its library bounds them itself."""
        return 0, 0.0


class Reply(Protocol):
    """The client's end of one request."""

    def send_piece(self, text: str, prompt_tokens: int, completion_tokens: int) -> None:
        """Send the next piece of the answer."""

    def finish(self, text: str, reason: FinishReason, prompt_tokens: int, completion_tokens: int) -> None:
        """Send the last piece and end the request."""

    def fail(self, message: str) -> None:
        """Send an error response and end the request."""

    def refuse(self, message: str) -> None:
        """Send that the request is invalid and end it."""

    def reject(self, message: str) -> None:
        """Send that there is no room now, in the queue or for a schema, and end the request."""

    def is_cancelled(self) -> bool:
        """Return whether the client has hung up."""

    def record_usage(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Note what the meters have counted for this request so far; called before the response that follows."""


class Meters(Protocol):
    """The loop's metrics."""

    def count_tokens(self, direction: str, count: int) -> None:
        """Count processed tokens; `direction` is `prompt` or `completion`."""

    def observe_first_token(self, seconds: float) -> None:
        """Record the time from arrival to the first token."""

    def count_request(self, result: str) -> None:
        """Count an ended request: ok, counted, refused, queue_full, schema_memory_full, cancelled or error."""

    def set_load(self, running: int, waiting: int) -> None:
        """Set how many requests run and wait."""

    def set_schema_memory(self, used: int, share: float) -> None:
        """Set the bytes of compiled schemas, and which part of their limit these are."""


@dataclass(slots=True, eq=False)
class _RunningRequest:
    job: Job
    reply: Reply
    handle: Handle
    text: AnswerText
    arrived_at: float
    tokens: int = 0
    new_ids: list[int] = field(default_factory=list)
    """Tokens that are not yet text."""
    new_text: str = ""
    """Text that is not yet sent."""
    sent_tokens: int = 0
    """Tokens up to the last piece; 0: none was sent."""
    sent_at: float = 0.0

    def is_piece_due(self, interval: int, now: float) -> bool:
        """Return whether text is sent now: the first at once, then every `interval` tokens, or after the longest time.

        It stays due until there is text: a token may end within a character.
        """
        is_late = now - self.sent_at >= MOST_GATHER_SECONDS
        return not self.sent_tokens or self.tokens - self.sent_tokens >= interval or is_late

    def read_text(self) -> None:
        """Turn new tokens into text."""
        if self.new_ids:
            self.new_text += self.text.push(self.new_ids)
            self.new_ids.clear()


@dataclass(frozen=True, slots=True)
class _WaitingRequest:
    job: Job
    reply: Reply
    arrived_at: float


@dataclass(slots=True)
class _State:
    waiting: list[_WaitingRequest] = field(default_factory=list)
    running: list[_RunningRequest] = field(default_factory=list)
    cancel_cursor: int = 0
    """Index in `waiting` where the next check for cancellation begins."""


class EngineLoop:
    """`submit` may be called from any thread; replies are sent from the loop's thread."""

    def __init__(
        self,
        pipeline: Pipeline,
        meters: Meters,
        *,
        max_batch: int,
        context: int,
        clock: Callable[[], float],
        on_death: Callable[[BaseException], None],
        heartbeat: LoopHeartbeat,
    ) -> None:
        self._pipeline = pipeline
        self._meters = meters
        self._max_batch = max_batch
        self._clock = clock
        self._on_death = on_death
        self._heartbeat = heartbeat
        self._has_generated = False
        self._drained_at = -math.inf
        """When the last drain began."""
        self._arrivals: queue.SimpleQueue[_WaitingRequest | None] = queue.SimpleQueue()
        self._state = _State()
        self._lock = threading.Condition()
        self._unanswered = 0
        self._unanswered_tokens = 0
        self._max_requests = max_batch + max(LEAST_WAITING, WAITING_PER_SLOT * max_batch)
        self._max_tokens = max_batch * context + MOST_WAITING_TOKENS
        self._death = ""
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def is_full(self) -> bool:
        """Whether the maximum number of requests runs and waits."""
        return self._unanswered >= self._max_requests

    def reject(self, reply: Reply) -> None:
        """Reply that the queue is full."""
        self._meters.count_request("queue_full")
        reply.reject(
            f"{QUEUE_FULL}: the engine has {self._unanswered} requests of {self._unanswered_tokens} prompt tokens, and"
            f" takes {self._max_requests} of {self._max_tokens}; nothing was computed, try again later"
        )

    def submit(self, job: Job, reply: Reply) -> None:
        """Queue a request. If the queue is full or the engine is dead, reply with that."""
        with self._lock:
            has_room = not self.is_full and self._unanswered_tokens + job.prompt_tokens <= self._max_tokens
            if has_room and not self._death:
                self._unanswered += 1
                self._unanswered_tokens += job.prompt_tokens
                self._arrivals.put(_WaitingRequest(job, reply, self._clock()))
                return
        if self._death:
            self._meters.count_request("error")
            reply.fail(self._death)
        else:
            self.reject(reply)

    def close(self, timeout: float) -> None:
        """Finish all running and waiting requests, then end the thread.

        It waits for answers, not for the thread: after the last answer an ending server stops listening. A thread
        that records a metric at that moment would block.
        """
        self._arrivals.put(None)
        with self._lock:
            self._lock.wait_for(lambda: self._unanswered == 0, timeout)
        self._thread.join(JOIN_SECONDS)

    def _run(self) -> None:
        try:
            while self._run_pass():
                pass
        except Exception as error:  # noqa: BLE001 - all clients get any error; the owner logs it
            self._fail_all(error)

    def _run_pass(self) -> bool:
        """Run one pass. Return False when the loop is closed and all requests are answered."""
        open_ = self._receive()
        self._heartbeat.beat(PASS_SECONDS)
        self._drop_cancelled_waiting()
        if self._renew_if_due():
            self._admit()
        state = self._state
        self._meters.set_load(len(state.running), len(state.waiting))
        self._meters.set_schema_memory(*self._pipeline.measure_schemas())
        if state.running:
            self._heartbeat.beat(self._limit_step())
            self._pipeline.step()
            # After the step, in which clients leave: what it made for them is neither counted nor sent.
            self._drop_cancelled_running()
            self._send_new_texts()
        if not state.running and not state.waiting:
            self._meters.set_load(0, 0)
            return open_
        return True

    def _renew_if_due(self) -> bool:
        """Renew the engine if that is due and nothing runs. Return whether requests may join now."""
        if not self._pipeline.is_renewal_due():
            return True
        if not self._state.running:
            self._heartbeat.beat(FIRST_SECONDS)
            self._pipeline.renew()
            return True
        now = self._clock()
        if now - self._drained_at >= DRAIN_EVERY_SECONDS:
            self._drained_at = now
        return now - self._drained_at >= DRAIN_SECONDS

    def _limit_step(self) -> float:
        """Return the longest time that the next step may take: engines read prompts in one step or in many."""
        without_token = (r.job.prompt_tokens for r in self._state.running if not r.tokens)
        return limit_pass(sum(without_token), has_generated=self._has_generated)

    def _receive(self) -> bool:
        """Move arrivals to the queue. Wait only when idle. Return False when the loop is closed."""
        idle = not (self._state.running or self._state.waiting)
        try:
            while (arrival := self._arrivals.get(block=idle, timeout=IDLE_SECONDS)) is not None:
                self._state.waiting.append(arrival)
                idle = False
        except queue.Empty:
            return True
        # Closed: put the marker back for the next pass.
        self._arrivals.put(None)
        return False

    def _drop_cancelled_running(self) -> None:
        state = self._state
        for active_request in [r for r in state.running if r.reply.is_cancelled()]:
            active_request.handle.cancel()
            state.running.remove(active_request)
            self._finish_cancelled(active_request.reply, active_request.job, active_request.tokens)

    def _drop_cancelled_waiting(self) -> None:
        state = self._state
        begin = state.cancel_cursor if state.cancel_cursor < len(state.waiting) else 0
        state.cancel_cursor = begin + CANCEL_LOOKS
        for queued_request in [w for w in state.waiting[begin : begin + CANCEL_LOOKS] if w.reply.is_cancelled()]:
            state.waiting.remove(queued_request)
            self._finish_cancelled(queued_request.reply, queued_request.job, 0)

    def _finish_cancelled(self, reply: Reply, job: Job, tokens: int) -> None:
        self._meters.count_request("cancelled")
        reply.finish("", FinishReason.CANCELLED, job.prompt_tokens, tokens)
        self._release(job)

    def _refuse(self, entry: "_RunningRequest | _WaitingRequest", error: RefusedError | SchemaMemoryFullError) -> None:
        is_full = isinstance(error, SchemaMemoryFullError)
        self._meters.count_request("schema_memory_full" if is_full else "refused")
        (entry.reply.reject if is_full else entry.reply.refuse)(str(error))
        self._release(entry.job)

    def _release(self, job: Job) -> None:
        with self._lock:
            self._unanswered -= 1
            self._unanswered_tokens -= job.prompt_tokens
            self._lock.notify_all()

    def _admit(self) -> None:
        state = self._state
        while state.waiting and len(state.running) < self._max_batch:
            # It leaves the queue only when it runs, so that `_fail_all` reaches it after any error before.
            queued_request = state.waiting[0]
            if queued_request.reply.is_cancelled():
                del state.waiting[0]
                self._finish_cancelled(queued_request.reply, queued_request.job, 0)
                continue
            text = AnswerText(self._pipeline.decode, queued_request.job.stop)
            try:
                handle = self._pipeline.add(queued_request.job)
            except (RefusedError, SchemaMemoryFullError) as error:
                del state.waiting[0]
                self._refuse(queued_request, error)
                continue
            state.running.append(
                _RunningRequest(queued_request.job, queued_request.reply, handle, text, queued_request.arrived_at)
            )
            del state.waiting[0]
            self._meters.count_tokens("prompt", queued_request.job.prompt_tokens)
            queued_request.reply.record_usage(queued_request.job.prompt_tokens, 0)

    def _send_new_texts(self) -> None:
        """Send what the step has made; who has ended leaves at once, so that `_fail_all` answers nobody twice.

        All tokens are counted at once and before the responses: each count is a message to the server.
        """
        running = self._state.running
        made: list[tuple[_RunningRequest, Sequence[int], FinishReason | None]] = []
        for active_request in list(running):
            try:
                made.append((active_request, *active_request.handle.read()))
            except RefusedError as error:
                running.remove(active_request)
                self._refuse(active_request, error)
        if count := sum(len(ids) for _, ids, _ in made):
            self._has_generated = True
            self._meters.count_tokens("completion", count)
        now, interval = self._clock(), max(1, len(running) // PIECES_PER_STEP)
        for active_request, ids, reason in made:
            if ids:
                self._count_ids(active_request, ids, now)
            if not self._send_new_text(active_request, reason, interval, now):
                running.remove(active_request)

    def _count_ids(self, active_request: _RunningRequest, ids: Sequence[int], now: float) -> None:
        if not active_request.tokens:
            self._meters.observe_first_token(now - active_request.arrived_at)
        active_request.tokens += len(ids)
        active_request.new_ids.extend(ids)
        active_request.reply.record_usage(active_request.job.prompt_tokens, active_request.tokens)

    def _send_new_text(
        self, active_request: _RunningRequest, reason: FinishReason | None, interval: int, now: float
    ) -> bool:
        """Send a piece if it is due, or the end. Return False when the request has ended."""
        job, text = active_request.job, active_request.text
        is_due = active_request.is_piece_due(interval, now)
        # A stop string ends the answer at its token, so no token waits.
        if is_due or reason is not None or job.stop:
            active_request.read_text()
        if text.is_stopped and reason is None:
            active_request.handle.cancel()
            reason = FinishReason.STOP
        if reason is None:
            if is_due and active_request.new_text:
                active_request.reply.send_piece(active_request.new_text, job.prompt_tokens, active_request.tokens)
                active_request.new_text = ""
                active_request.sent_tokens, active_request.sent_at = active_request.tokens, now
            return True
        self._meters.count_request("ok")
        tail = text.finish()
        if text.is_stopped:
            reason = FinishReason.STOP
        active_request.reply.finish(active_request.new_text + tail, reason, job.prompt_tokens, active_request.tokens)
        self._release(job)
        return False

    def _fail_all(self, error: BaseException) -> None:
        """Reply to all requests with an error after the loss of the engine, then notify the owner."""
        with self._lock:
            self._death = f"the engine stopped: {error}; the server is restarting"
        unanswered_requests: list[_RunningRequest | _WaitingRequest] = [*self._state.running, *self._state.waiting]
        while not self._arrivals.empty():
            arrival = self._arrivals.get()
            if arrival is not None:
                unanswered_requests.append(arrival)
        for entry in unanswered_requests:
            self._meters.count_request("error")
            entry.reply.fail(self._death)
            self._release(entry.job)
        self._on_death(error)
