"""What the liveness probe calls a reason to start afresh."""

import time
from dataclasses import dataclass

import pytest

from r1plus_operator.health import LATE_SECONDS, STUCK_SECONDS, problem
from r1plus_operator.runtime.resources import Resource


@dataclass
class Watch:
    resource: Resource
    last_activity: float


@pytest.mark.parametrize(
    ("silent_for", "late", "said"),
    [
        ({"pods": 0.0, "nodes": STUCK_SECONDS - 20}, 0.1, ""),
        ({"pods": 0.0, "nodes": STUCK_SECONDS + 1}, 0.1, "no sign of life from the watches of nodes for 200 s"),
        ({"pods": 0.0}, LATE_SECONDS + 1.5, "the event loop was 6.5 s late"),
        ({}, 0.0, ""),
    ],
    ids=["all is well", "a watch is stuck", "the loop is late", "nothing is watched"],
)
def test_problems(silent_for: dict[str, float], late: float, said: str) -> None:
    now = time.monotonic()
    watches = [Watch(Resource("", "v1", plural, plural), now - seconds) for plural, seconds in silent_for.items()]
    assert problem(watches, late) == said
