"""What a gateway had reserved that is gone: what its pods have counted is billed, and only the rest in full."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path

import pytest

from r1plus_assistant.math.calculations import CALCULATOR
from r1plus_gateway.access.caller import AccessError, Limits, TokenUsage
from r1plus_gateway.http.accounting.left_requests import MOST_AT_ONCE
from r1plus_gateway.serving.errors import ServingError
from r1plus_gateway.serving.left_usage import ask_usage
from r1plus_gateway.store.administration.admin import UsageQuery, report_usage, verify_audit
from r1plus_gateway.store.ledger.left_instances import LeftRequest
from r1plus_gateway.store.tenant import Periods, TenantStore
from support.gateway.access import ALICE
from support.gateway.fake_triton import FakeTriton, Gated, serving
from support.gateway.rig import Rig, running, running_before
from support.gateway.tenant_data import Volume, make_caller, settle
from support.tables import for_each
from support.waiting import eventually

pytestmark = pytest.mark.first_run_counts
EVER = UsageQuery(date(2000, 1, 1), date(2999, 1, 1))
CALLER = make_caller(limits=Limits(budget_tokens=10_000, concurrent_requests=100))
PATIENCE = Periods(left=3600.0)


async def leave(volume: Volume, *request_ids: str, model: str = "credit") -> None:
    """Reserve 100 tokens for each request, and go as a gateway that was killed."""
    async with volume.open() as store:
        for request_id in request_ids:
            await store.ledger.reserve(request_id, CALLER, model, 100)


@asynccontextmanager
async def reopened(volume: Volume, periods: Periods = PATIENCE) -> AsyncIterator[TenantStore]:
    """Open the data as the gateway that starts next."""
    store = volume.make_store(periods)
    try:
        assert await store.open(), store.state
        yield store
    finally:
        await store.close()


async def read_used(store: TenantStore) -> tuple[int, int, int]:
    """Return tokens that were counted, those that count in full, and those that are reserved."""
    report = await report_usage(store, EVER)
    assert (await verify_audit(store)).problem == ""
    counted = sum(row.prompt_tokens + row.completion_tokens for row in report.rows)
    unsettled = sum(row.unsettled_tokens for row in report.rows)
    (budget,) = report.budgets
    assert budget.used_tokens == counted + unsettled
    return counted, unsettled, budget.reserved_tokens


async def until_used(store: TenantStore, counted: int, unsettled: int) -> None:
    """Wait until nothing is left, and so many tokens are counted."""

    async def is_settled() -> bool:
        return not await store.read_left()

    await eventually(is_settled, "nothing is left", period_s=0.01)
    assert await read_used(store) == (counted, unsettled, 0)


async def test_what_the_pods_have_counted_replaces_the_reservation(tmp_path: Path, volume: Volume) -> None:
    names = [f"r{number}" for number in range(3 * MOST_AT_ONCE)]
    await leave(volume, *names)
    async with reopened(volume) as store:
        assert await store.read_left() == [LeftRequest(name, "credit") for name in names]
        assert await read_used(store) == (0, 0, 100 * len(names)), "until then the tokens stay reserved"
        async with serving(FakeTriton(Gated(()))) as pod:
            for name in names:
                pod.remember(name, 7, 5)
            async with running_before(tmp_path, pod, store=store):
                await until_used(store, 12 * len(names), 0)
    async with reopened(volume) as store:
        assert await store.read_left() == []
        assert await read_used(store) == (12 * len(names), 0, 0), "once"


@for_each("model", {"that no pod knows": "credit", "of a model that is gone": "debit", "of the calculator": CALCULATOR})
async def test_a_request_counts_in_full_at_once(tmp_path: Path, volume: Volume, model: str) -> None:
    await leave(volume, "r1", model=model)
    async with reopened(volume) as store, running(tmp_path, Gated(()), store=store):
        await until_used(store, 0, 100)


async def test_what_nobody_settles_in_time_counts_in_full(volume: Volume) -> None:
    await leave(volume, "r1")
    async with reopened(volume) as store:
        await store.maintain()
        assert await read_used(store) == (0, 0, 100)
    async with reopened(volume, Periods(left=0.01)) as store:

        async def is_settled() -> bool:
            await store.maintain()
            return not await store.read_left()

        await eventually(is_settled, "the time is over", period_s=0.01)
        assert await read_used(store) == (0, 100, 0)
        assert not await store.settle_left("r1", TokenUsage(1, 1)), "it was settled"
        assert await read_used(store) == (0, 100, 0)


async def test_new_requests_are_answered_and_settled_meanwhile(volume: Volume) -> None:
    await leave(volume, "r1")
    async with reopened(volume) as store:
        await settle(store, await store.ledger.reserve("r2", CALLER, "credit", 100), 3, 4)
        with pytest.raises(AccessError, match="100 set aside"):
            await store.ledger.reserve("r3", CALLER, "credit", 10_000 - 7 - 100 + 1)
        assert await store.read_left() == [LeftRequest("r1", "credit")]


async def ask(rig: Rig) -> TokenUsage | None:
    """Ask the rig's pods for request r1."""
    pool = rig.gateway.models.find("credit", ALICE)
    assert pool is not None
    await pool.refresh()
    return await ask_usage(pool, "r1", most_rounds=3)


ONE_POD: dict[str, tuple[dict[str, tuple[int, int]], TokenUsage | None]] = {
    "it has answered": ({"r1": (7, 5)}, TokenUsage(7, 5)),
    "its prompt was counted, and it waited for a slot": ({"r1": (0, 0)}, TokenUsage(0, 0)),
    "its question was translated": ({"r1-math": (300, 9), "r1": (7, 5)}, TokenUsage(307, 14)),
    "it went while its question was translated": ({"r1-math": (300, 9)}, TokenUsage(300, 9)),
    "programs were run for it": ({"r1": (7, 5), "r1-1": (20, 6), "r1-2": (0, 0)}, TokenUsage(27, 11)),
    "more rounds than a request has are not believed": (
        {"r1": (1, 1), "r1-1": (1, 1), "r1-2": (1, 1), "r1-3": (1, 1)},
        TokenUsage(3, 3),
    ),
    "more tokens than the context holds are not believed": ({"r1": (5000, 5000)}, TokenUsage(1024, 1024)),
    "it is another request's": ({"r11": (7, 5)}, None),
}


@for_each("known, usage", ONE_POD)
async def test_a_pod_tells_what_all_generations_of_a_request_have_used(
    tmp_path: Path, known: dict[str, tuple[int, int]], usage: TokenUsage | None
) -> None:
    async with running(tmp_path, Gated(())) as rig:
        for name, (prompt, completion) in known.items():
            rig.pod.remember(name, prompt, completion)
        assert await ask(rig) == usage


TWO_PODS: dict[str, tuple[dict[str, tuple[int, int]], dict[str, tuple[int, int]], TokenUsage | None]] = {
    "one knows it": ({}, {"r1": (7, 5)}, TokenUsage(7, 5)),
    "its rounds went to both": ({"r1": (7, 5), "r1-2": (30, 1)}, {"r1-1": (20, 6)}, TokenUsage(57, 12)),
    "one has counted its prompt, and a third may have generated": ({"r1": (0, 0)}, {}, None),
    "neither knows it": ({}, {}, None),
}


@for_each("first, second, usage", TWO_PODS)
async def test_several_pods_tell_their_parts(
    tmp_path: Path, first: dict[str, tuple[int, int]], second: dict[str, tuple[int, int]], usage: TokenUsage | None
) -> None:
    other = FakeTriton(Gated(()))
    async with running(tmp_path, Gated(())) as rig, serving(other, "127.0.0.2", rig.pod.port):
        rig.addresses = frozenset({"127.0.0.1", "127.0.0.2"})
        for pod, known in ((rig.pod, first), (other, second)):
            for name, (prompt, completion) in known.items():
                pod.remember(name, prompt, completion)
        assert await ask(rig) == usage


async def test_while_a_pod_does_not_say_nothing_is_settled(tmp_path: Path, volume: Volume) -> None:
    await leave(volume, "r1")
    async with reopened(volume) as store, serving(FakeTriton(Gated(()))) as pod:
        pod.remember("r1", 7, 5)
        pod.is_silent_on_usage = True
        async with running_before(tmp_path, pod, store=store) as rig:
            rig.addresses = frozenset({"127.0.0.1", "127.0.0.2"})  # the second one does not listen
            with pytest.raises(ServingError):
                await ask(rig)
            rig.addresses = frozenset()
            with pytest.raises(ServingError):
                await ask(rig)
            rig.addresses = frozenset({"127.0.0.1"})
            with pytest.raises(ServingError):
                await ask(rig)
            assert await read_used(store) == (0, 0, 100)
            pod.is_silent_on_usage = False
            await until_used(store, 12, 0)


async def test_a_pod_that_still_works_on_a_request_tells_it_when_that_has_ended(tmp_path: Path) -> None:
    script = Gated(("a", "b"))
    async with running(tmp_path, script) as rig:
        asked = asyncio.create_task(rig.chat())
        await rig.until_running(1)
        (request_id,) = rig.pod.ids
        pool = rig.gateway.models.find("credit", ALICE)
        assert pool is not None
        question = asyncio.create_task(ask_usage(pool, request_id, 1))
        script.release(3)
        assert await question == TokenUsage(7, 2)
        (await asked).release()
