"""`make bench NAME=apply`: figures of this machine, in about half a minute. Not a test: nothing here passes or fails.

Planning is measured alone; admission and applying against the real kube-apiserver and etcd, which share the processor
with the client, so compare ratios and client CPU rather than rates. Figures of other setups are in no way implied.
"""

import asyncio
import os
import platform
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from bench.running import exit_at_sigterm
from devcluster import binaries
from devcluster.apiserver_only import ApiServer
from devcluster.parts import API_SERVER_BINARIES, KUBERNETES
from devcluster.steps import Steps
from r1plus_contract import names
from r1plus_contract.verdict import Verdict
from r1plus_operator.api import crd, kinds
from r1plus_operator.plan.deployment import plan
from r1plus_operator.runtime.client import ApiClient
from support.apiserver.server import install_crd
from support.plan.world import World

PASSES = 300
OBJECTS = 300
IN_FLIGHT = 16


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report."""

    what: str
    value: str
    note: str


def planning() -> Iterator[Figure]:
    """A pass over a deployment that serves and has nothing to change, and a first pass over a new one."""
    serving = World({"tier": "full"})
    serving.settle()
    revision = serving.candidate()
    serving.start_pods(revision)
    serving.gate(revision, Verdict.PASS)
    serving.set_ready(revision)
    serving.settle()
    for what, world in (("pass over a serving deployment", serving), ("first pass", World({"tier": "full"}))):
        observed, seconds = world.observed(), []
        for _ in range(PASSES):
            began = time.perf_counter()
            planned = plan(observed, world.config, world.now)
            seconds.append(time.perf_counter() - began)
        yield Figure(what, f"{statistics.median(seconds) * 1e3:.2f} ms", f"median of {PASSES}, {planned.writes} writes")


async def writing(client: ApiClient) -> list[Figure]:
    """Admission of CRs (schema, CEL, defaults), and server-side apply of small objects, new and unchanged."""

    async def admit(number: int) -> None:
        await client.create(kinds.R1PLUS_DEPLOYMENT, _deployment(number))

    async def apply(number: int) -> None:
        await client.apply(kinds.CONFIG_MAP, _config_map(number), field_manager="bench")

    return [
        await _rate("R1PlusDeployments created", admit),
        await _rate("ConfigMaps applied, new", apply),
        await _rate("ConfigMaps applied, unchanged", apply),
    ]


async def _rate(what: str, write: Callable[[int], Awaitable[None]]) -> Figure:
    numbers = iter(range(OBJECTS))

    async def worker() -> None:
        for number in numbers:
            await write(number)

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    rate = OBJECTS / (time.perf_counter() - began)
    spent = (time.process_time() - cpu) / OBJECTS * 1e3
    return Figure(what, f"{rate:.0f}/s", f"{OBJECTS}, {IN_FLIGHT} in flight, {spent:.2f} ms of client CPU each")


def _deployment(number: int) -> dict[str, object]:
    meta = {"name": f"bench-{number}", "namespace": "default"}
    kind = {"apiVersion": names.API_VERSION, "kind": names.KIND_DEPLOYMENT}
    return {**kind, "metadata": meta, "spec": {"tier": "full", "batching": {"maxBatchSize": 16}}}


def _config_map(number: int) -> dict[str, object]:
    meta = {"name": f"bench-{number}", "namespace": "default", "labels": {names.LABEL_MANAGED_BY: "bench"}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"text": "x" * 2000}}


async def _against(server: ApiServer) -> list[Figure]:
    async with ApiClient.from_kubeconfig(server.kubeconfig) as client:
        for definition in crd.build_definitions().values():
            await install_crd(client, definition)
        return await writing(client)


def main() -> None:
    """Measure, then print one table."""
    exit_at_sigterm()
    binaries.build(Steps(len(API_SERVER_BINARIES)), API_SERVER_BINARIES)
    figures = list(planning())
    with ApiServer() as server:
        figures += asyncio.run(_against(server))
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} CPUs, Python {platform.python_version()}, Kubernetes {KUBERNETES}, load {load:.1f}")
    for figure in figures:
        print(f"  {figure.what:<32} {figure.value:>10}   {figure.note}")


if __name__ == "__main__":
    main()
