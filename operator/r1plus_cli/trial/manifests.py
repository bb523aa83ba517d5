"""The objects of a trial: a namespace of its own, its tenant with a gateway, and one deployment."""

from typing import Any, Final

from r1plus_contract.names import GROUP, KIND_DEPLOYMENT, TENANT, VERSION

Json = dict[str, Any]
DEPLOYMENT: Final = "hello"
OWNER_LABEL: Final = "app.kubernetes.io/managed-by"
OWNER: Final = "r1plus-try"
"""Value of `OWNER_LABEL`: the namespace was made by a trial, which may change and delete it."""


def build_namespace(name: str) -> Json:
    """Return the namespace: a tenant's, at the Pod Security level `restricted`."""
    labels = {
        "r1plus.ai/tenant": "true",
        "pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/warn": "restricted",
        OWNER_LABEL: OWNER,
    }
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def build_tenant(namespace: str) -> Json:
    """Return the tenant: with a gateway, and without stored conversations."""
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "R1PlusTenant",
        "metadata": {"name": TENANT, "namespace": namespace},
        "spec": {"gateway": {"enabled": True}},
    }


def build_deployment(namespace: str, precision: str | None = None) -> Json:
    """Return the deployment. With `precision`, an engine of another one is asked for, such as Q4_1."""
    engine = {} if precision is None else {"engine": {"precision": precision}}
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND_DEPLOYMENT,
        "metadata": {"name": DEPLOYMENT, "namespace": namespace},
        "spec": {"tier": "full", **engine},
    }
