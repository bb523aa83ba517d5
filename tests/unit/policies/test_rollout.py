"""Which revision takes traffic: only a pass promotes, traffic never leaves what works."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1plus_contract.verdict import Gate, Verdict
from r1plus_policies.rollout import DRAIN_SECONDS, RevisionState, Rollout, Stage, Strategy, Terms, decide
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
    return decide(target=target, revisions=revisions, terms=Terms(replicas, gate, strategy, DEADLINE), now=NOW)


def in_place(target: str | None, *revisions: RevisionState, gate: Gate = Gate.ENFORCE) -> Rollout:
    return run(target, *revisions, gate=gate, strategy=Strategy.IN_PLACE)


def stable(ready: int = 2, promoted_at: float = 10.0) -> RevisionState:
    return RevisionState("a", ready=ready, pods=2, replicas=2, verdict=Verdict.PASS, promoted_at=promoted_at)


def test_a_first_revision_is_gated_with_one_replica() -> None:
    first = Rollout(None, Stage.GATING, {"a": 1}, requeue_after=DEADLINE)
    assert (run("a"), in_place("a")) == (first, first)


def test_a_candidate_is_gated_with_one_replica_beside_the_pods_that_serve() -> None:
    assert run("b", stable()) == Rollout("a", Stage.GATING, {"a": 2, "b": 1}, requeue_after=DEADLINE)


def test_a_candidate_without_a_deadline_is_not_looked_at_for_time_alone() -> None:
    terms = Terms(2, Gate.ENFORCE, Strategy.BLUE_GREEN, math.inf)
    assert decide(target="b", revisions=(stable(),), terms=terms, now=NOW).requeue_after is None


def test_a_first_revision_that_passed_is_scaled_before_it_takes_traffic() -> None:
    passed = RevisionState("a", ready=1, replicas=1, verdict=Verdict.PASS)
    assert run("a", passed) == Rollout(None, Stage.SCALING, {"a": 2}, requeue_after=DEADLINE)


def test_a_candidate_takes_traffic_once_it_carries_what_stable_carries() -> None:
    done = run("b", stable(), RevisionState("b", ready=2, replicas=2, verdict=Verdict.PASS))
    assert done == Rollout("b", Stage.PROMOTE, {"a": 2, "b": 2}, promote="b")


def test_a_first_revision_that_takes_traffic_leaves_nothing_to_drain() -> None:
    first = RevisionState("a", ready=2, replicas=2, verdict=Verdict.PASS)
    assert run("a", first) == Rollout("a", Stage.PROMOTE, {"a": 2}, promote="a")


def test_a_stable_with_one_ready_pod_asks_no_more_of_its_successor() -> None:
    assert run("b", stable(ready=1), RevisionState("b", ready=1, verdict=Verdict.PASS)).stage is Stage.PROMOTE


@pytest.mark.parametrize("verdict", [None, Verdict.INCONCLUSIVE, Verdict.NO_DATA, Verdict.ERROR])
def test_without_a_pass_a_ready_candidate_waits(verdict: Verdict | None) -> None:
    held = run("b", stable(), RevisionState("b", ready=2, replicas=2, verdict=verdict))
    assert (held.current, held.stage, held.promote) == ("a", Stage.GATING, None)


def test_a_failed_candidate_is_refused_and_its_pods_go() -> None:
    refused = run("b", stable(), RevisionState("b", replicas=1, verdict=Verdict.FAIL))
    assert refused == Rollout("a", Stage.REFUSED, {"a": 2})


def test_under_observe_a_failed_candidate_serves_once_it_is_ready() -> None:
    failed = RevisionState("b", verdict=Verdict.FAIL)
    assert run("b", stable(), failed, gate=Gate.OBSERVE).stage is Stage.GATING
    ready = RevisionState("b", ready=2, replicas=2, verdict=Verdict.FAIL)
    assert run("b", stable(), ready, gate=Gate.OBSERVE).promote == "b"


def test_going_back_to_a_revision_that_passed_needs_its_pods_not_its_gate() -> None:
    old = RevisionState("o", verdict=Verdict.PASS, promoted_at=1.0)
    assert run("o", stable(), old).replicas == {"a": 2, "o": 1}


def test_the_previous_revision_drains_and_then_goes() -> None:
    previous = RevisionState("o", ready=2, replicas=2, verdict=Verdict.PASS, promoted_at=1.0)
    draining = run("a", stable(promoted_at=NOW - 1), previous)
    assert draining.replicas == {"a": 2, "o": 2}
    assert draining.requeue_after == DRAIN_SECONDS - 1
    gone = run("a", stable(promoted_at=NOW - DRAIN_SECONDS), previous)
    assert gone == Rollout("a", Stage.NONE, {"a": 2})


def test_a_previous_revision_without_pods_is_not_waited_for() -> None:
    previous = RevisionState("o", verdict=Verdict.PASS, promoted_at=1.0)
    assert run("a", stable(promoted_at=NOW - 1), previous) == Rollout("a", Stage.NONE, {"a": 2})


def test_a_candidate_that_was_superseded_does_not_drain() -> None:
    superseded = RevisionState("x", ready=1, replicas=1)
    assert run("a", stable(promoted_at=NOW), superseded) == Rollout("a", Stage.NONE, {"a": 2})


def test_a_spec_that_cannot_be_served_leaves_what_runs_running() -> None:
    idle = RevisionState("o", verdict=Verdict.PASS, promoted_at=1.0)
    assert run(None, stable(), idle) == Rollout("a", Stage.BLOCKED, {"a": 2})
    assert run(None, stable(), replicas=3) == Rollout("a", Stage.BLOCKED, {"a": 3})


def test_a_gate_in_progress_goes_on_while_the_spec_cannot_be_served() -> None:
    gating = RevisionState("b", ready=0, replicas=1)
    assert run(None, stable(), gating).replicas == {"a": 2, "b": 1}
    assert run(None, gating).replicas == in_place(None, gating).replicas == {"b": 1}


def test_zero_replicas_starts_no_candidate() -> None:
    assert run("b", stable(), replicas=0).replicas == {"a": 0, "b": 0}


def waiting(seconds: float, *, ready: int = 0, verdict: Verdict | None = None) -> RevisionState:
    return RevisionState("b", ready=ready, replicas=1, verdict=verdict, candidate_since=NOW - seconds)


def test_a_candidate_is_withdrawn_at_the_deadline_and_what_serves_stays() -> None:
    still = run("b", stable(), waiting(DEADLINE - 1))
    assert (still.stage, still.replicas, still.requeue_after) == (Stage.GATING, {"a": 2, "b": 1}, 1.0)
    assert run("b", stable(), waiting(DEADLINE)) == Rollout("a", Stage.EXPIRED, {"a": 2})
    scaling = waiting(DEADLINE, ready=1, verdict=Verdict.PASS)
    assert run("b", stable(), scaling).stage is Stage.EXPIRED


def test_a_candidate_that_is_ready_at_the_deadline_takes_traffic() -> None:
    assert run("b", stable(), waiting(DEADLINE, ready=2, verdict=Verdict.PASS)).stage is Stage.PROMOTE


def test_a_first_revision_goes_on_trying_after_the_deadline() -> None:
    late = run("b", waiting(DEADLINE))
    assert late == Rollout(None, Stage.GATING, {"b": 1}, overdue=True, requeue_after=None)
    assert not run("b", waiting(DEADLINE - 1)).overdue


def test_in_place_stops_what_serves_and_starts_the_candidate_when_its_pods_are_gone() -> None:
    ending = RevisionState("a", ready=0, pods=1, replicas=0, verdict=Verdict.PASS, promoted_at=10.0)
    stopping = in_place("b", ending)
    assert (stopping.current, stopping.stage, stopping.replicas) == ("a", Stage.GATING, {"a": 0, "b": 0})
    gone = RevisionState("a", replicas=0, verdict=Verdict.PASS, promoted_at=10.0)
    assert in_place("b", gone).replicas == {"a": 0, "b": 1}


def test_in_place_serves_after_the_gate_with_the_first_ready_pod() -> None:
    gone = RevisionState("a", replicas=0, verdict=Verdict.PASS, promoted_at=10.0)
    done = in_place("b", gone, RevisionState("b", ready=1, pods=1, replicas=1, verdict=Verdict.PASS))
    assert (done.promote, done.replicas) == ("b", {"a": 0, "b": 2})


@for_each("candidate", {
    "refused": RevisionState("b", pods=1, replicas=1, verdict=Verdict.FAIL),
    "expired": waiting(DEADLINE),
})  # fmt: skip
def test_in_place_restores_what_served_when_the_candidate_is(candidate: RevisionState) -> None:
    gone = RevisionState("a", replicas=0, verdict=Verdict.PASS, promoted_at=10.0)
    assert in_place("b", gone, candidate).replicas == {"a": 2}
    assert in_place(None, gone, candidate).replicas == {"a": 2}


states = st.builds(
    RevisionState,
    name=st.sampled_from("abcd"),
    ready=st.integers(0, 3),
    pods=st.integers(0, 3),
    candidate_since=st.none() | st.floats(1, NOW),
    replicas=st.none() | st.integers(0, 3),
    verdict=st.none() | st.sampled_from(list(Verdict)),
    promoted_at=st.none() | st.floats(1, NOW),
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
