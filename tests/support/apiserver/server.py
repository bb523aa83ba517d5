"""A real API server with the chart's definitions, for one test session."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from devcluster import binaries
from devcluster.apiserver_only import ApiServer
from devcluster.parts import API_SERVER_BINARIES
from devcluster.steps import Steps
from r1plus_operator.api import kinds
from r1plus_operator.api.crd import CRD
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.errors import NotFoundError
from r1plus_operator.runtime.resources import Resource
from support.apiserver.manifests import Json, condition_of, manifest
from support.waiting import eventually

ROOT = Path(__file__).parents[3]
CHART = ROOT / "charts" / "r1plus-operator"
CHART_CRDS = CHART / "crds"
NODE = manifest(kinds.NODE, "n1", status={"allocatable": {"cpu": "4", "memory": "64Gi", "pods": "110"}})


@contextmanager
def started(*, controller_manager: bool = False) -> Iterator[ApiServer]:
    """Start an API server without definitions; build it first if the cache lacks it."""
    binaries.build(Steps(len(API_SERVER_BINARIES)), API_SERVER_BINARIES)
    with ApiServer(controller_manager=controller_manager) as server:
        yield server


@contextmanager
def started_with_crds(*, controller_manager: bool = False) -> Iterator[ApiServer]:
    """Start an API server with the chart's definitions."""
    with started(controller_manager=controller_manager) as server:
        asyncio.run(_install(server))
        yield server


async def _install(server: ApiServer) -> None:
    async with ApiClient.from_kubeconfig(server.kubeconfig) as client:
        await install_chart_crds(client)


async def install_chart_crds(client: ApiClient) -> None:
    """Apply the chart's definitions and wait until they are served."""
    found = [crd for path in sorted(CHART_CRDS.glob("*.yaml")) for crd in yaml.safe_load_all(path.read_text())]
    await asyncio.gather(*(install_crd(client, crd) for crd in found))


async def install_crd(client: ApiClient, crd: Json) -> None:
    """Apply a definition and wait until the server serves each of its versions: some time after it says so."""
    name = (await client.apply(CRD, crd, field_manager="test"))["metadata"]["name"]
    spec = crd["spec"]
    versions = [
        Resource(spec["group"], version["name"], spec["names"]["plural"], spec["names"]["kind"], False)
        for version in spec["versions"]
        if version["served"]
    ]

    async def is_served() -> bool:
        if condition_of(await client.get(CRD, name), "Established")[0] != "True":
            return False
        for version in versions:
            await client.list(version)
        return True

    await eventually(is_served, f"{name} is served", period_s=0.02, retry_on=(NotFoundError,))


async def add_node(client: ApiClient) -> None:
    """Add the one node that there is, with room for everything; whoever plays pods is its kubelet."""
    await client.apply(kinds.NODE, NODE, field_manager="kubelet")
    await client.apply(kinds.NODE, NODE, field_manager="kubelet", subresource="status")
