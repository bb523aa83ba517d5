"""A body for every kind of object that the operator makes, and the rights of an administrator who may write them all."""

from typing import Any

from r1plus_contract import names
from r1plus_operator.api import kinds
from support.apiserver.admission_world import TenantRights
from support.apiserver.manifests import MARK, RBAC, Json, deployment, manifest, pod_template, user

LABELLED: Json = {"a": "b"}
ENDPOINT: Json = {
    "port": "monitor",
    "path": "/metrics",
    "interval": "15s",
    "followRedirects": False,
    "relabelings": [{"action": "replace"}],
}
"""Of a PodMonitor, as the operator makes it."""
CLAIM_SPEC: Json = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
CHILD_BODIES: dict[str, dict[str, Any]] = {
    "ConfigMap": {"data": LABELLED},
    "ServiceAccount": {"automountServiceAccountToken": False},
    "Service": {"spec": {"ports": [{"port": 80}], "selector": LABELLED}},
    "ControllerRevision": {"revision": 1, "data": LABELLED},
    "Deployment": {"spec": deployment("d", LABELLED)["spec"]},
    "NetworkPolicy": {"spec": {"podSelector": {}}},
    "PodDisruptionBudget": {"spec": {"maxUnavailable": 1, "selector": {"matchLabels": LABELLED}}},
    "PersistentVolumeClaim": {"spec": CLAIM_SPEC},
    "Job": {"spec": {"template": {"spec": pod_template({})["spec"] | {"restartPolicy": "Never"}}}},
    "PodMonitor": {"spec": {"selector": {}, "podMetricsEndpoints": [ENDPOINT]}},
    "PrometheusRule": {"spec": {"groups": []}},
    "ResourceQuota": {"spec": {"hard": {"pods": "1000"}}},
    "LimitRange": {"spec": {"limits": [{"type": "Container", "defaultRequest": {"cpu": "1m"}}]}},
    "RoleBinding": {
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": names.ROLE_TENANT_VIEWER},
        "subjects": [user("vera")],
    },
}
"""Kind -> top-level fields."""
OPTIONAL = {resource.kind: resource for resource in kinds.OPTIONAL_CHILDREN}
SERVED = {kind: kinds.BY_KIND[kind] for kind in CHILD_BODIES if kind not in OPTIONAL}
"""Kinds of children that each server has."""
WRITES_CHILDREN = TenantRights(
    ("admin", names.ROLE_TENANT_ADMIN),
    tuple(
        {"apiGroups": [kind.group], "resources": [kind.plural], "verbs": ["*"]}
        for kind in (*SERVED.values(), *OPTIONAL.values())
    ),
)
"""Kubernetes' admin, the tenant's, and what neither has: whatever RBAC says, the policies must hold."""


def build_child(kind: str, name: str, labels: Json = MARK, **changed: Any) -> Json:
    """Return an object as the operator makes it, but for these fields."""
    return manifest(kinds.BY_KIND[kind], name, labels=labels, **CHILD_BODIES[kind] | changed)


def build_unmarked(kind: str, name: str) -> Json:
    """Return an object without the operator's mark, as the tenant's administrator makes it."""
    body = build_child(kind, name, {})
    if kind == "RoleBinding":
        body["roleRef"] = body["roleRef"] | {"name": "view"}
    return body
