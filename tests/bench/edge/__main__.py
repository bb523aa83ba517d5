"""`make bench NAME=edge`: `r1plus serve` on this machine with the real Triton, from a cold start to a power cut; JSON last.

Not a test: it prints. Seconds depend on the machine and on what else runs there, so processor seconds stand beside them,
and what can be compared is a ratio of one run. Triton and the engine are in the cache before. Each figure has a field of
`Report`, which says what it is.
"""

import argparse
import asyncio
import dataclasses
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from bench.reconcile.stage import machine
from bench.running import exit_at_sigterm
from devcluster.cache import cache_dir
from r1plus_client import AsyncClient
from r1plus_edge.pods.processes import find_processes, read_processor_seconds, read_proportional_memory
from r1plus_model_repo import catalog
from r1plus_model_repo.catalog.loader import load_catalog
from r1plus_model_repo.catalog.types import EngineSpec
from r1plus_model_repo.importing.smollm2 import build_engines
from support.edge.served import Served, split_processes
from support.edge.suites import write_part
from support.waiting import wait_until

Json = dict[str, Any]
ENGINE: Final = "smollm2-edge-q4-1"
BATCH, CONTEXT, TOKENS = 16, 1024, 64
QUESTIONS: Final = 4 * BATCH
PAIRS: Final = 3
IDLE_SECONDS: Final = 60.0
SLEEPER_HZ: Final = 20
SLEEPER: Final = f"import time\nwhile True: time.sleep({1 / SLEEPER_HZ})"
MIB: Final = 2**20
DEPLOYMENT: Final = """
apiVersion: r1plus.ai/v1alpha1
kind: R1PlusDeployment
metadata: {{name: edge, namespace: bench}}
spec:
  tier: edge
  batching: {{maxBatchSize: {batch}}}
  context: {{maxTokens: {context}}}
"""
GOALS: Final[Mapping[str, tuple[str, float]]] = {
    "idle_memory_mib": ("<=", 250.0),
    "idle_cpu_percent": ("<=", 2.0),
    "served_to_in_process": (">=", 0.8),
    "update_failed_requests": ("<=", 0),
}


@dataclass(frozen=True, slots=True)
class Start:
    """From the command to the first answer through the gateway."""

    seconds: float
    processor_seconds: float
    """Of all processes that live at the first answer."""
    gate_seconds: float
    """Part of `seconds`."""


@dataclass(frozen=True, slots=True)
class Update:
    """`serve update` to another batch, while a client asks without a pause."""

    seconds: float
    requests: int
    failed_requests: int
    longest_gap_seconds: float
    """Between two answers that follow each other."""
    longest_gap_before_seconds: float
    """The same for as many requests before the update: what the machine does by itself."""


@dataclass(frozen=True, slots=True)
class Report:
    """The JSON line."""

    machine: Json
    engine: str
    items: int
    """Of the gate's suite."""
    cold: Start
    """Nothing of it has served here, so the gate runs."""
    warm: Start
    """By the recorded verdict."""
    killed: Start
    """After SIGKILL of `serve`, whose guardian ends the rest."""
    idle_memory_mib: float
    """Of all processes but the engine's; what several share is counted once."""
    idle_cpu_percent: float
    """Of one core, of the same processes, while the monitor probes at its default rate."""
    idle_wakeups_per_second: float
    """Of the same: how often one of their threads gave up its core, and was woken again."""
    sleeper_wakeup_ms: float
    """Processor time of a wake-up of a process that does nothing else: what this machine charges for it."""
    engine_idle_cpu_percent: float
    """Of the engine's processes, which answer those probes."""
    tokens_per_second: float
    """Streaming through the gateway: QUESTIONS questions, a full batch at a time."""
    served_to_in_process: float
    """Tokens per second through the gateway, to the same engine in a process of its own: the median of pairs."""
    update_failed_requests: int | None
    """None: see `update_missing`."""
    update: Update | None
    update_missing: str
    """Why there are no figures of an update; empty: there are."""
    missed_goals: tuple[str, ...]


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description="r1plus serve, measured.")
    parser.add_argument("--part", action="store_true", help="gate on 32 items instead of the whole shipped suite")
    is_part = parser.parse_args().part
    exit_at_sigterm()
    print(machine(), flush=True)
    spec = next(one.spec for one in load_catalog(Path(catalog.__file__).parent) if one.name == ENGINE)
    files = build_engines(cache_dir() / "engines", print)[ENGINE].folder
    with tempfile.TemporaryDirectory(prefix="r1plus-bench-edge-") as name:
        root = Path(name)
        suite = write_part(root / "part-v1") if is_part else Path("smollm2-edge-v1")
        served = Served(root, suite, DEPLOYMENT.format(batch=BATCH, context=CONTEXT))
        try:
            report = _measure(served, spec, files)
        finally:
            served.end()
    print(json.dumps(_round(dataclasses.asdict(report))))


def _measure(served: Served, spec: EngineSpec, files: Path) -> Report:
    cold = _start(served, "cold")
    items = int(served.status.accuracy.partition("/")[2])
    served.call("stop")
    served.wait()
    warm = _start(served, "warm")
    idle = _measure_idle(served)
    speed, ratio = _compare(served, spec, files)
    update, missing = _update(served)
    served.kill()
    killed = _start(served, "after SIGKILL")
    figures: Json = {
        "idle_memory_mib": idle.memory_mib,
        "idle_cpu_percent": idle.cpu_percent,
        "served_to_in_process": ratio,
        "update_failed_requests": update.failed_requests if update is not None else None,
    }
    return Report(
        machine=machine(),
        engine=ENGINE,
        items=items,
        cold=cold,
        warm=warm,
        killed=killed,
        idle_wakeups_per_second=idle.wakeups_per_second,
        engine_idle_cpu_percent=idle.engine_cpu_percent,
        sleeper_wakeup_ms=idle.sleeper_wakeup_ms,
        tokens_per_second=speed,
        update=update,
        update_missing=missing,
        missed_goals=tuple(name for name, value in figures.items() if not _meets(name, value)),
        **figures,
    )


def _meets(name: str, value: float | None) -> bool:
    kind, limit = GOALS[name]
    return value is None or (value <= limit if kind == "<=" else value >= limit)


def _start(served: Served, what: str) -> Start:
    began = time.monotonic()
    served.start()
    served.until_announced()
    wait_until(lambda: served.ask().status_code == 200, "it answers", retry_on=(httpx.HTTPError,))
    seconds = time.monotonic() - began
    used = read_processor_seconds([served.pid, *find_processes(served.folder.root)])
    gate = sum(step.seconds for step in served.status.steps if step.name == "gate")
    start = Start(seconds, used, gate)
    print(f"first answer {what}: {_round(dataclasses.asdict(start))}", flush=True)
    return start


@dataclass(frozen=True, slots=True)
class _Idle:
    """What is taken while no user asks; the names are those of `Report`."""

    memory_mib: float
    cpu_percent: float
    wakeups_per_second: float
    engine_cpu_percent: float
    sleeper_wakeup_ms: float


def _measure_idle(served: Served) -> _Idle:
    """Measure all but the engine, the engine, and a process that only wakes up, over the same seconds."""
    others, engine = split_processes(served)
    sleeper = subprocess.Popen([sys.executable, "-c", SLEEPER])
    try:
        groups = (others, engine, [sleeper.pid])
        used, woken, began = [read_processor_seconds(pids) for pids in groups], _count_wakeups(others), time.monotonic()
        threading.Event().wait(IDLE_SECONDS)
        seconds = time.monotonic() - began
        shares = [(read_processor_seconds(pids) - before) / seconds for pids, before in zip(groups, used, strict=True)]
        idle = _Idle(
            memory_mib=read_proportional_memory(others) / MIB,
            cpu_percent=100 * shares[0],
            wakeups_per_second=(_count_wakeups(others) - woken) / seconds,
            engine_cpu_percent=100 * shares[1],
            sleeper_wakeup_ms=1000 * shares[2] / SLEEPER_HZ,
        )
    finally:
        sleeper.kill()
        sleeper.wait()
    print(f"idle: {_round(dataclasses.asdict(idle))}", flush=True)
    return idle


def _count_wakeups(processes: Iterable[int]) -> int:
    """Return how often the threads of processes have waited for something since they started."""
    statuses = (path for pid in processes for path in Path(f"/proc/{pid}/task").glob("*/status"))
    lines = (line for path in statuses for line in path.read_text().splitlines())
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches:"))


def _list_prompts() -> list[str]:
    return [f"Tell me a long story about a lighthouse. Number {n}." for n in range(QUESTIONS)]


async def _ask_all(url: str, key: str) -> float:
    """Return the tokens per second of all questions; a question follows when an answer has ended, as in process."""
    room = asyncio.Semaphore(BATCH)
    async with httpx.AsyncClient(timeout=600, trust_env=False) as http:
        client = AsyncClient(url, key, http=http)

        async def ask(prompt: str) -> int:
            messages = [{"role": "user", "content": prompt}]
            async with room, await client.stream_chat(model="edge", messages=messages, max_new_tokens=TOKENS) as stream:
                async for _ in stream:
                    pass
            return stream.result.usage.completion_tokens

        began = time.monotonic()
        tokens = await asyncio.gather(*(ask(prompt) for prompt in _list_prompts()))
        return sum(tokens) / (time.monotonic() - began)


def _compare(served: Served, spec: EngineSpec, files: Path) -> tuple[float, float]:
    """Return tokens per second through the gateway, and their ratio to the engine in process, from pairs."""
    url, key = served.status.url, served.folder.key.read_text().strip()
    per_token = spec.shape.kv_bytes_per_token
    settings = {
        "path": str(files),
        "max_batch": BATCH,
        "context": CONTEXT,
        "kv_cache_bytes": BATCH * CONTEXT * per_token,
        "kv_bytes_per_token": per_token,
        "threads": int(float(spec.requirements.cpu)),
    }
    command = [sys.executable, "-m", "bench.serving.in_process", json.dumps(settings), "throughput"]
    command += ["--questions", json.dumps(_list_prompts()), "--tokens", str(TOKENS)]
    asyncio.run(_ask_all(url, key))
    speeds, ratios = [], []
    for _ in range(PAIRS):
        before = asyncio.run(_ask_all(url, key))
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        inside = float(json.loads(done.stdout.splitlines()[-1])["tokens_per_second"])
        after = asyncio.run(_ask_all(url, key))
        speeds.append(statistics.mean((before, after)))
        ratios.append(speeds[-1] / inside)
        print(f"tokens per second: {before:.1f}, in process {inside:.1f}, {after:.1f}", flush=True)
    return statistics.median(speeds), statistics.median(ratios)


def _update(served: Served) -> tuple[Update | None, str]:
    """Update to half the batch under requests; return the figures, or why there are none."""
    if "update" not in served.call("--help").stdout:
        return None, "r1plus serve has no update"
    file = served.folder.root.with_name("update.yaml")
    file.write_text(DEPLOYMENT.format(batch=BATCH // 2, context=CONTEXT))
    with _asking(served) as (ends, failures):
        threading.Event().wait(IDLE_SECONDS / 2)
        before = list(ends)
        began = time.monotonic()
        result = served.call("update", "-f", str(file))
        seconds = time.monotonic() - began
        count = len(ends)
        wait_until(lambda: len(ends) > count, "it answers after the update")
    if result.returncode != 0:
        return None, f"the update failed: {(result.stdout + result.stderr).strip()[-500:]}"
    during = ends[len(before) - 1 :]
    update = Update(seconds, len(during) - 1, len(failures), _find_gap(during), _find_gap(before))
    print(f"update: {_round(dataclasses.asdict(update))}", flush=True)
    return update, ""


def _find_gap(moments: list[float]) -> float:
    return max((after - before for before, after in itertools.pairwise(moments)), default=0.0)


@contextmanager
def _asking(served: Served) -> Iterator[tuple[list[float], list[str]]]:
    """Ask one question after the other for the block. Yield when each answer came, and what failed."""
    ends: list[float] = []
    failures: list[str] = []
    has_ended = threading.Event()

    def ask_on() -> None:
        while not has_ended.is_set():
            problem = _describe_failure(served.ask)
            if problem:
                failures.append(problem)
            else:
                ends.append(time.monotonic())

    thread = threading.Thread(target=ask_on)
    thread.start()
    try:
        yield ends, failures
    finally:
        has_ended.set()
        thread.join()


def _describe_failure(ask: Callable[[], httpx.Response]) -> str:
    try:
        response = ask()
    except httpx.HTTPError as error:
        return repr(error)
    return "" if response.status_code == 200 else f"{response.status_code}: {response.text[:200]}"


def _round(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _round(item) for key, item in value.items()}
    return round(value, 2) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
