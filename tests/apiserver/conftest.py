"""A real kube-apiserver with etcd for every test here: one per worker, a namespace and a client per test.

No scheduler, no controllers, no node: what the tests see is what they and the operator wrote. A test that needs owner
references to be collected takes `apiserver_with_controllers`.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import yaml

from apiserver.crds import install_crd
from apiserver.operator_rig import NAMESPACES, Monitors, Tenant
from devcluster import binaries
from devcluster.apiserver_only import ApiServer
from devcluster.parts import API_SERVER_BINARIES
from devcluster.steps import Steps
from r1plus_contract import names
from r1plus_operator.runtime.client import ApiClient

CHART_CRDS = Path(__file__).parents[2] / "charts" / "r1plus-operator" / "crds"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted", "r1plus.ai/tenant": "true"}


@pytest.fixture(scope="session")
def apiserver() -> Iterator[ApiServer]:
    """Started once, with the chart's CRDs; builds first what the cache lacks."""
    yield from _started(controller_manager=False)


@pytest.fixture(scope="session")
def apiserver_with_controllers() -> Iterator[ApiServer]:
    """One more, with the controller manager: it collects orphans and makes ReplicaSets of Deployments."""
    yield from _started(controller_manager=True)


@pytest.fixture
async def client(apiserver: ApiServer) -> AsyncIterator[ApiClient]:
    """A cluster administrator's client."""
    async with ApiClient.from_kubeconfig(apiserver.kubeconfig) as made:
        yield made


@pytest.fixture
async def namespace(client: ApiClient) -> AsyncIterator[str]:
    """A tenant's namespace of its own for each test. It goes with the server: nothing here would finish deleting it.

    Once the test is over it is no tenant any more: the runs of the prober that nobody plays to their end would hold the
    places of a later test's.
    """
    name = f"t-{uuid.uuid4().hex[:10]}"
    meta = {"name": name, "labels": RESTRICTED}
    await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
    yield name
    await client.patch(NAMESPACES, name, None, {"metadata": {"labels": {names.LABEL_TENANT: None}}})


@pytest.fixture
async def tenant(client: ApiClient, namespace: str) -> AsyncIterator[Tenant]:
    """That namespace with monitors at an address of its own."""
    monitors = Monitors()
    await monitors.start()
    yield Tenant(client, namespace, monitors)
    await monitors.stop()


def _started(*, controller_manager: bool) -> Iterator[ApiServer]:
    binaries.build(Steps(len(API_SERVER_BINARIES)), API_SERVER_BINARIES)
    with ApiServer(controller_manager=controller_manager) as server:
        asyncio.run(_install_crds(server))
        yield server


async def _install_crds(server: ApiServer) -> None:
    async with ApiClient.from_kubeconfig(server.kubeconfig) as client:
        for path in sorted(CHART_CRDS.glob("*.yaml")):
            for crd in yaml.safe_load_all(path.read_text()):
                await install_crd(client, crd)
