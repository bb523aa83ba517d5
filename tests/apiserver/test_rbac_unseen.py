"""Rights that the API server asks for inside itself, so that its audit log shows no request: each is seen to be needed.

The list is `e2e.rbac_surplus.UNSEEN`; of all other rights the end-to-end run shows that they were used.
"""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

import pytest

from devcluster.apiserver_only import ApiServer
from e2e.rbac_surplus import UNSEEN, Right
from r1plus_contract import names
from r1plus_operator.api import crd, kinds, rbac
from r1plus_operator.api.rbac import RbacGrant
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.errors import ForbiddenError
from support.apiserver.manifests import (
    CLUSTER_ROLE,
    ROLE_BINDING,
    Json,
    config_map,
    manifest,
    r1plus_deployment,
    role_binding,
    user,
)
from support.apiserver.rights import write_rights
from support.waiting import eventually

pytestmark = [pytest.mark.apiserver, pytest.mark.first_run_counts]


@dataclass(frozen=True, slots=True)
class Scene:
    """A namespace with an R1PlusDeployment, and who tries."""

    admin: ApiClient
    account: ApiClient
    namespace: str
    owner_uid: str


async def create_blocking_child(scene: Scene, _: Right) -> None:
    """A child whose owner waits for it when it is deleted."""
    owner = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND_DEPLOYMENT,
        "name": "credit",
        "uid": scene.owner_uid,
        "blockOwnerDeletion": True,
    }
    child = config_map(f"c-{uuid.uuid4().hex[:8]}", scene.namespace)
    child["metadata"]["ownerReferences"] = [owner]
    await scene.account.apply(kinds.CONFIG_MAP, child, field_manager=names.FIELD_MANAGER)


async def bind_role(scene: Scene, right: Right) -> None:
    """A RoleBinding to a role with rights that the operator has not got."""
    binding = role_binding(scene.namespace, f"b-{uuid.uuid4().hex[:8]}", right.name, user("somebody"))
    await scene.account.apply(ROLE_BINDING, binding, field_manager=names.FIELD_MANAGER)


async def adopt_child(scene: Scene, right: Right) -> None:
    """A child from which somebody has taken the owner reference."""
    resource = next(kind for kind in kinds.CHILDREN if (kind.group, kind.plural) == (right.group, right.resource))
    child = manifest(resource, f"d-{uuid.uuid4().hex[:8]}", scene.namespace, **BODIES.get(resource.kind, {}))
    await scene.admin.create(resource, child)
    owner = {"apiVersion": names.API_VERSION, "kind": names.KIND_DEPLOYMENT, "name": "credit", "uid": scene.owner_uid}
    child["metadata"]["ownerReferences"] = [owner]
    await scene.account.apply(resource, child, field_manager=names.FIELD_MANAGER)


BODIES: Mapping[str, Json] = {
    "Service": {"spec": {"ports": [{"port": 80}]}},
    "PodDisruptionBudget": {"spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"a": "b"}}}},
}
"""What a kind does not do without."""
Act = Callable[[Scene, Right], Awaitable[None]]
SHOWN: dict[str, tuple[Act, tuple[RbacGrant, ...], str]] = {
    "update": (create_blocking_child, rbac.list_operator_grants(), "cannot set blockOwnerDeletion"),
    "delete": (adopt_child, rbac.list_operator_grants(), "cannot set an ownerRef on a resource you can't delete"),
    "bind": (bind_role, rbac.list_operator_grants(), "attempting to grant RBAC permissions not currently held"),
}
"""Verb -> what needs it, of whose grants, and how it is refused without."""
ABSENT = frozenset((kind.group, kind.plural) for kind in kinds.OPTIONAL_CHILDREN)
"""Kinds that this server does not have: what it asks of the others it asks of every kind."""
RIGHTS = [right for right in UNSEEN if right.verb in SHOWN and (right.group, right.resource) not in ABSENT]
DEFINITIONS = [right for right in UNSEEN if right.resource == crd.CRD.plural]


def without(grants: tuple[RbacGrant, ...], right: Right) -> tuple[RbacGrant, ...]:
    """The same grants, less one right."""
    kept = []
    for row in grants:
        if row.group != right.group or right.resource not in row.resources or right.verb not in row.verbs:
            kept.append(row)
            continue
        others = tuple(resource for resource in row.resources if resource != right.resource)
        verbs = tuple(verb for verb in row.verbs if verb != right.verb)
        named = tuple(name for name in row.names if name != right.name)
        kept += [replace(row, resources=others)] if others else []
        kept += [replace(row, resources=(right.resource,), verbs=verbs)] if verbs else []
        kept += [replace(row, resources=(right.resource,), verbs=(right.verb,), names=named)] if named else []
    return tuple(kept)


async def answer(act: Act, scene: Scene, right: Right) -> str:
    """How an attempt ended."""
    try:
        await act(scene, right)
    except ForbiddenError as error:
        return str(error)
    return "done"


@pytest.fixture
async def tenant_roles(client: ApiClient) -> AsyncIterator[None]:
    """As in the chart: with a right that is not the operator's. They go again: a test installs the chart beside them."""
    rule = {"apiGroups": [names.GROUP], "resources": [kinds.DEPLOYMENTS_PLURAL], "verbs": ["create"]}
    bound = (names.ROLE_TENANT_ADMIN, names.ROLE_TENANT_VIEWER, names.ROLE_REGISTRY_READER)
    roles = [manifest(CLUSTER_ROLE, name, rules=[rule]) for name in bound]
    for role in roles:
        await client.apply(CLUSTER_ROLE, role, field_manager="test")
    yield
    for role in roles:
        await client.delete(CLUSTER_ROLE, role["metadata"]["name"])


def test_every_right_that_leaves_no_line_has_a_test_that_needs_it() -> None:
    shown = (*RIGHTS, *DEFINITIONS)
    assert [str(r) for r in UNSEEN if r not in shown and (r.group, r.resource) not in ABSENT] == []


@pytest.mark.usefixtures("tenant_roles")
@pytest.mark.parametrize("right", RIGHTS, ids=str)
async def test_without_it_the_api_server_refuses(
    apiserver: ApiServer, client: ApiClient, namespace: str, right: Right
) -> None:
    act, grants, words = SHOWN[right.verb]
    owner = await client.create(kinds.R1PLUS_DEPLOYMENT, r1plus_deployment(namespace=namespace))
    name = f"operator-{uuid.uuid4().hex[:8]}"
    async with ApiClient.from_kubeconfig(apiserver.kubeconfig_for(name)) as account:
        scene = Scene(client, account, namespace, owner["metadata"]["uid"])

        async def ends(how: str) -> bool:
            return how in await answer(act, scene, right)

        await write_rights(client, name, grants, user(name))
        await eventually(lambda: ends("done"), f"with all rights {right} is used")
        await write_rights(client, name, without(grants, right), user(name))
        await eventually(lambda: ends(words), f"without {right} it is refused: {words}")


@pytest.mark.parametrize("right", DEFINITIONS, ids=str)
async def test_without_it_an_upgrade_that_brings_a_kind_fails(
    apiserver: ApiServer, client: ApiClient, right: Right
) -> None:
    """Under a name of this test's own, since the real definition serves the tests beside it."""
    plural, _, group = right.name.partition(".")
    body = next(one for one in crd.build_definitions().values() if one["metadata"]["name"] == right.name)
    new = f"{uuid.uuid4().hex[:6]}.{group}"
    spec = {**body["spec"], "group": new}
    made: Json = {**body, "metadata": {"name": f"{plural}.{new}"}, "spec": spec}
    hook = tuple(replace(grant, names=(f"{plural}.{new}",)) for grant in rbac.list_crd_hook_grants())
    theirs = replace(right, name=f"{plural}.{new}")
    name = f"hook-{uuid.uuid4().hex[:8]}"
    async with ApiClient.from_kubeconfig(apiserver.kubeconfig_for(name)) as account:

        async def ends(how: str) -> bool:
            try:
                await account.apply(crd.CRD, made, field_manager=names.FIELD_MANAGER)
            except ForbiddenError as error:
                return how in str(error)
            return how == "done"

        await write_rights(client, name, without(hook, theirs), user(name))
        await eventually(lambda: ends("cannot create resource"), f"without {right} it is refused")
        await write_rights(client, name, hook, user(name))
        await eventually(lambda: ends("done"), f"with {right} it is made")
    await client.delete(crd.CRD, f"{plural}.{new}")
