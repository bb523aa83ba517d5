"""Moments in which all processes of a part stand still, as a virtual machine does: a test that depends on time shows it."""

import contextlib
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from runner.processes import descendants

_SECONDS = (0.05, 0.4)
_SECONDS_BETWEEN = (0.3, 1.0)


@contextlib.contextmanager
def stall_processes(seed: int) -> Iterator[None]:
    """Stall what runs below this process again and again during the block, at moments that `seed` draws; 0 is never.

    A process of its own does it, so that what it has stopped continues even if this one is killed.
    """
    if not seed:
        yield
        return
    command = [sys.executable, "-m", "runner.stalls", str(os.getpid()), str(seed)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
    finally:
        process.communicate()  # Its standard input closes. A kill would leave stopped what it has just stopped.


def main(ancestor: int, seed: int) -> None:
    """Stall all below `ancestor` but this process until standard input closes."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    chance = random.Random(seed)
    while not select.select([sys.stdin], [], [], chance.uniform(*_SECONDS_BETWEEN))[0]:
        with stop_descendants(ancestor):
            time.sleep(chance.uniform(*_SECONDS))


@contextlib.contextmanager
def stop_descendants(ancestor: int) -> Iterator[None]:
    """Stop every process below `ancestor` during the block but this one and those that were stopped already.

    Parents stop first and continue last, so that none of them stops or continues a child in between.
    """
    stopped = [os.getpid()]
    try:
        while pids := [pid for pid in reversed(descendants(ancestor)) if pid not in stopped and not _is_stopped(pid)]:
            for pid in pids:
                if not _is_stopped(pid):
                    stopped.append(pid)
                    _send(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in reversed(stopped[1:]):
            _send(pid, signal.SIGCONT)


def _is_stopped(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    return False


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
