"""A gateway that is killed: what it had reserved counts as used, what it had settled is counted once."""

import asyncio
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from r1plus_gateway.access.caller import AccessError, Limits, Outcome, Reservation, TokenUsage
from r1plus_gateway.store.administration.admin import UsageQuery, report_usage, verify_audit
from r1plus_gateway.store.database import tables as t
from r1plus_gateway.store.errors import DataReason
from r1plus_gateway.store.ledger.instances import read_beats
from r1plus_gateway.store.tenant import Periods, TenantStore
from support.gateway.tenant_data import START, Volume, count_from, make_caller, settle
from support.scratch import make_scratch_folder
from support.waiting import DEADLINE_SECONDS, eventually

pytestmark = pytest.mark.first_run_counts

EVER = UsageQuery(date(2000, 1, 1), date(2999, 1, 1))
BUDGET = 1000
CALLER = make_caller(limits=Limits(budget_tokens=BUDGET, concurrent_requests=100))

GATEWAY = """
import asyncio, sys
from pathlib import Path
from r1plus_gateway.access.caller import *
from r1plus_gateway.store.database.opening import StoreConfig
from r1plus_gateway.store.tenant import TenantStore

async def main(uid, folder):
    store = TenantStore(StoreConfig(uid, folder / "secret", folder / "data"))
    assert await store.open(), store.state
    caller = Caller(CallerKind.API_KEY, "key000000001", limits=Limits(budget_tokens=1000, concurrent_requests=100))
    running = [await store.ledger.reserve(f"child-{n}", caller, "credit", 100) for n in range(5)]
    await store.ledger.settle(running[0], TokenUsage(10, 5), Outcome.ANSWERED, None)
    await store.ledger.settle(running[1], TokenUsage(20, 5), Outcome.ANSWERED, None)
    print("reserved", flush=True)
    number = 100
    while True:  # Killed at any point of this.
        one = await store.ledger.reserve(f"child-{number}", caller, "credit", 0)
        await store.ledger.settle(one, TokenUsage(0, 0), Outcome.ANSWERED, None)
        number += 1

asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
"""


@pytest.mark.unit_slow
def test_what_a_killed_gateway_had_reserved_is_settled_as_used_at_the_next_start(volume: Volume) -> None:
    command = [sys.executable, "-c", GATEWAY, volume.tenant_uid, str(volume.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "reserved\n"
        process.send_signal(signal.SIGKILL)
        assert process.wait(DEADLINE_SECONDS) == -signal.SIGKILL
    volume.time.wall = 0  # The child's own clock was the real one; ledger time goes on from it.

    async def look() -> None:
        for _ in range(2):  # The second start finds nothing more to settle.
            async with volume.open() as store:
                report = await report_usage(store, EVER)
                (budget,) = report.budgets
                assert (budget.used_tokens, budget.reserved_tokens) == (15 + 25 + 300, 0)
                assert sum(row.unsettled_tokens for row in report.rows) == 300
                assert sum(row.prompt_tokens + row.completion_tokens for row in report.rows) == 40
                with pytest.raises(AccessError):
                    await store.ledger.reserve("too-much", CALLER, "credit", 661)
                outcomes = await store.read(lambda one: one.scalars(sa.select(t.audit.c.outcome)).all())
                assert outcomes.count("unsettled") in (3, 4)  # One more with no tokens, if it was running.
                assert (await verify_audit(store)).problem == ""
                assert await store.read(lambda one: one.execute(sa.select(t.reservations)).all()) == []

    asyncio.run(look())


async def test_while_nothing_can_be_written_a_settlement_waits_and_is_recorded_afterwards(
    volume: Volume, store: TenantStore
) -> None:
    reservation = await store.ledger.reserve("a", CALLER, "credit", 100)
    # Another program holds the file's write lock: as a backup that was made without the gateway would.
    data = store.require_data()
    with data.database.engine.connect() as holder:
        holder.exec_driver_sql("SELECT 1")  # BEGIN IMMEDIATE
        waiting = asyncio.create_task(settle(store, reservation, 30, 12))
        with pytest.raises(AccessError, match=r"Locked") as refusal:
            await store.ledger.reserve("b", CALLER, "credit", 1)
        assert refusal.value.status == 503
        assert store.state.reason is DataReason.LOCKED
        assert not waiting.done()
        holder.rollback()
    await waiting
    assert store.state.is_ready
    report = await report_usage(store, EVER)
    assert [(budget.used_tokens, budget.reserved_tokens) for budget in report.budgets] == [(42, 0)]


async def test_maintenance_moves_the_log_into_the_file(volume: Volume, store: TenantStore) -> None:
    next_id, log = count_from(), volume.database.with_name("tenant.db-wal")
    await store.maintain()  # The first round empties the log, as a gateway before this one may have deleted rows.
    running = [store.ledger.reserve(next_id(), make_caller(), "credit", 10) for _ in range(300)]
    await asyncio.gather(*(settle(store, one, 1, 1) for one in await asyncio.gather(*running)))
    before = volume.database.stat().st_size
    await store.maintain()
    assert volume.database.stat().st_size > before + 50_000
    size = log.stat().st_size
    await settle(store, await store.ledger.reserve(next_id(), make_caller(), "credit", 10), 1, 1)
    assert log.stat().st_size == size, "a log that is in the file begins again"


async def test_a_gateway_whose_maintenance_takes_long_goes_on_beating(volume: Volume) -> None:
    """Else another one takes it as gone, and settles what it runs."""
    store, gate = volume.make_store(Periods(beat=0.01)), threading.Event()
    run = asyncio.create_task(store.run())
    await store.first_try.wait()
    store._keeper.submit(gate.wait, DEADLINE_SECONDS)  # as on a volume that gives no answer

    async def read_own_beats() -> int:
        return (await store.read(read_beats)).get(store.instance, 0)

    before = await read_own_beats()

    async def has_beaten() -> bool:
        return await read_own_beats() >= before + 3

    try:
        await eventually(has_beaten, "it beats", period_s=0.01)
    finally:
        gate.set()
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        await store.close()


async def test_settlements_that_wait_at_the_end_are_written_before_the_data_are_closed(volume: Volume) -> None:
    async with volume.open() as store:
        running = [await store.ledger.reserve(f"r{n}", CALLER, "credit", 10) for n in range(20)]
        for one in running:
            asyncio.get_running_loop().create_task(settle(store, one, 1, 1))
        await asyncio.sleep(0)
    async with volume.open() as store:
        assert [budget.used_tokens for budget in (await report_usage(store, EVER)).budgets] == [40]


async def test_one_step_with_a_defect_fails_no_other_of_its_batch(store: TenantStore) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("a defect")

    steps = [store.ledger.reserve(f"r{n}", CALLER, "credit", 1) for n in range(10)]
    ends = await asyncio.gather(*steps[:5], store.write(fail), *steps[5:], return_exceptions=True)
    assert [type(end).__name__ for end in ends].count("Reservation") == 10
    assert str(ends[5]) == "a defect"


@dataclass
class Model:
    """What must hold of one caller: never more used and reserved than the budget; nothing lost, nothing twice."""

    running: dict[str, Reservation] = field(default_factory=dict)
    used: int = 0

    @property
    def reserved(self) -> int:
        return sum(one.tokens for one in self.running.values())


Action = tuple[str, int]
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.integers(0, 400)),
        st.tuples(st.just("settle"), st.integers(0, 10_000)),
        st.tuples(st.just("settle again"), st.integers(0, 10_000)),
        st.tuples(st.just("leave"), st.integers(0, 400)),
        st.tuples(st.just("crash"), st.just(0)),
        st.tuples(st.just("restart"), st.just(0)),
        st.tuples(st.just("clock"), st.integers(-(10**6), 10**6)),
    ),
    max_size=30,
)


@pytest.mark.unit_slow
@settings(max_examples=12)
@given(ACTIONS)
def test_no_interleaving_exceeds_the_budget_or_loses_usage(actions: list[Action]) -> None:
    asyncio.run(play(actions))


async def play(actions: list[Action]) -> None:
    volume, model, next_id = Volume(make_scratch_folder("r1plus-tenant-")).make(), Model(), count_from()
    settled: list[Reservation] = []
    store = volume.make_store()
    assert await store.open()
    try:
        for name, value in actions:
            if name == "reserve":
                await reserve(store, model, next_id, value)
            elif name == "settle" and model.running:
                one = model.running.pop(sorted(model.running)[value % len(model.running)])
                tokens = value % (one.tokens + 1)
                await store.ledger.settle(one, TokenUsage(tokens, 0), Outcome.ANSWERED, None)
                settled.append(one)
                model.used += tokens
            elif name == "settle again" and settled:
                await store.ledger.settle(settled[value % len(settled)], TokenUsage(7, 7), Outcome.CANCELLED, None)
            elif name == "leave":
                await leave(store, next_id(), value)
            elif name == "clock":
                volume.time.wall = START + value  # Within one month: a start believes a clock that is ahead.
            elif name in ("crash", "restart"):
                store = await start_again(volume, store, model, is_crash=name == "crash")
                settled.clear()
            await check(store, model)
    finally:
        await store.close()
        shutil.rmtree(volume.folder)


async def reserve(store: TenantStore, model: Model, next_id: Callable[[], str], tokens: int) -> None:
    request_id = next_id()
    fits = model.used + model.reserved + tokens <= BUDGET
    try:
        model.running[request_id] = await store.ledger.reserve(request_id, CALLER, "credit", tokens)
    except AccessError:
        assert not fits
    else:
        assert fits


async def leave(store: TenantStore, request_id: str, tokens: int) -> None:
    request = asyncio.create_task(store.ledger.reserve(request_id, CALLER, "credit", tokens))
    await asyncio.sleep(0)
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)


async def start_again(volume: Volume, store: TenantStore, model: Model, *, is_crash: bool) -> TenantStore:
    """End the gateway; a crash leaves its reservations, and so does an end with requests that still run."""
    if is_crash:
        await abandon(store)
    else:
        await store.close()
    model.used += model.reserved
    model.running.clear()
    store = volume.make_store()
    assert await store.open()
    return store


async def abandon(store: TenantStore) -> None:
    """Drop the database as a dying process does: without a word to it. What the writer has begun may end first."""
    await store.write(lambda _: None)
    store.require_data().database.close()
    await store.close()


async def check(store: TenantStore, model: Model) -> None:
    await store.write(lambda _: None)  # Behind what the writer still has to do.
    report = await report_usage(store, EVER)
    used = sum(budget.used_tokens for budget in report.budgets)
    reserved = sum(budget.reserved_tokens for budget in report.budgets)
    assert (used, reserved) == (model.used, model.reserved)
    assert used + reserved <= BUDGET
    recorded = sum(row.prompt_tokens + row.completion_tokens + row.unsettled_tokens for row in report.rows)
    assert recorded == model.used
    assert (await verify_audit(store)).problem == ""
