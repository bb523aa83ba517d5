"""What the operator may not do, whatever RBAC gave it: here its account has been made cluster-admin by mistake.

Somebody who has taken over its process can do no more than this. What it needs is each refusal's control.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from r1plus_contract import names
from r1plus_contract.engine.engine_fetch import FillOrder
from r1plus_operator.api import kinds
from r1plus_operator.api.tenants import R1PlusTenantSpec
from r1plus_operator.plan.engine.delivery import EngineVolume
from r1plus_operator.plan.settings import DnsTerms
from r1plus_operator.plan.tenancy import decoy, isolation_test_jobs, isolation_test_run, network_policies, volumes
from support.apiserver.admission_world import DEPLOYMENT, SERVING, CompromisedOperator
from support.apiserver.chart import DECOY_NAMESPACE
from support.apiserver.manifests import (
    CHILD,
    MARK,
    RBAC,
    Json,
    deployment,
    pod,
    pod_template,
    role_binding,
    user,
)
from support.apiserver.people import APPLY, STRATEGIC, Answer
from support.apiserver.rights import OPERATOR, OPERATOR_NAMESPACE
from support.apiserver.server import ROOT
from support.apiserver.walls import CONFIGURED, POLICY, REVISION, assert_held, filled, pod_of

pytestmark = [pytest.mark.apiserver, pytest.mark.first_run_counts]
TENANT, PLAIN = "{tenant}", "{plain}"
CONTROL: Json = {"serviceAccountName": "control", "automountServiceAccountToken": False}
TOKEN: Json = {"volumes": [{"name": "w", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}]}


@pytest.fixture(scope="module")
def words(attacker: CompromisedOperator) -> dict[str, str]:
    """What {tenant}, {plain}, {serving} and {own} are: two namespaces and two pods."""
    pods, deployments = kinds.POD.path(attacker.tenant), DEPLOYMENT.path(attacker.tenant)
    attacker.admin.do("POST", pods, pod("own"))
    attacker.account.do("POST", deployments, deployment(REVISION, SERVING, CHILD))
    serving = pod_of(attacker.admin, attacker.tenant, f"{names.LABEL_SERVING}=true")
    return {"tenant": attacker.tenant, "plain": attacker.plain, "serving": serving, "own": "own"}


def head(kind: str, name: str, version: str = "v1", **rest: Any) -> Json:
    """An object; `labels` are its labels."""
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": rest.pop("labels", {})}, **rest}


def job(container: Json | None = None, **spec: Any) -> Json:
    """A Job of the operator's, locked down but for this."""
    made = pod_template({})
    made["spec"] |= {"restartPolicy": "Never", **spec}
    made["spec"]["containers"][0] |= container or {}
    return head("Job", "r1plus-x", "batch/v1", labels=MARK, spec={"template": made})


def gives(role: str, *subjects: Json, kind: str = "ClusterRole") -> Json:
    """A RoleBinding of the operator's."""
    made = role_binding("", "r1plus-tenant-admins", role, *subjects, kind=kind)
    made["metadata"] = {"name": "r1plus-tenant-admins", "labels": POLICY}
    return made


def to(namespace: str, resource: str, group: str = "") -> str:
    """Where such objects are made."""
    return f"/{f'apis/{group}' if group else 'api/v1'}/namespaces/{namespace}/{resource}"


def claim(name: str) -> Json:
    """A claim of the operator's for an empty volume."""
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return head("PersistentVolumeClaim", name, labels=MARK, spec=spec)


Request = tuple[str, str, Json | None]
SECRET, CONFIG = head("Secret", "x"), head("ConfigMap", "r1plus-x", labels=MARK)
CONFIGURES: Request = ("POST", to(TENANT, "configmaps"), CONFIG)
RULES: list[Json] = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]
JOBS, DECOYS_JOBS = to(TENANT, "jobs", "batch/v1"), to(DECOY_NAMESPACE, "jobs", "batch/v1")
CLAIMS, ACCOUNTS = to(TENANT, "persistentvolumeclaims"), to(TENANT, "serviceaccounts")
TRAINS = head("ServiceAccount", "r1plus-engine-0123456789abcdef", labels=MARK)
BINDINGS = to(TENANT, "rolebindings", f"{RBAC}/v1")
FOREIGN: Json = {"kind": "ServiceAccount", "name": "ci", "namespace": "kube-system"}
BYPASS: Json = {"apiGroup": RBAC, "kind": "Group", "name": "system:authenticated"}
REVIEW: Json = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
REACH, PODS, TEMPLATES = "operator-reach", "operator-pods", "operator-templates"
GOOD: Request = ("POST", JOBS, job())
RELABEL: Request = (
    "PATCH",
    to(TENANT, "pods/{serving}"),
    {"metadata": {"labels": {names.LABEL_SERVING: "quarantined"}}},
)
GIVEN: Request = (
    "POST",
    BINDINGS,
    gives(names.ROLE_TENANT_ADMIN, user("anna"), {"kind": "ServiceAccount", "name": "ci", "namespace": TENANT}),
)
HELD: dict[str, tuple[Request, str, str, Request]] = {
    "a Secret outside tenants": (("POST", to(PLAIN, "secrets"), SECRET), REACH, "secrets: the operator never", CONFIGURES),
    "a Secret in a tenant": (("POST", to(TENANT, "secrets"), SECRET), REACH, "secrets: the operator never", CONFIGURES),
    "a Secret deleted": (("DELETE", to(DECOY_NAMESPACE, "secrets/decoy"), None), REACH, "secrets: the operator never", ("GET", to(DECOY_NAMESPACE, "secrets/decoy"), None)),
    "a Secret of Kubernetes' own": (("POST", to("kube-system", "secrets"), SECRET), REACH, "secrets: the operator never", CONFIGURES),
    "a Secret in its own namespace": (("POST", to(OPERATOR_NAMESPACE, "secrets"), SECRET), REACH, "secrets: the operator never", ("POST", to(DECOY_NAMESPACE, "configmaps"), CONFIG)),
    "rights outside tenants": (("POST", to(PLAIN, "rolebindings", f"{RBAC}/v1"), gives(names.ROLE_TENANT_ADMIN, user("anna"))), REACH, "writes rolebindings in tenants only", GIVEN),
    "another role": (("POST", BINDINGS, gives("cluster-admin", user("anna"))), REACH, "roleRef.name", GIVEN),
    "a Role with the name of a tenant's role": (("POST", BINDINGS, gives(names.ROLE_TENANT_ADMIN, user("anna"), kind="Role")), REACH, "roleRef.name", GIVEN),
    "rights for everybody": (("POST", BINDINGS, gives(names.ROLE_TENANT_ADMIN, BYPASS)), REACH, "subjects", GIVEN),
    "rights for itself": (("POST", BINDINGS, gives(names.ROLE_TENANT_ADMIN, user(OPERATOR))), REACH, "Kubernetes' own (system:...)", GIVEN),
    "rights for another namespace's account": (("POST", BINDINGS, gives(names.ROLE_TENANT_VIEWER, FOREIGN)), REACH, "service accounts of this namespace", GIVEN),
    "rights in all namespaces": (("POST", f"/apis/{RBAC}/v1/clusterrolebindings", gives("view", user("anna")) | {"kind": "ClusterRoleBinding"}), REACH, "clusterrolebindings: the operator never", GIVEN),
    "a role": (("POST", to(TENANT, "roles", f"{RBAC}/v1"), head("Role", "x", f"{RBAC}/v1", rules=RULES)), REACH, "roles: the operator never", GIVEN),
    "a role of the cluster's": (("POST", f"/apis/{RBAC}/v1/clusterroles", head("ClusterRole", "x", f"{RBAC}/v1", rules=RULES)), REACH, "clusterroles: the operator never", GIVEN),
    "a namespace made a tenant": (("PATCH", "/api/v1/namespaces/{plain}", {"metadata": {"labels": {names.LABEL_TENANT: "true"}}}), REACH, "namespaces: the operator never", ("GET", "/api/v1/namespaces/{plain}", None)),
    "a namespace relabelled by its status": (("PATCH", "/api/v1/namespaces/{plain}/status", {"metadata": {"labels": {names.LABEL_TENANT: "true"}}}), REACH, "namespaces/status: the operator never", ("GET", "/api/v1/namespaces/{plain}", None)),
    "a namespace deleted": (("DELETE", "/api/v1/namespaces/{plain}", None), REACH, "namespaces: the operator never", ("GET", "/api/v1/namespaces/{plain}", None)),
    "another's token": (("POST", to("kube-system", "serviceaccounts/default/token"), REVIEW), REACH, "serviceaccounts/token: the operator never", ("GET", to("kube-system", "serviceaccounts/default"), None)),
    "a shell": (("POST", to(TENANT, "pods/{serving}/exec?command=sh"), None), REACH, "pods/exec: the operator never", ("GET", to(TENANT, "pods/{serving}"), None)),
    "a child in a namespace of Kubernetes' own": (("POST", to("kube-system", "configmaps"), CONFIG), REACH, "writes configmaps in tenants only", ("POST", to(TENANT, "configmaps"), CONFIG)),
    "a Job in a namespace of Kubernetes' own": (("POST", to("kube-system", "jobs", "batch/v1"), job()), REACH, "kube-system is", GOOD),
    "a network policy in Prometheus' namespace": (("POST", to("monitoring", "networkpolicies", "networking.k8s.io/v1"), head("NetworkPolicy", "r1plus-x", "networking.k8s.io/v1", labels=MARK, spec={"podSelector": {}})), REACH, "monitoring is", ("POST", to(TENANT, "networkpolicies", "networking.k8s.io/v1"), head("NetworkPolicy", "r1plus-x", "networking.k8s.io/v1", labels=MARK, spec={"podSelector": {}}))),
    "a claim that is no engine's": (("POST", CLAIMS, claim("r1plus-x")), REACH, "claims volumes r1plus-engine-... and r1plus-gateway only", ("POST", CLAIMS, claim("r1plus-engine-0123456789abcdef"))),
    "an account of a TrainJob's pods with a token": (("POST", ACCOUNTS, TRAINS), REACH, "must be false on an account r1plus-engine-...", ("POST", ACCOUNTS, TRAINS | {"automountServiceAccountToken": False})),
    "a pod of its own making": (("POST", to(TENANT, "pods"), pod("x")), PODS, "never a pod", GOOD),
    "another's pod relabelled": (("PATCH", to(TENANT, "pods/own"), {"metadata": {"labels": {"a": "b"}}}), PODS, "own has no label of r1plus.ai", RELABEL),
    "another's pod deleted": (("DELETE", to(TENANT, "pods/own"), None), PODS, "is not the operator's pod", ("DELETE", to(TENANT, "pods/{serving}"), None)),
    "a serving pod with another image": (("PATCH", to(TENANT, "pods/{serving}"), {"spec": {"containers": [{"name": "c", "image": "evil:1"}]}}), PODS, "labels and annotations of its pods", RELABEL),
    "a Job on the node's network": (("POST", JOBS, job(hostNetwork=True)), TEMPLATES, "hostNetwork", GOOD),
    "a Job among the node's processes": (("POST", JOBS, job(hostPID=True)), TEMPLATES, "hostPID", GOOD),
    "a privileged Job": (("POST", JOBS, job({"securityContext": {"privileged": True}})), TEMPLATES, "privileged", GOOD),
    "a Job with a port of the node": (("POST", JOBS, job({"ports": [{"containerPort": 1, "hostPort": 1}]})), TEMPLATES, "hostPort", GOOD),
    "a privileged init container": (("POST", JOBS, job(initContainers=[{"name": "i", "image": "x:1", "securityContext": {"privileged": True}}])), TEMPLATES, "privileged", GOOD),
    "a Job with the node's files": (("POST", JOBS, job(volumes=[{"name": "v", "hostPath": {"path": "/"}}])), TEMPLATES, "no path of a node", ("POST", JOBS, job(volumes=[{"name": "v", "emptyDir": {}}]))),
    "a Job with a Secret": (("POST", JOBS, job(volumes=[{"name": "v", "secret": {"secretName": "x"}}])), TEMPLATES, "no Secret", ("POST", JOBS, job(volumes=[{"name": "v", "configMap": {"name": "x"}}]))),
    "a Job with a Secret projected": (("POST", JOBS, job(volumes=[{"name": "v", "projected": {"sources": [{"secret": {"name": "x"}}]}}])), TEMPLATES, "no Secret", ("POST", JOBS, job(volumes=[{"name": "v", "projected": {"sources": [{"configMap": {"name": "x"}}]}}]))),
    "a Job with a Secret in its environment": (("POST", JOBS, job({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "x", "key": "y"}}}]})), TEMPLATES, "environment", ("POST", JOBS, job({"env": [{"name": "A", "value": "b"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}))),
    "a Job with all of a Secret in its environment": (("POST", JOBS, job({"envFrom": [{"secretRef": {"name": "x"}}]})), TEMPLATES, "environment", GOOD),
    "a Job with a token": (("POST", JOBS, job(automountServiceAccountToken=True)), TEMPLATES, "automountServiceAccountToken", GOOD),
    "a Job that does not say that it wants no token": (("POST", JOBS, job(automountServiceAccountToken=None)), TEMPLATES, "must be false", GOOD),
    "a Job with a token of any account's": (("POST", JOBS, job(serviceAccountName="deployer", **TOKEN)), TEMPLATES, "only pods of the isolation test", ("POST", JOBS, job(serviceAccountName="r1plus-prober", **TOKEN))),
    "a Job with the control's token in a tenant": (("POST", JOBS, job(**CONTROL, **TOKEN)), TEMPLATES, "decoy's namespace", ("POST", DECOYS_JOBS, job(**CONTROL, **TOKEN))),
    "a Deployment on the node's network": (("POST", to(TENANT, "deployments", "apps/v1"), deployment("r1plus-x", {"a": "b"}, MARK) | {"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod_template({})["spec"] | {"hostNetwork": True}}}}), TEMPLATES, "hostNetwork", ("POST", to(TENANT, "deployments", "apps/v1"), deployment("r1plus-x", {"a": "b"}, MARK))),
    "a CronJob": (("POST", to(TENANT, "cronjobs", "batch/v1"), head("CronJob", "x", "batch/v1", spec={"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": job()["spec"]["template"]}}})), TEMPLATES, "nothing else that makes pods", GOOD),
}  # fmt: skip


def ask(attacker: CompromisedOperator, words: dict[str, str], request: Request) -> Answer:
    """As the operator."""
    method, path, body = request
    spec = (body or {}).get("spec", {})
    kind = STRATEGIC if method == "PATCH" and "containers" in spec else ""
    return attacker.account.ask(method, filled(path, words), filled(body, words), kind=kind)


def test_the_operator_is_itself_and_could_do_everything(attacker: CompromisedOperator) -> None:
    assert attacker.account.who() == OPERATOR
    assert attacker.account.may("escalate", "clusterroles", "", RBAC)


@pytest.mark.parametrize(("attempt", "policy", "said", "control"), HELD.values(), ids=HELD)
def test_held(
    attacker: CompromisedOperator, words: dict[str, str], attempt: Request, policy: str, said: str, control: Request
) -> None:
    assert_held(ask(attacker, words, attempt), policy, said)
    allowed = ask(attacker, words, control)
    assert allowed.status in (200, 201), allowed


def of_a_tenant(namespace: str) -> list[Json]:
    """All that a namespace has as a tenant."""
    spec = R1PlusTenantSpec.model_validate(
        {
            "admins": [{"kind": "User", "name": "anna"}],
            "viewers": [{"kind": "ServiceAccount", "name": "ci"}],
            "quota": {"cpu": "4", "pods": 9},
        }
    )
    made = [
        network_policies.build_default_deny(namespace),
        network_policies.build_callers_policy(namespace, (), DnsTerms()),
        *network_policies.build_limits(namespace, spec.quota),
    ]
    asks = [
        isolation_test_jobs.build_service_account(namespace),
        isolation_test_jobs.build_network_policy(namespace, CONFIGURED),
    ]
    return [*made, *network_policies.build_role_bindings(namespace, spec), *asks]


def of_the_decoy(_: str) -> list[Json]:
    """What the prober attacks."""
    return [*decoy.build_network_policies(CONFIGURED), *decoy.build_objects(CONFIGURED)]


def of_a_run(namespace: str) -> list[Json]:
    """The prober's Jobs, in the tenant and in the decoy."""
    return list(
        isolation_test_jobs.build_jobs(
            isolation_test_run.IsolationTestRun(namespace, "uid", "credit", {"credit": "1", "": "2"}, 1), CONFIGURED
        )
    )


def of_a_volume(namespace: str) -> list[Json]:
    """What brings an engine to a volume."""
    engine = EngineVolume("r1plus-engine-0123456789abcdef", FillOrder("full", "a" * 64, 2**30), "registry.local/e:1")
    need = volumes.VolumeNeed(engine, (("credit", "1-2-3"),))
    claim = volumes.build_claim(need, namespace, CONFIGURED, None, False)
    network_policy, order = (
        volumes.build_network_policy(need, namespace, CONFIGURED),
        volumes.build_order(need, namespace, CONFIGURED),
    )
    return [claim, network_policy, order, volumes.build_job(need, namespace, CONFIGURED, "uid", "order")]


def of_an_example(namespace: str) -> list[Json]:
    """A deployment's children, as `r1plus plan` shows them."""
    program, example = Path(sys.executable).with_name("r1plus"), ROOT / "examples/credit-full.yaml"
    command = [str(program), "plan", "-o", "yaml", "-f", str(example)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=250).stdout
    shown_objects = (found for found in yaml.safe_load_all(shown) if found)
    made = [found for found in shown_objects if "monitoring.coreos.com" not in found["apiVersion"]]
    for found in made:
        found["metadata"] |= {"namespace": namespace}
    return made


@pytest.mark.parametrize("make", [of_a_tenant, of_the_decoy, of_a_run, of_a_volume, of_an_example])
def test_what_the_operator_makes_is_let_through_whole(
    attacker: CompromisedOperator, make: Callable[[str], list[Json]]
) -> None:
    made = make(attacker.tenant)
    assert len(made) >= 3
    for obj in made:
        path = kinds.BY_KIND[obj["kind"]].path(obj["metadata"]["namespace"], obj["metadata"]["name"])
        answer = attacker.account.ask("PATCH", path, obj, kind=APPLY)
        assert answer.status in (200, 201), f"{obj['kind']} {obj['metadata']['name']}: {answer}"
