"""What the stores keep: the facts that decide, and no more."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from r1plus_contract import names
from r1plus_contract.requests import MOST_WHY, Request, Verb, build_annotations, read_requests
from r1plus_operator.api import kinds
from r1plus_operator.observe import node_projection, pod_projection, projections, suite_projection
from r1plus_operator.plan.observation import JOB_ENDED, REFUSED_PODS
from r1plus_operator.plan.podspec.pod import hash_pod_spec, is_same_image, list_images
from r1plus_operator.runtime.resources import Resource
from support.plan.embedding_engine import EMBEDDING_ENGINE
from support.plan.world import World

DEPLOYMENT = kinds.BY_KIND["Deployment"]
META = {"name": "a", "namespace": "t", "uid": "u", "resourceVersion": "7", "managedFields": [{}], "generation": 3}


def child(resource: Resource = DEPLOYMENT, *, meta: dict[str, Any] | None = None, **body: Any) -> projections.Child:
    return projections.project_child(resource, {"metadata": {**META, **(meta or {})}, **body})


def test_a_child_that_merely_counts_its_pods_has_not_changed() -> None:
    one = child(spec={"replicas": 1}, status={"readyReplicas": 0})
    two = child(spec={"replicas": 1}, status={"readyReplicas": 1}, meta={"resourceVersion": "8", "generation": 4})
    assert one == two


def test_a_child_is_kept_as_it_is_but_for_its_status_and_bookkeeping() -> None:
    kept = child(spec={"replicas": 1}, status={"readyReplicas": 0}, meta={"labels": {"r1plus.ai/deployment": "credit"}})
    assert kept.live == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "a", "namespace": "t", "uid": "u", "labels": {"r1plus.ai/deployment": "credit"}},
        "spec": {"replicas": 1},
    }
    assert (kept.deployments, kept.is_deleting) == ({"credit"}, False)


def test_only_a_revision_is_kept_with_its_version_since_what_it_remembers_is_nowhere_else() -> None:
    kept = {resource.kind: child(resource).live["metadata"].get("resourceVersion") for resource in kinds.CHILDREN}
    assert {kind: version for kind, version in kept.items() if version} == {"ControllerRevision": "7"}


def test_any_other_value_is_another_child() -> None:
    assert child(spec={"replicas": 1}) != child(spec={"replicas": 2})
    config_map = kinds.CONFIG_MAP
    assert child(config_map, data={"items": "x" * 1000}) != child(config_map, data={"items": "y" * 1000})


def test_of_a_long_text_only_its_digest_is_kept() -> None:
    assert len(child(kinds.CONFIG_MAP, data={"items": "x" * 100_000}).text) < 500


@pytest.mark.parametrize(
    ("ready", "since"),
    [
        ({"status": "True", "lastTransitionTime": "1970-01-01T00:01:40Z"}, 100.0),
        ({"status": "True", "lastTransitionTime": None}, 0.0),
        ({"status": "False", "lastTransitionTime": "1970-01-01T00:01:40Z"}, None),
    ],
    ids=["a ready pod", "whose kubelet gave no time", "one that is not ready"],
)
def test_since_when_a_pod_is_ready(ready: dict[str, Any], since: float | None) -> None:
    labels = {names.LABEL_DEPLOYMENT: "credit"}
    kept = pod_projection.project_pod(
        {"metadata": {**META, "labels": labels}, "status": {"conditions": [{"type": "Ready", **ready}]}}
    )
    assert kept is not None
    assert kept.facts.ready_since == since


def test_a_child_that_is_being_deleted_is_kept_until_it_is_gone() -> None:
    assert child(meta={"deletionTimestamp": "now"}).is_deleting


@pytest.mark.parametrize(
    ("reference", "uid"),
    [
        ({"kind": "R1PlusDeployment", "uid": "o", "controller": True}, "o"),
        ({"kind": "R1PlusDeployment", "uid": "o"}, None),
        ({"kind": "Deployment", "uid": "o", "controller": True}, None),
    ],
    ids=["its controller is ours", "an owner that does not control", "another kind's child"],
)
def test_a_child_belongs_to_the_r1plusdeployment_that_controls_it(reference: dict[str, Any], uid: str | None) -> None:
    assert child(meta={"ownerReferences": [reference]}).owner == uid


def test_a_child_names_whose_it_may_be_also_where_label_or_owner_was_edited() -> None:
    owner = {"kind": "R1PlusDeployment", "name": "credit", "uid": "o", "controller": True}
    edited = child(meta={"ownerReferences": [owner], "labels": {"r1plus.ai/deployment": "x"}})
    assert edited.deployments == {"credit", "x"}
    assert child(meta={"ownerReferences": [owner], "labels": {}}).deployments == {"credit"}
    assert child().deployments == frozenset()


def test_a_cr_is_kept_without_its_bookkeeping() -> None:
    kept = projections.project_deployment({"metadata": META, "spec": {"tier": "full"}, "status": {"suite": "s"}})
    assert kept == {
        "metadata": {"name": "a", "namespace": "t", "uid": "u", "resourceVersion": "7", "generation": 3},
        "spec": {"tier": "full"},
        "status": {"suite": "s"},
    }


def test_a_cr_that_is_being_deleted_says_so() -> None:
    assert projections.project_deployment({"metadata": {**META, "deletionTimestamp": "now"}})["metadata"][
        "deletionTimestamp"
    ]


POD: dict[str, Any] = {
    "metadata": {"name": "p", "namespace": "t", "uid": "u", "labels": {"r1plus.ai/deployment": "credit", "r1plus.ai/revision": "credit-1"}},
    "spec": {},
    "status": {
        "podIP": "10.0.0.5",
        "conditions": [
            {"type": "Ready", "status": "False"},
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"},
        ],
        "initContainerStatuses": [
            {
                "name": "verify",
                "ready": False,
                "restartCount": 2,
                "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
                "lastState": {"terminated": {"reason": "Error", "exitCode": 1, "message": "EngineDigestMismatch: x"}},
            }
        ],
    },
}  # fmt: skip


def test_a_pod_tells_whose_it_is_and_what_ails_it() -> None:
    pod = pod_projection.project_pod(POD)
    found = pod.deployment, pod.facts.revision, pod.facts.ip, pod.facts.ready
    assert found == ("credit", "credit-1", "10.0.0.5", False)
    assert pod.facts.unschedulable == "0/1 nodes"
    verify = pod.facts.containers[0]
    assert (verify.waiting_reason, verify.terminated_reason, verify.exit_code) == ("CrashLoopBackOff", "Error", 1)
    assert verify.message == "EngineDigestMismatch: x"


DIGEST, OTHER_DIGEST = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
IMAGES: dict[str, tuple[str, str, bool]] = {
    "the same": ("registry.local/triton:1", "registry.local/triton:1", True),
    "the digest of a tag": ("registry.local/triton:1", f"registry.local/triton@{DIGEST}", True),
    "the digest of a tag beside it": ("registry.local/triton:1", f"registry.local/triton:1@{DIGEST}", True),
    "a mirror": ("registry.local:5000/a/triton:1", "mirror.local/cache/registry.local/a/triton:1", True),
    "the digest at a mirror": ("triton:1", f"mirror.local/library/triton:1@{DIGEST}", True),
    "a digest at a mirror": (f"registry.local/triton@{DIGEST}", f"mirror.local/triton@{DIGEST}", True),
    "a digest at a mirror that names it otherwise": (f"triton:1@{DIGEST}", f"mirror.local/all/t:x@{DIGEST}", True),
    "no tag": ("triton", "docker.io/library/triton:latest", True),
    "another digest": (f"registry.local/triton@{DIGEST}", f"registry.local/triton@{OTHER_DIGEST}", False),
    "another digest beside the same tag": (f"a/triton:1@{DIGEST}", f"a/triton:1@{OTHER_DIGEST}", False),
    "a tag for a digest": (f"a/triton:1@{DIGEST}", "a/triton:1", False),
    "another tag": ("registry.local/triton:1", "registry.local/triton:2", False),
    "another tag with a digest": ("registry.local/triton:1", f"registry.local/triton:2@{DIGEST}", False),
    "another repository": ("registry.local/triton:1", "registry.local/evil:1", False),
    "another repository's digest": ("registry.local/triton:1", f"registry.local/evil@{DIGEST}", False),
    "a repository that only ends alike": ("registry.local/triton:1", "registry.local/not-triton:1", False),
    "a registry with a port and no tag": ("registry.local:5000/triton", "registry.local:5000/triton:5000", False),
    "nothing": ("registry.local/triton:1", "", False),
}


@pytest.mark.parametrize(("asked", "run", "is_same"), IMAGES.values(), ids=IMAGES)
def test_a_webhook_may_name_an_image_otherwise_and_not_another(asked: str, run: str, is_same: bool) -> None:
    assert is_same_image(asked, run) is is_same


@pytest.mark.parametrize(
    ("rewrite", "is_own"),
    [
        pytest.param(lambda image: f"mirror.local/{image}@{DIGEST}", True, id="its digest at a mirror"),
        pytest.param(lambda image: "registry.local/other:1", False, id="another image"),
    ],
)
def test_a_pod_whose_images_a_webhook_rewrote_is_its_revisions_own(rewrite: Callable[[str], str], is_own: bool) -> None:
    world = World({"tier": "full"})
    world.settle()
    name = world.candidate()
    world.start_pods(name)
    (pod,) = world.pods.values()
    assert world.revision(name).own_pods([pod]) == {pod}
    rewritten = replace(pod, images=tuple(map(rewrite, pod.images)))
    assert world.revision(name).own_pods([rewritten]) == ({rewritten} if is_own else set())
    without_one = replace(pod, images=pod.images[1:])
    assert world.revision(name).own_pods([without_one]) == set()


def test_what_openshift_fills_into_a_pod_makes_it_no_other() -> None:
    world = World({"tier": "full"})
    world.settle()
    spec = world.one("Deployment", world.candidate())["spec"]["template"]["spec"]
    live = copy.deepcopy(spec)
    live["securityContext"] |= {
        "fsGroup": 1000680000,
        "seLinuxOptions": {"level": "s0:c26,c15"},
        "runAsUser": 1000680000,
    }
    live["imagePullSecrets"] = [{"name": "credit-dockercfg-x7k2p"}]
    for container in (*live["initContainers"], *live["containers"]):
        container["securityContext"] |= {"runAsUser": 1000680000, "runAsNonRoot": True}
    assert (hash_pod_spec(live), list_images(live)) == (hash_pod_spec(spec), list_images(spec))


def test_a_pod_made_from_a_template_has_its_fingerprint_whatever_the_server_defaulted_and_no_other_has() -> None:
    template = World({"tier": "full"})
    template.settle()
    spec = template.one("Deployment", template.candidate())["spec"]["template"]["spec"]
    live = copy.deepcopy(spec)
    live["ephemeralContainers"] = [{"name": "debugger", "image": "x"}]
    live |= {"nodeName": "n1", "dnsPolicy": "ClusterFirst", "tolerations": [{"operator": "Exists"}]}
    for volume in live["volumes"]:
        if "configMap" in volume:
            volume["configMap"]["defaultMode"] = 420
    live["containers"][0] |= {"terminationMessagePath": "/dev/termination-log"}
    assert hash_pod_spec(live) == hash_pod_spec(spec)
    for change in (
        lambda s: s["containers"].append({"name": "proxy", "image": "x"}),
        lambda s: s["containers"][1]["env"].append({"name": "PYTHONPATH", "value": "/tmp"}),
        lambda s: s["initContainers"][0].update(command=["true"]),
        lambda s: s["volumes"][0].update(emptyDir=None, configMap={"name": "mine"}),
        lambda s: s.update(hostNetwork=True),
    ):
        forged = copy.deepcopy(live)
        change(forged)
        assert hash_pod_spec(forged) != hash_pod_spec(spec)


TURNED_AWAY = {
    "a kubelet without a device left": (
        {"phase": "Failed", "reason": "OutOfnvidia.com/gpu", "message": "Pod was rejected"},
        "OutOfnvidia.com/gpu: Pod was rejected",
    ),
    "a container that failed": ({"phase": "Failed"}, ""),
    "a pod that waits": ({"phase": "Pending", "reason": "Whatever"}, ""),
}


@pytest.mark.parametrize(("status", "said"), TURNED_AWAY.values(), ids=TURNED_AWAY.keys())
def test_a_pod_that_its_node_turned_away_says_why(status: dict[str, Any], said: str) -> None:
    found = pod_projection.project_pod(
        {"metadata": META | {"labels": POD["metadata"]["labels"]}, "spec": {}, "status": status}
    )
    assert found.facts.failure_reason == said


def test_a_pod_names_the_replicaset_that_controls_it() -> None:
    owners = [{"kind": "ReplicaSet", "name": "a-1"}, {"kind": "ReplicaSet", "name": "credit-1-x", "controller": True}]
    pod = pod_projection.project_pod({**POD, "metadata": {**POD["metadata"], "ownerReferences": owners}})
    assert pod.facts.replica_set == "credit-1-x"


def test_a_deployment_that_may_make_no_pods_keeps_the_servers_words_and_nothing_else_of_its_status() -> None:
    failing = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}
    status = {"replicas": 1, "conditions": [{"type": "Available", "status": "True"}, failing]}
    kept = projections.project_child(DEPLOYMENT, {"metadata": META, "status": status})
    assert kept.live[REFUSED_PODS] == "exceeded quota"
    assert "status" not in kept.live
    recovered = {"conditions": [{**failing, "status": "False"}]}
    assert REFUSED_PODS not in projections.project_child(DEPLOYMENT, {"metadata": META, "status": recovered}).live


def test_a_node_without_figures_is_not_counted() -> None:
    node = {"metadata": {"name": "n", "uid": "u"}}
    assert node_projection.project_node({**node, "status": {"allocatable": {"memory": "1Gi", "cpu": "2"}}}) is not None
    assert node_projection.project_node({**node, "status": {"allocatable": {"memory": "lots", "cpu": "2"}}}) is None
    assert node_projection.project_node(node) is None


def test_an_engine_that_does_not_validate_is_not_on_offer_but_is_known() -> None:
    kept = projections.project_engine({"metadata": {"name": "e", "uid": "u"}, "spec": {"tier": "huge"}})
    assert kept.value.engine is None
    assert kept.value.live["spec"] == {"tier": "huge"}


def test_an_engine_of_kind_embedding_is_known_and_not_on_offer() -> None:
    spec = EMBEDDING_ENGINE.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    kept = projections.project_engine({"metadata": {"name": "minilm", "uid": "u"}, "spec": spec})
    assert kept.value.engine is None
    assert kept.value.embedding == EMBEDDING_ENGINE
    for wrong in ({**spec, "tier": "full"}, {**spec, "kind": "generation"}, {**spec, "kind": None}):
        kept = projections.project_engine({"metadata": {"name": "minilm", "uid": "u"}, "spec": wrong})
        assert (kept.value.engine, kept.value.embedding) == (None, None)


def test_a_suite_that_cannot_be_read_says_why() -> None:
    source = suite_projection.read_suite({"metadata": {"name": "s", "namespace": "t", "uid": "u"}, "data": {}})
    assert source.suite is None
    assert "s: " in source.problem


POLICY, JOB = kinds.BY_KIND["NetworkPolicy"], kinds.BY_KIND["Job"]
POLICIES = {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_ISOLATION: "tenant"}
OWNED = {"ownerReferences": [{"kind": "R1PlusDeployment", "name": "credit", "uid": "o", "controller": True}]}
PROBED = {"annotations": {names.ANNOTATION_PROBED: '{"namespace":"team","uid":"u"}'}}


@pytest.mark.parametrize(
    ("meta", "tenant"),
    [
        pytest.param({"labels": POLICIES}, "t", id="what is of a namespace's walls is of its own"),
        pytest.param({"labels": POLICIES, **PROBED}, "team", id="a Job of the prober is of whom it tries, wherever it lies"),
        pytest.param({"labels": POLICIES, "annotations": {names.ANNOTATION_PROBED: "nonsense"}}, "t", id="unless that cannot be read"),
        pytest.param({"labels": POLICIES, "annotations": {names.ANNOTATION_PROBED: "[]"}}, "t", id="or says nothing of it"),
        pytest.param({"labels": {names.LABEL_MANAGED_BY: names.MANAGED_BY}}, "", id="without the label it is of no tenant"),
        pytest.param(PROBED, "", id="nor with the annotation alone"),
        pytest.param({"labels": POLICIES, **OWNED}, "", id="a deployment's own wall stays its own, whoever labels it"),
        pytest.param({"labels": {**POLICIES, names.LABEL_VOLUME: "v"}}, "", id="so does a volume's"),
    ],
)  # fmt: skip
def test_a_child_is_of_the_tenant(meta: dict[str, Any], tenant: str) -> None:
    assert child(POLICY, meta=meta).tenant == tenant


def test_of_a_job_it_is_kept_how_and_when_it_ended() -> None:
    said = [{"type": "SuccessCriteriaMet", "status": "True"}, {"type": "Failed", "status": "True", "lastTransitionTime": "1970-01-01T00:01:40Z"}]  # fmt: skip
    assert JOB_ENDED not in child(JOB, status={"active": 1, "conditions": said[:1]}).live
    assert child(JOB, status={"conditions": said}).live[JOB_ENDED] == {"type": "Failed", "at": 100.0, "final": False}


@pytest.mark.parametrize(
    ("meta", "facts"),
    [
        ({"labels": {names.LABEL_TENANT: "true", names.LABEL_POD_SECURITY: "restricted"}}, (True, "restricted", False)),
        ({"labels": {names.LABEL_TENANT: "yes", names.LABEL_POD_SECURITY: "baseline"}}, (False, "baseline", False)),
        ({"labels": {names.LABEL_TENANT: "True"}, "deletionTimestamp": "now"}, (False, "", True)),
        ({}, (False, "", False)),
    ],
    ids=["as the platform team makes one", "no other word than true", "to the letter; and it goes", "nothing said"],
)
def test_a_namespace_is_a_tenant_as_its_labels_say(meta: dict[str, Any], facts: tuple[bool, str, bool]) -> None:
    kept = projections.project_namespace({"metadata": {"name": "team", "uid": "u", **meta}})
    found = kept.value
    assert (found.is_tenant, found.pod_security, found.is_terminating) == facts
    assert (found.name, found.uid, kept.namespace) == ("team", "u", "")


def test_an_r1plustenant_that_only_got_our_answer_has_changed_by_its_status_alone() -> None:
    meta = {"name": "tenant", "namespace": "team", "uid": "u", "generation": 1, "finalizers": ["f"]}
    meta["managedFields"] = [{}]
    one = projections.project_tenant({"metadata": {**meta, "resourceVersion": "5"}, "spec": {"quota": {}}})
    two = projections.project_tenant({"metadata": {**meta, "resourceVersion": "6"}, "spec": {"quota": {}}})
    assert one == two
    assert one.value["metadata"] == {key: value for key, value in meta.items() if key != "managedFields"}
    assert projections.project_tenant({"metadata": {**meta, "resourceVersion": "7"}, "status": {"a": 1}}) != one


@pytest.mark.parametrize(
    ("labels", "deployment", "probed", "job"),
    [
        ({names.LABEL_DEPLOYMENT: "credit"}, "credit", "", ""),
        ({names.LABEL_DEPLOYMENT: "credit", names.LABEL_PROBE: "knock"}, "", "team", "j"),
    ],
    ids=["a pod that serves", "the prober's is none of the deployment's under whose walls it stands"],
)
def test_whose_a_pod_is(labels: dict[str, str], deployment: str, probed: str, job: str) -> None:
    owner = {"kind": "Job", "name": "r1plus-prober-1", "uid": "j", "controller": True}
    meta = {**META, "labels": labels, **PROBED, **({"ownerReferences": [owner]} if job else {})}
    found = pod_projection.project_pod({"metadata": meta, "spec": {}})
    assert (found.deployment, found.probed_namespace, found.job) == (deployment, probed, job)


def test_a_nodes_addresses_are_those_that_pods_reach_it_at_and_nothing_that_is_none() -> None:
    internal = [{"type": "InternalIP", "address": address} for address in ("10.0.0.7", "n1.example", "")]
    listed = [*internal, {"type": "ExternalIP", "address": "fd00::7"}, {"type": "Hostname", "address": "n1"}]
    status = {"allocatable": {"cpu": "4", "memory": "8Gi"}, "addresses": listed}
    spec = {"podCIDRs": ["10.244.3.0/24", "fd01:0:0:3::/64", "nonsense"]}
    kept = node_projection.project_node({"metadata": {"name": "n1", "uid": "n"}, "spec": spec, "status": status})
    assert kept.value.addresses == ("10.0.0.7", "fd00::7", "10.244.3.1", "fd01:0:0:3::1")
    bare = node_projection.project_node(
        {"metadata": {"name": "n1", "uid": "n"}, "status": {"allocatable": status["allocatable"]}}
    )
    assert bare.value.addresses == ()


LARGE = "x" * 250_000


def test_a_pod_that_has_our_mark_alone_is_not_kept() -> None:
    labels = {names.LABEL_MANAGED_BY: names.MANAGED_BY}
    assert pod_projection.project_pod({**POD, "metadata": {**META, "labels": labels}}) is None
    for label in (names.LABEL_DEPLOYMENT, names.LABEL_VOLUME, names.LABEL_PROBE):
        assert pod_projection.project_pod({**POD, "metadata": {**META, "labels": labels | {label: "a"}}}) is not None


def test_of_a_pods_annotations_little_is_kept() -> None:
    notes = {names.ANNOTATION_OWNER_UID: LARGE, "example.com/a": LARGE}
    kept = pod_projection.project_pod({**POD, "metadata": {**POD["metadata"], "annotations": notes}})
    assert len(repr(kept)) < 2000


def test_of_a_childs_annotations_ours_are_kept() -> None:
    kept = child(meta={"annotations": {names.ANNOTATION_DESIRED_HASH: "h", "example.com/a": LARGE}})
    assert kept.live["metadata"]["annotations"] == {names.ANNOTATION_DESIRED_HASH: "h"}


@pytest.mark.parametrize("count", [1, 10_000])
def test_of_a_childs_labels_ours_are_kept(count: int) -> None:
    ours = {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_NAME: "a", names.LABEL_DEPLOYMENT: "credit"}
    others = {f"example.com/{number}": "x" for number in range(count)}
    assert child(meta={"labels": ours | others}) == child(meta={"labels": ours}), "an edit of others' causes no pass"
    assert child(meta={"labels": ours | others}).live["metadata"]["labels"] == ours


@pytest.mark.parametrize("why", [LARGE, "the model was mended"], ids=["without end", "control: as people write them"])
def test_of_an_r1plusdeployments_annotations_its_requests_are_kept_and_clipped(why: str) -> None:
    request = Request("alice", why, "2030-01-01T00:00:00.000000Z")
    notes = {"example.com/a": LARGE, Verb.PIN.annotation: LARGE, **build_annotations(Verb.ACK, request)}
    kept = projections.project_deployment({"metadata": {**META, "annotations": notes}})
    clip_report = replace(request, why=why[:MOST_WHY])
    assert read_requests(kept["metadata"]) == {Verb.ACK: clip_report}
    assert len(repr(kept)) < 2000
