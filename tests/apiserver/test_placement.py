"""Attacks on where pods run and where the operator writes, and what ordinary clusters do to pods.

Numbered as in `test_findings`.
"""

import uuid
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import pytest

from devcluster.apiserver_only import ApiServer
from r1plus_contract import names
from r1plus_contract.verdict import Verdict
from r1plus_operator.api import kinds
from r1plus_operator.api.crd import CRD
from r1plus_operator.api.tenants import R1PlusTenantSpec
from r1plus_operator.api.types import Placement
from r1plus_operator.plan.engine.placement import check_placement
from r1plus_operator.runtime.resources import Resource
from support.apiserver.chart import PULL_SECRET
from support.apiserver.manifests import (
    CHILD,
    CLUSTER_ROLE_BINDING,
    CONTEXT,
    ROLE_BINDING,
    Json,
    cluster_role_binding,
    deployment,
    manifest,
    pod,
    pod_template,
    r1plus_deployment,
    r1plus_tenant,
    role_binding,
    tenant_namespace,
    user,
)
from support.apiserver.operator_process import OperatorProcess
from support.apiserver.people import Answer, Person, people, until_pods_are_taken
from support.apiserver.rights import OPERATOR
from support.apiserver.tenant import Tenant, apply_pod
from support.apiserver.walls import assert_held
from support.waiting import wait_until

pytestmark = pytest.mark.apiserver
MALLORY, REACH = "mallory", "operator-reach"
CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
DEDICATED: Json = {"key": "dedicated", "value": "credit", "effect": "NoSchedule"}
ALLOWED: Json = {
    "nodeSelectors": [{"pool": "credit"}, {"pool": "shared", "zone": "a"}],
    "tolerations": [DEDICATED, {"key": "spot", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}],
}


@dataclass(frozen=True, slots=True)
class Places:
    """mallory administers a tenant with a placement, one with none, and one without any R1PlusTenant."""

    mallory: Person
    placed: str
    plain: str
    bare: str

    def ask(self, namespace: str, placement: Json) -> Any:
        """Make a deployment there, as a dry run."""
        return self.mallory.ask("POST", kinds.R1PLUS_DEPLOYMENT.path(namespace), r1plus_deployment(placement=placement))


@pytest.fixture(scope="module")
def places(installed_server: ApiServer, admin: Person) -> Iterator[Places]:
    placed, plain, bare = (f"{letter}-{uuid.uuid4().hex[:10]}" for letter in "abc")
    with people(installed_server, MALLORY) as who:
        made = Places(who[MALLORY], placed, plain, bare)
        for namespace, spec in ((placed, {"placement": ALLOWED}), (plain, {}), (bare, None)):
            admin.do("POST", kinds.NAMESPACE.path(), tenant_namespace(namespace))
            binding = role_binding(namespace, "admins", names.ROLE_TENANT_ADMIN, user(MALLORY))
            admin.do("POST", ROLE_BINDING.path(namespace), binding)
            made.mallory.gets("create", "r1plusdeployments", namespace, names.GROUP)
            if spec is not None:
                admin.do("POST", kinds.R1PLUS_TENANT.path(namespace), r1plus_tenant(namespace, **spec))
                wait_until(
                    lambda n=namespace: made.ask(n, tolerate({"key": "x", "operator": "Exists"})).refused,
                    f"the policies know the R1PlusTenant of {namespace}",
                )
        yield made


def select_nodes(**labels: str) -> Json:
    return {"nodeSelector": labels}


def tolerate(*tolerations: Json, **labels: str) -> Json:
    return {"tolerations": list(tolerations), **({"nodeSelector": labels} if labels else {})}


EVERYWHERE = {
    "the control plane's nodes": {"nodeSelector": {CONTROL_PLANE: ""}},
    "the control plane's nodes by their old name": {"nodeSelector": {"node-role.kubernetes.io/master": ""}},
    "every taint": tolerate({"operator": "Exists"}),
    "every taint that evicts": tolerate({"operator": "Exists", "effect": "NoExecute"}),
    "the control plane's taint": tolerate({"key": CONTROL_PLANE, "operator": "Exists"}),
}
NOWHERE_ELSE = {
    "another tenant's nodes": tolerate({"key": "dedicated", "operator": "Equal", "value": "pay"}, pool="credit"),
    "all dedicated nodes": tolerate({"key": "dedicated", "operator": "Exists"}, pool="credit"),
    "all effects of a taint": tolerate({"key": "dedicated", "value": "credit"}, pool="credit"),
    "a dead node": tolerate({"key": "node.kubernetes.io/unreachable", "operator": "Exists"}, pool="credit"),
    "a node that goes, for ever": tolerate({"key": "spot", "effect": "NoExecute", "operator": "Exists"}, pool="credit"),
    "a node that goes, for long": tolerate(
        {"key": "spot", "effect": "NoExecute", "operator": "Exists", "tolerationSeconds": 61}, pool="credit"
    ),
    "no pool": {},
    "another pool": select_nodes(pool="pay"),
    "half of a selector": select_nodes(pool="shared"),
}
OWN = {
    "one's own pool": tolerate(DEDICATED, pool="credit", zone="b"),
    "the other selector": select_nodes(pool="shared", zone="a", gpu="yes"),
    "nodes with GPUs": tolerate({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}, pool="credit"),
    "a node that goes, for a while": tolerate(
        {"key": "spot", "effect": "NoExecute", "value": "x", "tolerationSeconds": 60}, pool="credit"
    ),
}


@pytest.mark.parametrize("placement", EVERYWHERE.values(), ids=EVERYWHERE)
def test_finding_03_no_tenant_runs_on_the_control_plane(places: Places, placement: Json) -> None:
    assert_held(places.ask(places.bare, placement), "control-plane", "spec.placement.")
    assert [places.ask(namespace, placement).status for namespace in (places.placed, places.plain)] == [403, 403]
    assert places.ask(places.bare, {}).status == 201


@pytest.mark.parametrize("placement", NOWHERE_ELSE.values(), ids=NOWHERE_ELSE)
def test_finding_03_a_tenant_stays_where_the_platform_team_places_it(places: Places, placement: Json) -> None:
    assert_held(places.ask(places.placed, placement), "placement", "R1PlusTenant tenant")
    assert check_placement(Placement.model_validate(placement), R1PlusTenantSpec(placement=ALLOWED).placement)


@pytest.mark.parametrize("placement", OWN.values(), ids=OWN)
def test_finding_03_a_tenant_has_what_the_platform_team_allows(places: Places, placement: Json) -> None:
    assert places.ask(places.placed, placement).status == 201
    assert not check_placement(Placement.model_validate(placement), R1PlusTenantSpec(placement=ALLOWED).placement)


def test_finding_03_a_tenant_of_which_nothing_is_said_tolerates_gpu_taints_only(places: Places) -> None:
    assert_held(places.ask(places.plain, tolerate(DEDICATED)), "placement", "R1PlusTenant tenant does not allow")
    gpu = {"key": "nvidia.com/gpu", "operator": "Exists"}
    assert places.ask(places.plain, tolerate(gpu, pool="any")).status == 201


@pytest.mark.parametrize(
    "toleration", [{"operator": "Exists"}, {"key": CONTROL_PLANE, "operator": "Exists"}], ids=["every taint", "its own"]
)
def test_finding_03_the_control_plane_cannot_be_allowed(places: Places, admin: Person, toleration: Json) -> None:
    path = kinds.R1PLUS_TENANT.path(places.plain, names.TENANT)
    answer = admin.ask("PATCH", path, {"spec": {"placement": {"tolerations": [toleration]}}})
    assert answer.status == 422, answer
    assert "spec.placement: Invalid value" in answer.text
    assert "tolerations need a key, and not that of the control plane's nodes" in answer.text


def test_finding_03_a_deployment_that_was_stored_before_stays_editable(places: Places, admin: Person) -> None:
    allow = {"tolerations": [{"key": "old", "operator": "Exists"}]}
    tenant = kinds.R1PLUS_TENANT.path(places.plain, names.TENANT)
    admin.do("PATCH", tenant, {"spec": {"placement": allow}})
    wait_until(lambda: places.ask(places.plain, allow).status == 201, "the policies know that it is allowed")
    path = kinds.R1PLUS_DEPLOYMENT.path(places.plain)
    places.mallory.do("POST", path, r1plus_deployment("kept", placement=allow))
    admin.do("PATCH", tenant, {"spec": {"placement": None}})
    wait_until(lambda: places.ask(places.plain, allow).refused, "the policies know that it is not allowed any more")
    kept = f"{path}/kept"
    assert places.mallory.ask("PATCH", kept, {"spec": {"replicas": 2}}).status == 200
    assert places.mallory.ask("PATCH", kept, {"spec": {"placement": None}}).status == 200
    more = {"spec": {"placement": {"tolerations": [*allow["tolerations"], DEDICATED]}}}
    assert_held(places.mallory.ask("PATCH", kept, more), "placement", "R1PlusTenant tenant does not allow")


@dataclass(frozen=True, slots=True)
class Taken:
    """Somebody who has taken over the operator's process, whose account somebody has made cluster-admin by mistake."""

    operator: Person
    tenant: str
    plain: str
    """A namespace that is no tenant."""

    def make(self, namespace: str, body: Json) -> Answer:
        """Make an object there, as a dry run."""
        return self.operator.ask("POST", EVERY_KIND[body["kind"]].path(namespace), body)


def without_schema(resource: Resource) -> Json:
    """Return a definition of this kind that takes anything."""
    anything = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": resource.version, "served": True, "storage": True, "schema": anything}
    of = {"kind": resource.kind, "plural": resource.plural, "singular": resource.kind.lower()}
    spec = {"group": resource.group, "scope": "Namespaced", "names": of, "versions": [version]}
    return manifest(CRD, resource.name, spec=spec)


@pytest.fixture(scope="module")
def taken(installed_server: ApiServer, admin: Person) -> Iterator[Taken]:
    tenant, plain = (f"{letter}-{uuid.uuid4().hex[:10]}" for letter in "tp")
    mistake = cluster_role_binding("operator-is-taken-over", "cluster-admin", user(OPERATOR))
    for body in (tenant_namespace(tenant), manifest(kinds.NAMESPACE, plain)):
        admin.do("POST", kinds.NAMESPACE.path(), body)
    for resource in kinds.OPTIONAL_CHILDREN:
        admin.do("POST", CRD.path(), without_schema(resource))
    admin.do("POST", CLUSTER_ROLE_BINDING.path(), mistake)
    with people(installed_server, OPERATOR) as who:
        operator = who[OPERATOR]
        operator.gets("create", "secrets", "kube-system")
        for namespace in (tenant, plain):
            until_pods_are_taken(admin, namespace)
        served = [resource.path(plain) for resource in kinds.OPTIONAL_CHILDREN]
        wait_until(
            lambda: all(admin.ask("GET", path).status == 200 for path in served), "PodMonitors and rules are served"
        )
        yield Taken(operator, tenant, plain)
        for resource in kinds.OPTIONAL_CHILDREN:
            admin.do("DELETE", CRD.path(name=resource.name))
        admin.do("DELETE", CLUSTER_ROLE_BINDING.path(name="operator-is-taken-over"))
        wait_until(
            lambda: not operator.may("create", "secrets", "kube-system"), "the operator has its own rights again"
        )
        gone = [CRD.path(name=resource.name) for resource in kinds.OPTIONAL_CHILDREN]
        wait_until(lambda: all(admin.ask("GET", path).status == 404 for path in gone), "the definitions are gone")


LABELLED: Json = {"a": "b"}
JOB_SPEC: Json = {"template": {"spec": pod_template({})["spec"] | {"restartPolicy": "Never"}}}
CLAIM_SPEC: Json = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
ENDPOINT: Json = {
    "port": "monitor",
    "path": "/metrics",
    "interval": "15s",
    "followRedirects": False,
    "relabelings": [{"action": "replace"}],
}
VIEWERS: Json = {
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": names.ROLE_TENANT_VIEWER},
    "subjects": [user("vera")],
}
EVERY_KIND = {resource.kind: resource for resource in kinds.CHILDREN}
MADE: dict[str, tuple[str, dict[str, Any]]] = {
    "ConfigMap": ("credit-accuracy", {"data": {"a": "b"}}),
    "ServiceAccount": ("credit", {}),
    "Service": ("credit", {"spec": {"ports": [{"port": 80}], "selector": LABELLED}}),
    "ControllerRevision": ("credit-0123456789", {"revision": 1, "data": LABELLED}),
    "Deployment": ("credit-0123456789", {"spec": deployment("d", LABELLED)["spec"]}),
    "NetworkPolicy": ("credit", {"spec": {"podSelector": {}}}),
    "PodDisruptionBudget": ("credit", {"spec": {"maxUnavailable": 1, "selector": {"matchLabels": LABELLED}}}),
    "PersistentVolumeClaim": ("r1plus-engine-0123456789abcdef", {"spec": CLAIM_SPEC}),
    "Job": ("r1plus-engine-0123456789abcdef", {"spec": JOB_SPEC}),
    "PodMonitor": ("credit", {"spec": {"selector": {}, "podMetricsEndpoints": [ENDPOINT]}}),
    "PrometheusRule": ("credit", {"spec": {"groups": []}}),
    "ResourceQuota": ("r1plus-tenant", {"spec": {"hard": {"pods": "10"}}}),
    "LimitRange": ("r1plus-tenant", {"spec": {"limits": [{"type": "Container", "defaultRequest": {"cpu": "1m"}}]}}),
    "RoleBinding": ("r1plus-tenant-viewers", VIEWERS),
}
"""What the operator makes, an object of each kind."""


def made(kind: str, name: str = "", labels: Json = CHILD, **changed: Any) -> Json:
    """Return an object as the operator makes it, but for this."""
    own, body = MADE[kind]
    return manifest(EVERY_KIND[kind], name or own, labels=labels, **body | changed)


def test_every_kind_that_the_operator_writes_is_tried() -> None:
    assert MADE.keys() == EVERY_KIND.keys()


@pytest.mark.parametrize("kind", MADE)
def test_finding_04_the_operator_makes_nothing_outside_tenants(taken: Taken, kind: str) -> None:
    assert_held(taken.make(taken.plain, made(kind)), REACH, f"{taken.plain} is not a tenant")
    allowed = taken.make(taken.tenant, made(kind))
    assert allowed.status == 201, allowed


@pytest.mark.parametrize("kind", MADE)
def test_finding_04_the_operator_makes_nothing_at_a_foreign_name(taken: Taken, kind: str) -> None:
    for name in ("payments", "credit-database", "data-postgres-0"):
        refused = taken.make(taken.tenant, made(kind, name))
        assert_held(refused, REACH, f"{name} is no name that the operator gives to {EVERY_KIND[kind].plural}")


@pytest.mark.parametrize("kind", MADE)
def test_finding_04_what_the_operator_makes_has_its_mark(taken: Taken, kind: str) -> None:
    assert_held(
        taken.make(taken.tenant, made(kind, labels={names.LABEL_DEPLOYMENT: "credit"})),
        REACH,
        "must have the value r1plus-operator",
    )


def test_finding_04_what_was_made_before_a_label_went_can_be_put_right(taken: Taken, admin: Person) -> None:
    namespace = f"f-{uuid.uuid4().hex[:10]}"
    admin.do("POST", kinds.NAMESPACE.path(), tenant_namespace(namespace))
    network_policy = EVERY_KIND["NetworkPolicy"]
    wait_until(lambda: taken.make(namespace, made("NetworkPolicy")).status == 201, "the namespace is known as a tenant")
    taken.operator.do("POST", network_policy.path(namespace), made("NetworkPolicy"))
    admin.do("PATCH", kinds.NAMESPACE.path(name=namespace), {"metadata": {"labels": {names.LABEL_TENANT: None}}})
    wait_until(lambda: taken.make(namespace, made("ConfigMap")).refused, "the namespace is known as none")
    edit = {"spec": {"podSelector": {"matchLabels": LABELLED}}}
    assert taken.operator.ask("PATCH", network_policy.path(namespace, "credit"), edit).status == 200


def event_about(kind: str, name: str, version: str = names.API_VERSION, of: str = "credit") -> Json:
    """Return an Event as the operator makes it, but for what it is about and its own name."""
    about = {"apiVersion": version, "kind": kind, "name": of}
    return manifest(kinds.EVENT, name, involvedObject=about, reason="Serving", message="m", type="Normal")


def test_finding_04_the_operator_reports_events_about_its_own_objects_only(taken: Taken) -> None:
    def report(namespace: str, event: Json) -> Answer:
        event["involvedObject"]["namespace"] = namespace
        return taken.operator.ask("POST", kinds.EVENT.path(namespace), event)

    good = "credit.0123456789ab"
    for about in (
        event_about("Pod", good, "v1"),
        event_about(names.KIND_DEPLOYMENT, good, "apps/v1"),
        event_about(names.KIND_DEPLOYMENT, "payments.0123456789ab"),
    ):
        assert_held(report(taken.tenant, about), REACH, "Events about R1PlusDeployments only")
    assert_held(report("kube-system", event_about(names.KIND_DEPLOYMENT, good)), REACH, "kube-system is reserved")
    newer = {"eventTime": "2026-01-01T00:00:00.000000Z", "action": "a", "reportingController": "c/d"}
    about = {"apiVersion": "v1", "kind": "Pod", "name": "credit", "namespace": taken.tenant}
    event = {"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": good}, "regarding": about}
    event |= {**newer, "reportingInstance": "i", "reason": "Serving", "type": "Normal", "note": "m"}
    path = f"/apis/events.k8s.io/v1/namespaces/{taken.tenant}/events"
    assert_held(taken.operator.ask("POST", path, event), REACH, "Events about R1PlusDeployments only")
    for namespace in (taken.tenant, taken.plain):
        answer = report(namespace, event_about(names.KIND_DEPLOYMENT, good))
        assert answer.status == 201, answer


CREDENTIALS: dict[str, Any] = {
    "authorization": {"credentials": {"name": "database", "key": "password"}},
    "basicAuth": {"password": {"name": "database", "key": "password"}},
    "oauth2": {"clientSecret": {"name": "database", "key": "password"}},
    "bearerTokenSecret": {"name": "database", "key": "password"},
    "bearerTokenFile": "/var/run/secrets/kubernetes.io/serviceaccount/token",
    "tlsConfig": {"keySecret": {"name": "database", "key": "password"}},
    "proxyUrl": "http://proxy.example.com",
}


@pytest.mark.parametrize("field", CREDENTIALS)
def test_finding_04_no_monitor_of_the_operators_carries_credentials(taken: Taken, field: str) -> None:
    spec = {"selector": {}, "podMetricsEndpoints": [ENDPOINT, ENDPOINT | {field: CREDENTIALS[field]}]}
    assert_held(taken.make(taken.tenant, made("PodMonitor", spec=spec)), REACH, "carry no credentials")


def test_finding_04_no_monitor_of_the_operators_looks_into_other_namespaces(taken: Taken) -> None:
    spec = {"selector": {}, "namespaceSelector": {"any": True}, "podMetricsEndpoints": [ENDPOINT]}
    assert_held(taken.make(taken.tenant, made("PodMonitor", spec=spec)), REACH, "namespaceSelector")


def pod_of(kind: str, **spec: Any) -> Json:
    """Return a Deployment or a Job of the operator's whose pods are such."""
    body = deepcopy(made(kind))
    body["spec"]["template"]["spec"] |= spec
    return body


@pytest.mark.parametrize("kind", ["Deployment", "Job"])
def test_finding_04_no_pod_of_the_operators_mounts_others_claims_or_takes_others_pull_secrets(
    taken: Taken, kind: str
) -> None:
    def mounting(claim: str) -> Json:
        return pod_of(kind, volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": claim}}])

    refused = taken.make(taken.tenant, mounting("data-postgres-0"))
    assert_held(refused, "operator-templates", "of claims the operator's pods mount r1plus-engine-... only")
    assert taken.make(taken.tenant, mounting("r1plus-engine-0123456789abcdef")).status == 201
    refused = taken.make(taken.tenant, pod_of(kind, imagePullSecrets=[{"name": "registry-of-payments"}]))
    assert_held(refused, "operator-templates", "the chart's value imagePullSecrets only")
    assert taken.make(taken.tenant, pod_of(kind, imagePullSecrets=[{"name": PULL_SECRET}])).status == 201


def test_finding_04_no_account_of_the_operators_takes_others_pull_secrets(taken: Taken) -> None:
    refused = taken.make(taken.tenant, made("ServiceAccount", imagePullSecrets=[{"name": "registry-of-payments"}]))
    assert_held(refused, REACH, "the chart's value imagePullSecrets only")
    assert taken.make(taken.tenant, made("ServiceAccount", imagePullSecrets=[{"name": PULL_SECRET}])).status == 201


POSES = {names.LABEL_DEPLOYMENT: "credit", names.LABEL_SERVING: "true"}
ENGINE = {"name": "v", "persistentVolumeClaim": {"claimName": "r1plus-engine-0123456789abcdef"}}
LOOKED_AT = {
    "a pod with our labels": ("serving-pods", kinds.POD, pod("x", labels=POSES)),
    "a pod that mounts an engine": ("engine-volumes", kinds.POD, pod("x", volumes=[ENGINE])),
    "a Deployment with our labels": ("serving-templates", kinds.BY_KIND["Deployment"], deployment("x", POSES)),
}


@pytest.mark.parametrize(("policy", "resource", "body"), LOOKED_AT.values(), ids=LOOKED_AT)
def test_finding_24_policies_on_pods_leave_the_systems_own_namespaces_alone(
    taken: Taken, admin: Person, policy: str, resource: Resource, body: Json
) -> None:
    for namespace in (taken.tenant, taken.plain):
        assert_held(admin.ask("POST", resource.path(namespace), body), policy, "r1plus")
    answer = admin.ask("POST", resource.path("kube-system"), body)
    assert answer.status == 201, answer


async def test_finding_03_the_operator_holds_a_tenant_without_an_r1plustenant_to_it(
    operator: OperatorProcess, tenant: Tenant
) -> None:
    await tenant.deploy("credit", tier="full", placement={"tolerations": [DEDICATED]})
    said = await tenant.until("credit", "CapacityFits", "False", "PlacementNotAllowed")
    assert said.startswith("spec.placement.tolerations[0]: dedicated: R1PlusTenant tenant does not allow")
    assert await tenant.listed("Deployment") == await tenant.listed("ControllerRevision") == []
    await tenant.allow(placement={"tolerations": [DEDICATED]})
    revision = await tenant.candidate("credit")
    made = await tenant.present("Deployment", revision)
    assert made["spec"]["template"]["spec"]["tolerations"] == [DEDICATED]
    await tenant.allow(quota={"pods": 20})
    await tenant.until("credit", "CapacityFits", "False", "PlacementNotAllowed")


DIGEST = f"sha256:{'a' * 64}"
UID = 1_000_680_000


def as_openshift_and_kyverno_admit(template: Json) -> Json:
    """Return a pod template as the pod is stored by a cluster that fills in users and names images by mirror and digest."""
    made = deepcopy(template)
    pod_spec = made["spec"]
    pod_spec["securityContext"] |= {"fsGroup": UID, "seLinuxOptions": {"level": "s0:c26,c15"}}
    for container in (*pod_spec["initContainers"], *pod_spec["containers"]):
        container["securityContext"] |= {"runAsUser": UID}
        container["image"] = f"mirror.local/cache/{container['image']}@{DIGEST}"
    return made


async def test_finding_13_a_pod_that_a_webhook_rewrote_is_promoted(operator: OperatorProcess, tenant: Tenant) -> None:
    await tenant.deploy("credit", tier="full", context=CONTEXT)
    revision = await tenant.candidate("credit")
    await tenant.present("ConfigMap", "credit-accuracy")
    template = (await tenant.present("Deployment", revision))["spec"]["template"]
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"{revision}-7d9f", "uid": str(uuid.uuid4())}
    name = f"{revision}-pod"
    await apply_pod(tenant.client, name, tenant.namespace, as_openshift_and_kyverno_admit(template), owner)
    await tenant.set_ready(name, ready=False)
    await tenant.decide(revision, Verdict.PASS)
    await tenant.until("credit", "QualityVerified", "True", "GatePassed")
    await tenant.set_ready(name, ready=True)
    await tenant.until("credit", "Ready", "True", "Serving")
    assert (await tenant.present("Deployment", revision))["spec"]["template"] == template
