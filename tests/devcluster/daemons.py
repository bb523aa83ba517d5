"""Starts, watches and stops the cluster's processes by recorded pid.

A record holds the pid and the process's start time, so that a pid which the kernel has since given to somebody else
is never signalled. Records outlive this program: `down` finds what an earlier, killed run left.
"""

import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from devcluster.host import daemon_cgroup
from devcluster.layout import Layout
from r1plus_edge.pods.processes import find_start
from support.waiting import WaitError, wait_until

TERM_GRACE_S = 5.0
KILL_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Daemon:
    """A long-running program: its name is that of its log and of its pid record."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    on_host: bool = False
    """Whether it stays in the host's network namespace: only the forwarder does."""
    sockets: tuple[int, ...] = ()
    """File descriptors of listening sockets that it inherits."""


def start(daemon: Daemon, layout: Layout, *, die_with_parent: bool = False) -> int:
    """Start `daemon` in the cluster's network namespace and record it; returns the pid.

    `die_with_parent` is for tests: the kernel kills the daemon when the thread that started it ends, however it ends.
    """
    layout.logs.mkdir(parents=True, exist_ok=True)
    layout.pids.mkdir(parents=True, exist_ok=True)
    command = [*_prepared(layout, die_with_parent), *([] if daemon.on_host else in_namespace(layout)), *daemon.command]
    with log_path(daemon.name, layout).open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | dict(daemon.env),
            cwd="/",
            start_new_session=True,
            pass_fds=daemon.sockets,
        )
    record = layout.pids / daemon.name
    record.write_text(f"{process.pid} {start_time(process.pid)}\n")
    process.returncode = 0  # It outlives this object on purpose; without this, Python warns that it still runs.
    return process.pid


def in_namespace(layout: Layout) -> list[str]:
    """Words before a command that put it into the cluster's network namespace.

    Not `ip netns exec`: that remounts /sys, and a kubelet started so finds no cgroup mounts.
    """
    return [] if layout.netns is None else ["nsenter", f"--net=/run/netns/{layout.netns}", "--"]


def log_path(name: str, layout: Layout) -> Path:
    """Where `name` writes what it has to say."""
    return layout.logs / f"{name}.log"


def alive(name: str, layout: Layout) -> bool:
    """Whether the recorded process still runs and still is the one that was recorded."""
    recorded = _recorded(layout.pids / name)
    return recorded is not None and start_time(recorded[0]) == recorded[1]


def pid(name: str, layout: Layout) -> int:
    """The pid of a recorded daemon; an error where there is none."""
    recorded = _recorded(layout.pids / name)
    if recorded is None:
        raise RuntimeError(f"{name} has not been started")
    return recorded[0]


def recorded_names(layout: Layout) -> list[str]:
    """Names of everything recorded, the last started first: the order to stop in."""
    if not layout.pids.is_dir():
        return []
    records = sorted(layout.pids.iterdir(), key=lambda record: record.stat().st_mtime_ns, reverse=True)
    return [record.name for record in records]


def stop(name: str, layout: Layout, grace_s: float = TERM_GRACE_S) -> None:
    """End the recorded process, kindly first, and forget it. Nothing happens when it has already gone."""
    record = layout.pids / name
    recorded = _recorded(record)
    if recorded is not None:
        kill_and_wait(recorded[0], recorded[1], grace_s)
    record.unlink(missing_ok=True)


def kill_and_wait(pid: int, started: str, grace_s: float) -> None:
    """SIGTERM, then SIGKILL after `grace_s`, then wait until the process is gone."""

    def is_gone() -> bool:
        return start_time(pid) != started

    for number, patience in ((signal.SIGTERM, grace_s), (signal.SIGKILL, KILL_SECONDS)):
        if is_gone():
            return
        _signal(pid, number)
        with suppress(WaitError):
            wait_until(is_gone, f"{pid} is gone", patience, period_s=0.02)


def wait_ready(name: str, layout: Layout, ready: Callable[[], bool], timeout_s: float) -> None:
    """Wait until `ready()`; raise at once, with the log's last lines, when the process has died."""

    def last_words() -> str:
        return _tail(log_path(name, layout))

    def is_ready() -> bool:
        if ready():
            return True
        if not alive(name, layout):
            raise RuntimeError(f"{name} ended while starting: {last_words()}")
        return False

    wait_until(is_ready, f"{name} is ready", timeout_s, evidence=last_words)


def start_time(pid: int) -> str | None:
    """When the process started, in ticks since boot; with the pid this names it for good. None when it has ended."""
    _reap(pid)
    return find_start(pid)


def _reap(pid: int) -> None:
    """Collect `pid` if it is a dead child of ours: a zombie would look alive."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def _recorded(record: Path) -> tuple[int, str] | None:
    try:
        pid, started = record.read_text().split()
    except (FileNotFoundError, ValueError):
        return None
    return int(pid), started


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _tail(log: Path, lines: int = 4) -> str:
    if not log.is_file():
        return f"no log at {log}"
    return " / ".join(log.read_text(errors="replace").splitlines()[-lines:]) + f" (log: {log})"


def _prepared(layout: Layout, die_with_parent: bool) -> list[str]:
    """Words before a daemon's command: join the cluster's cgroup, where no descendant is lost; die with the parent."""
    dying = ["setpriv", "--pdeathsig", "KILL", "--"] if die_with_parent else []
    if layout.netns is None:
        return dying
    return ["sh", "-c", 'echo 0 > "$0" && exec "$@"', str(daemon_cgroup() / "cgroup.procs"), *dying]
