"""What the liveness probe calls a reason to start afresh."""

import time
from dataclasses import dataclass

import httpx
import pytest
from prometheus_client import CollectorRegistry

from r1plus_contract import metrics
from r1plus_operator.health import LATE_SECONDS, STUCK_SECONDS, find_problem, serve
from r1plus_operator.metrics.instruments import OperatorMetrics
from r1plus_operator.plan.status.metrics import PlanMetrics
from r1plus_operator.runtime.resources import Resource


@dataclass
class Watch:
    resource: Resource
    last_activity: float


@pytest.mark.parametrize(
    ("silent_for", "late", "said"),
    [
        ({"pods": 0.0, "nodes": STUCK_SECONDS - 20}, 0.1, ""),
        ({"pods": 0.0, "nodes": STUCK_SECONDS + 1}, 0.1, "watches without an answer for 200 s: nodes"),
        ({"pods": 0.0}, LATE_SECONDS + 1.5, "the event loop was 6.5 s late"),
        ({}, 0.0, ""),
    ],
    ids=["all is well", "a watch is stuck", "the loop is late", "nothing is watched"],
)
def test_problems(silent_for: dict[str, float], late: float, said: str) -> None:
    now = time.monotonic()
    watches = [Watch(Resource("", "v1", plural, plural), now - seconds) for plural, seconds in silent_for.items()]
    assert find_problem(watches, late) == said


@pytest.fixture
def told() -> CollectorRegistry:
    instruments = OperatorMetrics()
    instruments.deployments.record(("team", "credit"), {}, PlanMetrics("full", 0.98))
    return instruments.registry


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ([metrics.QUEUE_DEPTH], {metrics.QUEUE_DEPTH}),
        ([metrics.QUEUE_DEPTH, metrics.DEPLOYMENT_THRESHOLD_RATIO], {metrics.QUEUE_DEPTH, metrics.DEPLOYMENT_THRESHOLD_RATIO}),
        (["unknown"], set()),
    ],
    ids=["one of the operator", "one of each deployment, too", "one that there is not"],
)  # fmt: skip
async def test_a_scrape_may_choose_its_metrics(told: CollectorRegistry, asked: list[str], found: set[str]) -> None:
    runner = await serve(0, lambda: True, lambda: "", told)
    # Of port 0 each family of addresses has its own.
    port = next(port for host, port, *_ in runner.addresses if ":" not in host)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            whole = samples((await http.get("/metrics")).text)
            chosen = samples((await http.get("/metrics", params={"name[]": asked})).text)
    finally:
        await runner.cleanup()
    assert {line.split(" ")[0].split("{")[0] for line in chosen} == found
    assert chosen <= whole
    assert any(line.startswith(metrics.ROLLBACK_BLOCKED) for line in whole)


def samples(text: str) -> set[str]:
    return {line for line in text.splitlines() if not line.startswith("#")}
