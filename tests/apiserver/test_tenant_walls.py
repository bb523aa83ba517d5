"""The walls of a tenant against its own people, up to one who may do all there is in his namespace but write R1PlusTenants.

Every refusal stands beside its control: the same request by who is allowed, or one that differs in what matters.
"""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from devcluster.apiserver_only import ApiServer
from r1plus_contract import names
from r1plus_contract.gateway import LABEL_GATEWAY
from r1plus_operator.api import kinds
from r1plus_operator.runtime.client import JSON_PATCH
from support.apiserver.admission_world import admission_world
from support.apiserver.manifests import (
    CHILD,
    RBAC,
    RESTRICTED,
    ROLE,
    ROLE_BINDING,
    Json,
    deployment,
    manifest,
    pod,
    pod_template,
    r1plus_tenant,
    role_binding,
    tenant_namespace,
    user,
)
from support.apiserver.people import APPLY, STRATEGIC, Answer, Person, people, until_pods_are_taken
from support.apiserver.rights import OPERATOR
from support.apiserver.walls import POLICY, REVISION, assert_held, filled, pod_of
from support.waiting import wait_until

pytestmark = [pytest.mark.apiserver, pytest.mark.first_run_counts]
NINA, OTTO, ANNA, PAULA, TESS = "nina", "otto", "anna", "paula", "tess"
"""Namespace admin (Kubernetes' own role); the same with every right but ours; tenant's admin; platform; writer of R1PlusTenants."""
OURS = (names.LABEL_DEPLOYMENT, names.LABEL_PROBE, names.LABEL_VOLUME, LABEL_GATEWAY)
NETWORK_POLICY = kinds.BY_KIND["NetworkPolicy"]
NETWORK, APPS, R1PLUS = "networking.k8s.io/v1", "apps/v1", names.API_VERSION


def own(*keys: str) -> Json:
    """Selects pods that bear none of these labels."""
    return {"matchExpressions": [{"key": key, "operator": "DoesNotExist"} for key in keys]}


def network_policy(name: str, selector: Json, labels: Json | None = None, **rules: Any) -> Json:
    """A NetworkPolicy."""
    spec = {"podSelector": selector, "policyTypes": ["Ingress", "Egress"], **rules}
    return manifest(NETWORK_POLICY, name, labels=labels, spec=spec)


@dataclass(frozen=True, slots=True)
class World:
    """A tenant as the operator makes it, with a serving pod, and its people."""

    namespace: str
    who: dict[str, Person]
    pod: str
    """Of the operator's Deployment."""
    plain: str
    """Of nina's own."""

    def path(self, resource: str, group: str = "") -> str:
        """Of a kind in this namespace; `group` with its version."""
        return f"/{f'apis/{group}' if group else 'api/v1'}/namespaces/{self.namespace}/{resource}"


SERVES = {names.LABEL_DEPLOYMENT: "credit", names.LABEL_REVISION: REVISION, names.LABEL_SERVING: "true"}
LIMIT = {"type": "Container", "defaultRequest": {"cpu": "100m"}}
GIVEN = (
    network_policy("r1plus-default-deny", {}, POLICY),
    manifest(kinds.BY_KIND["ResourceQuota"], "r1plus-tenant", labels=POLICY, spec={"hard": {"pods": "20"}}),
    manifest(kinds.BY_KIND["LimitRange"], "r1plus-tenant", labels=POLICY, spec={"limits": [LIMIT]}),
    manifest(kinds.BY_KIND["ServiceAccount"], names.PROBER, labels=POLICY),
    deployment(REVISION, SERVES, CHILD),
)
"""What the operator has made there, beside who administers."""


@pytest.fixture(scope="module")
def world(installed_server: ApiServer, admin: Person) -> Iterator[World]:
    namespace = f"t-{uuid.uuid4().hex[:10]}"
    with people(installed_server, NINA, OTTO, ANNA, PAULA, TESS, OPERATOR) as who:
        admin.do("POST", kinds.NAMESPACE.path(), tenant_namespace(namespace))
        bind(admin, who, namespace)
        made = World(namespace, who, "", "")
        tenant = r1plus_tenant()
        tenant["metadata"]["finalizers"] = [names.FINALIZER_TENANT]
        tenant["spec"] |= {"placement": PLACEMENT}
        who[PAULA].do("POST", made.path("r1plustenants", R1PLUS), tenant)
        rights = role_binding("", "r1plus-tenant-admins", names.ROLE_TENANT_ADMIN, user(ANNA))
        rights["metadata"]["labels"] = POLICY
        for body in (*GIVEN, rights):
            give(who[OPERATOR], namespace, body)
        who[ANNA].gets("create", "r1plusdeployments", namespace, "r1plus.ai")
        who[NINA].do("POST", made.path("deployments", APPS), deployment("own", {"app": "own"}))
        who[NINA].do("POST", made.path("networkpolicies", NETWORK), network_policy("own", own(*OURS), ingress=[{}]))
        who[PAULA].do("POST", made.path("services"), service("10.20.0.5", name="front"))
        plain, serving = (pod_of(admin, namespace, selector) for selector in ("app=own", f"{names.LABEL_SERVING}=true"))
        yield World(namespace, who, serving, plain)


def give(operator: Person, namespace: str, body: Json) -> None:
    """The operator applies it."""
    path = kinds.BY_KIND[body["kind"]].path(namespace, body["metadata"]["name"])
    operator.do("PATCH", f"{path}?fieldManager={names.FIELD_MANAGER}", body, kind=APPLY)


def bind(admin: Person, who: dict[str, Person], namespace: str) -> None:
    """Everybody's rights but anna's, which the operator gives."""
    everything = ("", "apps", "batch", "networking.k8s.io", "policy", RBAC)
    rules = {
        OTTO: [{"apiGroups": list(everything), "resources": ["*"], "verbs": ["*"]}],
        TESS: [{"apiGroups": ["r1plus.ai"], "resources": ["r1plustenants", "r1plustenants/status"], "verbs": ["*"]}],
    }
    bindings = ROLE_BINDING.path(namespace)
    for name, granted in rules.items():
        admin.do("POST", ROLE.path(namespace), manifest(ROLE, name, rules=granted))
        admin.do("POST", bindings, role_binding(namespace, name, name, user(name), kind="Role"))
    admin.do("POST", bindings, role_binding(namespace, NINA, "admin", user(NINA)))
    admin.do("POST", bindings, role_binding(namespace, PAULA, "cluster-admin", user(PAULA)))
    who[NINA].gets("create", "deployments", namespace, "apps")
    who[OTTO].gets("delete", "resourcequotas", namespace)
    who[TESS].gets("update", "r1plustenants", namespace, "r1plus.ai", "status")
    who[PAULA].gets("delete", "r1plustenants", namespace, "r1plus.ai")


def test_everybody_is_who_the_test_says_and_rbac_lets_them(world: World) -> None:
    assert {name: one.who() for name, one in world.who.items()} == {name: name for name in world.who}
    ns, who = world.namespace, world.who
    assert all(
        who[name].may(verb, "networkpolicies", ns, "networking.k8s.io")
        for name in (NINA, OTTO)
        for verb in ("create", "delete")
    )
    assert all(who[NINA].may("create", "pods", ns, subresource=sub) for sub in ("exec", "attach"))
    assert all(who[OTTO].may("update", "pods", ns, subresource=sub) for sub in ("ephemeralcontainers", "resize"))
    assert all(who[OTTO].may("update", "namespaces", ns, subresource=sub) for sub in ("", "status", "finalize"))
    assert all(who[OTTO].may("delete", resource, ns) for resource in ("resourcequotas", "limitranges"))
    assert who[TESS].may("update", "r1plustenants", ns, "r1plus.ai", "status")
    refused = [one for one in (NINA, OTTO, ANNA) if who[one].may("update", "r1plustenants", ns, "r1plus.ai")]
    assert refused == [], "nobody but the platform team writes R1PlusTenants, or the policies ask the wrong question"


@dataclass(frozen=True, slots=True)
class Try:
    """One request. In `path` and `body` {ns}, {pod} and {plain} stand for the world's; `group` is of the path's kind."""

    who: str
    method: str
    path: str
    body: Json | list[Json] | None = None
    group: str = ""
    kind: str = ""

    def ask(self, world: World) -> Answer:
        """Ask it."""
        words = {"ns": world.namespace, "pod": world.pod, "plain": world.plain}
        path, body = filled(self.path, words), filled(self.body, words)
        where = path if path.startswith("/") else world.path(path, self.group)
        return world.who[self.who].ask(self.method, where, body, kind=self.kind)


def post(who: str, body: Json) -> Try:
    """Make a NetworkPolicy."""
    return Try(who, "POST", "networkpolicies", body, NETWORK)


def on_policy(who: str, method: str, body: Json | None = None, name: str = "r1plus-default-deny") -> Try:
    """To a NetworkPolicy that is there."""
    return Try(who, method, f"networkpolicies/{name}", body, NETWORK)


def on_binding(who: str, method: str, body: Json | None = None) -> Try:
    """To the RoleBinding that makes anna the tenant's admin."""
    return Try(who, method, "rolebindings/r1plus-tenant-admins", body, f"{RBAC}/v1")


def on_tenant(who: str, body: Json, sub: str = "") -> Try:
    """To the R1PlusTenant."""
    return Try(who, "PATCH", f"r1plustenants/tenant{sub}", body, R1PLUS)


def on_namespace(who: str, method: str, body: Json, sub: str = "") -> Try:
    """To the namespace itself."""
    return Try(who, method, "/api/v1/namespaces/{ns}" + sub, body)


def debug(pod: str, user: int = 1000) -> Try:
    """`kubectl debug`."""
    security = pod_template({})["spec"]["containers"][0]["securityContext"] | {"runAsNonRoot": True, "runAsUser": user}
    added = {"name": "debug", "image": "registry.local/c:1", "securityContext": security}
    return Try(OTTO, "PATCH", f"pods/{pod}/ephemeralcontainers", {"spec": {"ephemeralContainers": [added]}}, kind=STRATEGIC)  # fmt: skip


def resize(pod: str) -> Try:
    """More memory for a pod in place."""
    body = {"spec": {"containers": [{"name": "c", "resources": {"limits": {"memory": "1Gi"}}}]}}
    return Try(OTTO, "PATCH", f"pods/{pod}/resize", body, kind=STRATEGIC)


def pushing(priority: str) -> Json:
    """A pod of that PriorityClass."""
    return pod("pushes", **({"priorityClassName": priority} if priority else {}))


def running_as(user: int | None, container: int | None = None, **fields: Any) -> Json:
    """A pod of these users."""
    made = pod("p", **fields)
    made["spec"]["securityContext"]["runAsUser"] = user
    made["spec"]["containers"][0]["securityContext"]["runAsUser"] = container
    return made


def pod_with(**fields: Any) -> Json:
    """A pod with these fields of its spec."""
    return pod("p", **fields)


def add_toleration(operator: str, key: str) -> Try:
    """One more toleration for a pod that runs."""
    more = [{"op": "add", "path": "/spec/tolerations/-", "value": {"key": key, "operator": operator}}]
    return Try(NINA, "PATCH", "pods/{plain}", more, kind=JSON_PATCH)


def ports(count: int) -> list[Json]:
    """That many ports."""
    return [{"protocol": "TCP", "port": 8000 + number} for number in range(count)]


def networks(count: int, excepted: int) -> list[Json]:
    """That many networks, the first without that many of its parts."""
    made: list[Json] = [{"ipBlock": {"cidr": f"10.{number}.0.0/16"}} for number in range(count)]
    made[0]["ipBlock"]["except"] = [f"10.0.{number}.0/24" for number in range(excepted)]
    return made


def service(*addresses: str, name: str = "takes", many: int = 1) -> Json:
    """A Service with external addresses."""
    named = [{"name": f"p{number}", "port": 443 + number} for number in range(many)]
    spec = {"selector": {"app": "own"}, "ports": named, "externalIPs": list(addresses)}
    return manifest(kinds.BY_KIND["Service"], name, spec=spec)


def labelled(**labels: Any) -> Json:
    """A patch of labels."""
    return {"metadata": {"labels": {key.replace("__", "/").replace("_", "-"): value for key, value in labels.items()}}}


OPEN: Json = {"ingress": [{}]}
BOTH: list[Json] = [{"ipBlock": {"cidr": "10.0.0.0/8"}}, {"podSelector": {}}]
PLACEMENT: Json = {"tolerations": [{"key": "dedicated", "value": "own"}]}
OUT: Json = {"egress": [{"to": [{"ipBlock": {"cidr": "169.254.169.254/32"}}]}]}
TENANT_LABEL, PSA_LABEL = {names.LABEL_TENANT: None}, {names.LABEL_POD_SECURITY: "privileged"}
FINALIZED: Json = {"apiVersion": "v1", "kind": "Namespace", "spec": {"finalizers": ["kubernetes"]}}
BASE = role_binding("", "more", f"{names.ROLE_TENANT_ADMIN}-base", user("mallory"))
GIVES = role_binding("", "more", names.ROLE_TENANT_ADMIN, user("mallory"))
HELD: dict[str, tuple[Try, str, str, Try]] = {
    "a wall that opens every pod": (
        post(NINA, network_policy("more", {}, **OPEN)), "walls", "spec.podSelector: more",
        post(NINA, network_policy("more", own(*OURS), **OPEN)),
    ),
    "a wall that opens pods by a label of one's own, which ours might bear as well": (
        post(NINA, network_policy("more", {"matchLabels": {"app": "own"}}, **OPEN)), "walls", "DoesNotExist",
        post(NINA, network_policy("more", own(*OURS) | {"matchLabels": {"app": "own"}}, **OPEN)),
    ),
    "a wall that leaves the prober out of what it leaves out": (
        post(NINA, network_policy("more", own(OURS[0], OURS[2]), **OPEN)), "walls", "spec.podSelector",
        post(NINA, network_policy("more", {})),
    ),
    "a wall that lets the tenant's own pods out": (
        post(NINA, network_policy("more", own(*OURS), **OUT)), "walls", "spec.egress of R1PlusTenant",
        post(PAULA, network_policy("more", own(*OURS), **OUT)),
    ),
    "a wall of the platform team's that opens what serves": (
        post(PAULA, network_policy("more", {}, **OPEN)), "walls", "spec.access",
        post(OPERATOR, network_policy("r1plus-more", {}, POLICY, **OPEN)),
    ),
    "a wall of one's own that is opened afterwards": (
        on_policy(NINA, "PATCH", {"spec": {"podSelector": {"matchExpressions": None}}}, "own"), "walls", "spec.podSelector: own",
        on_policy(NINA, "PATCH", {"metadata": {"labels": {"team": "blue"}}}, "own"),
    ),
    "the default deny deleted": (
        on_policy(NINA, "DELETE"), "kept", "r1plus-default-deny belongs to the operator", on_policy(PAULA, "DELETE"),
    ),
    "the default deny deleted by who may do nearly everything": (
        on_policy(OTTO, "DELETE"), "kept", "who may delete r1plustenants", on_policy(OTTO, "DELETE", name="own"),
    ),
    "all walls deleted at once": (
        Try(NINA, "DELETE", "networkpolicies", None, NETWORK), "kept", "belongs to the operator",
        Try(PAULA, "DELETE", "networkpolicies", None, NETWORK),
    ),
    "the quota deleted": (
        Try(OTTO, "DELETE", "resourcequotas/r1plus-tenant"), "kept", "R1PlusTenant", Try(PAULA, "DELETE", "resourcequotas/r1plus-tenant"),
    ),
    "the limits deleted": (
        Try(OTTO, "DELETE", "limitranges/r1plus-tenant"), "kept", "R1PlusTenant", Try(PAULA, "DELETE", "limitranges/r1plus-tenant"),
    ),
    "whom the prober asks as deleted, to be made by another": (
        Try(OTTO, "DELETE", f"serviceaccounts/{names.PROBER}"), "kept", "r1plus-prober", Try(PAULA, "DELETE", f"serviceaccounts/{names.PROBER}"),
    ),
    "who administers deleted": (on_binding(NINA, "DELETE"), "kept", "r1plus-tenant-admins", on_binding(PAULA, "DELETE")),
    "who administers changed": (
        on_binding(OTTO, "PATCH", {"subjects": [user(OTTO)]}), "children", "belongs to the operator",
        on_binding(OTTO, "PATCH", {"metadata": {"labels": {"team": "blue"}}}),
    ),
    "a wider quota": (
        Try(OTTO, "PATCH", "resourcequotas/r1plus-tenant", {"spec": {"hard": {"pods": "9999"}}}), "children", "belongs to the operator",
        Try(OTTO, "PATCH", "resourcequotas/r1plus-tenant", labelled(team="blue")),
    ),
    "other limits": (
        Try(OTTO, "PATCH", "limitranges/r1plus-tenant", {"spec": {"limits": []}}), "children", "belongs to the operator",
        Try(OTTO, "PATCH", "limitranges/r1plus-tenant", labelled(team="blue")),
    ),
    "a finalizer that would hold a wall": (
        on_policy(NINA, "PATCH", {"metadata": {"finalizers": ["example.com/hold"]}}), "children", "metadata.finalizers",
        on_policy(NINA, "PATCH", {"metadata": {"finalizers": ["example.com/hold"]}}, "own"),
    ),
    "an owner that would take a wall along": (
        on_policy(NINA, "PATCH", {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "1"}]}}), "children", "its owner",
        on_policy(NINA, "PATCH", {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "1"}]}}, "own"),
    ),
    "the mark of the tenant's walls on one of one's own": (
        post(NINA, network_policy("more", {}, {names.LABEL_ISOLATION: "tenant"})), "marks", "metadata.labels[r1plus.ai/walls]",
        post(NINA, network_policy("more", {}, {"team": "blue"})),
    ),
    "the mark put on afterwards": (
        on_policy(NINA, "PATCH", {"metadata": {"labels": {names.LABEL_ISOLATION: "tenant"}}}, "own"), "marks", "only the operator sets this label",
        on_policy(NINA, "PATCH", {"metadata": {"labels": {"team": "blue"}}}, "own"),
    ),
    "the tenant's role given by who may bind every role": (
        Try(OTTO, "POST", "rolebindings", GIVES, f"{RBAC}/v1"), "access", "spec.admins and spec.viewers of R1PlusTenant",
        Try(PAULA, "POST", "rolebindings", GIVES, f"{RBAC}/v1"),
    ),
    "what the tenant's role is made of, given likewise": (
        Try(OTTO, "POST", "rolebindings", BASE, f"{RBAC}/v1"), "access", "is granted by the platform team only",
        Try(PAULA, "POST", "rolebindings", BASE, f"{RBAC}/v1"),
    ),
    "an address that others send to": (
        Try(NINA, "POST", "services", service("10.20.0.5")), "addresses", "spec.externalIPs: takes",
        Try(NINA, "POST", "services", service()),
    ),
    "such an address of the platform team's": (
        Try(NINA, "PATCH", "services/front", {"spec": {"externalIPs": ["10.20.0.5", "10.20.0.6"]}}), "addresses", "only the platform team",
        Try(NINA, "PATCH", "services/front", {"spec": {"externalIPs": ["10.20.0.5"], "sessionAffinity": "ClientIP"}}),
    ),
    "a shell in a serving pod": (
        Try(NINA, "POST", "pods/{pod}/exec?command=sh&container=triton"), "exec", "has the name of an operator's pod",
        Try(NINA, "POST", "pods/{plain}/exec?command=sh&container=c"),
    ),
    "a shell in a serving pod, by a websocket": (
        Try(NINA, "GET", "pods/{pod}/exec?command=sh"), "exec", "give a pod of your own another name",
        Try(NINA, "GET", "pods/{plain}/exec?command=sh"),
    ),
    "a hand on a serving pod's first process": (
        Try(NINA, "POST", "pods/{pod}/attach?container=monitor"), "exec", "it is audited",
        Try(PAULA, "POST", "pods/{pod}/attach?container=monitor"),
    ),
    "a shell in the prober": (
        Try(NINA, "POST", "pods/r1plus-prober-ask-0123456789-abcde/exec?command=sh"), "exec", "enters a scored pod",
        Try(PAULA, "POST", "pods/r1plus-prober-ask-0123456789-abcde/exec?command=sh"),
    ),
    "a container added to a serving pod": (debug("{pod}"), "serving-pods", "nobody changes its images or adds containers", debug("{plain}")),
    "more memory for a serving pod": (resize("{pod}"), "serving-pods", "must be what was scored", resize("{plain}")),
    "a pod that pushes other tenants' off a full node": (
        Try(NINA, "POST", "pods", pushing("system-cluster-critical")), "priority", "critical cluster services",
        Try(NINA, "POST", "pods", pushing("")),
    ),
    "a pod of the operator's user, whose limits on a node it could use up": (
        Try(NINA, "POST", "pods", running_as(1100)), "users", "1097 to 1100 are the operator's",
        Try(NINA, "POST", "pods", running_as(1101)),
    ),
    "a container of the operator's user": (
        Try(NINA, "POST", "pods", running_as(1000, container=1098)), "users", "hostUsers: false",
        Try(NINA, "POST", "pods", running_as(1000, container=1096)),
    ),
    "the operator's user by a container that is added": (
        debug("{plain}", 1100), "users", "spec.securityContext.runAsUser", debug("{plain}", 1000),
    ),
    "a pod on a node by its name, past every taint": (
        Try(NINA, "POST", "pods", pod_with(nodeName="control-plane-1")), "nodes", "spec.nodeName",
        Try(NINA, "POST", "pods", pod_with(nodeSelector={"kubernetes.io/hostname": "worker-1"})),
    ),
    "a pod that tolerates every taint": (
        Try(NINA, "POST", "pods", pod_with(tolerations=[{"operator": "Exists"}])), "nodes", "tolerates all taints",
        Try(NINA, "POST", "pods", pod_with(tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists"}])),
    ),
    "a taint that a pod of one's own tolerates afterwards": (
        add_toleration("Exists", ""), "nodes", "tolerates all taints", add_toleration("Exists", "nvidia.com/gpu"),
    ),
    "a pod on the control plane's nodes": (
        Try(PAULA, "POST", "pods", pod_with(tolerations=[{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}])), "nodes", "run no pod of a tenant",
        Try(PAULA, "POST", "pods", pod_with(tolerations=[{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 9}])),
    ),
    "a pod on another tenant's nodes": (
        Try(NINA, "POST", "pods", pod_with(tolerations=[{"key": "dedicated", "value": "rival"}])), "tenant-nodes", "ask the platform team to list them",
        Try(NINA, "POST", "pods", pod_with(tolerations=[{"key": "dedicated", "value": "own"}])),
    ),
    "a wall of so many rules that others' new pods wait for theirs": (
        post(NINA, network_policy("more", own(*OURS), ingress=[{"ports": ports(17)}])), "walls", "makes 17 rules",
        post(NINA, network_policy("more", own(*OURS), ingress=[{"ports": ports(16)}])),
    ),
    "a wall of few ports for two sorts of peers": (
        post(NINA, network_policy("more", own(*OURS), ingress=[{"ports": ports(9), "from": BOTH}])), "walls", "makes 18 rules",
        post(NINA, network_policy("more", own(*OURS), ingress=[{"ports": ports(9), "from": BOTH[:1]}])),
    ),
    "a wall of so many networks that others' new pods wait for theirs": (
        post(NINA, network_policy("more", own(*OURS), ingress=[{"from": networks(60, 5)}])), "walls", "names 65 peers",
        post(NINA, network_policy("more", own(*OURS), ingress=[{"from": networks(60, 4)}])),
    ),
    "a Service of so many ports that others' wait": (
        Try(NINA, "POST", "services", service(many=17)), "addresses", "has 17 ports",
        Try(NINA, "POST", "services", service(many=16)),
    ),
    "no replicas": (
        Try(NINA, "PATCH", f"deployments/{REVISION}/scale", {"spec": {"replicas": 0}}, APPS), "scale", "spec.replicas of its R1PlusDeployment",
        Try(NINA, "PATCH", "deployments/own/scale", {"spec": {"replicas": 0}}, APPS),
    ),
    "a pod that poses as the prober": (
        Try(NINA, "POST", "pods", pod("p", labels={names.LABEL_PROBE: "ask"})), "serving-pods", "r1plus.ai/probe",
        Try(NINA, "POST", "pods", pod("p")),
    ),
    "a Deployment whose pods would pose as the prober": (
        Try(NINA, "POST", "deployments", deployment("p", {names.LABEL_PROBE: "ask"}), APPS), "serving-templates", "r1plus.ai/probe",
        Try(NINA, "POST", "deployments", deployment("p", {"app": "p"}), APPS),
    ),
    "a namespace that is no tenant any more": (
        on_namespace(OTTO, "PATCH", {"metadata": {"labels": TENANT_LABEL}}), "namespaces", "only the platform team changes them",
        on_namespace(PAULA, "PATCH", {"metadata": {"labels": TENANT_LABEL}}),
    ),
    "a namespace without Pod Security": (
        on_namespace(OTTO, "PATCH", {"metadata": {"labels": PSA_LABEL}}), "namespaces", "set its Pod Security level",
        on_namespace(OTTO, "PATCH", {"metadata": {"labels": {"team": "blue"}}}),
    ),
    "a namespace without Pod Security, by its status": (
        on_namespace(OTTO, "PATCH", {"metadata": {"labels": PSA_LABEL}}, "/status"), "namespaces", "metadata.labels",
        on_namespace(PAULA, "PATCH", {"metadata": {"labels": PSA_LABEL}}, "/status"),
    ),
    "a namespace without Pod Security, by its finalizers": (
        on_namespace(OTTO, "PUT", FINALIZED | {"metadata": {"name": "{ns}", "labels": {names.LABEL_TENANT: "true"}}}, "/finalize"), "namespaces", "metadata.labels",
        on_namespace(OTTO, "PUT", FINALIZED | {"metadata": {"name": "{ns}", "labels": RESTRICTED}}, "/finalize"),
    ),
    "a status of the tenant's written by hand": (
        on_tenant(TESS, {"status": {"observedGeneration": 9}}, "/status"), "deployments", "status: only the operator writes it",
        on_tenant(OPERATOR, {"status": {"observedGeneration": 9}}, "/status"),
    ),
    "the tenant's finalizer taken off": (
        on_tenant(TESS, {"metadata": {"finalizers": None}}), "tenants", "who may update r1plustenants/finalizers",
        on_tenant(PAULA, {"metadata": {"finalizers": None}}),
    ),
    "a user of which one of the tenant's pods would be the operator's": (
        on_tenant(PAULA, {"spec": {"runAsUser": 1097}}), "tenants", "below 1097 or above 1100",
        on_tenant(PAULA, {"spec": {"runAsUser": 1096}}),
    ),
    "the operator's user": (
        on_tenant(PAULA, {"spec": {"runAsUser": 1100}}), "tenants", "run as the operator's user 1100",
        on_tenant(PAULA, {"spec": {"runAsUser": 1101}}),
    ),
    "the operator saying what a tenant is allowed": (
        on_tenant(OPERATOR, {"spec": {"callers": {"namespaces": ["mallory"]}}}), "tenants", "never the operator",
        on_tenant(TESS, {"spec": {"callers": {"namespaces": ["team-front"]}}}),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("attempt", "policy", "said", "control"), HELD.values(), ids=HELD)
def test_held(world: World, attempt: Try, policy: str, said: str, control: Try) -> None:
    assert_held(attempt.ask(world), policy, said)
    allowed = control.ask(world)
    assert not allowed.refused, allowed


USERS: dict[str, tuple[Json, str]] = {
    "the tenant's own": (running_as(20100), ""),
    "one of the next three, as the gateway's helpers": (running_as(20100, 20103), ""),
    "that of tenants without a user": (running_as(1000), ""),
    "of a container alone": (running_as(None, 20100), ""),
    "in a user namespace": (running_as(20200, hostUsers=False), ""),
    "another tenant's": (running_as(20200), "20200: pods of this tenant run as user 20100 (to 20103)"),
    "another tenant's in a container": (running_as(20100, 20200), "20200: pods of this tenant"),
    "the image's, which may be anybody's": (running_as(None), "none: pods of this tenant run as user 20100"),
    "one more": (running_as(20104), "20104: pods of this tenant"),
}


def test_a_tenants_pods_run_as_its_user_alone(installed_server: ApiServer, admin: Person) -> None:
    """A node counts epoll watches by user: a pod takes another tenant's within seconds, if it may choose its user."""
    with admission_world(installed_server, admin) as tenant:
        pods = tenant.path(kinds.POD)
        admin.do("POST", tenant.path(kinds.R1PLUS_TENANT), r1plus_tenant(runAsUser=20100))
        foreign, held = running_as(20200), "20200: pods of this tenant"
        wait_until(
            lambda: held in tenant.mallory.ask("POST", pods, foreign).text, "the policy has read the R1PlusTenant"
        )
        for case, (body, said) in USERS.items():
            answer = tenant.mallory.ask("POST", pods, body)
            if said:
                assert_held(answer, "tenant-users", said)
            else:
                assert not answer.refused, f"{case}: {answer}"


def test_a_pod_from_before_that_tolerates_everything_can_be_edited(world: World, admin: Person) -> None:
    """A Job's finalizer comes off its pods by an update. Elsewhere the policies say nothing: there it was made."""
    namespace = f"t-{uuid.uuid4().hex[:10]}"
    path = f"{kinds.POD.path(namespace)}/p"
    admin.do("POST", kinds.NAMESPACE.path(), manifest(kinds.NAMESPACE, namespace))
    until_pods_are_taken(admin, namespace)
    admin.do("POST", kinds.POD.path(namespace), pod_with(tolerations=[{"operator": "Exists"}], nodeName="n"))
    admin.do("PATCH", kinds.NAMESPACE.path(name=namespace), {"metadata": {"labels": {names.LABEL_TENANT: "true"}}})
    again = pod_with(tolerations=[{"operator": "Exists"}])
    wait_until(lambda: admin.ask("POST", kinds.POD.path(namespace), again).refused, "the namespace is a tenant")
    admin.do("PATCH", path, {"metadata": {"labels": {"team": "blue"}}})


def test_the_namespace_goes_with_all_its_policies(installed_server: ApiServer, admin: Person) -> None:
    """Its walls cannot be deleted by its people; Kubernetes' namespace controller can."""
    namespace = f"t-{uuid.uuid4().hex[:10]}"
    path = kinds.NAMESPACE.path(name=namespace)
    with people(installed_server, OPERATOR) as who:
        admin.do("POST", kinds.NAMESPACE.path(), tenant_namespace(namespace))
        for body in GIVEN:
            give(who[OPERATOR], namespace, body)
        admin.do("DELETE", path)
        wait_until(lambda: admin.ask("GET", path).status == 404, "the namespace is gone")


def test_policies_are_kept_where_a_namespace_has_lost_its_label(installed_server: ApiServer, admin: Person) -> None:
    """Nobody puts them back there."""
    namespace = f"p-{uuid.uuid4().hex[:10]}"
    with people(installed_server, NINA, OPERATOR) as who:
        admin.do("POST", kinds.NAMESPACE.path(), tenant_namespace(namespace))
        admin.do("POST", ROLE_BINDING.path(namespace), role_binding(namespace, NINA, "admin", user(NINA)))
        who[NINA].gets("delete", "networkpolicies", namespace, "networking.k8s.io")
        there = NETWORK_POLICY.path(namespace)
        who[OPERATOR].do("POST", there, network_policy("r1plus-default-deny", {}, POLICY))
        who[NINA].do("POST", there, network_policy("own", {}))
        admin.do("PATCH", kinds.NAMESPACE.path(name=namespace), {"metadata": {"labels": {names.LABEL_TENANT: None}}})
        more = network_policy("r1plus-more", {}, POLICY)
        wait_until(lambda: who[OPERATOR].ask("POST", there, more).refused, "the policies know that it is no tenant")
        assert_held(who[NINA].ask("DELETE", f"{there}/r1plus-default-deny"), "kept", "")
        assert who[NINA].ask("DELETE", f"{there}/own").status == 200
