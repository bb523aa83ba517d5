"""The contract that the simulated API server holds, against the real one: tests/unit/simulation tries the same there."""

import asyncio
import random
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from devcluster.apiserver_only import ApiServer
from r1plus_operator.api import kinds
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.connection import ApiConnection
from support.api_contract import applying, children, controllers, deleting, history, reading, watching, writing
from support.api_contract.cluster import Behaviour, Cluster, list_behaviours
from support.api_contract.history import Keeper
from support.api_contract.sequences import Sequence
from support.apiserver.manifests import manifest, tenant_namespace
from support.simulation.faults import Faults
from support.simulation.server import SimulatedApiServer
from support.simulation.transport import SimulatedTransport

pytestmark = pytest.mark.apiserver
STEPS = 60
"""Writes of one random sequence."""


@pytest.mark.parametrize("behaviour", list_behaviours((reading, writing, applying, children, deleting, watching)))
async def test_the_real_server_does_the_same(client: ApiClient, namespace: str, behaviour: Behaviour) -> None:
    await behaviour(Cluster(client, namespace))


@pytest.mark.parametrize("behaviour", list_behaviours((controllers,)))
async def test_the_real_controllers_do_the_same(installed_server: ApiServer, behaviour: Behaviour) -> None:
    # No tenant: operators of other tests use this server, and would try to write into a full quota.
    namespace = f"contract-{uuid.uuid4().hex[:10]}"
    async with ApiClient.from_kubeconfig(installed_server.kubeconfig) as client:
        await client.create(kinds.NAMESPACE, manifest(kinds.NAMESPACE, namespace))
        await behaviour(Cluster(client, namespace))


@pytest.mark.parametrize("seed", range(8))
async def test_random_writes_come_out_the_same(client: ApiClient, namespace: str, seed: int) -> None:
    await compare_writes(client, namespace, seed)


@pytest.mark.apiserver_long
@pytest.mark.parametrize("seed", range(100, 200))
async def test_many_more_random_writes_come_out_the_same(client: ApiClient, namespace: str, seed: int) -> None:
    await compare_writes(client, namespace, seed)


async def compare_writes(client: ApiClient, namespace: str, seed: int) -> None:
    """Make the same writes to the real server and to a simulated one, and compare each answer and each object."""
    server = SimulatedApiServer(random.Random(seed), time.time)
    server.create(kinds.NAMESPACE, tenant_namespace(namespace))
    faults = Faults(random.Random(seed), time.time, latency=(0.0, 0.0))
    transport = SimulatedTransport(server, user="admin", faults=faults)
    async with ApiClient(ApiConnection("http://simulated"), transport=transport) as simulated:
        expected = Sequence(seed, Cluster(client, namespace)).run(STEPS)
        found = Sequence(seed, Cluster(simulated, namespace)).run(STEPS)
        writes = []
        async for write, real in expected:
            writes.append(write)
            assert (await anext(found))[1] == real, f"after {writes}"


@pytest.fixture
async def keeper(tmp_path: Path) -> AsyncIterator[Keeper]:
    """A server of the test's own, which it may restart."""
    made = RealKeeper(tmp_path / "server")
    await asyncio.to_thread(made.server.start)
    try:
        async with made.open_client() as client:
            await client.create(kinds.NAMESPACE, tenant_namespace(made.namespace))
        yield made
    finally:
        made.server.stop()


@pytest.mark.apiserver_long
@pytest.mark.parametrize("behaviour", list_behaviours((history,)))
async def test_the_real_server_restarts_and_is_restored_the_same(
    keeper: Keeper, behaviour: Callable[[Keeper], Awaitable[None]]
) -> None:
    await behaviour(keeper)


class RealKeeper:
    """Restarts a real server, and copies etcd's files while it is stopped."""

    def __init__(self, folder: Path) -> None:
        self.namespace = "contract"
        self.server = ApiServer(folder=folder)
        self._files, self._backup = folder / "etcd", folder / "backup"

    def open_client(self) -> ApiClient:
        return ApiClient.from_kubeconfig(self.server.kubeconfig)

    async def restart(self) -> None:
        await asyncio.to_thread(self.server.restart)

    async def save(self) -> None:
        await asyncio.to_thread(self._copy, self._files, self._backup)

    async def restore(self) -> None:
        await asyncio.to_thread(self._copy, self._backup, self._files)

    def _copy(self, source: Path, target: Path) -> None:
        self.server.stop()
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)
        self.server.start()
