"""Several gateways on one PostgreSQL: budgets hold between them, one settles for another that is gone."""

import asyncio
import json
import re
import subprocess
import sys
from contextlib import AsyncExitStack, closing
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from r1plus_assistant.conversations.recall import Continued, Recall
from r1plus_gateway.access.api_keys import verify_key
from r1plus_gateway.access.caller import AccessError, Limits, Reservation
from r1plus_gateway.http.errors import RequestError
from r1plus_gateway.store.administration.admin import (
    UsageQuery,
    create_key,
    list_keys,
    report_usage,
    revoke_key,
    update_key,
    verify_audit,
)
from r1plus_gateway.store.administration.key_records import KeyChange, KeySpec
from r1plus_gateway.store.content.content import ListPage
from r1plus_gateway.store.database.database import StoreLimits
from r1plus_gateway.store.database.migration import ADVISORY_LOCK, Patience, migrate
from r1plus_gateway.store.database.opening import open_data
from r1plus_gateway.store.errors import DataReason, StoreError
from r1plus_gateway.store.keys.tenant_keys import make_half
from r1plus_gateway.store.tenant import Periods, TenantStore
from r1plus_gateway.store.upkeep.erasure import erase
from r1plus_gateway.store.upkeep.erasure_records import ErasureScope
from r1plus_gateway.store.upkeep.erasure_steps import ErasureStep, begin_erasure, continue_erasure, find_unfinished
from support.gateway.content import check_books, make_content, say
from support.gateway.tenant_data import ADMIN, Time, Volume, count_from, make_caller, settle
from support.registry.postgres import PASSWORD, Cluster, Postgres
from support.waiting import DEADLINE_SECONDS, eventually

pytestmark = [pytest.mark.postgres, pytest.mark.first_run_counts]
EVER = UsageQuery(date(2000, 1, 1), date(2999, 1, 1))
CALLER = make_caller(limits=Limits(budget_tokens=1000))

REPLICA = """
import asyncio, json, sys
from pathlib import Path
from r1plus_gateway.access.caller import *
from r1plus_gateway.store.database.opening import StoreConfig
from r1plus_gateway.store.tenant import TenantStore

async def main(uid, folder, url, name):
    store = TenantStore(StoreConfig(uid, folder / "secret", None, url))
    assert await store.open(), store.state
    caller = Caller(CallerKind.API_KEY, "key000000001", limits=Limits(budget_tokens=1000))
    print("open", flush=True)
    sys.stdin.readline()
    requests = (store.ledger.reserve(f"{name}-{n}", caller, "credit", 30) for n in range(50))
    ends = await asyncio.gather(*requests, return_exceptions=True)
    admitted = [end for end in ends if isinstance(end, Reservation)]
    codes = {getattr(end, "code", repr(end)) for end in ends if not isinstance(end, Reservation)}
    for one in admitted:
        await store.ledger.settle(one, TokenUsage(10, 20), Outcome.ANSWERED, None)
    print(json.dumps({"admitted": len(admitted), "codes": sorted(codes)}), flush=True)
    await store.close()

asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4]))
"""


async def test_memory_sees_what_another_replica_stored_and_erased(tenant: Volume) -> None:
    async with tenant.open() as one, tenant.open() as two:
        here, there = make_content(one), make_content(two)
        recall = Recall(here)

        async def read() -> list[str]:
            recollection, _ = await recall.recall(CALLER, Continued("", made.id, 2**20, recalls=False))
            return [sentence.text for sentence in recollection.said.list_sentences()]

        made = await there.write(CALLER, lambda content: content.create_conversation({}, [say("My code is 4711.")]))
        assert await read() == ["My code is 4711."]
        await there.write(CALLER, lambda content: content.append_items(made.id, [say("It rains.")]))
        assert await read() == ["My code is 4711.", "It rains."]
        await one.maintain()
        assert len(one.plaintext) == 1, "what is there stays"
        await erase(two, ADMIN, ErasureScope(caller_kind=CALLER.kind.value, caller_id=CALLER.id))
        await one.maintain()
        assert len(one.plaintext) == 0
        with pytest.raises(RequestError):
            await read()


async def test_another_replica_finishes_an_erasure_and_refuses_what_began_before_it(tenant: Volume) -> None:
    scope, step = ErasureScope(caller_kind=CALLER.kind.value, caller_id=CALLER.id), ErasureStep(keys=1, rows=2)
    async with tenant.open() as one, tenant.open() as two:
        here, there = make_content(one), make_content(two)
        made = await here.write(CALLER, lambda content: content.create_conversation({}, [say("x")] * 9))
        before = two.audit_seq
        erasure_id = await one.write(lambda ledger: begin_erasure(ledger, ADMIN.id, scope, "", step))
        assert await there.write(CALLER, lambda content: content.is_erased_since(before)), (
            "its keys are being destroyed"
        )
        await one.write(lambda ledger: continue_erasure(ledger, erasure_id, step))
        assert await there.read(CALLER, lambda content: content.find_conversation(made.id)) is None
        assert await there.write(CALLER, lambda content: content.is_erased_since(before))
        again = await there.write(CALLER, lambda content: content.create_conversation({}, [say("again")]))
        await two.maintain()
        assert await two.read(find_unfinished) is None
        assert await here.read(CALLER, lambda content: content.find_conversation(again.id)) is not None
        await one.read(check_books)
        assert not await here.write(CALLER, lambda content: content.is_erased_since(two.audit_seq))


def start_replica(tenant: Volume, name: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", REPLICA, tenant.tenant_uid, str(tenant.folder), tenant.url, name]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


async def test_two_processes_admit_together_no_more_than_the_budget(tenant: Volume) -> None:
    with start_replica(tenant, "one") as one, start_replica(tenant, "two") as two:
        for process in (one, two):
            assert process.stdout is not None and process.stdout.readline() == "open\n"
        for process in (one, two):
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        ends: list[dict[str, Any]] = [
            json.loads(process.communicate(timeout=DEADLINE_SECONDS)[0]) for process in (one, two)
        ]
    assert sum(end["admitted"] for end in ends) == 33
    assert {code for end in ends for code in end["codes"]} == {"insufficient_quota"}
    tenant.time.wall = 0  # The replicas' clock was the real one; ledger time goes on from it.
    async with tenant.open() as store:
        report = await report_usage(store, EVER)
        assert [(budget.used_tokens, budget.reserved_tokens) for budget in report.budgets] == [(990, 0)]
        audit = await verify_audit(store)
        assert (audit.records, audit.problem) == (33, "")


async def test_replicas_that_start_at_once_on_an_empty_database_agree_on_its_keys(tenant: Volume) -> None:
    async with AsyncExitStack() as stack:
        stores = [tenant.make_store() for _ in range(3)]
        for store in stores:
            stack.push_async_callback(store.close)
        assert all(await asyncio.gather(*(store.open() for store in stores))), [store.state for store in stores]
        issued = await create_key(stores[0], ADMIN, KeySpec("ci"))
        for store in stores:
            assert await verify_key(issued.key.encode(), store, store.clock.read()) is not None
        await revoke_key(stores[1], ADMIN, issued.key.id)
        for store in stores:
            assert await verify_key(issued.key.encode(), store, store.clock.read()) is None
        assert (await verify_audit(stores[2])).problem == ""


async def test_limits_that_one_replica_changes_hold_in_the_others_next_request(tenant: Volume) -> None:
    async with AsyncExitStack() as stack:
        first, second = await open_pair(tenant, stack, gone=60.0)
        issued = await create_key(first, ADMIN, KeySpec("ci", limits=Limits(budget_tokens=100)))

        async def reserve(request_id: str) -> Reservation:
            record = await verify_key(issued.key.encode(), second, second.clock.read())
            assert record is not None
            return await second.ledger.reserve(request_id, record.caller, "credit", 80)

        await reserve("a")
        with pytest.raises(AccessError, match="of its budget"):
            await reserve("b")
        await update_key(first, ADMIN, issued.key.id, KeyChange(limits={"budget_tokens": 160}))
        await reserve("c")
        await update_key(first, ADMIN, issued.key.id, KeyChange(limits={"budget_tokens": 10}))
        with pytest.raises(AccessError, match="of its budget"):
            await reserve("d")
        assert (await verify_audit(second)).problem == ""


async def open_pair(tenant: Volume, stack: AsyncExitStack, gone: float) -> tuple[TenantStore, TenantStore]:
    """Return two gateways; the second takes one that has not beaten for `gone` seconds as gone."""
    stores = (tenant.make_store(), tenant.make_store(Periods(gone=gone)))
    for store in stores:
        stack.push_async_callback(store.close)
        assert await store.open(), store.state
    return stores


async def read_budget(store: TenantStore) -> tuple[int, int]:
    (budget,) = (await report_usage(store, EVER)).budgets
    return budget.used_tokens, budget.reserved_tokens


async def test_what_a_gateway_that_is_gone_had_reserved_is_settled_once_by_another(tenant: Volume) -> None:
    async with AsyncExitStack() as stack:
        first, second = await open_pair(tenant, stack, gone=0.0)
        reservation = await first.ledger.reserve("a", CALLER, "credit", 100)
        assert await read_budget(second) == (0, 100)
        await second.maintain()
        assert await read_budget(second) == (100, 0)
        # It was only cut off: what it says afterwards changes nothing, and it goes on.
        await settle(first, reservation, 10, 10)
        assert await read_budget(second) == (100, 0)
        await settle(first, await first.ledger.reserve("b", CALLER, "credit", 50), 10, 10)
        assert await read_budget(second) == (120, 0)
        assert (await verify_audit(second)).problem == ""


async def test_the_reservations_of_a_gateway_that_beats_are_its_own(tenant: Volume) -> None:
    async with AsyncExitStack() as stack:
        first, second = await open_pair(tenant, stack, gone=3600.0)
        await first.ledger.reserve("a", CALLER, "credit", 100)
        for _ in range(3):
            await first.maintain()
            await second.maintain()
        assert await read_budget(second) == (0, 100)


async def test_ledger_time_is_that_of_the_gateway_that_is_ahead(tenant: Volume) -> None:
    limited = make_caller("key000000002", Limits(requests_per_minute=1))
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(tenant.open())
        await first.ledger.reserve("a", limited, "credit", 1)
        tenant.time.wall -= 40 * 86400
        second = await stack.enter_async_context(tenant.open())
        with pytest.raises(AccessError, match="requests per minute"):
            await second.ledger.reserve("b", limited, "credit", 1)
        tenant.time.advance(60)
        await second.ledger.reserve("c", limited, "credit", 1)
        with pytest.raises(AccessError):
            await first.ledger.reserve("d", limited, "credit", 1)


async def test_a_replica_whose_clock_is_years_ahead_deletes_nothing_as_long_as_another_has_the_right_time(
    tenant: Volume,
) -> None:
    wrong = replace(tenant, time=Time(tenant.time.wall + 3 * 365 * 86400))
    async with AsyncExitStack() as stack:
        right, _ = await open_pair(tenant, stack, gone=3600.0)
        made = await make_content(right).write(CALLER, lambda one: one.create_conversation({}, [say("x")]))
        await right.maintain()
        ahead = wrong.make_store(Periods(prune=0.0))
        assert await ahead.open()
        stack.push_async_callback(ahead.close)
        for _ in range(3):
            for time in (tenant.time, wrong.time):
                time.advance(0.7 * 86400)
            for store in (ahead, right):
                right.prune_soon()
                await store.maintain()
        assert (ahead.state.reason, right.state.reason) == (DataReason.CLOCK_AHEAD, DataReason.READY)
        assert await make_content(right).read(CALLER, lambda one: one.find_conversation(made.id)) is not None


async def test_another_tenants_database_is_refused(tenant: Volume) -> None:
    async with tenant.open():
        pass
    store = replace(tenant, tenant_uid="another-uid").make_store()
    assert not await store.open()
    assert store.state.reason is DataReason.FOREIGN_TENANT
    await store.close()


async def execute(store: TenantStore, statement: str) -> None:
    await store.write(lambda ledger: ledger.connection.exec_driver_sql(statement) and None)


async def test_a_lost_half_is_a_state_with_the_remedy(tenant: Volume) -> None:
    async with tenant.open() as store:
        half = tenant.config.secret_folder / "half-1"
        text = half.read_text()
        half.write_text(make_half())
        assert await read_reason(tenant) is DataReason.WRONG_KEY
        half.unlink()
        assert await read_reason(tenant) is DataReason.KEY_LOST
        half.write_text(text)
        await execute(store, "DELETE FROM meta WHERE name = 'key_ring'")
        assert await read_reason(tenant) is DataReason.KEY_LOST


async def test_the_secrets_half_is_rotated_while_replicas_run(tenant: Volume) -> None:
    secret = tenant.config.secret_folder
    async with AsyncExitStack() as stack:
        first, second = await open_pair(tenant, stack, gone=3600.0)
        issued = await create_key(first, ADMIN, KeySpec("ci"))
        (secret / "half-2").write_text(make_half())
        await first.maintain()
        (secret / "half-1").unlink()
        await second.maintain()
        await first.maintain()
        assert first.state.is_ready and second.state.is_ready
    async with tenant.open() as store:
        assert await verify_key(issued.key.encode(), store, store.clock.read()) is not None


async def read_reason(tenant: Volume) -> DataReason:
    store = tenant.make_store()
    await store.open()
    await store.close()
    return store.state.reason


async def test_a_newer_schema_is_read_and_not_written(tenant: Volume) -> None:
    async with tenant.open() as store:
        await create_key(store, ADMIN, KeySpec("ci"))
        await execute(store, "UPDATE alembic_version SET version_num = '9999'")
    store = tenant.make_store()
    assert await store.open()
    assert store.state.reason is DataReason.SCHEMA_NEWER
    assert [record.name for record in await list_keys(store)] == ["ci"]
    with pytest.raises(AccessError, match="SchemaNewer"):
        await store.ledger.reserve("a", CALLER, "credit", 1)
    await store.close()


async def test_a_migration_waits_for_its_turn_and_gives_up_in_time(tenant: Volume) -> None:
    async with tenant.open() as store:
        database = store.require_data().database
        with database.engine.connect() as holder, holder.begin():
            holder.execute(sa.select(sa.func.pg_advisory_xact_lock(ADVISORY_LOCK)))
            with pytest.raises(StoreError, match="another gateway's migration has run for") as failure:
                migrate(database, Patience(turn=0.2))
            assert failure.value.reason is DataReason.MIGRATION_FAILED


async def test_the_role_and_database_of_the_documentation_are_enough_and_shut_to_others(
    postgresql: Postgres, tenant: Volume
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "gateway-access.md").read_text()
    (block,) = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    statements = block.replace("long and random", "one").strip().split("\n")
    other = [statement.replace("t_8f3a", "t_other") for statement in statements]
    try:
        for statement in statements + other:
            postgresql.execute(statement)
        own = postgresql.dsn("t_8f3a").replace(f"admin:{PASSWORD}", "t_8f3a:one")
        async with replace(tenant, url=own).open() as store:
            await create_key(store, ADMIN, KeySpec("ci"))
            assert (await verify_audit(store)).problem == ""
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            postgresql.execute("SELECT 1", postgresql.dsn("t_8f3a").replace(f"admin:{PASSWORD}", "t_other:one"))
    finally:
        for name in ("t_8f3a", "t_other"):
            postgresql.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            postgresql.execute(f"DROP ROLE IF EXISTS {name}")


async def test_no_message_has_the_password(tenant: Volume) -> None:
    port = tenant.url.rpartition(":")[2].partition("/")[0]
    down = replace(tenant, url=tenant.url.replace(port, "1"))
    store = down.make_store()
    assert not await store.open()
    assert store.state.reason is DataReason.UNAVAILABLE
    assert PASSWORD not in store.state.message
    await store.close()
    with pytest.raises(StoreError) as failure:
        open_data(replace(tenant.config, url=f"mysql://admin:{PASSWORD}@host/db"))
    assert failure.value.reason is DataReason.CONFIG_INVALID
    assert PASSWORD not in str(failure.value)


async def test_a_database_that_is_gone_and_back_loses_nothing(cluster: Cluster, tmp_path: Any) -> None:
    limits = StoreLimits(connect=2.0, lock=5.0, statement=5.0)
    next_id = count_from()
    with closing(Postgres(cluster)) as server:
        server.start()
        tenant = Volume(tmp_path, url=server.dsn(), limits=limits).make()
        async with tenant.open() as store:
            running = [await store.ledger.reserve(next_id(), CALLER, "credit", 100) for _ in range(5)]
            server.stop()
            with pytest.raises(AccessError) as refusal:
                await store.ledger.reserve(next_id(), CALLER, "credit", 1)
            assert (refusal.value.status, refusal.value.code) == (503, "data_unavailable")
            assert store.state.reason is DataReason.UNAVAILABLE
            assert PASSWORD not in store.state.message
            settlements = [asyncio.create_task(settle(store, one, 10, 10)) for one in running]
            server.start()
            await asyncio.gather(*settlements)

            async def is_settled() -> bool:
                return await read_budget(store) == (100, 0)

            await eventually(is_settled, "all five are settled", retry_on=(StoreError,))
            assert isinstance(await store.ledger.reserve(next_id(), CALLER, "credit", 900), Reservation)
            assert store.state.is_ready
            assert (await verify_audit(store)).problem == ""


async def test_a_database_that_is_slow_is_said_in_time_and_loses_nothing(tenant: Volume) -> None:
    """As while maintenance has locked the tables: statements wait for longer than a request does."""
    next_id = count_from()
    async with replace(tenant, limits=StoreLimits(connect=20.0, lock=20.0, statement=1.0)).open() as store:
        content = make_content(store)
        await content.write(CALLER, lambda one: one.create_conversation({}, []))
        running = [await store.ledger.reserve(next_id(), CALLER, "credit", 100) for _ in range(5)]
        with psycopg.connect(tenant.url) as maintenance:
            maintenance.execute("LOCK TABLE reservations, conversations IN ACCESS EXCLUSIVE MODE")
            settlements = [asyncio.create_task(settle(store, one, 10, 10)) for one in running]
            for attempt in (
                store.ledger.reserve(next_id(), CALLER, "credit", 1),
                content.read(CALLER, lambda one: one.list_conversations(ListPage())),
                content.write(CALLER, lambda one: one.create_conversation({}, [])),
            ):
                with pytest.raises(AccessError) as refusal:
                    await attempt
                assert (refusal.value.status, refusal.value.code) == (503, "data_unavailable")
            assert store.state.reason is DataReason.UNAVAILABLE
            assert "statement timeout" in store.state.message
        await asyncio.gather(*settlements)

        async def is_settled() -> bool:
            return await read_budget(store) == (100, 0)

        await eventually(is_settled, "all five are settled", retry_on=(StoreError,))

        async def count_conversations() -> int:
            listed = await content.read(CALLER, lambda one: one.list_conversations(ListPage()))
            return 0 if listed is None else len(listed.entries)

        count = await eventually(count_conversations, "content is read", retry_on=(AccessError,))
        assert count == 1, "what was refused is not there"
        assert store.state.is_ready
        assert (await verify_audit(store)).problem == ""
