"""The bench's other pure parts: the kernel's figures, the operator's metrics, and what counts as undone."""

import os
from pathlib import Path
from typing import Any

import pytest

from bench.reconcile.__main__ import drift_groups
from bench.reconcile.drift import Outcome, differences, same, substance, without_record
from bench.reconcile.fields import ABSENT
from bench.reconcile.floor import answer_to, created
from bench.reconcile.procfs import usage
from bench.reconcile.stage import deployment, exposed
from r1plus_contract import names
from support.plan.world import World


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


A, B = ("f:spec", "f:a"), ("f:spec", "f:b")


@pytest.mark.parametrize(
    ("now", "before", "undone"),
    [
        pytest.param({A: 1, B: "h"}, {A: 1, B: "h"}, True, id="all as before"),
        pytest.param({A: 2, B: "h"}, {A: 1, B: "h"}, False, id="another value"),
        pytest.param({A: 1, B: ABSENT}, {A: 1, B: "h"}, False, id="one is gone"),
        pytest.param({A: ABSENT, B: "h"}, {A: ABSENT, B: "h"}, True, id="what was absent is absent"),
    ],
)
def test_what_counts_as_undone(now: dict[Any, Any], before: dict[Any, Any], undone: bool) -> None:
    assert same(now, before) is undone
    assert differences(now, before).startswith("every owned field is as before") is undone


@pytest.mark.parametrize(
    ("now", "alike"),
    [
        ({"metadata": {"labels": {"a": "b"}}, "status": 1, "spec": {"l": [{"n": "b"}, {"n": "a"}]}}, True),
        ({"spec": {"l": [{"n": "a"}, {"n": "b"}, {"n": "c"}]}}, False),
        ({"spec": {"l": [{"n": "a"}, {"n": "b", "x": 1}]}}, False),
    ],
    ids=["another order, and what is beside", "an item that stayed", "a field that stayed"],
)
def test_nothing_foreign_stays(now: dict[str, Any], alike: bool) -> None:
    assert (substance(now) == substance({"spec": {"l": [{"n": "a"}, {"n": "b"}]}})) is alike


@pytest.mark.parametrize("annotation", [names.ANNOTATION_PROMOTED_AT, names.ANNOTATION_CANDIDATE_SINCE, names.ANNOTATION_VERDICT])  # fmt: skip
def test_a_revisions_record_is_left_alone_and_the_rest_is_not(annotation: str) -> None:
    spec, labels = {"f:spec": {"f:a": {}}}, {"f:labels": {"f:b": {}}}
    recorded = {**spec, "f:metadata": {**labels, "f:annotations": {".": {}, f"f:{annotation}": {}}}}
    assert without_record(recorded) == {**spec, "f:metadata": labels}
    plain = {**spec, "f:metadata": {**labels, "f:annotations": {".": {}, "f:x": {}}}}
    assert without_record(plain) == plain


@pytest.mark.parametrize(
    ("count", "groups"),
    [(1, [["d00000"]]), (11, [["d00000", "d00001", "d00002"], ["d00010"]])],
    ids=["one alone is Ready", "three that are Ready, and of those that are not as many as there are"],
)
def test_who_is_raided(count: int, groups: list[list[str]]) -> None:
    assert drift_groups(count) == groups


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
