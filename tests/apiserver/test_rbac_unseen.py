"""Rights that the API server asks for inside itself, so that its audit log shows no request: each is seen to be needed.

The list is `e2e.rbac_surplus.UNSEEN`; of all other rights the end-to-end run shows that they were used.
"""

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from apiserver.operator_rig import CLUSTER_ROLE, ROLES, eventually
from devcluster.apiserver_only import ApiServer
from e2e.rbac_surplus import UNSEEN, Right
from r1plus_contract import names
from r1plus_operator.api import crd, kinds, rbac
from r1plus_operator.api.rbac import Grant
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.errors import ForbiddenError

pytestmark = pytest.mark.apiserver

GROUP = "rbac.authorization.k8s.io"
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Scene:
    """A namespace with an R1PlusDeployment, and who tries."""

    admin: ApiClient
    account: ApiClient
    namespace: str
    owner_uid: str


async def owned(scene: Scene, _: Right) -> None:
    """A child whose owner waits for it when it is deleted."""
    owner = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND_DEPLOYMENT,
        "name": "credit",
        "uid": scene.owner_uid,
        "blockOwnerDeletion": True,
    }
    meta = {"name": f"c-{uuid.uuid4().hex[:8]}", "namespace": scene.namespace, "ownerReferences": [owner]}
    child = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta}
    await scene.account.apply(kinds.CONFIG_MAP, child, field_manager=names.FIELD_MANAGER)


async def bound(scene: Scene, right: Right) -> None:
    """A RoleBinding to a role with rights that the operator has not got."""
    binding = {
        "apiVersion": f"{GROUP}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": f"b-{uuid.uuid4().hex[:8]}", "namespace": scene.namespace},
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": right.name},
        "subjects": [{"apiGroup": GROUP, "kind": "User", "name": "somebody"}],
    }
    await scene.account.apply(kinds.BY_KIND["RoleBinding"], binding, field_manager=names.FIELD_MANAGER)


Act = Callable[[Scene, Right], Awaitable[None]]
SHOWN: dict[str, tuple[Act, tuple[Grant, ...], str]] = {
    "update": (owned, rbac.operator(), "cannot set blockOwnerDeletion"),
    "bind": (bound, rbac.operator(), "attempting to grant RBAC permissions not currently held"),
}
"""Verb -> what needs it, of whose grants, and how it is refused without."""
RIGHTS = [right for right in UNSEEN if right.verb in SHOWN]
DEFINITIONS = [right for right in UNSEEN if right.resource == crd.CRD.plural]


def without(grants: tuple[Grant, ...], right: Right) -> tuple[Grant, ...]:
    """The same grants, less one right."""
    kept = []
    for grant in grants:
        if grant.group != right.group or right.resource not in grant.resources or right.verb not in grant.verbs:
            kept.append(grant)
            continue
        others = tuple(resource for resource in grant.resources if resource != right.resource)
        verbs = tuple(verb for verb in grant.verbs if verb != right.verb)
        named = tuple(name for name in grant.names if name != right.name)
        kept += [replace(grant, resources=others)] if others else []
        kept += [replace(grant, resources=(right.resource,), verbs=verbs)] if verbs else []
        kept += [replace(grant, resources=(right.resource,), verbs=(right.verb,), names=named)] if named else []
    return tuple(kept)


async def give(admin: ApiClient, user: str, grants: tuple[Grant, ...]) -> None:
    """These rights, everywhere, and no others."""
    head = {"apiVersion": f"{GROUP}/v1", "metadata": {"name": user}}
    role = {**head, "kind": "ClusterRole", "rules": [grant.rule() for grant in grants]}
    await admin.apply(CLUSTER_ROLE, role, field_manager="test")
    ref = {"apiGroup": GROUP, "kind": "ClusterRole", "name": user}
    subject = {"apiGroup": GROUP, "kind": "User", "name": user}
    binding = {**head, "kind": "ClusterRoleBinding", "roleRef": ref, "subjects": [subject]}
    await admin.apply(ROLES["ClusterRoleBinding"], binding, field_manager="test")


async def answer(act: Act, scene: Scene, right: Right) -> str:
    """How an attempt ended."""
    try:
        await act(scene, right)
    except ForbiddenError as error:
        return str(error)
    return "done"


async def tenant_roles(admin: ApiClient) -> None:
    """As in the chart: with a right that is not the operator's."""
    rule = {"apiGroups": [names.GROUP], "resources": [kinds.DEPLOYMENTS_PLURAL], "verbs": ["create"]}
    for name in (names.ROLE_TENANT_ADMIN, names.ROLE_TENANT_VIEWER):
        role = {"apiVersion": f"{GROUP}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": [rule]}
        await admin.apply(CLUSTER_ROLE, role, field_manager="test")


def test_every_right_that_leaves_no_line_has_a_test_that_needs_it() -> None:
    assert [str(right) for right in UNSEEN if right not in (*RIGHTS, *DEFINITIONS)] == []


@pytest.mark.parametrize("right", RIGHTS, ids=str)
async def test_without_it_the_api_server_refuses(
    apiserver: ApiServer, client: ApiClient, namespace: str, right: Right
) -> None:
    act, grants, words = SHOWN[right.verb]
    await tenant_roles(client)
    head = {"apiVersion": names.API_VERSION, "kind": names.KIND_DEPLOYMENT}
    body = {**head, "metadata": {"name": "credit", "namespace": namespace}, "spec": {"tier": "full"}}
    owner = await client.create(kinds.R1PLUS_DEPLOYMENT, body)
    user = f"operator-{uuid.uuid4().hex[:8]}"
    async with ApiClient.from_kubeconfig(apiserver.kubeconfig_for(user)) as account:
        scene = Scene(client, account, namespace, owner["metadata"]["uid"])

        async def ends(how: str) -> bool:
            return how in await answer(act, scene, right)

        await give(client, user, grants)
        await eventually(lambda: ends("done"), f"with all rights {right} is used")
        await give(client, user, without(grants, right))
        await eventually(lambda: ends(words), f"without {right} it is refused: {words}")


@pytest.mark.parametrize("right", DEFINITIONS, ids=str)
async def test_without_it_an_upgrade_that_brings_a_kind_fails(
    apiserver: ApiServer, client: ApiClient, right: Right
) -> None:
    """Under a name of this test's own, since the real definition serves the tests beside it."""
    plural, _, group = right.name.partition(".")
    body = next(one for one in crd.definitions().values() if one["metadata"]["name"] == right.name)
    new = f"{uuid.uuid4().hex[:6]}.{group}"
    spec = {**body["spec"], "group": new}
    made: Json = {**body, "metadata": {"name": f"{plural}.{new}"}, "spec": spec}
    hook = tuple(replace(grant, names=(f"{plural}.{new}",)) for grant in rbac.crd_hook())
    theirs = replace(right, name=f"{plural}.{new}")
    user = f"hook-{uuid.uuid4().hex[:8]}"
    async with ApiClient.from_kubeconfig(apiserver.kubeconfig_for(user)) as account:

        async def ends(how: str) -> bool:
            try:
                await account.apply(crd.CRD, made, field_manager=names.FIELD_MANAGER)
            except ForbiddenError as error:
                return how in str(error)
            return how == "done"

        await give(client, user, without(hook, theirs))
        await eventually(lambda: ends("cannot create resource"), f"without {right} it is refused")
        await give(client, user, hook)
        await eventually(lambda: ends("done"), f"with {right} it is made")
    await client.delete(crd.CRD, f"{plural}.{new}")
