"""Pods count prompts before they are billed: how much of that a caller gets whose requests are not admitted."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from r1plus_contract.gateway import GatewayLimits
from r1plus_gateway.access.caller import AccessError, TokenUsage
from r1plus_gateway.http.accounting.admission import CountAllowance
from support.gateway.fake_triton import Gated, PromptCounter, answer
from support.gateway.rig import Rig, running
from support.waiting import eventually

MOST = GatewayLimits().queue_per_key
COUNTS: dict[str, Any] = {"capabilities": ["messages", "count_only"]}


def read_frozen_clock() -> float:
    """Return the same moment for ever: an allowance of counts does not grow."""
    return 0.0


async def test_what_is_not_counted_is_reserved_by_its_size_and_runs(tmp_path: Path) -> None:
    counter = PromptCounter()
    async with running(tmp_path, answer("a"), clock=read_frozen_clock, **COUNTS) as rig:
        rig.pod.count_tokens = counter
        rig.ledger.refusal = AccessError(429, "insufficient_quota", "no tokens left")
        for _ in range(MOST):
            assert (await _ask(rig))[:2] == (429, "insufficient_quota")
        assert counter.asked == MOST
        status, code, headers = await _ask(rig)
        assert (status, code) == (429, "rate_limit_exceeded")
        assert 1 <= int(headers["Retry-After"]) <= 3
        for left, code in ((50, "insufficient_quota"), (51, "rate_limit_exceeded")):
            rig.ledger.refusal = AccessError(429, "insufficient_quota", "too few tokens left", left_tokens=left)
            assert (await _ask(rig))[:2] == (429, code)
        rig.ledger.refusal = None
        assert (await _ask(rig))[0] == 200
        assert rig.ledger.settled[-1].reservation.tokens > 256, "by its bytes, and a template's tokens"
        assert counter.asked == MOST


@pytest.mark.unit_slow
async def test_requests_that_leave_the_queue_cost_what_refused_ones_cost(tmp_path: Path) -> None:
    counter, script, most = PromptCounter(), Gated(("a",)), 3
    settings = {"limits": {"queuePerKey": most}}
    async with running(tmp_path, script, settings=settings, batch=1, clock=read_frozen_clock, **COUNTS) as rig:
        rig.pod.count_tokens = counter
        first = asyncio.create_task(_ask(rig))
        await rig.until_running(1)
        leavers = 2 * most + 2
        for number in range(leavers):
            waits = asyncio.create_task(_ask(rig))
            await eventually(lambda: rig.gateway.models.queue.waiting == 1, "it waits")
            waits.cancel()
            await rig.until_settled(number + 1, still_open=1)
        assert counter.asked == 1 + most
        script.release(2)
        assert (await first)[0] == 200


@pytest.mark.unit_slow
async def test_requests_that_leave_the_engines_own_queue_cost_the_same(tmp_path: Path) -> None:
    counter, most = PromptCounter(), 3
    settings = {"limits": {"queuePerKey": most}}
    async with running(tmp_path, Gated(("a",)), settings=settings, clock=read_frozen_clock, **COUNTS) as rig:
        rig.pod.count_tokens = counter
        leavers = 2 * most + 2
        for number in range(leavers):
            waits = asyncio.create_task(_ask(rig))
            await rig.until_running(1)
            waits.cancel()
            await rig.until_settled(number + 1)
        assert {entry.usage for entry in rig.ledger.settled} == {TokenUsage(0, 0)}
        assert counter.asked == most


@pytest.mark.unit_slow
async def test_a_model_that_hangs_delays_no_other_model_of_the_key(tmp_path: Path) -> None:
    most, connected, disconnected = 2, asyncio.Event(), asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await reader.read()
        writer.close()
        disconnected.set()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    async with server, running(tmp_path, answer("a"), settings={"limits": {"queuePerKey": most}}, **COUNTS) as rig:
        port = server.sockets[0].getsockname()[1]
        rig.other_models = [rig.model | {"name": "debit", "host": "debit-pods", "grpcPort": port}]
        rig.write_settings()
        await eventually(lambda: len(rig.file.current.models) == 2, "the gateway has both models")
        hung = [asyncio.create_task(_ask(rig, model="debit")) for _ in range(2 * most)]
        await connected.wait()
        assert (await _ask(rig))[0] == 200
        assert not any(task.done() for task in hung)
        for task in hung:
            task.cancel()
    await disconnected.wait()


async def test_requests_that_are_answered_cost_nothing(tmp_path: Path) -> None:
    counter = PromptCounter()
    async with running(tmp_path, answer("a"), **COUNTS) as rig:
        rig.pod.count_tokens = counter
        for _ in range(MOST + 8):
            assert (await _ask(rig))[0] == 200
    assert counter.asked == MOST + 8


async def test_a_burst_of_requests_is_counted_in_turn(tmp_path: Path) -> None:
    counter = PromptCounter()
    settings = {"limits": {"queuePerKey": 2}}
    async with running(tmp_path, answer("a"), settings=settings, batch=64, **COUNTS) as rig:
        rig.pod.count_tokens = counter
        assert {status for status, _, _ in await asyncio.gather(*(_ask(rig) for _ in range(30)))} == {200}
    assert counter.asked == 30
    assert {entry.reservation.tokens for entry in rig.ledger.settled} == {7 + 50}


def test_the_allowance_comes_back_with_time_and_bounds_what_is_counted_at_once() -> None:
    now = [100.0]
    allowance = CountAllowance(lambda: now[0])
    assert [allowance.take("a", 2) for _ in range(3)] == [True, True, False]
    assert allowance.take("b", 2)
    assert allowance.compute_wait("a", 2) == 30.0
    now[0] += 29
    assert not allowance.take("a", 2)
    now[0] += 1
    assert allowance.take("a", 2)
    allowance.give_back("a")
    assert allowance.take("a", 2)
    now[0] += 3600
    assert allowance.compute_wait("a", 2) == 0.0
    assert [allowance.take("a", 2) for _ in range(3)] == [True, True, False]


async def _ask(rig: Rig, model: str = "credit") -> tuple[int, str, Any]:
    async with rig.chat(max_tokens=50, model=model) as response:
        error = (await response.json()).get("error", {})
        return response.status, error.get("code", ""), response.headers
