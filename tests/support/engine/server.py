"""A real tritonserver on loopback, with a model repository that a test made.

Cores are shared with other processes: a test waits on conditions with a deadline, and compares ratios, never speeds.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from devcluster.cache import cache_dir
from devcluster.images import triton
from r1plus_edge.pods.processes import has_ended, list_children, read_processor_seconds
from r1plus_model_repo import catalog
from r1plus_model_repo.catalog.loader import load_catalog
from r1plus_model_repo.catalog.types import EngineSpec
from r1plus_model_repo.config_pbtxt import render_config
from r1plus_model_repo.delivery import assemble
from r1plus_operator.plan.podspec.triton_args import GUARD_OPTIONS, START
from r1plus_policies.engine.memory_fit import compute_fit
from support.kubelet import expand
from support.ports import free_port
from support.waiting import wait_until

AS_IN_A_POD: Final = ("/bin/bash", "-ec", expand(START, {}))
OPEN: Final = ("--disable-auto-complete-config", "--exit-timeout-secs=30")
"""Options of a server all of whose APIs are open, but for loading models."""
HELD = ("01", "08")
"""States of /proc/net/tcp: established, and closed by the other side alone."""
BATCH, CONTEXT = 32, 1024
"""Of the server that all tests of serving ask."""
SHARED_MEMORY: Final = Path("/dev/shm")
ENGINES: Final = {engine.name: engine.spec for engine in load_catalog(Path(catalog.__file__).parent)}
"""Shipped engines by name."""


class Server:
    """A tritonserver under test."""

    def __init__(
        self,
        root: Path,
        installed: Path,
        models: Path,
        *options: str,
        guarded: bool = True,
        environ: Mapping[str, str] | None = None,
        python: str = sys.executable,
        ports: tuple[int, int, int] | None = None,
        command: Sequence[str] = (),
    ) -> None:
        """Start it. `guarded`: as in a pod, with all that is shut there. `ports`: of HTTP, gRPC and metrics.

        `command`: in place of the server, the repository and the guards; backends, ports and options are added.
        """
        chosen = ports or (free_port(), free_port(), free_port())
        self.http, self.grpc, self.metrics = (f"127.0.0.1:{port}" for port in chosen)
        self.log = root / "triton.log"
        # A killed server leaves its shared memory behind; by this name `end` finds it.
        self._region = f"r1plus-test-{chosen[0]}-{os.getpid()}"
        own = [
            *(AS_IN_A_POD if guarded else ()),
            str(installed / "bin" / "tritonserver"),
            f"--model-repository={models}",
            *(GUARD_OPTIONS if guarded else OPEN),
        ]
        line = [
            *(command or own),
            f"--backend-directory={installed / 'backends'}",
            f"--backend-config=python,shm-region-prefix-name={self._region}",
            *options,
        ]
        for kind, port in zip(("http", "grpc", "metrics"), chosen, strict=True):
            line += [f"--{kind}-address=127.0.0.1", f"--{kind}-port={port}"]
        # The stub embeds Python and finds its packages through the `python3` on the PATH, as in the image.
        path = f"{Path(python).parent}:{os.environ['PATH']}"
        environment = {"PATH": path, "HOME": str(root), "LD_LIBRARY_PATH": str(installed / "lib"), **(environ or {})}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(line, env=environment, stdout=log, stderr=log, start_new_session=True)

    def until_ready(self) -> None:
        """Wait for the model."""
        self.until_answers("/v2/models/r1plus/ready")

    def until_answers(self, path: str) -> None:
        """Wait until a GET of this path has status 200; fail at once where the server has ended."""
        wait_until(
            lambda: self.get(path) is not None or self.has_ended(),
            f"tritonserver answers {path}",
            600.0,
            evidence=self.last_words,
        )
        assert not self.has_ended(), self.last_words()

    def until_ended(self) -> None:
        """Wait until the process has ended by itself."""
        wait_until(self.has_ended, "tritonserver ends", 600.0, evidence=self.last_words)

    def until_callers_left(self) -> None:
        """Wait until it holds no connection of a gRPC client any more: also of one that has closed it long since."""
        port = f":{int(self.grpc.rpartition(':')[2]):04X}"

        def connections() -> list[str]:
            rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
            return [state for _, local, _, state, *_ in rows if local.endswith(port) and state in HELD]

        wait_until(lambda: not connections(), "the server has closed its clients' connections")

    def until_metric(self, series: str, value: float) -> None:
        """Wait until a series has this value."""
        wait_until(lambda: self.metric(series) == value, f"{series} is {value:g}", evidence=self.last_words)

    def has_ended(self) -> bool:
        """Say whether the process has ended."""
        return self.process.poll() is not None

    def last_words(self) -> str:
        """Return the end of the log."""
        return self.log.read_text(errors="replace")[-8000:]

    def get(self, path: str, *, metrics: bool = False) -> str | None:
        """Return the body of a GET, or None where there is no 200."""
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            address = self.metrics if metrics else self.http
            with urllib.request.urlopen(f"http://{address}{path}", timeout=60) as answer:
                return str(answer.read().decode())
        return None

    def metric(self, series: str) -> float:
        """Return the present value of one series, e.g. `name{label="x"}`; 0 where it is absent."""
        for line in (self.get("/metrics", metrics=True) or "").splitlines():
            if line.startswith(f"{series} "):
                return float(line.rpartition(" ")[2])
        return 0.0

    def requests(self, result: str) -> float:
        """Return how many requests have ended so: ok, refused, cancelled or error."""
        return self.metric(f'r1plus_engine_requests_total{{result="{result}"}}')

    def children(self) -> list[int]:
        """Return the process ids of the stubs."""
        return [
            int(pid) for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        ]

    def descendants(self) -> list[int]:
        """Return the process ids of the stubs and of all below them: vLLM runs the model in processes of its own."""
        return list_descendants(self.process.pid)

    def processor_seconds(self) -> float:
        """Return the processor time that the server and the processes below it have used."""
        return read_processor_seconds((self.process.pid, *self.descendants()))

    def peak_bytes(self) -> int:
        """Return the sum of the most memory that the server and each process below it have held.

        A page that several of them share counts for each.
        """
        total = 0
        for pid in (self.process.pid, *self.descendants()):
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text().splitlines()
                total += next((int(line.split()[1]) for line in status if line.startswith("VmHWM:")), 0)
        return total * 1024

    def end(self) -> None:
        """Kill it with all processes below it, and leave nothing behind."""
        below, regions = ([], set()) if self.has_ended() else (self.descendants(), self._list_mapped_regions())
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for pid in below:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        wait_until(lambda: all(map(has_ended, below)), "no process of the server is left")
        for region in regions.union(SHARED_MEMORY.glob(f"{self._region}*")):
            region.unlink(missing_ok=True)

    def _list_mapped_regions(self) -> set[Path]:
        """Return the shared memory of the processes below the server: vLLM's has names that say nothing of it."""
        regions = set()
        for pid in self.descendants():
            with contextlib.suppress(OSError):
                lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
                regions |= {Path(line.split()[5]) for line in lines if f" {SHARED_MEMORY}/" in line}
        return regions


def list_descendants(pid: int) -> list[int]:
    """Return the process ids of all below a process."""
    pids, waiting = [], list_children(pid)
    while waiting:
        pid = waiting.pop()
        pids.append(pid)
        with contextlib.suppress(OSError):  # It has ended.
            waiting += list_children(pid)
    return pids


@contextlib.contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Yield the server once it is ready; it leaves nothing behind."""
    with ending(server):
        server.until_ready()
        yield server


@contextlib.contextmanager
def ending(server: Server) -> Iterator[Server]:
    """Yield the server, ready or not; it leaves nothing behind."""
    try:
        yield server
    finally:
        server.end()


@contextlib.contextmanager
def laid_out() -> Iterator[Path]:
    """Lay tritonserver out for the block, in the cache: there its files are hard links, on any machine."""
    source = triton.unpacked()
    with tempfile.TemporaryDirectory(prefix=".tritonserver-", dir=cache_dir()) as target:
        triton.lay_out(source, Path(target))
        yield Path(target)


def deliver(root: Path, spec: EngineSpec, folder: Path, batch: int, context: int) -> Path:
    """Configure the engine in `folder` as the operator does, into a model repository below `root`; return that."""
    cache = compute_fit(spec.shape, batch, context).kv_cache_bytes
    config = render_config(spec, batch=batch, context=context, kv_cache_bytes=cache, engine_path=str(folder))
    assemble(config.encode(), root)
    return root / "models"
