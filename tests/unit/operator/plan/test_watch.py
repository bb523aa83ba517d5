"""A Problem of the spec stops neither the watch over what serves nor its rollback.

The property: whatever goes wrong with the spec, in whatever state of a rollout or a rollback, an accuracy drop is answered
as it would be without that. Each case is told twice, with the Problem and without it, and must go the same way.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest

from r1plus_contract import names
from r1plus_contract.requests import Verb
from r1plus_contract.suites.suite_baseline import Measurement
from r1plus_contract.verdict import MonitorReport, Verdict, WatchStanding
from r1plus_model_repo.catalog.types import Backend, GpuRequirement
from r1plus_operator.api.conditions import Reason
from r1plus_operator.api.tenants import TenantPlacement
from r1plus_operator.plan.deployment import Plan
from r1plus_operator.plan.observation import PodFacts, SuiteSource, TenantView
from r1plus_operator.plan.revision.resolution import resolve_spec
from r1plus_operator.plan.revision.storage import read_revisions
from r1plus_operator.plan.settings import SuiteTrust, TritonRuntime
from support.plan.world import CATALOG, DAY, FULL, NODE, Q4_1, SUITES, World, suite

SUITE = "smollm2-full-v1"
ASKED = {**FULL, "accuracy": {"onBreach": "Rollback"}}


def fork(world: World) -> World:
    """Return a world that goes on from here on its own."""
    forked = copy.copy(world)
    for name in ("spec", "suites", "children", "pods", "reports", "annotations"):
        setattr(forked, name, dict(getattr(world, name)))
    forked.notes = list(world.notes)
    return forked


# What may be wrong with a spec, whoever has done it.


def remove_engine(world: World) -> None:
    """Of what the spec asks for; a removed engine and one that was edited until nobody can read it look the same."""
    others = {"smollm2-full-f16"} if world.spec.get("engine") == Q4_1 else set()
    world.engines = tuple(e for e in CATALOG if e.spec.tier.value != "full" or e.name in others)


def remove_files(world: World) -> None:
    """The chart names no image of any engine any more, what serves and what served before included."""
    world.engines = tuple(replace(e, spec=e.spec.model_copy(update={"artifact": None})) for e in CATALOG)


def take_gpus_away(world: World) -> None:
    """Every engine is one for GPUs now, which no node has."""
    gpu = {"gpu": GpuRequirement(count=1)}
    updates = [{"backend": Backend.VLLM, "requirements": e.spec.requirements.model_copy(update=gpu)} for e in CATALOG]
    world.engines = tuple(
        replace(e, spec=e.spec.model_copy(update=update)) for e, update in zip(CATALOG, updates, strict=True)
    )
    world.config = replace(world.config, gpu_runtimes={"vllm": TritonRuntime("registry.local/triton-vllm:1", None)})


def change_suite(world: World) -> None:
    said = f"items.jsonl: sha256 is {'a' * 64}"
    world.suites = {name: SuiteSource(name, "", "", None, f"{name}: {said}") for name in world.suites}


def trust_no_signer(world: World) -> None:
    world.spec["delivery"] = {"mode": "Volume"}
    world.config = replace(world.config, volumes=replace(world.config.volumes, require_signature=True))


def break_tenant(world: World) -> None:
    """The R1PlusTenant cannot be read, and the spec asks for something new."""
    world.tenant = TenantView("True", Reason.ISOLATION_ENFORCED, "", unreadable="spec.placement: not a mapping")
    world.spec["context"] = {"maxTokens": 777}


def edit_suite(world: World) -> None:
    said = "suite.json: scorerVersion: 1 is not 2"
    world.suites = {name: SuiteSource(name, "", "", None, f"{name}: {said}") for name in world.suites}


def remove_image(world: World) -> None:
    """The engines were vLLM's as long as the chart named an image for it."""
    engines = (replace(e, spec=e.spec.model_copy(update={"backend": Backend.VLLM})) for e in CATALOG)
    world.engines = tuple(engines)


def raise_threshold(world: World) -> None:
    reached = Measurement("e", "batch 1", 4, 3, {"s": "3/4"}, ("i3",))
    world.suites = {name: replace(source, reference_result=reached) for name, source in world.suites.items()}
    world.spec["accuracy"] = {**world.spec["accuracy"], "threshold": 1.0}


def break_spec(world: World) -> None:
    """What an older schema let in: nothing of it is left readable."""
    world.spec = {
        "tier": "huge",
        "replicas": -1,
        "accuracy": {"onBreach": "Rolback", "threshold": "high"},
        "colour": "red",
    }


def forbid_place(world: World) -> None:
    """Ask for a place that the platform team does not allow the tenant."""
    world.tenant = TenantView("True", Reason.ISOLATION_ENFORCED, "", placement=TenantPlacement())
    world.spec["placement"] = {"tolerations": [{"key": "spot", "operator": "Exists"}]}


PROBLEMS: Mapping[str, Callable[[World], Any]] = {
    "the trusted key was rotated": lambda w: w.alter(config=replace(w.config, suite_trust=SuiteTrust(required=True))),
    "the chart has no such suite any more": lambda w: w.alter(suites={}),
    "the suite was edited, or the scorer's version raised": edit_suite,
    "the suite's items were edited": change_suite,
    "the engine is gone from the catalog": remove_engine,
    "no engine is left in the catalog": lambda w: w.alter(engines=()),
    "the engines' images were taken out of the chart": remove_files,
    "an engine is asked for that is not there": lambda w: w.spec.update(engine={"family": "other"}),
    "no signer of what a volume gets is trusted": trust_no_signer,
    "no node has room": lambda w: w.alter(nodes=(replace(NODE, memory_bytes=2**28),)),
    "no node is there": lambda w: w.alter(nodes=()),
    "no node has a GPU": take_gpus_away,
    "no node is admitted": lambda w: w.spec.update(placement={"nodeSelector": {"zone": "b"}}),
    "the image that serves the backend was taken out of the chart": remove_image,
    "more is asked for than any node has": lambda w: w.spec.update(batching={"maxBatchSize": 1000}),
    "a longer context is asked for than the engine has": lambda w: w.spec.update(context={"maxTokens": 10**6}),
    "a threshold is asked for that no engine reaches": raise_threshold,
    "the spec is malformed": break_spec,
    "another place is asked for than the tenant may have": forbid_place,
    "what the tenant may have cannot be read": break_tenant,
}  # fmt: skip
REASONS = {"SuiteInvalid", "SuiteNotFound", "SuiteHashMismatch", "EngineNotFound", "EngineNotDelivered", "NoNodeFits",
           "GpuNotFound", "RuntimeNotServed", "BatchTooLarge", "ContextTooLong", "ThresholdUnreachable", "InvalidSpec",
           "PlacementNotAllowed"}  # fmt: skip
"""Of all Problems but three, which are found at the same places: ConfigRefused, ReferenceLower, StorageNotShared."""


# States in which it may come about. Each is a world that has come to rest, and what serves in it.


def serving(replicas: int, **spec: Any) -> World:
    """A revision served for a day, and another one of another engine has taken over."""
    world = World({**ASKED, **spec, "replicas": replicas})
    good = world.bring_up()
    world.wait(DAY).apply(engine=Q4_1)
    world.start_pods(good, ready=True)
    bad = world.bring_up()
    world.wait(60.0).settle()
    world.gate(bad, Verdict.PASS).steady().settle()
    assert world.selected() == bad
    return world


def controlled(**spec: Any) -> World:
    world = serving(1, **spec).drop("i0", "i1")
    world.settle()
    world.start_pods(str(world.status["candidate"])).settle()
    return world


def rolled_back(**spec: Any) -> World:
    world = controlled(**spec)
    good = str(world.status["candidate"])
    world.pass_control(good).start_pods(good, ready=True).settle()
    world.wait(DAY).settle()
    assert world.selected() == good
    return world


def first(**spec: Any) -> World:
    world = World({**ASKED, **spec})
    world.bring_up()
    world.steady().settle()
    return world


def ungated(replicas: int = 1) -> World:
    """Under Observe, which has no Pass: what serves was let through before its gate had decided."""
    world = World({**ASKED, "replicas": replicas, "accuracy": {"onBreach": "Rollback", "gate": "Observe"}})
    world.settle()
    revision = world.candidate()
    world.start_pods(revision, ready=True).settle()
    world.start_pods(revision, ready=True).settle()
    world.gate(revision, Verdict.INCONCLUSIVE).steady().settle()
    assert world.selected() == revision
    assert not world.revision(revision).verdicts
    return world


def fail_control(world: World) -> World:
    return world.control(Verdict.FAIL, lost=4).settle() and world


def pinned() -> World:
    world = serving(1)
    return world.change(rollout={"pinned": True}).settle() and world


def alerting() -> World:
    world = serving(1)
    return world.change(accuracy={"onBreach": "Alert"}).settle() and world


def shadowed() -> World:
    """A new suite is asked beside the former one, by which what serves is judged until then."""
    world = serving(1)
    world.suites["own"] = suite("own", salt="x")
    world.apply(accuracy={"onBreach": "Rollback", "suite": "own"})
    assert world.monitor_settings().former
    return world


OBSERVE = {"accuracy": {"onBreach": "Rollback", "gate": "Observe"}}
IN_PLACE = {"rollout": {"strategy": "InPlace"}}
STATES: Mapping[str, Callable[[], World]] = {
    "one revision serves": first,
    "one revision serves, observed": lambda: first(**OBSERVE),
    "what serves was never gated": ungated,
    "three that were never gated": lambda: ungated(3),
    "a second revision serves": lambda: serving(1),
    "a second revision serves, observed": lambda: serving(1, **OBSERVE),
    "a second revision serves in place": lambda: serving(1, **IN_PLACE),
    "three pods serve": lambda: serving(3),
    "a control waits for its pod": lambda: (w := serving(1).drop("i0", "i1")).settle() and w,
    "a control is running": controlled,
    "a control is running, observed": lambda: controlled(**OBSERVE),
    "a control is running in place": lambda: controlled(**IN_PLACE),
    "a control has failed": lambda: fail_control(controlled()),
    "traffic went back": rolled_back,
    "traffic went back, observed": lambda: rolled_back(**OBSERVE),
    "traffic went back in place": lambda: rolled_back(**IN_PLACE),
    "a new suite is asked beside the former one": shadowed,
    "traffic is pinned": pinned,
    "only alerts are wanted": alerting,
    "a rollback was asked for": lambda: (w := serving(1)).ask(Verb.ROLLBACK, revision=w.selected()) and w,
}  # fmt: skip


@cache
def state(name: str) -> World:
    return STATES[name]()


def drop_all(world: World) -> None:
    for pod in list(world.reports):
        if world.pods[pod].revision == world.selected():
            world.stand(pod, WatchStanding.BELOW_THRESHOLD, lost=("i0", "i1"), evidence=2.0)


def drop_one(world: World) -> None:
    pod = min(pod for pod in world.reports if world.pods[pod].revision == world.selected())
    world.stand(pod, WatchStanding.BELOW_THRESHOLD, lost=("i0", "i1"), evidence=9.0)


def keep(world: World) -> None:
    """Nothing drops."""


def start_control(world: World) -> None:
    """Start the pods of whatever control the operator has asked for."""
    if world.accuracy_settings()["control"]:
        world.start_pods(world.candidate())


def pass_control(world: World) -> None:
    if world.accuracy_settings()["control"]:
        world.control(Verdict.PASS).set_ready(world.candidate())


def answer_of(world: World, planned: Plan) -> dict[str, Any]:
    """Return all that answers an accuracy drop, or tells of it."""
    records = {r.name: (r.rollback, r.promoted_at, r.verdicts) for r in world.revisions()}
    monitors = dict(world.one("ConfigMap", "credit-accuracy")["data"])
    status = {
        name: world.status.get(name) for name in ("revision", "incident", "verdict", "accuracy", "suite", "lastGood")
    }
    rules = {kind: [{**obj["spec"]} for obj in world.live(kind)] for kind in ("PrometheusRule", "PodMonitor")}
    return {
        "selected": world.selected(),
        "running": world.deployments(),
        "quarantined": sorted(name for name, pod in world.pods.items() if pod.quarantine is not None),
        "blocked": planned.facts.blocked,
        "pool": planned.pool,
        "records": records,
        "monitors": monitors,
        "rules": rules,
        **status,
    }


@dataclass(frozen=True, slots=True)
class Step:
    """A moment of a deployment without a Problem: what its pods and monitors did, and how that was answered."""

    now: float
    pods: dict[str, PodFacts]
    reports: dict[str, MonitorReport]
    answer: dict[str, Any]


@cache
def sound_story(name: str) -> tuple[Step, ...]:
    world = fork(state(name))
    drops = (drop_one, drop_all) if len(world.pods) > 2 else (drop_all,)
    steps = []
    for act in (keep, *drops, start_control, pass_control, keep):
        now = world.wait(30.0).now
        act(world)
        pods, reports = dict(world.pods), dict(world.reports)
        steps.append(Step(now, pods, reports, answer_of(world, world.settle())))
    return tuple(steps)


def differing(world: World, step: Step) -> dict[str, Any]:
    """Return what is answered otherwise than without the Problem, if the same is done to the world."""
    world.now, world.pods, world.reports = step.now, dict(step.pods), dict(step.reports)
    found = answer_of(world, world.settle())
    return {key: (found[key], value) for key, value in step.answer.items() if found[key] != value}


def told(world: World) -> str:
    return " ".join(f"{c['reason']}: {c['message']}" for c in world.status["conditions"])


NO_NODE = ("no node has room", "no node is there")
CASES = [
    pytest.param(name, problem, marks=[pytest.mark.unit_long] if (row + column) % 8 else [])
    for row, name in enumerate(STATES)
    for column, problem in enumerate(PROBLEMS)
    if not (name == "a second revision serves in place" and problem in NO_NODE)
]
"""`make test` has an eighth of them, with each state and each problem in it. In place nothing is stopped for a control that has
room on no node: `test_in_place_a_control_without_a_node_stops_nothing`."""


def test_each_reason_of_a_problem_is_among_the_cases() -> None:
    reasons = set()
    for problem in PROBLEMS.values():
        world = fork(state("one revision serves"))
        problem(world)
        observed = world.observed()
        found = resolve_spec(observed, world.config, read_revisions(observed.children)).problem
        assert found is not None
        reasons.add(found.reason.value)
    assert reasons == REASONS


@pytest.mark.parametrize(("name", "problem"), CASES)
def test_an_accuracy_drop_is_answered_as_without_the_problem(name: str, problem: str) -> None:
    world = fork(state(name))
    PROBLEMS[problem](world)
    for step in sound_story(name):
        assert not differing(world, step)
        assert any(reason in told(world) for reason in REASONS)


@pytest.mark.parametrize(("name", "problem"), CASES)
def test_a_rollback_that_began_under_a_problem_goes_on_when_that_is_solved(name: str, problem: str) -> None:
    world, sound = fork(state(name)), state(name)
    PROBLEMS[problem](world)
    steps = sound_story(name)
    for step in steps[:-3]:
        assert not differing(world, step)
    world.alter(spec=sound.spec, suites=sound.suites, engines=sound.engines, nodes=sound.nodes)
    world.alter(config=sound.config, tenant=sound.tenant)
    for step in steps[-3:]:
        assert not differing(world, step)
    assert not any(reason in told(world) for reason in REASONS)


# A cluster that an earlier version stored.


def forget_record(world: World) -> World:
    """No revision says what the spec asked for last."""
    for (kind, name), obj in world.children.items():
        if kind == "ControllerRevision":
            notes = {k: v for k, v in obj["metadata"]["annotations"].items() if k != names.ANNOTATION_LAST_VALID}
            world.children[kind, name] = {**obj, "metadata": {**obj["metadata"], "annotations": notes}}
    return world


STORED_STATES = ("three pods serve", "a control is running", "traffic went back", "a new suite is asked beside the former one")  # fmt: skip
STORED_CASES = [
    pytest.param(name, problem, marks=[pytest.mark.unit_long] if (row + column) % len(STORED_STATES) else [])
    for row, name in enumerate(STORED_STATES)
    for column, problem in enumerate(PROBLEMS)
]
"""`make test` has a quarter of them: each problem in one state, each state with five problems."""


@pytest.mark.parametrize(("name", "problem"), STORED_CASES)
def test_what_an_earlier_version_stored_is_watched_under_a_problem(name: str, problem: str) -> None:
    world = forget_record(fork(state(name)))
    PROBLEMS[problem](world)
    if problem == "the spec is malformed":
        world.spec = {**state(name).spec, "tier": "huge", "replicas": -1, "colour": "red"}
    for step in sound_story(name):
        assert not differing(world, step)


# What differs with a Problem.


def test_a_candidate_that_cannot_take_traffic_is_no_reason_to_wait() -> None:
    world = serving(1)
    bad = world.selected()
    good = next(r.name for r in world.revisions() if r.name != bad)
    candidate = world.apply(context={"maxTokens": 512})
    drop_all(world)
    world.start_pods(candidate).settle()
    assert world.status["incident"]["reason"] == "RolloutUnderWay"
    world.alter(suites={}).settle()
    world.expect(serves=bad, runs={bad: 1, good: 1}, Progressing=("RollingBack", "SuiteNotFound"))
    world.alter(suites=dict(SUITES)).settle()
    world.expect(serves=bad, runs={bad: 1, good: 1}, Progressing="RollingBack")


def test_nothing_new_takes_traffic_and_its_deadline_waits() -> None:
    world = serving(1)
    stable, candidate = world.selected(), world.apply(context={"maxTokens": 512})
    world.alter(suites={}).settle()
    world.start_pods(candidate, ready=True)
    passed = fork(world).alter(suites=dict(SUITES)).gate(candidate, Verdict.PASS)
    world.alter(reports=passed.reports).wait(2 * 3600.0).settle()
    world.expect(serves=stable, runs={stable: 1, candidate: 1}, candidate=candidate, Progressing="Blocked")
    world.alter(suites=dict(SUITES)).settle()
    world.expect(serves=candidate)


def test_in_place_what_dropped_is_not_brought_back_for_its_candidate() -> None:
    world = serving(1, **IN_PLACE)
    bad = world.selected()
    world.apply(accuracy={"onBreach": "Alert"})
    world.drop("i0", "i1").settle()
    candidate = world.apply(context={"maxTokens": 512})
    world.set_pods(bad, terminating=True).settle()
    world.start_pods(candidate).settle()
    world.expect(runs={bad: 0, candidate: 1})
    world.alter(suites={}).settle()
    world.expect(serves=bad, runs={bad: 0, candidate: 1}, Progressing="Blocked")


def test_in_place_what_had_not_dropped_is_restored() -> None:
    world = serving(1, **IN_PLACE)
    stable, candidate = world.selected(), world.apply(context={"maxTokens": 512})
    world.set_pods(stable, terminating=True).settle()
    world.expect(runs={stable: 0, candidate: 1})
    world.alter(suites={}).settle()
    world.expect(serves=stable, runs={stable: 1})


def test_what_is_done_about_a_drop_follows_the_newest_spec_that_can_be_read() -> None:
    world = serving(1)
    bad = world.selected()
    world.alter(suites={}).apply(accuracy={"onBreach": "Alert", "threshold": 0.9})
    world.drop("i0", "i1").report(threshold=0.9).settle()
    assert world.status["incident"]["reason"] == "AlertOnly"
    assert world.monitor_settings().threshold == 0.9
    break_spec(world)
    world.settle()
    assert world.status["incident"]["reason"] == "AlertOnly"
    world.expect(serves=bad, runs={bad: 1}, Ready="Serving", Progressing=("InvalidSpec", "spec.tier", "spec.colour"))


def test_a_suite_that_is_lost_altogether_is_reported() -> None:
    world = serving(1)
    world.children.pop(("ConfigMap", "credit-accuracy"))
    world.alter(suites={}).drop("i0", "i1").settle()
    world.expect(QualityVerified=("False SuiteNotFound", "not monitored"))


def test_a_mounted_suite_that_was_altered_judges_nobody() -> None:
    world = serving(1)
    accuracy = world.one("ConfigMap", "credit-accuracy")
    altered = accuracy["data"]["items.jsonl"].replace("answer 1", "answer 2")
    world.children["ConfigMap", "credit-accuracy"] = {**accuracy, "data": {**accuracy["data"], "items.jsonl": altered}}
    world.alter(suites={}).settle()
    world.expect(QualityVerified=("False SuiteNotFound", "not monitored"))


@pytest.mark.parametrize("problem", NO_NODE)
def test_in_place_a_control_without_a_node_stops_nothing(problem: str) -> None:
    world = serving(1, **IN_PLACE)
    bad = world.selected()
    PROBLEMS[problem](world)
    world.drop("i0", "i1").settle()
    world.expect(serves=bad, runs={bad: 1}, Progressing="RollingBack")
    assert world.status["incident"]["reason"] == "ControlRunning"


NO_TENANT = TenantView("False", Reason.NAMESPACE_NOT_TENANT, "the label is gone", is_tenant=False)


@pytest.mark.parametrize("name", STATES)
def test_where_the_namespace_is_no_tenant_a_drop_is_reported_and_nothing_is_written(name: str) -> None:
    world = fork(state(name)).alter(tenant=NO_TENANT)
    children, pods = dict(world.children), dict(world.pods)
    step = sound_story(name)[1]
    world.alter(now=step.now, reports=dict(step.reports)).settle()
    planned = world.settle()
    assert (world.children, world.pods) == (children, pods)
    assert planned.pool
    assert planned.pool.key == step.answer["pool"].key
    is_moved = step.answer["incident"]["reason"] in ("OneBadPod", "ControlRunning")
    expected = "NamespaceNotTenant" if is_moved else step.answer["incident"]["reason"]
    assert (planned.facts.blocked, world.status["incident"]["reason"]) == (expected, expected)


@pytest.mark.parametrize("backwards", [False, True], ids=["as planned", "the last of a stage first"])
@pytest.mark.parametrize("problem", ["the chart has no such suite any more", "the spec is malformed"])
def test_an_operator_that_dies_in_the_switch_back_is_followed_to_its_end(problem: str, backwards: bool) -> None:
    begun = fork(state("a control is running"))
    bad, good = begun.selected(), begun.candidate()
    begun.control(Verdict.PASS).set_ready(good)
    PROBLEMS[problem](begun)
    for writes in range(1, 8):
        world = fork(begun)
        world.carry_out(world.plan(), writes, backwards=backwards)
        world.wait(60.0).settle()
        world.wait(60.0).settle()  # The drain may have begun only then.
        world.expect(serves=good, runs={good: 1})
        assert world.status["incident"]["reason"] == "RolledBack"
        record = world.revision(bad).rollback
        assert record is not None
        assert (record.control, record.lifted) == (Verdict.PASS, False)
        assert record.switched_at == pytest.approx(world.revision(good).promoted_at)
