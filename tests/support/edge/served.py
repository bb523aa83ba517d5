"""`r1plus serve` as a process under test: what it prints, what it says of itself, and what of it still runs."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from devcluster.cache import cache_dir
from r1plus_edge.data_folder import DataFolder, find_holder
from r1plus_edge.processes import find_processes
from r1plus_edge.report import ServePhase, ServeStatus, read_status
from support.waiting import wait_until

COMMAND = Path(sys.prefix) / "bin" / "r1plus"
START_SECONDS = 1200.0
"""A gate of a few items takes half a minute of a quiet machine."""
DEPLOYMENT = """
apiVersion: r1plus.ai/v1alpha1
kind: R1PlusDeployment
metadata: {name: edge, namespace: team-shop}
spec:
  tier: edge
  batching: {maxBatchSize: 4}
  context: {maxTokens: 512}
  accuracy: {probesPerMinute: 60}
"""


class Served:
    """One data folder, and the `serve` that has it."""

    def __init__(self, root: Path, suite: Path, deployment: str = DEPLOYMENT) -> None:
        self.folder = DataFolder(root / "data")
        self._output = root / "output.txt"
        self._file = root / "edge.yaml"
        self._file.write_text(deployment)
        self._suite = suite
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        """Start it; it listens on any free port."""
        given = ["-f", str(self._file), "--suite", str(self._suite), "--data", str(self.folder.root)]
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [str(COMMAND), "serve", *given, "--listen", "127.0.0.1:0", *options],
                env={**os.environ, "R1PLUS_CACHE": str(cache_dir())},
                stdout=output,
                stderr=output,
            )

    @property
    def output(self) -> str:
        """What it has printed."""
        return self._output.read_text(errors="replace")

    @property
    def status(self) -> ServeStatus:
        """What it says of itself."""
        status = read_status(self.folder.status)
        assert status is not None
        return status

    @property
    def pid(self) -> int:
        """Of `serve` itself."""
        assert self._process is not None
        return self._process.pid

    @property
    def evidence(self) -> str:
        """What it has printed, and the ends of its logs."""
        logs = "\n".join(f"{log.name}: {log.read_text(errors='replace')[-1500:]}" for log in self.folder.logs.iterdir())
        return f"{self.output}\n{logs}"

    def until(self, phase: ServePhase) -> None:
        """Wait for a phase; fail at once where it has ended."""

        def look() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, self.evidence
            status = read_status(self.folder.status)
            return status is not None and status.pid == self.pid and status.phase is phase

        wait_until(look, f"it is {phase.value}", START_SECONDS, evidence=lambda: self.evidence)

    def until_announced(self) -> None:
        """Wait until it has printed how to call it."""
        self.until(ServePhase.SERVING)
        wait_until(
            lambda: "from openai import" in self.output, "it prints how to call it", evidence=lambda: self.output
        )

    def ask(self, question: str = "What is the capital of Sweden?", **headers: str) -> httpx.Response:
        """Ask through the gateway, with the first key."""
        key = self.folder.key.read_text().strip()
        body = {"model": "edge", "messages": [{"role": "user", "content": question}], "max_tokens": 16}
        own = {"Authorization": f"Bearer {key}", **headers}
        return httpx.post(
            f"{self.status.url}/v1/chat/completions", json=body, headers=own, timeout=120, trust_env=False
        )

    def find(self, program: str) -> int:
        """Return the process of a container: its command has this word."""
        return next(pid for pid in find_processes(self.folder.root) if program in read_command(pid))

    def call(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run `serve` with other words on the folder."""
        command = [str(COMMAND), "serve", *words, "--data", str(self.folder.root)]
        return subprocess.run(command, capture_output=True, text=True)

    def kill(self) -> None:
        """Kill `serve` as a power cut would, and wait until nothing of it runs."""
        os.kill(self.pid, signal.SIGKILL)
        self.wait()
        wait_until(lambda: find_processes(self.folder.root) == [], "nothing of it runs")

    def wait(self) -> int:
        """Wait for its end; return its exit status."""
        assert self._process is not None
        return self._process.wait(START_SECONDS)

    def is_gone(self) -> bool:
        """Whether nothing of it runs, and nobody has the folder."""
        return find_processes(self.folder.root) == [] and find_holder(self.folder) is None

    def end(self) -> None:
        """Kill it if it runs."""
        if self._process is not None and self._process.poll() is None:
            self.kill()


def read_command(pid: int) -> str:
    """Return the command line of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def read_objects(folder: DataFolder, kind: str) -> Sequence[dict[str, Any]]:
    """Return the stored objects of a kind."""
    children = json.loads(folder.objects.read_text())["children"]
    return [child for child in children if child["kind"] == kind]


@contextmanager
def serving(root: Path, suite: Path) -> Iterator[Served]:
    """Serve for the block."""
    served = Served(root, suite)
    served.start()
    try:
        served.until_announced()
        yield served
    finally:
        served.end()
