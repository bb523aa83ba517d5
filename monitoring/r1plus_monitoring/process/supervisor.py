"""PID 1 of the monitor container: keeps one prober alive and never exits by itself. `python -m r1plus_monitoring`.

A pod is Ready only while *every* container is. So a prober that dies or hangs must not end its container, which would
take the pod out of traffic. This process is small, uses the standard library only, and reads no input.
It restarts the prober when it ends (with backoff), or when its heartbeat stops (killed first). It reaps orphans as
PID 1 must, and ends on SIGTERM alone.

The pod's containers share one network: any process in Triton's could answer for `/verdict` while no prober listens.
So this process opens the socket, keeps it open, and passes it to each prober. Callers wait until the next one runs.
Who starts this process may do that instead.
"""

import errno
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from r1plus_contract.atomic_files import replace_text
from r1plus_monitoring.config import ENV_LISTEN_FD, read_config
from r1plus_monitoring.logs import log
from r1plus_monitoring.store.state import HEARTBEAT_FILE, RESTARTS_FILE, read_restarts
from r1plus_policies.backoff import double_delay

ANY_HOST: Final = "0.0.0.0"
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)


@dataclass(frozen=True, slots=True)
class SupervisorTimeouts:
    """All timeouts, in seconds."""

    tick: float = 1.0
    stale: float = 30.0
    """A heartbeat older than this means a hung event loop."""
    first_backoff: float = 1.0
    longest_backoff: float = 30.0
    sound: float = 60.0
    """A prober that lived this long resets the backoff."""
    farewell: float = 5.0
    """Between SIGTERM and SIGKILL at the end."""


class Heartbeat:
    """How long ago a file was last written, for a caller that looks at it often."""

    def __init__(self) -> None:
        self._written_at = 0
        self._since = 0.0

    def age(self, written_at: int, now: float) -> float:
        """Return the seconds since `written_at` last changed. Only changes count: its clock may be set."""
        if written_at != self._written_at:
            self._written_at, self._since = written_at, now
        return now - self._since


class Supervisor:
    """One child at a time."""

    def __init__(
        self,
        command: Sequence[str],
        state_dir: Path,
        patience: SupervisorTimeouts,
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
        address: tuple[str, int] | None = None,
    ) -> None:
        """`command`: the prober's argv, its first element a path. `address`: host and port that it serves."""
        self._command = list(command)
        self._environ = dict(environ)
        self._state_dir = state_dir
        self._patience = patience
        self._clock = clock
        self._address = address
        self._listener: socket.socket | None = None
        self._pid = 0
        self._started_at = 0.0
        self._next_start = 0.0
        self._heartbeat = Heartbeat()
        self._failures = 0
        self._first = True

    def run(self) -> int:
        """Supervise until SIGTERM or SIGINT; return the exit status."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        while True:
            self._ensure_child()
            signal_info = signal.sigtimedwait(SIGNALS, self._patience.tick)
            self._reap()
            if signal_info is not None and signal_info.si_signo in (signal.SIGTERM, signal.SIGINT):
                return self._shut_down()
            self._check_heartbeat()

    def _ensure_child(self) -> None:
        """Start the prober where there is none and the backoff is over."""
        if self._pid or self._clock() < self._next_start:
            return
        if not self._first:
            self._count_restart()
        self._first = False
        try:
            self._listen()
            # A child inherits the blocked signals; it must not.
            self._pid = os.posix_spawn(self._command[0], self._command, self._environ, setsigmask=[])
        except OSError as error:
            log("error", "Prober could not be started", error=self._describe_obstacle(error))
            self._schedule_restart()
            return
        self._started_at = self._clock()
        log("info", "Prober started", pid=self._pid)

    def _listen(self) -> None:
        """Open the socket that every prober serves on, if it is not open yet. OSError where the port is taken."""
        if self._address is None or self._listener is not None:
            return
        self._listener = _open_listener(*self._address)
        self._listener.set_inheritable(True)
        self._environ[ENV_LISTEN_FD] = str(self._listener.fileno())

    def _describe_obstacle(self, error: OSError) -> str:
        """Return why no prober could be started, and what to do."""
        if error.errno != errno.EADDRINUSE or self._address is None:
            return str(error)
        return (
            f"port {self._address[1]} is taken by another process of this pod; it is tried again until that is free."
            " Delete the pod; if the next one is the same, its engine's or Triton's image opens the port"
        )

    def _reap(self) -> None:
        """Collect every child that has ended: ours, and orphans that fell to PID 1."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._pid:
                log("warning", "Prober ended", pid=pid, status=os.waitstatus_to_exitcode(status))
                self._pid = 0
                self._schedule_restart()

    def _schedule_restart(self) -> None:
        """Set when the next one starts."""
        lifetime = self._clock() - self._started_at if self._started_at else 0.0
        self._failures = 1 if lifetime >= self._patience.sound else self._failures + 1
        self._next_start = self._clock() + double_delay(
            self._failures, self._patience.first_backoff, self._patience.longest_backoff
        )

    def _check_heartbeat(self) -> None:
        """Kill a prober whose event loop hangs; `_reap` collects it."""
        try:
            written_at = (self._state_dir / HEARTBEAT_FILE).stat().st_mtime_ns
        except FileNotFoundError:
            written_at = 0
        now = self._clock()
        age = min(self._heartbeat.age(written_at, now), now - self._started_at)
        if self._pid and age > self._patience.stale:
            log("error", "Prober hung, killed it", pid=self._pid, heartbeat_age=round(age, 1))
            # Not waited for: until `_reap` has collected it, its pid belongs to nobody else.
            os.kill(self._pid, signal.SIGKILL)

    def _count_restart(self) -> None:
        """Count a restart for the prober's report and metric. A full disk must not stop a restart."""
        path = self._state_dir / RESTARTS_FILE
        try:
            replace_text(path, f"{read_restarts(self._state_dir) + 1}\n")
        except OSError as error:
            log("warning", "Restart could not be counted", error=str(error))

    def _shut_down(self) -> int:
        """Pass the signal on, wait a little, leave no child."""
        if self._pid:
            os.kill(self._pid, signal.SIGTERM)
            deadline = self._clock() + self._patience.farewell
            while self._pid and self._clock() < deadline:
                signal.sigtimedwait((signal.SIGCHLD,), max(0.0, min(0.2, deadline - self._clock())))
                self._reap()
            if self._pid:
                os.kill(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)
        log("info", "Supervisor ended")
        return 0


def _open_listener(host: str, port: int) -> socket.socket:
    """Return a socket that listens there; where `host` is any address, for IPv6 as well. OSError where it is taken.

    Another process could take the port of the other protocol, and answer where the pod's address is of that.
    """
    if host == ANY_HOST and socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):  # IPv6 is switched off here.
                raise
    return socket.create_server((host, port))


def main() -> None:
    """Entry point: all flags are the prober's, passed on as they are."""
    config = read_config(sys.argv[1:])
    command = [sys.executable, "-m", "r1plus_monitoring.process.prober", *sys.argv[1:]]
    # On one machine `serve` keeps the socket open, and the prober gets that.
    address = (config.host, config.port) if config.listen_fd is None else None
    sys.exit(Supervisor(command, config.state_dir, SupervisorTimeouts(), address=address).run())
