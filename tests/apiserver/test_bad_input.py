"""The classes of bad input: refused at admission with the field's path, or taken, told and made whole. No crash.

The cases and what is expected of each are in `fuzz.bad_inputs`. What is taken goes through the real operator beside the
real controllers, so that the garbage collector and the Deployment controller have their say.
"""

import asyncio
import json
import uuid

import pytest

from devcluster.apiserver_only import ApiServer
from fuzz import tenant_inputs
from fuzz.bad_inputs import CLASSES, body_of, full, said, taken
from fuzz.cases import Case, NoRoom, Refused, Taken
from fuzz.judges import Server
from r1plus_contract import names
from r1plus_operator.api import kinds
from r1plus_operator.api.tenants import R1PlusTenantSpec
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.errors import ApiError, ConflictError
from support.apiserver.manifests import Json, config_map, tenant_namespace
from support.apiserver.operator_process import OperatorProcess
from support.apiserver.people import administrator
from support.apiserver.tenant import Tenant
from support.waiting import eventually

pytestmark = pytest.mark.apiserver

CASES = {
    f"{name} ({number + 1})" if len(cases) > 1 else name: case
    for name, cases in CLASSES.items()
    for number, case in enumerate(cases)
}
QUIET_SECONDS = 2.0
"""Longer than any backoff at its start; a deployment that waits is looked at every 15 s."""
FIRST_PASSES_SECONDS = 600.0
"""For the first look at all of them, one after the other."""
AT_ONCE = 4
"""Cases that are looked at: to look at all of them takes the time that the operator needs to come to the last one."""


@pytest.fixture(scope="module")
def namespace(apiserver: ApiServer) -> str:
    """A tenant's namespace for dry runs, on the server without policies: it is the schema that refuses."""
    name = f"bad-input-{uuid.uuid4().hex[:10]}"
    with administrator(apiserver) as admin:
        admin.do("POST", kinds.NAMESPACE.path(), tenant_namespace(name))
    return name


@pytest.mark.apiserver_sample
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_each_is_refused_with_its_field_or_taken(apiserver: ApiServer, namespace: str, case: Case) -> None:
    body = body_of(case)
    text = body if isinstance(body, str) else json.dumps(body)
    kind = names.KIND_DEPLOYMENT if isinstance(body, str) else body["kind"]
    async with Server(apiserver.kubeconfig) as judge:
        verdict = await judge.ask("POST", kinds.BY_KIND[kind], text, lambda made: made, namespace=namespace)
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
    async with Server(apiserver.kubeconfig) as judge:
        text = json.dumps(body)
        verdict = await judge.ask("POST", kinds.R1PLUS_TENANT, text, lambda made: made, namespace=namespace)
    assert verdict.admitted, verdict.why
    assert R1PlusTenantSpec.model_validate(verdict.read["spec"]) == R1PlusTenantSpec.model_validate(body["spec"])
    assert verdict.read["status"] == {"observedGeneration": -1}


async def test_a_second_tenant_of_a_namespace_is_refused(client: ApiClient, tenant: Tenant) -> None:
    namespace = tenant.namespace
    body = tenant_inputs.tenant(metadata={"namespace": namespace})
    await client.create(kinds.R1PLUS_TENANT, body)
    with pytest.raises(ConflictError, match="already exists"):
        await client.create(kinds.R1PLUS_TENANT, body)
    with pytest.raises(ApiError, match=r"metadata.name.*tenant"):
        await client.create(kinds.R1PLUS_TENANT, tenant_inputs.tenant("tenant2", {"namespace": namespace}))


@pytest.fixture(scope="module")
def server(installed_server: ApiServer) -> ApiServer:
    """Of what is taken: real controllers, so that the garbage collector has its say."""
    return installed_server


async def test_what_is_taken_is_told_made_whole_and_left_alone(operator: OperatorProcess, tenant: Tenant) -> None:
    await tenant.client.create(
        kinds.CONFIG_MAP, config_map("keyless", tenant.namespace, {names.LABEL_SUITE: "keyless"}, x="")
    )
    made = {await create(tenant, case): case for case in taken()}
    await eventually(lambda: are_all_reported(tenant), "each has conditions", FIRST_PASSES_SECONDS, period_s=1.0)
    slots = asyncio.Semaphore(AT_ONCE)
    await asyncio.gather(*(settle(tenant, name, case, slots) for name, case in made.items()))
    await eventually(lambda: is_resting(operator), "no pass is made any more, nor asked for")
    assert await operator.ready()
    wrong = [line for line in operator.log.splitlines() if "ERROR" in line or "Reconcile of " in line]
    assert [line for line in wrong if not is_namesakes(line)] == []


async def create(tenant: Tenant, case: Taken) -> str:
    """The case's deployment, or for an engine one that asks for it; its name."""
    body = case.sent
    if body["kind"] == names.KIND_ENGINE:
        await tenant.client.create(kinds.R1PLUS_ENGINE, body)
        body = full(body["metadata"]["name"], engine={"family": body["metadata"]["name"]})
    body = body | {"metadata": body["metadata"] | {"namespace": tenant.namespace}}
    return str((await tenant.client.create(kinds.R1PLUS_DEPLOYMENT, body))["metadata"]["name"])


async def are_all_reported(tenant: Tenant) -> bool:
    """Return whether the operator has come to the last of them; those that are deleted at once are not there."""
    return all("conditions" in body.get("status", {}) for body in await tenant.listed(names.KIND_DEPLOYMENT))


async def settle(tenant: Tenant, name: str, case: Taken, slots: asyncio.Semaphore) -> None:
    """Wait for what is expected, all of it, and again after what happens next, when it is this case's turn."""
    async with slots:
        await _settle(tenant, name, case)


async def _settle(tenant: Tenant, name: str, case: Taken) -> None:
    if case.then == "collected":
        await tenant.absent(names.KIND_DEPLOYMENT, name)
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


async def has_children(tenant: Tenant, name: str, wanted: frozenset[str], uid: str = "") -> bool:
    """Whether exactly these kinds are there, all of them owned by `uid` if it is given: all of a plan or nothing."""
    found = set()
    selector = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY},{names.LABEL_DEPLOYMENT}={name}"
    for resource in kinds.REQUIRED_CHILDREN:
        for child in await tenant.listed(resource.kind, selector):
            owners = {reference["uid"] for reference in child["metadata"].get("ownerReferences", ())}
            found.add(resource.kind if not uid or owners == {uid} else "of another owner")
    return found == wanted


def is_namesakes(line: str) -> bool:
    """Whether a child of the namesake before was met, which the garbage collector was about to take.

    Its owner is another; and the data of a ControllerRevision, which name the owner's UID, cannot be changed.
    """
    of_another = ("cannot set an ownerRef on a resource you can't delete", 'ControllerRevision.apps "reborn-')
    return "/reborn failed: " in line and any(words in line for words in of_another)


async def is_resting(operator: OperatorProcess) -> bool:
    """Whether nothing is looked at for a while: a hot loop never rests."""
    before = await operator.passes()
    await asyncio.sleep(QUIET_SECONDS)
    return await operator.passes() == before
