"""Which revision takes traffic: only a pass promotes, traffic never leaves what works."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1plus_contract.verdict import Gate, Verdict
from r1plus_policies.rollout import (
    DRAIN_LOOK_SECONDS,
    DRAIN_SECONDS,
    GATEWAY_DRAIN_SECONDS,
    UNSCHEDULABLE_SECONDS,
    RevisionState,
    Rollout,
    RolloutSettings,
    RolloutStage,
    Strategy,
    decide,
    retry_delay,
)
from support.tables import for_each

NOW = 1_000.0
DEADLINE = 600.0


def run(
    target: str | None,
    *revisions: RevisionState,
    replicas: int = 2,
    gate: Gate = Gate.ENFORCE,
    strategy: Strategy = Strategy.BLUE_GREEN,
) -> Rollout:
    return decide(
        target=target, revisions=revisions, terms=RolloutSettings(replicas, gate, strategy, DEADLINE), now=NOW
    )


def in_place(target: str | None, *revisions: RevisionState, gate: Gate = Gate.ENFORCE) -> Rollout:
    return run(target, *revisions, gate=gate, strategy=Strategy.IN_PLACE)


def hold(target: str, *revisions: RevisionState, **terms: Any) -> Rollout:
    """Decide while the spec cannot be served."""
    held = RolloutSettings(terms.pop("replicas", 2), deadline=DEADLINE, is_held=True, **terms)
    return decide(target=target, revisions=revisions, terms=held, now=NOW)


def hold_in_place(target: str, *revisions: RevisionState) -> Rollout:
    return hold(target, *revisions, strategy=Strategy.IN_PLACE)


def stable(ready: int = 2, promoted_at: float = 10.0) -> RevisionState:
    return RevisionState("a", ready=ready, pods=2, replicas=2, verdict=Verdict.PASS, promoted_at=promoted_at)


def passed(name: str = "b", **facts: Any) -> RevisionState:
    return RevisionState(name, verdict=Verdict.PASS, **facts)


def waiting(seconds: float, *, ready: int = 0, verdict: Verdict | None = None) -> RevisionState:
    return RevisionState("b", ready=ready, replicas=1, verdict=verdict, candidate_since=NOW - seconds)


def looking(seconds: float) -> RevisionState:
    """Return a candidate that has looked for a node for so long."""
    return replace(waiting(seconds), pods=1, unschedulable_since=NOW - seconds)


GONE = passed("a", replicas=0, promoted_at=10.0)
PREVIOUS = passed("o", ready=2, replicas=2, promoted_at=1.0)
FAILED = RevisionState("b", replicas=1, verdict=Verdict.FAIL)
FIRST = Rollout(None, RolloutStage.GATING, {"a": 1}, requeue_after=DEADLINE)
RESTING = Rollout("a", RolloutStage.NONE, {"a": 2})


@for_each("decide_rollout, expected", {
    "a first revision is gated with one replica": (lambda: run("a"), FIRST),
    "a first revision is gated with one replica in place": (lambda: in_place("a"), FIRST),
    "a candidate is gated with one replica beside the pods that serve":
        (lambda: run("b", stable()), Rollout("a", RolloutStage.GATING, {"a": 2, "b": 1}, requeue_after=DEADLINE)),
    "a first revision that passed is scaled before it takes traffic":
        (lambda: run("a", passed("a", ready=1, replicas=1)), Rollout(None, RolloutStage.SCALING, {"a": 2}, requeue_after=DEADLINE)),
    "a candidate takes traffic once it carries what stable carries":
        (lambda: run("b", stable(), passed(ready=2, replicas=2)), Rollout("b", RolloutStage.PROMOTE, {"a": 2, "b": 2}, promote="b")),
    "a first revision that takes traffic leaves nothing to drain":
        (lambda: run("a", passed("a", ready=2, replicas=2)), Rollout("a", RolloutStage.PROMOTE, {"a": 2}, promote="a")),
    "a failed candidate is refused and its pods go":
        (lambda: run("b", stable(), FAILED), Rollout("a", RolloutStage.REFUSED, {"a": 2})),
    "the previous revision goes after it has drained":
        (lambda: run("a", stable(promoted_at=NOW - DRAIN_SECONDS), PREVIOUS), RESTING),
    "a previous revision without pods is not waited for":
        (lambda: run("a", stable(promoted_at=NOW - 1), passed("o", promoted_at=1.0)), RESTING),
    "a candidate that was superseded does not drain":
        (lambda: run("a", stable(promoted_at=NOW), RevisionState("x", ready=1, replicas=1)), RESTING),
    "a spec that cannot be served leaves what runs running":
        (lambda: hold("a", stable(), passed("o", promoted_at=1.0)), RESTING),
    "a spec that cannot be served is scaled all the same":
        (lambda: hold("a", stable(), replicas=3), Rollout("a", RolloutStage.NONE, {"a": 3})),
    "a candidate is withdrawn at the deadline and what serves stays":
        (lambda: run("b", stable(), waiting(DEADLINE)), Rollout("a", RolloutStage.EXPIRED, {"a": 2})),
    "a first revision goes on trying after the deadline":
        (lambda: run("b", waiting(DEADLINE)), Rollout(None, RolloutStage.GATING, {"b": 1}, overdue=True, requeue_after=None)),
})  # fmt: skip
def test_a_rollout(decide_rollout: Callable[[], Rollout], expected: Rollout) -> None:
    assert decide_rollout() == expected


@for_each("decide_rollout, expected", {
    "a stable with one ready pod asks no more of its successor":
        (lambda: run("b", stable(ready=1), passed(ready=1)), {"stage": RolloutStage.PROMOTE}),
    "under Observe a failed candidate waits until it is ready":
        (lambda: run("b", stable(), RevisionState("b", verdict=Verdict.FAIL), gate=Gate.OBSERVE), {"stage": RolloutStage.GATING}),
    "under Observe a failed candidate serves once it is ready":
        (lambda: run("b", stable(), replace(FAILED, ready=2, replicas=2), gate=Gate.OBSERVE), {"promote": "b"}),
    "going back to a revision that passed needs its pods, not its gate":
        (lambda: run("o", stable(), passed("o", promoted_at=1.0)), {"replicas": {"a": 2, "o": 1}}),
    "the previous revision drains":
        (lambda: run("a", stable(promoted_at=NOW - 1), PREVIOUS),
         {"replicas": {"a": 2, "o": 2}, "requeue_after": DRAIN_SECONDS - 1}),
    "a gate in progress goes on while the spec cannot be served":
        (lambda: hold("b", stable(), RevisionState("b", ready=0, replicas=1)), {"replicas": {"a": 2, "b": 1}}),
    "a candidate that passes while the spec cannot be served takes no traffic":
        (lambda: hold("b", stable(), passed(ready=2, replicas=2)), {"current": "a", "promote": None, "replicas": {"a": 2, "b": 2}}),
    "a candidate that fails while the spec cannot be served is withdrawn":
        (lambda: hold("b", stable(), FAILED), {"replicas": {"a": 2}}),
    "a candidate is not started while the spec cannot be served":
        (lambda: hold("b", stable(), RevisionState("b")), {"replicas": {"a": 2}}),
    "in place, what served is restored while the spec cannot be served":
        (lambda: hold_in_place("b", GONE, RevisionState("b", replicas=1)), {"replicas": {"a": 2}}),
    "in place, what was stopped after an accuracy drop stays stopped while the spec cannot be served":
        (lambda: hold_in_place("b", replace(GONE, has_dropped=True), RevisionState("b", replicas=1)),
         {"replicas": {"a": 0, "b": 1}}),
    "in place, what was stopped after an accuracy drop is restored once its candidate fails":
        (lambda: hold_in_place("b", replace(GONE, has_dropped=True), FAILED), {"replicas": {"a": 2}}),
    "a first gate in progress goes on while the spec cannot be served":
        (lambda: run(None, RevisionState("b", ready=0, replicas=1)), {"replicas": {"b": 1}}),
    "a first gate in progress goes on in place while the spec cannot be served":
        (lambda: in_place(None, RevisionState("b", ready=0, replicas=1)), {"replicas": {"b": 1}}),
    "zero replicas starts no candidate": (lambda: run("b", stable(), replicas=0), {"replicas": {"a": 0, "b": 0}}),
    "a candidate is not withdrawn before the deadline":
        (lambda: run("b", stable(), waiting(DEADLINE - 1)),
         {"stage": RolloutStage.GATING, "replicas": {"a": 2, "b": 1}, "requeue_after": 1.0}),
    "a candidate that is scaled at the deadline is withdrawn":
        (lambda: run("b", stable(), waiting(DEADLINE, ready=1, verdict=Verdict.PASS)), {"stage": RolloutStage.EXPIRED}),
    "a candidate that is ready at the deadline takes traffic":
        (lambda: run("b", stable(), waiting(DEADLINE, ready=2, verdict=Verdict.PASS)), {"stage": RolloutStage.PROMOTE}),
    "a first revision is not overdue before the deadline": (lambda: run("b", waiting(DEADLINE - 1)), {"overdue": False}),
    "in place, what serves is stopped first":
        (lambda: in_place("b", replace(GONE, pods=1)), {"current": "a", "stage": RolloutStage.GATING, "replicas": {"a": 0, "b": 0}}),
    "in place, the candidate starts when the pods of what served are gone":
        (lambda: in_place("b", GONE), {"replicas": {"a": 0, "b": 1}}),
    "in place, the candidate serves after the gate with the first ready pod":
        (lambda: in_place("b", GONE, passed(ready=1, pods=1, replicas=1)), {"promote": "b", "replicas": {"a": 0, "b": 2}}),
    "in place, nothing is stopped for a candidate that no node takes":
        (lambda: in_place("b", stable(), replace(waiting(1), has_room=False)),
         {"stage": RolloutStage.NO_ROOM, "replicas": {"a": 2}, "requeue_after": DEADLINE - 1}),
    "in place, a candidate goes on though its node is lost":
        (lambda: in_place("b", GONE, replace(waiting(1), has_room=False)), {"stage": RolloutStage.GATING, "replicas": {"a": 0, "b": 1}}),
    "in place, a candidate looks for a node for a while":
        (lambda: in_place("b", GONE, looking(UNSCHEDULABLE_SECONDS - 1)), {"stage": RolloutStage.GATING, "requeue_after": 1.0}),
    "in place, a candidate that finds no node gives its place back":
        (lambda: in_place("b", GONE, looking(UNSCHEDULABLE_SECONDS)), {"stage": RolloutStage.EXPIRED, "replicas": {"a": 2}}),
    "beside what serves a candidate looks for a node until its deadline":
        (lambda: run("b", stable(), looking(UNSCHEDULABLE_SECONDS)), {"stage": RolloutStage.GATING}),
    "what found no room waits for its next try":
        (lambda: run("b", stable(), replace(waiting(1), retry_at=NOW + 60)),
         {"stage": RolloutStage.EXPIRED, "replicas": {"a": 2}, "requeue_after": 60.0}),
    "what was refused is refused, whatever room it had":
        (lambda: run("b", stable(), replace(FAILED, retry_at=NOW + 60)), {"stage": RolloutStage.REFUSED}),
})  # fmt: skip
def test_of_a_rollout(decide_rollout: Callable[[], Rollout], expected: dict[str, Any]) -> None:
    decided = decide_rollout()
    assert {field: getattr(decided, field) for field in expected} == expected


def test_a_way_back_in_place_looks_for_a_node_for_ever() -> None:
    terms = RolloutSettings(2, Gate.ENFORCE, Strategy.IN_PLACE, math.inf)
    decided = decide(target="b", revisions=(GONE, looking(1e5)), terms=terms, now=NOW)
    assert (decided.stage, decided.replicas) == (RolloutStage.GATING, {"a": 0, "b": 1})


def test_tries_come_ever_later_and_in_place_seldom() -> None:
    assert [retry_delay(n, Strategy.BLUE_GREEN) for n in (1, 2, 6, 7, 10_000)] == [600, 1200, 19_200, 21_600, 21_600]
    assert retry_delay(1, Strategy.IN_PLACE) == retry_delay(9, Strategy.IN_PLACE) == 21_600


DRAIN = 600.0


def since_switch(seconds: float, *others: RevisionState, target: str = "a", **terms: Any) -> Rollout:
    """Decide so long after "a" took over from others."""
    settings = RolloutSettings(2, deadline=DEADLINE, drain=DRAIN, **terms)
    return decide(target=target, revisions=(stable(promoted_at=NOW - seconds), *others), terms=settings, now=NOW)


def busy(requests: int | None = 1, **facts: Any) -> RevisionState:
    return replace(PREVIOUS, pods=2, user_requests=requests, **facts)


@for_each("rollout, runs, requeue_after", {
    "requests that run keep their pods":
        (lambda: since_switch(DRAIN_SECONDS, busy()), {"a": 2, "o": 2}, DRAIN_LOOK_SECONDS),
    "so does a monitor that does not say": (lambda: since_switch(100, busy(None)), {"a": 2, "o": 2}, DRAIN_LOOK_SECONDS),
    "without requests they go": (lambda: since_switch(DRAIN_SECONDS, busy(0)), {"a": 2}, None),
    "not before clients have had time to notice":
        (lambda: since_switch(DRAIN_SECONDS - 1, busy(0)), {"a": 2, "o": 2}, 1),
    "a gateway notices later":
        (lambda: since_switch(30, busy(0), least_drain=GATEWAY_DRAIN_SECONDS), {"a": 2, "o": 2}, 10),
    "they are looked at when the time is up": (lambda: since_switch(DRAIN - 2, busy()), {"a": 2, "o": 2}, 2),
    "then they go, whatever they run": (lambda: since_switch(DRAIN, busy()), {"a": 2}, None),
    "a candidate does not end them":
        (lambda: since_switch(100, busy(), waiting(30), target="b"), {"a": 2, "o": 2, "b": 1}, DRAIN_LOOK_SECONDS),
    "nor does its refusal": (lambda: since_switch(100, busy(), FAILED, target="b"), {"a": 2, "o": 2}, DRAIN_LOOK_SECONDS),
    "nor its promotion":
        (lambda: since_switch(100, busy(), passed(ready=2, replicas=2), target="b"), {"a": 2, "o": 2, "b": 2}, DRAIN_LOOK_SECONDS),
    "a rollback target keeps the pods that its requests run on":
        (lambda: since_switch(100, busy(ready=0), target="o"), {"a": 2, "o": 2}, DRAIN_LOOK_SECONDS),
    "in place a candidate gets the room":
        (lambda: since_switch(100, busy(), waiting(30), target="b", strategy=Strategy.IN_PLACE), {"a": 0, "b": 0}, DEADLINE - 30),
    "without replicas nothing stays": (lambda: decide(target="a", revisions=(stable(promoted_at=NOW - 100), busy()),
                                                      terms=RolloutSettings(0, drain=DRAIN), now=NOW), {"a": 0}, None),
    "after an accuracy drop they have the time that clients need":
        (lambda: since_switch(DRAIN_SECONDS - 1, busy(has_dropped=True)), {"a": 2, "o": 2}, 1),
    "and no more": (lambda: since_switch(DRAIN_SECONDS, busy(has_dropped=True)), {"a": 2}, None),
})  # fmt: skip
def test_pods_that_lost_traffic(
    rollout: Callable[[], Rollout], runs: dict[str, int], requeue_after: float | None
) -> None:
    decision = rollout()
    assert (decision.replicas, decision.requeue_after) == (runs, requeue_after)


def test_each_revision_drains_from_the_moment_at_which_it_lost_traffic_itself() -> None:
    older = replace(busy(), name="x", promoted_at=0.5)
    recent = since_switch(100, replace(busy(), promoted_at=NOW - DRAIN), older)
    assert recent.replicas == {"a": 2, "o": 2}
    assert (recent.draining, recent.drained_out) == ({"o": NOW - 100 + DRAIN}, {"x"})


def test_pods_whose_accuracy_dropped_do_not_wait_by_themselves() -> None:
    assert since_switch(DRAIN_SECONDS, busy(has_dropped=True)).drained_out == {"o"}
    assert not since_switch(DRAIN_SECONDS - 1, busy(has_dropped=True)).drained_out


@for_each("decision, drained_out", {
    "what serves is being stopped": (lambda: in_place("b", stable(), RevisionState("b")), {"a"}),
    "what served waits by itself": (lambda: in_place("b", replace(GONE, pods=2), RevisionState("b")), {"a"}),
    "an older one does, too": (lambda: in_place("b", GONE, replace(PREVIOUS, pods=1), RevisionState("b")), {"o"}),
    "a candidate that was refused": (lambda: in_place("b", GONE, replace(FAILED, pods=1)), {"b"}),
    "without room nothing is stopped": (lambda: in_place("b", stable(), RevisionState("b", has_room=False)), set()),
    "a candidate in its gate goes on": (lambda: in_place("b", GONE, RevisionState("b", pods=1, replicas=1)), set()),
})  # fmt: skip
def test_in_place_what_is_stopped_ends_at_once(decision: Callable[[], Rollout], drained_out: set[str]) -> None:
    assert decision().drained_out == drained_out


@for_each("target, deadline, runs", {
    "a rollback target that finds no node gets the room": (looking(1), math.inf, {"a": 2, "b": 1}),
    "and one that a quota refuses": (replace(waiting(30), is_over_quota=True), math.inf, {"a": 2, "b": 1}),
    "one whose pods are not made yet needs none": (waiting(0), math.inf, {"a": 2, "b": 1, "o": 2}),
    "one that has a node needs none": (replace(waiting(30), pods=1), math.inf, {"a": 2, "b": 1, "o": 2}),
    "a candidate waits for a node": (looking(1), DEADLINE, {"a": 2, "b": 1, "o": 2}),
    "and for the quota": (replace(waiting(30), is_over_quota=True), DEADLINE, {"a": 2, "b": 1, "o": 2}),
})  # fmt: skip
def test_a_rollback_ends_the_drain_of_another_revision(
    target: RevisionState, deadline: float, runs: dict[str, int]
) -> None:
    target = replace(target, promoted_at=0.5)
    terms = RolloutSettings(2, deadline=deadline, drain=DRAIN)
    decision = decide(target="b", revisions=(stable(promoted_at=NOW - 100), busy(), target), terms=terms, now=NOW)
    assert decision.replicas == runs
    assert decision.drained_out == ({"o"} if "o" not in runs else set())


@for_each("candidate, drains, restarts", {
    "no node has room for it": (looking(DEADLINE), 1, True),
    "a quota refuses its pod": (waiting(DEADLINE), 1, True),
    "a quota refuses one of its pods": (replace(waiting(DEADLINE), pods=1, is_over_quota=True), 1, True),
    "its deadline has not passed": (looking(DEADLINE - 1), 1, False),
    "nothing drains any more": (looking(DEADLINE), 0, False),
    "it has room": (replace(waiting(DEADLINE), pods=1), 1, False),
})  # fmt: skip
def test_a_deadline_begins_again_if_it_passed_while_another_revision_drained(
    candidate: RevisionState, drains: int, restarts: bool
) -> None:
    decision = since_switch(100, replace(busy(), pods=drains), candidate, target="b")
    is_expired = not restarts and candidate.candidate_since == NOW - DEADLINE
    assert (decision.restarts_deadline, decision.stage is RolloutStage.EXPIRED) == (restarts, is_expired)


def test_going_back_is_not_held_up_by_requests_of_what_is_left() -> None:
    left, target = stable(promoted_at=NOW - 100), passed("o", ready=2, replicas=2, promoted_at=1.0, user_requests=3)
    back = run("o", replace(left, user_requests=9), target)
    assert (back.promote, back.replicas) == ("o", {"a": 2, "o": 2})


def test_a_candidate_without_a_deadline_is_not_looked_at_for_time_alone() -> None:
    terms = RolloutSettings(2, Gate.ENFORCE, Strategy.BLUE_GREEN, math.inf)
    assert decide(target="b", revisions=(stable(),), terms=terms, now=NOW).requeue_after is None


@pytest.mark.parametrize("verdict", [None, Verdict.INCONCLUSIVE, Verdict.NO_DATA, Verdict.ERROR])
def test_without_a_pass_a_ready_candidate_waits(verdict: Verdict | None) -> None:
    held = run("b", stable(), RevisionState("b", ready=2, replicas=2, verdict=verdict))
    assert (held.current, held.stage, held.promote) == ("a", RolloutStage.GATING, None)


@for_each("candidate", {
    "refused": RevisionState("b", pods=1, replicas=1, verdict=Verdict.FAIL),
    "expired": waiting(DEADLINE),
})  # fmt: skip
def test_in_place_restores_what_served_when_the_candidate_is(candidate: RevisionState) -> None:
    assert in_place("b", GONE, candidate).replicas == hold_in_place("b", GONE, candidate).replicas == {"a": 2}


states = st.builds(
    RevisionState,
    name=st.sampled_from("abcd"),
    ready=st.integers(0, 3),
    pods=st.integers(0, 3),
    candidate_since=st.none() | st.floats(1, NOW),
    replicas=st.none() | st.integers(0, 3),
    verdict=st.none() | st.sampled_from(list(Verdict)),
    promoted_at=st.none() | st.floats(1, NOW),
    has_room=st.booleans(),
    unschedulable_since=st.none() | st.floats(1, NOW),
    is_over_quota=st.booleans(),
    retry_at=st.none() | st.floats(NOW + 1, 2 * NOW),
    user_requests=st.none() | st.integers(0, 2),
)
worlds = st.lists(states, max_size=4, unique_by=lambda s: s.name).map(tuple)


@given(worlds, st.sampled_from([None, *"abcd"]), st.integers(0, 3), st.sampled_from(list(Strategy)))
def test_under_enforce_nothing_but_a_pass_ever_takes_traffic(
    world: tuple[RevisionState, ...], target: str | None, replicas: int, strategy: Strategy
) -> None:
    decision = run(target, *world, replicas=replicas, strategy=strategy)
    by_name = {s.name: s for s in world}
    if decision.promote:
        assert by_name[decision.promote].verdict is Verdict.PASS
        assert by_name[decision.promote].ready >= 1
    before = max((s for s in world if s.promoted_at), key=lambda s: (s.promoted_at, s.name), default=None)
    assert decision.current in (decision.promote, before.name if before else None)


@given(worlds, st.sampled_from([None, *"abcd"]), st.integers(1, 3), st.sampled_from(list(Gate)))
def test_what_takes_traffic_always_keeps_its_pods(
    world: tuple[RevisionState, ...], target: str | None, replicas: int, gate: Gate
) -> None:
    decision = run(target, *world, replicas=replicas, gate=gate)
    if decision.current:
        assert decision.replicas[decision.current] == replicas
