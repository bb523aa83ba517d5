"""A whole world from a schedule: API server, cluster, monitors, people, two replicas of the operator, and the judge."""

import asyncio
import contextlib
import contextvars
import random
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from r1plus_contract import names
from r1plus_model_repo.catalog.loader import load_catalog
from r1plus_operator.api import kinds
from r1plus_operator.config import OperatorSettings
from r1plus_operator.main import Sessions
from r1plus_operator.plan.settings import OperatorConfig, SuiteTrust, VolumeTerms
from r1plus_operator.runtime.client import ApiClient, RequestLimits
from r1plus_operator.runtime.connection import ApiConnection
from r1plus_operator.runtime.errors import TransportError
from r1plus_operator.runtime.lease import LEASE, LeaseTerms
from r1plus_operator.runtime.transport import HttpAnswer, HttpRequest, HttpStream, Transport
from simulation.oracle import Oracle
from simulation.schedule import ITEMS, Schedule
from simulation.suite import NAME, build_suite, number_prompts
from support.paths import TESTS
from support.simulation.collection import Collector
from support.simulation.faults import FaultKind, Faults, FaultWindow
from support.simulation.server import Change, SimulatedApiServer
from support.simulation.transport import SimulatedTransport
from support.simulation.world.access import Access
from support.simulation.world.cluster import NODE_NAME, SERVICE, Cluster, Quality
from support.simulation.world.loop import ProcessLoop
from support.simulation.world.monitors import MonitorFleet
from support.simulation.world.replica import Replica, ReplicaClients

Json = dict[str, Any]
_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where files cost no disk."""
EPOCH = 1_767_225_600.0
"""Wall clock at the start, seconds since 1970."""
OPERATOR_NAMESPACE = "r1plus-system"
REPLICAS = ("r1plus-operator-0", "r1plus-operator-1")
OPERATOR_USER = "system:serviceaccount:r1plus-system:r1plus-operator"
REVISION = kinds.BY_KIND["ControllerRevision"]
BAKE_SECONDS = 120.0
COOLDOWN_SECONDS = 600.0
VERDICT_SECONDS = 20.0


_SENDER: contextvars.ContextVar[str] = contextvars.ContextVar("sender", default="")
"""The operator's process whose request the server carries out."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table of a run."""

    at: float
    who: str
    what: str


@dataclass
class World:
    """Made by `open_world`."""

    schedule: Schedule
    loop: ProcessLoop
    server: SimulatedApiServer
    cluster: Cluster
    fleet: MonitorFleet
    quality: Quality
    oracle: Oracle
    rand: random.Random
    faults: Faults
    """Of the operator's connections."""
    replicas: list[Replica] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    kill_after: int = 0
    """The leader is killed after so many more writes."""
    writes: int = 0
    """Of the operator, its Lease apart."""
    busy_until: dict[str, float] = field(default_factory=dict)
    """Namespace -> until when its deployments are edited without end."""
    backups: list[tuple[float, Any]] = field(default_factory=list)
    """When etcd was saved, and what was saved."""
    listeners: list[Callable[[Change, str], None]] = field(default_factory=list)
    """Called after each write with the operator's process that sent it, or an empty text."""

    def read_time(self) -> float:
        """Return the wall clock."""
        return EPOCH + self.loop.time()

    def note(self, who: str, what: str) -> None:
        """Add a line to the table."""
        self.rows.append(Row(self.loop.time(), who, what))

    def back_up(self) -> None:
        """Save etcd."""
        self.backups.append((self.loop.time(), self.server.save()))

    def disturb(self, kind: FaultKind, seconds: float, **options: Any) -> None:
        """Let a fault meet the operator's connections for a while."""
        now = self.read_time()
        self.faults.add(FaultWindow(kind, now, now + seconds, **options))

    def set_back(self, snapshot: Any) -> None:
        """Restore etcd."""
        self.server.restore(snapshot)
        self.cluster.resync()

    def set_clocks(self) -> None:
        """Set all wall clocks right."""
        self.cluster.skew = 0.0
        for replica in self.replicas:
            replica.skew = 0.0

    @cached_property
    def deployments(self) -> frozenset[tuple[str, str]]:
        """Namespace and name of each R1PlusDeployment that the schedule has."""
        return frozenset((start.namespace, start.name) for start in self.schedule.starts)

    def is_busy_beside(self, namespace: str) -> bool:
        """Return whether another namespace is busy now."""
        now = self.loop.time()
        return any(until >= now for busy, until in self.busy_until.items() if busy != namespace)

    def find_leader(self) -> Replica | None:
        """Return the replica that the Lease names."""
        lease = self.server.read(LEASE, OPERATOR_NAMESPACE, names.LEASE)
        holder = lease["spec"].get("holderIdentity") if lease else None
        return next((one for one in self.replicas if one.identity == holder), None)

    def read_cr(self, namespace: str, name: str) -> Json | None:
        """Return an R1PlusDeployment."""
        return Access(self.server, "judge").read(kinds.R1PLUS_DEPLOYMENT, namespace, name)

    def find_serving(self, namespace: str, name: str) -> str:
        """Return the revision that a Service selects; empty: none."""
        service = Access(self.server, "judge").read(SERVICE, namespace, name)
        return str((((service or {}).get("spec") or {}).get("selector") or {}).get(names.LABEL_REVISION, ""))

    def list_pods(self, namespace: str, revision: str) -> list[Json]:
        """Return the pods of a revision."""
        pods = Access(self.server, "judge").list(kinds.POD, namespace)
        return [p for p in pods if (p["metadata"].get("labels") or {}).get(names.LABEL_REVISION) == revision]


class OutsideTransport:
    """A transport whose requests arrive whatever becomes of the process that sent them."""

    def __init__(self, inner: Transport, loop: ProcessLoop, process: str) -> None:
        self._inner = inner
        self._loop = loop
        self._process = process

    async def send(self, request: HttpRequest, seconds: float) -> HttpAnswer:
        """Send a request in no process."""
        result = await asyncio.shield(self._loop.start_outside(self._deliver(request, seconds)))
        if isinstance(result, TransportError):
            raise result
        answer: HttpAnswer = result
        return answer

    async def _deliver(self, request: HttpRequest, seconds: float) -> HttpAnswer | TransportError:
        """Return the answer or the error: nobody may wait for it any more."""
        _SENDER.set(self._process)
        try:
            return await self._inner.send(request, seconds)
        except TransportError as error:
            return error

    def open_stream(
        self, request: HttpRequest, inactivity_s: float
    ) -> contextlib.AbstractAsyncContextManager[HttpStream]:
        """Open a stream; only its reader's process reads it."""
        return self._inner.open_stream(request, inactivity_s)

    async def close(self) -> None:
        """Close all."""
        await self._inner.close()


@contextlib.asynccontextmanager
async def open_world(schedule: Schedule, loop: ProcessLoop) -> AsyncIterator[World]:
    """Make a world and start it; its files go at the end."""
    rand = random.Random(schedule.seed)
    with tempfile.TemporaryDirectory(prefix="r1plus-simulation-", dir=_MEMORY) as name:
        world = _build(schedule, loop, rand, Path(name))
        tasks = [loop.start_outside(world.cluster.run())]
        for replica in world.replicas:
            replica.start()
        try:
            yield world
        finally:
            for task in tasks:
                task.cancel()
            for monitor in world.fleet.by_address.values():
                monitor.stop()


def _build(schedule: Schedule, loop: ProcessLoop, rand: random.Random, folder: Path) -> World:
    def read_time() -> float:
        return EPOCH + loop.time()

    def fork() -> random.Random:
        return random.Random(rand.getrandbits(64))

    server = SimulatedApiServer(fork(), read_time)
    fleet, quality = MonitorFleet(fork()), Quality()
    for start in schedule.starts:
        for context, lost in start.lost.items():
            quality.variants[start.namespace, start.name, int(context)] = lost
    numbers = number_prompts(ITEMS)
    cluster = Cluster(Access(server, "controllers"), loop, fork(), fleet, quality, numbers, folder, read_time)
    faults = Faults(fork(), read_time)
    world = World(schedule, loop, server, cluster, fleet, quality, Oracle(fleet), fork(), faults)
    server.subscribe(lambda change: _on_change(world, change))
    Collector(server, fork(), loop.call_outside)
    _populate(world)

    def connect(process: str) -> ReplicaClients:
        clients, transports = [], []
        for limits in (None, RequestLimits(request=LeaseTerms().call, retries=0)):
            inner = SimulatedTransport(server, user=OPERATOR_USER, faults=faults, replica=process)
            transports.append(inner)
            transport = OutsideTransport(inner, loop, process)
            client = ApiClient(ApiConnection("http://simulated"), limits=limits, transport=transport, rand=fork())
            clients.append(client)
        return ReplicaClients(*clients, tuple(transports))

    for name in REPLICAS:
        sessions = Sessions(monitors=fleet.open_session)
        world.replicas.append(Replica(name, loop, _settings_of, connect, sessions, fork(), read_time))
    return world


def _populate(world: World) -> None:
    """Create what the platform team and the tenants have created before the operator starts."""
    platform = Access(world.server, "platform")
    for namespace in (OPERATOR_NAMESPACE, "monitoring"):
        platform.create(kinds.NAMESPACE, {"metadata": {"name": namespace}})
    allocatable = {"cpu": "64", "memory": "512Gi", "pods": "250"}
    ready = [{"type": "Ready", "status": "True"}]
    platform.create(
        kinds.NODE,
        {"metadata": {"name": NODE_NAME, "labels": {"kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux"}}},
    )
    platform.patch(
        kinds.NODE, None, NODE_NAME, {"status": {"allocatable": allocatable, "conditions": ready}}, subresource="status"
    )
    for namespace in sorted({start.namespace for start in world.schedule.starts}):
        labels = {names.LABEL_POD_SECURITY: "restricted", names.LABEL_TENANT: "true"}
        platform.create(kinds.NAMESPACE, {"metadata": {"name": namespace, "labels": labels}})
    for start in world.schedule.starts:
        apply_spec(world, start.namespace, start.name, dict(start.spec))


def apply_spec(world: World, namespace: str, name: str, spec: Json) -> None:
    """`kubectl apply` of an R1PlusDeployment."""
    cr = {"metadata": {"name": name, "namespace": namespace}, "spec": spec}
    Access(world.server, "tenant").apply(kinds.R1PLUS_DEPLOYMENT, cr, field_manager="kubectl")


def _on_change(world: World, change: Change) -> None:
    """Tell everybody of a write."""
    sender = _SENDER.get() if change.user == OPERATOR_USER else ""
    world.cluster.on_change(change.resource.kind, change.before, change.after)
    if change.resource.kind == "ControllerRevision" and change.after is not None:
        world.oracle.record_revision(change.after)
    for listener in world.listeners:
        listener(change, sender)
    if sender and change.resource.kind != LEASE.kind:
        world.writes += 1
        world.kill_after -= 1
        if world.kill_after == 0 and (leader := world.find_leader()) is not None:
            leader.kill()


@cache
def _load_suites() -> dict[str, Any]:
    return {NAME: build_suite(ITEMS)}


@cache
def _load_engines() -> tuple[Any, ...]:
    return load_catalog(TESTS.parent / "model_repo" / "r1plus_model_repo" / "catalog" / "smollm2.yaml")


def _settings_of(identity: str) -> OperatorSettings:
    operator = OperatorConfig(
        monitor_image="registry.local/monitor:1",
        triton_image="registry.local/triton:1",
        default_family="smollm2",
        operator_namespace=OPERATOR_NAMESPACE,
        monitoring_namespace="monitoring",
        suite_trust=SuiteTrust(required=False),
        volumes=VolumeTerms(require_signature=False),
        bake_seconds=BAKE_SECONDS,
        cooldown_seconds=COOLDOWN_SECONDS,
    )
    return OperatorSettings(
        operator=operator,
        catalog=_load_engines(),
        suites=_load_suites(),
        verdict_interval=VERDICT_SECONDS,
        workers=16,
        health_port=0,
        registry_url="",
        registry_token=Path("absent"),
        identity=identity,
        lease_seconds=LeaseTerms().duration,
    )
