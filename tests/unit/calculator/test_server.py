"""The process: requests and replies, workers that overrun, die or are attacked from within, start and end."""

import asyncio
import ctypes
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from r1plus_calculator.server.server import CalculatorServer, run_calculator
from r1plus_calculator.server.worker import guard
from r1plus_contract.calculator import LENGTH_BYTES, MOST_REQUEST_BYTES
from r1plus_contract.frame_server import SocketError
from r1plus_sandbox.confinement import WorkerLimits
from support.calculator.attacks import ATTACKS, call_kernel, try_attack
from support.calculator.hostile import generate_hostile
from support.calculator.running import CalculatorClient, preload_once, running_calculator
from support.tables import for_each
from support.waiting import eventually

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.first_run_counts]
Running = tuple[CalculatorServer, CalculatorClient]
SAMPLE = 260
"""Hostile expressions; `make bench NAME=math` tries 10,000."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def calculator(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    preload_once()
    async with running_calculator(tmp_path_factory.mktemp("calculator")) as running:
        yield running


@pytest.mark.unit_slow
async def test_an_expression_is_answered(calculator: Running) -> None:
    reply = await calculator[1].calculate("2 + 2", digits=3)
    assert reply == {
        "calculation": {
            "expression": "2 + 2",
            "exact": "4",
            "numeric": "4",
            "verified": True,
            "check": "both sides computed to 20 digits",
            "notes": [],
        },
        "failure": None,
        "health": None,
        "run": None,
    }


@pytest.mark.unit_slow
async def test_an_error_names_its_place(calculator: Running) -> None:
    reply = await calculator[1].calculate("2 + $")
    assert (reply["failure"]["code"], reply["failure"]["position"]) == ("syntax", 4)


@for_each(
    "expression",
    {
        "an integral": "integrate(x^2*cos(x), x)",
        "a definite integral": "integrate(ln(x), x, 1, 2)",
        "a limit": "limit((exp(x) - 1)/x, x, 0)",
        "an equation": "solve(x^3 - 6*x^2 + 11*x - 6 = 0)",
        "a system": "solve([2x + y = 4, x - y = -1], [x, y])",
        "a sum": "sum(k^3, k, 1, n)",
        "a simplification": "simplify((x^3 - 1)/(x - 1))",
        "a primitive of an inverse function": "integrate(atan(x), x)",
    },
)
async def test_what_a_worker_computes_needs_nothing_that_it_may_not_do(calculator: Running, expression: str) -> None:
    reply = await calculator[1].calculate(expression)
    assert reply["failure"] is None
    assert reply["calculation"]["verified"]


@for_each(
    "payload",
    {
        "no JSON": b"{",
        "no object": b"[]",
        "no expression": b"{}",
        "an expression that is a number": b'{"expression": 1}',
        "an unknown field": b'{"expression": "1", "path": "/"}',
        "no digits": b'{"expression": "1", "digits": 0}',
        "many digits": b'{"expression": "1", "digits": 51}',
        "deep JSON": b"[" * 10_000,
        "a long number": b'{"expression": "1", "digits": ' + b"9" * 10_000 + b"}",
        "bytes that are no text": b"\xff" * 100,
    },
)
async def test_a_malformed_request_is_refused(calculator: Running, payload: bytes) -> None:
    assert (await calculator[1].ask(payload))["failure"]["code"] == "invalid_request"


async def test_a_frame_of_no_or_many_bytes_is_refused(calculator: Running) -> None:
    for length in (0, MOST_REQUEST_BYTES + 1, 2**32 - 1):
        data = await calculator[1].send(length.to_bytes(LENGTH_BYTES, "big"))
        assert json.loads(data[LENGTH_BYTES:])["failure"]["code"] == "invalid_request"


async def test_a_client_that_leaves_or_is_silent_costs_nobody_an_answer(calculator: Running) -> None:
    server, client = calculator
    writers = []
    for data in (b"", b"\x00\x00", b"\x00\x00\x00\x20{"):
        _, writer = await asyncio.open_unix_connection(client.path)
        writer.write(data)
        writers.append(writer)
    assert (await client.calculate("1 + 1"))["calculation"]["exact"] == "2"
    for writer in writers:
        writer.close()
    await eventually(lambda: not server.connections, "no connection is left")


async def test_an_idle_worker_that_dies_is_replaced(calculator: Running) -> None:
    server, client = calculator
    await eventually(lambda: len(server.pool.idle) == 2, "workers are ready")
    victims = set(server.pool.idle)
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    await eventually(lambda: len(server.pool.idle) == 2 and not victims & set(server.pool.idle), "both are replaced")
    assert (await client.calculate("5 + 5"))["calculation"]["exact"] == "10"


async def test_each_request_has_a_process_of_its_own(calculator: Running) -> None:
    server, client = calculator
    await eventually(lambda: len(server.pool.idle) == 2, "workers are ready")
    before = set(server.pool.idle)
    await asyncio.gather(client.calculate("1"), client.calculate("2"))
    await eventually(lambda: len(server.pool.idle) == 2, "workers are ready")
    assert not before & set(server.pool.idle)
    for pid in before:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_health_counts(calculator: Running) -> None:
    server, client = calculator
    await eventually(lambda: len(server.pool.idle) == 2, "workers are ready")
    health = (await client.calculate(""))["health"]
    assert (health["isReady"], health["idleWorkers"], health["running"], health["waiting"]) == (True, 2, 0, 0)
    assert health["answered"] > 0


@pytest.mark.unit_slow
async def test_hostile_expressions_end_in_an_answer_or_an_error_and_no_process_dies(tmp_path: Path) -> None:
    preload_once()
    async with running_calculator(tmp_path, size=4, limits=WorkerLimits(wall_seconds=0.3)) as (server, client):
        lane = asyncio.Semaphore(4)

        async def ask(expression: str) -> None:
            payload = json.dumps({"expression": expression or " "}).encode()
            async with lane:
                reply = await client.ask(payload)
            failure = reply["failure"]
            assert (failure is None) != (reply["calculation"] is None)
            assert failure is None or failure["code"] != "failed", (expression, failure)

        await asyncio.gather(*[ask(expression) for expression in generate_hostile(SAMPLE, seed=19)])
        await eventually(lambda: len(server.pool.idle) == 4, "all workers are ready")

        async def multiply() -> bool:
            calculation = (await client.calculate("6 * 7"))["calculation"]
            return calculation is not None and calculation["exact"] == "42"

        # On a machine that stalls, one of them may end at its time.
        await eventually(multiply, "a worker calculates")


def attack(payload: bytes) -> bytes:
    """Try from within a worker what none may do, in place of a calculation."""
    outcomes = {name: try_attack(action) for name, action in ATTACKS.items()}
    return json.dumps(outcomes).encode()


async def test_nothing_but_the_answer_leaves_a_worker(tmp_path: Path) -> None:
    preload_once()
    async with running_calculator(tmp_path, size=1, evaluate=attack) as (_, client):
        outcomes = await client.calculate("1")
    assert set(outcomes) == set(ATTACKS)
    assert {name: outcome for name, outcome in outcomes.items() if outcome == "done"} == {}


@for_each(
    "name",
    {
        name: name
        for name in ("a TCP socket", "a pair of sockets", "a file to read", "a folder", "a pipe", "memory without end")
    },
)
async def test_the_same_attack_succeeds_where_nothing_is_confined(name: str) -> None:
    assert try_attack(ATTACKS[name]) == "done"


async def test_a_call_of_the_second_kind_kills_the_worker(tmp_path: Path) -> None:
    def call_x32(payload: bytes) -> bytes:
        call_kernel(0x40000000 + 39)()
        return b"{}"

    async with running_calculator(tmp_path, size=1, evaluate=call_x32) as (server, client):
        assert (await client.calculate("1"))["failure"]["code"] == "failed"
        await eventually(lambda: len(server.pool.idle) == 1, "it is replaced")


def crash(payload: bytes) -> bytes:
    """End as a broken C library would."""
    ctypes.string_at(0)
    return payload


def spin(payload: bytes) -> bytes:
    """Compute without end."""
    while True:
        pass


def spin_if_asked(payload: bytes) -> bytes:
    """Compute without end, or answer at once."""
    return spin(payload) if b"spin" in payload else b'{"failure": null}'


@pytest.mark.unit_slow
async def test_a_calculation_that_takes_too_long_ends_and_others_go_on_meanwhile(tmp_path: Path) -> None:
    limits = WorkerLimits(cpu_seconds=60, wall_seconds=1.0)
    async with running_calculator(tmp_path, limits=limits, evaluate=spin_if_asked) as (server, client):
        slow = asyncio.create_task(client.calculate("spin"))
        await eventually(lambda: server.pool.running, "it runs")
        assert (await client.calculate("1"))["failure"] is None
        assert (await slow)["failure"]["code"] == "time_limit"
        await eventually(lambda: len(server.pool.idle) == 2, "both workers are replaced")


def flood(payload: bytes) -> bytes:
    """Answer more than a reply may have."""
    return b"x" * 1_000_000


@for_each(
    ("evaluate", "seconds", "code"),
    {
        "a crash": (crash, 60, "failed"),
        "an endless loop": (spin, 1, "time_limit"),
        "a reply that is too large": (flood, 60, "failed"),
    },
)
async def test_a_worker_that_fails_is_an_error_and_is_replaced(
    tmp_path: Path, evaluate: Callable[[bytes], bytes], seconds: int, code: str
) -> None:
    limits = WorkerLimits(cpu_seconds=seconds, wall_seconds=60.0)
    async with running_calculator(tmp_path, size=1, limits=limits, evaluate=evaluate) as (server, client):
        assert (await client.calculate("1"))["failure"]["code"] == code
        await eventually(lambda: len(server.pool.idle) == 1, "it is replaced")
        assert server.pool.killed == 1


@pytest.mark.unit_slow
async def test_requests_beyond_the_workers_wait_and_then_are_told_to_try_again(tmp_path: Path) -> None:
    async with running_calculator(tmp_path, size=1, limits=WorkerLimits(), evaluate=spin) as (_, client):
        replies = await asyncio.gather(*[client.calculate("1") for _ in range(4)])
        codes = sorted(reply["failure"]["code"] for reply in replies)
        assert "busy" in codes
        assert set(codes) == {"busy", "time_limit"}


def exhaust() -> bytes:
    """Take more memory than a worker may have."""
    return bytes(2**30)


def exhaust_and_fail_at_that() -> bytes:
    """Fail in another way while memory is short, as SymPy's own handlers may."""
    try:
        return exhaust()
    except MemoryError:
        raise KeyError from None


def exhaust_within_c() -> bytes:
    """Raise what CPython does where C code had no memory for an exception: `expand((a+b+c+d)^834)` does it."""
    raise SystemError("error return without exception set")


def fail() -> bytes:
    """Fail for a reason of its own."""
    raise KeyError


@for_each(
    ("compute", "code"),
    {
        "memory that runs out": (exhaust, "memory_limit"),
        "an error at that": (exhaust_and_fail_at_that, "memory_limit"),
        "no memory for the exception": (exhaust_within_c, "memory_limit"),
        "an error of SymPy": (fail, "failed"),
    },
)
async def test_a_calculation_that_fails_is_an_error_and_no_death(
    tmp_path: Path, compute: Callable[[], bytes], code: str
) -> None:
    async with running_calculator(tmp_path, size=1, evaluate=lambda _: guard(compute)) as (server, client):
        assert (await client.calculate("1"))["failure"]["code"] == code
        assert (server.pool.answered, server.pool.killed) == (1, 0)


async def test_a_socket_that_a_killed_predecessor_left_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(tmp_path / "calculator.sock"))
    async with running_calculator(tmp_path, size=1, evaluate=flood) as (_, client):
        assert client.path.is_socket()
    assert not client.path.exists()


@for_each("name", {"a file": "file", "a folder that is missing": "missing/calculator.sock"})
async def test_a_path_that_cannot_be_used_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SocketError, match=name):
        async with run_calculator(tmp_path / name, evaluate=flood):
            pass
