"""`make bench NAME=serving`: the demo's engine through the real Triton, streaming, against the same engine in process.

Not a test: it prints. Whoever reads it compares ratios of one run on one machine: speeds of two are not comparable. The
last line is JSON. Each figure has a field of `Report`, which says what it is.
"""

import argparse
import dataclasses
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.reconcile.stage import machine
from bench.running import exit_at_sigterm
from devcluster.cache import cache_dir
from r1plus_model_repo import catalog
from r1plus_model_repo.catalog.loader import load_catalog
from r1plus_model_repo.catalog.types import EngineSpec
from r1plus_model_repo.importing.smollm2 import build_engines
from support.engine.client import Answer, Client
from support.engine.server import Server, deliver, laid_out, serving

BATCHES = (1, 8, 32)
MOST = max(BATCHES)
CONTEXT = 1024
TOKENS = 64
ROUNDS = 3
PROBES_PER_MINUTE = 6
"""`spec.accuracy.probesPerMinute`, by default."""
AMPLIFIED = 10
"""So many times that rate is measured, since the default's cost is less than the noise of any two runs."""
PAIRS = 3
CANCEL_TOKENS = 400
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Batch:
    """So many questions at once."""

    tokens_per_second: float
    ttft_p50_ms: float
    ttft_p99_ms: float
    piece_gap_p99_ms: float
    """Between two pieces of an answer; at a full batch a piece has several tokens."""


@dataclass(frozen=True, slots=True)
class Report:
    """The JSON line."""

    engine: str
    tokens: int
    """Of each answer."""
    batches: dict[str, Batch]
    ratio_32_to_1: float
    """Tokens per second."""
    triton_to_in_process: float
    """Tokens per second at 32, streaming through gRPC, to the same pipeline in a process of its own."""
    peak_rss_mb: float
    """Of the server and its stubs."""
    probes_cost_percent: float
    """Of the tokens per second at 32, at the default rate; measured at ten times the rate, in pairs."""
    cancel_steps: float
    """Steps of the batch until a cancelled request's slot is free."""
    left_alone_running: int
    """The control: of the same requests, left alone for as long, so many still run."""
    prefix_caching_first_token_ratio: float
    """Without to with, for questions that share a system prompt of some 400 tokens; the product has it off."""
    long_prompt_mb: float
    """Memory that a prompt of nearly 8192 tokens adds in process."""
    long_prompt_evicting_mb: float
    """The same with cache eviction, which the product has off."""


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description="Serving, measured.")
    parser.add_argument("--engine", default="smollm2-edge-q4-1")
    name = parser.parse_args().engine
    exit_at_sigterm()
    print(machine(), flush=True)
    spec = next(e.spec for e in load_catalog(Path(catalog.__file__).parent) if e.name == name)
    folder = build_engines(cache_dir() / "engines", print)[name].folder
    settings = _settings(spec, folder)
    with serve_engine(spec, folder) as server:
        batches, alone = _batches(server)
        cost = _probes_cost(server)
        steps, left = _cancel(server)
        peak = server.peak_bytes()
    inside = _in_process(settings, "throughput", "--questions", json.dumps(_prompts(MOST)), "--tokens", str(TOKENS))
    with serve_engine(spec, folder) as server:
        again, _ = _batches(server, (MOST,))
    many = statistics.mean((batches[MOST].tokens_per_second, again[MOST].tokens_per_second))
    prefix = [_in_process(settings, "prefix", *option)["first_token_seconds"] for option in ((), ("--option",))]
    long = _settings(spec, folder, context=8192)
    added = [_in_process(long, "long", *option)["added_mb"] for option in ((), ("--option",))]
    report = Report(
        engine=name,
        tokens=TOKENS,
        batches={str(count): figures for count, figures in batches.items()},
        ratio_32_to_1=batches[MOST].tokens_per_second / alone,
        triton_to_in_process=many / inside["tokens_per_second"],
        peak_rss_mb=peak / 2**20,
        probes_cost_percent=cost,
        cancel_steps=steps,
        left_alone_running=left,
        prefix_caching_first_token_ratio=prefix[0] / prefix[1],
        long_prompt_mb=added[0],
        long_prompt_evicting_mb=added[1],
    )
    print(json.dumps(_rounded(dataclasses.asdict(report))))


def _settings(spec: EngineSpec, folder: Path, context: int = CONTEXT) -> Json:
    per_token = spec.shape.kv_bytes_per_token
    return {
        "path": str(folder),
        "max_batch": MOST,
        "context": context,
        "kv_cache_bytes": MOST * context * per_token,
        "kv_bytes_per_token": per_token,
        "threads": int(float(spec.requirements.cpu)),
    }


@contextmanager
def serve_engine(spec: EngineSpec, folder: Path) -> Iterator[Server]:
    """A tritonserver with the engine, as a pod has it."""
    with tempfile.TemporaryDirectory(prefix="r1plus-bench-") as name:
        models = deliver(Path(name), spec, folder, MOST, CONTEXT)
        with laid_out() as installed, serving(Server(Path(name), installed, models)) as server:
            yield server


def _prompts(count: int) -> list[str]:
    return [f"Tell me a long story about a lighthouse. Number {n}." for n in range(count)]


def _asked(client: Client, count: int) -> tuple[list[Answer], float]:
    """So many at once; the answers and how long it took, seconds."""
    started = time.monotonic()
    answers = client.all([{"prompt": prompt, "max_new_tokens": TOKENS} for prompt in _prompts(count)])
    seconds = time.monotonic() - started
    assert all(answer.error == "" for answer in answers), [answer.error for answer in answers]
    return answers, seconds


def _batches(server: Server, counts: tuple[int, ...] = BATCHES) -> tuple[dict[int, Batch], float]:
    """Rounds of all batches in turn, so that a change of the machine's pace meets them all; and the pace of one."""
    found: dict[int, list[tuple[list[Answer], float]]] = {count: [] for count in counts}
    with Client(server.grpc) as client:
        _asked(client, MOST)
        for count in [count for _ in range(ROUNDS) for count in counts]:
            found[count].append(_asked(client, count))
    for count, rounds in found.items():
        print(f"batch {count}: {_figures(rounds)}", flush=True)
    figures = {count: _figures(rounds) for count, rounds in found.items()}
    return figures, figures[counts[0]].tokens_per_second


def _figures(rounds: list[tuple[list[Answer], float]]) -> Batch:
    answers = [answer for found, _ in rounds for answer in found]
    firsts = [answer.came_at[0] - answer.begun_at for answer in answers]
    gaps = [after - before for answer in answers for before, after in itertools.pairwise(answer.came_at)]
    return Batch(
        tokens_per_second=sum(answer.tokens for answer in answers) / sum(seconds for _, seconds in rounds),
        ttft_p50_ms=1000 * _quantile(firsts, 0.5),
        ttft_p99_ms=1000 * _quantile(firsts, 0.99),
        piece_gap_p99_ms=1000 * _quantile(gaps, 0.99),
    )


def _quantile(values: list[float], share: float) -> float:
    """The smallest value that so large a share is not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _probes_cost(server: Server) -> float:
    """What probes at the default rate take from a full batch, percent of its tokens per second."""
    period = 60.0 / (PROBES_PER_MINUTE * AMPLIFIED)
    with Client(server.grpc) as client, Client(server.grpc) as monitor:
        paces: dict[bool, list[float]] = {True: [], False: []}
        for probed in [True, False] * PAIRS:
            paces[probed].append(_pace(client, monitor, period if probed else None))
    slower = 1 - statistics.median(paces[True]) / statistics.median(paces[False])
    print(f"probes at {AMPLIFIED} times the default rate slow a full batch by {100 * slower:.2f} %", flush=True)
    return 100 * slower / AMPLIFIED


def _pace(client: Client, monitor: Client, period: float | None) -> float:
    """Tokens per second of three full batches in a row, with a probe each `period` seconds beside them."""
    asked = [{"prompt": prompt, "max_new_tokens": TOKENS} for prompt in _prompts(MOST)]
    tokens, started, next_probe = 0, time.monotonic(), time.monotonic()
    for _ in range(3):
        answers = [client.begin(**question) for question in asked]  # type: ignore[arg-type]
        while not all(answer.ended_at for answer in answers):
            if period is not None and time.monotonic() >= next_probe:
                monitor.begin("What is the capital of France?", max_new_tokens=16)
                next_probe += period
            client.take()
        tokens += sum(answer.tokens for answer in answers)
    seconds = time.monotonic() - started
    while monitor.waiting:
        monitor.take()
    return tokens / seconds


RUNNING = "r1plus_engine_running_requests"


def _cancel(server: Server) -> tuple[float, int]:
    """Steps until a hung-up batch has left, and how many of the same requests still ran when left alone as long."""
    with Client(server.grpc) as client:
        step = _fill_up(client, server)
        began = time.monotonic()
        client.hang_up()
        server.until_metric(RUNNING, 0)
        freed = time.monotonic() - began
        _fill_up(client, server)
        began = time.monotonic()
        while time.monotonic() - began < freed:
            client.take()
        left = int(server.metric(RUNNING))
        client.hang_up()
        server.until_metric(RUNNING, 0)
    print(
        f"a hung-up batch left after {1000 * freed:.0f} ms, {freed / step:.1f} steps of {1000 * step:.0f} ms",
        flush=True,
    )
    return freed / step, left


def _fill_up(client: Client, server: Server) -> float:
    """A full batch of long answers, running; the seconds of a step, by the tokens of all."""
    answers = [client.begin(prompt, max_new_tokens=CANCEL_TOKENS) for prompt in _prompts(MOST)]
    server.until_metric(RUNNING, MOST)
    begun, tokens = _take_until(client, answers, 4 * MOST)
    ended, all_tokens = _take_until(client, answers, 12 * MOST)
    return MOST * (ended - begun) / (all_tokens - tokens)


def _take_until(client: Client, answers: list[Answer], tokens: int) -> tuple[float, int]:
    """Take responses until the answers have so many tokens together; return when that was, and how many they have."""
    while (count := sum(answer.tokens for answer in answers)) < tokens:
        client.take()
    return time.monotonic(), count


def _in_process(settings: Json, mode: str, *options: str) -> Json:
    """One measurement in a process of its own."""
    command = [sys.executable, "-m", "bench.serving.in_process", json.dumps(settings), mode, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = dict(json.loads(done.stdout.splitlines()[-1]))
    print(f"in process, {mode}{' (option)' if '--option' in options else ''}: {_rounded(found)}", flush=True)
    return found


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return round(value, 2) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
