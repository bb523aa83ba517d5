"""One thread that owns the engine: it admits what waits, steps, reads, answers, and lets go of who hung up.

Who waits is bounded, in requests and in tokens: nothing tells callers apart, and one of them may ask without end.

Continuous batching: a request joins the running batch at any step and leaves it at any step. The loop knows neither
Triton nor an engine; both stand behind Protocols, so that its tests run it against fakes.
"""

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from r1plus_contract.inference import QUEUE_FULL, FinishReason
from r1plus_model_repo.backends.answer_text import AnswerText

JOIN_SECONDS = 1.0
WAITING_PER_SLOT, LEAST_WAITING = 16, 64
"""Requests that may wait for each slot of the batch, and at least in all: more would wait for minutes."""
MOST_WAITING_TOKENS = 4 * 2**20
"""Of all prompts that wait: some 150 MiB where a token is a Python integer."""
CANCEL_LOOKS = 16
"""Of those that wait, so many are asked in each pass whether they hung up: each costs a message to the server."""


@dataclass(frozen=True, slots=True)
class Job:
    """A request as the engine takes it. `prompt` and `sampling` are the engine's own, opaque here."""

    prompt: Any
    prompt_tokens: int
    sampling: Any
    stop: tuple[str, ...] = ()


class Handle(Protocol):
    """One running generation."""

    def read(self) -> tuple[Sequence[int], FinishReason | None]:
        """New tokens since the last call, and why the generation ended, once it has."""

    def cancel(self) -> None:
        """Free its slot and its cache at the next step."""


class Pipeline(Protocol):
    """The engine. Only the loop's thread calls it."""

    def add(self, job: Job) -> Handle:
        """Start a generation."""

    def step(self) -> None:
        """One forward pass over all that runs."""

    def decode(self, ids: Sequence[int]) -> str:
        """Tokens to text."""


class Reply(Protocol):
    """The client's end of one request."""

    def piece(self, text: str, completion_tokens: int) -> None:
        """The next piece of the answer."""

    def done(self, text: str, reason: FinishReason, prompt_tokens: int, completion_tokens: int) -> None:
        """The last piece; ends the request."""

    def error(self, message: str) -> None:
        """An error response; ends the request."""

    def turn_away(self, message: str) -> None:
        """There is no room for it now; ends the request."""

    def cancelled(self) -> bool:
        """Has the client hung up?"""


class Meters(Protocol):
    """Where the loop counts."""

    def tokens(self, direction: str, count: int) -> None:
        """`prompt` or `completion` tokens processed."""

    def first_token(self, seconds: float) -> None:
        """Time from arrival to the first token."""

    def request(self, result: str) -> None:
        """A request ended: ok, refused, queue_full, cancelled or error."""

    def load(self, running: int, waiting: int) -> None:
        """How many run and how many wait."""


@dataclass(slots=True)
class _Running:
    job: Job
    reply: Reply
    handle: Handle
    text: AnswerText
    since: float
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class _Waiting:
    job: Job
    reply: Reply
    since: float


@dataclass(slots=True)
class _State:
    waiting: list[_Waiting] = field(default_factory=list)
    running: list[_Running] = field(default_factory=list)
    looked_at: int = 0
    """Of those that wait, where the next look for who hung up begins."""


class EngineLoop:
    """`submit` from any thread; answers go to the reply from the loop's thread."""

    def __init__(
        self,
        pipeline: Pipeline,
        meters: Meters,
        *,
        max_batch: int,
        context: int,
        clock: Callable[[], float],
        on_death: Callable[[BaseException], None],
    ) -> None:
        self._pipeline = pipeline
        self._meters = meters
        self._max_batch = max_batch
        self._clock = clock
        self._on_death = on_death
        self._arrivals: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._state = _State()
        self._lock = threading.Condition()
        self._unanswered = 0
        self._unanswered_tokens = 0
        self._most = max_batch + max(LEAST_WAITING, WAITING_PER_SLOT * max_batch)
        self._most_tokens = max_batch * context + MOST_WAITING_TOKENS
        self._dead = ""
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def is_full(self) -> bool:
        """Whether as many requests run and wait as may."""
        return self._unanswered >= self._most

    def turn_away(self, reply: Reply) -> None:
        """Answer that the queue is full."""
        self._meters.request("queue_full")
        reply.turn_away(
            f"{QUEUE_FULL}: the engine has {self._unanswered} requests of {self._unanswered_tokens} prompt tokens, and"
            f" takes {self._most} of {self._most_tokens}; nothing was computed, try again later"
        )

    def submit(self, job: Job, reply: Reply) -> None:
        """Queue a request; where there is no room, or after the engine's death, answer it with that."""
        with self._lock:
            has_room = not self.is_full and self._unanswered_tokens + job.prompt_tokens <= self._most_tokens
            if has_room and not self._dead:
                self._unanswered += 1
                self._unanswered_tokens += job.prompt_tokens
                self._arrivals.put(_Waiting(job, reply, self._clock()))
                return
        if self._dead:
            self._meters.request("error")
            reply.error(self._dead)
        else:
            self.turn_away(reply)

    def close(self, timeout: float) -> None:
        """Finish what runs and what waits, then end the thread.

        It waits for answers, not for the thread: with the last answer a server that is ending stops listening, and a
        thread that is just then counting something would hear from it no more.
        """
        self._arrivals.put(None)
        with self._lock:
            self._lock.wait_for(lambda: self._unanswered == 0, timeout)
        self._thread.join(JOIN_SECONDS)

    def _run(self) -> None:
        try:
            while self._pass():
                pass
        except Exception as error:  # noqa: BLE001 - whatever it was, nobody may be left waiting; the owner logs it
            self._die(error)

    def _pass(self) -> bool:
        """One round; False when closed and all is answered."""
        open_ = self._arrive()
        self._drop_cancelled()
        self._admit()
        state = self._state
        self._meters.load(len(state.running), len(state.waiting))
        if state.running:
            self._pipeline.step()
            state.running = [running for running in state.running if self._answer(running)]
        if not state.running and not state.waiting:
            self._meters.load(0, 0)
            return open_
        return True

    def _arrive(self) -> bool:
        """Take what has arrived; wait for something only when there is nothing to do."""
        idle = not (self._state.running or self._state.waiting)
        try:
            while (arrival := self._arrivals.get(block=idle)) is not None:
                self._state.waiting.append(arrival)
                idle = False
        except queue.Empty:
            return True
        # Closed: the mark goes back, so that the next round sees it again.
        self._arrivals.put(None)
        return False

    def _drop_cancelled(self) -> None:
        state = self._state
        for running in [r for r in state.running if r.reply.cancelled()]:
            running.handle.cancel()
            state.running.remove(running)
            self._cancelled(running.reply, running.job, running.tokens)
        begin = state.looked_at if state.looked_at < len(state.waiting) else 0
        state.looked_at = begin + CANCEL_LOOKS
        for waiting in [w for w in state.waiting[begin : begin + CANCEL_LOOKS] if w.reply.cancelled()]:
            state.waiting.remove(waiting)
            self._cancelled(waiting.reply, waiting.job, 0)

    def _cancelled(self, reply: Reply, job: Job, tokens: int) -> None:
        self._meters.request("cancelled")
        reply.done("", FinishReason.CANCELLED, job.prompt_tokens, tokens)
        self._settle(job)

    def _settle(self, job: Job) -> None:
        with self._lock:
            self._unanswered -= 1
            self._unanswered_tokens -= job.prompt_tokens
            self._lock.notify_all()

    def _admit(self) -> None:
        state = self._state
        while state.waiting and len(state.running) < self._max_batch:
            # It leaves the queue once it runs: whatever fails before, nobody is forgotten when all get the error.
            waiting = state.waiting[0]
            if waiting.reply.cancelled():
                del state.waiting[0]
                self._cancelled(waiting.reply, waiting.job, 0)
                continue
            text = AnswerText(self._pipeline.decode, waiting.job.stop)
            handle = self._pipeline.add(waiting.job)
            state.running.append(_Running(waiting.job, waiting.reply, handle, text, waiting.since))
            del state.waiting[0]
            self._meters.tokens("prompt", waiting.job.prompt_tokens)

    def _answer(self, running: _Running) -> bool:
        """Send what is new; False when the request has ended."""
        ids, reason = running.handle.read()
        if ids:
            if not running.tokens:
                self._meters.first_token(self._clock() - running.since)
            running.tokens += len(ids)
            self._meters.tokens("completion", len(ids))
        text = running.text.push(ids) if ids else ""
        if running.text.stopped and reason is None:
            running.handle.cancel()
        if running.text.stopped:
            reason = FinishReason.STOP
        if reason is None:
            if text:
                running.reply.piece(text, running.tokens)
            return True
        self._meters.request("ok")
        tail = running.text.finish()
        if running.text.stopped:
            reason = FinishReason.STOP
        running.reply.done(text + tail, reason, running.job.prompt_tokens, running.tokens)
        self._settle(running.job)
        return False

    def _die(self, error: BaseException) -> None:
        """The engine is lost: nobody may wait for ever. Answer all with an error, then tell the owner."""
        with self._lock:
            self._dead = f"the engine stopped: {error}; the server is restarting"
        pending: list[_Running | _Waiting] = [*self._state.running, *self._state.waiting]
        while not self._arrivals.empty():
            arrival = self._arrivals.get()
            if arrival is not None:
                pending.append(arrival)
        for entry in pending:
            self._meters.request("error")
            entry.reply.error(self._dead)
            self._settle(entry.job)
        self._on_death(error)
