"""Workers: an engine each, asked in turn by this process, which also reads their memory."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import r1plus_contract
import r1plus_model_repo
from bench.claims.engines import Subject
from r1plus_edge.pods.processes import read_proportional_memory
from r1plus_model_repo.catalog.types import Backend
from support.engine.server import list_descendants
from support.paths import TESTS

CONTEXT: Final = 256
"""Tokens of a question and its answer, at most."""
END_SECONDS: Final = 60.0
_ROOMS: Final = (r1plus_contract, r1plus_model_repo)


@dataclass(frozen=True, slots=True)
class Worker:
    """An engine that is open."""

    subject: Subject
    process: subprocess.Popen[str]
    log: Path
    runtime: str
    gpu_mib_before: int

    def ask(self, requests: int, tokens: int) -> float:
        """Ask so many questions at once, for so many tokens each; return tokens per second."""
        _write(self.process.stdin, [requests, tokens])
        count, seconds = _read(self.process, self.log)
        return float(count / seconds)

    def read_memory(self) -> int:
        """Return the memory that its processes hold, MiB: of the GPUs, or of this machine, where shared pages count in parts."""
        if self.subject.on_gpu:
            return sum(map(int, query_gpus("memory.used"))) - self.gpu_mib_before
        pids = (self.process.pid, *list_descendants(self.process.pid))
        return round(read_proportional_memory(pids) / 2**20)


@contextmanager
def open_workers(subjects: Sequence[Subject], batch: int, threads: int) -> Iterator[list[Worker]]:
    """Open engines for so many requests at once; all of them are closed at the end of the block.

    Raises:
        RuntimeError: an engine cannot be opened; the end of its output is in the message.
    """
    with ExitStack() as stack:
        yield [stack.enter_context(_open_worker(subject, batch, threads)) for subject in subjects]


@contextmanager
def _open_worker(subject: Subject, batch: int, threads: int) -> Iterator[Worker]:
    parameters = json.dumps(subject.build_parameters(limit_batch(subject, batch), CONTEXT, threads))
    rooms = [str(Path(package.__path__[0]).parent) for package in _ROOMS]
    with tempfile.TemporaryDirectory(prefix="r1plus-bench-") as home, Path(home, "log").open("w") as log:
        environment = {**os.environ, "HOME": home, "PYTHONPATH": os.pathsep.join((*rooms, str(TESTS)))}
        gpu_mib = sum(map(int, query_gpus("memory.used"))) if subject.on_gpu else 0
        process = subprocess.Popen(
            [subject.python, "-m", "bench.claims.worker", parameters],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
        try:
            runtime = _read(process, Path(log.name))["runtime"]
            yield Worker(subject, process, Path(log.name), runtime, gpu_mib)
        finally:
            _end(process)


def limit_batch(subject: Subject, batch: int) -> int:
    """Return the batch, or the largest that the engine was built for."""
    return min(batch, subject.spec.batch.max) if subject.spec.backend is Backend.TENSORRT_LLM else batch


def query_gpus(field: str) -> list[str]:
    """Return a field of nvidia-smi's for each GPU; nothing where there is none."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.split("\n")[:-1] if done.returncode == 0 else []


def _write(stream: IO[str] | None, value: object) -> None:
    assert stream is not None
    stream.write(json.dumps(value) + "\n")
    stream.flush()


def _read(process: subprocess.Popen[str], log: Path) -> Any:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"the engine's process has ended: {log.read_text(errors='replace')[-2000:]}")
    return json.loads(line)


def _end(process: subprocess.Popen[str]) -> None:
    """Let it end by itself, which frees vLLM's shared memory; kill what is left of its session."""
    assert process.stdin is not None
    with suppress(OSError):
        process.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
