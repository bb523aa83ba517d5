"""Rights of accounts: roles and bindings written to the API server, and tokens."""

import asyncio
from collections.abc import Sequence
from typing import Any

from r1plus_operator.api import kinds, rbac
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.resources import Resource
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
from support.apiserver.people import groups_of
from support.waiting import eventually

OPERATOR_NAMESPACE = "r1plus-system"


def account(namespace: str, name: str = "r1plus-operator") -> str:
    """Return the name of the user that a service account is."""
    return f"system:serviceaccount:{namespace}:{name}"


OPERATOR = account(OPERATOR_NAMESPACE)
REVIEW = Resource("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", False)


async def may(client: ApiClient, subject: Json, right: rbac.RbacGrant, namespace: str = "") -> bool:
    """Return whether RBAC lets a user or a service account do the first thing of a grant, in a namespace or everywhere."""
    name = subject["name"] if subject["kind"] == "User" else account(subject["namespace"], subject["name"])
    spec: Json = {"user": name, "groups": list(groups_of(name))}
    if right.urls:
        spec["nonResourceAttributes"] = {"path": right.urls[0], "verb": right.verbs[0]}
    else:
        resource, _, subresource = right.resources[0].partition("/")
        about = {"group": right.group, "resource": resource, "subresource": subresource, "verb": right.verbs[0]}
        spec["resourceAttributes"] = about | {"namespace": namespace, "name": right.names[0] if right.names else ""}
    answer = await client.create(REVIEW, manifest(REVIEW, "", spec=spec) | {"metadata": {}})
    return bool(answer["status"]["allowed"])


async def grant(
    client: ApiClient, name: str, grants: Sequence[rbac.RbacGrant], *subjects: Json, namespace: str = ""
) -> None:
    """Give the subjects these rights as `write_rights` does; return once the API server's authoriser knows them."""
    await write_rights(client, name, grants, *subjects, namespace=namespace)

    async def are_known() -> bool:
        asked = [may(client, subject, right, namespace) for subject in subjects for right in grants]
        return all(await asyncio.gather(*asked))

    await eventually(are_known, f"the authoriser knows the rights of {name}")


async def write_rights(
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
