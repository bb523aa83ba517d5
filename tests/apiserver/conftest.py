"""A real kube-apiserver with etcd for every test here: one per worker, a namespace and a client per test.

No scheduler, no controllers, no node: what the tests see is what they and the operator wrote. Tests of the chart's
policies, and of what controllers do, have a second server: `installed_server`. A module's tests share one operator,
which watches all namespaces: two of them on one server would lead both.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from devcluster.apiserver_only import ApiServer
from r1plus_operator.runtime.client import ApiClient
from support.apiserver.admission_world import (
    AdmissionWorld,
    CompromisedOperator,
    TenantRights,
    admission_world,
    compromised,
    serving_optional_kinds,
)
from support.apiserver.chart import started_with_chart
from support.apiserver.monitors import Monitors
from support.apiserver.operator_process import OperatorProcess
from support.apiserver.people import Person, administrator
from support.apiserver.rights import grant_operator
from support.apiserver.scheduling import ServerScheduling
from support.apiserver.server import add_node, started_with_crds
from support.apiserver.tenant import Tenant, new_tenant


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test here time on a machine that is ten times slower."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(900))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ServerScheduling | None:
    """Run whatever needs the server with the chart in one worker, if workers get whole files."""
    return ServerScheduling(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def apiserver() -> Iterator[ApiServer]:
    """Started once, with the chart's CRDs; builds first what the cache lacks."""
    with started_with_crds() as server:
        yield server


@pytest.fixture(scope="session")
def installed_server() -> Iterator[ApiServer]:
    """One more, with the controller manager, and with the chart's rights and policies in force."""
    with started_with_chart() as server:
        yield server


@pytest.fixture(scope="module")
def admin(installed_server: ApiServer) -> Iterator[Person]:
    """A cluster administrator of that server."""
    with administrator(installed_server) as made:
        yield made


@pytest.fixture(scope="module")
def tenant_rights() -> TenantRights:
    """Rights of the administrator of `world`; a module whose administrator has others overrides this."""
    return TenantRights()


@pytest.fixture(scope="module")
def world(installed_server: ApiServer, admin: Person, tenant_rights: TenantRights) -> Iterator[AdmissionWorld]:
    """A tenant of the module's own on the server with the chart, on which it tries the policies."""
    with admission_world(installed_server, admin, tenant_rights) as made:
        yield made


@pytest.fixture(scope="module")
def attacker(installed_server: ApiServer, admin: Person) -> Iterator[CompromisedOperator]:
    """Somebody who has taken over the operator's process, whose account has every right for the module."""
    with compromised(installed_server, admin) as made:
        yield made


@pytest.fixture(scope="module")
def optional_kinds(admin: Person) -> Iterator[None]:
    """Definitions of PodMonitor and PrometheusRule on the server with the chart, for the module."""
    with serving_optional_kinds(admin):
        yield


@pytest.fixture(scope="module")
def server(apiserver: ApiServer) -> ApiServer:
    """The server of `client`, `tenant` and `operator`; a module that needs the other one overrides this."""
    return apiserver


@pytest.fixture
async def client(server: ApiServer) -> AsyncIterator[ApiClient]:
    """A cluster administrator's client."""
    async with ApiClient.from_kubeconfig(server.kubeconfig) as made:
        yield made


@pytest.fixture
async def tenant(client: ApiClient) -> AsyncIterator[Tenant]:
    """A tenant's namespace of its own for each test, with monitors at an address of its own."""
    async with new_tenant(client) as made:
        yield made


@pytest.fixture
def namespace(tenant: Tenant) -> str:
    """The name of that namespace."""
    return tenant.namespace


@pytest.fixture
async def neighbour(client: ApiClient) -> AsyncIterator[Tenant]:
    """Another tenant."""
    async with new_tenant(client) as made:
        yield made


@pytest.fixture
async def second() -> AsyncIterator[Monitors]:
    """Another monitor than the tenant's, for another pod."""
    monitors = Monitors()
    await monitors.start()
    yield monitors
    await monitors.stop()


@pytest.fixture(scope="module")
def operator_settings() -> dict[str, str]:
    """Environment of the module's operator; a module that needs a certain one overrides this."""
    return {}


@pytest.fixture(scope="module")
def operator_of_module(
    server: ApiServer, operator_settings: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    """One operator for all tests of a module."""
    asyncio.run(_prepare(server))
    made = OperatorProcess(server, tmp_path_factory.mktemp("operator") / "operator.log", **operator_settings)
    yield made
    made.kill()


@pytest.fixture
def operator(operator_of_module: OperatorProcess) -> OperatorProcess:
    """The module's operator. It runs, whatever the last test did to it, and its log begins with this test."""
    operator_of_module.begin_test()
    return operator_of_module


async def _prepare(server: ApiServer) -> None:
    async with ApiClient.from_kubeconfig(server.kubeconfig) as client:
        await grant_operator(client)
        await add_node(client)
