"""Where it is played: a real API server, the operator as its own process and account, and clients of other names."""

import dataclasses
import itertools
import os
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from bench.reconcile.audit import AuditLog, Request
from bench.reconcile.floor import BareClient, Write, answer_to, created
from devcluster.addons import crd_files
from devcluster.apiserver_only import ApiServer
from r1plus_contract import metrics, names
from r1plus_model_repo.catalog.types import Engine
from r1plus_operator.api import crd, kinds
from r1plus_operator.config import OperatorSettings, load_settings
from r1plus_operator.observe import node_projection
from r1plus_operator.plan.observation import Observation
from r1plus_operator.runtime import connection
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.resources import Resource
from support.apiserver.monitors import Monitors
from support.apiserver.operator_process import ABSENT, OperatorProcess
from support.apiserver.rights import OPERATOR as ACCOUNT
from support.apiserver.rights import grant_operator as grant
from support.apiserver.server import NODE, add_node, install_crd
from support.apiserver.tenant import Tenant
from support.waiting import eventually

Json = dict[str, Any]
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", False)
FLOOR_ACCOUNT = "bench-floor"
USER_ACCOUNT = "bench-user"
QUIET_SECONDS = 2.0
"""Without a write for so long, the operator is done."""
DEADLINE_SECONDS = 600.0


class Stage:
    """The API server, the operator and the audit log, with what the phases share."""

    def __init__(self, server: ApiServer, client: ApiClient, operator: OperatorProcess, audit: AuditLog) -> None:
        self.server = server
        self.client = client
        self.operator = operator
        self.settings: OperatorSettings = load_settings(operator.environment)
        self._audit = audit

    def requests(self) -> list[Request]:
        """What the operator has asked for since the last call."""
        return self._audit.read(ACCOUNT)

    def bare(self, account: str) -> BareClient:
        """A bare client of its own account, with the right to everything."""
        config = self.server.kubeconfig_for(account, ("system:masters",))
        return BareClient(connection.from_kubeconfig(config))

    async def namespace(self, name: str) -> None:
        """A tenant's namespace."""
        meta = {"name": name, "labels": {"r1plus.ai/tenant": "true"}}
        await self.client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": meta})

    def answers(self, crs: Iterable[Json]) -> list[Write]:
        """What the operator's plan would write for each of these, one after the other."""
        node = node_projection.project_node({**NODE, "metadata": {"name": "n1", "uid": "n1"}})
        assert node is not None
        world = Observation(
            cr={},
            engines=tuple(engine for engine in self.settings.catalog if isinstance(engine, Engine)),
            suites=self.settings.suites,
            nodes=(node.value,),
            children={},
            kinds=frozenset(resource.kind for resource in kinds.OPTIONAL_CHILDREN),
        )
        uids = itertools.count()
        wholes = ({**cr, "metadata": {**cr["metadata"], "uid": f"u{next(uids)}", "generation": 1}} for cr in crs)
        plans = (answer_to(dataclasses.replace(world, cr=cr), self.settings.operator) for cr in wholes)
        return list(itertools.chain.from_iterable(plans))

    async def settled(self, statuses: int = 0) -> list[Request]:
        """Wait until the operator has written so many statuses and then nothing for a while; all it asked for."""
        asked: list[Request] = []

        def is_settled() -> bool:
            asked.extend(self.requests())
            written = sum(request.resource == "r1plusdeployments/status" for request in asked)
            last = max((r.ended for r in asked if r.writes and r.resource != "leases"), default=0.0)
            return written >= statuses and time.time() - last > QUIET_SECONDS

        await eventually(is_settled, f"{statuses} statuses, then no write", DEADLINE_SECONDS, period_s=0.2)
        return asked

    async def started(self) -> float:
        """Start the operator; seconds from its start until it has made its last pass and has nothing left to do."""
        began = time.perf_counter()
        self.operator.start()
        passes, changed = 0.0, began
        # Only these two: to tell of every deployment so often would be most of what the operator does.
        asked = {"name[]": [metrics.RECONCILE_TOTAL, metrics.QUEUE_DEPTH]}
        url = f"http://127.0.0.1:{self.operator.port}/metrics"
        async with httpx.AsyncClient() as http:

            async def is_idle() -> bool:
                nonlocal passes, changed
                figures = exposed((await http.get(url, params=asked)).text)
                if figures != (passes, 0.0):
                    passes, changed = figures[0], time.perf_counter()
                return passes > 0 and time.perf_counter() - changed >= QUIET_SECONDS

            retry_on = (httpx.TransportError,)
            await eventually(is_idle, "a pass, then none", DEADLINE_SECONDS, period_s=0.02, retry_on=retry_on)
        return changed - began


def exposed(text: str) -> tuple[float, float]:
    """(passes made, keys that wait), from the operator's /metrics."""
    values = [(line.rsplit(" ", 1)[0], float(line.rsplit(" ", 1)[1])) for line in text.splitlines() if line[:1] != "#"]
    passes = sum(value for name, value in values if name.startswith(metrics.RECONCILE_TOTAL + "{"))
    return passes, sum(value for name, value in values if name == metrics.QUEUE_DEPTH)


def deployment(namespace: str, number: int) -> Json:
    """The CR that everything here is about."""
    meta = {"name": f"d{number:05}", "namespace": namespace}
    head = {"apiVersion": names.API_VERSION, "kind": names.KIND_DEPLOYMENT, "metadata": meta}
    return {**head, "spec": {"tier": "full", "context": {"maxTokens": 1024}}}


def creations(namespace: str, count: int) -> list[Write]:
    """The requests that make `count` CRs."""
    return [created(deployment(namespace, number)) for number in range(count)]


async def serve(client: ApiClient, namespace: str, number: int) -> Monitors:
    """Play kubelet and monitor for one CR until it is Ready; stop the monitor afterwards."""
    name = deployment(namespace, number)["metadata"]["name"]
    monitors = Monitors()
    await monitors.start()
    await Tenant(client, namespace, monitors).bring_up(name)
    return monitors


@asynccontextmanager
async def staged(server: ApiServer, log: Path) -> AsyncIterator[Stage]:
    """Install what the operator finds in a cluster: CRDs, prometheus-operator's too, a node and its own rights."""
    async with ApiClient.from_kubeconfig(server.kubeconfig) as client:
        for definition in crd.build_definitions().values():
            await install_crd(client, definition)
        for path in crd_files():
            if path.stem.endswith(("podmonitors", "prometheusrules")):
                await install_crd(client, yaml.safe_load(path.read_text()))
        await grant(client)
        await add_node(client)
        # The monitors are asked as often as the chart says, not as often as a test would like.
        operator = OperatorProcess(server, log, R1PLUS_VERDICT_INTERVAL_SECONDS="10", **as_in_the_image(log.parent))
        with AuditLog(server.audit_log) as audit:
            try:
                yield Stage(server, client, operator, audit)
            finally:
                operator.kill()


def as_in_the_image(folder: Path) -> dict[str, str]:
    """The environment in which the operator finds what its image has: bytecode, and no package of the other rooms."""
    return {
        "PYTHONPATH": str(ABSENT),
        "PYTHONPYCACHEPREFIX": str(folder / "compiled"),
        "PYTHONDONTWRITEBYTECODE": "",
    }


def machine() -> Json:
    """What the figures are from."""
    return {"cpus": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}
