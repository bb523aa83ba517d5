"""The largest engine that is shipped, as the tier `full`: its gate asks all of its suite, then it answers.

`make test-long NAME=full` runs it alone: the weights are 1 GB of packages, and the gate takes longer than all of `make test`. The
last line is JSON.
"""

import json
from pathlib import Path

import pytest

from bench.reconcile.stage import machine
from r1plus_edge.pods.processes import read_proportional_memory
from r1plus_edge.report import ServePhase
from support.edge.served import DEPLOYMENT, Served, split_processes

HOURS = 3600.0
pytestmark = [pytest.mark.edge, pytest.mark.timeout(6 * HOURS)]
ENGINE, SUITE = "qwen-full-q4-k-m", "qwen-full-v1"


def test_the_largest_engine_passes_all_of_its_suite_and_answers(tmp_path: Path) -> None:
    document = DEPLOYMENT.replace("tier: edge", "tier: full").replace("maxBatchSize: 4", "maxBatchSize: 16")
    served = Served(tmp_path, Path(SUITE), document)
    try:
        served.start("--family", "qwen")
        served.until(ServePhase.SERVING, 5 * HOURS)
        status = served.status
        answer = served.ask("Which Python keyword begins a function?")
        assert (status.engine, status.verdict, answer.status_code) == (ENGINE, "Pass", 200)
        assert "def" in answer.json()["choices"][0]["message"]["content"]
        assert status.accuracy.endswith(f"/{len(_list_items())}"), "the gate asks all items"
        figures = {
            "engine": ENGINE,
            "suite": SUITE,
            "right": status.accuracy,
            "gate_seconds": round(sum(step.seconds for step in status.steps if step.name == "gate")),
            "engine_mib": round(read_proportional_memory(split_processes(served)[1]) / 2**20),
            "machine": machine(),
        }
        print(f"\n{json.dumps(figures)}")  # pytest has begun the line
    finally:
        served.end()


def _list_items() -> list[str]:
    return (Path(__file__).parents[2] / "monitoring" / "suites" / SUITE / "items.jsonl").read_text().splitlines()
