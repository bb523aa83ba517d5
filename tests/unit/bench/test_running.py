"""Long benches say how far they are; SIGTERM ends them with what they started; what gets no answer is counted and named."""

import asyncio
import importlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import bench.running
from bench.math.__main__ import time_answers
from bench.running import SIGTERM_STATUS, Progress
from r1plus_contract.calculator import MOST_REQUEST_BYTES
from r1plus_contract.frames import pack
from support.calculator.running import CalculatorClient

PROGRAM = """
import asyncio, contextlib, subprocess, sys
from bench.running import exit_at_sigterm

async def run():
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(subprocess.Popen(["sleep", "1000"], start_new_session=True))
        stack.callback(server.terminate)
        print(server.pid, flush=True)
        await asyncio.sleep(1000)

exit_at_sigterm()
asyncio.run(run())
"""


def test_progress_says_how_many_of_how_many_elapsed_left_and_what_timed_out() -> None:
    lines: list[str] = []
    moments = iter([0.0, 4.0, 10.0, 12.0, 20.0])
    progress = Progress("hostile", 4, lines.append, lambda: next(moments))
    for expression in ("", "9^9", "", ""):
        progress.add(expression)
    assert lines == [
        "hostile: no answer in time to '9^9'",
        "hostile: 2 of 4, 10 s, about 10 s left, 1 timed out",
        "hostile: 4 of 4, 20 s, about 0 s left, 1 timed out",
    ]
    assert progress.timed_out == ["9^9"]


def test_sigterm_ends_a_bench_with_the_servers_that_it_has_started() -> None:
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2], text=True) as program:
        assert program.stdout is not None
        server = int(program.stdout.readline())
        assert Path(f"/proc/{server}").exists()
        program.send_signal(signal.SIGTERM)
        assert program.wait(60) == SIGTERM_STATUS
    assert not Path(f"/proc/{server}").exists()


def list_benches() -> list[str]:
    return sorted(file.parent.name for file in Path(bench.running.__file__).parent.glob("*/__main__.py"))


@pytest.mark.parametrize("name", list_benches())
def test_every_bench_ends_by_sigterm_what_it_has_started(name: str) -> None:
    main = importlib.import_module(f"bench.{name}.__main__").main
    assert "exit_at_sigterm" in main.__code__.co_names


@pytest.mark.unit_slow
async def test_an_expression_that_failed_or_had_no_answer_in_time_is_counted_and_named(tmp_path: Path) -> None:
    """A calculator that is silent for one expression: the real one ends it in time."""

    has_left = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.read(1000)
        if b"2+2" in request:
            await reader.read()
        else:
            failure = b'{"code": "failed"}' if b"3+3" in request else b"null"
            writer.write(pack(b'{"calculation": {}, "failure": ' + failure + b"}"))
            await writer.drain()
        writer.close()
        if b"2+2" in request:
            await writer.wait_closed()
            has_left.set()

    async with await asyncio.start_unix_server(serve, tmp_path / "c.sock"):
        lines: list[str] = []
        progress = Progress("hostile", 4, lines.append)
        client = CalculatorClient(tmp_path / "c.sock", 5.0)
        seconds, ends = await time_answers(client, ["1+1", "2+2", "9" * MOST_REQUEST_BYTES, "3+3"], progress)
        async with asyncio.timeout(60):
            await has_left.wait()
    assert ends == {"answer": 1, "timed_out": 1, "not_sent": 1, "failed": 1}
    assert "hostile: failed at '3+3'" in lines
    assert len(seconds) == 3
    assert progress.timed_out == ["2+2"]
