"""Builders of the objects that end-to-end tests apply."""

import copy
from collections.abc import Mapping, Sequence

from e2e.kube import Json, Kube
from r1plus_contract.names import (
    API_VERSION,
    KIND_DEPLOYMENT,
    KIND_ENGINE,
    KIND_TENANT,
    LABEL_POD_SECURITY,
    LABEL_TENANT,
    TENANT,
)

TENANT_LABELS = {LABEL_POD_SECURITY: "restricted", LABEL_TENANT: "true"}
"""Of a tenant's namespace."""
EDGE_ENGINE = "smollm2-edge-q4-1"
"""The smallest engine of the demo."""


def namespace(name: str, labels: Mapping[str, str] = TENANT_LABELS) -> Json:
    """Return a Namespace, a tenant's unless other labels are given."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": dict(labels)}}


def tenant(namespace: str, **spec: object) -> Json:
    """Return the R1PlusTenant of a namespace."""
    head = {"apiVersion": API_VERSION, "kind": KIND_TENANT}
    return {**head, "metadata": {"name": TENANT, "namespace": namespace}, "spec": spec}


def deployment(namespace: str, name: str, tier: str = "edge", **spec: object) -> Json:
    """Return an R1PlusDeployment."""
    head = {"apiVersion": API_VERSION, "kind": KIND_DEPLOYMENT}
    return {**head, "metadata": {"name": name, "namespace": namespace}, "spec": {"tier": tier, **spec}}


def engine(name: str, spec: Json) -> Json:
    """Return an R1PlusEngine."""
    return {"apiVersion": API_VERSION, "kind": KIND_ENGINE, "metadata": {"name": name}, "spec": spec}


def spec_of_engine(kube: Kube, name: str = EDGE_ENGINE) -> Json:
    """Return a copy of the spec of an engine that the cluster has."""
    found = kube.get("r1plusengines", None, name)
    assert found is not None, name
    return copy.deepcopy(found["spec"])


def ordinary_pod(
    name: str,
    namespace: str,
    image: str,
    *,
    command: Sequence[str] = ("python3", "-c", "import time; time.sleep(1e6)"),
    account: str = "default",
    token: bool = False,
    claim: str = "",
    labels: Mapping[str, str] | None = None,
) -> Json:
    """A pod that Pod Security `restricted` takes."""
    locked = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    security = {
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "fsGroup": 1000,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": list(command),
        "resources": {"requests": {"cpu": "5m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
        "securityContext": locked,
        "volumeMounts": [{"name": "claim", "mountPath": "/claim"}] if claim else [],
    }
    volumes = [{"name": "claim", "persistentVolumeClaim": {"claimName": claim}}] if claim else []
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(labels or {})},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "serviceAccountName": account,
            "automountServiceAccountToken": token,
            "securityContext": security,
            "containers": [container],
            "volumes": volumes,
        },
    }
