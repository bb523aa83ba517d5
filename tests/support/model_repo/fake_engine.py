"""Fakes of the engine loop's Protocols: an engine whose tokens are characters, a client, meters; and the loop with them."""

import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from r1plus_contract.inference import FinishReason
from r1plus_model_repo.backends.engine_loop import EngineLoop, Job, Pipeline
from r1plus_model_repo.backends.heartbeat import LoopHeartbeat
from r1plus_model_repo.backends.requests import RefusedError, SchemaMemoryFullError

SECONDS = 120.0
"""Longest wait for anything that a loop does."""


@dataclass
class FakeHandle:
    """Generates its job's prompt, one character a step."""

    text: str
    fails_alone: bool = False
    is_lost: bool = False
    """Reading ends the engine."""
    sent: int = 0
    stepped: int = 0
    is_cancelled: bool = False

    def read(self) -> tuple[Sequence[int], FinishReason | None]:
        if self.fails_alone:
            raise RefusedError("grammar: cannot be compiled")
        if self.is_lost:
            raise RuntimeError("read failed")
        ids = [ord(c) for c in self.text[self.sent : self.stepped]]
        self.sent = self.stepped
        return ids, FinishReason.LENGTH if self.sent >= len(self.text) else None

    def cancel(self) -> None:
        self.is_cancelled = True


@dataclass
class FakeEngine:
    """`gate`, when given, must be released once per step; the step numbered `fails_at` raises.

    After each `full_after` steps it has to be renewed; 0: never.

    The prompt `refuses` ends the engine when it is added; `refuses_alone` and `fails_alone` end only their request, when
    it is added and when it is read; `has_no_room_for` finds no memory for its schema.
    """

    fails_at: int = 0
    refuses: str = ""
    refuses_alone: str = ""
    fails_alone: str = ""
    has_no_room_for: str = ""
    full_after: int = 0
    gate: threading.Semaphore | None = None
    handles: list[FakeHandle] = field(default_factory=list)
    steps: int = 0
    largest: int = 0
    renewed_at: list[int] = field(default_factory=list)
    """Steps before each renewal."""

    def is_renewal_due(self) -> bool:
        return 0 < self.full_after <= self.steps - sum(self.renewed_at[-1:])

    def renew(self) -> None:
        self.renewed_at.append(self.steps)

    def measure_schemas(self) -> tuple[int, float]:
        used = self.steps - sum(self.renewed_at[-1:])
        return used, used / self.full_after if self.full_after else 0.0

    def add(self, job: Job) -> FakeHandle:
        if job.prompt == self.refuses:
            raise RuntimeError("add failed")
        if job.prompt == self.refuses_alone:
            raise RefusedError("grammar: cannot be compiled")
        if job.prompt == self.has_no_room_for:
            raise SchemaMemoryFullError("SchemaMemoryFull: grammar: no room")
        self.handles.append(FakeHandle(job.prompt, job.prompt == self.fails_alone))
        return self.handles[-1]

    def step(self) -> None:
        if self.gate is not None:
            self.gate.acquire()
        self.steps += 1
        if self.steps == self.fails_at:
            raise RuntimeError("step failed")
        live = [h for h in self.handles if not h.is_cancelled and h.stepped < len(h.text)]
        self.largest = max(self.largest, len(live))
        for handle in live:
            handle.stepped += 1

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(i) for i in ids)


@dataclass
class FakeClient:
    """A `Reply` that keeps what it got; `over` is set when the request has ended."""

    hung_up: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)
    pieces: list[str] = field(default_factory=list)
    end: tuple[FinishReason, int, int] | None = None
    failed: str = ""
    refusal: str = ""
    turned_away: str = ""
    counts: list[tuple[int, int]] = field(default_factory=list)
    """Tokens of prompt and answer that each piece came with, but for the last."""
    usage: tuple[int, int] = (0, 0)
    """Tokens of prompt and answer that were counted for it."""
    looked_at: int = 0
    """How often it was asked whether it hung up."""

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def send_piece(self, text: str, prompt_tokens: int, completion_tokens: int) -> None:
        self.pieces.append(text)
        self.counts.append((prompt_tokens, completion_tokens))

    def finish(self, text: str, reason: FinishReason, prompt_tokens: int, completion_tokens: int) -> None:
        self.pieces.append(text)
        self.end = (reason, prompt_tokens, completion_tokens)
        self.over.set()

    def fail(self, message: str) -> None:
        self.failed = message
        self.over.set()

    def refuse(self, message: str) -> None:
        self.refusal = message
        self.over.set()

    def reject(self, message: str) -> None:
        self.turned_away = message
        self.over.set()

    def is_cancelled(self) -> bool:
        self.looked_at += 1
        return self.hung_up.is_set()

    def record_usage(self, prompt_tokens: int, completion_tokens: int) -> None:
        self.usage = (prompt_tokens, completion_tokens)


@dataclass
class FakeMeters:
    """Counts."""

    results: list[str] = field(default_factory=list)
    counted: dict[str, int] = field(default_factory=dict)
    counts: list[tuple[str, int]] = field(default_factory=list)
    """Each message of its own to the server."""
    loads: list[tuple[int, int]] = field(default_factory=list)
    schemas: list[tuple[int, float]] = field(default_factory=list)
    """Bytes and share of the memory for schemas, each pass."""
    first: list[float] = field(default_factory=list)

    def count_tokens(self, direction: str, count: int) -> None:
        self.counts.append((direction, count))
        self.counted[direction] = self.counted.get(direction, 0) + count

    def observe_first_token(self, seconds: float) -> None:
        self.first.append(seconds)

    def count_request(self, result: str) -> None:
        self.results.append(result)

    def set_load(self, running: int, waiting: int) -> None:
        if (running, waiting) not in self.loads[-1:]:
            self.loads.append((running, waiting))

    def set_schema_memory(self, used: int, share: float) -> None:
        self.schemas.append((used, share))


class LoopStage:
    """A loop with an engine and fakes of all else."""

    def __init__(
        self,
        pipeline: Pipeline,
        max_batch: int,
        context: int = 128,
        clock: Callable[[], float] | None = None,
        heartbeat: LoopHeartbeat | None = None,
    ) -> None:
        """`clock`: the loop's; None: each look at it is a second later than the one before."""
        self.meters = FakeMeters()
        self.deaths: list[BaseException] = []
        self.died = threading.Event()
        self.loop = EngineLoop(
            pipeline,
            self.meters,
            max_batch=max_batch,
            context=context,
            clock=clock or map(float, itertools.count()).__next__,
            on_death=self._die,
            heartbeat=heartbeat or LoopHeartbeat(None),
        )

    def submit(self, job: Job) -> FakeClient:
        """Queue a job; return its client."""
        client = FakeClient()
        self.loop.submit(job, client)
        return client

    def run(self) -> None:
        """Start, answer all that was asked, end."""
        self.loop.start()
        self.close()

    def close(self) -> None:
        """Answer all that was asked, and wait for the thread's end: it counts after the last answer, too."""
        self.loop.close(SECONDS)
        self.loop._thread.join(SECONDS)

    def _die(self, error: BaseException) -> None:
        self.deaths.append(error)
        self.died.set()
