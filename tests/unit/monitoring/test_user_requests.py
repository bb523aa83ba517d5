"""How many requests of users the report has: as new as it is read, soon, and never a guess."""

import asyncio

from r1plus_contract.suites.suite import SuiteSampling
from r1plus_monitoring.probe.client import ProbeReply
from r1plus_monitoring.probe.user_requests import CACHE_SECONDS, UserRequests


class Engine:
    """Says how many requests run, when the test lets it."""

    def __init__(self) -> None:
        self.running: int | None = 3
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = 0

    async def is_model_ready(self) -> bool:
        return True

    async def count_waiting_requests(self) -> int | None:
        return 0

    async def count_user_requests(self) -> int | None:
        self.asked += 1
        await self.gate.wait()
        return self.running

    async def ask(self, prompt: str, sampling: SuiteSampling) -> ProbeReply:
        raise NotImplementedError

    async def close(self) -> None:
        """Nothing is open."""


async def test_it_is_counted_when_it_is_asked_and_at_most_once_a_second() -> None:
    engine, now = Engine(), 100.0
    requests = UserRequests(engine, lambda: now)
    assert [await requests.count(), await requests.count()] == [3, 3]
    assert engine.asked == 1
    now += CACHE_SECONDS + 0.1
    engine.running = None
    assert await requests.count() is None


async def test_an_engine_that_is_slow_to_say_delays_no_report_and_is_asked_once() -> None:
    engine, now = Engine(), 100.0
    requests = UserRequests(engine, lambda: now)
    engine.gate.clear()
    assert await requests.count() is None
    assert await requests.count() is None
    assert engine.asked == 1
    engine.gate.set()
    assert await requests.count() == 3
    await requests.close()


async def test_what_was_counted_before_is_not_told_once_it_is_old() -> None:
    engine, now = Engine(), 100.0
    requests = UserRequests(engine, lambda: now)
    assert await requests.count() == 3
    now += CACHE_SECONDS + 0.1
    engine.gate.clear()
    assert await requests.count() is None
    await requests.close()
