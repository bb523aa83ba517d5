"""The plan over a life: first revision, refusal, switch, repair, history. A pass over a settled world writes nothing."""

from dataclasses import replace
from typing import Any

import pytest

from r1plus_contract import names
from r1plus_contract.monitor.identity import document_digest
from r1plus_contract.verdict import Phase, SweepFigures, Verdict, WatchStanding
from r1plus_operator.plan.accuracy.unresponsive import MONITOR_SILENT, build_silent_report
from r1plus_operator.plan.observation import REFUSED_PODS, ContainerFacts, NodeFacts, SuiteSource
from r1plus_operator.plan.revision.record import NOTHING_PROMOTED
from r1plus_operator.plan.revision.storage import read_revision, to_object
from r1plus_operator.plan.status.conditions import ENDPOINTS_GRACE_SECONDS
from support.plan.embedding_engine import EMBEDDING_ENGINE
from support.plan.world import CONFIG, DAY, FULL, NODE, Q4_1, World, observe_world, serve_world, start_world, suite
from support.tables import for_each


def test_policies_and_mounts_stand_before_the_pods_and_the_switch_comes_last() -> None:
    stages = [[obj["kind"] for obj in stage] for stage in World(dict(FULL)).pass_once().apply]
    assert "NetworkPolicy" in stages[0]
    assert stages[0].count("ConfigMap") == 2
    assert stages[1] == ["Deployment"]
    assert "Service" in stages[2]


def test_a_first_revision_is_gated_by_one_pod_and_serves_nobody() -> None:
    world = start_world(replicas=3)
    assert world.one("Deployment", world.candidate())["spec"]["replicas"] == 1
    world.expect(Ready="False NotServing")
    assert "revision" not in world.status


def test_kubernetes_reports_a_stuck_deployment_only_after_the_operators_own_deadline() -> None:
    world = start_world(rollout={"deadline": "20m"})
    (deployment,) = world.live("Deployment")
    assert deployment["spec"]["progressDeadlineSeconds"] > 20 * 60


@pytest.mark.parametrize("gate", ["Enforce", "Observe"])
def test_a_service_selects_no_revision_before_the_first_promotion(gate: str) -> None:
    """A pod that is Ready by a token that it should not have would get traffic by the Service alone."""
    world = World({**FULL, "accuracy": {"gate": gate}})
    world.pass_once()
    assert world.selected() == NOTHING_PROMOTED
    assert world.candidate() != NOTHING_PROMOTED


def test_a_disruption_budget_selects_what_the_service_does() -> None:
    """Pods of another revision may have no Deployment any more, and Kubernetes would evict none for them."""
    world = World(dict(FULL))

    def read_selected_revision() -> str:
        budget = world.one("PodDisruptionBudget", "credit")["spec"]["selector"]
        assert budget == {"matchLabels": world.one("Service", "credit")["spec"]["selector"]}
        return world.selected()

    world.pass_once()
    assert read_selected_revision() == NOTHING_PROMOTED
    first = world.bring_up()
    assert read_selected_revision() == first
    second = world.apply(context={"maxTokens": 2048})
    assert read_selected_revision() == first
    world.bring_up()
    assert read_selected_revision() == second


def test_ready_waits_until_the_service_leads_to_a_ready_pod() -> None:
    world = serve_world()
    world.wait(ENDPOINTS_GRACE_SECONDS)
    pods = frozenset(world.pods)
    for endpoints, ready in (
        (frozenset(), "False NoEndpoints"),
        ({"of-another"}, "False NoEndpoints"),
        (pods, "True Serving"),
    ):
        world.alter(endpoints=frozenset(endpoints)).settle()
        world.expect(Ready=ready)
    world.alter(endpoints=None).settle()
    world.expect(Ready="True Serving")


def test_the_moment_that_a_service_needs_after_a_promotion_warns_nobody_and_what_lasts_does() -> None:
    world = World(dict(FULL), endpoints=frozenset())
    world.bring_up()
    world.expect(Ready=("False Pending", "has no endpoint for them yet"))
    promoted_at = world.revision(world.selected()).promoted_at
    assert promoted_at is not None
    planned = world.pass_once()
    assert "NoEndpoints" not in world.notes
    assert planned.requeue_after == pytest.approx(promoted_at + ENDPOINTS_GRACE_SECONDS - (world.now - 1.0))
    world.wait(ENDPOINTS_GRACE_SECONDS)
    (note,) = world.pass_once().notes
    assert (note.reason, note.is_warning) == ("NoEndpoints", True)
    world.expect(Ready=("False NoEndpoints", "kubectl get endpointslices"))


def test_the_moment_that_a_service_needs_after_a_pod_got_ready_again_warns_nobody() -> None:
    world = serve_world()
    world.wait(DAY).alter(endpoints=frozenset()).set_pods(ready_since=world.now).settle()
    world.expect(Ready="False Pending")
    world.wait(ENDPOINTS_GRACE_SECONDS).settle()
    world.expect(Ready="False NoEndpoints")


def test_a_pass_promotes_and_status_says_so() -> None:
    world = serve_world()
    assert world.selected() == world.status["revision"]
    world.expect(Ready="True Serving", QualityVerified="True GatePassed", Progressing="False Complete")
    assert world.status["accuracy"] == "4/4"
    assert world.status["endpoint"] == "credit.team.svc:8001"
    assert [world.notes.count(reason) for reason in ("GatePassed", "Serving", "Complete")] == [1, 1, 1]


def test_the_reason_that_kubectl_prints_is_of_what_does_not_serve_or_else_of_what_does_not_go_on() -> None:
    world = start_world()
    assert world.status["reason"] == "NotServing"
    world.bring_up()
    assert world.status["reason"] == "Serving"
    candidate = world.apply(engine=Q4_1)
    assert world.status["reason"] == "RollingOut"
    world.start_pods(candidate).gate(candidate, Verdict.FAIL, lost=3).settle()
    assert world.status["reason"] == "CandidateRefused"
    world.change(engine={"precision": "Q2"}).settle()
    world.expect(Ready="True Serving", Progressing="False Blocked")
    assert world.status["reason"] == "EngineNotFound"


def test_a_monitor_that_reports_a_fail_and_no_watch_is_believed() -> None:
    """An older one reports no watch."""
    world = serve_world().report(verdict=Verdict.FAIL, message="205 of 211 items are right", watch=None)
    world.settle()
    world.expect(Ready="True Serving", QualityVerified=("False BelowThreshold", "205 of 211 items are right"))


def test_a_failed_candidate_is_refused_with_figures_and_traffic_never_moves() -> None:
    world = serve_world()
    stable = world.selected()
    candidate = world.apply(engine=Q4_1)
    assert (candidate != stable, world.selected()) == (True, stable)
    world.start_pods(candidate).gate(candidate, Verdict.FAIL, lost=3).settle()
    assert world.selected() == stable
    assert ("Deployment", candidate) not in world.children
    assert world.one("Deployment", stable)["spec"]["replicas"] == 1
    world.expect(QualityVerified=("False GateFailed", "lost 3 of 4 items", f"revision {stable} goes on serving"))
    world.expect(Ready="True", Progressing="False CandidateRefused")
    assert world.notes.count("GateFailed") == 1
    assert world.notes.count("CandidateRefused") == 1


def test_a_refusal_outlives_its_pods_and_the_operator() -> None:
    world = serve_world()
    world.apply(engine=Q4_1)
    world.start_pods(world.candidate()).gate(world.candidate(), Verdict.FAIL, lost=3).settle()
    assert not world.pods or all(p.revision != world.candidate() for p in world.pods.values())
    assert world.settle().writes == 0
    world.expect(QualityVerified="GateFailed")


def test_a_lower_threshold_after_a_refusal_asks_for_another_gate_and_a_higher_one_does_not_forget() -> None:
    world = serve_world()
    candidate = world.apply(engine=Q4_1)
    world.start_pods(candidate).gate(candidate, Verdict.FAIL, lost=3).settle()
    world.apply(accuracy={"threshold": 0.5})
    assert world.one("Deployment", candidate)["spec"]["replicas"] == 1
    world.expect(QualityVerified="Unknown")
    world.apply(accuracy={"threshold": 0.98})
    assert ("Deployment", candidate) not in world.children
    world.expect(QualityVerified="GateFailed")


def test_observe_lets_a_failed_revision_serve_and_says_that_it_failed() -> None:
    world = serve_world()
    candidate = world.apply(engine=Q4_1, accuracy={"gate": "Observe"})
    world.start_pods(candidate, ready=True).settle()
    assert world.selected() == candidate
    world.gate(candidate, Verdict.FAIL, lost=3).settle()
    world.expect(QualityVerified=("False GateFailed", "spec.accuracy.gate is Observe"), Ready="True")


def test_going_back_to_a_passed_revision_renders_nothing_new() -> None:
    world = serve_world()
    first = world.selected()
    template = world.one("ControllerRevision", first)["data"]
    world.change(engine=Q4_1)
    world.bring_up()
    assert world.selected() != first
    world.change(engine={})
    world.bring_up()
    assert world.selected() == first
    assert world.one("ControllerRevision", first)["data"] == template


def test_what_does_not_change_answers_makes_no_revision() -> None:
    world = serve_world()
    world.apply(replicas=2, access={"namespaces": ["apps"]}, accuracy={"threshold": 0.9, "probesPerMinute": 60})
    assert len(world.live("ControllerRevision")) == 1
    assert world.one("Deployment", world.selected())["spec"]["replicas"] == 2


@pytest.mark.parametrize(
    "change", [{"batching": {"maxBatchSize": 8}}, {"context": {"maxTokens": 1024}}, {"placement": {"nodeSelector": {"zone": "a"}}}, {"engine": Q4_1}]
)  # fmt: skip
def test_what_changes_the_pod_or_its_answers_makes_a_revision(change: dict[str, object]) -> None:
    world = serve_world()
    world.apply(**change)
    assert len(world.live("ControllerRevision")) == 2


def test_an_upgraded_operator_leaves_running_revisions_as_they_are() -> None:
    world = serve_world()
    world.config = replace(CONFIG, monitor_image="registry.local/monitor:2", triton_image="registry.local/triton:2")
    assert world.settle().writes == 0


@pytest.mark.parametrize(
    "kind",
    ["Deployment", "Service", "NetworkPolicy", "ConfigMap", "PodDisruptionBudget", "ServiceAccount", "PrometheusRule"],
)
def test_a_deleted_child_comes_back_as_it_was(kind: str) -> None:
    world = serve_world()
    for key in [key for key in world.children if key[0] == kind]:
        before = world.children.pop(key)
        world.settle()
        assert world.children[key]["metadata"]["name"] == before["metadata"]["name"]
        assert {k: v for k, v in world.children[key].items() if k != "metadata"} == {
            k: v for k, v in before.items() if k != "metadata"
        }


def test_an_edited_field_is_reverted_and_a_foreign_one_stays() -> None:
    world = serve_world()
    policy = world.one("NetworkPolicy", "credit")
    policy["spec"]["ingress"].append({})
    policy["metadata"]["labels"]["team"] = "blue"
    assert [obj["kind"] for stage in world.pass_once().apply for obj in stage] == ["NetworkPolicy"]
    service = world.one("Service", "credit")
    service["metadata"]["labels"]["team"] = "blue"
    service["spec"]["clusterIP"] = "10.0.0.9"
    assert world.settle().writes == 0


def test_a_new_child_has_no_uid_yet_and_a_repaired_one_can_only_be_itself() -> None:
    world = World(dict(FULL))
    first = world.pass_once()
    assert first.creates
    assert {obj["metadata"].get("uid") for stage in first.apply for obj in stage} == {None}
    policy = world.one("NetworkPolicy", "credit")
    world.children["NetworkPolicy", "credit"] = {**policy, "spec": {**policy["spec"], "ingress": [{}]}}
    repair = world.pass_once()
    assert not repair.creates
    assert [obj["metadata"]["uid"] for stage in repair.apply for obj in stage] == [policy["metadata"]["uid"]]


def test_a_revision_is_changed_only_from_the_version_that_was_seen() -> None:
    world = World({"tier": "full"})
    world.settle()
    (stored,) = world.live("ControllerRevision")
    seen = {**stored, "metadata": {**stored["metadata"], "resourceVersion": "41"}}
    world.children["ControllerRevision", stored["metadata"]["name"]] = seen
    world.start_pods(stored["metadata"]["name"]).gate(stored["metadata"]["name"], Verdict.PASS)
    planned = world.plan()
    versions = {obj["kind"]: obj["metadata"].get("resourceVersion") for stage in planned.apply for obj in stage}
    assert versions == {"ControllerRevision": "41", "ConfigMap": None}


def test_what_others_put_into_our_lists_is_taken_out_before_the_apply() -> None:
    world = serve_world()
    service = world.one("Service", "credit")
    other = {**service["spec"]["ports"][0], "port": 9999}
    world.children["Service", "credit"] = {**service, "spec": {**service["spec"], "ports": [other, *service["spec"]["ports"][1:]]}}  # fmt: skip
    repair = world.plan()
    place, tcp = "/spec/ports/0", other["protocol"]
    tests = (
        {"op": "test", "path": f"{place}/{key}", "value": value} for key, value in (("port", 9999), ("protocol", tcp))
    )
    assert repair.clear == (("Service", "credit", (*tests, {"op": "remove", "path": place})),)
    assert [obj["kind"] for stage in repair.apply for obj in stage] == ["Service"]
    assert repair.writes == 2


def test_a_verdict_counts_only_for_exactly_what_was_scored() -> None:
    world = start_world()
    name = world.candidate()
    world.start_pods(name, ready=True).gate(name, Verdict.PASS)
    pod, report = next(iter(world.reports.items()))
    for foreign in ("identity", "suite_hash"):
        world.alter(reports={pod: report}).report_gate(**{foreign: "other"}).settle()
        assert "revision" not in world.status
    world.reports[pod] = report
    world.settle()
    assert world.status["revision"] == name


def test_a_new_suite_makes_quality_unknown_and_moves_no_traffic() -> None:
    world = serve_world()
    stable = world.selected()
    world.suites["smollm2-full-v2"] = suite("smollm2-full-v2", salt="x")
    world.apply(accuracy={"suite": "smollm2-full-v2"})
    world.expect(serves=stable, QualityVerified="Unknown")
    assert world.accuracy_settings()["suite"] == "smollm2-full-v2"


def test_an_engine_for_embeddings_is_never_chosen_and_the_condition_says_so() -> None:
    world = serve_world()
    world.embedding_engines = (EMBEDDING_ENGINE,)
    world.expect(Ready="True")
    world.apply(engine={"family": EMBEDDING_ENGINE.spec.family})
    status, reason, message = world.condition("EngineReady")
    assert (status, reason) == ("False", "EngineNotFound")
    assert "R1PlusEngine minilm of that family is of kind embedding" in message
    assert "spec.gateway.embedding" in message
    world.apply(engine={"family": "nope"})
    assert "embedding" not in world.condition("EngineReady")[2]


BROKEN = SuiteSource("own", "{}", "", None, "own: suite own: sha256 is aa, suite.json promises bb")


@pytest.mark.parametrize(
    ("change", "condition", "reason", "words"),
    [
        pytest.param({"engine": {"family": "nope"}}, "EngineReady", "EngineNotFound", ["spec.engine", "nope", "smollm2-full-f16"], id="an engine that does not exist"),
        pytest.param({"context": {"maxTokens": 9000}}, "CapacityFits", "ContextTooLong", ["spec.context.maxTokens", "9000", "8192"], id="a context longer than the engine's"),
        pytest.param({"batching": {"maxBatchSize": 1000}}, "CapacityFits", "BatchTooLarge", ["spec.batching.maxBatchSize", "1000"], id="a batch larger than the engine's"),
        pytest.param({"placement": {"nodeSelector": {"zone": "b"}}}, "CapacityFits", "NoNodeFits", ["spec.placement.nodeSelector", "zone=b", "2 CPU"], id="no node that the placement admits"),
        pytest.param({"accuracy": {"suite": "absent"}}, "QualityVerified", "SuiteNotFound", ["spec.accuracy.suite", "absent", "smollm2-full-v1"], id="a suite that does not exist"),
        pytest.param({"accuracy": {"suite": "own"}}, "QualityVerified", "SuiteHashMismatch", ["sha256 is aa", "promises bb"], id="a suite whose hash is wrong"),
    ],
)  # fmt: skip
def test_what_only_the_world_can_refuse_is_a_condition_and_what_runs_goes_on(
    change: dict[str, object], condition: str, reason: str, words: list[str]
) -> None:
    world = serve_world()
    world.suites["own"] = BROKEN
    stable, children = world.selected(), dict(world.children)
    world.apply(**change)
    status, found, message = world.condition(condition)
    assert (status, found) == ("False", reason)
    assert [word for word in words if word not in message] == []
    # What serves keeps the newest spec that could be read.
    recorded = world.children["ControllerRevision", stable]
    assert recorded["data"] == children["ControllerRevision", stable]["data"]
    assert world.children == {**children, ("ControllerRevision", stable): recorded}
    world.expect(serves=stable, Ready="True", Progressing="False Blocked")
    world.children.pop(("Service", "credit"))
    world.settle()
    assert world.selected() == stable


def test_a_spec_older_than_its_schema_is_a_condition_that_names_every_field() -> None:
    world = World({"tier": "huge", "replicas": -1, "colour": "red"})
    world.settle()
    world.expect(Ready=("False InvalidSpec", "spec.tier", "spec.replicas", "spec.colour", "huge", "-1"))
    assert not world.children


def test_a_pass_won_beside_traffic_at_batch_1_does_not_admit_under_enforce() -> None:
    world, first = observe_world()
    world.gate(first, Verdict.PASS, batch=1).settle()
    world.expect(QualityVerified="True GatePassed")
    world.apply(engine={"precision": "Q4_1"})
    world.start_pods(world.candidate(), ready=True).settle()
    world.wait(60).settle()
    world.apply(**FULL, engine={}, accuracy={"gate": "Enforce"})
    assert world.candidate() == first
    world.start_pods(first, ready=True).settle()
    assert world.selected() != first
    world.gate(first, Verdict.PASS).settle()
    assert world.selected() == first


@for_each("forged", {
    "no controller": {"replica_set": ""},
    "another Deployment's ReplicaSet": {"replica_set": "other-7d9f"},
    "a ReplicaSet whose name only begins alike": {"replica_set": "{revision}-x-7d9f"},
    "other containers": {"fingerprint": "0" * 16},
    "made for a namesake that was deleted": {"owner_uid": "u-0"},
})  # fmt: skip
def test_a_pod_that_only_bears_a_revisions_labels_is_not_believed(forged: dict[str, str]) -> None:
    world = start_world()
    name = world.candidate()
    world.start_pods(name, ready=True)
    changes: Any = {key: value.replace("{revision}", name) for key, value in forged.items()}
    world.set_pods(**changes).gate(name, Verdict.PASS).settle()
    world.expect(Ready="False", EngineReady="False ForeignPod")
    assert world.revision(name).verdicts == ()


def test_what_another_version_put_into_a_revision_stays_and_makes_no_write() -> None:
    world = World(dict(FULL))
    name = world.bring_up()
    stored = world.one("ControllerRevision", name)
    stored["data"] = {**stored["data"], "novelty": 1, "identity": {**stored["data"]["identity"], "novelty": 1}}
    kept = read_revision(stored)
    assert (kept.data["novelty"], kept.identity_digest) == (1, document_digest(stored["data"]["identity"]))
    assert to_object(kept, stored["metadata"])["data"] == stored["data"]


def container(**facts: object) -> ContainerFacts:
    return ContainerFacts(**{"name": "verify", "ready": False, **facts})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("facts", "reason", "words"),
    [
        (container(waiting_reason="CrashLoopBackOff", message="EngineDigestMismatch: engine x: sha256 is a, the catalog promises b"), "EngineDigestMismatch", ["promises b"]),
        (container(waiting_reason="CrashLoopBackOff", message="ArchitectureMismatch: engine x: spec.architecture: 1 and 2; correct the R1PlusEngine"), "ArchitectureMismatch", ["correct the R1PlusEngine"]),
        (container(name="triton", waiting_reason="ImagePullBackOff", message="no such image"), "ImagePullFailed", ["triton", "no such image", "pull secrets"]),
        (container(name="triton", terminated_reason="OOMKilled"), "OutOfMemory", ["spec.batching.maxBatchSize"]),
        (container(name="triton", waiting_reason="CrashLoopBackOff", exit_code=3), "CrashLooping", ["exit code 3"]),
        (container(name="triton", terminated_reason="Error", message="I0 loading\nE1 TritonModelException: EngineIncompatible: cannot load /x: no such op; convert it again\nbye"), "EngineIncompatible", ["EngineIncompatible: cannot load /x", "convert it again"]),
    ],
)  # fmt: skip
def test_trouble_of_a_candidates_pod_names_cause_and_remedy(
    facts: ContainerFacts, reason: str, words: list[str]
) -> None:
    world = start_world()
    world.start_pods(world.candidate()).set_pods(containers=(facts,)).settle()
    world.expect(EngineReady=(f"False {reason}", *words))


def test_a_pod_that_finds_no_node_tells_the_schedulers_words() -> None:
    world = start_world()
    world.start_pods(world.candidate()).set_pods(unschedulable="0/1 nodes: Insufficient memory").settle()
    assert "Insufficient memory" in world.condition("CapacityFits")[2]


def test_without_prometheus_operator_there_are_no_alerts_and_the_status_says_so() -> None:
    world = World(dict(FULL), kinds=frozenset())
    world.bring_up()
    world.expect(AlertsWired="False NoPrometheusOperator")
    assert not world.live("PodMonitor")


def test_a_running_gate_is_told_in_steps_so_that_the_status_is_written_rarely() -> None:
    from r1plus_contract.verdict import GateProgress, MonitorReport

    world = start_world()
    name = world.candidate()
    world.start_pods(name)
    messages = set()
    for done in range(100):
        progress = GateProgress(done, 100, "sweep 1")
        report = MonitorReport(
            name, "x", Phase.GATING, Verdict.NO_DATA, "Gating", "", "smollm2-full-v1", progress=progress
        )
        world.alter(reports=dict.fromkeys(world.pods, report)).settle()
        messages.add(world.condition("QualityVerified")[2])
    assert messages == {f"The gate on suite smollm2-full-v1 is running: {share} %" for share in range(0, 100, 10)}


def test_history_is_bounded_and_keeps_what_serves() -> None:
    world = serve_world()
    stable = world.selected()
    for tokens in range(100, 120):
        world.apply(context={"maxTokens": tokens})
    assert len(world.live("ControllerRevision")) <= 11
    assert ("ControllerRevision", stable) in world.children
    assert [d["metadata"]["name"] for d in world.live("Deployment")] == sorted([stable, world.candidate()])


def test_the_last_revision_that_served_before_outlives_any_number_of_candidates() -> None:
    world = serve_world()
    first = world.selected()
    world.change(engine=Q4_1)
    world.bring_up()
    for tokens in range(100, 120):
        world.apply(context={"maxTokens": tokens})
    assert ("ControllerRevision", first) in world.children


def test_a_transition_is_told_once_and_a_new_deployment_only_tells_what_is_in_its_way() -> None:
    world = start_world()
    assert world.notes == []
    world.bring_up()
    told = list(world.notes)
    world.settle()
    assert world.notes == told
    lost = World({**FULL, "engine": {"version": "9.9.9"}})
    lost.settle()
    assert lost.notes == ["EngineNotFound"]


def test_a_candidate_that_takes_too_long_is_withdrawn_and_asked_for_again_gets_its_time_anew() -> None:
    world = World({**FULL, "rollout": {"deadline": "10m"}})
    stable = world.bring_up()
    candidate = world.apply(engine=Q4_1)
    world.wait(600).settle()
    world.expect(Progressing=("False DeadlineExceeded", "spec.rollout.deadline (10m)"))
    assert [*world.deployments()] == [stable]
    world.apply(engine={})
    world.expect(Progressing="False Complete")
    world.apply(engine=Q4_1)
    world.expect(Progressing="True RollingOut")
    assert ("Deployment", candidate) in world.children


def test_a_first_revision_that_takes_too_long_is_told_and_goes_on() -> None:
    world = start_world(rollout={"deadline": "90s"})
    world.wait(90).settle()
    world.expect(Progressing="False DeadlineExceeded")
    assert ("Deployment", world.candidate()) in world.children


def test_in_place_is_a_declared_outage_and_a_refusal_restores_what_served() -> None:
    world = World({**FULL, "rollout": {"strategy": "InPlace"}})
    stable = world.bring_up()
    candidate = world.apply(engine=Q4_1)
    counts = {d["metadata"]["name"]: d["spec"]["replicas"] for d in world.live("Deployment")}
    assert counts == {stable: 0, candidate: 1}
    world.expect(serves=stable, Ready="False InPlaceRollout")
    world.start_pods(candidate).gate(candidate, Verdict.FAIL, lost=3).settle()
    assert [(d["metadata"]["name"], d["spec"]["replicas"]) for d in world.live("Deployment")] == [(stable, 1)]
    world.start_pods(stable, ready=True).settle()
    world.expect(Ready="True Serving")


@pytest.mark.parametrize(
    ("said", "reason", "words"),
    [
        pytest.param('pods "x" is forbidden: exceeded quota: team, requested: memory=2Gi, used: memory=1Gi, limited: memory=2Gi', "QuotaExceeded", ["exceeded quota: team", "ResourceQuota"], id="a quota"),
        pytest.param('pods "x" is forbidden: violates PodSecurity "restricted:latest"', "PodRefused", ["violates PodSecurity", "admission policies"], id="an admission policy"),
    ],
)  # fmt: skip
def test_pods_that_the_api_server_refuses_are_told_in_its_words(said: str, reason: str, words: list[str]) -> None:
    world = start_world()
    world.one("Deployment", world.candidate())[REFUSED_PODS] = said
    world.settle()
    world.expect(CapacityFits=(f"False {reason}", *words))


def test_the_pod_is_restricted_and_has_no_token() -> None:
    world = start_world()
    pod = world.live("Deployment")[0]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    for each in (*pod["initContainers"], *pod["containers"]):
        assert each["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    monitor = next(c for c in pod["containers"] if c["name"] == names.CONTAINER_MONITOR)
    assert not {"readinessProbe", "livenessProbe"} & monitor.keys()


def test_verifier_and_monitor_run_the_monitors_image_and_the_monitor_knows_its_pod() -> None:
    pod = start_world().live("Deployment")[0]["spec"]["template"]["spec"]
    containers = {each["name"]: each for each in (*pod["initContainers"], *pod["containers"])}
    for name in (names.INIT_VERIFY, names.CONTAINER_MONITOR):
        assert containers[name]["image"] == CONFIG.monitor_image
    pod_name = {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}
    assert {"name": names.ENV_POD, "valueFrom": pod_name} in containers[names.CONTAINER_MONITOR]["env"]
    token = {"name": "admission", "mountPath": "/var/run/r1plus/admission"}
    assert token in containers[names.CONTAINER_MONITOR]["volumeMounts"]
    assert {**token, "readOnly": True} in containers[names.CONTAINER_TRITON]["volumeMounts"]


def test_a_node_without_enough_cores_does_not_count() -> None:
    world = World(dict(FULL), nodes=(NodeFacts("small", 64 * 2**30, 1.0, {}),))
    world.settle()
    world.expect(CapacityFits="NoNodeFits")


def test_a_clock_that_was_set_back_does_not_undo_a_promotion() -> None:
    world = serve_world()
    world.now = 10.0
    world.change(context={"maxTokens": 1024})
    second = world.bring_up()
    assert world.selected() == second
    assert world.settle().writes == 0


def test_a_monitors_report_without_end_is_clipped() -> None:
    world = start_world()
    name = world.candidate()
    world.start_pods(name).gate(name, Verdict.FAIL, lost=3)
    pod, report = next(iter(world.reports.items()))
    assert report.gate is not None
    free = ("reason", "message", "suite", "scorer_version", "decided_at", "acknowledged", "control")
    huge = replace(report.gate, lost_items=("y" * 10_000,) * 1000, **dict.fromkeys(free, "x" * 200_000))  # type: ignore[arg-type]
    world.reports[pod] = replace(report, gate=huge)
    world.settle()
    assert len(str(world.one("ControllerRevision", name)["metadata"]["annotations"])) < 20_000
    assert len(world.condition("QualityVerified")[2]) < 4096


def test_a_plan_is_a_function_of_its_input() -> None:
    world = serve_world()
    assert world.plan() == world.plan()
    assert NODE.cores == 2.0


@pytest.mark.parametrize(
    "heard", [pytest.param(True, id="that said Pass before"), pytest.param(False, id="that never answered")]
)
def test_a_monitor_that_is_silent_is_no_good_news_and_moves_nothing(heard: bool) -> None:
    world = World({"tier": "full", "accuracy": {"onBreach": "Rollback"}})
    serving = world.bring_up()
    (pod,) = world.pods
    before = world.selected(), set(world.children)
    world.reports[pod] = build_silent_report(world.reports[pod] if heard else None, world.pods[pod], "team")
    world.settle()
    status, reason, message = world.condition("QualityVerified")
    assert (status, reason) == ("False", "NoData")
    assert MONITOR_SILENT in message
    assert world.status["verdict"] == "NoData"
    world.expect(Ready="True")
    assert (world.selected(), set(world.children)) == before
    assert "incident" not in world.status
    assert world.status["revision"] == serving


@for_each("swept, shown", {
    "the count that followed the alarm": ("2026-01-01T00:00:00Z", "1/4"),
    "a sweep that ended since": ("2026-01-01T00:00:02Z", "3/4"),
})  # fmt: skip
def test_the_accuracy_shown_is_what_was_counted_last(swept: str, shown: str) -> None:
    world = serve_world()
    (pod,) = world.pods
    world.stand(pod, WatchStanding.BELOW_THRESHOLD, lost=("i0", "i1", "i2"))
    watch = world.reports[pod].watch
    assert watch.confirmation is not None
    counted = replace(watch, confirmation=replace(watch.confirmation, finished_at="2026-01-01T00:00:01Z"))
    sweep = SweepFigures(3, 4, 0.0, 1.0, swept)
    world.reports[pod] = replace(world.reports[pod], watch=counted, sweep=sweep)
    world.settle()
    assert world.status["accuracy"] == shown


@for_each("why, reason", {
    "a scorer that is not what it was has its own reason": ("SuiteMismatch", "SuiteMismatch"),
    "whatever else blocks is no data": ("SuiteInvalid", "NoData"),
})  # fmt: skip
def test_a_monitor_that_cannot_score_is_told_though_nothing_alarmed(why: str, reason: str) -> None:
    world = serve_world(accuracy={"onBreach": "Rollback"})
    before = world.selected(), set(world.children)
    world.report(phase=Phase.BLOCKED, verdict=Verdict.NO_DATA, reason=why, gate=None).settle()
    world.expect(QualityVerified=f"False {reason}")
    assert world.condition("QualityVerified")[2].startswith(f"{why}: ")
    assert world.status["verdict"] == "NoData"
    assert (world.selected(), set(world.children)) == before
