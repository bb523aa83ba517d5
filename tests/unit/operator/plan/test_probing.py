"""Runs of the prober of walls: when, under whose walls, how often; what ends one, what is heard of it, what goes with it."""

import itertools
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1plus_contract import names
from r1plus_contract.jsonable import dumps, loads
from r1plus_contract.monitor.isolation import Against, AttemptFinding, AttemptOutcome, Findings, IsolationProbe
from r1plus_operator.plan.observation import JOB_ENDED, ContainerFacts, Json
from r1plus_operator.plan.settings import IsolationTerms
from r1plus_operator.plan.tenancy.isolation_test_jobs import build_jobs
from r1plus_operator.plan.tenancy.isolation_test_run import (
    CONCURRENCY_WAIT_SECONDS,
    DEADLINE_SECONDS,
    RETRY_SECONDS,
    SETTLE_SECONDS,
    SPACING_SECONDS,
    IsolationTestRun,
    list_api_requests,
    list_connection_targets,
    locate_jobs,
    read_run,
)
from r1plus_policies.isolation import IsolationVerdict
from support.examples import count_examples
from support.plan.builders import job_pod
from support.plan.tenant_world import CONFIG, DECOY, DECOYS, TenantWorld, facts, probe_world
from support.tables import for_each

HOUR = CONFIG.isolation.interval


class TestWhen:
    """At once, then hourly; sooner only for a wall that changed or a run that shows nothing."""

    def test_nothing_is_tried_before_something_serves_and_the_decoy_is_there(self) -> None:
        one = probe_world()
        assert one.begin_due_runs() == 0
        one.decoy_ready = False
        assert one.serve("credit").begin_due_runs() == 0
        one.alter(decoy_ready=True).settle()
        assert one.probed_deployments() == ["credit"]

    @pytest.mark.parametrize(
        "said", [{}, {"opened": ("secret",)}, {"blind": ("metadata",)}], ids=["held", "open", "unseen"]
    )
    def test_a_run_that_showed_something_is_good_for_an_hour(self, said: Any) -> None:
        one = probe_world("credit").probed(**said)
        ended = one.ended_at()
        planned = one.plan()
        assert planned.requeue_after == pytest.approx(ended + HOUR - one.now)
        assert one.begin_due_runs(at=ended + HOUR - 1.0) == 1
        assert one.begin_due_runs(at=ended + HOUR) == 2

    def test_one_that_shows_nothing_is_made_again_after_a_while(self) -> None:
        one = probe_world("credit").probed(blind=DECOYS)
        ended = one.ended_at()
        assert one.begin_due_runs(at=ended + RETRY_SECONDS - 1.0) == 1
        assert one.begin_due_runs(at=ended + RETRY_SECONDS) == 2

    def test_a_changed_policy_causes_one_run_and_none_sooner_than_may_be(self) -> None:
        one = probe_world("credit", "fraud").probed()
        began = one.made[0].started
        one.now = began + 40.0
        one.serving["fraud"] = "other"
        planned = one.settle()
        assert planned.requeue_after == pytest.approx(began + SPACING_SECONDS - one.now, abs=0.2)
        assert one.begin_due_runs(at=began + SPACING_SECONDS - 0.2) == 1
        one.alter(now=began + SPACING_SECONDS).settle()
        assert one.probed_deployments() == ["credit", "fraud"]
        one.idle(HOUR - 120)
        assert len(one.made) == 2

    def test_changes_in_between_are_one(self) -> None:
        one = probe_world("credit", "fraud").probed()
        for i in range(5):
            one.alter(serving={name: f"{name}-{i}" for name in one.serving}).settle()
        one.idle(HOUR - 300)
        assert len(one.made) == 2

    def test_a_policy_of_the_namespace_that_was_made_anew_is_a_change(self) -> None:
        one = probe_world("credit").probed()
        one.idle(600)
        assert len(one.made) == 1
        del one.live["team", "NetworkPolicy", "r1plus-default-deny"]
        assert one.begin_due_runs() == 2

    def test_a_policy_that_changes_during_a_run_is_tried_after_it(self) -> None:
        one = probe_world("credit")
        one.settle()
        one.serving["credit"] = "other"
        assert one.wait(100).begin_due_runs() == 1
        assert one.end().begin_due_runs() == 2

    def test_what_is_not_ready_for_a_while_changes_no_policy(self) -> None:
        one = probe_world("credit", "fraud").probed()
        for _ in range(20):
            one.serve("credit")
            one.idle(60)
            one.serve("credit", "fraud")
            one.idle(60)
        assert len(one.made) == 1

    def test_while_too_many_others_run_it_waits_and_asks_again(self) -> None:
        one = probe_world("credit")
        one.crowded = True
        planned = one.settle()
        assert not one.made
        assert planned.requeue_after == CONCURRENCY_WAIT_SECONDS
        assert not planned.has_active_run
        one.crowded = False
        assert one.pass_once().has_active_run
        one.crowded = True
        assert one.settle().has_active_run
        assert len(one.made) == 1

    def test_a_clock_that_was_set_back_delays_no_run_and_makes_none_begin_again_and_again(self) -> None:
        one = probe_world("credit").probed()
        one.now -= 90_000
        one.serving["credit"] = "other"
        one.expect(IsolationVerified="True IsolationEnforced")
        planned = one.settle()
        assert len(one.made) == 2, "walls that changed are tried"
        assert one.condition("IsolationVerified")[:2] == ("Unknown", "ProbeOverdue"), "and nothing is known until then"
        assert planned.requeue_after is not None
        assert planned.requeue_after <= 2 * DEADLINE_SECONDS
        for _ in range(5):
            one.now += 30.0
            one.end().settle()
        one.expect(IsolationVerified="True IsolationEnforced")
        assert len(one.made) == 2
        one.wait(HOUR).probed()
        for _ in range(5):
            one.wait(SPACING_SECONDS).probed()
        assert len(one.made) == 3, "a clock that was ahead makes no run look older than the one before it"


CHANGES = st.lists(
    st.tuples(st.sampled_from(["wait", "wall", "flap", "quiet", "open"]), st.integers(0, 3), st.integers(1, 1500)),
    max_size=12,
)


@pytest.mark.unit_slow
@settings(max_examples=count_examples(60), deadline=None)
@given(CHANGES)
def test_runs_are_never_closer_than_may_be_and_no_more_than_an_hour_and_the_changes_ask_for(
    changes: list[tuple[str, int, int]],
) -> None:
    one = probe_world("a", "b", "c", "d")
    began = one.now
    asked = 1
    for what, which, seconds in changes:
        name = "abcd"[which]
        if what == "wall" and name in one.serving:
            one.serving[name] = f"{name}{one.now}"
            asked += 1
        elif what == "flap":
            one.serving.pop(name, None)
            one.idle(30)
            one.serve("a", "b", "c", "d")
            one.serving.setdefault(name, f"walls-of-{name}")
        one.idle(seconds, opened=("secret",) if what == "open" else ())
    starts = [run.started for run in one.made]
    assert all(later - sooner >= SPACING_SECONDS for sooner, later in itertools.pairwise(starts))
    flaps = sum(what == "flap" for what, _, _ in changes)
    assert len(starts) <= asked + flaps + (one.now - began) / HOUR
    assert len([run for run in one.runs() if run.ended_at is None]) <= 1
    assert len(one.jobs()) <= 6


class TestUnderWhosePolicies:
    """Each in turn; a change beside them; what was open until it holds."""

    def test_each_that_serves_has_its_turn(self) -> None:
        one = probe_world("credit", "fraud", "mail", "shop")
        for _ in range(6):
            one.probed()
            one.now += HOUR
        assert one.probed_deployments() == ["credit", "fraud", "mail", "shop", "credit", "fraud"]

    def test_who_comes_or_goes_takes_nobodys_turn(self) -> None:
        one = probe_world("b", "d", "f").probed()
        one.wait(HOUR).serve("a", "d", "f").probed()
        one.wait(HOUR).serve("a", "f").probed().wait(HOUR).probed()
        assert one.probed_deployments() == ["b", "a", "f", "a"]

    def test_changes_of_one_do_not_keep_the_others_from_their_turn(self) -> None:
        one = probe_world("a", "b", "c", "d").probed()
        for i in range(4):
            one.serving["a"] = f"changed {i}"
            one.wait(SPACING_SECONDS).probed().wait(HOUR).probed()
        assert one.probed_deployments() == ["a", "a", "b", "a", "c", "a", "d", "a", "b"]

    def test_what_was_open_is_tried_again_until_it_holds(self) -> None:
        one = probe_world("a", "b", "c").probed().wait(HOUR).probed(opened=("decoy-pod:8000",))
        one.expect(IsolationVerified="False IsolationBroken")
        one.wait(HOUR).probed(opened=("decoy-pod:8000",))
        one.wait(HOUR).probed(blind=DECOYS)  # a run that shows nothing is no proof that it is shut
        one.wait(HOUR).probed()
        one.expect(IsolationVerified="True IsolationEnforced")
        one.wait(HOUR).probed()
        assert one.probed_deployments() == ["a", "b", "b", "b", "b", "c"]

    def test_what_was_open_and_whose_words_are_lost_is_tried_again_before_any_others(self) -> None:
        one = probe_world("a", "b").probed(opened=("decoy-pod:8000",))
        one.expect(IsolationVerified="False IsolationBroken")
        one.pods.clear()
        one.wait(SETTLE_SECONDS).settle()
        one.expect(IsolationVerified="Unknown ProbeFailed")
        one.wait(RETRY_SECONDS).probed().wait(HOUR).probed()
        assert one.probed_deployments() == ["a", "a", "b"]

    def test_what_was_open_and_serves_no_more_holds_nobody_up(self) -> None:
        one = probe_world("a", "b").probed(opened=DECOYS)
        one.expect(IsolationVerified="NetworkPolicyNotEnforced")
        one.wait(HOUR).serve("b").probed()
        one.wait(HOUR).serve("a", "b").probed()
        assert one.probed_deployments() == ["a", "b", "a"]
        assert one.made[1].owed == ""


class TestOneRun:
    """Three Jobs, whatever happens between them."""

    @pytest.mark.parametrize("writes", [0, 1, 2])
    @pytest.mark.parametrize("backwards", [False, True], ids=["in order", "backwards"])
    def test_a_crash_between_its_jobs_is_healed(self, writes: int, backwards: bool) -> None:
        one = probe_world("credit")
        for _ in range(2):
            one.pass_once()
        one.live = {key: obj for key, obj in one.live.items() if key[1] != "Job"}
        one.made.clear()
        one.carry_out(one.plan(), writes, backwards=backwards)
        one.wait(3.0).settle()
        assert len(one.jobs()) == 3
        assert [run.run for run in one.runs()] == one.made
        assert len(one.made) == 1
        one.end().settle()
        one.expect(IsolationVerified="True IsolationEnforced")

    def test_one_that_does_not_end_is_given_up_and_goes(self) -> None:
        one = probe_world("credit")
        one.settle()
        planned = one.settle()
        assert planned.requeue_after == pytest.approx(2 * DEADLINE_SECONDS, abs=2)
        assert one.wait(2 * DEADLINE_SECONDS - 5).begin_due_runs() == 1
        assert one.wait(5).begin_due_runs() == 2
        assert {(run := read_run(job)) and run.started for job in one.jobs()} == {one.made[1].started}

    def test_the_one_before_is_kept_until_a_newer_one_has_ended(self) -> None:
        one = probe_world("credit").probed()
        first = {job["metadata"]["name"] for job in one.jobs()}
        one.wait(HOUR).settle()
        assert len(one.jobs()) == 6
        one.expect(IsolationVerified="True IsolationEnforced")
        going_on = one.jobs(going_on=True)
        for job in going_on[:2]:
            job[JOB_ENDED] = {"type": "Complete", "at": one.now, "final": False}
            one.speak(job)
        one.settle()
        assert first < {job["metadata"]["name"] for job in one.jobs()}
        one.end().settle()
        assert len(one.jobs()) == 3
        assert not first & {job["metadata"]["name"] for job in one.jobs()}

    def test_its_last_words_may_come_after_its_end(self) -> None:
        one = probe_world("credit")
        one.probed().wait(HOUR).settle()
        last = one.jobs(going_on=True)
        one.end(silent=(IsolationProbe.KNOCK,))
        planned = one.settle()
        assert planned.requeue_after == pytest.approx(SETTLE_SECONDS, abs=0.5)
        assert planned.has_active_run
        assert one.condition("IsolationVerified")[:2] == ("True", "IsolationEnforced"), "of the run before"
        for job in last:
            one.speak(job, opened=("secret",))
        one.settle()
        one.expect(IsolationVerified="False IsolationBroken")
        assert one.status["isolation"]["open"] == ["secret"]

    @pytest.mark.parametrize("silent", [IsolationProbe.KNOCK, IsolationProbe.ASK, IsolationProbe.CONTROL])
    def test_one_that_stays_silent_shows_nothing(self, silent: IsolationProbe) -> None:
        one = probe_world("credit")
        one.settle()
        one.end(silent=(silent,)).settle()
        one.expect(IsolationVerified="Unknown Probing")
        one.wait(SETTLE_SECONDS).settle()
        one.expect(IsolationVerified="Unknown ProbeFailed")

    def test_words_that_are_none_are_no_findings(self) -> None:
        one = probe_world("credit")
        one.settle()
        one.end()
        one.pods = {key: replace(pod, containers=tuple(replace(c, message=c.message[:-3]) for c in pod.containers)) for key, pod in one.pods.items()}  # fmt: skip
        one.wait(SETTLE_SECONDS).settle()
        one.expect(IsolationVerified="Unknown ProbeFailed")


class TestWhoseRun:
    """Whoever can write a Job or a pod somewhere must not speak for another tenant."""

    def test_a_predecessors_runs_are_not_its_own(self) -> None:
        one = probe_world("credit").probed(opened=("secret",))
        one.namespace = replace(one.namespace, uid="made-anew")
        one.status = {}
        planned = one.pass_once()
        assert (planned.view.status, planned.view.reason) == ("Unknown", "Probing")
        assert planned.newest is None
        assert len(planned.delete) == 3
        one.settle()
        assert one.made[-1].uid == "made-anew"

    @pytest.mark.parametrize("where", ["other", DECOY])
    def test_a_job_of_its_that_lies_elsewhere_is_not_heard(self, where: str) -> None:
        one = probe_world("credit").probed()
        forged = IsolationTestRun(
            "team", one.namespace.uid, "credit", dict(one.runs()[0].run.walls), int(one.now) + 900
        )
        for probe, name in forged.jobs:
            meta = {
                "name": name,
                "namespace": where if probe != IsolationProbe.CONTROL else "other",
                "uid": f"forged-{name}",
            }
            meta |= {"annotations": {names.ANNOTATION_PROBED: dumps(forged)}, "labels": {}}
            of_it: Json = next(job for job in build_jobs(forged, CONFIG) if job["metadata"]["name"] == name)
            one.live[meta["namespace"], "Job", name] = {**of_it, "metadata": meta}
        one.end()
        assert [run.run for run in one.runs()] == one.made

    def test_a_pod_elsewhere_that_says_it_is_its_jobs_is_not_heard(self) -> None:
        one = probe_world("credit")
        one.settle()
        one.end(opened=("secret",))
        for job in one.jobs():
            meta = job["metadata"]
            said = one.pods[meta["namespace"], meta["uid"]]
            one.pods["other", meta["uid"]] = replace(said, containers=())
            one.pods[meta["namespace"], "another"] = replace(said, containers=())
        one.settle()
        one.expect(IsolationVerified="IsolationBroken")

    @pytest.mark.parametrize(
        "told",
        [
            "",
            "{",
            "[]",
            '{"namespace": "team"}',
            dumps(IsolationTestRun("team", "u", "credit", {}, 1)).replace("started", "begun"),
        ],
    )
    def test_a_job_that_says_nothing_readable_is_of_no_run(self, told: str) -> None:
        job = {"metadata": {"name": "j", "namespace": "team", "annotations": {names.ANNOTATION_PROBED: told}}}
        assert read_run(job) is None
        assert read_run({"metadata": {"name": "j", "namespace": "team"}}) is None

    def test_a_job_under_a_name_that_is_not_its_runs_is_not_heard(self) -> None:
        one = probe_world("credit")
        one.settle()
        assert len(one.runs()) == 1
        for key in [key for key in one.live if key[1] == "Job"]:
            job = one.live.pop(key)
            one.live[key[0], "Job", f"{key[2]}-x"] = {**job, "metadata": {**job["metadata"], "name": f"{key[2]}-x"}}
        assert one.runs() == ()


NAMES = st.from_regex(r"\A[a-z]([-a-z0-9]{0,61}[a-z0-9])?\Z")
RUNS = st.builds(
    IsolationTestRun,
    NAMES,
    st.uuids().map(str),
    NAMES,
    st.dictionaries(NAMES, st.just("0123abcd"), max_size=4),
    st.integers(0, 2**40),
)


@given(RUNS)
def test_a_run_is_read_as_it_was_written(run: IsolationTestRun) -> None:
    jobs = build_jobs(run, CONFIG)
    places = [(job["metadata"]["namespace"], job["metadata"]["name"]) for job in jobs]
    assert set(places) == set(locate_jobs(run, CONFIG).values())
    assert [read_run(job) for job in jobs] == [run] * len(jobs)
    assert all(len(name) <= 57 for _, name in places), "pods add six characters to it"


def test_names_that_are_alike_to_the_last_character_share_no_job() -> None:
    long = "t" * 62
    made = [IsolationTestRun(f"{long}{last}", "u", "credit", {}, 1) for last in "abc"] + [
        IsolationTestRun("a", "u", "b", {}, 1),
        IsolationTestRun("b", "u", "a", {}, 1),
    ]
    controls = [
        place for run in made for probe, place in locate_jobs(run, CONFIG).items() if probe == IsolationProbe.CONTROL
    ]
    assert {namespace for namespace, _ in controls} == {DECOY}
    assert len({name for _, name in controls}) == len(made)


@for_each("beside", {
    "nothing beside": {},
    "Prometheus and registry beside":
        {"prometheus": "http://prometheus.monitoring.svc:9090", "registry": "https://registry.r1plus-system.svc"},
})  # fmt: skip
def test_every_door_and_question_has_a_name_of_its_own(beside: dict[str, str]) -> None:
    config = replace(CONFIG, isolation=replace(CONFIG.isolation, other_targets=beside))
    run = IsolationTestRun("team", "u", "credit", {}, 0)
    named = [
        one.name for one in (*list_connection_targets(IsolationProbe.CONTROL, run, config), *list_api_requests(config))
    ]
    assert len(set(named)) == len(named)
    assert (
        len(
            dumps(
                Findings(
                    tuple(AttemptFinding(name, AttemptOutcome.SHUT, 30_000, "HTTP 403 xxxxxxxxxx") for name in named)
                )
            )
        )
        < 4096
    )


def test_every_port_of_another_tenants_pod_is_knocked_at_and_ones_own_service() -> None:
    run = IsolationTestRun("team", "u", "credit", {}, 0)
    found = {door.name: door for door in list_connection_targets(IsolationProbe.KNOCK, run, CONFIG)}
    decoys = {(door.host, door.port) for door in found.values() if door.against is Against.DECOY}
    pod, service = f"decoy-pods.{DECOY}.svc", f"decoy.{DECOY}.svc"
    assert decoys == {(pod, 8000), (pod, 8001), (pod, 8002), (pod, 8080), (service, 8001)}
    own = [(door.host, door.port) for door in found.values() if door.against is Against.OWN]
    assert own == [("credit.team.svc", 8001)]
    platform = {name: (door.host, door.port) for name, door in found.items() if door.against is Against.PLATFORM}
    assert platform == {
        "metadata": ("169.254.169.254", 80),
        "kubelet": ("$(R1PLUS_NODE_IP)", 10250),
        "node-ssh": ("$(R1PLUS_NODE_IP)", 22),
        "apiserver": ("kubernetes.default.svc", 443),
        "prometheus": ("prometheus.monitoring.svc", 9090),
    }
    let_out = list_connection_targets(IsolationProbe.ASK, run, CONFIG)
    shut = {(pod, port, Against.DECOY) for port in (8000, 8001, 8002, 8080)}
    assert {(door.host, door.port, door.against) for door in let_out} == {*shut, (pod, 8003, Against.OWN)}
    assert list_connection_targets(IsolationProbe.CONTROL, run, CONFIG) == (
        *list_connection_targets(IsolationProbe.KNOCK, run, CONFIG),
        *let_out,
    )


def test_a_decoy_that_only_its_callers_policies_shut_is_open() -> None:
    """A plugin that enforces egress and no ingress.

    Of two walls in a row the first hides that the second is missing.
    """
    one = probe_world("credit")
    one.settle()
    one.end(opened=("decoy-ingress:8000", "decoy-ingress:8001", "decoy-ingress:8002", "decoy-ingress:8080"))
    judgement = one.runs()[0].judgement
    assert (judgement.verdict, len(judgement.open)) == (IsolationVerdict.OPEN, 4)
    assert "decoy-pod:8000" in judgement.held


LET_OUT = {f"decoy-ingress:{port}": AttemptOutcome.SHUT for port in (8000, 8001, 8002, 8080)}
UNDER_POLICIES = {
    **{f"decoy-pod:{port}": AttemptOutcome.SHUT for port in (8000, 8001, 8002, 8080)},
    **dict.fromkeys(
        ("decoy-service", "metadata", "kubelet", "node-ssh", "apiserver", "prometheus"), AttemptOutcome.SHUT
    ),
    "own-service": AttemptOutcome.OPEN,
}
REACHED = {**LET_OUT, "decoy-let-in": AttemptOutcome.OPEN}


@for_each("under_policies, let_out, verdict", {
    "each of its own": (UNDER_POLICIES, REACHED, IsolationVerdict.HELD),
    "who is let out says nothing": (UNDER_POLICIES, None, IsolationVerdict.UNPROVEN),
    "nor whether it is": (UNDER_POLICIES, LET_OUT, IsolationVerdict.UNPROVEN),
    "it is not let out": (UNDER_POLICIES, {**LET_OUT, "decoy-let-in": AttemptOutcome.SHUT}, IsolationVerdict.UNPROVEN),
    "who is let out speaks for both": (None, {**UNDER_POLICIES, **REACHED}, IsolationVerdict.UNPROVEN),
    "who is under walls speaks for both": ({**UNDER_POLICIES, **REACHED}, None, IsolationVerdict.UNPROVEN),
    "of another's door": (UNDER_POLICIES, {**REACHED, "decoy-pod:8000": AttemptOutcome.SHUT}, IsolationVerdict.UNPROVEN),
    "open is open": (UNDER_POLICIES, {**REACHED, "decoy-pod:8000": AttemptOutcome.OPEN}, IsolationVerdict.OPEN),
    "ingress alone is open": (UNDER_POLICIES, {**REACHED, "decoy-ingress:8080": AttemptOutcome.OPEN}, IsolationVerdict.OPEN),
})  # fmt: skip
def test_who_knocks_says_what_it_found_itself(
    under_policies: dict[str, AttemptOutcome] | None,
    let_out: dict[str, AttemptOutcome] | None,
    verdict: IsolationVerdict,
) -> None:
    one = probe_world("credit")
    one.settle()
    one.end()
    for key, pod in one.pods.items():
        if key[0] == DECOY:
            continue
        knock, *more = pod.containers
        said = let_out if more else under_policies
        tries = tuple(AttemptFinding(name, outcome) for name, outcome in (said or {}).items())
        one.pods[key] = replace(
            pod, containers=(replace(knock, message="" if said is None else dumps(Findings(tries))), *more)
        )
    one.now += SETTLE_SECONDS
    assert one.runs()[0].judgement.verdict is verdict


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://prometheus.monitoring.svc:9090", ("prometheus.monitoring.svc", 9090)),
        ("http://prometheus.monitoring.svc:9090/prefix?x=y:1", ("prometheus.monitoring.svc", 9090)),
        ("http://prometheus.monitoring.svc", ("prometheus.monitoring.svc", 80)),
        ("https://prometheus.monitoring.svc/", ("prometheus.monitoring.svc", 443)),
        ("http://me:secret@prometheus:9090", ("prometheus", 9090)),
        ("http://[fd00::1]:9090", ("fd00::1", 9090)),
        ("http://[fd00::1]", ("fd00::1", 80)),
        ("prometheus:9090", None),
        ("http://prometheus:many", None),
        ("http://prometheus:99999", None),
        ("http://[fd00::1", None),
        ("http://", None),
    ],
)
def test_of_an_address_beside_host_and_port_are_taken_and_nothing_else(
    url: str, address: tuple[str, int] | None
) -> None:
    config = replace(CONFIG, isolation=IsolationTerms(DECOY, other_targets={"beside": url}))
    found = [
        (door.host, door.port)
        for door in list_connection_targets(IsolationProbe.KNOCK, IsolationTestRun("t", "u", "d", {}, 0), config)
        if door.name == "beside"
    ]
    assert found == ([address] if address else [])


@pytest.mark.parametrize("question", list_api_requests(CONFIG), ids=lambda question: question.name)
def test_a_question_is_about_the_decoy_and_writes_nothing(question: Any) -> None:
    assert f"/namespaces/{DECOY}/" in question.path
    writes = question.method not in ("GET",) and "/exec?" not in question.path
    assert writes is ("dryRun=All" in question.path)
    assert not question.body or json.loads(question.body)


class TestJobs:
    """Pods under Pod Security `restricted`, each with what it needs and no more."""

    def made(self) -> dict[str, Json]:
        run = IsolationTestRun("team", "u", "credit", {}, 0)
        return {
            job["spec"]["template"]["metadata"]["labels"][names.LABEL_PROBE]: job for job in build_jobs(run, CONFIG)
        }

    def test_who_knocks_stands_under_a_deployments_policies_and_bears_no_token(self) -> None:
        template = self.made()[IsolationProbe.KNOCK]["spec"]["template"]
        assert template["metadata"]["labels"][names.LABEL_DEPLOYMENT] == "credit"
        assert names.LABEL_SERVING not in template["metadata"]["labels"], "no Service leads to it"
        assert "volumes" not in template["spec"]
        assert "serviceAccountName" not in template["spec"]
        assert [container["name"] for container in template["spec"]["containers"]] == ["knock"]

    @for_each("probe, account, namespace, containers", {
        "who asks may do nothing": (IsolationProbe.ASK, names.PROBER, "team", ["knock", "ask"]),
        "its control is the chart's, beside the decoy": (IsolationProbe.CONTROL, "control", DECOY, ["knock", "ask"]),
    })  # fmt: skip
    def test_who_asks(self, probe: IsolationProbe, account: str, namespace: str, containers: list[str]) -> None:
        job = self.made()[probe]
        pod = job["spec"]["template"]["spec"]
        assert (job["metadata"]["namespace"], pod["serviceAccountName"]) == (namespace, account)
        assert [container["name"] for container in pod["containers"]] == containers
        assert names.LABEL_DEPLOYMENT not in job["spec"]["template"]["metadata"]["labels"]
        mounting = [container["name"] for container in pod["containers"] if "volumeMounts" in container]
        assert mounting == ["ask"]

    @pytest.mark.parametrize("probe", list(IsolationProbe))
    def test_each_is_held_short(self, probe: IsolationProbe) -> None:
        job = self.made()[probe]
        pod = job["spec"]["template"]["spec"]
        assert job["spec"]["backoffLimit"] == 0
        assert job["spec"]["activeDeadlineSeconds"] == DEADLINE_SECONDS
        assert pod["automountServiceAccountToken"] is False
        assert pod["restartPolicy"] == "Never"
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["image"] == CONFIG.monitor_image

    def test_the_control_makes_the_same_tries_and_expects_them_open(self) -> None:
        made = self.made()
        arguments = {
            (probe, container["name"]): container["args"]
            for probe, job in made.items()
            for container in job["spec"]["template"]["spec"]["containers"]
        }
        knocked = [json.loads(arguments[probe, "knock"][1]) for probe in (IsolationProbe.KNOCK, IsolationProbe.ASK)]
        assert json.loads(arguments[IsolationProbe.CONTROL, "knock"][1]) == [*knocked[0], *knocked[1]]
        assert arguments[IsolationProbe.CONTROL, "knock"][2:] == ["--expect", "open"]
        assert [arguments[probe, "knock"][2:] for probe in (IsolationProbe.KNOCK, IsolationProbe.ASK)] == [[], []]
        asked = json.loads(arguments[IsolationProbe.ASK, "ask"][1])
        controlled = json.loads(arguments[IsolationProbe.CONTROL, "ask"][1])
        assert arguments[IsolationProbe.CONTROL, "ask"][2:] == ["--expect", "open"]
        assert [one["name"] for one in asked if one["anonymous"]] == ["secret-anonymous"]
        assert controlled == [{**one, "anonymous": False} for one in asked], "who is nobody is let through nowhere"

    def test_secrets_for_pulling_images_are_named(self) -> None:
        run, config = IsolationTestRun("team", "u", "credit", {}, 0), replace(CONFIG, image_pull_secrets=("pull",))
        assert all(
            job["spec"]["template"]["spec"]["imagePullSecrets"] == [{"name": "pull"}] for job in build_jobs(run, config)
        )
        assert all("imagePullSecrets" not in job["spec"]["template"]["spec"] for job in build_jobs(run, CONFIG))


def test_the_annotation_of_a_tenant_with_many_deployments_is_within_what_kubernetes_takes() -> None:
    run = IsolationTestRun("team", "u", "d" * 63, {f"{i:063}": "0123abcd" for i in range(1000)}, 2**31)
    assert all(len(dumps(job["metadata"]["annotations"])) < 256 * 1024 for job in build_jobs(run, CONFIG))
    assert loads(IsolationTestRun, dumps(run)) == run


def test_a_pods_last_words_are_those_of_its_own_container() -> None:
    one = probe_world("credit")
    one.settle()
    one.end()
    key, pod = next((key, pod) for key, pod in one.pods.items() if key[0] == DECOY)
    knock, ask = pod.containers
    swapped = (replace(knock, message=ask.message), replace(ask, message=knock.message))
    one.pods[key] = replace(pod, containers=swapped)
    assert one.runs()[0].judgement.verdict is IsolationVerdict.UNPROVEN
    one.pods[key] = job_pod(*pod.containers, ContainerFacts("other", ready=False, message="{}"))
    assert one.runs()[0].judgement.verdict is IsolationVerdict.HELD


def test_namespaces_of_other_tenants_are_named_nowhere() -> None:
    one = TenantWorld(facts("bank"), spec={})
    one.serve("credit").settle()
    texts = [dumps(job["spec"]["template"]["spec"]) for job in one.jobs()]
    assert any("credit.bank.svc" in text for text in texts)
    assert [text for text in texts if "bank" in text.replace("credit.bank.svc", "")] == []
