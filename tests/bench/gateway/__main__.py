"""`make bench NAME=gateway`: what the gateway adds to bare gRPC, beside LiteLLM on the same timetable; a JSON line last.

Ratios of one run decide; absolute figures orient. Each figure has a field of `Report`. LiteLLM comes from PyPI into an
environment of its own in the cache, with `--litellm`.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.running import exit_at_sigterm
from devcluster.cache import cache_dir
from r1plus_contract.engine.grpc_environment import configure_grpc
from support.gateway.rig import REVISION
from support.ports import free_port
from support.waiting import wait_until

Json = dict[str, Any]
STREAMS, TOKENS, GAP_MS = 16, 100, 50.0
CPU_STREAMS, CPU_TOKENS, CPU_GAP_MS = 64, 100, 50.0
FAST_GAP_MS: Final = 10.0
SATURATION: Final = (1, 64, 256)
LITELLM_VERSION: Final = "1.108.7"
GOALS: Final[Mapping[str, tuple[str, float]]] = {
    "added_ttft_p50_ms": ("<=", 3.0),
    "added_ttft_p99_ms": ("<=", 15.0),
    "added_gap_p99_ms": ("<=", 10.0),
    "cpu_ms_per_event": ("<=", 0.1),
    "share_of_grpc_per_core": (">=", 0.7),
    "cancel_p99_ms": ("<=", 50.0),
    "cut_usage_wrong": ("<=", 0),
    "tokens_lost": ("<=", 0),
    "rss_mb": ("<=", 200.0),
}


@dataclass(frozen=True, slots=True)
class Report:
    """The JSON line."""

    added_ttft_p50_ms: float
    """From the pod's sending of the first token to its arrival, over the same through bare gRPC."""
    added_ttft_p99_ms: float
    added_gap_p99_ms: float
    """Of the time between two tokens."""
    cpu_ms_per_event: float
    """Of the gateway's process, with 64 streams of 20 tokens per second."""
    litellm_cpu_ms_per_event: float | None
    share_of_grpc_per_core: float
    """Processor time for an event of a bare client, as a share of the gateway's."""
    cancel_p99_ms: float
    """From the client's leaving to the pod's knowing, before the first token and within the answer."""
    cut_usage_wrong: int
    """Cut streams whose bill differs from what the pod has sent."""
    tokens_lost: int
    """Streams in which a token is missing, doubled or out of order."""
    rss_mb: float
    """Of the gateway with 256 streams."""
    streams: int
    """Most streams of 100 tokens per second, out of 1, 64 and 256, whose tokens come within a second."""


class Child:
    """A process of the bench; its processor time and memory."""

    def __init__(self, *command: str, environ: Mapping[str, str] | None = None) -> None:
        self.process = subprocess.Popen(command, env={**os.environ, **(environ or {})}, stdout=subprocess.DEVNULL)

    def processor_seconds(self) -> float:
        """Return user and system time of all its threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mb(self) -> float:
        """Return the most memory that it has held."""
        status = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 1024

    def end(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def run_child(*command: str, **options: Any) -> Iterator[Child]:
    """Run a process for the block."""
    child = Child(*command, **options)
    try:
        yield child
    finally:
        child.end()


def get_json(url: str) -> Any:
    """Return what a GET answers."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.loads(answer.read())


def wait_for(url: str, what: str) -> None:
    """Wait until a GET is answered with 200."""

    def look() -> bool:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)

    wait_until(look, what, 300.0, retry_on=(OSError,))


def load(path: str, target: str, streams: int, tokens: int, gap_ms: float, *options: str) -> Json:
    """Run a client; return what it saw."""
    with tempfile.NamedTemporaryFile() as out:
        numbers = (str(streams), str(tokens), str(gap_ms))
        subprocess.run(
            [sys.executable, "-m", "bench.gateway.load", path, target, *numbers, out.name, *options], check=True
        )
        return dict(json.loads(Path(out.name).read_bytes()))


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that this share does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@dataclass(frozen=True)
class Stage:
    """Where everything listens."""

    grpc: str
    pod: str
    gateway: str
    ledger: str
    process: Child


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """Run the pod and the gateway."""
    grpc, http, port, internal, ledger = (free_port() for _ in range(5))
    model = {
        "name": "credit",
        "host": "127.0.0.1",
        "grpcPort": grpc,
        "monitorPort": http,
        "contextTokens": 8192,
        "batch": 1024,
        "revisions": [REVISION],
    }
    settings = {
        "namespace": "team-credit",
        "host": "127.0.0.1",
        "port": port,
        "internalPort": internal,
        "models": [model],
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "settings.json"
        path.write_text(json.dumps(settings))
        pod = (sys.executable, "-m", "bench.gateway.timetable", "--grpc", str(grpc), "--http", str(http))
        gateway = (sys.executable, "-m", "bench.gateway.served", str(path), str(ledger))
        environ: dict[str, str] = {}
        configure_grpc(environ)  # as the gateway's own process does
        with run_child(*pod), run_child(*gateway, environ=environ) as process:
            wait_for(f"http://127.0.0.1:{http}/verdict", "the pod answers")
            wait_for(f"http://127.0.0.1:{internal}/readyz", "the gateway is ready")
            addresses = (f"127.0.0.1:{one}" for one in (grpc, http, port, ledger))
            yield Stage(*addresses, process)


def measure_latency(at: Stage) -> Json:
    """Compare both paths in turn, three times."""
    first: dict[str, list[float]] = {"grpc": [], "http": []}
    gaps: dict[str, list[float]] = {"grpc": [], "http": []}
    lost = 0
    for _ in range(3):
        for path, target in (("grpc", at.grpc), ("http", at.gateway)):
            seen = load(path, target, STREAMS, TOKENS, GAP_MS)
            first[path] += seen["first_ms"]
            gaps[path] += seen["gap_ms"]
            lost += seen["lost"]

    def subtract(values: Mapping[str, Sequence[float]], share: float) -> float:
        return round(percentile(values["http"], share) - percentile(values["grpc"], share), 2)

    return {
        "added_ttft_p50_ms": subtract(first, 0.5),
        "added_ttft_p99_ms": subtract(first, 0.99),
        "added_gap_p99_ms": subtract(gaps, 0.99),
        "tokens_lost": lost,
    }


def measure_processor(at: Stage) -> Json:
    """Return the processor time of an event of the gateway, and of a bare client as its share: medians of three runs.

    The bare client has gRPC's default settings.
    """
    costs, shares = [], []
    for _ in range(3):
        bare = load("grpc", at.grpc, CPU_STREAMS, CPU_TOKENS, CPU_GAP_MS)
        before = at.process.processor_seconds()
        seen = load("http", at.gateway, CPU_STREAMS, CPU_TOKENS, CPU_GAP_MS)
        costs.append((at.process.processor_seconds() - before) / seen["events"])
        shares.append(bare["processor_seconds"] / bare["events"] / costs[-1])
    return {
        "cpu_ms_per_event": round(statistics.median(costs) * 1000, 4),
        "share_of_grpc_per_core": round(statistics.median(shares), 3),
    }


def measure_cancelling(at: Stage) -> Json:
    """Cut streams in each state; compare bills with what the pod has sent."""
    get_json(f"http://{at.pod}/stats")
    get_json(f"http://{at.ledger}/ledger")
    delays: list[float] = []
    wrong = 0
    for cut in (0, 3):
        seen = load("http", at.gateway, STREAMS, 1000, GAP_MS, "--cut", str(cut), "--name", f"cut{cut}")
        bills: Json = {}

        def are_settled(bills: Json = bills) -> bool:
            answer = get_json(f"http://{at.ledger}/ledger")
            bills.update(answer["settled"])
            return answer["open"] == 0 and len(bills) >= STREAMS

        wait_until(are_settled, "all cut streams are settled")
        stats = get_json(f"http://{at.pod}/stats")
        for name, cut_ns in seen["cuts"].items():
            if name not in stats:
                continue  # it left before the pod knew of it
            delays.append((stats[name]["cancelled_ns"] - cut_ns) / 1e6)
            wrong += bills[stats[name]["request_id"]][0] != stats[name]["tokens"]
    return {"cancel_p99_ms": round(percentile(delays, 0.99), 2), "cut_usage_wrong": wrong}


def measure_saturation(at: Stage) -> Json:
    """Return the most streams that keep up, and the memory with all of them."""
    most = 0
    for streams in SATURATION:
        rows = []
        for path, target in (("grpc", at.grpc), ("http", at.gateway)):
            seen = load(path, target, streams, 200, FAST_GAP_MS)
            p99 = percentile(seen["delay_ms"], 0.99)
            rows.append(f"{path} {seen['events'] / seen['seconds']:,.0f} tokens/s, p99 {p99:,.1f} ms")
        print(f"  {streams:4} streams of 100 tokens/s: {'; '.join(rows)}", flush=True)
        if p99 <= 1000:
            most = streams
    return {"streams": most, "rss_mb": round(at.process.rss_mb(), 1)}


def measure_litellm(at: Stage) -> float:
    """Return the processor time of an event in LiteLLM's proxy, one worker, before the OpenAI mock."""
    home = cache_dir() / f"bench-litellm-{LITELLM_VERSION}"
    uv = os.environ.get("UV", str(Path("~/.local/bin/uv").expanduser()))
    package = f"litellm[proxy]=={LITELLM_VERSION}"
    if not (home / "bin" / "litellm").exists():
        subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(home)], check=True)
        subprocess.run([uv, "pip", "install", "-q", "--python", str(home / "bin" / "python"), package], check=True)
    port = free_port()
    config = {
        "model_list": [
            {
                "model_name": "credit",
                "litellm_params": {"model": "openai/credit", "api_base": f"http://{at.pod}/v1", "api_key": "none"},
            }
        ],
        "general_settings": {"master_key": "sk-bench", "disable_spend_logs": True},
        "litellm_settings": {"request_timeout": 600, "set_verbose": False, "json_logs": True},
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(json.dumps(config))
        command = (str(home / "bin" / "litellm"), "--config", str(path), "--port", str(port), "--num_workers", "1")
        environ = {"LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        with run_child(*command, environ=environ) as process:
            wait_for(f"http://127.0.0.1:{port}/health/liveliness", "LiteLLM answers")
            options = ("--key", "sk-bench", "--name", "l")
            load("http", f"127.0.0.1:{port}", 4, 20, CPU_GAP_MS, *options)
            before = process.processor_seconds()
            seen = load("http", f"127.0.0.1:{port}", CPU_STREAMS, CPU_TOKENS, CPU_GAP_MS, *options)
            return round((process.processor_seconds() - before) / seen["events"] * 1000, 4)


def main() -> None:
    """Measure, print, and end with the JSON line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--litellm", action="store_true", help="install LiteLLM into the cache, and measure it too")
    options = parser.parse_args()
    exit_at_sigterm()
    with stage() as at:
        load("http", at.gateway, 4, 20, 10.0)  # warm
        figures = measure_latency(at) | measure_processor(at) | measure_cancelling(at) | measure_saturation(at)
        litellm = measure_litellm(at) if options.litellm else None
    report = Report(**figures, litellm_cpu_ms_per_event=litellm)
    for name, (sign, goal) in GOALS.items():
        value = getattr(report, name)
        is_reached = value <= goal if sign == "<=" else value >= goal
        print(f"  {name:26} {value:10} {sign} {goal:6} {'' if is_reached else 'not reached'}")
    if litellm is not None:
        print(f"  an event costs LiteLLM {litellm / report.cpu_ms_per_event:.1f} times as much; at least 3 is the goal")
    print(json.dumps(dataclasses.asdict(report)))


if __name__ == "__main__":
    main()
