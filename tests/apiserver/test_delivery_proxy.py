"""Engines that are fetched through a proxy: what the operator makes for that is admitted by the chart's own policies."""

import json
import uuid
from collections.abc import AsyncIterator

import pytest

from devcluster.apiserver_only import ApiServer
from r1plus_contract import names
from r1plus_contract.engine.engine_fetch import CA_FILE, ORDER_FILE, PROXY_FILE
from r1plus_operator.api import kinds
from r1plus_operator.plan.revision.storage import read_revision
from r1plus_operator.runtime.client import ApiClient
from support.apiserver.manifests import CONTEXT, Json, manifest
from support.apiserver.operator_process import OperatorProcess
from support.apiserver.tenant import Tenant
from support.chart import BANK_CA
from support.plan.world import CATALOG

pytestmark = pytest.mark.apiserver
PROXY = "http://proxy.bank.example:3128"
URL = "https://models.bank.example:8443/lite.tar"


@pytest.fixture(scope="module")
def server(installed_server: ApiServer) -> ApiServer:
    """Its policies hold the operator to what the chart says."""
    return installed_server


@pytest.fixture(scope="module")
def operator_settings() -> dict[str, str]:
    """As the chart sets them from delivery.proxy and delivery.ca; no server is reached without the proxy."""
    return {
        "R1PLUS_DELIVERY_REQUIRE_SIGNATURE": "false",
        "R1PLUS_DELIVERY_CA": BANK_CA,
        "R1PLUS_DELIVERY_PROXY": PROXY,
        "R1PLUS_DELIVERY_PROXY_CIDRS": "10.0.9.7/32,fd00::7/128",
        "R1PLUS_DELIVERY_NO_PROXY": ".svc",
    }


@pytest.fixture
async def archive(client: ApiClient) -> AsyncIterator[str]:
    """An engine on the bank's server; its family."""
    (full,) = [engine.spec for engine in CATALOG if engine.name == "smollm2-full-f16"]
    name = f"proxied-{uuid.uuid4().hex[:8]}"
    artifact = {"sha256": "b" * 64, "archive": {"url": URL, "sha256": "c" * 64, "size": "400Mi"}}
    spec = full.model_dump(mode="json", by_alias=True, exclude_none=True) | {"family": name, "artifact": artifact}
    await client.create(kinds.R1PLUS_ENGINE, manifest(kinds.R1PLUS_ENGINE, name, spec=spec))
    yield name
    await client.delete(kinds.R1PLUS_ENGINE, name)


async def test_a_job_behind_a_proxy_is_admitted_with_its_policies_and_its_ca(
    operator: OperatorProcess, tenant: Tenant, archive: str
) -> None:
    await tenant.deploy("credit", tier="full", context=CONTEXT, engine={"family": archive})
    volume = read_revision(await tenant.present("ControllerRevision", await tenant.candidate("credit"))).volume
    assert volume is not None
    job = await tenant.present("Job", volume.name)
    order = (await tenant.present("ConfigMap", volume.name))["data"]
    assert (order[PROXY_FILE], order[CA_FILE]) == (PROXY, BANK_CA)
    assert json.loads(order[ORDER_FILE])["archive"]["url"] == URL
    assert await read_egress(tenant, volume.name) == [("10.0.9.7/32", 3128), ("fd00::7/128", 3128)]
    # The chart's proxy goes, and the server's network comes: another Job is made, with other egress.
    operator.upgrade(R1PLUS_DELIVERY_PROXY="", R1PLUS_DELIVERY_CIDRS="10.20.0.0/16")
    again = await tenant.present("Job", volume.name, other_than=job)
    assert (await tenant.present("ConfigMap", volume.name))["data"].keys() == {ORDER_FILE, CA_FILE}
    assert await read_egress(tenant, volume.name) == [("10.20.0.0/16", 8443)]
    digests = {one["metadata"]["annotations"][names.ANNOTATION_ORDER] for one in (job, again)}
    assert len(digests) == 2
    assert operator.forbidden(tenant.namespace) == []


async def read_egress(tenant: Tenant, volume: str) -> list[tuple[str, int]]:
    """Return (network, port) of what the volume's Job reaches, but for DNS."""
    spec: Json = (await tenant.present("NetworkPolicy", volume))["spec"]
    _, way = spec["egress"]
    (port,) = way["ports"]
    return [(peer["ipBlock"]["cidr"], port["port"]) for peer in way["to"]]
