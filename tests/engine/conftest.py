"""A real tritonserver on loopback with a real engine, delivered and configured as a pod's is.

Cores are shared with whatever else runs: a test waits on conditions with a deadline, and compares ratios, never speeds.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from devcluster.cache import cache_dir
from devcluster.images import triton
from engine.asking import Client
from engine.loopback import free_port
from r1plus_model_repo import catalog
from r1plus_model_repo.catalog.loader import load_catalog
from r1plus_model_repo.catalog.types import EngineSpec
from r1plus_model_repo.config_pbtxt import render
from r1plus_model_repo.delivery import assemble
from r1plus_model_repo.importing.smollm2 import build_engines
from r1plus_operator.plan.triton import GUARDED, START

BATCH = 32
CONTEXT = 1024
ENGINE = "smollm2-edge-q4-1"
"""The smallest: these tests are about serving, not about what it knows."""


AS_IN_A_POD: Final = ("/bin/bash", "-ec", START)
OPEN: Final = ("--disable-auto-complete-config", "--exit-timeout-secs=30")
"""Options of a server all of whose APIs are open, but for loading models."""


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
    ) -> None:
        """`guarded`: started as a pod's is, with all that is shut there."""
        self.http, self.grpc, self.metrics = (f"127.0.0.1:{free_port()}" for _ in range(3))
        self.log = root / "triton.log"
        ports = [
            option
            for kind in ("http", "grpc", "metrics")
            for option in (f"--{kind}-address=127.0.0.1", f"--{kind}-port={getattr(self, kind).rpartition(':')[2]}")
        ]
        command = [
            *(AS_IN_A_POD if guarded else ()),
            str(installed / "bin" / "tritonserver"),
            f"--model-repository={models}",
            f"--backend-directory={installed / 'backends'}",
            *(GUARDED if guarded else OPEN),
            *options,
            *ports,
        ]
        # The stub embeds Python and finds its packages through the `python3` on the PATH, as in the image.
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        own = {"PATH": path, "HOME": str(root), "LD_LIBRARY_PATH": str(installed / "lib"), **(environ or {})}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=own, stdout=log, stderr=log, start_new_session=True)

    def until_ready(self, seconds: float = 120.0) -> None:
        """Wait for the model."""
        until(lambda: self.get("/v2/models/r1plus/ready") is not None or self.process.poll() is not None, seconds)
        assert self.process.poll() is None, self.log.read_text()[-4000:]

    def get(self, path: str, *, metrics: bool = False) -> str | None:
        """The body of a GET, or None where there is no 200."""
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            address = self.metrics if metrics else self.http
            with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
                return str(answer.read().decode())
        return None

    def metric(self, series: str) -> float:
        """The present value of one series, e.g. `name{label="x"}`; 0 where it is absent."""
        for line in (self.get("/metrics", metrics=True) or "").splitlines():
            if line.startswith(f"{series} "):
                return float(line.rpartition(" ")[2])
        return 0.0

    def children(self) -> list[int]:
        """Process ids of the stubs."""
        return [
            int(pid) for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        ]

    def peak_bytes(self) -> int:
        """Most memory that the server and its stubs have held."""
        total = 0
        for pid in (self.process.pid, *self.children()):
            status = Path(f"/proc/{pid}/status").read_text().splitlines()
            total += next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
        return total * 1024

    def end(self) -> None:
        """Leave nothing behind."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextlib.contextmanager
def serving(server: Server) -> Iterator[Server]:
    """It, once it is ready; it leaves nothing behind."""
    try:
        server.until_ready()
        yield server
    finally:
        server.end()


def until(holds: Callable[[], object], seconds: float) -> None:
    """Wait for a condition; an assertion error after the deadline."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def engine_spec() -> EngineSpec:
    return next(e.spec for e in load_catalog(Path(catalog.__file__).parent) if e.name == ENGINE)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("tritonserver")
    triton.lay_out(triton.unpacked(), target)
    return target


@pytest.fixture(scope="session")
def engine_folder() -> Path:
    return build_engines(cache_dir() / "engines", print)[ENGINE].folder


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, engine_folder: Path, engine_spec: EngineSpec) -> Path:
    root = tmp_path_factory.mktemp("delivery")
    cache = BATCH * CONTEXT * engine_spec.shape.kv_bytes_per_token
    config = render(engine_spec, batch=BATCH, context=CONTEXT, kv_cache_bytes=cache, engine_path=str(engine_folder))
    assemble(config.encode(), root)
    return root / "models"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, installed: Path, models: Path) -> Iterator[Server]:
    with serving(Server(tmp_path_factory.mktemp("server"), installed, models)) as running:
        yield running


@pytest.fixture
def ask(server: Server) -> Iterator[Client]:
    with Client(server.grpc) as client:
        yield client
