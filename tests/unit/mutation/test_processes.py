"""How a process that waits for ever is told from one that works, or that waits for the processor."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from mutation.processes import IdleCount, find_family
from support.waiting import wait_until

ASLEEP = "print(flush=True); import sys; sys.stdin.read()"
BUSY = "print(flush=True)\nwhile True: pass"
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"


@pytest.fixture
def start() -> Iterator[object]:
    """A function that starts a Python program, and returns once that has printed a line."""
    started: list[subprocess.Popen[bytes]] = []

    def start_program(*words: str) -> int:
        pipe = subprocess.PIPE
        process = subprocess.Popen([sys.executable, "-c", *words], stdin=pipe, stdout=pipe)
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process.pid

    yield start_program
    for process in started:
        for pid in find_family(process.pid)[::-1]:
            subprocess.run(["kill", "-9", str(pid)], check=False, stderr=subprocess.DEVNULL)
        process.communicate()


def test_a_process_that_waits_is_counted_at_each_look(start) -> None:  # type: ignore[no-untyped-def]
    idle = IdleCount(start(ASLEEP))

    def has_slept() -> bool:
        idle.look()
        return idle.count >= 3

    wait_until(has_slept, "three looks in a row find it asleep", period_s=0.001)


@pytest.mark.parametrize("words", [[BUSY], [PARENT, BUSY]], ids=["itself", "its child"])
def test_a_process_that_computes_is_never_counted(start, words: list[str]) -> None:  # type: ignore[no-untyped-def]
    idle = IdleCount(start(*words))
    for _ in range(20):
        idle.look()
        assert idle.count == 0
