"""The process that ends a server whose engine is lost, with stand-ins for server and stub.

On the real ones: tests/engine/test_lost_engine.py.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from r1plus_edge.pods.processes import has_ended, list_children
from support.waiting import wait_until

STUB = """
import sys
from r1plus_model_repo.backends.guard import ServerGuard

guard = ServerGuard(int(sys.argv[1]))
print("guarded", flush=True)
for word in map(str.strip, sys.stdin):
    guard.release() if word == "release" else guard.end_server(RuntimeError("out of memory in a kernel"))
    print("said", flush=True)
"""


@pytest.fixture
def server() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


@pytest.fixture
def stub(server: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[str]]:
    """A process that has a guard; to a word it does what the word says."""
    command, pipe = [sys.executable, "-c", STUB, str(server.pid)], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        read_line(process)
        yield process
        process.kill()


def read_line(stub: subprocess.Popen[str]) -> str:
    assert stub.stdout is not None
    return stub.stdout.readline()


def say(stub: subprocess.Popen[str], word: str) -> None:
    assert stub.stdin is not None
    stub.stdin.write(f"{word}\n")
    stub.stdin.flush()
    assert read_line(stub) == "said\n"


def test_a_planned_end_leaves_the_server_alone(server: subprocess.Popen[bytes], stub: subprocess.Popen[str]) -> None:
    (guard,) = list_children(stub.pid)
    say(stub, "release")
    stub.kill()
    wait_until(lambda: has_ended(guard), "the guard has ended")
    assert server.poll() is None


def test_a_killed_stub_ends_the_server(server: subprocess.Popen[bytes], stub: subprocess.Popen[str]) -> None:
    stub.kill()
    assert server.wait(30) == -signal.SIGTERM


def test_an_engine_that_stops_ends_the_server(server: subprocess.Popen[bytes], stub: subprocess.Popen[str]) -> None:
    say(stub, "stop")
    assert server.wait(30) == -signal.SIGTERM


def test_an_engine_that_stops_ends_a_server_whose_guard_is_gone(
    server: subprocess.Popen[bytes], stub: subprocess.Popen[str]
) -> None:
    (guard,) = list_children(stub.pid)
    os.kill(guard, signal.SIGKILL)
    wait_until(lambda: has_ended(guard), "the guard has ended")
    say(stub, "stop")
    assert server.wait(30) == -signal.SIGTERM
