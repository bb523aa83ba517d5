"""Rights of accounts: roles and bindings written to the API server, and tokens."""

from collections.abc import Sequence
from typing import Any

from r1plus_operator.api import kinds, rbac
from r1plus_operator.runtime.client import ApiClient
from support.apiserver.manifests import (
    CLUSTER_ROLE,
    CLUSTER_ROLE_BINDING,
    ROLE,
    ROLE_BINDING,
    SERVICE_ACCOUNT,
    Json,
    cluster_role_binding,
    manifest,
    role_binding,
    user,
)

OPERATOR_NAMESPACE = "r1plus-system"


def account(namespace: str, name: str = "r1plus-operator") -> str:
    """Return the name of the user that a service account is."""
    return f"system:serviceaccount:{namespace}:{name}"


OPERATOR = account(OPERATOR_NAMESPACE)


async def grant(
    client: ApiClient, name: str, grants: Sequence[rbac.RbacGrant], *subjects: Json, namespace: str = ""
) -> None:
    """Give the subjects these rights, and no others by this name: in one namespace, or everywhere."""
    rules = [row.build_rule() for row in grants]
    if namespace:
        await client.apply(ROLE, manifest(ROLE, name, namespace, rules=rules), field_manager="test")
        binding = role_binding(namespace, name, name, *subjects, kind="Role")
        await client.apply(ROLE_BINDING, binding, field_manager="test")
    else:
        await client.apply(CLUSTER_ROLE, manifest(CLUSTER_ROLE, name, rules=rules), field_manager="test")
        await client.apply(CLUSTER_ROLE_BINDING, cluster_role_binding(name, name, *subjects), field_manager="test")


async def grant_operator(client: ApiClient, namespace: str = OPERATOR_NAMESPACE) -> None:
    """Give the operator of this namespace its rights, from the table that the chart is generated from."""
    await client.apply(kinds.NAMESPACE, manifest(kinds.NAMESPACE, namespace), field_manager="test")
    operator = user(account(namespace))
    await grant(client, namespace, rbac.list_operator_grants(), operator)
    await grant(client, namespace, rbac.list_lease_grants(), operator, namespace=namespace)


async def token(
    client: ApiClient, name: str, namespace: str = OPERATOR_NAMESPACE, *audiences: str, pod: Json | None = None
) -> str:
    """Return a token of a service account, which is made if it is not there.

    Without `audiences` it is for the API server itself; with `pod` it is bound to that pod, as the kubelet's are.
    """
    await client.apply(SERVICE_ACCOUNT, manifest(SERVICE_ACCOUNT, name, namespace), field_manager="test")
    spec: dict[str, Any] = {"expirationSeconds": 3600}
    if audiences:
        spec["audiences"] = list(audiences)
    if pod is not None:
        meta = pod["metadata"]
        spec["boundObjectRef"] = {"kind": "Pod", "apiVersion": "v1", "name": meta["name"], "uid": meta["uid"]}
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    request["metadata"] = {"name": name, "namespace": namespace}
    made = await client.create(SERVICE_ACCOUNT, request, subresource="token")
    return str(made["status"]["token"])
