"""The real operator process against the real API server, as its own ServiceAccount, with the chart's own ClusterRole.

There is no kubelet here: a test makes the pods a Deployment would get, and answers for their monitors over HTTP.
"""

import asyncio
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
from aiohttp import web

from devcluster.apiserver_only import ApiServer
from r1plus_contract import metrics, names
from r1plus_contract.filling import PROGRESS_PATH, FillProgress
from r1plus_contract.jsonable import dumps
from r1plus_contract.outcomes import OutcomePage, ProbeOutcome
from r1plus_contract.verdict import GateReport, MonitorReport, Phase, Standing, SweepFigures, Verdict, Watch
from r1plus_operator.api import kinds, rbac
from r1plus_operator.plan.revision import read
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.errors import NotFoundError
from r1plus_operator.runtime.resources import Resource

ROOT = Path(__file__).parents[2]
NAMESPACE = "r1plus-system"
RBAC = "rbac.authorization.k8s.io"
CLUSTER_ROLE = Resource(RBAC, "v1", "clusterroles", "ClusterRole", False)
BINDING = Resource(RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", False)
ROLES = {
    resource.kind: resource
    for resource in (
        CLUSTER_ROLE,
        BINDING,
        Resource(RBAC, "v1", "roles", "Role"),
        Resource(RBAC, "v1", "rolebindings", "RoleBinding"),
    )
}
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", False)
DEADLINE_SECONDS = 120.0
Json = dict[str, Any]


def account(namespace: str) -> str:
    """The user that the operator of this namespace is."""
    return f"system:serviceaccount:{namespace}:r1plus-operator"


ACCOUNT = account(NAMESPACE)


async def eventually(check: Callable[[], Awaitable[bool]], what: str) -> None:
    """Ask until it holds, with a deadline."""
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not await check():  # noqa: ASYNC110 - what is waited for lies in other processes
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"after {DEADLINE_SECONDS:.0f} s still not so: {what}") from None


NODE: Json = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "n1"},
    "status": {"allocatable": {"cpu": "4", "memory": "64Gi", "pods": "110"}},
}


async def add_node(client: ApiClient) -> None:
    """The one node that there is, with room for everything: its kubelet is whoever plays it."""
    await client.apply(kinds.NODE, NODE, field_manager="kubelet")
    await client.apply(kinds.NODE, NODE, field_manager="kubelet", subresource="status")


async def grant(client: ApiClient, namespace: str = NAMESPACE) -> None:
    """The operator's rights, from the table that the chart is generated from; `namespace` is the operator's own."""
    await client.apply(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}, field_manager="test")  # fmt: skip
    for kind, meta, grants in (
        ("ClusterRole", {"name": namespace}, rbac.operator()),
        ("Role", {"name": namespace, "namespace": namespace}, rbac.lease()),
    ):
        role = {"apiVersion": f"{RBAC}/v1", "kind": kind, "metadata": meta, "rules": [row.rule() for row in grants]}
        binding = {
            "apiVersion": f"{RBAC}/v1",
            "kind": f"{kind}Binding",
            "metadata": meta,
            "roleRef": {"apiGroup": RBAC, "kind": kind, "name": namespace},
            "subjects": [{"apiGroup": RBAC, "kind": "User", "name": account(namespace)}],
        }
        await client.apply(ROLES[kind], role, field_manager="test")
        await client.apply(ROLES[f"{kind}Binding"], binding, field_manager="test")


class OperatorProcess:
    """`python -m r1plus_operator`, started and stopped.

    All are one pod whose container starts again, so that none waits for the Lease of one that was killed: a test with
    two at once gives them names of their own by `env`.
    """

    def __init__(self, server: ApiServer, log: Path, *, kubeconfig: Path | None = None, **env: str) -> None:
        groups = ("system:serviceaccounts", "system:authenticated")
        self._kubeconfig = kubeconfig or server.kubeconfig_for(ACCOUNT, groups)
        self._log = log
        self._env = env
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """As the chart would set it."""
        return {
            **os.environ,
            "KUBECONFIG": str(self._kubeconfig),
            "R1PLUS_MONITOR_IMAGE": "registry.local/monitor:1",
            "R1PLUS_TRITON_IMAGE": "registry.local/triton:1",
            "R1PLUS_CATALOG_DIR": str(ROOT / "model_repo" / "r1plus_model_repo" / "catalog"),
            "R1PLUS_SUITES_DIR": str(ROOT / "monitoring" / "suites"),
            "R1PLUS_DEFAULT_FAMILY": "smollm2",
            "R1PLUS_OPERATOR_NAMESPACE": NAMESPACE,
            "R1PLUS_POD_NAME": "r1plus-operator-0",
            "R1PLUS_POD_UID": "0",
            "R1PLUS_VERDICT_INTERVAL_SECONDS": "0.2",
            "R1PLUS_HEALTH_PORT": str(self.port),
            **self._env,
        }

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it."""
        command = [sys.executable, "-m", "r1plus_operator"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)

    def signal(self, number: int) -> None:
        """Send a signal and go on."""
        assert self._process is not None
        self._process.send_signal(number)

    @property
    def returncode(self) -> int | None:
        """Its exit status; None while it runs."""
        assert self._process is not None
        return self._process.poll()

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(20)

    def kill(self) -> None:
        """SIGKILL, if it was started."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)

    @property
    def log(self) -> str:
        """What it printed so far."""
        return self._log.read_text(errors="replace")

    def forbidden(self, namespace: str) -> list[str]:
        """What it was refused, in this namespace or in none. In those of other tests it may have been meant to be."""
        lines = [line for line in self.log.splitlines() if "Forbidden" in line]
        return [line for line in lines if "/namespaces/t-" not in line or f"/namespaces/{namespace}/" in line]

    async def ready(self) -> bool:
        """Whether its caches are synced."""
        return (await self._ask("readyz"))[0] == 200

    async def leads(self) -> bool:
        """Whether it says that it holds the Lease."""
        status, text = await self._ask("metrics")
        return status == 200 and re.search(rf"^{metrics.LEADER} 1\.0$", text, re.MULTILINE) is not None

    async def _ask(self, path: str) -> tuple[int, str]:
        async with httpx.AsyncClient() as http:
            try:
                answer = await http.get(f"http://127.0.0.1:{self.port}/{path}")
            except httpx.TransportError:
                return 0, ""
        return answer.status_code, answer.text


@dataclass
class Tenant:
    """One namespace: its CRs, and the pods and monitors that the test plays."""

    client: ApiClient
    namespace: str
    monitors: "Monitors"
    addresses: dict[str, str] = field(default_factory=dict)
    """Pod -> where its monitor answers."""

    async def deploy(self, name: str, **spec: Any) -> None:
        """`kubectl apply` of a CR."""
        cr = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND_DEPLOYMENT,
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": spec,
        }
        await self.client.apply(kinds.R1PLUS_DEPLOYMENT, cr, field_manager="kubectl")

    async def cr(self, name: str) -> Json:
        return await self.client.get(kinds.R1PLUS_DEPLOYMENT, name, self.namespace)

    async def condition(self, name: str, kind: str) -> tuple[str, str, str]:
        """(status, reason, message); empty while it is not there."""
        conditions = (await self.cr(name)).get("status", {}).get("conditions", [])
        return next(((c["status"], c["reason"], c["message"]) for c in conditions if c["type"] == kind), ("", "", ""))

    async def until(self, name: str, kind: str, status: str, reason: str) -> str:
        """Wait for a condition; its message."""

        async def holds() -> bool:
            return (await self.condition(name, kind))[:2] == (status, reason)

        await eventually(holds, f"{name}: {kind} {status}/{reason}")
        return (await self.condition(name, kind))[2]

    async def child(self, kind: str, name: str) -> Json | None:
        """A child as it lies in the cluster, or None."""
        try:
            return await self.client.get(kinds.BY_KIND[kind], name, self.namespace)
        except NotFoundError:
            return None

    async def present(self, kind: str, name: str) -> Json:
        """Wait for a child."""

        async def there() -> bool:
            return await self.child(kind, name) is not None

        await eventually(there, f"{kind} {name} exists")
        found = await self.child(kind, name)
        assert found is not None
        return found

    async def absent(self, kind: str, name: str) -> None:
        """Wait until a child is gone."""

        async def gone() -> bool:
            return await self.child(kind, name) is None

        await eventually(gone, f"{kind} {name} is gone")

    async def candidate(self, name: str, *, other_than: str = "") -> str:
        """Name of the revision that is being brought up."""
        found = ""

        async def named() -> bool:
            nonlocal found
            status = (await self.cr(name)).get("status", {})
            found = status.get("candidate", "")
            return bool(found) and found != other_than

        await eventually(named, f"{name} has a candidate")
        return found

    async def bring_up(self, name: str) -> str:
        """The present candidate's pod starts, passes and takes traffic; the revision."""
        revision = await self.candidate(name)
        pod = await self.run_pod(revision, ready=False)
        await self.decide(revision, Verdict.PASS)
        await self.until(name, "QualityVerified", "True", "GatePassed")
        await self.set_ready(pod, ready=True)
        await self.until(name, "Ready", "True", "Serving")
        return revision

    async def run_pod(
        self, revision: str, *, ready: bool, monitors: "Monitors | None" = None, suffix: str = "pod"
    ) -> str:
        """What the kubelet would do: a pod of the revision with an address and a condition.

        Its monitor is the tenant's own, or another one where several pods say different things.
        """
        deployment = await self.present("Deployment", revision)
        template = deployment["spec"]["template"]
        name = f"{revision}-{suffix}"
        self.addresses[name] = (monitors or self.monitors).address
        owner = {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "name": f"{revision}-7d9f",
            "uid": str(uuid.uuid4()),
            "controller": True,
        }
        meta = {**template["metadata"], "name": name, "namespace": self.namespace, "ownerReferences": [owner]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]}
        # No ServiceAccount controller here: its admission would wait for a token that nobody makes.
        await self.client.apply(kinds.POD, pod, field_manager="kubelet")
        await self.set_ready(name, ready=ready)
        return name

    async def set_ready(self, pod: str, *, ready: bool) -> None:
        address = self.addresses.get(pod, self.monitors.address)
        status = {
            "podIP": address,
            "podIPs": [{"ip": address}],
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        }
        await self.client.patch(kinds.POD, pod, self.namespace, {"status": status}, subresource="status")

    async def settings(self, name: str) -> Json:
        """What the monitors of a deployment are told now."""
        accuracy = await self.present("ConfigMap", f"{name}-accuracy")
        return dict(json.loads(accuracy["data"]["settings.json"]))

    async def decide(
        self, revision: str, verdict: Verdict, *, lost: int = 0, monitors: "Monitors | None" = None, control: str = ""
    ) -> GateReport:
        """The revision's monitor reports a decided gate, of the `control` where one is ordered."""
        stored = read(await self.present("ControllerRevision", revision))
        settings = await self.settings(revision.rsplit("-", 1)[0])
        identity = stored.identity_digest
        reason = "TooManyLost" if lost else "Passed"
        gate = GateReport(
            verdict,
            reason,
            f"lost {lost} of 210 items, 4 allowed",
            identity,
            settings["suite"],
            settings["suiteHash"],
            "1",
            0.98,
            210,
            lost,
            4,
            batch=stored.batch,
            control=control,
        )
        (monitors or self.monitors).report = MonitorReport(
            revision,
            identity,
            Phase.WATCHING,
            verdict,
            reason,
            gate.message,
            settings["suite"],
            settings["suiteHash"],
            gate=gate,
        )
        return gate


# Of this process: others, as workers of pytest-xdist, have their monitors on the same loopback at the same port.
_addresses = (f"127.{100 + os.getpid() % 100}.{i // 250}.{i % 250 + 2}" for i in itertools.count())


class Monitors:
    """An HTTP server on a loopback address of its own, at the monitor's real port."""

    def __init__(self) -> None:
        self.address = next(_addresses)
        self.report: MonitorReport | None = None
        self.outcomes: tuple[ProbeOutcome, ...] = ()
        """What the continuous check gave; of the identity and suite in the report."""
        self.progress: FillProgress | None = None
        """Of a Job that fills a volume."""
        self.asked_since: list[int] = []
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        routes = {"/verdict": self._verdict, "/outcomes": self._page, PROGRESS_PATH: self._progress}
        app.add_routes([web.get(path, answer) for path, answer in routes.items()])
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.address, names.PORT_MONITOR).start()

    async def stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()

    async def _verdict(self, _: web.Request) -> web.Response:
        if self.report is None:
            return web.Response(status=503)
        return web.Response(text=dumps(self.report), content_type="application/json")

    async def _progress(self, _: web.Request) -> web.Response:
        if self.progress is None:
            return web.Response(status=503)
        return web.Response(text=dumps(self.progress), content_type="application/json")

    def stand(self, standing: Standing, *, lost: tuple[str, ...] = (), correct: int = 210) -> None:
        """The watch over the pod says this, after a count."""
        assert self.report is not None
        count = SweepFigures(correct, 210, 0.0, 1.0, "2026-01-01T00:00:00Z", lost)
        watch = Watch(standing, 210, 2.0, confirmation=count, lost_since_gate=lost)
        self.report = replace(self.report, watch=watch, sequence=self.report.sequence + 1)

    async def _page(self, request: web.Request) -> web.Response:
        """`/outcomes?since=`."""
        said = self.report
        if said is None:
            return web.Response(status=503)
        since = int(request.query["since"])
        self.asked_since.append(since)
        after = tuple(outcome for outcome in self.outcomes if outcome.sequence > since)
        page = OutcomePage("e1", said.revision, said.identity, said.suite_hash, "1", 210, 1, len(self.outcomes), after)
        return web.Response(text=dumps(page), content_type="application/json")


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
