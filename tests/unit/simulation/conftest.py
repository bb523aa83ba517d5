"""A simulated server in virtual time for each test, and a client of it."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from r1plus_operator.api import kinds
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.connection import ApiConnection
from support.api_contract.cluster import Cluster
from support.apiserver import manifests
from support.simulation.collection import Collector
from support.simulation.faults import Faults
from support.simulation.server import SimulatedApiServer
from support.simulation.transport import SimulatedTransport

EPOCH = 1_800_000_000.0
NAMESPACE = "team-a"


@pytest.fixture(autouse=True)
async def in_virtual_time(virtual_time: None) -> None:
    """Run every test here in virtual time."""


@pytest.fixture
async def server() -> SimulatedApiServer:
    """A server with one tenant's namespace."""
    loop = asyncio.get_running_loop()
    server = SimulatedApiServer(random.Random(1), lambda: EPOCH + loop.time())
    server.create(kinds.NAMESPACE, manifests.tenant_namespace(NAMESPACE))
    return server


@pytest.fixture
async def faults(server: SimulatedApiServer) -> Faults:
    """The plan of what goes wrong: nothing yet."""
    return Faults(random.Random(2), server.now)


@pytest.fixture
async def client(server: SimulatedApiServer, faults: Faults) -> AsyncIterator[ApiClient]:
    """A client of the replica `one`."""
    transport = SimulatedTransport(server, user="admin", faults=faults, replica="one")
    async with ApiClient(ApiConnection("http://simulated"), transport=transport) as client:
        yield client


@pytest.fixture
async def cluster(server: SimulatedApiServer, client: ApiClient) -> Cluster:
    """The server as the contract's behaviours see it."""
    return Cluster(client, NAMESPACE)


@pytest.fixture
async def collector(server: SimulatedApiServer) -> Collector:
    """Kubernetes' controllers at work on the server."""
    return Collector(server, random.Random(3), asyncio.get_running_loop().call_later)
