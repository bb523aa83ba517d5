"""A gateway that is killed while it changes content: what is left is the state before the change."""

import json
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from support.paths import TESTS
from support.scratch import make_scratch_folder
from support.tables import for_each
from support.waiting import DEADLINE_SECONDS

pytestmark = pytest.mark.first_run_counts


def kill_at_statements(folder: Path, module: str, stride: int, least: int) -> None:
    """Kill a gateway at its statements, and look at what each kill left: so many states at least."""
    command = [sys.executable, "-m", f"support.gateway.{module}", str(folder), str(stride)]
    done = subprocess.run(
        command, cwd=TESTS, capture_output=True, text=True, timeout=20 * DEADLINE_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    assert result["problems"] == [], done.stderr[-2000:]
    states: dict[int, list[object]] = {}
    for steps, state in result["seen"]:
        states.setdefault(steps, [])
        if state not in states[steps]:
            states[steps].append(state)
    assert {steps: len(found) for steps, found in states.items()} == dict.fromkeys(states, 1)
    assert all(before != after for before, after in pairwise(states.values())), "each step changes what is read"
    assert len(states) >= least


LONG = (pytest.mark.unit_long, pytest.mark.timeout(3000))


@pytest.mark.unit_slow
@for_each("module, stride, least", {
    "conversations": ("content_crash", 12, 12),
    "knowledge": ("knowledge_crash", 36, 9),
    "large deletions": ("deletion_crash", 16, 9),
    "large erasures": ("erasure_crash", 8, 5),
    "ingestion": ("ingestion_crash", 16, 5),
    "conversations, at each statement": pytest.param("content_crash", 1, 28, marks=LONG),
    "knowledge, at each statement": pytest.param("knowledge_crash", 1, 38, marks=LONG),
    "large deletions, at each statement": pytest.param("deletion_crash", 1, 9, marks=LONG),
    "large erasures, at each statement": pytest.param("erasure_crash", 1, 10, marks=LONG),
    "ingestion, at each statement": pytest.param("ingestion_crash", 1, 10, marks=LONG),
})  # fmt: skip
def test_each_change_is_there_as_a_whole_or_not_at_all(module: str, stride: int, least: int) -> None:
    folder = make_scratch_folder("r1plus-crash-")
    try:
        kill_at_statements(folder, module, stride, least)
    finally:
        shutil.rmtree(folder)
