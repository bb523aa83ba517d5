"""What refused requests, and large ones, take from others: turns in a thread, and an allowance in a minute."""

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from r1plus_gateway.access.caller import AccessError, Caller
from r1plus_gateway.access.usage import UsageSummary
from r1plus_gateway.http.accounting import admission
from r1plus_gateway.http.accounting.admission import MOST_REFUSED, REFUSED_BYTES, RefusalAllowance
from r1plus_gateway.http.application import MOST_USAGE_READS
from r1plus_gateway.http.body import bodies
from r1plus_gateway.http.body.json_body import parse_object
from support.gateway.access import ALICE
from support.gateway.fake_triton import answer
from support.gateway.rig import Rig, running
from support.tables import for_each
from support.waiting import eventually

pytestmark = pytest.mark.first_run_counts
BOB = replace(ALICE, id="bob")
LARGE = "x" * (bodies.LARGE_BYTES + 1)


class Parser:
    """Parses as the gateway does, and notes what of a key was parsed, and where; a thread waits for the test."""

    def __init__(self) -> None:
        self.parsed: list[tuple[str, bool]] = []
        self.begun = threading.Event()
        self.released = threading.Event()
        self._loop = threading.get_ident()

    def __call__(self, body: Any) -> dict[str, Any]:
        value = parse_object(body)
        is_beside = threading.get_ident() != self._loop
        self.parsed.append((value["user"], is_beside))
        if is_beside:
            self.begun.set()
            assert self.released.wait(60)
        return value


@pytest.fixture
def parser(monkeypatch: pytest.MonkeyPatch) -> Iterator[Parser]:
    made = Parser()
    monkeypatch.setattr(bodies, "parse_object", made)
    yield made
    made.released.set()


async def ask(rig: Rig, name: str, text: str, model: str = "credit", **headers: str) -> int:
    """Ask with the key of that name; return the status."""
    rig.authenticator.callers["r1p_bob"] = BOB
    key = {} if name == "alice" else {"Authorization": f"Bearer r1p_{name}"}
    body = {"model": model, "messages": [{"role": "user", "content": text}], "user": name}
    async with rig.post("/v1/chat/completions", body, **key, **headers) as response:
        await response.read()
        return int(response.status)


async def test_a_large_body_is_parsed_beside_the_loop_and_keys_take_turns(tmp_path: Path, parser: Parser) -> None:
    """One key sends twenty; another one's is the second that is parsed, and small ones wait for none."""
    async with running(tmp_path, answer("a"), contextTokens=65536, batch=64) as rig:
        asking = [asyncio.create_task(ask(rig, "alice", LARGE)) for _ in range(20)]
        await eventually(parser.begun.is_set, "one is parsed")
        asking.append(asyncio.create_task(ask(rig, "bob", LARGE)))
        await eventually(
            lambda: len(rig.gateway.api._completions.bodies._parsing._turns._lines) == 2, "the other one waits"
        )
        assert await ask(rig, "alice", "Hi") == 200
        assert parser.parsed == [("alice", True), ("alice", False)]
        parser.released.set()
        assert await asyncio.gather(*asking) == [200] * 21
        assert parser.parsed[2] == ("bob", True)
        assert Counter(parser.parsed) == {("alice", True): 20, ("bob", True): 1, ("alice", False): 1}


async def test_a_client_that_leaves_holds_its_turn_until_its_body_is_parsed(tmp_path: Path, parser: Parser) -> None:
    """Nothing stops a thread. Else one key would have as many threads as it sends bodies and leaves."""
    async with running(tmp_path, answer("a"), contextTokens=65536) as rig:
        bodies_read = rig.gateway.api._completions.bodies
        leaving = asyncio.create_task(ask(rig, "alice", LARGE))
        await eventually(parser.begun.is_set, "one is parsed")
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        await eventually(lambda: any(task.cancelling() for task in asyncio.all_tasks()), "its request is cancelled")
        staying = asyncio.create_task(ask(rig, "alice", LARGE))
        await eventually(lambda: bodies_read._of["alice"] > 2 * len(LARGE), "both count")
        assert parser.parsed == [("alice", True)]
        parser.released.set()
        assert await staying == 200
        await eventually(lambda: bodies_read._all == 0, "nothing counts any more")


@for_each("times", {"the bound": 1.0, "a tenth more": 1.1, "ten times as much": 10.0})
async def test_a_key_whose_requests_are_refused_is_read_no_more_and_others_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, times: float
) -> None:
    most = 20
    monkeypatch.setattr(admission, "MOST_REFUSED", most)
    caplog.set_level(logging.INFO, "r1plus_gateway")
    now = 0.0
    async with running(tmp_path, answer("a"), clock=lambda: now) as rig:
        statuses = Counter([await ask(rig, "alice", "Hi", "no-such-model") for _ in range(round(most * times))])
        assert statuses == Counter({404: most, 429: round(most * times) - most})
        assert await ask(rig, "alice", "Hi") == 429
        assert await ask(rig, "bob", "Hi") == 200
        now = 60.0 / most
        assert await ask(rig, "alice", "Hi") == 200, "one goes each so many seconds"
        assert len(caplog.records) < most, "a refused request writes no line"


async def test_what_is_refused_unread_counts_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else an end user that floods its key with large bodies would take the key's other half, too."""
    monkeypatch.setattr(admission, "MOST_REFUSED", 20)
    monkeypatch.setattr(admission, "REFUSED_BYTES", 100)
    now = 0.0
    async with running(tmp_path, answer("a"), clock=lambda: now) as rig:
        statuses = [await ask(rig, "alice", "x" * 1000, "no-such-model") for _ in range(20)]
        assert statuses == [404] * 2 + [429] * 18
        now = 60.0
        assert await ask(rig, "alice", "Hi") == 200


def charge(allowance: RefusalAllowance, caller: Caller, count: int, status: int = 404, size: int = 0) -> None:
    """Refuse so many requests of a caller."""
    for _ in range(count):
        allowance.charge(caller, status, size)


def is_refused(allowance: RefusalAllowance, caller: Caller) -> bool:
    """Return whether a caller's next request is refused unread."""
    try:
        allowance.check(caller)
    except AccessError as error:
        assert (error.status, error.retry_after is not None) == (429, True)
        return True
    return False


@for_each("status, size, most", {
    "a field that is wrong": (400, 0, MOST_REFUSED),
    "a large body": (400, 2 * 2**20, MOST_REFUSED // (1 + 2 * 2**20 // REFUSED_BYTES) + 1),
    "a large body that finds no room": (503, 2 * 2**20, MOST_REFUSED * REFUSED_BYTES // (2 * 2**20) + 1),
})  # fmt: skip
def test_a_refusal_costs_one_and_more_for_a_large_body(status: int, size: int, most: int) -> None:
    allowance = RefusalAllowance(lambda: 0.0)
    charge(allowance, ALICE, most - 1, status, size)
    assert not is_refused(allowance, ALICE)
    charge(allowance, ALICE, 1, status, size)
    assert is_refused(allowance, ALICE)


@for_each("status", {"no pod takes it": 503, "too many at once": 429})
def test_what_is_not_the_callers_fault_costs_nothing(status: int) -> None:
    allowance = RefusalAllowance(lambda: 0.0)
    charge(allowance, ALICE, 10 * MOST_REFUSED, status, 100)
    assert not is_refused(allowance, ALICE)


def test_an_end_user_takes_half_of_its_keys_allowance() -> None:
    allowance, anna, bert = (
        RefusalAllowance(lambda: 0.0),
        replace(ALICE, end_user="anna"),
        replace(ALICE, end_user="bert"),
    )
    charge(allowance, anna, MOST_REFUSED // 2)
    assert [is_refused(allowance, one) for one in (anna, bert, ALICE, BOB)] == [True, False, False, False]
    charge(allowance, bert, MOST_REFUSED // 2)
    assert [is_refused(allowance, one) for one in (anna, bert, ALICE, BOB)] == [True, True, True, False]


@for_each("times", {"the bound": 1.0, "a tenth more": 1.1, "ten times as much": 10.0})
async def test_a_key_reads_its_usage_a_few_times_at_once_and_others_go_on(tmp_path: Path, times: float) -> None:
    gate = asyncio.Event()

    class GatedUsage:
        async def read_usage(self, caller: Caller) -> UsageSummary:
            if caller.id == ALICE.id:
                await gate.wait()
            return UsageSummary()

    async with running(tmp_path, answer("a")) as rig:
        rig.gateway.api._usage = GatedUsage()
        rig.authenticator.callers["r1p_bob"] = BOB
        statuses: list[int] = []

        async def read() -> None:
            async with rig.get("/v1/usage") as response:
                statuses.append(response.status)

        number = round(MOST_USAGE_READS * times + 0.4)
        reading = [asyncio.create_task(read()) for _ in range(number)]
        await eventually(lambda: statuses == [429] * (number - MOST_USAGE_READS), "those beyond the bound are refused")
        async with rig.get("/v1/usage", "r1p_bob") as response:
            assert response.status == 200
        gate.set()
        await asyncio.gather(*reading)
        assert Counter(statuses) == Counter({200: MOST_USAGE_READS, 429: number - MOST_USAGE_READS})
