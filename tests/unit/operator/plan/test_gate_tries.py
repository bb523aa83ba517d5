"""A candidate passes one gate more for each earlier try of its engine on the same suite that failed."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from r1plus_contract.monitor.settings import ControlOrder
from r1plus_contract.names import ANNOTATION_VERDICT, ANNOTATION_VERDICT_NUMBERS
from r1plus_contract.requests import Verb
from r1plus_contract.verdict import MonitorReport, Verdict
from r1plus_operator.plan.accuracy.gate_tries import MOST_REPEATS
from r1plus_operator.plan.revision.storage import read_revision
from r1plus_policies.rollback.response import CANDIDATE_SECONDS
from support.plan.world import DAY, FULL, Q4_1, World, serve_world
from support.tables import for_each

MOVED: dict[str, Any] = {"placement": {"tolerations": [{"key": "gpu", "operator": "Exists"}]}}


def try_gate(world: World, verdict: Verdict, at: int, **spec: Any) -> str:
    """Let the revision of a changed spec decide its first gate; return its name."""
    name = world.apply(**spec)
    world.start_pods(name).settle()
    world.gate(name, verdict, lost=3 * (verdict is Verdict.FAIL)).report_gate(
        name, decided_at=f"2026-01-01T00:{at:02}:00Z"
    )
    world.settle()
    world.set_ready(name).settle()
    return name


def repeat_gate(world: World, name: str, verdict: Verdict, at: int) -> None:
    """Let the monitors answer the order that they got."""
    world.control(verdict, lost=3 * (verdict is Verdict.FAIL))
    world.report_gate(name, decided_at=f"2026-01-01T00:{at:02}:00Z").settle()


def read_stored_gate(world: World, name: str, reported: MonitorReport) -> None:
    """Let the pod of a revision report the gate that another of the same identity has passed, as that reported it."""
    world.start_pods(name)
    world.reports[f"{name}-0"] = replace(reported, revision=name, ran_under="")
    world.settle()


def refuse(world: World, count: int) -> None:
    for n in range(count):
        try_gate(world, Verdict.FAIL, n, context={"maxTokens": 1000 - n})


@for_each("tries, repeats", {"none": (0, 0), "one": (1, 1), "two": (2, 2), "more than are counted": (5, MOST_REPEATS)})
def test_each_try_that_failed_asks_for_one_more_pass(tries: int, repeats: int) -> None:
    world = serve_world()
    good = world.selected()
    refuse(world, tries)
    candidate = try_gate(world, Verdict.PASS, 20, context={"maxTokens": 900})
    for n in range(repeats):
        told = ("Unknown GateRunning", f"{repeats - n} more to pass in a row")
        world.expect(serves=good, candidate=candidate, QualityVerified=told, Progressing="True RollingOut")
        order = world.monitor_settings().control
        assert order == ControlOrder(world.revision(candidate).identity_digest, f"{candidate}#{n + 2}")
        repeat_gate(world, candidate, Verdict.PASS, 21 + n)
    assert world.monitor_settings().control is None
    world.expect(serves=candidate, QualityVerified="True GatePassed")


def test_a_fail_among_the_repeats_refuses_the_candidate() -> None:
    world = serve_world()
    good = world.selected()
    refuse(world, 2)
    candidate = try_gate(world, Verdict.PASS, 20, context={"maxTokens": 900})
    repeat_gate(world, candidate, Verdict.FAIL, 21)
    world.expect(serves=good, runs={good: 1}, QualityVerified="False GateFailed", Progressing="CandidateRefused")
    assert world.monitor_settings().control is None


def request_rollback(world: World) -> None:
    world.wait(CANDIDATE_SECONDS).ask(Verb.ROLLBACK, revision=world.selected())


@for_each("stop, gated, progressing", {
    "it is withdrawn after the deadline": (lambda w: w.wait(4000.0), False, "False DeadlineExceeded"),
    "no replicas are asked for": (lambda w: w.change(replicas=0), False, "False Blocked"),
    "an earlier revision repeats the suite in a rollback": (request_rollback, True, "True RollingBack"),
})  # fmt: skip
def test_a_candidate_is_not_said_to_repeat_its_gate_where(
    stop: Callable[[World], None], gated: bool, progressing: str
) -> None:
    world = World(FULL)
    older = world.bring_up()
    world.wait(DAY)
    world.start_pods(older, ready=True).settle()
    good = try_gate(world, Verdict.PASS, 1, context={"maxTokens": 1024})
    refuse(world, 3)
    candidate = try_gate(world, Verdict.PASS, 20, context={"maxTokens": 900})
    world.expect(serves=good, candidate=candidate, QualityVerified="Unknown GateRunning")
    stop(world)
    world.settle()
    said = ("Unknown NotYetKnown", "still has to repeat it, 3 more to pass in a row")
    world.expect(serves=good, QualityVerified=said, Progressing=progressing)
    assert (older in world.deployments()) is gated


def test_the_same_pass_is_counted_once() -> None:
    world = serve_world()
    good = world.selected()
    refuse(world, 1)
    candidate = try_gate(world, Verdict.PASS, 20, context={"maxTokens": 900})
    world.report_gate(candidate, decided_at="2026-01-01T00:30:00Z").settle()
    world.expect(serves=good, candidate=candidate, QualityVerified="Unknown GateRunning")


@for_each("change", {
    "another engine": {"engine": Q4_1},
    "a threshold that allows more": {"accuracy": {"threshold": 0.5}},
    "a gate that only observes": {"accuracy": {"gate": "Observe"}},
})  # fmt: skip
def test_what_changes_the_answers_or_the_terms_passes_at_once(change: dict[str, Any]) -> None:
    world = serve_world()
    refuse(world, 2)
    candidate = try_gate(world, Verdict.PASS, 20, context={"maxTokens": 900}, **change)
    world.expect(serves=candidate)


def test_a_revision_that_passed_before_the_tries_returns_at_once() -> None:
    world = serve_world()
    first = world.selected()
    second = try_gate(world, Verdict.PASS, 1, context={"maxTokens": 900})
    world.expect(serves=second)
    refuse(world, 2)
    world.apply(context={"maxTokens": 2048})
    world.start_pods(first).settle()
    world.gate(first, Verdict.PASS).set_ready(first).settle()
    world.expect(serves=first)


def test_after_a_day_out_of_traffic_the_tries_count_for_a_revision_that_passed_before_them() -> None:
    world = serve_world()
    first = world.selected()
    second = try_gate(world, Verdict.PASS, 1, context={"maxTokens": 900})
    refuse(world, 3)
    world.wait(DAY).settle()
    assert try_gate(world, Verdict.PASS, 20, context={"maxTokens": 2048}) == first
    world.expect(serves=second, candidate=first, QualityVerified=("GateRunning", "3 more to pass in a row"))
    for n in range(3):
        repeat_gate(world, first, Verdict.PASS, 21 + n)
    world.expect(serves=first)


def test_a_revision_with_the_identity_of_one_that_failed_is_refused_by_that_fail() -> None:
    world = serve_world()
    good = world.selected()
    try_gate(world, Verdict.FAIL, 1, context={"maxTokens": 900})
    other = world.apply(**MOVED)
    assert world.monitor_settings().control is None
    world.start_pods(other).settle()
    world.gate(other, Verdict.FAIL, lost=3).report(other, ran_under="").settle()
    world.expect(serves=good, runs={good: 1}, Progressing="CandidateRefused")


def test_no_repeat_is_ordered_of_an_identity_that_serves() -> None:
    """The short check of a further revision fails by chance, so its monitor runs the whole gate."""
    world = serve_world()
    refuse(world, 1)
    good = try_gate(world, Verdict.PASS, 20, context={"maxTokens": 900})
    repeat_gate(world, good, Verdict.PASS, 21)
    world.set_ready(good).settle()
    world.expect(serves=good)
    moved = try_gate(world, Verdict.PASS, 30, **MOVED)
    assert world.revision(moved).identity_digest == world.revision(good).identity_digest
    assert world.monitor_settings().control is None
    world.expect(serves=moved, QualityVerified="True GatePassed")


def test_passes_of_all_revisions_with_the_identity_are_counted() -> None:
    world = serve_world()
    refuse(world, 2)
    first = try_gate(world, Verdict.PASS, 20, context={"maxTokens": 900})
    repeat_gate(world, first, Verdict.PASS, 21)
    world.expect(candidate=first, QualityVerified=("GateRunning", "1 more to pass in a row"))
    moved = try_gate(world, Verdict.PASS, 30, **MOVED)
    assert world.monitor_settings().control is None
    world.expect(serves=moved)


def test_a_fail_among_the_repeats_refuses_further_revisions_with_the_identity() -> None:
    world = serve_world()
    good = world.selected()
    refuse(world, 1)
    first = try_gate(world, Verdict.PASS, 20, context={"maxTokens": 900})
    reported = world.reports[f"{first}-0"]
    moved = world.apply(**MOVED)
    read_stored_gate(world, moved, reported)
    repeat_gate(world, moved, Verdict.FAIL, 21)
    world.expect(serves=good, QualityVerified="False GateFailed")
    again = world.apply(placement={"nodeSelector": {"zone": "a"}})
    known = [v for v in world.known_reports() if v.identity == world.revision(again).identity_digest]
    assert known[0].verdict is Verdict.FAIL
    read_stored_gate(world, again, reported)
    world.set_ready(again).settle()
    assert world.revision(again).verdicts == ()
    world.expect(serves=good)


def test_an_identity_that_serves_after_fewer_passes_repeats_none() -> None:
    world = serve_world()
    refuse(world, 2)
    serving = try_gate(world, Verdict.PASS, 20, context={"maxTokens": 900}, accuracy={"gate": "Observe"})
    world.expect(serves=serving)
    reported = world.reports[f"{serving}-0"]
    moved = world.apply(**MOVED, accuracy={"gate": "Enforce"})
    read_stored_gate(world, moved, reported)
    assert world.monitor_settings().control is None
    world.set_ready(moved).settle()
    world.expect(serves=moved)


@for_each("at", {"whose clock is behind": 0, "whose clock is ahead": 59})
def test_a_try_that_failed_counts_from_a_node(at: int) -> None:
    world = serve_world()
    good = world.selected()
    try_gate(world, Verdict.FAIL, at, context={"maxTokens": 1000})
    candidate = try_gate(world, Verdict.PASS, 20, context={"maxTokens": 900})
    world.expect(serves=good, candidate=candidate, QualityVerified=("GateRunning", "1 more to pass in a row"))
    repeat_gate(world, candidate, Verdict.PASS, 19)
    world.expect(serves=candidate)


def test_tries_that_an_older_operator_recorded_count_by_their_dates() -> None:
    world = serve_world()
    good = world.selected()
    failed = try_gate(world, Verdict.FAIL, 1, context={"maxTokens": 1000})
    del world.one("ControllerRevision", failed)["metadata"]["annotations"][ANNOTATION_VERDICT_NUMBERS]
    candidate = try_gate(world, Verdict.PASS, 20, context={"maxTokens": 900})
    world.expect(serves=good, candidate=candidate, QualityVerified=("GateRunning", "1 more to pass in a row"))


@for_each("at", {"a right clock": 22, "a clock that is behind": 2})
def test_a_later_fail_of_the_identity_overrules_a_pass_by(at: int) -> None:
    world = serve_world()
    refuse(world, 1)
    first = try_gate(world, Verdict.PASS, 20, context={"maxTokens": 900})
    reported = world.reports[f"{first}-0"]
    moved = world.apply(**MOVED)
    read_stored_gate(world, moved, reported)
    repeat_gate(world, moved, Verdict.FAIL, at)
    assert [v.verdict for v in world.revision(first).verdicts] == []


@for_each("numbers", {"too few": "1", "no numbers": "x,-1", "none": ""})
def test_numbers_that_are_not_the_verdicts_are_ignored(numbers: str) -> None:
    world = serve_world()
    stored = world.one("ControllerRevision", world.selected())
    notes = stored["metadata"]["annotations"]
    report = json.loads(notes[ANNOTATION_VERDICT])["reports"][0]
    notes[ANNOTATION_VERDICT] = json.dumps({"reports": [report, {**report, "lost": 1}]})
    notes[ANNOTATION_VERDICT_NUMBERS] = numbers
    assert read_revision(stored).verdict_numbers == {}
