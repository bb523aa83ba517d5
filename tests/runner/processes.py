"""Processes of a test run: started in a group of their own, interrupted politely, and ended to the last one."""

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from support.waiting import WaitError, wait_until

INTERRUPT_SECONDS = 180.0
"""For pytest to take down its fixtures, a cluster among them."""
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, and be interrupted when our own parent ends."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _raise_interrupt)
    # A shell starts its background jobs with SIGINT ignored, and they inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
    """Send SIGINT to the group and wait for its end; a second interrupt, or a deadline, kills it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(INTERRUPT_SECONDS)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def end_descendants() -> list[str]:
    """Kill every process below this one; returns their command lines, for the report of what was left."""
    ended: list[str] = []

    def are_gone() -> bool:
        _reap()
        for pid in _descendants(os.getpid()):
            ended.append(_command_line(pid))
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not _descendants(os.getpid())

    with contextlib.suppress(WaitError):
        wait_until(are_gone, "every process that was started has ended", 30.0)
    return list(dict.fromkeys(ended))


def _descendants(root: int) -> list[int]:
    """Return the pids below `root`, children before their parents; zombies are left out."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                children.setdefault(int(parent), []).append(int(entry.name))
    found: list[int] = []
    pending = [root]
    while pending:
        below = children.get(pending.pop(), [])
        found += below
        pending += below
    return found[::-1]


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


def _raise_interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl failed")
