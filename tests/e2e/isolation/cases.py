"""Vectors that are requests to the API server: what A's administrator asks for, and who gets the same through."""

import json
from collections.abc import Callable

from e2e.isolation.asking import (
    ATTACHED,
    ATTACHED_TO_GATEWAY,
    DRY,
    MONITORING_GROUP,
    STRICT,
    WATCH,
    Case,
    alice,
    anybodys,
    bob,
    core,
    get,
    into_gateway,
    into_pod,
    let_in,
    merge,
    of,
    ours,
    platform,
    post,
    same,
)
from e2e.isolation.people import REVIEW, Ask
from e2e.isolation.stage import (
    CLAIM,
    INTRUDER,
    KEEPER,
    MODEL,
    OPEN,
    RBAC,
    SECRET,
    SUITE,
    World,
    binding,
    deployment,
    user,
)
from e2e.kube import Json
from e2e.objects import ordinary_pod
from r1plus_contract.gateway import (
    GATEWAY,
    GATEWAY_ADMIN,
    GATEWAY_KEY,
    GATEWAY_SERVICE,
    JWKS_FILE,
    LABEL_GATEWAY,
    PORT_INTERNAL,
)
from r1plus_contract.names import (
    API_VERSION,
    LABEL_DEPLOYMENT,
    LABEL_POD_SECURITY,
    LABEL_PROBE,
    LABEL_SUITE,
    LABEL_TENANT,
    ROLE_TENANT_ADMIN,
    TENANT,
)

NOTE: Json = {"metadata": {"annotations": {"example.org/note": "mine"}}}
STRATEGIC = "application/strategic-merge-patch+json"
SECRETS = (
    same(1, "get a Secret", lambda w, ns: get(core(ns, f"secrets/{SECRET}"))),
    same(1, "list Secrets", lambda w, ns: get(core(ns, "secrets"))),
    same(1, "watch Secrets", lambda w, ns: get(core(ns, f"secrets?{WATCH}"))),
    anybodys(1, "list Secrets of all namespaces", lambda w: get("/api/v1/secrets")),
    same(
        1,
        "a token of one of its accounts",
        lambda w, ns: post(
            core(ns, "serviceaccounts/default/token"),
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {"audiences": ["r1plus-registry"]},
            },
        ),
    ),
)
INTO_PODS = (
    anybodys(2, "exec", lambda w: Ask("POST", into_pod(w, w.b.namespace, f"exec?{ATTACHED}")), seen=let_in),
    anybodys(2, "attach", lambda w: Ask("POST", into_pod(w, w.b.namespace, "attach?container=triton")), seen=let_in),
    anybodys(2, "port-forward", lambda w: Ask("POST", into_pod(w, w.b.namespace, "portforward")), bob, seen=let_in),
    anybodys(
        2,
        "proxy",
        lambda w: get(core(w.b.namespace, f"pods/{w.b.pod['metadata']['name']}:8000/proxy/v2/health/live")),
        bob,
    ),
    anybodys(
        2,
        "an ephemeral container",
        lambda w: Ask(
            "PATCH",
            core(w.b.namespace, f"pods/{KEEPER}/ephemeralcontainers?{DRY}"),
            {
                "spec": {
                    "ephemeralContainers": [
                        ordinary_pod("e", "e", w.image)["spec"]["containers"][0] | {"name": "debug", "resources": {}}
                    ]
                }
            },
            STRATEGIC,
        ),
    ),
)


def _of_a(w: World, **spec: object) -> Ask:
    return post(ours(w.a.namespace, "r1plusdeployments"), deployment(w.a, "refers", **spec), STRICT)


def _suite(w: World, **more: object) -> dict[str, object]:
    return {"suite": SUITE, "suiteKeys": [w.a.suite.key.public], **more}


def _reference(what: str, attack: Callable[[World], Ask]) -> Case:
    return Case(3, what, attack, _of_a, alice, statuses=(400, 422))


REFERENCES = (
    _reference("a suite by namespace and name", lambda w: _of_a(w, accuracy=_suite(w, suite=f"{w.b.namespace}/{SUITE}"))),
    _reference("a suite's namespace", lambda w: _of_a(w, accuracy=_suite(w, suiteNamespace=w.b.namespace))),
    _reference("a suite with its namespace as a reference", lambda w: _of_a(w, accuracy=_suite(w, suite={"name": SUITE, "namespace": w.b.namespace}))),
    _reference("an engine's namespace", lambda w: _of_a(w, engine={"family": "smollm2", "namespace": w.b.namespace})),
    _reference("a way up by path", lambda w: _of_a(w, accuracy=_suite(w, suite=f"../{w.b.namespace}/{SUITE}"))),
)  # fmt: skip
LISTS = tuple(
    anybodys(4, f"{what} of all namespaces", lambda w, path=path: get(path))
    for what, path in (
        ("serving pods by their label", f"/api/v1/pods?labelSelector={LABEL_DEPLOYMENT}"),
        ("suites by their label", f"/api/v1/configmaps?labelSelector={LABEL_SUITE}"),
        ("R1PlusDeployments", f"/apis/{API_VERSION}/r1plusdeployments"),
        ("R1PlusTenants", f"/apis/{API_VERSION}/r1plustenants"),
        ("ControllerRevisions", "/apis/apps/v1/controllerrevisions"),
        ("namespaces", f"/api/v1/namespaces?labelSelector={LABEL_TENANT}"),
    )
)


def _namespace(labels: Json) -> Json:
    return {"metadata": {"labels": labels}}


NAMESPACES = (
    anybodys(5, "lift Pod Security", lambda w: merge(f"/api/v1/namespaces/{w.a.namespace}", _namespace({LABEL_POD_SECURITY: "privileged"}))),
    anybodys(5, "stop being a tenant", lambda w: merge(f"/api/v1/namespaces/{w.a.namespace}", _namespace({LABEL_TENANT: None}))),
    anybodys(5, "a label on B's namespace", lambda w: merge(f"/api/v1/namespaces/{w.b.namespace}", _namespace({"skip": "true"}))),
    anybodys(5, "a namespace of one's own", lambda w: post("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "wall-mine", "labels": {LABEL_TENANT: "true"}}})),
    anybodys(5, "one's own R1PlusTenant", lambda w: merge(ours(w.a.namespace, f"r1plustenants/{TENANT}"), {"spec": {"quota": {"pods": 9999}}})),
    anybodys(5, "B's R1PlusTenant", lambda w: merge(ours(w.b.namespace, f"r1plustenants/{TENANT}"), {"spec": {"callers": {"namespaces": [w.a.namespace]}}})),
    anybodys(5, "delete one's own R1PlusTenant", lambda w: Ask("DELETE", ours(w.a.namespace, f"r1plustenants/{TENANT}?{DRY}"))),
)  # fmt: skip


def _finalize(w: World) -> Ask:
    name = w.a.namespace
    body: Json = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name},
        "spec": {"finalizers": ["kubernetes"]},
    }
    return Ask("PUT", f"/api/v1/namespaces/{name}/finalize?{DRY}", body)


def _revision(w: World, namespace: str) -> str:
    (found,) = {d["metadata"]["name"] for d in w.kube.all("deployments", namespace, f"{LABEL_DEPLOYMENT}={MODEL}")}
    return str(found)


SUBRESOURCES = (
    anybodys(6, "a namespace's finalizers", _finalize),
    anybodys(6, "a namespace's status", lambda w: merge(f"/api/v1/namespaces/{w.a.namespace}/status", {"status": {"phase": "Active"}})),
    Case(
        6,
        "the status of one's own deployment",
        lambda w: merge(ours(w.a.namespace, f"r1plusdeployments/{MODEL}/status"), {"status": {"verdict": "Fail"}}),
        lambda w: merge(ours(w.a.namespace, f"r1plusdeployments/{MODEL}/status"), {"status": {"verdict": "Pass"}}),
        platform,
    ),
    anybodys(6, "the status of B's deployment", lambda w: merge(ours(w.b.namespace, f"r1plusdeployments/{MODEL}/status"), {"status": {"verdict": "Pass"}})),
    Case(6, "the scale of what serves", lambda w: merge(of("apps", w.a.namespace, f"deployments/{_revision(w, w.a.namespace)}/scale"), {"spec": {"replicas": 0}}), lambda w: get(of("apps", w.a.namespace, f"deployments/{_revision(w, w.a.namespace)}/scale")), alice, words="-scale"),
    Case(6, "the scale of B's pods", lambda w: merge(of("apps", w.b.namespace, f"deployments/{_revision(w, w.b.namespace)}/scale"), {"spec": {"replicas": 1}}), lambda w: get(of("apps", w.b.namespace, f"deployments/{_revision(w, w.b.namespace)}/scale")), bob),
)  # fmt: skip


def _bind(w: World, namespace: str, role: str) -> Ask:
    return post(of(RBAC, namespace, "rolebindings"), binding("mine", namespace, role, [user("alice")]))


def _role(w: World, rule: Json) -> Ask:
    head = {"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": {"name": "mine", "namespace": w.a.namespace}}
    return post(of(RBAC, w.a.namespace, "roles"), {**head, "rules": [rule]})


def _as(w: World, name: str) -> Ask:
    return Ask("GET", core(w.b.namespace, f"secrets/{SECRET}"), headers={"Impersonate-User": name})


_ALL: Json = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
_PODS: Json = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}
RIGHTS = (
    Case(7, "a RoleBinding in B", lambda w: _bind(w, w.b.namespace, "view"), lambda w: _bind(w, w.a.namespace, "view"), alice),
    Case(7, "a RoleBinding to cluster-admin", lambda w: _bind(w, w.a.namespace, "cluster-admin"), lambda w: _bind(w, w.a.namespace, "view"), alice),
    Case(7, "another administrator", lambda w: _bind(w, w.a.namespace, ROLE_TENANT_ADMIN), lambda w: _bind(w, w.a.namespace, "view"), alice, words="-access"),
    Case(7, "a Role that may do everything", lambda w: _role(w, _ALL), lambda w: _role(w, _PODS), alice),
    anybodys(7, "a ClusterRoleBinding", lambda w: post(f"/apis/{RBAC}/v1/clusterrolebindings", {**binding("mine", "", "view", [user("alice")]), "kind": "ClusterRoleBinding", "metadata": {"name": "mine"}})),
    Case(7, "speak as B's administrator", lambda w: _as(w, w.b.admin_name), lambda w: _as(w, w.b.admin_name), platform),
    Case(7, "speak as the operator", lambda w: _as(w, "system:serviceaccount:r1plus-system:r1plus-operator"), lambda w: _as(w, w.b.admin_name), platform),
    Case(7, "RoleBindings that the operator made", lambda w: merge(of(RBAC, w.a.namespace, "rolebindings/r1plus-tenant-admins"), {"subjects": [user("alice"), user("mallory")]}), lambda w: merge(of(RBAC, w.a.namespace, "rolebindings/administers"), {"metadata": {"annotations": {"note": "mine"}}}), alice),
)  # fmt: skip


def _pod(w: World, namespace: str, name: str = "mine", **spec: object) -> Ask:
    body = ordinary_pod(name, namespace, w.image)
    body["spec"] |= spec
    return post(core(namespace, "pods"), body)


def _container(w: World, namespace: str, **security: object) -> Ask:
    (one,) = ordinary_pod("mine", namespace, w.image)["spec"]["containers"]
    return _pod(w, namespace, containers=[{**one, "securityContext": {**one["securityContext"], **security}}])


VOLUME: Json = {
    "apiVersion": "v1",
    "kind": "PersistentVolume",
    "metadata": {"name": "mine"},
    "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/"}},
}


def _engine_claim(name: str) -> list[Json]:
    return [{"name": "v", "persistentVolumeClaim": {"claimName": name}}]


VOLUMES = (
    anybodys(8, "a PersistentVolume", lambda w: post("/api/v1/persistentvolumes", VOLUME)),
    anybodys(8, "list PersistentVolumes", lambda w: get("/api/v1/persistentvolumes")),
    same(8, "a claim of B's", lambda w, ns: get(core(ns, f"persistentvolumeclaims/{CLAIM}"))),
    Case(
        8,
        "mount an engine's volume",
        lambda w: _pod(w, w.a.namespace, volumes=_engine_claim("r1plus-engine-0123456789abcdef")),
        lambda w: _pod(w, w.a.namespace, volumes=_engine_claim(CLAIM)),
        alice,
        words="engine-volumes",
    ),
)


def _unrestricted(what: str, make: Callable[[World, str], Ask]) -> Case:
    return Case(9, what, lambda w: make(w, w.a.namespace), lambda w: make(w, OPEN), platform, words="PodSecurity")


NODES = (
    _unrestricted("a folder of the node", lambda w, ns: _pod(w, ns, volumes=[{"name": "v", "hostPath": {"path": "/"}}])),
    _unrestricted("the node's network", lambda w, ns: _pod(w, ns, hostNetwork=True)),
    _unrestricted("the node's processes", lambda w, ns: _pod(w, ns, hostPID=True)),
    _unrestricted("the node's shared memory", lambda w, ns: _pod(w, ns, hostIPC=True)),
    _unrestricted("a privileged container", lambda w, ns: _container(w, ns, privileged=True, allowPrivilegeEscalation=True)),
    _unrestricted("a capability", lambda w, ns: _container(w, ns, capabilities={"drop": ["ALL"], "add": ["NET_ADMIN"]})),
    _unrestricted("root", lambda w, ns: _container(w, ns, runAsUser=0, runAsNonRoot=False)),
    Case(9, "that as A's administrator, where a plain pod is let in", lambda w: _pod(w, w.a.namespace, hostNetwork=True), lambda w: _pod(w, w.a.namespace), alice, words="PodSecurity"),
)  # fmt: skip


def _owned_by_b(w: World) -> Json:
    uid = (w.kube.get("r1plusdeployments", w.b.namespace, MODEL) or {})["metadata"]["uid"]
    return {"apiVersion": API_VERSION, "kind": "R1PlusDeployment", "name": MODEL, "uid": uid}


OWNERS = (
    same(10, "a finalizer on B's deployment", lambda w, ns: merge(ours(ns, f"r1plusdeployments/{MODEL}"), {"metadata": {"annotations": {"example.org/mine": "1"}}})),
    anybodys(10, "a finalizer on B's Secret", lambda w: merge(core(w.b.namespace, f"secrets/{SECRET}"), {"metadata": {"finalizers": ["example.org/mine"]}}), bob),
    anybodys(10, "an owner for B's Secret", lambda w: merge(core(w.b.namespace, f"secrets/{SECRET}"), {"metadata": {"ownerReferences": [_owned_by_b(w)]}}), bob),
    same(10, "delete B's deployment", lambda w, ns: Ask("DELETE", ours(ns, f"r1plusdeployments/{MODEL}?{DRY}"))),
)  # fmt: skip


def _greedy(w: World, memory: str) -> Ask:
    (one,) = ordinary_pod("mine", w.a.namespace, w.image)["spec"]["containers"]
    sizes = {"requests": {"cpu": "5m", "memory": memory}, "limits": {"memory": memory}}
    return _pod(w, w.a.namespace, containers=[{**one, "resources": sizes}])


QUOTA = "r1plus-tenant"
EXHAUSTION = (
    Case(11, "more memory than the tenant has", lambda w: _greedy(w, "100Gi"), lambda w: _greedy(w, "32Mi"), alice, words="exceeded quota"),
    anybodys(11, "delete one's quota", lambda w: Ask("DELETE", core(w.a.namespace, f"resourcequotas/{QUOTA}?{DRY}"))),
    Case(11, "raise one's quota", lambda w: merge(core(w.a.namespace, f"resourcequotas/{QUOTA}"), {"spec": {"hard": {"pods": "9999"}}}), lambda w: merge(core(w.a.namespace, f"resourcequotas/{QUOTA}"), {"metadata": {"annotations": {"note": "seen"}}}), platform),
    Case(11, "delete one's walls as A's administrator", lambda w: Ask("DELETE", of("networking.k8s.io", w.a.namespace, f"networkpolicies/r1plus-default-deny?{DRY}")), lambda w: Ask("DELETE", core(w.a.namespace, f"configmaps/{SUITE}?{DRY}")), alice),
    Case(11, "a priority above others'", lambda w: _pod(w, w.a.namespace, priorityClassName="system-node-critical"), lambda w: _pod(w, "kube-system", priorityClassName="system-node-critical"), platform),
)  # fmt: skip


def _policy(w: World, name: str, **spec: object) -> Ask:
    head = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"}
    body = {**head, "metadata": {"name": name, "namespace": w.a.namespace}, "spec": {"podSelector": {}, **spec}}
    return post(of("networking.k8s.io", w.a.namespace, "networkpolicies"), body)


def _labelled(w: World, labels: Json) -> Ask:
    body = ordinary_pod("mine", w.a.namespace, w.image, labels=labels)
    return post(core(w.a.namespace, "pods"), body)


WAYS_OUT = (
    Case(15, "a way out of one's own making", lambda w: _policy(w, "out", policyTypes=["Egress"], egress=[{}]), lambda w: _policy(w, "shut", policyTypes=["Egress"]), alice, words="-walls"),
    Case(15, "a pod in the prober's clothes", lambda w: _labelled(w, {LABEL_PROBE: "ask"}), lambda w: _labelled(w, {"app": "mine"}), alice, words="-serving-pods"),
    Case(15, "a way out in one's R1PlusTenant", lambda w: merge(ours(w.a.namespace, f"r1plustenants/{TENANT}"), {"spec": {"egress": [{"cidr": "10.0.0.0/8", "ports": [443]}]}}), lambda w: merge(ours(w.a.namespace, f"r1plustenants/{TENANT}"), {"spec": {"egress": [{"cidr": "10.0.0.0/8", "ports": [443]}]}}), platform),
    Case(13, "a way into what serves", lambda w: _policy(w, "in", policyTypes=["Ingress"], ingress=[{}]), lambda w: _policy(w, "shut", policyTypes=["Ingress"]), alice, words="-walls"),
)  # fmt: skip
SUITES = (
    same(26, "the suite", lambda w, ns: get(core(ns, f"configmaps/{SUITE}"))),
    same(26, "all ConfigMaps", lambda w, ns: get(core(ns, "configmaps"))),
    same(26, "what its monitors are told", lambda w, ns: get(core(ns, f"configmaps/{MODEL}-accuracy"))),
    same(26, "the verdicts on its revisions", lambda w, ns: get(of("apps", ns, "controllerrevisions"))),
)


def _monitor(kind: str, plural: str, spec: Json, version: str = "v1") -> Case:
    def ask(w: World) -> Ask:
        head = {"apiVersion": f"{MONITORING_GROUP}/{version}", "kind": kind}
        body = {**head, "metadata": {"name": "mine", "namespace": w.a.namespace}, "spec": spec}
        return post(of(MONITORING_GROUP, w.a.namespace, plural, version), body)

    return anybodys(33, f"a {kind} of one's own", ask)


ENDPOINT: Json = {"port": "http", "honorLabels": True}
RULE: Json = {
    "groups": [
        {"name": "g", "rules": [{"record": "r1plus_accuracy_ratio", "expr": "1", "labels": {"namespace": "wall-b"}}]}
    ]
}
RULES = (
    _monitor("PodMonitor", "podmonitors", {"selector": {}, "podMetricsEndpoints": [ENDPOINT]}),
    _monitor("ServiceMonitor", "servicemonitors", {"selector": {}, "endpoints": [ENDPOINT]}),
    _monitor("PrometheusRule", "prometheusrules", RULE),
    Case(33, "the PodMonitor of one's own gateway", lambda w: merge(of(MONITORING_GROUP, w.a.namespace, f"podmonitors/{GATEWAY}"), {"spec": {"podMetricsEndpoints": [ENDPOINT]}}), lambda w: merge(of(MONITORING_GROUP, w.a.namespace, f"podmonitors/{GATEWAY}"), NOTE), platform),
    Case(33, "the PodMonitor that the operator made", lambda w: merge(of(MONITORING_GROUP, w.a.namespace, f"podmonitors/{MODEL}"), {"spec": {"podMetricsEndpoints": [ENDPOINT]}}), lambda w: merge(of(MONITORING_GROUP, w.a.namespace, f"podmonitors/{MODEL}"), {"metadata": {"annotations": {"note": "seen"}}}), platform),
)  # fmt: skip


def _named(w: World, name: str, **spec: object) -> Ask:
    return post(ours(w.a.namespace, "r1plusdeployments"), deployment(w.a, name, **spec), STRICT)


INJECTED = 'x"} or vector(1) #'
LABELS = (
    Case(32, "PromQL in a deployment's name", lambda w: _named(w, INJECTED), lambda w: _named(w, "named"), alice, statuses=(400, 422)),
    Case(32, "PromQL in a suite's name", lambda w: _of_a(w, accuracy=_suite(w, suite=INJECTED)), _of_a, alice, statuses=(400, 422)),
    Case(32, "PromQL in an engine's family", lambda w: _of_a(w, engine={"family": INJECTED}), _of_a, alice, statuses=(400, 422)),
    Case(32, "a newline in a namespace that may call", lambda w: _of_a(w, access={"namespaces": ["x\ny"]}), _of_a, alice, statuses=(400, 422)),
)  # fmt: skip
TEXTS = (
    anybodys(
        34, "logs of a serving pod", lambda w: get(into_pod(w, w.b.namespace, "log?container=monitor&tailLines=1")), bob
    ),
    same(34, "Events", lambda w, ns: get(core(ns, "events"))),
    same(34, "the conditions of its deployment", lambda w, ns: get(ours(ns, f"r1plusdeployments/{MODEL}"))),
)


def _token(namespace: str, audience: str, account: str = GATEWAY_ADMIN) -> Ask:
    spec = {"audiences": [audience], "expirationSeconds": 600}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    return post(core(namespace, f"serviceaccounts/{account}/token"), body)


def _gateway(namespace: str, rest: str = "") -> str:
    return of("apps", namespace, f"deployments/{GATEWAY}{rest}")


def _gateway_set(w: World) -> str:
    sets = w.kube.all("replicasets", w.a.namespace, f"{LABEL_GATEWAY}=true")
    (found,) = (one for one in sets if one["spec"]["replicas"])
    return of("apps", w.a.namespace, f"replicasets/{found['metadata']['name']}")


def _debugged(namespace: str, path: str, w: World) -> Ask:
    container = ordinary_pod("e", namespace, w.image)["spec"]["containers"][0] | {"name": "debug", "resources": {}}
    body = {"spec": {"ephemeralContainers": [container]}}
    return Ask("PATCH", f"{path}/ephemeralcontainers?{DRY}", body, STRATEGIC)


def _replace_program(w: World) -> Ask:
    container = {"name": "gateway", "image": w.image}
    body = {"spec": {"template": {"spec": {"containers": [container]}}}}
    return Ask("PATCH", f"{_gateway(w.a.namespace)}?{DRY}", body, STRATEGIC)


def _slice(w: World) -> Json:
    meta = {"name": "mine", "namespace": w.a.namespace, "labels": {"kubernetes.io/service-name": GATEWAY_SERVICE}}
    ports = [{"name": "http", "port": 8080, "protocol": "TCP"}]
    head = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta, "addressType": "IPv4"}
    return {**head, "ports": ports, "endpoints": [{"addresses": ["10.9.8.7"]}]}


def _speak(w: World) -> Ask:
    name = f"system:serviceaccount:{w.b.namespace}:{GATEWAY_ADMIN}"
    body: Json = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    return Ask("POST", REVIEW, body, headers={"Impersonate-User": name})


OWN_KEYS = json.dumps({"keys": [{"kty": "oct", "kid": "mine", "k": "bWluZQ"}]})
INTO_GATEWAYS = (
    same(1, "get half of the tenant's key", lambda w, ns: get(core(ns, f"secrets/{GATEWAY_KEY}"))),
    same(1, "a token of its gateway's administrator", lambda w, ns: _token(ns, GATEWAY)),
    anybodys(2, "exec into its gateway", lambda w: Ask("POST", into_gateway(w.b, f"/exec?{ATTACHED_TO_GATEWAY}")), seen=let_in),
    anybodys(2, "attach to its gateway", lambda w: Ask("POST", into_gateway(w.b, "/attach?container=gateway")), seen=let_in),
    anybodys(2, "port-forward to its gateway", lambda w: Ask("POST", into_gateway(w.b, "/portforward")), bob, seen=let_in),
    anybodys(2, "proxy to its gateway", lambda w: get(into_gateway(w.b, f":{PORT_INTERNAL}/proxy/healthz")), bob),
    Case(2, "an ephemeral container in its gateway", lambda w: _debugged(w.b.namespace, into_gateway(w.b, ""), w), lambda w: _debugged(w.b.namespace, core(w.b.namespace, f"pods/{KEEPER}"), w), platform),
    Case(2, "exec into one's own gateway", lambda w: Ask("POST", into_gateway(w.a, f"/exec?{ATTACHED_TO_GATEWAY}")), lambda w: Ask("POST", core(w.a.namespace, f"pods/{KEEPER}/exec?command=true&container=main&stdout=true")), alice, seen=let_in, words="-exec"),
    Case(2, "an ephemeral container in one's own gateway", lambda w: _debugged(w.a.namespace, into_gateway(w.a, ""), w), lambda w: _debugged(w.a.namespace, core(w.a.namespace, f"pods/{KEEPER}"), w), platform),
    anybodys(5, "who may call one's own gateway", lambda w: merge(ours(w.a.namespace, f"r1plustenants/{TENANT}"), {"spec": {"gateway": {"from": [{"namespace": w.b.namespace}]}}})),
    anybodys(5, "who may call B's gateway", lambda w: merge(ours(w.b.namespace, f"r1plustenants/{TENANT}"), {"spec": {"gateway": {"from": [{"namespace": w.a.namespace}]}}})),
    Case(6, "the scale of one's own gateway", lambda w: merge(_gateway(w.a.namespace, "/scale"), {"spec": {"replicas": 0}}), lambda w: get(_gateway(w.a.namespace, "/scale")), alice, words="-scale"),
    Case(6, "a gateway's ReplicaSet without its owner", lambda w: merge(_gateway_set(w), {"metadata": {"ownerReferences": None}}), lambda w: merge(_gateway_set(w), NOTE), alice, words="-gateway-replica-sets"),
    Case(7, "a token of the gateway's administrator for the API server", lambda w: _token(w.a.namespace, "https://kubernetes.default.svc"), lambda w: _token(w.a.namespace, GATEWAY), alice, words="-gateway-tokens"),
    Case(7, "a pod that runs as the gateway's administrator", lambda w: _pod(w, w.a.namespace, serviceAccountName=GATEWAY_ADMIN), lambda w: _pod(w, w.a.namespace, serviceAccountName=INTRUDER), alice, words="-gateway-tokens"),
    anybodys(7, "speak as B's gateway's administrator", _speak),
    same(8, "the claim of its gateway", lambda w, ns: get(core(ns, f"persistentvolumeclaims/{GATEWAY}"))),
    Case(8, "a pod in B that mounts its gateway's claim", lambda w: _pod(w, w.b.namespace, volumes=_engine_claim(GATEWAY)), lambda w: _pod(w, w.b.namespace, volumes=_engine_claim(GATEWAY)), platform),
    Case(8, "mount one's own gateway's claim", lambda w: _pod(w, w.a.namespace, volumes=_engine_claim(GATEWAY)), lambda w: _pod(w, w.a.namespace, volumes=_engine_claim(CLAIM)), alice, words="-engine-volumes"),
    same(10, "a note on its gateway", lambda w, ns: merge(_gateway(ns), NOTE)),
    Case(10, "another owner of one's own gateway", lambda w: merge(_gateway(w.a.namespace), {"metadata": {"ownerReferences": [_owned_by_b(w)]}}), lambda w: merge(_gateway(w.a.namespace), NOTE), alice, words="-children"),
    anybodys(10, "delete B's gateway", lambda w: Ask("DELETE", f"{_gateway(w.b.namespace)}?{DRY}")),
    anybodys(10, "delete one's own gateway", lambda w: Ask("DELETE", f"{_gateway(w.a.namespace)}?{DRY}")),
    # Two policies refuse it, and the API server names either.
    Case(16, "another program in one's own gateway", _replace_program, lambda w: merge(_gateway(w.a.namespace), NOTE), alice, words="'r1plus-operator-"),
    Case(16, "keys of one's own that its gateway believes", lambda w: merge(core(w.a.namespace, f"configmaps/{GATEWAY}"), {"data": {JWKS_FILE: OWN_KEYS}}), lambda w: merge(core(w.a.namespace, f"configmaps/{GATEWAY}"), NOTE), alice, words="-children"),
    Case(16, "another selector of the gateway's Service", lambda w: merge(core(w.a.namespace, f"services/{GATEWAY_SERVICE}"), {"spec": {"selector": {"app": "mine"}}}), lambda w: merge(core(w.a.namespace, f"services/{GATEWAY_SERVICE}"), NOTE), alice, words="-children"),
    anybodys(16, "an address of one's own behind the gateway's Service", lambda w: post(of("discovery.k8s.io", w.a.namespace, "endpointslices"), _slice(w))),
    Case(16, "a pod in the gateway's clothes", lambda w: _labelled(w, {LABEL_GATEWAY: "true"}), lambda w: _labelled(w, {"app": "mine"}), alice, words="-serving-pods"),
    Case(16, "a network policy that opens one's own gateway", lambda w: _policy(w, "in", podSelector={"matchLabels": {LABEL_GATEWAY: "true"}}, policyTypes=["Ingress"], ingress=[{}]), lambda w: _policy(w, "shut", podSelector={"matchLabels": {LABEL_GATEWAY: "true"}}, policyTypes=["Ingress"]), alice, words="-walls"),
    anybodys(16, "another network policy of B's gateway", lambda w: merge(of("networking.k8s.io", w.b.namespace, f"networkpolicies/{GATEWAY}"), NOTE)),
    same(34, "its gateway's settings", lambda w, ns: get(core(ns, f"configmaps/{GATEWAY}"))),
    anybodys(34, "logs of its gateway", lambda w: get(into_gateway(w.b, "/log?tailLines=1&container=gateway")), bob),
)  # fmt: skip

CASES: tuple[Case, ...] = (
    *SECRETS, *INTO_PODS, *REFERENCES, *LISTS, *NAMESPACES, *SUBRESOURCES, *RIGHTS, *VOLUMES, *NODES, *OWNERS, *EXHAUSTION,
    *WAYS_OUT, *SUITES, *RULES, *LABELS, *TEXTS, *INTO_GATEWAYS,
)  # fmt: skip
