"""Processes of a test run: started in a group of their own, interrupted politely, and ended to the last one.

One interrupt may come twice: make passes SIGTERM on to a runner that gets it as a member of the group, too. So only a SIGINT
that comes some seconds later is a second one, of a person who does not want to wait for fixtures.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from support.waiting import WaitError, wait_until

INTERRUPT_SECONDS = 180.0
"""For pytest to take down its fixtures, a cluster among them."""
SAME_INTERRUPT_SECONDS = 5.0
"""Signals that come within so many seconds of the first are the same interrupt."""
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, and be interrupted when our own parent ends."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    interrupts = _Interrupts()
    # A shell starts its background jobs with SIGINT ignored, and they inherit that; nohup ignores SIGHUP, and means it.
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    for number in numbers:
        signal.signal(number, interrupts.handle)


def start(command: Sequence[str], env: Mapping[str, str], output: BinaryIO) -> subprocess.Popen[bytes]:
    """Start `command` as the leader of a group that gets SIGTERM if this process is killed."""
    return subprocess.Popen(
        ["setpriv", "--pdeathsig", "TERM", "--", *command],
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def interrupt(process: subprocess.Popen[bytes]) -> None:
    """Send SIGINT to the process's group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)


def wait(process: subprocess.Popen[bytes]) -> None:
    """Wait for the end of an interrupted process; a second interrupt, or a deadline, kills its group."""
    try:
        process.wait(INTERRUPT_SECONDS)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def end_descendants(spared: Collection[int] = ()) -> list[str]:
    """Kill every process below this one but the `spared` pids; returns their command lines, for a report."""
    ended: list[str] = []

    def left() -> list[int]:
        return [pid for pid in descendants() if pid not in spared]

    def are_gone() -> bool:
        _reap()
        for pid in left():
            ended.append(_command_line(pid))
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left()

    with contextlib.suppress(WaitError):
        wait_until(are_gone, "every process that was started has ended", 30.0)
    return list(dict.fromkeys(ended))


def poll(process: subprocess.Popen[bytes]) -> float | None:
    """Return the processor time in seconds of a process that has ended and of those that it waited for, else None."""
    pid, status, usage = os.wait4(process.pid, os.WNOHANG)
    if pid == 0:
        return None
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


def descendants(ancestor: int | None = None) -> list[int]:
    """Return the pids below `ancestor`, or this process, children before their parents; zombies are left out."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                children.setdefault(int(parent), []).append(int(entry.name))
    pids: list[int] = []
    pending = [os.getpid() if ancestor is None else ancestor]
    while pending:
        below = children.get(pending.pop(), [])
        pids += below
        pending += below
    return pids[::-1]


def _reap() -> None:
    """Collect the exit statuses of adopted processes, so that none stays a zombie."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _command_line(pid: int) -> str:
    with contextlib.suppress(OSError):
        return (
            f"{pid}: {Path(f'/proc/{pid}/cmdline').read_bytes().replace(bytes(1), b' ').decode(errors='replace')[:120]}"
        )
    return f"{pid}: ended"


class _Interrupts:
    """Raises KeyboardInterrupt at the first signal, and at a SIGINT that is not the same interrupt."""

    def __init__(self) -> None:
        self._first_at: float | None = None

    def handle(self, number: int, frame: object) -> None:
        now = time.monotonic()
        if self._first_at is None:
            self._first_at = now
            raise KeyboardInterrupt
        if number == signal.SIGINT and now - self._first_at > SAME_INTERRUPT_SECONDS:
            raise KeyboardInterrupt


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl failed")
