"""`r1plus serve` as a process under test: what it prints, what it says of itself, and what of it still runs."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx

from devcluster.cache import cache_dir
from r1plus_edge.data_folder import DataFolder, find_holder
from r1plus_edge.pods.processes import find_processes, list_children
from r1plus_edge.report import ServePhase, ServeStatus, read_status
from support.waiting import wait_until

COMMAND = Path(sys.prefix) / "bin" / "r1plus"
ENGINE_PROGRAMS = ("tritonserver", "triton_python_backend_stub")
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

    def __init__(
        self,
        root: Path,
        suite: Path,
        deployment: str = DEPLOYMENT,
        environment: Mapping[str, str] = MappingProxyType({}),
        program: Path = COMMAND,
    ) -> None:
        """`program`: the `r1plus` that serves."""
        self._program = program
        self.folder = DataFolder(root / "data")
        self._environment = {**os.environ, "R1PLUS_CACHE": str(cache_dir()), **environment}
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
                [str(self._program), "serve", *given, "--listen", "127.0.0.1:0", *options],
                env=self._environment,
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

    def until(self, phase: ServePhase, seconds: float = START_SECONDS) -> None:
        """Wait for a phase; fail at once where it has ended."""

        def look() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, self.evidence
            status = read_status(self.folder.status)
            return status is not None and status.pid == self.pid and status.phase is phase

        wait_until(look, f"it is {phase.value}", seconds, evidence=lambda: self.evidence)

    def until_announced(self) -> None:
        """Wait until it has printed how to call it."""
        self.until(ServePhase.SERVING)
        wait_until(
            lambda: "from openai import" in self.output, "it prints how to call it", evidence=lambda: self.output
        )

    def ask(self, question: str = "What is the capital of Sweden?", **headers: str) -> httpx.Response:
        """Ask through the gateway, with the first key. While software is switched, a caller waits."""
        key = self.folder.key.read_text().strip()
        body = {"model": "edge", "messages": [{"role": "user", "content": question}], "max_tokens": 16}
        own = {"Authorization": f"Bearer {key}", **headers}
        return httpx.post(
            f"{self.status.url}/v1/chat/completions", json=body, headers=own, timeout=START_SECONDS, trust_env=False
        )

    def find(self, program: str) -> int:
        """Return the process of a container: its command has this word."""
        return next(pid for pid in find_processes(self.folder.root) if program in read_command(pid))

    def call(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run `serve` with other words on the folder."""
        command = [str(COMMAND), "serve", *words, "--data", str(self.folder.root)]
        return subprocess.run(command, capture_output=True, text=True)

    @contextmanager
    def updating(self, *words: str) -> Iterator["subprocess.Popen[str]"]:
        """Have `serve update` run for the block."""
        command = [str(COMMAND), "serve", "update", *words, "--data", str(self.folder.root)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            try:
                yield process
            finally:
                process.kill()

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


def split_processes(served: Served) -> tuple[list[int], list[int]]:
    """Return the processes of `serve` without the engine's, and the engine's."""
    marked = find_processes(served.folder.root)
    guardians = [pid for pid in list_children(served.pid) if "r1plus_edge.pods.guardian" in read_command(pid)]
    engine = [pid for pid in marked if any(word in read_command(pid) for word in ENGINE_PROGRAMS)]
    others = {served.pid, *guardians, *marked} - set(engine)
    return sorted(others), engine


def read_objects(folder: DataFolder, kind: str) -> Sequence[dict[str, Any]]:
    """Return the stored objects of a kind."""
    children = json.loads(folder.objects.read_text())["children"]
    return [child for child in children if child["kind"] == kind]


class Caller:
    """Asks one question after another in a thread of its own, and keeps what failed."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._is_over = threading.Event()
        self.failures: list[str] = []
        self.revisions: list[str] = []
        """That answered, one after another."""
        self.count = 0
        """Of answers."""
        self.longest_gap = 0.0
        """Seconds between two answers."""

    def run(self) -> None:
        """Ask until the end."""
        last = time.monotonic()
        while not self._is_over.is_set():
            try:
                response = self._served.ask()
            except httpx.HTTPError as error:
                self.failures.append(repr(error))
                continue
            if response.status_code != 200:
                self.failures.append(f"{response.status_code} {response.text}")
                continue
            self.count += 1
            now = time.monotonic()
            self.longest_gap, last = max(self.longest_gap, now - last), now
            if (revision := response.headers["x-r1plus-revision"]) not in self.revisions[-1:]:
                self.revisions.append(revision)

    def end(self) -> None:
        """Ask no more."""
        self._is_over.set()


@contextmanager
def calling(served: Served) -> Iterator[Caller]:
    """Ask all the time for the block."""
    caller = Caller(served)
    thread = threading.Thread(target=caller.run)
    thread.start()
    try:
        yield caller
    finally:
        caller.end()
        thread.join()


@contextmanager
def serving(
    root: Path,
    suite: Path,
    deployment: str = DEPLOYMENT,
    environment: Mapping[str, str] = MappingProxyType({}),
    program: Path = COMMAND,
) -> Iterator[Served]:
    """Serve for the block."""
    served = Served(root, suite, deployment, environment, program)
    served.start()
    try:
        served.until_announced()
        yield served
    finally:
        served.end()
