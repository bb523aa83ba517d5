"""The contract that the simulated API server holds, against the real one: tests/unit/simulation tries the same there."""

import asyncio
import shutil
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from devcluster.apiserver_only import ApiServer
from r1plus_operator.api import kinds
from r1plus_operator.runtime.client import ApiClient
from support.api_contract import applying, children, controllers, deleting, history, reading, watching, writing
from support.api_contract.cluster import Behaviour, Cluster, list_behaviours
from support.api_contract.history import Keeper
from support.apiserver.manifests import tenant_namespace

pytestmark = pytest.mark.apiserver


@pytest.mark.parametrize("behaviour", list_behaviours((reading, writing, applying, children, deleting, watching)))
async def test_the_real_server_does_the_same(client: ApiClient, namespace: str, behaviour: Behaviour) -> None:
    await behaviour(Cluster(client, namespace))


@pytest.mark.parametrize("behaviour", list_behaviours((controllers,)))
async def test_the_real_controllers_do_the_same(installed_server: ApiServer, behaviour: Behaviour) -> None:
    namespace = f"contract-{uuid.uuid4().hex[:10]}"
    async with ApiClient.from_kubeconfig(installed_server.kubeconfig) as client:
        await client.create(kinds.NAMESPACE, tenant_namespace(namespace))
        await behaviour(Cluster(client, namespace))


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
