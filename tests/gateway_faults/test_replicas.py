"""Two gateways of a tenant on one PostgreSQL: a budget holds between them, and neither its loss nor theirs loses usage."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from r1plus_client import AsyncClient, BudgetExhaustedError, OverloadedError, R1PlusError
from support.gateway.fake_triton import FakeTriton, count_up, serving
from support.gateway.process import GatewayProcess, started
from support.gateway.rig import FakeMonitor
from support.registry.postgres import PASSWORD, Cluster, Postgres
from support.waiting import eventually

pytestmark = [pytest.mark.postgres, pytest.mark.first_run_counts]


@dataclass(frozen=True)
class Replicas:
    """Two gateways before one pod."""

    pod: FakeTriton
    first: GatewayProcess
    second: GatewayProcess


@asynccontextmanager
async def replicas(folder: Path, url: str) -> AsyncIterator[Replicas]:
    """Run two gateways whose data are in this database."""
    async with serving(FakeTriton(count_up)) as pod, FakeMonitor().listen() as monitor:
        first = GatewayProcess(folder, pod, monitor)
        (folder / "url").write_text(url)
        first.settings["data"] |= {"databaseUrlFile": str(folder / "url")}
        del first.settings["data"]["folder"]
        (folder / "second").mkdir()
        second = GatewayProcess(folder / "second", pod, monitor, beside=first)
        for one in (first, second):
            one.settings["limits"] = {"queuePerKey": 1000}  # as many prompts are counted for requests that are refused
            one.write_settings()
        async with started(first), started(second):
            yield Replicas(pod, first, second)


async def generate(client: AsyncClient, tokens: int, most: int) -> bool:
    """Ask for an answer of so many tokens; return whether the budget had room for it."""
    try:
        await client.generate(model="credit", prompt=str(tokens), max_new_tokens=most)
    except BudgetExhaustedError:
        return False
    return True


async def test_fifty_requests_at_two_replicas_never_exceed_a_budget(tmp_path: Path, postgresql: Postgres) -> None:
    with postgresql.scratch() as url:
        async with replicas(tmp_path, url) as at:
            key = await at.first.create_key(limits={"budget_tokens": 1000})
            async with at.first.make_client(key) as one, at.second.make_client(key) as other:
                answered = 0
                for _ in range(10):
                    calls = [generate(client, 9, 30) for client in (one, other) for _ in range(25)]
                    answered += sum(await asyncio.gather(*calls))
                for client in (one, other):
                    usage = await client.read_usage()
                    (row,) = usage["data"]
                    used = row["prompt_tokens"] + row["completion_tokens"]
                    assert (row["requests"], used) == (answered, answered * (7 + 9))
                    assert usage["remaining"]["budget_tokens"] == 1000 - used
            assert 1000 - (7 + 30) < answered * (7 + 9) <= 1000, "it is used up, and never exceeded"


async def test_what_a_killed_replica_ran_is_settled_once_when_it_starts_again_or_by_the_other(
    tmp_path: Path, postgresql: Postgres
) -> None:
    with postgresql.scratch() as url:
        async with replicas(tmp_path, url) as at:
            key = await at.first.create_key(limits={"budget_tokens": 10_000})
            async with at.first.make_client(key) as doomed, at.second.make_client(key) as other:
                stream = await doomed.stream_generate(model="credit", prompt="9000", max_new_tokens=500)
                with pytest.raises(R1PlusError):
                    async for _ in stream:
                        at.first.kill()
                assert (await other.read_usage())["remaining"]["budget_tokens"] == 10_000 - 507
                assert await generate(other, 5, 5)

                async def is_settled() -> bool:
                    rows = (await other.read_usage())["data"]
                    return bool(rows and rows[0]["requests"] == 2)

                await eventually(is_settled, "the other one has settled it", 600.0)
                left = 10_000 - sum(map(sum, at.pod.usage.values()))
                assert (await other.read_usage())["remaining"]["budget_tokens"] == left, "by the pod's count"
                at.first.start()
                await at.first.until_ready()
                assert (await other.read_usage())["remaining"]["budget_tokens"] == left


async def test_a_database_that_is_gone_and_back_costs_nobody_anything(cluster: Cluster, tmp_path: Path) -> None:
    with closing(Postgres(cluster)) as server:
        server.start()
        async with replicas(tmp_path, server.dsn()) as at:
            key = await at.first.create_key(limits={"budget_tokens": 10_000})
            async with at.first.make_client(key) as one, at.second.make_client(key) as other:
                running = [asyncio.create_task(generate(client, 300, 300)) for client in (one, other) for _ in range(4)]
                await eventually(lambda: at.pod.running == len(running), "all run")
                server.stop()
                for client in (one, other):
                    with pytest.raises(OverloadedError, match="cannot be used now") as caught:
                        await client.generate(model="credit", prompt="5", max_new_tokens=5)
                    assert PASSWORD not in str(caught.value)
                server.start()
                assert all(await asyncio.gather(*running)), "answers that ran were not cut"

                async def is_settled() -> bool:
                    rows = (await one.read_usage())["data"]
                    return bool(rows and rows[0]["requests"] == len(running))

                await eventually(is_settled, "all are settled", retry_on=(R1PlusError,))
                for client in (one, other):
                    usage = await client.read_usage()
                    assert usage["remaining"]["budget_tokens"] == 10_000 - len(running) * (7 + 300)
            assert PASSWORD not in at.first.log + at.second.log
