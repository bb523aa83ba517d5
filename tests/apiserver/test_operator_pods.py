"""Pods of the operator's Deployments and Jobs, when its process is compromised and its account cluster-admin: restricted.

Nothing gets them privileges, a node's files or processes, others' Secrets, claims or accounts, or a request of the node.
"""

from typing import Any

import pytest

from r1plus_contract import names
from r1plus_operator.api import kinds
from support.apiserver.admission_world import DEPLOYMENT, CompromisedOperator
from support.apiserver.chart import PULL_SECRET
from support.apiserver.manifests import CHILD, POLICY_BINDING, Json, deployment, manifest, pod_template
from support.apiserver.people import Answer, Person
from support.apiserver.walls import assert_held
from support.waiting import wait_until

pytestmark = pytest.mark.apiserver
TEMPLATES = "operator-templates"
JOB = kinds.BY_KIND["Job"]


def build_workload(
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
def test_pods_of_the_operators_stay_restricted(
    attacker: CompromisedOperator, kind: str, template: Json, said: str
) -> None:
    assert_held(attacker.make(build_workload(kind, **template)), TEMPLATES, said)


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
def test_pods_as_the_operator_makes_them_are_let_through(
    attacker: CompromisedOperator, kind: str, template: Json
) -> None:
    answer = attacker.make(build_workload(kind, **template))
    assert answer.status == 201, answer


def test_a_deployment_from_before_the_policy_is_scaled(attacker: CompromisedOperator, admin: Person) -> None:
    binding, name = POLICY_BINDING.path(name="r1plus-operator-operator-templates"), "credit-abcdef0123"
    old = build_workload("Deployment", tolerations=[{"operator": "Exists"}])
    old["metadata"]["name"] = name
    admin.do("PATCH", binding, {"spec": {"validationActions": ["Audit"]}})
    wait_until(lambda: attacker.make(old).status == 201, "the policy refuses nothing")
    attacker.account.do("POST", DEPLOYMENT.path(attacker.tenant), old)
    admin.do("PATCH", binding, {"spec": {"validationActions": ["Deny"]}})
    wait_until(lambda: attacker.make(build_workload("Deployment", nodeName="n")).refused, "the policy refuses again")
    path = DEPLOYMENT.path(attacker.tenant, name)
    assert attacker.account.ask("PATCH", path, {"spec": {"replicas": 3}}).status == 200
    to_a_node = {"spec": {"template": {"spec": {"nodeName": "n"}}}}
    assert_held(attacker.account.ask("PATCH", path, to_a_node), TEMPLATES, "nodeName")


@pytest.mark.parametrize("kind", ["Deployment", "Job"])
def test_no_pod_of_the_operators_mounts_others_claims_or_takes_others_pull_secrets(
    attacker: CompromisedOperator, kind: str
) -> None:
    def mount(claim: str) -> Answer:
        volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]
        return attacker.make(build_workload(kind, volumes=volumes))

    def pull(secret: str) -> Answer:
        return attacker.make(build_workload(kind, imagePullSecrets=[{"name": secret}]))

    assert_held(mount("data-postgres-0"), TEMPLATES, "of claims the operator's pods mount r1plus-engine-... only")
    assert mount("r1plus-engine-0123456789abcdef").status == 201
    assert_held(pull("registry-of-payments"), TEMPLATES, "the chart's value imagePullSecrets only")
    assert pull(PULL_SECRET).status == 201


def test_no_file_of_an_image_is_replaced_by_the_termination_log(attacker: CompromisedOperator) -> None:
    refused = attacker.make(build_workload("Deployment", first={"terminationMessagePath": "/opt/r1plus/access.py"}))
    assert_held(refused, TEMPLATES, "terminationMessagePath: must be /dev/termination-log")
    assert attacker.make(build_workload("Deployment")).status == 201
