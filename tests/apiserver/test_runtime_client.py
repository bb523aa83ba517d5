"""The client against the real API server: what it answers is what reconcilers build on."""

import asyncio
import dataclasses
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from devcluster.apiserver_only import ApiServer
from r1plus_operator.api import kinds
from r1plus_operator.api.rbac import RbacGrant
from r1plus_operator.runtime import connection
from r1plus_operator.runtime.client import JSON_PATCH, ApiClient
from r1plus_operator.runtime.connection import FileToken
from r1plus_operator.runtime.errors import (
    ApiError,
    ApiServerError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    UnauthorizedError,
)
from r1plus_operator.runtime.resources import Resource
from support.apiserver import manifests
from support.apiserver.rights import grant, token
from support.waiting import eventually

pytestmark = pytest.mark.apiserver
CONFIG_MAPS = kinds.CONFIG_MAP
DEPLOYMENTS = kinds.BY_KIND["Deployment"]
PODS = kinds.POD
ABSENT_KIND = Resource("nobody.example", "v1", "things", "Thing")


def config_map(namespace: str, name: str = "a", **data: str) -> dict[str, Any]:
    return manifests.config_map(name, namespace, **data)


def deployment(namespace: str, replicas: int = 1) -> dict[str, Any]:
    labels = {"app": "x"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return manifests.manifest(DEPLOYMENTS, "d", namespace, spec=spec)


async def test_an_apply_creates_changes_and_then_changes_nothing(client: ApiClient, namespace: str) -> None:
    made = await client.apply(CONFIG_MAPS, config_map(namespace, x="1", y="1"), field_manager="op")
    changed = await client.apply(CONFIG_MAPS, config_map(namespace, x="2"), field_manager="op")
    again = await client.apply(CONFIG_MAPS, config_map(namespace, x="2"), field_manager="op")
    assert made["data"] == {"x": "1", "y": "1"}
    assert changed["data"] == {"x": "2"}, "a field that is applied no more is removed"
    assert again["metadata"]["resourceVersion"] == changed["metadata"]["resourceVersion"]


async def test_another_owners_field_is_taken_only_by_force(client: ApiClient, namespace: str) -> None:
    await client.apply(CONFIG_MAPS, config_map(namespace, x="1"), field_manager="user")
    with pytest.raises(ConflictError) as caught:
        await client.apply(CONFIG_MAPS, config_map(namespace, x="2"), field_manager="op", force=False)
    assert [cause.field for cause in caught.value.causes] == [".data.x"]
    forced = await client.apply(CONFIG_MAPS, config_map(namespace, x="2"), field_manager="op")
    assert forced["data"] == {"x": "2"}


async def test_a_status_is_applied_apart_from_the_spec(client: ApiClient, namespace: str) -> None:
    made = await client.apply(DEPLOYMENTS, deployment(namespace), field_manager="op")
    meta = {"name": "d", "namespace": namespace}
    status = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "status": {"observedGeneration": 1}}
    seen = await client.apply(DEPLOYMENTS, status, field_manager="op", subresource="status")
    assert seen["status"]["observedGeneration"] == 1
    assert seen["metadata"]["generation"] == made["metadata"]["generation"]


async def test_patches_change_single_fields(client: ApiClient, namespace: str) -> None:
    await client.create(CONFIG_MAPS, config_map(namespace, x="1", y="1"))
    await client.patch(CONFIG_MAPS, "a", namespace, {"data": {"y": None}}, field_manager="op")
    patch = [{"op": "test", "path": "/data/x", "value": "1"}, {"op": "add", "path": "/data/z", "value": "3"}]
    seen = await client.patch(CONFIG_MAPS, "a", namespace, patch, content_type=JSON_PATCH)
    assert seen["data"] == {"x": "1", "z": "3"}


async def test_a_delete_by_uid_spares_a_namesake(client: ApiClient, namespace: str) -> None:
    first = await client.create(CONFIG_MAPS, config_map(namespace))
    await client.delete(CONFIG_MAPS, "a", namespace, uid=first["metadata"]["uid"])
    second = await client.create(CONFIG_MAPS, config_map(namespace))
    with pytest.raises(ConflictError):
        await client.delete(CONFIG_MAPS, "a", namespace, uid=first["metadata"]["uid"])
    assert (await client.get(CONFIG_MAPS, "a", namespace))["metadata"]["uid"] == second["metadata"]["uid"]


async def test_a_list_in_pages_is_complete_and_of_one_moment(client: ApiClient, namespace: str) -> None:
    await asyncio.gather(*(client.create(CONFIG_MAPS, config_map(namespace, f"c{i:02}")) for i in range(25)))
    pages = [page async for page in client.iter_pages(CONFIG_MAPS, namespace, limit=10)]
    assert [len(items) for items, _ in pages] == [10, 10, 5]
    assert len({version for _, version in pages}) == 1
    one, _ = await client.list(CONFIG_MAPS, namespace, name="c07")
    assert [item["metadata"]["name"] for item in one] == ["c07"]
    items, version = await client.list(CONFIG_MAPS, namespace, limit=10)
    assert sorted(i["metadata"]["name"] for i in items) == [f"c{i:02}" for i in range(25)]
    assert version.isdigit()


Broken = Callable[[ApiClient, str], Awaitable[Any]]


async def create_twice(client: ApiClient, namespace: str) -> None:
    """Create a ConfigMap that is there by then."""
    await client.create(CONFIG_MAPS, config_map(namespace))
    await client.create(CONFIG_MAPS, config_map(namespace))


@pytest.mark.parametrize(
    ("request_", "error", "reason"),
    [
        pytest.param(
            lambda c, ns: c.get(CONFIG_MAPS, "no", ns), NotFoundError, "NotFound", id="an object that is not there"
        ),
        pytest.param(create_twice, ConflictError, "AlreadyExists", id="an object that is there"),
        pytest.param(lambda c, ns: c.list(ABSENT_KIND, ns), NotFoundError, "Unknown", id="a kind that is not there"),
        pytest.param(
            lambda c, ns: c.create(CONFIG_MAPS, config_map("no-such-namespace")), NotFoundError, "NotFound",
            id="a namespace that is not there",
        ),
        pytest.param(
            lambda c, ns: c.create(CONFIG_MAPS, config_map(ns, "kube-root-ca.crt/")), InvalidError, "Invalid",
            id="a name that is none",
        ),
        pytest.param(
            lambda c, ns: c.apply(DEPLOYMENTS, deployment(ns, replicas=-1), field_manager="t"), InvalidError, "Invalid",
            id="a value out of range",
        ),
        pytest.param(
            lambda c, ns: c.create(PODS, {
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": ns},
                "spec": {"containers": [{"name": "c", "image": "i", "securityContext": {"privileged": True}}]},
            }), ForbiddenError, "Forbidden", id="a pod that its namespace's Pod Security does not admit",
        ),
        pytest.param(
            lambda c, ns: c.apply(DEPLOYMENTS, {**deployment(ns), "spec": {"nonsense": 1}}, field_manager="t"),
            ApiServerError, "Unknown", id="a field that the schema does not have: the server answers 500",
        ),
    ],
)  # fmt: skip
async def test_refusals(
    client: ApiClient, namespace: str, request_: Broken, error: type[ApiError], reason: str
) -> None:
    with pytest.raises(error) as caught:
        await request_(client, namespace)
    assert caught.value.reason == reason, caught.value
    assert caught.value.message


async def test_a_service_account_may_what_its_binding_says_and_its_token_may_rotate(
    apiserver: ApiServer, client: ApiClient, namespace: str, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("expired or made up")
    admin = connection.from_kubeconfig(apiserver.kubeconfig)
    tls = ssl.create_default_context(cafile=apiserver.ca)
    async with ApiClient(dataclasses.replace(admin, tls=tls, token=FileToken(file))) as pod:
        with pytest.raises(UnauthorizedError):
            await pod.list(CONFIG_MAPS, namespace)
        file.write_text(await token(client, "sa", namespace))
        with pytest.raises(ForbiddenError, match=rf"system:serviceaccount:{namespace}:sa.*cannot list.*configmaps"):
            await pod.list(CONFIG_MAPS, namespace)
        may_list = RbacGrant("Test", "", ("configmaps",), ("list",))
        await grant(client, "sa", (may_list,), manifests.service_account("sa", namespace), namespace=namespace)

        async def listed() -> tuple[list[dict[str, Any]]]:
            return ((await pod.list(CONFIG_MAPS, namespace))[0],)

        what = "the authoriser sees the new binding"
        assert await eventually(listed, what, retry_on=(ForbiddenError,)) == ([],)
        with pytest.raises(ForbiddenError, match="cannot create"):
            await pod.create(CONFIG_MAPS, config_map(namespace))
