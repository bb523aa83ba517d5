"""Python code in the calculator: what it gives, hostile programs, and what the interpreter's process may not do."""

import asyncio
import fcntl
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from r1plus_assistant.calculation.client import SocketCalculator
from r1plus_calculator.server.code_runs import CodeRunner, InterpreterError, _build_reply, _Ending
from r1plus_calculator.server.server import CalculatorServer
from r1plus_contract.calculator import LENGTH_BYTES, MOST_OUTPUT_BYTES, MOST_REQUEST_BYTES, FailureCode
from r1plus_sandbox.programs import ProgramLimits, confine_program
from support.calculator.attacks import ATTACKS, try_attack
from support.calculator.running import INTERPRETER, CalculatorClient, build_code_runner, running_calculator
from support.tables import for_each
from support.waiting import DEADLINE_SECONDS, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")
Running = tuple[CalculatorServer, CalculatorClient]
SHORT = ProgramLimits(cpu_seconds=60, wall_seconds=10.0)


def answer_at_once(payload: bytes) -> bytes:
    """Answer an expression without SymPy."""
    return b'{"failure": null}'


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def calculator(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    folder = tmp_path_factory.mktemp("code")
    async with running_calculator(folder, evaluate=answer_at_once, code_runner=build_code_runner()) as running:
        yield running


@for_each(
    ("code", "output", "value"),
    {
        "a value": ("6 * 7", "", "42"),
        "prints": ("for i in range(3):\n    print(i)", "0\n1\n2\n", "None"),
        "text beyond ASCII": ("print('Å😀')\n'ß'", "Å😀\n", "ß"),
        "a function": ("def double(x):\n    return 2 * x\nprint(double(4))\ndouble('ab')", "8\n", "abab"),
        "modules of the interpreter": ("import math, json, re\njson.dumps([math.floor(2.5)])", "", "[2]"),
        "what looks like a summary": (
            "print('1.5ms ❯ error: no')\n'1.5ms ❯ error: no'",
            "1.5ms ❯ error: no\n",
            "1.5ms ❯ error: no",
        ),
        "both streams": ("import sys\nprint('err', end='', file=sys.stderr)\nprint('out')", "out\nerr", "None"),
        "an exception that is caught": (
            "try:\n    1 / 0\nexcept ZeroDivisionError:\n    print('zero')",
            "zero\n",
            "None",
        ),
        "a short sleep": ("import time\ntime.sleep(0.01)\n1", "", "1"),
    },
)
async def test_code_is_run(calculator: Running, code: str, output: str, value: str) -> None:
    reply = await calculator[1].run(code)
    assert reply["run"] == {"output": output, "value": value, "error": None}


@for_each(
    "code",
    {
        "printed": "print('x' * {}, end='')",
        "printed as an error": "import sys\nprint('x' * {}, end='', file=sys.stderr)",
        "a value": "'x' * {}",
    },
)
async def test_a_gateway_takes_what_is_as_long_as_it_may_be_and_more_is_beyond_the_limit(
    calculator: Running, code: str
) -> None:
    """The summary is read besides, so a few bytes more come from the interpreter whole."""
    gateway = SocketCalculator(str(calculator[1].path), DEADLINE_SECONDS, runs_code=True)
    reply = await gateway.run_code(code.format(MOST_OUTPUT_BYTES))
    assert reply.run is not None and "x" * MOST_OUTPUT_BYTES in (reply.run.output, reply.run.value)
    for more in (1, 20):
        reply = await gateway.run_code(code.format(MOST_OUTPUT_BYTES + more))
        assert reply.failure is not None and reply.failure.code is FailureCode.LIMIT


async def test_digits_that_are_printed_before_the_time_are_told_from_it(calculator: Running) -> None:
    code = "import sys\nprint('7' * 4000, file=sys.stderr)\nprint('8' * 20, end='', file=sys.stderr)\n9"
    run = (await calculator[1].run(code))["run"]
    assert run["output"].startswith("7" * 4000 + "\n" + "8" * 17)
    assert run["value"] == "9"


async def test_many_digits_that_are_printed_take_no_time_from_others() -> None:
    """Read more than a program may print, so that any machine shows whether each digit is tried with all after it."""
    summary, begun = "1" * 60_000 + "\n1.25ms ❯ 9", time.process_time()
    reply = _build_reply(_Ending("", summary, 0))
    assert time.process_time() - begun < 5
    assert json.loads(reply)["failure"]["code"] == "limit"


async def test_the_traceback_of_an_error_comes_after_what_was_printed(calculator: Running) -> None:
    run = (await calculator[1].run("print('before')\nint('x')"))["run"]
    assert (run["output"], run["value"]) == ("before\n", None)
    assert run["error"].startswith('Traceback (most recent call last):\n  File "main.py", line 2, in <module>')
    assert run["error"].endswith("ValueError: invalid literal for int() with base 10: 'x'")


@for_each(
    ("code", "error"),
    {
        "syntax": ("def f(", "SyntaxError"),
        "deep recursion": ("def f():\n    return f()\nf()", "RecursionError"),
        "a file to read": ("open('/etc/passwd').read()", "NotImplementedError"),
        "a file to write": (
            "from pathlib import Path\nPath('/tmp/code-attack').write_text('x')",
            "NotImplementedError",
        ),
        "the environment": ("import os\nos.environ['PATH']", "NotImplementedError"),
        "a command": ("import os\nos.system('id')", "AttributeError"),
        "a socket": ("import socket", "ModuleNotFoundError"),
        "an address": ("import urllib.request", "ModuleNotFoundError"),
        "a process": ("import subprocess", "ModuleNotFoundError"),
        "a foreign function": ("import ctypes", "ModuleNotFoundError"),
        "an import by its function": ("__import__('os')", "NameError"),
        "a way through classes": ("().__class__.__bases__[0].__subclasses__()", "AttributeError"),
        "a way through globals": ("(lambda: 0).__globals__", "AttributeError"),
        "builtins": ("__builtins__", "NameError"),
    },
)
async def test_what_code_may_not_do_is_an_error_of_the_code(calculator: Running, code: str, error: str) -> None:
    run = (await calculator[1].run(code))["run"]
    assert error in run["error"].splitlines()[-1]


@for_each(
    ("code", "failure"),
    {
        "one value without end": ("'x' * 10**9", "memory_limit"),
        "values without end": ("kept = []\nwhile True:\n    kept.append('x' * 1000)", "memory_limit"),
        "a number without end": ("2 ** 10**10", "memory_limit"),
        "memory that it wants to hide": ("try:\n    'x' * 10**9\nexcept MemoryError:\n    print('on')", "memory_limit"),
        "output without end": ("while True:\n    print('x' * 100)", "limit"),
        "one long line": (f"print('x' * {MOST_OUTPUT_BYTES * 2})", "limit"),
        "a long value": (f"'x' * {MOST_OUTPUT_BYTES * 2}", "limit"),
        "a long error": (f"raise ValueError('x' * {MOST_OUTPUT_BYTES * 2})", "limit"),
    },
)
async def test_code_that_takes_too_much_is_ended_and_nothing_else_is(
    calculator: Running, code: str, failure: str
) -> None:
    server, client = calculator
    before = set(server.pool.idle)
    reply = await client.run(code)
    assert (reply["failure"] or reply)["code"] == failure
    assert set(server.pool.idle) == before
    assert (await client.run("1 + 1"))["run"]["value"] == "2"


@for_each(
    "code",
    {
        "brackets": "(" * 5000 + ")" * 5000,
        "signs": "-" * 7000 + "1",
        "attributes": "x" + ".x" * 5000,
        "lists": "x = []\n" + "x = [x]\n" * 1500 + "repr(x)",
        "blocks": "".join(" " * depth + "if 1:\n" for depth in range(120)) + " " * 120 + "1",
    },
)
async def test_code_that_nests_deep_ends_in_an_answer(calculator: Running, code: str) -> None:
    server, client = calculator
    before = set(server.pool.idle)
    reply = await client.run(code)
    assert (reply["failure"] is None) != (reply["run"] is None)
    assert set(server.pool.idle) == before


@for_each(
    ("payload", "message"),
    {
        "no code": (b'{"code":""}', "code: it is empty"),
        "blanks": (b'{"code":" \\n"}', "code: it is empty"),
        "a NUL": (b'{"code":"1\\u0000"}', "character 1 is NUL"),
        "half of a pair": (b'{"code":"\\ud800"}', "code"),
        "bytes that are no UTF-8": (b'{"code":"\xff\xfe"}', "not JSON"),
        "a number": (b'{"code":1}', "code"),
        "an unknown field": (b'{"code":"1","path":"/"}', "path"),
        "deep JSON": (b'{"code":' + b"[" * 10_000, "not JSON"),
    },
)
async def test_a_malformed_request_is_refused(calculator: Running, payload: bytes, message: str) -> None:
    failure = (await calculator[1].ask(payload))["failure"]
    assert failure["code"] == "invalid_request"
    assert message in failure["message"]


async def test_a_mebibyte_of_code_is_refused_by_its_length(calculator: Running) -> None:
    data = await calculator[1].send((2**20).to_bytes(LENGTH_BYTES, "big") + b'{"code":"')
    failure = json.loads(data[LENGTH_BYTES:])["failure"]
    assert failure["code"] == "invalid_request"
    assert str(MOST_REQUEST_BYTES) in failure["message"]


async def test_no_code_is_run_where_no_interpreter_is_named(tmp_path: Path) -> None:
    async with running_calculator(tmp_path, size=1, evaluate=answer_at_once) as (_, client):
        failure = (await client.run("1"))["failure"]
    assert failure["code"] == "invalid_request"
    assert "R1PLUS_CALCULATOR_INTERPRETER" in failure["message"]


@for_each(
    "name", {"a relative path": "monty", "nothing": "/none/monty", "a folder": "/tmp", "no program": "/etc/passwd"}
)
async def test_an_interpreter_that_is_no_program_is_named(name: str) -> None:
    with pytest.raises(InterpreterError, match=rf"R1PLUS_CALCULATOR_INTERPRETER: '{name}' is no program"):
        CodeRunner(Path(name))


async def test_an_interpreter_that_fails_is_an_error(tmp_path: Path) -> None:
    program = Path("/usr/bin/sleep")
    async with running_calculator(tmp_path, size=1, evaluate=answer_at_once, code_runner=CodeRunner(program)) as (
        _,
        client,
    ):
        assert (await client.run("1"))["failure"]["code"] == "failed"


@pytest.mark.unit_slow
@for_each("code", {"a loop": "while True:\n    pass", "a sleep": "import time\ntime.sleep(60)"})
async def test_code_without_end_is_ended_and_others_go_on_meanwhile(tmp_path: Path, code: str) -> None:
    runner = build_code_runner(SHORT)
    async with running_calculator(tmp_path, evaluate=answer_at_once, code_runner=runner) as (server, client):
        before = read_children()
        slow = asyncio.create_task(client.run(code))
        await eventually(lambda: len(read_children()) == len(before) + 1, "it runs")
        assert (await client.calculate("1"))["failure"] is None
        assert (await client.run("6 * 7"))["run"]["value"] == "42"
        assert not slow.done()
        assert (await slow)["failure"]["code"] == "time_limit"
        await eventually(lambda: len(server.pool.idle) == 2, "the worker of the expression is replaced")
        assert len(read_children()) == len(before)


async def test_a_client_that_leaves_ends_the_interpreter_and_frees_its_place(tmp_path: Path) -> None:
    async with running_calculator(tmp_path, evaluate=answer_at_once, code_runner=build_code_runner()) as (_, client):
        before = read_children()
        for _ in range(3):  # more than run at once
            running = asyncio.create_task(client.run("while True:\n    pass"))
            await eventually(lambda: len(read_children()) == len(before) + 1, "it runs")
            running.cancel()
            # It may run for a minute, so it ends by the client's leaving alone.
            await eventually(lambda: len(read_children()) == len(before), "it has ended", seconds=30)
        assert (await client.run("6 * 7"))["run"]["value"] == "42"


@pytest.mark.unit_slow
async def test_the_interpreter_gets_no_environment_two_pipes_and_code_that_it_cannot_change(tmp_path: Path) -> None:
    runner = build_code_runner(ProgramLimits(cpu_seconds=2, wall_seconds=60.0))
    async with running_calculator(tmp_path, size=1, evaluate=answer_at_once, code_runner=runner) as (_, client):
        before = read_children()
        running = asyncio.create_task(client.run("while True:\n    pass"))
        await eventually(lambda: len(read_children()) > len(before), "it runs")
        (pid,) = read_children() - before
        process = Path(f"/proc/{pid}")
        await eventually(lambda: count_ticks(process) > LOADED_TICKS, "it has loaded itself and runs the code")
        descriptors = {path.name: str(path.readlink()) for path in (process / "fd").iterdir()}
        with (process / "fd" / "3").open("rb") as source:
            seals = fcntl.fcntl(source, fcntl.F_GET_SEALS)
        environment = (process / "environ").read_bytes()
        await running
    assert environment == b""
    assert (set(descriptors), descriptors["0"]) == ({"0", "1", "2", "3"}, "/dev/null")
    assert descriptors["1"].startswith("pipe:") and descriptors["2"].startswith("pipe:")
    assert seals & fcntl.F_SEAL_WRITE


async def test_memory_that_the_kernel_refuses_is_the_same_error(tmp_path: Path) -> None:
    limits = ProgramLimits(60, memory_bytes=96 * 2**20, wall_seconds=60.0)
    runner = build_code_runner(limits)
    async with running_calculator(tmp_path, size=1, evaluate=answer_at_once, code_runner=runner) as (_, client):
        assert (await client.run("1"))["run"]["value"] == "1"
        assert (await client.run("len('x' * 100_000_000)"))["failure"]["code"] == "memory_limit"


@pytest.mark.unit_slow
async def test_processor_time_is_limited_too(tmp_path: Path) -> None:
    limits = ProgramLimits(cpu_seconds=1, wall_seconds=60.0)
    runner = build_code_runner(limits)
    async with running_calculator(tmp_path, size=1, evaluate=answer_at_once, code_runner=runner) as (_, client):
        assert (await client.run("while True:\n    pass"))["failure"]["code"] == "time_limit"


@pytest.mark.unit_slow
async def test_code_beyond_the_places_waits_and_then_is_told_to_try_again(tmp_path: Path) -> None:
    runner = CodeRunner(INTERPRETER, ProgramLimits(), answer_seconds=2.5)
    codes: list[str] = []
    async with running_calculator(tmp_path, size=1, evaluate=answer_at_once, code_runner=runner) as (_, client):

        async def run_until_busy() -> None:
            while "busy" not in codes:
                codes.append((await client.run("while True:\n    pass"))["failure"]["code"])

        async with asyncio.timeout(DEADLINE_SECONDS):
            await asyncio.gather(*[run_until_busy() for _ in range(4)])
    assert set(codes) == {"busy", "time_limit"}


def read_children() -> set[int]:
    """Return the processes that this one has started and that have not ended."""
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


LOADED_TICKS: Final = 50
"""Hundredths of a second of processor time; loading takes one."""


def count_ticks(process: Path) -> int:
    """Return the processor time that a process has used."""
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def count_address_space() -> int:
    """Return how many bytes of address space this process has."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def run_in_child(action: Callable[[], Any]) -> bytes:
    """Run something in a process of its own; return what it returns, as JSON."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.dup2(writing, 3)
            os.closerange(4, 4096)  # a program has few, and may have few
            os.write(3, json.dumps(action()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    os.waitpid(pid, 0)
    return data


PERMITTED = {"a status of a file"}
"""Without opening it."""


async def test_nothing_is_left_to_a_program_but_to_load_itself_and_to_compute() -> None:
    def attack() -> dict[str, str]:
        confine_program(INTERPRETER, ProgramLimits(memory_bytes=count_address_space() + 2**28))
        return {name: try_attack(action) for name, action in ATTACKS.items()}

    outcomes = json.loads(run_in_child(attack))
    assert set(outcomes) == set(ATTACKS)
    assert {name for name, outcome in outcomes.items() if outcome == "done"} <= PERMITTED
