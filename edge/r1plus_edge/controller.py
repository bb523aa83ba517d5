"""The operator's plan on one machine: observe, plan, carry out, again. No decision is made here.

A revision that the plan runs has one pod. The plan learns from it what it would learn of a cluster's pod: what a
kubelet reports, and what its monitor reports.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from r1plus_contract import names
from r1plus_contract.gateway import ModelSettings
from r1plus_contract.verdict import MonitorReport
from r1plus_edge.data_folder import DataFolder
from r1plus_edge.objects import Objects
from r1plus_edge.pods.container import FIRST_BACKOFF, LONGEST_BACKOFF
from r1plus_edge.pods.images import Images
from r1plus_edge.pods.places import LOOPBACK
from r1plus_edge.pods.pod import LocalPod, VolumeSources
from r1plus_edge.pods.triton_sockets import read_schema_share
from r1plus_edge.start.deployment import ServeRequest
from r1plus_edge.world import World
from r1plus_operator.plan.deployment import Plan, plan
from r1plus_operator.plan.observation import Observation, PodFacts
from r1plus_operator.plan.revision.record import Revision
from r1plus_operator.plan.revision.storage import read_revisions
from r1plus_operator.plan.tenancy.gateway_models import build_model
from r1plus_policies.backoff import double_delay

log = logging.getLogger(__name__)
MOST_PASSES: Final = 8
"""In a row. After a promotion the third one writes nothing."""
CUT_SECONDS: Final = 5.0
"""Grace of a pod whose time for its requests is over."""
GRACE_SECONDS: Final = 10.0
Reports = Mapping[str, MonitorReport]
ReadReport = Callable[[int], Awaitable[MonitorReport | None]]
"""Port of a monitor -> its report; None: it does not answer."""


@dataclass(slots=True)
class _RunningPod:
    pod: LocalPod
    deployment_uid: str
    task: asyncio.Task[None]
    ending: asyncio.Task[None] | None = None


@dataclass(slots=True)
class Controller:
    """Keeps what runs as the plan wants it."""

    folder: DataFolder
    objects: Objects
    request: ServeRequest
    """What is asked for; `ask_for` changes it."""
    world: World
    images: Images
    read_report: ReadReport
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a pod has changed."""
    plan: Plan = field(default_factory=Plan)
    """The last one."""
    is_suspended: bool = False
    """Whether all pods end, and none is started: something else needs the memory."""
    reports: dict[str, MonitorReport] = field(default_factory=dict)
    """Pod -> its monitor's last report."""
    schema_share: float | None = None
    """Part of the serving engine's memory for compiled schemas that is used; None: it does not say."""
    _pods: dict[str, _RunningPod] = field(default_factory=dict)

    def ask_for(self, request: ServeRequest, world: World) -> None:
        """Let the next pass plan for this request, in this world."""
        self.objects.ask_for(request.name, request.namespace, request.document, time.time())
        self.request, self.world = request, world

    async def run_pass(self) -> None:
        """Observe, plan and carry out until nothing is left to write."""
        await self._read_reports()
        for _ in range(MOST_PASSES):
            self.plan = plan(self._observe(), self.world.config, time.time())
            has_written = self.objects.apply(self.plan)
            self._follow_deployments()
            if not has_written:
                break
        for running in self._pods.values():
            running.pod.refresh_configs()

    @property
    def revisions(self) -> dict[str, Revision]:
        """The revisions by name."""
        return read_revisions(self.objects.children)

    @property
    def serving_pod(self) -> LocalPod | None:
        """The Ready pod of the revision that has traffic; None: there is none."""
        revision = self.objects.deployment.get("status", {}).get("revision")
        ready = (pod for pod in self.list_pods() if pod.is_ready and pod.facts.revision == revision)
        return next(ready, None)

    def build_model(self) -> ModelSettings | None:
        """Return what the gateway needs to know of the deployment; None before its first promotion.

        Its socket has an absolute path.
        """
        cr = self.objects.deployment
        service = self.objects.children.get(("Service", cr["metadata"]["name"]), {})
        model = build_model(cr, service, self.revisions.values())
        if model is None:
            return None
        pod = self.serving_pod
        if pod is None:
            return replace(model, addresses=())
        return replace(
            model,
            addresses=(LOOPBACK,),
            grpc_socket=str(pod.sockets[names.PORT_GRPC]),
            monitor_port=pod.ports[names.PORT_MONITOR],
        )

    def list_pods(self) -> list[LocalPod]:
        """Return the pods, those that end too."""
        return [running.pod for running in self._pods.values()]

    async def end(self, grace: float, callers: asyncio.Task[None]) -> None:
        """End all pods, those that have callers only when `callers` is done."""

        async def end_one(running: _RunningPod) -> None:
            if running.pod.has_been_ready:
                await asyncio.wait([callers])
            await self._end_pod(running, grace, is_gentle=False)

        await asyncio.gather(callers, *map(end_one, list(self._pods.values())))

    def _observe(self) -> Observation:
        pods: tuple[PodFacts, ...] = tuple(pod.facts for pod in self.list_pods())
        return Observation(
            cr=self.objects.deployment,
            engines=self.world.engines,
            suites=self.world.suites,
            nodes=(self.world.node,),
            children=self.objects.children,
            pods=pods,
            reports=dict(self.reports),
            volumes=self.world.volumes,
            suite_names=frozenset(self.world.suites),
        )

    async def _read_reports(self) -> None:
        # Where none runs, a connection would wait at its socket for the next one.
        pods = [pod for pod in self.list_pods() if pod.find_container(names.CONTAINER_MONITOR).pid is not None]
        answers = await asyncio.gather(*(self.read_report(pod.ports[names.PORT_MONITOR]) for pod in pods))
        self.reports = {pod.name: report for pod, report in zip(pods, answers, strict=True) if report is not None}
        pod = self.serving_pod
        self.schema_share = await read_schema_share(pod.sockets[names.PORT_TRITON_METRICS]) if pod else None

    def _follow_deployments(self) -> None:
        """Start the pods that Deployments want, and end the others."""
        wanted = {
            obj["metadata"]["uid"]: obj
            for obj in self.objects.list_children("Deployment")
            if obj["spec"].get("replicas", 1) > 0 and not self.is_suspended
        }
        cut = {uid for _, uid in self.plan.cut}
        for running in list(self._pods.values()):
            if running.ending is not None:
                continue
            is_cut = running.pod.uid in cut
            if is_cut or running.deployment_uid not in wanted:
                grace = CUT_SECONDS if is_cut else GRACE_SECONDS
                running.ending = asyncio.create_task(self._end_pod(running, grace, is_gentle=not is_cut))
        alive = {running.deployment_uid for running in self._pods.values() if running.ending is None}
        for uid, obj in wanted.items():
            if uid not in alive:
                self._start_pod(uid, obj["metadata"]["name"], obj["spec"]["template"])

    def _start_pod(self, uid: str, deployment: str, template: dict[str, object]) -> None:
        sources = VolumeSources(self.objects.read_config, claims=self.world.claims)
        name = f"{deployment}-{secrets.token_hex(3)}"
        pod = LocalPod(name, template, self.folder, self.images, sources, self.wake.set)
        self._pods[name] = _RunningPod(pod, uid, asyncio.create_task(run_pod(pod)))

    async def _end_pod(self, running: _RunningPod, grace: float, *, is_gentle: bool) -> None:
        await running.pod.end(grace, is_gentle=is_gentle)
        running.task.cancel()
        await asyncio.gather(running.task, return_exceptions=True)
        running.pod.remove()
        self._pods.pop(running.pod.name, None)
        self.reports.pop(running.pod.name, None)
        self.wake.set()


async def run_pod(pod: LocalPod) -> None:
    """Run a pod until cancelled; where the machine refuses (no room, no process), try again."""
    failures = 0
    while True:
        try:
            await pod.run()
        except* OSError as group:
            failures += 1
            log.error("Pod %s cannot run: %s", pod.name, group.exceptions[0])
        await asyncio.sleep(double_delay(failures, FIRST_BACKOFF, LONGEST_BACKOFF))
