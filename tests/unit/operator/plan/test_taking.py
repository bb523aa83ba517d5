"""Verdicts that monitors are told of: of what runs first, the newest first, and never more than a ConfigMap holds."""

from dataclasses import replace
from typing import Any

from r1plus_contract.jsonable import dumps
from r1plus_contract.suites.suite_files import MAX_BYTES
from r1plus_contract.verdict import GateReport, StratumFigures, Verdict
from r1plus_operator.plan.accuracy.gate_results import (
    MOST_VERDICT_BYTES,
    RecordTerms,
    record_gate_result,
    select_known_verdicts,
)
from r1plus_operator.plan.revision.record import Revision
from r1plus_operator.plan.revision.storage import KEPT_VERDICTS, MAX_LISTED, clip_report, read_revision, to_object
from r1plus_policies.gate.verdict import rejudge
from support.plan.world import NEXT, World, serve_world
from support.tables import for_each

HASH = "h" * 64
MIB = 1024 * 1024


def revision(name: str, *verdicts: GateReport) -> Revision:
    world = World({"tier": "full"})
    stored = world.revision(world.bring_up())
    return replace(stored, name=name, verdicts=verdicts)


def gate(message: str, *, lost: int = 0, suite_hash: str = HASH) -> GateReport:
    items = tuple(f"item-{n:03}" + "x" * 100 for n in range(lost))
    report = GateReport(Verdict.FAIL, "TooManyLost", message, "i", "s", suite_hash, "1", 0.98, 200, lost, 4)
    return clip_report(replace(report, lost_items=items))


def test_what_runs_comes_first_and_the_newest_of_each() -> None:
    idle, runs = (
        revision("a", gate("a1"), gate("a2")),
        revision("b", gate("b1"), gate("other", suite_hash="o"), gate("b2")),
    )
    assert [v.message for v in select_known_verdicts([idle, runs], {"b": 1}, HASH)] == ["b2", "a2", "b1", "a1"]


def test_a_history_of_large_verdicts_leaves_room_for_the_suite() -> None:
    history = [revision(f"r{n}", *(gate(f"{n}.{i} " + "m" * 990, lost=50) for i in range(5))) for n in range(10)]
    chosen = select_known_verdicts(history, {"r7"}, HASH)
    assert chosen[0].message.startswith("7.4")
    assert 5 < len(chosen) < 50
    size = sum(len(dumps(verdict)) + 1 for verdict in chosen)
    assert size <= MOST_VERDICT_BYTES
    assert sum(MAX_BYTES[name] for name in ("suite.json", "items.jsonl", "reference.jsonl")) + MOST_VERDICT_BYTES < MIB


def test_one_that_is_too_large_does_not_keep_the_others_out() -> None:
    broken = replace(gate("broken"), message="é" * MOST_VERDICT_BYTES)
    assert [v.message for v in select_known_verdicts([revision("a", gate("old"), broken)], {"a"}, HASH)] == ["old"]


OF_ONE_POD = GateReport(Verdict.FAIL, "TooManyLost", "", "", "s", HASH, "1", 0.98, 200, 9, 4, decided_at="2")
PASS_AT_1 = replace(OF_ONE_POD, verdict=Verdict.PASS, lost=0, batch=1, acknowledged="a token", decided_at="3")


@for_each("decided_at", {"a clock that is behind": "1", "a right clock": "4"})
@for_each("is_new, counts", {
    "its monitor has not acted on the acknowledgement": ({"has_acted": False}, Verdict.PASS),
    "it failed under a threshold that is no longer in force": ({"threshold": 0.97}, Verdict.PASS),
    "it failed after the acknowledgement": ({}, Verdict.FAIL),
})  # fmt: skip
def test_two_pods_of_which_one_passes_and_one_fails_come_to_an_end(
    decided_at: str, is_new: dict[str, Any], counts: Verdict
) -> None:
    stored = revision("a")
    scored = {"identity": stored.identity_digest}
    known = replace(stored, verdicts=(replace(OF_ONE_POD, batch=stored.batch, **scored),))
    mended = replace(PASS_AT_1, **scored)
    threshold, has_acted = is_new.get("threshold", 0.98), is_new.get("has_acted", True)
    failed = replace(OF_ONE_POD, batch=stored.batch, decided_at=decided_at, threshold=threshold, **scored)
    terms, seen = RecordTerms({HASH}, 0.98, "a token"), []
    for _ in range(4):
        known = record_gate_result(known, mended, terms)
        known = record_gate_result(known, failed, terms, has_acted=has_acted)
        seen.append(known.verdicts)
    assert seen[0] == seen[-1]
    standing = known.verdict_for(HASH, 0.98)
    assert standing.verdict is counts


@for_each("lost, is_taken", {
    "that its figures meet": (4, True),
    "that its figures miss": (5, False),
})  # fmt: skip
def test_a_pass_under_another_threshold_is_taken_under_one(lost: int, is_taken: bool) -> None:
    """A monitor goes by such a Pass and asks nothing more: passed over, it would be waited for in vain."""
    stored = revision("a")
    strata = (StratumFigures("s", 200, lost, 21),)
    passed = replace(PASS_AT_1, identity=stored.identity_digest, threshold=0.9, lost=lost, strata=strata)
    assert (record_gate_result(stored, passed, RecordTerms({HASH}, 0.98)).verdicts != ()) is is_taken


def pass_of_strata(*lost: int) -> GateReport:
    """A Pass at 0.9 of 70 strata of 20 items each, of which the last ones have lost these."""
    strata = tuple(StratumFigures(f"s{n:02}", 20, 0, 3) for n in range(70 - len(lost)))
    strata += tuple(StratumFigures(f"z{n:02}", 20, count, 3) for n, count in enumerate(lost))
    return replace(PASS_AT_1, threshold=0.9, items=1400, lost=sum(lost), strata=strata)


@for_each("lost, threshold, verdict", {
    "a stratum that lost too much decides": ((3,), 0.98, None),
    "one whose loss is allowed does not": ((1, 1), 0.98, Verdict.PASS),
    "more of them than are stored, with one item each": ((1,) * 65, 0.951, Verdict.PASS),
    "more of them than are stored, with two items each": ((2,) * 66, 0.901, None),
    "the same under a lower threshold": ((2,) * 66, 0.89, Verdict.PASS),
})  # fmt: skip
def test_a_stored_pass_of_many_strata_is_judged_again(
    lost: tuple[int, ...], threshold: float, verdict: Verdict
) -> None:
    stored = clip_report(pass_of_strata(*lost))
    assert len(stored.strata) == MAX_LISTED
    assert rejudge(stored, 0.9) is Verdict.PASS
    assert rejudge(stored, threshold) is verdict


def test_what_was_passed_at_the_serving_batch_is_kept_however_many_suites_take_effect_beside_traffic() -> None:
    known = revision("a")
    passed = replace(PASS_AT_1, identity=known.identity_digest, acknowledged="")
    known = replace(known, verdicts=(replace(passed, batch=known.batch),))
    versions = [str(n) for n in range(KEPT_VERDICTS + 1)]
    for version in versions:
        known = record_gate_result(known, replace(passed, suite_hash=version), RecordTerms({version}, 0.98))
        known = read_revision(to_object(known, {"name": "a"}))
    assert [v.suite_hash for v in known.verdicts] == [HASH, *versions[2:]]
    assert known.has_passed(versions[-1], 0.98)


def test_a_threshold_that_allows_the_same_losses_gives_a_refused_candidate_no_other_try() -> None:
    world = serve_world()
    good, bad = world.selected(), world.apply(**NEXT)
    world.start_pods(bad).settle()
    world.gate(bad, Verdict.FAIL, lost=1).settle()
    world.change(accuracy={"threshold": 0.9799}).settle()
    world.expect(serves=good, runs={good: 1}, Progressing="CandidateRefused")
    world.change(accuracy={"threshold": 0.7}).settle()
    world.expect(serves=good, runs={good: 1, bad: 1}, Progressing="RollingOut")
