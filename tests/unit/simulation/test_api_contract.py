"""The simulated API server does what the real one does: tests/apiserver/test_api_contract.py tries the same there."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.connection import ApiConnection
from support.api_contract import applying, children, controllers, deleting, history, reading, watching, writing
from support.api_contract.cluster import Behaviour, Cluster, list_behaviours
from support.api_contract.history import Keeper
from support.simulation.collection import Collector
from support.simulation.faults import Faults
from support.simulation.server import SimulatedApiServer
from support.simulation.store import Snapshot
from support.simulation.transport import SimulatedTransport


@pytest.mark.parametrize("behaviour", list_behaviours((reading, writing, applying, children, deleting, watching)))
async def test_the_simulation_does_the_same(cluster: Cluster, behaviour: Behaviour) -> None:
    await behaviour(cluster)


@pytest.mark.parametrize("behaviour", list_behaviours((controllers,)))
async def test_its_controllers_do_the_same(cluster: Cluster, collector: Collector, behaviour: Behaviour) -> None:
    assert collector is not None
    await behaviour(cluster)


@pytest.mark.parametrize("behaviour", list_behaviours((history,)))
async def test_it_restarts_and_is_restored_the_same(
    server: SimulatedApiServer, cluster: Cluster, faults: Faults, behaviour: Callable[[Keeper], Awaitable[None]]
) -> None:
    await behaviour(SimulatedKeeper(server, cluster.namespace, faults))


@dataclass
class SimulatedKeeper:
    """Restarts the simulated server."""

    server: SimulatedApiServer
    namespace: str
    faults: Faults
    backup: Snapshot = field(init=False)

    def open_client(self) -> ApiClient:
        transport = SimulatedTransport(self.server, user="admin", faults=self.faults)
        return ApiClient(ApiConnection("http://simulated"), transport=transport)

    async def restart(self) -> None:
        self.server.restart()

    async def save(self) -> None:
        self.backup = self.server.save()

    async def restore(self) -> None:
        self.server.restore(self.backup)
