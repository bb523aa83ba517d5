"""What is done about a fall: a pod before its revision, a control before the switch, a reason for every way not to."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from r1plus_contract.verdict import Verdict, WatchStanding
from r1plus_policies.rollback import decision
from r1plus_policies.rollback.decision import CHECKS, respond
from r1plus_policies.rollback.response import (
    BAKE_SECONDS,
    BLOCK_REASONS,
    COOLDOWN_SECONDS,
    NO_ROOM_SECONDS,
    Action,
    Control,
    DeploymentHealth,
    OnBreach,
    PastRevision,
    PodHealth,
    PoolHealth,
    RollbackReason,
)
from support.tables import for_each

NOW = 100_000.0
FELL, CHANGED, COUNTING, ERRORS, FINE = (
    WatchStanding.BELOW_THRESHOLD,
    WatchStanding.CHANGED,
    WatchStanding.CONFIRMING,
    WatchStanding.ERRORS,
    WatchStanding.STEADY,
)
GOOD = PastRevision("good", 1000.0, BAKE_SECONDS, has_passed=True, has_engine=True)
BAD = PodHealth("a", FELL, 2.0, "n1")
ACKED = replace(BAD, standing=COUNTING, is_acknowledged=True)
WELL = PodHealth("b", FINE, 0.001, "n2")
POOL = PoolHealth(3.0, 1.0, below=True, worst="a")


def given(*pods: PodHealth, **changes: Any) -> DeploymentHealth:
    """One pod below the threshold, a last good revision, and leave to go back."""
    standing: dict[str, Any] = {"on_breach": OnBreach.ROLLBACK, "past": (GOOD,), "replicas": len(pods) or 1}
    return DeploymentHealth("bad", pods or (BAD,), NOW, **standing | changes)


def control(verdict: Verdict | None = None, *, age: float = 5.0, no_room: str = "") -> Control:
    return Control("good", NOW - age, verdict, "lost 1 of 4 items", no_room)


CASES: dict[str, tuple[DeploymentHealth, Action, RollbackReason]] = {
    "nothing alarms": (given(WELL), Action.NOTHING, RollbackReason.STEADY),
    "a monitor that says nothing is evidence of nothing": (given(PodHealth("a")), Action.NOTHING, RollbackReason.STEADY),
    "an alarm is counted first": (given(replace(BAD, standing=COUNTING)), Action.NOTHING, RollbackReason.CONFIRMING),
    "changed and above the threshold moves nothing":
        (given(replace(BAD, standing=CHANGED)), Action.NOTHING, RollbackReason.CHANGED),
    "several that changed move nothing":
        (given(replace(BAD, standing=CHANGED), replace(WELL, standing=CHANGED)), Action.NOTHING, RollbackReason.CHANGED),
    "the only pod there is, is the pool": (given(), Action.CONTROL, RollbackReason.CONTROL_RUNNING),
    "one of two pods is quarantined": (given(BAD, WELL), Action.QUARANTINE, RollbackReason.ONE_BAD_POD),
    "while another still counts, the bad one is quarantined":
        (given(BAD, replace(WELL, standing=COUNTING)), Action.QUARANTINE, RollbackReason.ONE_BAD_POD),
    "one pod that errs beside one that does not is quarantined":
        (given(replace(BAD, standing=ERRORS), WELL), Action.QUARANTINE, RollbackReason.ONE_BAD_POD),
    "errors everywhere are load, and move nothing":
        (given(replace(BAD, standing=ERRORS), replace(WELL, standing=ERRORS)), Action.NOTHING, RollbackReason.SERVER_ERRORS),
    "errors of the only pod move nothing": (given(replace(BAD, standing=ERRORS)), Action.NOTHING, RollbackReason.SERVER_ERRORS),
    "errors are an outage where only alerts are wanted":
        (given(replace(BAD, standing=ERRORS), on_breach=OnBreach.ALERT), Action.NOTHING, RollbackReason.SERVER_ERRORS),
    "errors of one of two pods, too":
        (given(replace(BAD, standing=ERRORS), WELL, on_breach=OnBreach.ALERT), Action.NOTHING, RollbackReason.SERVER_ERRORS),
    "and during a pause": (given(replace(BAD, standing=ERRORS), is_paused=True), Action.NOTHING, RollbackReason.SERVER_ERRORS),
    "errors beside a drop are that drop":
        (given(BAD, replace(WELL, standing=ERRORS), on_breach=OnBreach.ALERT), Action.BLOCKED, RollbackReason.ALERT_ONLY),
    "one in quarantine and the others well: that was it":
        (given(replace(BAD, is_quarantined=True, serves=False), WELL), Action.NOTHING, RollbackReason.ONE_BAD_POD),
    "a second pod that falls beside the quarantined one is the revision": (
        given(replace(BAD, is_quarantined=True, serves=False), replace(WELL, standing=FELL), PodHealth("c", FINE)),
        Action.CONTROL,
        RollbackReason.CONTROL_RUNNING,
    ),
    "a pod that errs beside one in quarantine waits": (
        given(replace(BAD, is_quarantined=True, serves=False), replace(WELL, standing=ERRORS), PodHealth("c", FINE)),
        Action.BLOCKED,
        RollbackReason.ALREADY_QUARANTINED,
    ),
    "the last that serves stays": (given(BAD, replace(WELL, serves=False)), Action.BLOCKED, RollbackReason.LAST_THAT_SERVES),
    "of two wanted one is missing: pod and revision cannot be told apart":
        (given(BAD, replicas=2), Action.BLOCKED, RollbackReason.LAST_THAT_SERVES),
    "a bad pod that is not in traffic is nobody's trouble":
        (given(replace(BAD, serves=False), WELL), Action.NOTHING, RollbackReason.ONE_BAD_POD),
    "two pods that fell are the revision":
        (given(BAD, replace(WELL, standing=FELL)), Action.CONTROL, RollbackReason.CONTROL_RUNNING),
    "two that fell on one node of two are that node":
        (given(BAD, PodHealth("c", FELL, 2.0, "n1"), WELL), Action.BLOCKED, RollbackReason.ONE_NODE),
    "two that fell where there is one node are the revision":
        (given(BAD, PodHealth("c", FELL, 2.0, "n1")), Action.CONTROL, RollbackReason.CONTROL_RUNNING),
    "the pool without its worst pod alarms and the count says so":
        (given(replace(BAD, standing=CHANGED), WELL, pool=POOL), Action.CONTROL, RollbackReason.CONTROL_RUNNING),
    "the pool alarms and nobody has counted yet":
        (given(replace(BAD, standing=FINE), WELL, pool=replace(POOL, below=None)), Action.NOTHING, RollbackReason.CONFIRMING),
    "the pool alarms and the count is above the threshold":
        (given(replace(BAD, standing=FINE), WELL, pool=replace(POOL, below=False)), Action.NOTHING, RollbackReason.CHANGED),
    "a pod's own exact count outweighs the pool's sweeps, which ask once": (
        given(replace(BAD, standing=CHANGED), replace(WELL, standing=CHANGED), pool=POOL),
        Action.NOTHING,
        RollbackReason.CHANGED,
    ),
    "a pool that rings beside a pod whose count is still above is the worst pod's matter":
        (given(BAD, replace(WELL, standing=CHANGED), pool=POOL), Action.QUARANTINE, RollbackReason.ONE_BAD_POD),
    "the worst pod's own count above the threshold does not speak for the others":
        (given(replace(BAD, standing=CHANGED), WELL, pool=POOL), Action.CONTROL, RollbackReason.CONTROL_RUNNING),
    "a pod that fell and a pool that rings without it are the revision, on whatever node":
        (given(BAD, WELL, pool=POOL), Action.CONTROL, RollbackReason.CONTROL_RUNNING),
    "a pool that rings only by its worst pod is that pod":
        (given(BAD, WELL, pool=PoolHealth(5.0, 0.999, below=True)), Action.QUARANTINE, RollbackReason.ONE_BAD_POD),
    "a pool that rings only by a pod that is steady moves nothing":
        (given(WELL, pool=PoolHealth(5.0, 0.999, below=True)), Action.NOTHING, RollbackReason.STEADY),
    "an acknowledged drop waits for the new sweeps":
        (given(ACKED, ack_seconds_left=60.0), Action.BLOCKED, RollbackReason.ACK_UNDER_WAY),
    "an acknowledged drop in quarantine does not":
        (given(replace(ACKED, is_quarantined=True), WELL), Action.NOTHING, RollbackReason.CONFIRMING),
    "a person may go back in spite of an ack":
        (given(ACKED, rollback_request="alice"), Action.CONTROL, RollbackReason.CONTROL_RUNNING),
    "the first new count waits for that of an acknowledged pod":
        (given(ACKED, replace(BAD, name="c"), WELL, ack_seconds_left=60.0), Action.BLOCKED, RollbackReason.ACK_UNDER_WAY),
    "errors of another pod wait for no acknowledged one":
        (given(ACKED, WELL, replace(WELL, name="c", standing=ERRORS), ack_seconds_left=60.0), Action.QUARANTINE, RollbackReason.ONE_BAD_POD),
    "a new count waits for no acknowledged pod in quarantine":
        (given(replace(ACKED, is_quarantined=True), replace(BAD, name="c"), WELL), Action.BLOCKED, RollbackReason.ALREADY_QUARANTINED),
    "two new counts decide over an ack": (
        given(ACKED, replace(BAD, name="c"), replace(WELL, standing=FELL)), Action.CONTROL, RollbackReason.CONTROL_RUNNING,
    ),
    "a control that runs goes on over an ack": (given(ACKED, control=control()), Action.CONTROL, RollbackReason.CONTROL_RUNNING),
    "an ack hides no pause": (given(ACKED, is_paused=True), Action.BLOCKED, RollbackReason.PAUSED),
    "an ack hides no wish for alerts only":
        (given(ACKED, on_breach=OnBreach.ALERT), Action.BLOCKED, RollbackReason.ALERT_ONLY),
    "the user wants to be told only": (given(on_breach=OnBreach.ALERT), Action.BLOCKED, RollbackReason.ALERT_ONLY),
    "told only, of one bad pod as well": (given(BAD, WELL, on_breach=OnBreach.ALERT), Action.BLOCKED, RollbackReason.ALERT_ONLY),
    "nothing is moved during a pause": (given(BAD, WELL, is_paused=True), Action.BLOCKED, RollbackReason.PAUSED),
    "and a person's request waits": (given(WELL, rollback_request="alice", is_paused=True), Action.BLOCKED, RollbackReason.PAUSED),
    "a pause of what is well is no trouble": (given(WELL, is_paused=True), Action.NOTHING, RollbackReason.STEADY),
    "a pin holds": (given(is_pinned=True), Action.BLOCKED, RollbackReason.PINNED),
    "a pin holds the revision, not a bad pod": (given(BAD, WELL, is_pinned=True), Action.QUARANTINE, RollbackReason.ONE_BAD_POD),
    "a pin holds although somebody asks": (given(WELL, rollback_request="alice", is_pinned=True), Action.BLOCKED, RollbackReason.PINNED),
    "a pin ends a control": (given(control=control(Verdict.PASS), is_pinned=True), Action.BLOCKED, RollbackReason.PINNED),
    "leave that is taken back ends a control":
        (given(control=control(Verdict.PASS), on_breach=OnBreach.ALERT), Action.BLOCKED, RollbackReason.ALERT_ONLY),
    "a candidate is waited for": (given(rollout_under_way=True), Action.BLOCKED, RollbackReason.ROLLOUT_UNDER_WAY),
    "the scorer has changed": (given(replay_passed=False), Action.PAGE, RollbackReason.SUITE_MISMATCH),
    "the scorer has changed before the switch":
        (given(control=control(Verdict.PASS), replay_passed=False), Action.PAGE, RollbackReason.SUITE_MISMATCH),
    "a scorer that changed while all is steady moves nothing":
        (given(WELL, replay_passed=False), Action.NOTHING, RollbackReason.STEADY),
    "a rollback within the hour": (given(last_rollback=NOW - COOLDOWN_SECONDS + 1), Action.BLOCKED, RollbackReason.COOLDOWN),
    "a rollback an hour ago": (given(last_rollback=NOW - COOLDOWN_SECONDS), Action.CONTROL, RollbackReason.CONTROL_RUNNING),
    "who asks by hand need not wait":
        (given(last_rollback=NOW - 1, rollback_request="alice"), Action.CONTROL, RollbackReason.CONTROL_RUNNING),
    "who asks by hand needs no breach": (given(WELL, rollback_request="alice"), Action.CONTROL, RollbackReason.CONTROL_RUNNING),
    "who asks by hand needs no leave":
        (given(WELL, rollback_request="alice", on_breach=OnBreach.ALERT), Action.CONTROL, RollbackReason.CONTROL_RUNNING),
    "who asks by hand may repeat":
        (given(rollback_request="alice", earlier_targets=frozenset({"good"})), Action.CONTROL, RollbackReason.CONTROL_RUNNING),
    "nothing served before": (given(past=()), Action.BLOCKED, RollbackReason.NO_LAST_GOOD),
    "what served before passed another suite":
        (given(past=(replace(GOOD, has_passed=False),)), Action.BLOCKED, RollbackReason.NO_LAST_GOOD),
    "what served before did so for a moment":
        (given(past=(replace(GOOD, served_seconds=BAKE_SECONDS - 1),)), Action.BLOCKED, RollbackReason.NO_LAST_GOOD),
    "what served before was given up": (given(past=(replace(GOOD, given_up=True),)), Action.BLOCKED, RollbackReason.NO_LAST_GOOD),
    "its engine was replaced": (given(past=(replace(GOOD, has_engine=False),)), Action.BLOCKED, RollbackReason.ARTIFACT_GONE),
    "its monitor is too old to be told":
        (given(past=(replace(GOOD, supports_control=False),)), Action.BLOCKED, RollbackReason.MONITOR_TOO_OLD),
    "an older one whose monitor can be told is gone back to": (
        given(past=(replace(GOOD, name="new", promoted_at=2000.0, supports_control=False), GOOD)),
        Action.CONTROL,
        RollbackReason.CONTROL_RUNNING,
    ),
    "a control whose monitor cannot score":
        (given(control=replace(control(), blocked_reason="item i0: correct as recorded")), Action.PAGE, RollbackReason.SUITE_MISMATCH),
    "the pair was tried before": (given(earlier_targets=frozenset({"good"})), Action.BLOCKED, RollbackReason.ALREADY_ROLLED_BACK),
    "another pair was tried before": (given(earlier_targets=frozenset({"older"})), Action.CONTROL, RollbackReason.CONTROL_RUNNING),
    "a control is waited for": (given(control=control()), Action.CONTROL, RollbackReason.CONTROL_RUNNING),
    "a control goes on although its pods hid the breach":
        (given(WELL, control=control()), Action.CONTROL, RollbackReason.CONTROL_RUNNING),
    "a control goes on though the hour is not over":
        (given(control=control(), last_rollback=NOW - 1), Action.CONTROL, RollbackReason.CONTROL_RUNNING),
    "a control that passed": (given(control=control(Verdict.PASS)), Action.SWITCH, RollbackReason.CONTROL_PASSED),
    "a control that failed": (given(control=control(Verdict.FAIL)), Action.PAGE, RollbackReason.ROLLBACK_TARGET_ALSO_FAILED),
    "no room, for a moment":
        (given(control=control(age=NO_ROOM_SECONDS - 1, no_room="0/1 nodes")), Action.CONTROL, RollbackReason.CONTROL_RUNNING),
    "no room": (given(control=control(age=NO_ROOM_SECONDS, no_room="0/1 nodes")), Action.BLOCKED, RollbackReason.NO_CAPACITY),
    "a control that never ends": (given(control=control(age=3600.0)), Action.BLOCKED, RollbackReason.ROLLBACK_TARGET_OVERDUE),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_done(case: str) -> None:
    observed, action, why = CASES[case]
    found = respond(observed)
    assert (found.action, found.reason) == (action, why), found.message


REMEDIES: dict[str, tuple[DeploymentHealth, list[str]]] = {
    "AlertOnly": (given(on_breach=OnBreach.ALERT), ["spec.accuracy.onBreach", "set it to Rollback"]),
    "Paused": (given(is_paused=True), ["spec.rollout.paused", "r1plus resume"]),
    "Pinned": (given(is_pinned=True), ["spec.rollout.pinned", "r1plus unpin"]),
    "Cooldown": (given(last_rollback=NOW), ["60 minutes", "1970-01-02T04:46:40Z"]),
    "NoCapacity": (given(control=control(age=61, no_room="0/1 nodes")), ["good", "0/1 nodes", "free capacity", "InPlace"]),
    "NoLastGood, never": (given(past=()), ["no revision served before", "spec.engine"]),
    "NoLastGood, other suite": (given(past=(replace(GOOD, has_passed=False),)), ["passed the current suite"]),
    "NoLastGood, given up": (given(past=(replace(GOOD, given_up=True),)), ["itself rolled back"]),
    "NoLastGood, unbaked": (given(past=(replace(GOOD, served_seconds=1.0),)), ["600 s"]),
    "ArtifactGone": (given(past=(replace(GOOD, has_engine=False),)), ["replaced by another of the same name"]),
    "PlacementNotAllowed": (given(past=(replace(GOOD, is_placed=False),)), ["spec.placement of the R1PlusTenant"]),
    "MonitorTooOld": (given(past=(replace(GOOD, supports_control=False),)), ["older version", "spec.engine"]),
    "SuiteMismatch, of the control": (
        given(control=replace(control(), blocked_reason="item i0")), ["target good", "item i0", "r1plus ack"],
    ),
    "AlreadyRolledBack": (given(earlier_targets=frozenset({"good"})), ["bad", "good", "r1plus ack"]),
    "RollbackTargetAlsoFailed": (given(control=control(Verdict.FAIL)), ["good", "lost 1 of 4", "driver", "r1plus ack"]),
    "RollbackTargetOverdue": (given(control=control(age=9e3, no_room="0/1 nodes")), ["spec.rollout.deadline", "0/1 nodes", "r1plus ack"]),
    "SuiteMismatch": (given(replay_passed=False), ["recorded scores", "r1plus suite verify"]),
    "OneNode": (given(BAD, PodHealth("c", FELL, 2.0, "n1"), WELL), ["node n1", "drain"]),
    "LastThatServes": (given(BAD, replicas=2), ["pod a", "not Ready"]),
    "AlreadyQuarantined": (
        given(replace(BAD, is_quarantined=True), replace(WELL, standing=ERRORS), PodHealth("c", FINE)), ["Pod b", "delete a pod"],
    ),
    "AckUnderWay": (given(ACKED, ack_seconds_left=60.0), ["acknowledged", "spec.rollout.deadline", "r1plus rollback"]),
    "RolloutUnderWay": (given(rollout_under_way=True), ["candidate"]),
    "NamespaceNotTenant": (given(not_tenant="no label"), ["not a tenant", "no label"]),
}  # fmt: skip


@pytest.mark.parametrize("case", REMEDIES)
def test_every_way_not_to_act_names_cause_and_remedy(case: str) -> None:
    observed, words = REMEDIES[case]
    found = respond(observed)
    assert found.reason == case.split(",")[0]
    for word in words:
        assert word in found.message


def test_every_blocking_reason_has_its_message_tested() -> None:
    assert {case.split(",")[0] for case in REMEDIES} == {why.value for why in BLOCK_REASONS}


def test_an_outage_is_named_with_the_pods_that_err() -> None:
    health = given(replace(BAD, standing=ERRORS), WELL, on_breach=OnBreach.ALERT)
    message = respond(health).message
    assert message.startswith(
        "this is an outage, not an accuracy drop: too many probes of revision bad fail or time out"
    )
    assert "in 1 of 2 pods (a)" in message


def test_the_order_of_the_checks() -> None:
    assert (
        decision.check_steady, decision.check_scorer, decision.check_confirmed, decision.check_outage, decision.check_paused, decision.check_alert_only, decision.check_acknowledged,
        decision.check_single_pod, decision.check_only_errors, decision.check_other_pods, decision.check_single_node, decision.check_pinned, decision.check_rollout,
        decision.check_control_result, decision.check_control_wait, decision.check_cooldown, decision.start_control,
    ) == CHECKS  # fmt: skip


def test_the_newest_that_fits_is_gone_back_to_and_of_two_bad_pods_the_worse_is_named() -> None:
    newer = replace(GOOD, name="newer", promoted_at=2000.0)
    gone = replace(GOOD, name="gone", promoted_at=3000.0, has_engine=False)
    same = replace(GOOD, name="bad", promoted_at=9000.0)
    assert respond(given(past=(GOOD, newer, gone, same))).revision == "newer"
    worse = PodHealth("z", FELL, 9.0, "n2")
    assert [p.name for p in given(BAD, worse).pods_below_threshold] == ["z", "a"]
    assert respond(given(BAD, WELL)).pod == "a"


def test_a_control_that_waits_for_room_is_kept_and_one_that_is_given_up_is_not() -> None:
    assert respond(given(control=control(age=61, no_room="full"))).revision == "good"
    assert respond(given(control=control(age=9e3, no_room="full"))).revision == ""
    assert respond(given(control=control(Verdict.FAIL))).revision == ""


@for_each("observed, seconds", {
    "the end of the cooldown": (given(last_rollback=NOW - 100), COOLDOWN_SECONDS - 100),
    "the end of the deadline": (given(control=control(age=5)), 3595.0),
    "when want of room is told": (given(control=control(age=5, no_room="x")), NO_ROOM_SECONDS - 5),
    "the end of waiting for room": (given(control=control(age=60, no_room="x")), 3540.0),
})  # fmt: skip
def test_it_says_when_time_alone_may_change_the_answer(observed: DeploymentHealth, seconds: float) -> None:
    assert respond(observed).recheck_after == seconds
    later = respond(replace(observed, now=NOW + seconds))
    assert later.reason != respond(observed).reason or later.action is not respond(observed).action


PODS = st.builds(
    PodHealth,
    name=st.sampled_from("abcdef"),
    standing=st.none() | st.sampled_from(WatchStanding),
    evidence=st.sampled_from((0.0, 0.1, 1.0, 4.0)),
    node=st.sampled_from(("", "n1", "n2")),
    serves=st.booleans(),
    is_quarantined=st.booleans(),
)
PAST = st.builds(
    PastRevision,
    name=st.sampled_from(("good", "older", "bad")),
    promoted_at=st.floats(0, NOW),
    served_seconds=st.sampled_from((0.0, 599.0, 600.0, 1e5)),
    has_passed=st.booleans(),
    has_engine=st.booleans(),
    given_up=st.booleans(),
    supports_control=st.booleans(),
)
CONTROLS = st.builds(
    Control,
    revision=st.just("good"),
    since=st.floats(NOW - 5000, NOW),
    verdict=st.none() | st.sampled_from((Verdict.PASS, Verdict.FAIL)),
    no_room=st.sampled_from(("", "0/1 nodes")),
    blocked_reason=st.sampled_from(("", "item i0")),
)
ANYTHING = st.builds(
    DeploymentHealth,
    current=st.just("bad"),
    pods=st.lists(PODS, max_size=5, unique_by=lambda p: p.name).map(tuple),
    now=st.just(NOW),
    replicas=st.integers(1, 5),
    on_breach=st.sampled_from(OnBreach),
    is_pinned=st.booleans(),
    pool=st.builds(PoolHealth, st.just(2.0), st.sampled_from((0.0, 0.999, 1.0)), st.none() | st.booleans()),
    past=st.lists(PAST, max_size=3, unique_by=lambda r: r.name).map(tuple),
    control=st.none() | CONTROLS,
    rollback_request=st.sampled_from(("", "alice: why")),
    replay_passed=st.none() | st.booleans(),
    rollout_under_way=st.booleans(),
    earlier_targets=st.sampled_from((frozenset(), frozenset({"good"}))),
    last_rollback=st.none() | st.floats(NOW - 7200, NOW),
)


@drawn(ANYTHING)
def test_whatever_is_observed_what_is_done_keeps_the_promises(observed: DeploymentHealth) -> None:
    found = respond(observed)
    assert found.message
    if found.action is Action.SWITCH:
        assert observed.control.verdict is Verdict.PASS
        assert not observed.control.blocked_reason
        assert found.revision == observed.control.revision
    if found.action in (Action.SWITCH, Action.CONTROL):
        assert not observed.is_pinned
        assert observed.replay_passed is not False
        assert observed.rollback_request or observed.on_breach is OnBreach.ROLLBACK
        assert observed.rollback_request or observed.control or observed.has_revision_dropped
    if found.action is Action.CONTROL and not observed.control:
        chosen = next(r for r in observed.past if r.name == found.revision)
        assert chosen.has_passed
        assert chosen.has_engine
        assert not chosen.given_up
        assert chosen.supports_control
        assert chosen.served_seconds >= BAKE_SECONDS
        assert found.revision != observed.current
    if found.action is Action.QUARANTINE:
        pod = next(p for p in observed.pods if p.name == found.pod)
        assert pod.standing in (FELL, ERRORS)
        assert any(p.serves for p in observed.pods if p is not pod)
        assert not any(p.is_quarantined for p in observed.pods)
        assert not observed.has_revision_dropped
    if found.action in (Action.BLOCKED, Action.PAGE):
        assert found.reason in BLOCK_REASONS
    else:
        assert found.reason not in BLOCK_REASONS


@drawn(ANYTHING)
def test_silence_and_steadiness_alone_never_move_anything(observed: DeploymentHealth) -> None:
    quiet = tuple(replace(p, standing=FINE if p.standing else None) for p in observed.pods)
    calm = replace(observed, pods=quiet, pool=PoolHealth(), control=None, rollback_request="")
    assert respond(calm).action is Action.NOTHING
