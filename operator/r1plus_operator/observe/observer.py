"""The caches that every pass plans from: filled here, and what their changes concern is enqueued.

Built by main; the reconcilers call `observe` and its like, the applier calls `update_cached` and `evict`.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any

from r1plus_contract import names
from r1plus_contract.gateway import ModelSettings
from r1plus_operator.api import kinds
from r1plus_operator.observe import (
    gateway_observation,
    node_projection,
    pod_projection,
    projections,
    tenant_observation,
    volume_observation,
)
from r1plus_operator.observe.caches import (
    Caches,
    format_gateway_index,
    format_tenant_index,
    format_volumes_index,
    select_index,
)
from r1plus_operator.observe.deployment_gatherer import DeploymentGatherer
from r1plus_operator.observe.keys import CATALOG, DeploymentKey, Enqueue, TenantKey, VolumesKey
from r1plus_operator.observe.monitors.monitor_state import MonitorReports
from r1plus_operator.observe.pod_projection import ServingPod
from r1plus_operator.observe.projections import CachedObject, Child, EngineObject
from r1plus_operator.observe.revision_slots import REVISION, RevisionSlots
from r1plus_operator.observe.tenant_suites import TenantSuites
from r1plus_operator.observe.unmarked_revisions import RevisionFinder
from r1plus_operator.observe.waves import Waves
from r1plus_operator.plan.observation import (
    Json,
    NamespaceFacts,
    Observation,
    PrometheusView,
    SuiteSource,
    TokenIssuer,
)
from r1plus_operator.plan.tenancy.tenant import TENANT_GRANTS, TenantObservation
from r1plus_operator.plan.tenancy.volumes import VolumesObservation
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.errors import ApiError
from r1plus_operator.runtime.fairness import Priority
from r1plus_operator.runtime.reflector import Reflector
from r1plus_operator.runtime.resources import Resource

log = logging.getLogger(__name__)
RELIST_SECONDS = 1.0
CRS_PER_PAGE = 20
"""Per request of a list: kopf and we both list them, and an R1PlusDeployment's annotations may take 256 KiB."""
_OURS = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY}"


class Observer:
    """Reflectors of every kind that matters, the CRs that kopf delivers, and the monitors' reports."""

    def __init__(
        self,
        client: ApiClient,
        enqueue: Enqueue,
        shipped_suites: Mapping[str, SuiteSource],
        *,
        decoy_namespace: str = "",
        slots: int = 1,
        has_train_jobs: bool = False,
        rand: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Call `enqueue` with the key of each pass for which a change asks.

        `slots`: how many deployments waves may roll at once. `has_train_jobs`: whether the operator may read
        TrainJobs. `rand`: jitter.
        """
        self._client = client
        self._tasks: list[asyncio.Task[None]] = []
        self._group: asyncio.TaskGroup | None = None
        self._enqueue = enqueue
        self._decoy = decoy_namespace
        self.crs: dict[DeploymentKey, Json] = {}
        self._cached_since_list: set[DeploymentKey] = set()
        self._is_reading = False
        self._gone_since_read: set[str] = set()
        """uids of the CRs that were deleted while a list is read."""
        self._token_issuer: TokenIssuer | None = None
        caches = self._build_caches(client, has_train_jobs=has_train_jobs, rand=rand)
        self._caches = caches
        self.children, self.pods, self.namespaces = caches.children, caches.pods, caches.namespaces
        self.tenants, self.nodes, self.engines = caches.tenants, caches.nodes, caches.engines
        self.endpoints = caches.endpoints
        self.monitors = MonitorReports(self._caches, self.crs, enqueue, clock)
        self.suites = TenantSuites(client, self._on_suite_change, rand=rand)
        self.waves = Waves(slots)
        self._slots = RevisionSlots(self._caches, self.crs, self.waves, enqueue)
        self._revisions = RevisionFinder(client, self._caches, self.crs)
        self.deployments = DeploymentGatherer(
            client, caches, self.crs, shipped_suites, self.suites, self.monitors, self._revisions, self.waves
        )

    def _build_caches(self, client: ApiClient, *, has_train_jobs: bool, rand: random.Random | None) -> Caches:
        """Build one reflector for each kind; each enqueues what its changes concern."""
        more_kinds = (kinds.TRAIN_JOB,) if has_train_jobs else ()
        return Caches(
            children={
                resource.kind: self._build_child_reflector(client, resource, rand)
                for resource in (*kinds.CHILDREN, *more_kinds)
            },
            pods=Reflector(
                client,
                kinds.POD,
                project=pod_projection.project_pod,
                on_change=self._on_pod_change,
                label_selector=_OURS,
                index=_select_pod_index,
                rand=rand,
            ),
            namespaces=Reflector(
                client,
                kinds.NAMESPACE,
                project=projections.project_namespace,
                on_change=self._on_namespace_change,
                rand=rand,
            ),
            tenants=Reflector(
                client,
                kinds.R1PLUS_TENANT,
                project=projections.project_tenant,
                on_change=lambda _, tenant: self._enqueue(TenantKey(tenant.namespace)),
                rand=rand,
            ),
            nodes=Reflector(
                client, kinds.NODE, project=node_projection.project_node, on_change=self._on_node_change, rand=rand
            ),
            engines=Reflector(
                client,
                kinds.R1PLUS_ENGINE,
                project=projections.project_engine,
                on_change=self._on_engine_change,
                rand=rand,
            ),
            endpoints=Reflector(
                client,
                kinds.ENDPOINT_SLICE,
                project=projections.project_endpoints,
                on_change=lambda _, entry: self._enqueue(DeploymentKey(entry.namespace, entry.value.service)),
                label_selector=_OURS,
                index=lambda entry: f"{entry.namespace}/{entry.value.service}",
                rand=rand,
            ),
        )

    def _build_child_reflector(
        self, client: ApiClient, resource: Resource, rand: random.Random | None
    ) -> Reflector[Child]:
        return Reflector(
            client,
            resource,
            project=partial(projections.project_child, resource),
            on_change=partial(self._on_child_change, resource),
            label_selector=_OURS,
            index=select_index,
            optional=resource in (*kinds.OPTIONAL_CHILDREN, kinds.TRAIN_JOB),
            on_available=self._on_new_kind,
            rand=rand,
        )

    def list_reflectors(self) -> Iterable[Reflector[Any]]:
        """Return all reflectors; each runs as a task."""
        return (*self._caches.list_reflectors(), self.suites.index)

    def start(self, group: asyncio.TaskGroup) -> None:
        """Start filling the caches, in tasks of the group."""
        self._group = group
        self._tasks = [group.create_task(reflector.run()) for reflector in self.list_reflectors()]

    def stop(self) -> None:
        """Stop filling the caches."""
        for task in self._tasks:
            task.cancel()

    async def relist(self) -> None:
        """Read everything again, so that all caches are at least as new as the call. For a new leader."""
        if self._group is None:
            raise RuntimeError("relist: the caches have not been started")
        self.stop()
        await asyncio.wait(self._tasks)
        for reflector in self.list_reflectors():
            reflector.expire()
        self.start(self._group)
        await self.catch_up()

    async def catch_up(self) -> None:
        """Wait until everything that existed at the call is cached, the CRs included."""
        await self._relist_crs()
        await self.wait_synced()

    async def _relist_crs(self) -> None:
        """Read all CRs until that succeeds: kopf does not say how old its own are."""
        while True:
            try:
                await self._read_crs()
            except ApiError as error:
                log.warning("Could not list %s, retry in %.0f s: %s", names.KIND_DEPLOYMENT, RELIST_SECONDS, error)
                await asyncio.sleep(RELIST_SECONDS)
            else:
                return

    async def _read_crs(self) -> None:
        """Read one list; newer events that kopf delivers meanwhile win, deletions too: no event would repeat them."""
        before = {key: cr["metadata"]["uid"] for key, cr in self.crs.items()}
        self._gone_since_read.clear()
        self._is_reading = True
        try:
            async for crs, _ in self._client.iter_pages(kinds.R1PLUS_DEPLOYMENT, limit=CRS_PER_PAGE):
                for cr in crs:
                    key = DeploymentKey(cr["metadata"]["namespace"], cr["metadata"]["name"])
                    before.pop(key, None)
                    is_newer = key not in self.crs or read_version(self.crs[key]) < read_version(cr)
                    if is_newer and cr["metadata"]["uid"] not in self._gone_since_read:
                        self.ingest(None, {"apiVersion": names.API_VERSION, "kind": names.KIND_DEPLOYMENT, **cr})
        finally:
            self._is_reading = False
        for key, uid in before.items():
            self.forget(key, uid)
            self._enqueue(key, Priority.LOW)  # As after DELETED.

    async def wait_synced(self) -> None:
        """Wait until every cache has held a complete list."""
        await asyncio.gather(*(reflector.sync_event.wait() for reflector in self.list_reflectors()))

    @property
    def is_synced(self) -> bool:
        """Return whether every cache has held a complete list."""
        return all(reflector.sync_event.is_set() for reflector in self.list_reflectors())

    def begin_list(self) -> None:
        """Let the list that kopf begins now win over what is cached by now, whatever its versions."""
        self._cached_since_list.clear()

    def ingest(self, event: str | None, cr: Json, *, has_turn: bool = False) -> None:
        """Cache a CR from kopf's event and enqueue it, unless only its status changed.

        `event` is None for a listed CR. `has_turn`: its namespace's pace has let this edit through already.
        """
        meta = cr["metadata"]
        key = DeploymentKey(meta["namespace"], meta["name"])
        if event == "DELETED":
            if self._is_reading:
                self._gone_since_read.add(meta["uid"])
            self.forget(key, meta["uid"])
            self._enqueue(key)  # The pass drops what is stored of it elsewhere.
            return
        before = self.crs.get(key)
        is_older = before is not None and read_version(cr) < read_version(before)
        if is_older and (event is not None or key in self._cached_since_list):
            return  # From before our own status, whose answer is cached. After a restore, a list has older versions.
        self._cached_since_list.add(key)
        self.crs[key] = projections.project_deployment(cr)
        if before is None:
            self._slots.record_all(meta["uid"])
            self._enqueue(key, Priority.LOW)
        elif select_trigger(before) != select_trigger(self.crs[key]):
            has_request = before["metadata"].get("annotations") != self.crs[key]["metadata"].get("annotations")
            priority = Priority.URGENT if has_turn and has_request else Priority.NORMAL
            self._enqueue(key, priority, is_edit=not has_turn)
        if before is not None and "deletionTimestamp" in meta and "deletionTimestamp" not in before["metadata"]:
            self._slots.leave(key, meta["uid"])

    def store_volume_write_errors(self, namespace: str, errors: dict[str, str]) -> None:
        """Store why the API server refused writes for a namespace's volumes, by volume."""
        self.deployments.volume_write_errors[namespace] = errors

    def update_prometheus(self, view: PrometheusView) -> None:
        """Store what Prometheus answered, and enqueue the deployments whose rules or targets changed."""
        states = {key: self.deployments.select_prometheus_state(key) for key in self.crs}
        self.deployments.prometheus = view
        for key, previous in states.items():
            if self.deployments.select_prometheus_state(key) != previous:
                self._enqueue(key)

    def forget(self, key: DeploymentKey, uid: str) -> None:
        """Drop this very CR, which is gone; a namesake that came after it stays."""
        if key in self.crs and self.crs[key]["metadata"]["uid"] == uid:
            del self.crs[key]
            self._cached_since_list.discard(key)
            self._slots.leave(key, uid)
            self._revisions.forget(key)
            tenant = self.tenants.store.get(key.namespace, names.TENANT)
            if tenant is not None and "deletionTimestamp" in tenant.value["metadata"]:
                self._enqueue(TenantKey(key.namespace))  # It waits until its namespace has no deployment.

    def observe(self, key: DeploymentKey) -> Observation | None:
        """Return what the caches have of one CR; None if it is gone or going."""
        return self.deployments.observe(key)

    def observe_volumes(self, namespace: str) -> VolumesObservation:
        """Return what a namespace needs and has of volumes."""
        return volume_observation.observe_volumes(self._caches, namespace)

    def observe_tenant(self, namespace: str) -> TenantObservation | None:
        """Return a namespace as a tenant; None if there is none of that name."""
        return tenant_observation.observe_tenant(
            self._caches, namespace, self.crs, self._decoy, self._token_issuer, self.monitors.data_states
        )

    def observe_model(self, key: DeploymentKey) -> ModelSettings | None:
        """Return an R1PlusDeployment as a model of its gateway; None while there is no pod to reach, or no CR."""
        cr = self.crs.get(key)
        return gateway_observation.observe_model(self._caches, key, cr) if cr else None

    def store_token_issuer(self, issuer: TokenIssuer) -> None:
        """Store who issues ServiceAccounts' tokens, and enqueue the tenants with a gateway if that changed."""
        if issuer == self._token_issuer:
            return
        self._token_issuer = issuer
        for key in self.list_tenant_keys():
            if gateway_observation.has_gateway(self._caches, key.namespace):
                self._enqueue(key)

    def find_namespace(self, name: str) -> NamespaceFacts | None:
        """Return a namespace, tenant or not; None if there is none of that name."""
        return self._caches.find_namespace(name)

    def list_leftovers(self, namespace: str) -> tuple[tuple[str, str, str, str], ...]:
        """Return namespace, kind, name and uid of what is left of a tenant whose namespace is gone."""
        return tenant_observation.list_leftovers(self._caches, namespace)

    def list_live_engines(self) -> dict[str, Json]:
        """Return every R1PlusEngine as it is in the cluster, by name."""
        return {entry.name: entry.value.live for entry in self.engines.store.items()}

    def list_engines(self) -> tuple[EngineObject, ...]:
        """Return every R1PlusEngine as it is in the cluster, and parsed."""
        return tuple(entry.value for entry in self.engines.store.items())

    async def write_through(self, child: Json, write: Awaitable[Json]) -> None:
        """Carry out a write to a child and cache its answer for the next pass; its echo causes no pass."""
        kind, key = child["kind"], (child["metadata"]["namespace"], child["metadata"]["name"])
        await self.children[kind].write_through(key, write)
        if kind == REVISION and (revision := self.children[kind].store.get(*key)):
            self._slots.record(revision)

    def update_cached(self, cr: Json) -> None:
        """Cache the API server's answer to a status, so that the next pass plans from it.

        If somebody edited the CR meanwhile, the answer is newer than what was planned from.
        """
        if (cr["metadata"]["namespace"], cr["metadata"]["name"]) in self.crs:
            self.ingest("MODIFIED", cr)

    def evict(self, kind: str, namespace: str, name: str) -> None:
        """Drop a child or a pod that we deleted."""
        reflector = self.pods if kind == kinds.POD.kind else self.children[kind]
        reflector.forget((namespace, name))
        if kind == REVISION:
            self._slots.forget((namespace, name))

    def release_slot(self, key: DeploymentKey) -> None:
        """Release a deployment's unused slot after its pass, and enqueue the deployments whose turn it is."""
        self._slots.release(key)

    async def write_tenant(self, namespace: str, write: Awaitable[Json]) -> None:
        """Carry out a write to an R1PlusTenant and cache its answer for the next pass."""
        await self.tenants.write_through((namespace, names.TENANT), write)

    def _on_child_change(self, resource: Resource, event: str, child: Child) -> None:
        is_policy = resource.kind == "NetworkPolicy"
        priority = Priority.URGENT if is_policy else Priority.NORMAL
        is_mount_gone = resource.kind == "Deployment" and event == "DELETED"  # It may have kept a claim.
        if child.volume or is_mount_gone:
            self._enqueue(VolumesKey(child.namespace))
        # These kinds whatever their labels: somebody may have removed them. A tenant waits for a claim to be gone.
        is_claim_gone = resource.kind == "PersistentVolumeClaim" and event == "DELETED"
        if child.tenant or is_policy or resource.kind in TENANT_GRANTS or is_claim_gone:
            self._enqueue(TenantKey(child.tenant or child.namespace), priority)
        for name in child.deployments:
            self._enqueue(DeploymentKey(child.namespace, name), priority)
        if resource.kind == REVISION:
            if event == "DELETED":
                self._slots.forget((child.namespace, child.name))
                self._revisions.record_lost(child)
            else:
                self._slots.record(child)
            self._slots.enqueue_turns()

    def _on_pod_change(self, _event: str, pod: ServingPod) -> None:
        if pod.probed_namespace:
            self._enqueue(TenantKey(pod.probed_namespace))
            return
        if pod.is_gateway:
            self._enqueue(TenantKey(pod.namespace))
            return
        if not pod.deployment:
            self._enqueue(VolumesKey(pod.namespace))  # A Job's pod fills one.
        else:
            self._enqueue(DeploymentKey(pod.namespace, pod.deployment))
        if not pod.facts.ready:
            return
        if pod.namespace == self._decoy:
            for key in self.list_tenant_keys():
                self._enqueue(key)
        else:
            self._enqueue(TenantKey(pod.namespace))  # Its network policies can be tested now.

    def _on_namespace_change(self, _event: str, namespace: CachedObject) -> None:
        self._enqueue(TenantKey(namespace.name))
        self._enqueue_all(namespace.name)
        for (name, _), cr in self.crs.items():
            if name == namespace.name:
                self._slots.record_all(cr["metadata"]["uid"])

    def enqueue_deployments(self, namespace: str) -> None:
        """Enqueue a namespace's deployments: its view as a tenant changed."""
        self._enqueue_all(namespace)

    def list_tenant_keys(self) -> list[TenantKey]:
        """Return the keys of all namespaces that are tenants."""
        return [TenantKey(entry.name) for entry in self.namespaces.store.items() if entry.value.is_tenant]

    def _on_engine_change(self, _event: str, engine: CachedObject) -> None:
        self._enqueue(CATALOG)
        for tenant in self.tenants.store.items():
            if gateway_observation.name_embedding_engine(self._caches, tenant.namespace) == engine.name:
                self._enqueue(TenantKey(tenant.namespace))
        self._enqueue_all(None)
        # An R1PlusEngine says where its engine is fetched from.
        claims = self.children["PersistentVolumeClaim"].store.items()
        for namespace in {claim.namespace for claim in claims if claim.volume}:
            self._enqueue(VolumesKey(namespace))

    def _on_node_change(self, _event: str, _node: CachedObject) -> None:
        self._enqueue_all(None)
        for tenant in self.tenants.store.items():
            # Egress to a network excludes the nodes' addresses in it; a gateway's pods ask for what nodes report.
            has_gateway = gateway_observation.has_gateway(self._caches, tenant.namespace)
            if has_gateway or tenant_observation.has_egress(tenant.value["spec"]):
                self._enqueue(TenantKey(tenant.namespace))

    def _on_suite_change(self, event: str, suite: CachedObject) -> None:
        if event == "ADDED":
            self._enqueue_all(suite.namespace)
        else:
            self._enqueue_all(suite.namespace, Priority.NORMAL, is_edit=True)

    def _on_new_kind(self) -> None:
        """Enqueue whatever may have waited for an optional kind."""
        self._enqueue_all(None)
        for namespace in {namespace for namespace, _ in self.crs}:
            self._enqueue(VolumesKey(namespace), Priority.LOW)

    def _enqueue_all(self, namespace: str | None, priority: Priority = Priority.LOW, *, is_edit: bool = False) -> None:
        for key in self.crs:
            if namespace is None or key.namespace == namespace:
                self._enqueue(key, priority, is_edit=is_edit)


def _select_pod_index(pod: ServingPod) -> str:
    """Return the index value of a pod: the tenant whose isolation it tests, its gateway, or its deployment."""
    if pod.probed_namespace:
        return format_tenant_index(pod.probed_namespace)
    if pod.is_gateway:
        return format_gateway_index(pod.namespace)
    return f"{pod.namespace}/{pod.deployment}" if pod.deployment else format_volumes_index(pod.namespace)


def read_version(cr: Json) -> int:
    """Return the resourceVersion: of two objects of one kind, the higher one is the newer."""
    return int(cr["metadata"]["resourceVersion"])


def select_trigger(cr: Json) -> tuple[Any, ...]:
    """Return what of a CR causes a pass when it changes; not the status, which we write ourselves."""
    meta = cr["metadata"]
    # Finalizers are cached of those that are being deleted.
    return tuple(meta.get(key) for key in ("uid", "generation", "deletionTimestamp", "annotations", "finalizers"))
