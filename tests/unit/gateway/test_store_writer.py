"""The writer's thread: batches, what must happen, and an answer that was lost while it was committed."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from r1plus_gateway.access.caller import AccessError, Outcome, Reservation, TokenUsage
from r1plus_gateway.store.errors import BusyError, DataReason, UnavailableError
from r1plus_gateway.store.ledger.instances import InstanceWatch
from r1plus_gateway.store.ledger.ledger import StoreLedger
from r1plus_gateway.store.ledger.writer import Writer
from support.gateway.tenant_data import make_caller
from support.tables import for_each
from support.waiting import eventually


class Database:
    """Stands for the transactions: records what was committed, and fails when it is told to."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.failures: list[Exception] = []
        self.is_open = threading.Event()
        self.is_open.set()

    @contextlib.contextmanager
    def open_repository(self) -> Iterator[Any]:
        self.is_open.wait()
        batch: list[Any] = []
        yield batch
        if self.failures:
            raise self.failures.pop()
        self.batches.append(batch)


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def writer(database: Database) -> Iterator[Writer]:
    made = Writer(
        database.open_repository,  # type: ignore[arg-type]
        most_pending=300,
        retry_seconds=0.01,
        failure_retry_seconds=0.01,
        most_failed=3,
    )
    yield made
    database.is_open.set()
    made.close(0.0)


def add(name: str) -> Any:
    return lambda batch: batch.append(name) or name


async def test_what_waits_is_committed_together_in_its_order(writer: Writer, database: Database) -> None:
    database.is_open.clear()
    first = writer.submit(add("first"))
    await eventually(lambda: writer.pending == 0, "the writer has taken the first", period_s=0.001)
    rest = [writer.submit(add(str(number))) for number in range(200)]
    database.is_open.set()
    assert await asyncio.gather(first, *rest) == ["first", *(str(number) for number in range(200))]
    assert [len(batch) for batch in database.batches] == [1, 128, 72]
    assert [name for batch in database.batches for name in batch][1:] == [str(number) for number in range(200)]


async def test_a_step_whose_waiter_has_left_is_not_run_unless_it_must_happen(
    writer: Writer, database: Database
) -> None:
    database.is_open.clear()
    held = writer.submit(add("held"))
    await eventually(lambda: writer.pending == 0, "the writer has taken the first", period_s=0.001)
    left, required = writer.submit(add("left")), writer.submit(add("required"), is_required=True)
    left.cancel()
    required.cancel()
    database.is_open.set()
    await held
    await writer.submit(add("last"))
    assert [name for batch in database.batches for name in batch] == ["held", "required", "last"]


async def test_what_must_happen_is_tried_again_and_the_rest_fails_at_once(writer: Writer, database: Database) -> None:
    database.is_open.clear()
    database.failures = [UnavailableError("gone"), UnavailableError("gone")]
    held = writer.submit(add("held"))
    await eventually(lambda: writer.pending == 0, "the writer has taken the first", period_s=0.001)
    plain, required = writer.submit(add("plain")), writer.submit(add("required"), is_required=True)
    database.is_open.set()
    ends = await asyncio.gather(held, plain, required, return_exceptions=True)
    assert [str(end) for end in ends] == ["gone", "gone", "required"]
    assert database.batches == [["required"]]


@for_each("defect", {
    "there is no memory": MemoryError(),
    "the audit log's head cannot be read": ValueError("is no head"),
})  # fmt: skip
@for_each("is_in_step", {"in the step": True, "around it": False})
async def test_what_must_happen_is_tried_again_whatever_it_fails_by(
    writer: Writer, database: Database, defect: Exception, is_in_step: bool
) -> None:
    tries = 0

    def fail_twice(batch: list[Any]) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            if is_in_step:
                raise defect
            database.failures.append(defect)
        batch.append("settlement")

    with pytest.raises(type(defect)):
        await writer.submit(fail_twice, is_required=True)
    await eventually(lambda: ["settlement"] in database.batches, "it is committed", period_s=0.001)
    assert (tries, writer.pending) == (3, 0)


async def test_what_fails_by_itself_fails_nothing_else_and_is_kept_up_to_a_bound(
    writer: Writer, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object) -> None:
        raise MemoryError

    failed = [writer.submit(fail, is_required=True) for _ in range(5)]
    ends = await asyncio.gather(*failed, return_exceptions=True)
    assert {type(end) for end in ends} == {MemoryError}
    assert await writer.submit(add("other")) == "other"
    await eventually(lambda: writer.pending <= 3, "the oldest are given up", period_s=0.001)
    assert caplog.text.count("so the oldest is not tried again") == 2
    assert await asyncio.to_thread(writer.close) == 3, "closing does not wait for what fails"


async def test_too_many_that_wait_are_refused_and_settlements_are_not(writer: Writer, database: Database) -> None:
    database.is_open.clear()
    held = writer.submit(add("held"))
    await eventually(lambda: writer.pending == 0, "the writer has taken the first", period_s=0.001)
    waiting = [writer.submit(add("x")) for _ in range(300)]
    with pytest.raises(BusyError) as refusal:
        writer.submit(add("x"))
    assert refusal.value.reason is DataReason.UNAVAILABLE
    waiting.append(writer.submit(add("settlement"), is_required=True))
    database.is_open.set()
    await asyncio.gather(held, *waiting)


async def test_after_the_end_nothing_is_taken(writer: Writer) -> None:
    writer.close()
    with pytest.raises(UnavailableError, match="stopping"):
        writer.submit(add("late"))


class Ledger:
    """Stands for the repository: what is reserved, and whether an answer is lost."""

    def __init__(self) -> None:
        self.reserved: set[str] = set()
        self.failure: UnavailableError | None = None

    def reserve(self, request_id: str, *_: object) -> str:
        self.reserved.add(request_id)
        return request_id

    def void(self, request_id: str, _: object) -> None:
        self.reserved.discard(request_id)

    @contextlib.contextmanager
    def open_repository(self) -> Iterator["Ledger"]:
        before = set(self.reserved)
        yield self
        failure, self.failure = self.failure, None
        if failure is not None:
            if not failure.may_be_written:
                self.reserved = before
            raise failure


@pytest.mark.parametrize("may_be_written", [True, False])
async def test_a_reservation_whose_answer_was_lost_is_removed_again(may_be_written: bool) -> None:
    ledger = Ledger()
    writer = Writer(ledger.open_repository)  # type: ignore[arg-type]
    ledger.failure = UnavailableError("connection lost")
    ledger.failure.may_be_written = may_be_written
    with pytest.raises(AccessError) as refusal:
        await StoreLedger(writer).reserve("a", make_caller(), "credit", 1)
    assert refusal.value.status == 503
    assert writer.close() == 0
    assert ledger.reserved == set()


def test_a_gateway_is_gone_when_its_beat_has_not_changed_for_long_enough() -> None:
    watch = InstanceWatch("own", patience=60.0)
    assert watch.observe({"own": 1, "dead": 5, "alive": 5}, 0.0) == []
    assert watch.observe({"own": 1, "dead": 5, "alive": 6}, 59.0) == []
    assert watch.observe({"own": 1, "dead": 5, "alive": 6}, 60.0) == ["dead"]
    assert watch.observe({"own": 1, "alive": 6, "back": 1}, 118.0) == []
    assert watch.observe({"alive": 7, "dead": 5}, 130.0) == []
    assert watch.observe({"alive": 7, "dead": 5}, 190.0) == ["alive", "dead"]


async def test_settling_does_not_fail_its_request_while_the_data_are_closed(caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger()
    writer = Writer(ledger.open_repository)  # type: ignore[arg-type]
    writer.close()
    reservation = Reservation("a", make_caller(), "credit", 1)
    await StoreLedger(writer).settle(reservation, TokenUsage(1, 1), Outcome.ANSWERED, None)
    assert "Settlement of request a is not recorded yet" in caplog.text
