"""The 74 classes of bad input: refused at admission with the field's path, or taken, told and made whole. No crash.

The cases and what is expected of each are in `fuzz.bad_inputs`. What is taken goes through the real operator beside the
real controllers, so that the garbage collector and the Deployment controller have their say.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from apiserver.conftest import NAMESPACES, RESTRICTED
from apiserver.operator_rig import Monitors, OperatorProcess, Tenant, add_node, eventually, grant
from apiserver.test_operator import healthy, passes
from devcluster.apiserver_only import ApiServer
from fuzz import tenant_inputs
from fuzz.bad_inputs import CLASSES, body_of, full, said, taken
from fuzz.cases import Case, NoRoom, Refused, Taken
from fuzz.judges import Server
from r1plus_contract import names
from r1plus_operator.api import kinds
from r1plus_operator.api.tenants import R1PlusTenantSpec
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.errors import ApiError, ConflictError, NotFoundError

pytestmark = pytest.mark.apiserver

CASES = {
    f"{name} ({number + 1})" if len(cases) > 1 else name: case
    for name, cases in CLASSES.items()
    for number, case in enumerate(cases)
}
Json = dict[str, Any]
QUIET_SECONDS = 2.0
"""Longer than any backoff at its start; a deployment that waits is looked at every 15 s."""


def test_there_are_74_classes() -> None:
    assert len(CLASSES) == 74
    assert all(CLASSES.values())
    assert set(tenant_inputs.REFUSED) <= set(CLASSES)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_each_is_refused_with_its_field_or_taken(apiserver: ApiServer, namespace: str, case: Case) -> None:
    body = body_of(case)
    text = body if isinstance(body, str) else json.dumps(body)
    kind = names.KIND_DEPLOYMENT if isinstance(body, str) else body["kind"]
    async with Server(apiserver.kubeconfig) as server:
        verdict = await server.ask("POST", kinds.BY_KIND[kind], text, lambda made: made, namespace=namespace)
    if isinstance(case, Taken):
        assert verdict.admitted, verdict.why
    else:
        assert isinstance(case, Refused | NoRoom)
        assert not verdict.admitted
        assert [words for words in said(case) if words not in verdict.why] == [], verdict.why


@pytest.mark.parametrize("body", tenant_inputs.TAKEN.values(), ids=tenant_inputs.TAKEN)
async def test_a_tenant_that_asks_for_what_there_is_is_taken_and_read(
    apiserver: ApiServer, namespace: str, body: Json
) -> None:
    async with Server(apiserver.kubeconfig) as server:
        text = json.dumps(body)
        verdict = await server.ask("POST", kinds.R1PLUS_TENANT, text, lambda made: made, namespace=namespace)
    assert verdict.admitted, verdict.why
    assert R1PlusTenantSpec.model_validate(verdict.read["spec"]) == R1PlusTenantSpec.model_validate(body["spec"])
    assert "status" not in verdict.read


async def test_a_second_tenant_of_a_namespace_is_refused(client: ApiClient, namespace: str) -> None:
    body = tenant_inputs.tenant(metadata={"namespace": namespace})
    await client.create(kinds.R1PLUS_TENANT, body)
    with pytest.raises(ConflictError, match="already exists"):
        await client.create(kinds.R1PLUS_TENANT, body)
    with pytest.raises(ApiError, match=r"metadata.name.*tenant"):
        await client.create(kinds.R1PLUS_TENANT, tenant_inputs.tenant("tenant2", {"namespace": namespace}))


@pytest.fixture
async def admin(apiserver_with_controllers: ApiServer) -> AsyncIterator[ApiClient]:
    async with ApiClient.from_kubeconfig(apiserver_with_controllers.kubeconfig) as made:
        yield made


@pytest.fixture
async def tenant(admin: ApiClient) -> Tenant:
    """A tenant's namespace, and in it a suite that holds nothing."""
    name = f"t-{uuid.uuid4().hex[:10]}"
    meta: Json = {"name": name, "labels": RESTRICTED}
    await admin.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
    meta = {"name": "keyless", "namespace": name, "labels": {names.LABEL_SUITE: "keyless"}}
    await admin.create(kinds.CONFIG_MAP, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"x": ""}})
    return Tenant(admin, name, Monitors())


@pytest.fixture
async def operator(
    apiserver_with_controllers: ApiServer, admin: ApiClient, tmp_path: Path
) -> AsyncIterator[OperatorProcess]:
    await grant(admin)
    await add_node(admin)
    process = OperatorProcess(apiserver_with_controllers, tmp_path / "operator.log")
    process.start()
    yield process
    process.kill()


async def test_what_is_taken_is_told_made_whole_and_left_alone(operator: OperatorProcess, tenant: Tenant) -> None:
    made = {await create(tenant, case): case for case in taken()}
    for name, case in made.items():
        await settle(tenant, name, case)
    await eventually(lambda: resting(operator), "no pass is made any more, nor asked for")
    assert await healthy(operator)
    assert [line for line in operator.log.splitlines() if "ERROR" in line or "was refused" in line] == []


async def create(tenant: Tenant, case: Taken) -> str:
    """The case's deployment, or for an engine one that asks for it; its name."""
    body = case.sent
    if body["kind"] == names.KIND_ENGINE:
        await tenant.client.create(kinds.R1PLUS_ENGINE, body)
        body = full(body["metadata"]["name"], engine={"family": body["metadata"]["name"]})
    body = body | {"metadata": body["metadata"] | {"namespace": tenant.namespace}}
    return str((await tenant.client.create(kinds.R1PLUS_DEPLOYMENT, body))["metadata"]["name"])


async def settle(tenant: Tenant, name: str, case: Taken) -> None:
    """Wait for what is expected, all of it, and again after what happens next."""
    if case.then == "collected":
        await eventually(lambda: absent(tenant, name), f"{name}: collected with its owner")
        await eventually(lambda: has_children(tenant, name, frozenset()), f"{name}: its children are collected")
        return
    kind, status, reason = case.condition
    assert case.says in await tenant.until(name, kind, status, reason)
    await eventually(lambda: has_children(tenant, name, case.children), f"{name}: {sorted(case.children)}")
    if case.then == "edited":
        before = await tenant.candidate(name)
        await tenant.deploy(name, tier="lite")
        after = await tenant.candidate(name, other_than=before)
        await tenant.absent("Deployment", before)
        await tenant.present("Deployment", after)
    if case.then == "recreated":
        await tenant.client.delete(kinds.R1PLUS_DEPLOYMENT, name, tenant.namespace)
        await create(tenant, case)
        uid = (await tenant.cr(name))["metadata"]["uid"]
        await eventually(lambda: has_children(tenant, name, case.children, uid), f"{name}: children of the new one")
    if case.then == "deleted":
        await tenant.client.delete(kinds.R1PLUS_DEPLOYMENT, name, tenant.namespace)
        await tenant.client.patch(kinds.R1PLUS_DEPLOYMENT, name, tenant.namespace, {"metadata": {"finalizers": None}})
        await eventually(lambda: has_children(tenant, name, frozenset()), f"{name}: its children are collected")


async def absent(tenant: Tenant, name: str) -> bool:
    """Whether the deployment is gone."""
    try:
        await tenant.cr(name)
    except NotFoundError:
        return True
    return False


async def has_children(tenant: Tenant, name: str, wanted: frozenset[str], uid: str = "") -> bool:
    """Whether exactly these kinds are there, all of them owned by `uid` if it is given: all of a plan or nothing."""
    found = set()
    for resource in kinds.REQUIRED_CHILDREN:
        selector = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY},{names.LABEL_DEPLOYMENT}={name}"
        for child in (await tenant.client.list(resource, tenant.namespace, label_selector=selector))[0]:
            owners = {reference["uid"] for reference in child["metadata"].get("ownerReferences", ())}
            found.add(resource.kind if not uid or owners == {uid} else "of another owner")
    return found == wanted


async def resting(operator: OperatorProcess) -> bool:
    """Whether nothing is looked at for a while: a hot loop never rests."""
    before = await passes(operator)
    await asyncio.sleep(QUIET_SECONDS)
    return await passes(operator) == before
