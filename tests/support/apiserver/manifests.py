"""Objects as users, platform teams and controllers write them: one builder per kind, with defaults."""

from collections.abc import Mapping
from typing import Any

from r1plus_contract import names
from r1plus_operator.api import kinds
from r1plus_operator.runtime.resources import Resource

Json = dict[str, Any]

RBAC, ADMISSION = "rbac.authorization.k8s.io", "admissionregistration.k8s.io"
SERVICE_ACCOUNT = kinds.BY_KIND["ServiceAccount"]
SECRET = Resource("", "v1", "secrets", "Secret")
RESOURCES = {**kinds.BY_KIND, SECRET.kind: SECRET}
"""Kind -> resource, with those of which the operator makes none."""
CLUSTER_ROLE = Resource(RBAC, "v1", "clusterroles", "ClusterRole", False)
CLUSTER_ROLE_BINDING = Resource(RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", False)
ROLE = Resource(RBAC, "v1", "roles", "Role")
ROLE_BINDING = Resource(RBAC, "v1", "rolebindings", "RoleBinding")
POLICY = Resource(ADMISSION, "v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", False)
POLICY_BINDING = Resource(
    ADMISSION, "v1", "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding", False
)

RESTRICTED = {names.LABEL_POD_SECURITY: "restricted", names.LABEL_TENANT: "true"}
"""Labels of a tenant's namespace."""
CONTEXT = {"maxTokens": 1024}
"""The `spec.context` of most deployments here."""
MARK = {names.LABEL_MANAGED_BY: names.MANAGED_BY}
"""Labels of an object of the operator's."""
CHILD = {**MARK, names.LABEL_DEPLOYMENT: "credit"}
"""Labels of a child of the R1PlusDeployment credit."""


def manifest(
    resource: Resource, name: str, namespace: str = "", *, labels: Mapping[str, str] | None = None, **fields: Any
) -> Json:
    """Return an object of this kind; `fields` are its top-level fields, e.g. `spec`."""
    meta: Json = {"name": name}
    if namespace:
        meta["namespace"] = namespace
    if labels:
        meta["labels"] = dict(labels)
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": meta, **fields}


def tenant_namespace(name: str) -> Json:
    """Return a namespace that the platform team has made a tenant."""
    return manifest(kinds.NAMESPACE, name, labels=RESTRICTED)


def r1plus_deployment(name: str = "credit", namespace: str = "", **spec: Any) -> Json:
    """Return an R1PlusDeployment; of tier full unless `spec` says otherwise."""
    return manifest(kinds.R1PLUS_DEPLOYMENT, name, namespace, spec={"tier": "full", **spec})


def r1plus_tenant(namespace: str = "", **spec: Any) -> Json:
    """Return an R1PlusTenant."""
    return manifest(kinds.R1PLUS_TENANT, names.TENANT, namespace, spec=spec)


def config_map(name: str, namespace: str = "", labels: Mapping[str, str] | None = None, **data: str) -> Json:
    """Return a ConfigMap."""
    return manifest(kinds.CONFIG_MAP, name, namespace, labels=labels, **({"data": data} if data else {}))


def user(name: str) -> Json:
    """Return the subject of a binding that is a user."""
    return {"apiGroup": RBAC, "kind": "User", "name": name}


def service_account(name: str, namespace: str) -> Json:
    """Return the subject of a binding that is a service account."""
    return {"kind": "ServiceAccount", "name": name, "namespace": namespace}


def role_binding(namespace: str, name: str, role: str, *subjects: Json, kind: str = "ClusterRole") -> Json:
    """Return a RoleBinding as a platform team writes it."""
    ref = {"apiGroup": RBAC, "kind": kind, "name": role}
    return manifest(ROLE_BINDING, name, namespace, roleRef=ref, subjects=list(subjects))


def cluster_role_binding(name: str, role: str, *subjects: Json) -> Json:
    """Return a ClusterRoleBinding."""
    ref = {"apiGroup": RBAC, "kind": "ClusterRole", "name": role}
    return manifest(CLUSTER_ROLE_BINDING, name, roleRef=ref, subjects=list(subjects))


def pod_template(labels: Mapping[str, str]) -> Json:
    """Return a pod template that Pod Security `restricted` takes, without a token."""
    locked = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    security = {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
    container = {"name": "c", "image": "registry.local/c:1", "securityContext": locked}
    spec = {"containers": [container], "securityContext": security, "automountServiceAccountToken": False}
    return {"metadata": {"labels": dict(labels)}, "spec": spec}


def pod(name: str, namespace: str = "", labels: Mapping[str, str] | None = None, **spec: Any) -> Json:
    """Return a pod of such a template; `spec` adds to its spec."""
    return manifest(kinds.POD, name, namespace, labels=labels, spec=pod_template({})["spec"] | spec)


def deployment(name: str, labels: Mapping[str, str], own_labels: Mapping[str, str] | None = None) -> Json:
    """Return a Deployment of one such pod with these `labels`."""
    spec = {"selector": {"matchLabels": dict(labels)}, "template": pod_template(labels)}
    return manifest(kinds.BY_KIND["Deployment"], name, labels=own_labels, spec=spec)


def condition_of(cr: Json | None, kind: str) -> tuple[str, str, str]:
    """Return (status, reason, message) of a condition; empty while it is not there."""
    conditions = ((cr or {}).get("status") or {}).get("conditions") or ()
    return next(((c["status"], c["reason"], c["message"]) for c in conditions if c["type"] == kind), ("", "", ""))
