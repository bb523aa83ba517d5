"""A stored cluster that lives again: an API server with its objects, its pods' monitors, and today's operator on it.

Nothing makes pods here: the test is the kubelet of those that are stored.
"""

import contextlib
import copy
import json
import sys
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import Any

import httpx
import yaml

from devcluster.apiserver_only import ApiServer
from r1plus_contract import metrics, names
from r1plus_operator.api import kinds
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.errors import ApiError
from r1plus_operator.runtime.lease import LEASE
from r1plus_operator.runtime.resources import Resource
from support.upgrade import operator_at, storage
from support.upgrade.fixture import (
    ENVIRONMENT,
    OPERATOR_NAMESPACE,
    TENANT_NAMESPACE,
    StoredCluster,
    read_cluster,
)
from support.upgrade.monitors import VERDICT, StoredMonitor
from support.upgrade.rig import OperatorProcess, Tenant, grant, install_crd
from support.waiting import DEADLINE_SECONDS, eventually

Json = dict[str, Any]
Key = tuple[str, str, str]
"""Kind, namespace, name."""
CRDS = Path(__file__).parents[3] / "charts" / "r1plus-operator" / "crds"
NEW_IMAGES = {"R1PLUS_MONITOR_IMAGE": "registry.local/monitor:2", "R1PLUS_TRITON_IMAGE": "registry.local/triton:2"}
DIES_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")
MARK = "upgrade-test.r1plus.ai/look"
"""Annotation and label whose change makes the operator look at everything that the object concerns."""
TOUCHED = frozenset({kinds.NODE.kind, kinds.R1PLUS_ENGINE.kind, LEASE.kind})
"""Kinds that this module, or the Lease's holder, writes by itself."""


class OperatorOfToday(OperatorProcess):
    """The operator of the working tree as another pod, with the images of its own version and the stored clock."""

    def __init__(self, server: ApiServer, log: Path, catalog: Path, *, behind: float) -> None:
        env = {
            **ENVIRONMENT,
            **NEW_IMAGES,
            "R1PLUS_CATALOG_DIR": str(catalog),
            "R1PLUS_POD_NAME": "r1plus-operator-new",
            "R1PLUS_POD_UID": str(uuid.uuid4()),
            # With bytecode kept: else each start compiles all that it imports.
            "PYTHONDONTWRITEBYTECODE": "",
        }
        super().__init__(server, log, kubeconfig=None, **env)
        self._behind = behind
        self._http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", verify=False, timeout=DEADLINE_SECONDS)

    def start(self) -> None:
        """Start it, its clock set back."""
        command = [*DIES_WITH_PARENT, sys.executable, str(operator_at.__file__), str(self._behind)]
        with self._log.open("ab") as log:
            self._process = Popen(command, env=self.environment, stdout=log, stderr=log)

    async def leads(self) -> bool:
        """Return whether it says that it holds the Lease."""
        try:
            return await self.count(metrics.LEADER) == 1
        except httpx.TransportError:
            return False

    async def count(self, metric: str) -> float:
        """Return the sum of a metric over its labels."""
        text = (await self._http.get("/metrics")).text
        lines = [line for line in text.splitlines() if line.split("{")[0].split(" ")[0] == metric]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    async def close(self) -> None:
        """End it, if it runs."""
        self.kill()
        await self._http.aclose()

    async def writes(self) -> float:
        """Return how often it has written since its start; renewals of its Lease do not count."""
        return await self.count(metrics.API_WRITES_TOTAL)


@dataclass
class RestoredCluster:
    """The API server and the monitors, and what was stored."""

    server: ApiServer
    client: ApiClient
    stored: StoredCluster
    objects: list[Json]
    """As they were put into etcd: those that are stored, with the addresses of today's monitors."""
    monitors: dict[str, StoredMonitor]
    """By pod."""
    operator: OperatorOfToday
    tenant: Tenant = field(init=False)
    _looks: int = 0

    def __post_init__(self) -> None:
        self.tenant = Tenant(self.client, TENANT_NAMESPACE, None)  # type: ignore[arg-type]

    async def read(self) -> dict[Key, Json]:
        """Return every object of the kinds that may be stored."""
        objects = {}
        for resource in storage.STORED:
            for obj in (await self.client.list(resource))[0]:
                meta = obj["metadata"]
                objects[resource.kind, meta.get("namespace", ""), meta["name"]] = {
                    "apiVersion": resource.api_version,
                    "kind": resource.kind,
                    **obj,
                }
        return objects

    async def look_at_everything(self) -> None:
        """Make the operator pass over every deployment, volume and tenant, and over the catalog; wait until it has."""
        deployments = len(self.stored.of_kind(names.KIND_DEPLOYMENT))
        # An engine's change concerns the catalog and the namespace's volumes as well, a node's the tenant's ways out.
        await self._touch(kinds.R1PLUS_ENGINE, "annotations", deployments + 2)
        await self._touch(kinds.NODE, "labels", deployments + 1)

    async def _touch(self, resource: Resource, part: str, passes: int) -> None:
        self._looks += 1
        before = await self.operator.count(metrics.RECONCILE_TOTAL)
        name = self.stored.of_kind(resource.kind)[0]["metadata"]["name"]
        await self.client.patch(resource, name, None, {"metadata": {part: {MARK: str(self._looks)}}})

        async def is_done() -> bool:
            waiting = await self.operator.count(metrics.QUEUE_DEPTH)
            return not waiting and await self.operator.count(metrics.RECONCILE_TOTAL) >= before + passes

        await eventually(is_done, f"{passes} passes after a change of {resource.kind} {name}")

    async def start(self) -> None:
        """Start the operator, and wait until it has nothing more to write: a look at everything changes nothing.

        The second answer of a monitor proves that the operator has heard the first one.
        """
        reporting = [monitor for monitor in self.monitors.values() if VERDICT in monitor.answers]
        for monitor in reporting:
            monitor.verdicts_sent = 0
        self.operator.start()
        await eventually(self.operator.leads, "the operator leads")
        await eventually(lambda: all(one.verdicts_sent > 1 for one in reporting), "all monitors are heard")

        async def is_settled() -> bool:
            before = await self.operator.writes()
            await self.look_at_everything()
            return await self.operator.writes() == before

        await eventually(is_settled, "the operator has nothing more to write", evidence=self.describe_writes)

    def describe_writes(self) -> str:
        """Return what the operator wrote last, as the API server's audit log has it."""
        entries = map(json.loads, self.server.audit_log.read_text().splitlines())
        writes = [
            f"{entry['verb']} {entry['requestURI'].split('?')[0]}"
            for entry in entries
            if entry["verb"] not in ("get", "list", "watch")
            and entry["user"]["username"].endswith(":r1plus-operator")
            and "/leases/" not in entry["requestURI"]
        ]
        return "Its last writes: " + ", ".join(writes[-20:])

    async def go_on(self, pods: list[str]) -> None:
        """Let these pods' monitors say what they said next, and the pods be as Ready as that admits them."""
        following = {one["pod"]: one["next"] for one in self.stored.monitors if "next" in one}
        for pod in pods:
            self.monitors[pod].answers |= following[pod]
            if following[pod][VERDICT]["admitted"]:
                ready = {"conditions": [{"type": "Ready", "status": "True"}]}
                await self.client.patch(kinds.POD, pod, TENANT_NAMESPACE, {"status": ready}, subresource="status")


@contextlib.asynccontextmanager
async def restore(folder: Path, scratch: Path) -> AsyncIterator[RestoredCluster]:
    """Bring a stored cluster up to the point where a new operator may start: after the chart's hook and its rights."""
    stored = read_cluster(folder)
    behind = time.time() - stored.at
    monitors = {one["pod"]: StoredMonitor(one["answers"]) for one in stored.monitors}
    try:
        for monitor in monitors.values():
            await monitor.start()
        objects = [_at_home(obj, monitors) for obj in stored.objects]
        catalog = scratch / "catalog"
        write_catalog(stored, catalog)
        with ApiServer(fill_etcd=lambda layout, authority: storage.fill(objects, layout, authority)) as server:
            operator = OperatorOfToday(server, scratch / "operator.log", catalog, behind=behind)
            async with ApiClient.from_kubeconfig(server.kubeconfig) as client:
                cluster = RestoredCluster(server, client, stored, objects, monitors, operator)
                await eventually(lambda: _is_served(client), "the API server serves all kinds")
                try:
                    yield cluster
                finally:
                    await operator.close()
    finally:
        for monitor in monitors.values():
            await monitor.stop()


async def prepare(cluster: RestoredCluster) -> None:
    """Do what comes before the new operator in an upgrade: today's definitions and rights."""
    for path in sorted(CRDS.glob("*.yaml")):
        for crd in yaml.safe_load_all(path.read_text()):
            await install_crd(cluster.client, crd)
    await grant(cluster.client, OPERATOR_NAMESPACE)


def write_catalog(stored: StoredCluster, folder: Path) -> None:
    """Write the stored engines as a catalog: another one would be a change of its own, and roll out new revisions."""
    folder.mkdir()
    for engine in stored.of_kind(names.KIND_ENGINE):
        body = {"apiVersion": engine["apiVersion"], "kind": engine["kind"], "spec": engine["spec"]}
        name = engine["metadata"]["name"]
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(body | {"metadata": {"name": name}}))


def _at_home(obj: Json, monitors: dict[str, StoredMonitor]) -> Json:
    """A pod's address is that of its monitor here."""
    if obj["kind"] != kinds.POD.kind or obj["metadata"]["name"] not in monitors:
        return obj
    address = monitors[obj["metadata"]["name"]].address
    moved = copy.deepcopy(obj)
    moved["status"] |= {"podIP": address, "podIPs": [{"ip": address}]}
    return moved


async def _is_served(client: ApiClient) -> bool:
    """A moment after its start the API server knows the definitions that are stored."""
    try:
        for resource in storage.STORED:
            await client.list(resource)
    except ApiError:
        return False
    return True
