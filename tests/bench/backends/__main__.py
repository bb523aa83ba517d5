"""`make bench NAME=backends`: the same numbers in OpenVINO and in vLLM on CPU, each through the real Triton.

Both are gated on the same golden suite by the monitor's own gate. Then it compares the answers of the sweep at batch 1,
item by item, and measures tokens per second and memory. The last line is JSON. The exit status is 1 unless both pass.
`--quick` shows that it runs: a sample of the suite under the rules of a short check, and few tokens.
"""

import argparse
import dataclasses
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.reconcile.stage import machine
from bench.running import exit_at_sigterm
from devcluster.cache import cache_dir
from r1plus_contract.verdict import Verdict
from r1plus_edge.pods.processes import read_proportional_memory
from r1plus_model_repo.importing.smollm2 import build_engines
from r1plus_monitoring.curate.record import read_suite
from r1plus_policies.gate.verdict import Rules
from support.engine.gate import GateOutcome, run_gate
from support.engine.server import BATCH, CONTEXT, ENGINES, Server, deliver, ending, laid_out
from support.engine.throughput import measure_throughputs
from support.vllm import environment
from support.vllm.engine import OPENVINO_TWIN, convert_smollm2, deliver_vllm

SUITES: Final = Path(__file__).parents[3] / "monitoring" / "suites"
BATCHES: Final = (1, 8, 32)
TOKENS: Final = 64
ROUNDS: Final = 3
QUICK_TOKENS, QUICK_ITEMS = 8, 32
MOST_NAMED: Final = 10
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class BackendFigures:
    """Of one backend, in the JSON line."""

    verdict: str
    message: str
    correct: int
    """Items that were right when they were asked last."""
    gate_seconds: float
    start_seconds: float
    tokens_per_second: dict[str, float]
    """By requests at once."""
    memory_mib: float
    """Of all processes after the gate and the full batches; a page that several share counts in parts."""


def main() -> int:
    """Gate and measure both; print a JSON line last. Return the exit status."""
    parser = argparse.ArgumentParser(description="One checkpoint in two backends.")
    parser.add_argument("--suite", default="smollm2-full-v1")
    parser.add_argument("--threshold", type=float, default=0.98)
    # OpenVINO has those that its engine asks for.
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of vLLM")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    exit_at_sigterm()
    print(machine(), flush=True)
    suite = read_suite(SUITES / arguments.suite)
    rules = Rules(threshold=arguments.threshold, batch=BATCH)
    rounds, tokens = ROUNDS, TOKENS
    if arguments.quick:
        suite = dataclasses.replace(suite, items=suite.items[:: len(suite.items) // QUICK_ITEMS])
        rules, rounds, tokens = Rules.for_sample(BATCH), 1, QUICK_TOKENS
    with tempfile.TemporaryDirectory(prefix="r1plus-bench-") as name, laid_out() as installed:
        root = Path(name)
        gates, figures = {}, {}
        for backend, python in (("openvino", sys.executable), ("vllm", str(environment.prepare()))):
            (root / backend).mkdir()
            models = _deliver(backend, root / backend, arguments.threads)
            began = time.monotonic()
            with ending(Server(root / backend, installed, models, python=python)) as server:
                server.until_ready()
                started = time.monotonic() - began
                gates[backend] = run_gate(server, suite, rules)
                figures[backend] = _measure(server, gates[backend], started, rounds, tokens)
            print(f"{backend}: {figures[backend]}", flush=True)
    report = {
        "engine": OPENVINO_TWIN,
        "suite": arguments.suite,
        "items": len(suite.items),
        "quick": arguments.quick,
        "vllm_threads": arguments.threads,
        **{backend: dataclasses.asdict(one) for backend, one in figures.items()},
        "agreement": _compare(gates["openvino"], gates["vllm"]),
        "machine": machine(),
    }
    print(json.dumps(report))
    return 0 if all(gate.judgement.verdict is Verdict.PASS for gate in gates.values()) else 1


def _deliver(backend: str, root: Path, threads: int) -> Path:
    if backend == "vllm":
        return deliver_vllm(root, convert_smollm2(root / "checkpoint"), BATCH, CONTEXT, threads)
    folder = build_engines(cache_dir() / "engines", print, [OPENVINO_TWIN])[OPENVINO_TWIN].folder
    return deliver(root, ENGINES[OPENVINO_TWIN], folder, BATCH, CONTEXT)


def _measure(server: Server, gate: GateOutcome, start_seconds: float, rounds: int, tokens: int) -> BackendFigures:
    speeds = {
        str(count): measure_throughputs({"": server}, count, rounds, tokens)[""].tokens_per_second for count in BATCHES
    }
    processes = (server.process.pid, *server.descendants())
    return BackendFigures(
        verdict=gate.judgement.verdict.value,
        message=gate.judgement.message,
        correct=gate.correct,
        gate_seconds=round(gate.seconds, 1),
        start_seconds=round(start_seconds, 1),
        tokens_per_second=speeds,
        memory_mib=round(read_proportional_memory(processes) / 2**20),
    )


def _compare(one: GateOutcome, other: GateOutcome) -> Json:
    """Return on how many items both agree; only items that both have answered count."""
    shared = sorted(one.answers.keys() & other.answers.keys())
    texts = [item for item in shared if one.answers[item].text != other.answers[item].text]
    results = [item for item in shared if one.answers[item].result is not other.answers[item].result]
    return {
        "items": len(shared),
        "same_result": len(shared) - len(results),
        "same_text": len(shared) - len(texts),
        "other_result": results[:MOST_NAMED],
        "other_text": texts[:MOST_NAMED],
    }


if __name__ == "__main__":
    sys.exit(main())
