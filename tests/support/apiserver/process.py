"""A process of ours under test: started, watched through its port, and ended."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp

from support.ports import free_port
from support.waiting import DEADLINE_SECONDS

DIES_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")
"""Words before a command: the kernel kills it when the test's process ends, however that ends."""


class PythonProcess:
    """`python -m MODULE`, which answers on a port of loopback; a subclass says with which settings."""

    def __init__(self, log: Path, *module: str) -> None:
        self.port = free_port()
        self._log = log
        self._log_begins = 0
        self._command = [*DIES_WITH_PARENT, sys.executable, "-m", *module]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """With bytecode kept: else each start compiles all that it imports."""
        return {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def run_with(self, *words: str) -> None:
        """Start it by a command from now on, such as `prlimit`."""
        self._command = [*words, *self._command]

    def begin_test(self) -> None:
        """Start it if it does not run, and let its log begin here."""
        self._log_begins = self._log.stat().st_size if self._log.exists() else 0
        if self._process is None or self._process.poll() is not None:
            self.start()

    def start(self) -> None:
        """Start it."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, env=self.environment, stdout=log, stderr=log)

    @property
    def _running(self) -> "subprocess.Popen[bytes]":
        assert self._process is not None, "it was not started"
        return self._process

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        return self._running.pid

    @property
    def returncode(self) -> int | None:
        """Its exit status; None while it runs."""
        return self._running.poll()

    def signal(self, number: int) -> None:
        """Send a signal and go on."""
        self._running.send_signal(number)

    def stop(self) -> int:
        """Send SIGTERM and return its exit status."""
        self.signal(signal.SIGTERM)
        return self._running.wait(DEADLINE_SECONDS)

    def kill(self) -> None:
        """Send SIGKILL, if it was started."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(DEADLINE_SECONDS)

    def restart(self) -> None:
        """Kill it and start it again."""
        self.kill()
        self.start()

    @property
    def log(self) -> str:
        """What it printed since the test began."""
        return self._log.read_bytes()[self._log_begins :].decode(errors="replace")

    async def ready(self) -> bool:
        """Return whether it says that it is ready."""
        return (await self._ask("readyz"))[0] == 200

    async def _ask(self, path: str) -> tuple[int, str]:
        limit = aiohttp.ClientTimeout(total=DEADLINE_SECONDS / 10)
        try:
            async with aiohttp.request("GET", f"{self.url}/{path}", timeout=limit) as answer:
                return answer.status, await answer.text()
        except (aiohttp.ClientError, TimeoutError):
            return 0, ""
