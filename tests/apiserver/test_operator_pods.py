"""Attacks that a review found open: by whoever has taken over the operator's account, and by a namespace's admin."""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from devcluster.apiserver_only import ApiServer
from r1plus_contract import names
from r1plus_contract.gateway import LABEL_GATEWAY
from r1plus_contract.history import AUDIENCE
from r1plus_operator.api import kinds
from r1plus_operator.api.crd import CRD
from r1plus_operator.plan.manifests.alerts import build_pod_monitor
from r1plus_operator.plan.manifests.children import ChildOwner
from r1plus_operator.runtime.resources import Resource
from support.apiserver.manifests import (
    CHILD,
    CLUSTER_ROLE_BINDING,
    POLICY_BINDING,
    ROLE,
    ROLE_BINDING,
    SECRET,
    SERVICE_ACCOUNT,
    Json,
    cluster_role_binding,
    deployment,
    manifest,
    pod,
    pod_template,
    role_binding,
    tenant_namespace,
    user,
)
from support.apiserver.people import Answer, Person, people, until_pods_are_taken
from support.apiserver.rights import OPERATOR, OPERATOR_NAMESPACE
from support.apiserver.walls import CONFIGURED, assert_held
from support.waiting import wait_until

pytestmark = pytest.mark.apiserver
REACH, TEMPLATES = "operator-reach", "operator-templates"
DEPLOYMENT, JOB, POD_MONITOR = (kinds.BY_KIND[kind] for kind in ("Deployment", "Job", "PodMonitor"))
OPTIONAL = {kind: kinds.BY_KIND[kind] for kind in ("PodMonitor", "PrometheusRule")}
"""Kinds of children that a cluster may not have."""


@dataclass(frozen=True, slots=True)
class Intruder:
    """Somebody who has taken over the operator's process, whose account somebody has made cluster-admin by mistake."""

    operator: Person
    tenant: str

    def make(self, body: Json) -> Answer:
        """Make an object in the tenant, as a dry run."""
        return self.operator.ask("POST", kinds.BY_KIND[body["kind"]].path(self.tenant), body)


def without_schema(resource: Resource) -> Json:
    """Return a definition of a kind that takes anything."""
    anything = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": resource.version, "served": True, "storage": True, "schema": anything}
    of = {"kind": resource.kind, "plural": resource.plural, "singular": resource.kind.lower()}
    spec = {"group": resource.group, "scope": "Namespaced", "names": of, "versions": [version]}
    return manifest(CRD, resource.name, spec=spec)


@pytest.fixture(scope="module")
def intruder(installed_server: ApiServer, admin: Person) -> Iterator[Intruder]:
    tenant = f"h-{uuid.uuid4().hex[:10]}"
    mistake = cluster_role_binding("operator-has-every-right", "cluster-admin", user(OPERATOR))
    definitions = [CRD.path(name=resource.name) for resource in OPTIONAL.values()]
    admin.do("POST", kinds.NAMESPACE.path(), tenant_namespace(tenant))
    for resource in OPTIONAL.values():
        admin.do("POST", CRD.path(), without_schema(resource))
    admin.do("POST", CLUSTER_ROLE_BINDING.path(), mistake)
    with people(installed_server, OPERATOR) as who:
        operator = who[OPERATOR]
        operator.gets("create", "secrets", "kube-system")
        for resource in OPTIONAL.values():
            path = resource.path(tenant)
            wait_until(lambda path=path: admin.ask("GET", path).status == 200, f"{resource.name} are served")
        yield Intruder(operator, tenant)
        for definition in definitions:
            admin.do("DELETE", definition)
        admin.do("DELETE", CLUSTER_ROLE_BINDING.path(name="operator-has-every-right"))
        wait_until(
            lambda: not operator.may("create", "secrets", "kube-system"), "the operator has its own rights again"
        )
        for definition in definitions:
            wait_until(lambda path=definition: admin.ask("GET", path).status == 404, f"{definition} is gone")


def making_pods(
    kind: str, container: Json | None = None, security: Json | None = None, first: Json | None = None, **spec: Any
) -> Json:
    """Return a Deployment or a Job of the operator's, whose pods and their first container are as usual but for this.

    `security` and `container` are in the security context of the pod and of that container, `first` in the container.
    """
    template = pod_template({"a": "b"})
    template["spec"] |= spec
    template["spec"]["securityContext"] |= security or {}
    template["spec"]["containers"][0] |= first or {}
    template["spec"]["containers"][0]["securityContext"] |= container or {}
    if kind == "Job":
        template["spec"]["restartPolicy"] = "Never"
        return manifest(JOB, "r1plus-x", labels=CHILD, spec={"template": template})
    return deployment("credit-0123456789", {"a": "b"}, CHILD) | {
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    }


UNLOCKED = {"name": "i", "image": "registry.local/c:1"}
STAYS = UNLOCKED | {
    "restartPolicy": "Always",
    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
}
ENGINE = {"name": "v", "persistentVolumeClaim": {"claimName": "r1plus-engine-0123456789abcdef"}}


def projecting(source: Json) -> Json:
    """Return a pod's volume that has this source."""
    return {"volumes": [{"name": "w", "projected": {"sources": [source]}}]}


CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
BEYOND: dict[str, tuple[Json, str]] = {
    "a capability": ({"container": {"capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}}}, "add none"),
    "the usual capabilities": ({"container": {"capabilities": None}}, "drop all"),
    "more privileges": ({"container": {"allowPrivilegeEscalation": True}}, "allowPrivilegeEscalation false"),
    "more privileges by default": ({"container": {"allowPrivilegeEscalation": None}}, "allowPrivilegeEscalation false"),
    "an unmasked /proc": ({"container": {"procMount": "Unmasked"}, "hostUsers": False}, "procMount"),
    "an init container with all of these": ({"initContainers": [UNLOCKED]}, "allowPrivilegeEscalation false"),
    "every system call": ({"security": {"seccompProfile": {"type": "Unconfined"}}}, "seccompProfile RuntimeDefault"),
    "every system call, since none is said": ({"security": {"seccompProfile": None}}, "seccompProfile RuntimeDefault"),
    "every system call for a container": ({"container": {"seccompProfile": {"type": "Unconfined"}}}, "another profile"),
    "no AppArmor": ({"container": {"appArmorProfile": {"type": "Unconfined"}}}, "another profile"),
    "root": ({"security": {"runAsUser": 0, "runAsNonRoot": False}}, "runAsNonRoot true"),
    "root in a container": ({"container": {"runAsUser": 0, "runAsNonRoot": False}}, "user 0"),
    "another SELinux type": ({"container": {"seLinuxOptions": {"type": "spc_t"}}}, "SELinux"),
    "sysctls": ({"security": {"sysctls": [{"name": "net.ipv4.ip_forward", "value": "1"}]}}, "sysctls"),
    "a node by name": ({"nodeName": "control-plane-1"}, "nodeName"),
    "every taint": ({"tolerations": [{"operator": "Exists"}]}, "every taint"),
    "the control plane's taint": ({"tolerations": [{"key": CONTROL_PLANE, "operator": "Exists"}]}, "control plane's"),
    "what pushes others off a node": ({"priorityClassName": "system-node-critical"}, "priorityClassName"),
    "a class of the platform's": ({"priorityClassName": "urgent"}, "priorityClassName"),
    "another account": ({"serviceAccountName": "payments"}, "serviceAccountName"),
    "another account by its old field": ({"serviceAccount": "payments"}, "serviceAccountName"),
    "the registry's reader": ({"serviceAccountName": names.REGISTRY_READER}, "serviceAccountName"),
    **{
        f"a node that asks another host: {handler}, {of}": ({"first": {of: handlers}}, "of their own pod only")
        for handler, action in {
            "by HTTP": {"httpGet": {"host": "169.254.169.254", "port": 80, "path": "/latest/meta-data"}},
            "by HTTP with a header": {"httpGet": {"port": 80, "httpHeaders": [{"name": "Host", "value": "x"}]}},
            "by TCP": {"tcpSocket": {"host": "10.0.0.1", "port": 22}},
        }.items()
        for of, handlers in {
            **dict.fromkeys(("startupProbe", "livenessProbe", "readinessProbe"), action),
            "lifecycle": {"preStop": action},
        }.items()
        if of != "lifecycle" or handler != "by TCP"
    },
    "an init container that stays and asks another host": (
        {"initContainers": [STAYS | {"startupProbe": {"httpGet": {"host": "10.0.0.1", "port": 80}}}]},
        "of their own pod only",
    ),
    "a hook at the start that asks another host": (
        {"first": {"lifecycle": {"postStart": {"httpGet": {"host": "10.0.0.1", "port": 80}}}}},
        "of their own pod only",
    ),
    "a probe by gRPC": ({"first": {"livenessProbe": {"grpc": {"port": 8001}}}}, "of their own pod only"),
    "the pod's own fields as files": (
        projecting({"downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}}),
        "projected from",
    ),
    "a Secret among others": (projecting({"secret": {"name": "s"}}), "no Secret"),
    "another object's data in the environment": (
        {"first": {"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}]}},
        "values and fieldRef only",
    ),
    "another object in the environment": (
        {"first": {"envFrom": [{"configMapRef": {"name": "c"}}]}},
        "values and fieldRef only",
    ),
    "a runtime of its own": ({"runtimeClassName": "unconfined"}, "no other field"),
    "names that lead elsewhere": ({"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a"]}]}, "no other field"),
    "processes that see each other": ({"shareProcessNamespace": True}, "no other field"),
    "a device by a claim": (
        {"resourceClaims": [{"name": "d", "resourceClaimTemplateName": "t"}]},
        "no other field",
    ),
    "a disk as it is": (
        {"volumes": [ENGINE], "first": {"volumeDevices": [{"name": "v", "devicePath": "/dev/x"}]}},
        "no other field",
    ),
}


@pytest.mark.parametrize("kind", ["Deployment", "Job"])
@pytest.mark.parametrize(("template", "said"), BEYOND.values(), ids=BEYOND)
def test_finding_a_pods_of_the_operators_stay_restricted(
    intruder: Intruder, kind: str, template: Json, said: str
) -> None:
    assert_held(intruder.make(making_pods(kind, **template)), TEMPLATES, said)


ALLOWED: dict[str, Json] = {
    "nothing more": {},
    "its own account": {"serviceAccountName": "credit"},
    "the prober's account": {"serviceAccountName": names.PROBER},
    "a taint by name": {"tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}]},
    "no user": {"security": {"runAsUser": None}},
    "another user": {"container": {"runAsUser": 1_000_680_000}},
    "probes and a hook of its own": {
        "first": {
            "startupProbe": {
                "httpGet": {"path": "/v2/health/live", "port": 8000, "scheme": "HTTP"},
                "periodSeconds": 2,
            },
            "livenessProbe": {"tcpSocket": {"port": 8001}, "timeoutSeconds": 5, "failureThreshold": 6},
            "readinessProbe": {"exec": {"command": ["true"]}, "initialDelaySeconds": 1},
            "lifecycle": {"preStop": {"exec": {"command": ["/bin/sleep", "5"]}}},
        }
    },
    "a ConfigMap among projected files": projecting({"configMap": {"name": "kube-root-ca.crt"}}),
    "a field in the environment": {
        "first": {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}]}
    },
}


@pytest.mark.parametrize("kind", ["Deployment", "Job"])
@pytest.mark.parametrize("template", ALLOWED.values(), ids=ALLOWED)
def test_finding_a_pods_of_the_operators_are_made_as_before(intruder: Intruder, kind: str, template: Json) -> None:
    answer = intruder.make(making_pods(kind, **template))
    assert answer.status == 201, answer


def test_finding_a_what_was_stored_before_is_scaled(intruder: Intruder, admin: Person) -> None:
    binding = POLICY_BINDING.path(name="r1plus-operator-operator-templates")
    old = making_pods("Deployment", tolerations=[{"operator": "Exists"}])
    admin.do("PATCH", binding, {"spec": {"validationActions": ["Audit"]}})
    wait_until(lambda: intruder.make(old).status == 201, "the policy refuses nothing")
    intruder.operator.do("POST", DEPLOYMENT.path(intruder.tenant), old)
    admin.do("PATCH", binding, {"spec": {"validationActions": ["Deny"]}})
    wait_until(lambda: intruder.make(making_pods("Deployment", nodeName="n")).refused, "the policy refuses again")
    path = DEPLOYMENT.path(intruder.tenant, "credit-0123456789")
    assert intruder.operator.ask("PATCH", path, {"spec": {"replicas": 3}}).status == 200
    to_a_node = {"spec": {"template": {"spec": {"nodeName": "n"}}}}
    assert_held(intruder.operator.ask("PATCH", path, to_a_node), TEMPLATES, "nodeName")


@pytest.fixture
def mallory(intruder: Intruder, admin: Person, installed_server: ApiServer) -> Iterator[Person]:
    """Who may do everything with the optional kinds of children in the tenant."""
    role = manifest(ROLE, "monitoring", rules=[{"apiGroups": [POD_MONITOR.group], "resources": ["*"], "verbs": ["*"]}])
    admin.ask("POST", ROLE.path(intruder.tenant), role, dry=False)
    given = role_binding(intruder.tenant, "monitoring", "monitoring", user("mallory"), kind="Role")
    admin.ask("POST", ROLE_BINDING.path(intruder.tenant), given, dry=False)
    with people(installed_server, "mallory") as who:
        who["mallory"].gets("deletecollection", POD_MONITOR.plural, intruder.tenant, POD_MONITOR.group)
        yield who["mallory"]


@pytest.fixture(params=OPTIONAL)
def child(request: pytest.FixtureRequest, intruder: Intruder) -> Iterator[Resource]:
    """Of which kind the tenant has a child `credit`."""
    resource = OPTIONAL[request.param]
    body = monitor() if resource is POD_MONITOR else manifest(resource, "credit", labels=CHILD, spec={"groups": []})
    body["metadata"].pop("ownerReferences", None)  # It names no object that there is: garbage collection would take it.
    intruder.operator.do("POST", resource.path(intruder.tenant), body)
    yield resource
    intruder.operator.do("DELETE", resource.path(intruder.tenant, "credit"))


def test_finding_01_optional_kinds_of_children_are_kept_like_the_others(
    intruder: Intruder, mallory: Person, child: Resource
) -> None:
    path, collection = child.path(intruder.tenant, "credit"), child.path(intruder.tenant)
    assert_held(mallory.ask("DELETE", path), "kept", "belongs to the operator")
    assert_held(mallory.ask("DELETE", collection), "kept", "belongs to the operator")
    assert_held(mallory.ask("PATCH", path, {"spec": {"groups": [{"name": "x"}]}}), "children", "spec: belongs")
    orphan = {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": "1"}]}}
    assert_held(mallory.ask("PATCH", path, orphan), "children", "changes its owner")
    own = manifest(child, "mallorys-own", spec={})
    assert mallory.ask("POST", collection, own).status == 201


ROLE_ARN = {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/payments"}


def test_finding_a_no_account_of_the_operators_has_rights_in_a_cloud(intruder: Intruder, admin: Person) -> None:
    def account(name: str, **annotations: str) -> Json:
        made = manifest(SERVICE_ACCOUNT, name, labels=CHILD)
        made["metadata"]["annotations"] = annotations
        return made

    said = "only those under r1plus.ai/ on an account"
    assert_held(intruder.make(account("credit", **ROLE_ARN)), REACH, said)
    intruder.operator.do("POST", SERVICE_ACCOUNT.path(intruder.tenant), account("credit", **{"r1plus.ai/note": "a"}))
    path = SERVICE_ACCOUNT.path(intruder.tenant, "credit")
    assert_held(intruder.operator.ask("PATCH", path, {"metadata": {"annotations": ROLE_ARN}}), REACH, said)
    admin.do("PATCH", path, {"metadata": {"annotations": {"platform/role": "reader"}}})
    for value in ("writer", None):
        change = {"metadata": {"annotations": {"platform/role": value}}}
        assert_held(intruder.operator.ask("PATCH", path, change), REACH, said)
    assert intruder.operator.ask("PATCH", path, {"metadata": {"annotations": {"r1plus.ai/note": "b"}}}).status == 200


def monitor(**endpoint: Any) -> Json:
    """Return the PodMonitor that the operator makes, with these fields in its first endpoint."""
    owner = ChildOwner({"metadata": {"name": "credit", "namespace": "", "uid": "1"}})
    made = build_pod_monitor(owner, CONFIGURED)
    del made["metadata"]["namespace"]
    made["spec"]["podMetricsEndpoints"][0] |= endpoint
    return made


ELSEWHERE: dict[str, Json] = {
    "an address": {"targetLabel": "__address__", "replacement": "169.254.169.254:80"},
    "a path": {"targetLabel": "__metrics_path__", "replacement": "/latest/meta-data"},
    "a label that another one names": {"sourceLabels": ["a"], "targetLabel": "${1}", "replacement": "x:80"},
    "labels that others name": {"action": "labelmap", "regex": "a_(.+)", "replacement": "$1"},
    "labels that others name, in capitals": {"action": "LabelMap", "regex": "a_(.+)", "replacement": "$1"},
}


@pytest.mark.parametrize("rule", ELSEWHERE.values(), ids=ELSEWHERE)
def test_finding_a_no_monitor_of_the_operators_leads_prometheus_elsewhere(intruder: Intruder, rule: Json) -> None:
    rules = [*monitor()["spec"]["podMetricsEndpoints"][0]["relabelings"], rule]
    assert_held(intruder.make(monitor(relabelings=rules)), REACH, "plain labels only")
    answer = intruder.make(monitor())
    assert answer.status == 201, answer


def test_finding_a_no_monitor_of_the_operators_takes_a_scrape_class(intruder: Intruder) -> None:
    made = monitor()
    made["spec"]["scrapeClass"] = "with-a-client-certificate"
    assert_held(intruder.make(made), REACH, "no scrapeClass")
    assert_held(intruder.make(monitor(proxyFromEnvironment=True)), REACH, "no proxy")


@pytest.mark.parametrize("followed", [True, None])
def test_finding_a_no_monitor_of_the_operators_follows_redirects(intruder: Intruder, followed: bool | None) -> None:
    assert_held(intruder.make(monitor(followRedirects=followed)), REACH, "followRedirects false")


REPLICA_SET = Resource("apps", "v1", "replicasets", "ReplicaSet")
BUDGET = kinds.BY_KIND["PodDisruptionBudget"]
NADIA = "nadia"


@dataclass(frozen=True, slots=True)
class Namespace:
    """A tenant, what runs in it, and nadia, whom Kubernetes' own `admin` lets do everything there."""

    nadia: Person
    name: str
    replica_set: str
    """Made by the deployment controller of a Deployment of the operator's."""


@pytest.fixture(scope="module")
def namespace(installed_server: ApiServer, admin: Person) -> Iterator[Namespace]:
    name, labels = f"n-{uuid.uuid4().hex[:10]}", {names.LABEL_DEPLOYMENT: "credit", names.LABEL_SERVING: "true"}
    admin.do("POST", kinds.NAMESPACE.path(), tenant_namespace(name))
    admin.do("POST", ROLE_BINDING.path(name), role_binding(name, "admins", "admin", user(NADIA)))
    made = deployment("credit-0123456789", labels, CHILD)
    until_pods_are_taken(admin, name)
    with people(installed_server, NADIA, OPERATOR) as who:
        who[NADIA].gets("delete", "replicasets", name, "apps")
        who[OPERATOR].do("POST", DEPLOYMENT.path(name), made)

        def find() -> str:
            items = json.loads(admin.ask("GET", REPLICA_SET.path(name)).text)["items"]
            return str(items[0]["metadata"]["name"]) if items else ""

        yield Namespace(who[NADIA], name, wait_until(find, "the deployment controller has made a ReplicaSet"))


STRIPPED: dict[str, Json] = {
    "its owner": {"metadata": {"ownerReferences": None}},
    "its label": {"metadata": {"labels": {names.LABEL_DEPLOYMENT: None}}},
    "the label that its Deployment gave it": {"metadata": {"labels": {"pod-template-hash": None}}},
    "its replicas": {"spec": {"replicas": 7}},
    "how it may be deleted": {"metadata": {"finalizers": ["nadia/keeps-it"]}},
    "a label of ours": {"metadata": {"labels": {names.LABEL_REVISION: "other"}}},
}


@pytest.mark.parametrize("body", STRIPPED.values(), ids=STRIPPED)
def test_finding_c_nobody_changes_a_replica_set_of_the_operators_deployment(
    namespace: Namespace, admin: Person, body: Json
) -> None:
    path = REPLICA_SET.path(namespace.name, namespace.replica_set)
    assert_held(namespace.nadia.ask("PATCH", path, body), "replica-sets", "edit the R1PlusDeployment")
    own = {"metadata": {"labels": {"team": "blue"}, "annotations": {"a": "b"}}}
    assert namespace.nadia.ask("PATCH", path, own).status == 200
    assert admin.ask("PATCH", path, body).status == 200


def test_finding_c_nobody_deletes_or_makes_a_replica_set_of_the_operators_deployment(
    namespace: Namespace, admin: Person
) -> None:
    everything = REPLICA_SET.path(namespace.name)
    path = REPLICA_SET.path(namespace.name, namespace.replica_set)
    for way in (path, f"{path}?propagationPolicy=Orphan", everything):
        assert_held(namespace.nadia.ask("DELETE", way), "replica-sets", "edit the R1PlusDeployment")
    assert admin.ask("DELETE", path).status == 200
    body = deployment("own", {"app": "own"}, {"app": "own"}) | {"kind": "ReplicaSet"}
    assert namespace.nadia.ask("POST", everything, body).status == 201
    body["metadata"]["labels"] = {names.LABEL_DEPLOYMENT: "credit"}
    assert_held(namespace.nadia.ask("POST", everything, body), "replica-sets", "edit the R1PlusDeployment")


def test_finding_c_kubernetes_scales_and_removes_replica_sets(installed_server: ApiServer, admin: Person) -> None:
    name, labels = f"k-{uuid.uuid4().hex[:10]}", {names.LABEL_DEPLOYMENT: "credit"}
    admin.do("POST", kinds.NAMESPACE.path(), tenant_namespace(name))
    where = DEPLOYMENT.path(name, "credit-0123456789")

    def replica_sets() -> list[Json]:
        return list(json.loads(admin.ask("GET", REPLICA_SET.path(name)).text)["items"])

    with people(installed_server, OPERATOR) as who:
        who[OPERATOR].do("POST", DEPLOYMENT.path(name), deployment("credit-0123456789", labels, CHILD))
        wait_until(replica_sets, "the deployment controller has made a ReplicaSet")
        who[OPERATOR].do("PATCH", where, {"spec": {"replicas": 2}})
        wait_until(lambda: replica_sets()[0]["spec"]["replicas"] == 2, "the deployment controller has scaled it")
        wait_until(lambda: replica_sets()[0]["status"].get("replicas") == 2, "the ReplicaSet controller has made pods")
        who[OPERATOR].do("DELETE", where)
        wait_until(lambda: not replica_sets(), "the garbage collector has deleted it")


def token_secret(account: str) -> Json:
    """Return a Secret that the token controller fills with a token of this account, which never ends."""
    made = manifest(SECRET, "token", type="kubernetes.io/service-account-token")
    made["metadata"]["annotations"] = {"kubernetes.io/service-account.name": account}
    return made


def test_finding_d_no_secret_holds_a_token_of_the_registrys_reader(namespace: Namespace, admin: Person) -> None:
    nadia, path = namespace.nadia, SECRET.path(namespace.name)
    for person in (nadia, admin):
        assert_held(person.ask("POST", path, token_secret(names.REGISTRY_READER)), "registry-tokens", "never ends")
    assert nadia.ask("POST", path, token_secret("default")).status == 201
    nadia.do("POST", path, token_secret("default"))
    theirs = {"metadata": {"annotations": {"kubernetes.io/service-account.name": names.REGISTRY_READER}}}
    assert_held(nadia.ask("PATCH", f"{path}/token", theirs), "registry-tokens", "never ends")
    assert admin.ask("POST", SECRET.path(OPERATOR_NAMESPACE), token_secret(names.REGISTRY_READER)).status == 201


def test_finding_d_no_pod_runs_as_the_registrys_reader(namespace: Namespace, admin: Person) -> None:
    admin.do("POST", SERVICE_ACCOUNT.path(namespace.name), manifest(SERVICE_ACCOUNT, names.REGISTRY_READER))
    path = kinds.POD.path(namespace.name)
    for field in ("serviceAccountName", "serviceAccount"):
        refused = namespace.nadia.ask("POST", path, pod("reads", **{field: names.REGISTRY_READER}))
        assert_held(refused, "registry-tokens", "no pod runs as r1plus-registry-reader")
    token = {"serviceAccountToken": {"audience": AUDIENCE, "path": "token"}}
    own = pod("reads", volumes=[{"name": "w", "projected": {"sources": [token]}}])
    assert namespace.nadia.ask("POST", path, own).status == 201


SELECTS_OURS: dict[str, Json] = {
    "every pod": {},
    "the deployment": {"matchLabels": {names.LABEL_DEPLOYMENT: "credit"}},
    "what serves": {"matchExpressions": [{"key": names.LABEL_SERVING, "operator": "Exists"}]},
    "what the operator has made": {"matchLabels": {names.LABEL_MANAGED_BY: names.MANAGED_BY}},
    "one of these names": {
        "matchExpressions": [{"key": names.LABEL_NAME, "operator": "In", "values": ["x", "r1plus-serving"]}]
    },
    "pods of Deployments": {"matchExpressions": [{"key": "pod-template-hash", "operator": "Exists"}]},
    "all but some": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["x"]}]},
    "all without a label": {"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]},
    "all but our volumes' pods": {"matchExpressions": [{"key": names.LABEL_VOLUME, "operator": "DoesNotExist"}]},
}
LEAVES_OUT_OURS: dict[str, Json] = {
    "an app": {"matchLabels": {"app": "postgres"}},
    "an app, as charts name it": {"matchLabels": {names.LABEL_NAME: "postgres"}},
    "what Helm has made": {"matchLabels": {names.LABEL_MANAGED_BY: "Helm"}},
    "apps": {"matchExpressions": [{"key": names.LABEL_NAME, "operator": "In", "values": ["postgres", "redis"]}]},
    "pods with a label": {"matchExpressions": [{"key": "tier", "operator": "Exists"}]},
    "all but ours": {
        "matchExpressions": [
            {"key": key, "operator": "DoesNotExist"}
            for key in (names.LABEL_DEPLOYMENT, names.LABEL_PROBE, names.LABEL_VOLUME, LABEL_GATEWAY)
        ]
    },
}


def budget(**spec: Any) -> Json:
    return manifest(BUDGET, "own", spec={"minAvailable": 1, **spec})


@pytest.mark.parametrize("selector", SELECTS_OURS.values(), ids=SELECTS_OURS)
def test_finding_e_no_second_budget_holds_up_drains(namespace: Namespace, admin: Person, selector: Json) -> None:
    path = BUDGET.path(namespace.name)
    assert_held(namespace.nadia.ask("POST", path, budget(selector=selector)), "budgets", "can select serving pods")
    assert admin.ask("POST", path, budget(selector=selector)).status == 201


@pytest.mark.parametrize("selector", LEAVES_OUT_OURS.values(), ids=LEAVES_OUT_OURS)
def test_finding_e_budgets_of_other_pods_are_anybodys(namespace: Namespace, selector: Json) -> None:
    answer = namespace.nadia.ask("POST", BUDGET.path(namespace.name), budget(selector=selector))
    assert answer.status == 201, answer


def test_finding_e_a_budget_is_judged_when_its_selector_changes(namespace: Namespace, admin: Person) -> None:
    nadia, path = namespace.nadia, BUDGET.path(namespace.name)
    assert nadia.ask("POST", path, budget()).status == 201
    admin.do("POST", path, budget(selector={}))
    own = f"{path}/own"
    assert nadia.ask("PATCH", own, {"metadata": {"labels": {"team": "blue"}}}).status == 200
    assert nadia.ask("PATCH", own, {"spec": {"minAvailable": 2}}).status == 200
    wider = {"spec": {"selector": {"matchLabels": {names.LABEL_DEPLOYMENT: "credit"}}}}
    assert_held(nadia.ask("PATCH", own, wider), "budgets", "can select serving pods")
    assert nadia.ask("DELETE", own).status == 200
