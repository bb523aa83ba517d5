"""The bench's other pure parts: the kernel's figures, the operator's metrics, and what counts as undone."""

import os
from pathlib import Path
from typing import Any

import pytest

from bench.reconcile.drift import HASH, PROMOTED, Outcome, same
from bench.reconcile.fields import ABSENT
from bench.reconcile.floor import answer_to, created
from bench.reconcile.procfs import usage
from bench.reconcile.stage import deployment, exposed
from unit.operator.plan.world import World


def test_cpu_and_memory_are_read_whatever_the_command_is_called(tmp_path: Path) -> None:
    folder = tmp_path / "7"
    folder.mkdir()
    ticks = os.sysconf("SC_CLK_TCK")
    (folder / "stat").write_text(f"7 (a) b c) S 1 1 1 0 -1 0 0 0 0 0 {2 * ticks} {ticks} 99 99 20 0 1 0 5 6 7\n")
    (folder / "status").write_text("Name:\ta\nVmHWM:\t  204800 kB\nVmRSS:\t  102400 kB\n")
    found = usage(7, tmp_path)
    assert (found.cpu_seconds, found.rss_mb, found.peak_rss_mb) == (3.0, 100.0, 200.0)


def test_passes_of_every_result_count_and_what_waits() -> None:
    text = """# HELP r1plus_reconcile_total Passes.
r1plus_reconcile_total{result="ok"} 5.0
r1plus_reconcile_total{result="error"} 1.0
r1plus_reconcile_created{result="ok"} 1.7e+09
r1plus_queue_depth 3.0
"""
    assert exposed(text) == (6.0, 3.0)


A = ("f:spec", "f:a")


@pytest.mark.parametrize(
    ("now", "before", "undone"),
    [
        ({A: 1, HASH: "h"}, {A: 1, HASH: "h"}, True),
        ({A: 2, HASH: "h"}, {A: 1, HASH: "h"}, False),
        ({A: ABSENT}, {A: ABSENT}, True),
        ({A: 1, HASH: "other"}, {A: 1, HASH: "h"}, False),
        ({A: 1, HASH: "other", PROMOTED: "2"}, {A: 1, HASH: "h", PROMOTED: "1"}, True),
        ({A: 1, HASH: "h", PROMOTED: ABSENT}, {A: 1, HASH: "h", PROMOTED: "1"}, False),
        ({A: 2, HASH: "h", PROMOTED: "1"}, {A: 1, HASH: "h", PROMOTED: "1"}, False),
    ],
    ids=[
        "all as before",
        "another value",
        "what was absent is absent",
        "another hash",
        "a promotion of another time, and its hash",
        "a promotion that is gone",
        "another value beside a promotion",
    ],
)
def test_what_counts_as_undone(now: dict[Any, Any], before: dict[Any, Any], undone: bool) -> None:
    assert same(now, before) is undone


def test_an_outcome_counts_what_was_tried_and_what_was_undone() -> None:
    outcome = Outcome([1.0, 9.0, 2.0], ["Service a: deleted"], refused=7)
    assert (outcome.tried, outcome.restored, outcome.median_ms) == (4, 3, 2.0)
    assert Outcome().median_ms == 0.0


def test_the_floor_writes_the_status_and_every_child_of_a_first_pass() -> None:
    world = World({"tier": "full"})
    writes = answer_to(world.observed(), world.config)
    planned = world.pass_once()
    assert len(writes) == planned.writes + 1
    assert writes[0].path.endswith("/r1plusdeployments/credit/status?fieldManager=r1plus-operator&force=true")
    assert {write.method for write in writes} == {"PATCH"}
    assert b'"uid"' not in writes[0].body


def test_the_user_posts_a_whole_cr() -> None:
    write = created(deployment("t", 7))
    assert (write.method, write.path) == ("POST", "/apis/r1plus.ai/v1alpha1/namespaces/t/r1plusdeployments")
    assert b'"d00007"' in write.body
