"""The one gatherer: keeps the caches and hands a pass everything it plans from. No pass asks the API server.

Built by main; the reconciler calls `observed`, the executor `learn`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import lru_cache, partial
from typing import Any

from r1plus_contract import names
from r1plus_contract.engine_fetch import FillProgress
from r1plus_contract.verdict import MonitorReport
from r1plus_operator.api import kinds
from r1plus_operator.observe import projections
from r1plus_operator.observe.projections import Child, EngineObject, Kept, ServingPod, controller
from r1plus_operator.observe.tenant_suites import TenantSuites
from r1plus_operator.observe.waves import Waves
from r1plus_operator.plan.accuracy.mounted_suites import hash_mounted_suites
from r1plus_operator.plan.accuracy.suite_names import list_suite_names
from r1plus_operator.plan.engine.delivery import EngineVolume, is_finished, with_current_source
from r1plus_operator.plan.manifests.alerts import format_group_name
from r1plus_operator.plan.observation import (
    JOB_ENDED,
    Json,
    NamespaceFacts,
    Observation,
    PoolView,
    PrometheusState,
    PrometheusView,
    SuiteSource,
    VolumeFacts,
)
from r1plus_operator.plan.podspec.pod import name_accuracy_config
from r1plus_operator.plan.revision.record import read_volume
from r1plus_operator.plan.tenancy.tenant import TENANT_GRANTS, ObjectKey, TenantObservation, hash_policies
from r1plus_operator.plan.tenancy.tenant import TENANT_KINDS as TENANT_PARTS
from r1plus_operator.plan.tenancy.volumes import (
    FAILED,
    VOLUME_KINDS,
    VolumeNeed,
    VolumesObservation,
    read_delivered_digest,
)
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.errors import ApiError
from r1plus_operator.runtime.reflector import Reflector
from r1plus_operator.runtime.resources import Resource

log = logging.getLogger(__name__)
RELIST_SECONDS = 1.0
CRS_PER_PAGE = 20
"""Per request of a list: kopf and we both list them, and an R1PlusDeployment's annotations may take 256 KiB."""
Key = tuple[str, str]
CATALOG_KEY: Key = ("", "catalog")
"""The queue's key for the shipped engine catalog."""
VOLUMES_NAME = ""
"""(namespace, this) is the queue's key for the volumes of a namespace; no R1PlusDeployment has such a name."""
TENANT_NAME = "tenant/"
"""(namespace, this) is the queue's key for a namespace as a tenant; likewise."""
_REVISION = "ControllerRevision"
_OURS = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY}"


class Observer:
    """Reflectors of every kind that matters, the CRs that kopf delivers, and the monitors' reports."""

    def __init__(
        self,
        client: ApiClient,
        enqueue: Callable[[Key], None],
        shipped_suites: Mapping[str, SuiteSource],
        *,
        decoy_namespace: str = "",
        at_once: Callable[[Key], None] | None = None,
        edited: Callable[[Key], None] | None = None,
        slots: int = 1,
    ) -> None:
        """`at_once`: enqueue before whatever waits; a wall is what somebody changed.

        `edited`: enqueue what its tenant has changed, and may change without end. `slots`: of waves (`Waves`).
        """
        self._client = client
        self._tasks: list[asyncio.Task[None]] = []
        self._group: asyncio.TaskGroup | None = None
        self._enqueue = enqueue
        self._at_once = at_once or enqueue
        self._edited = edited or enqueue
        self._decoy = decoy_namespace
        self._shipped = dict(shipped_suites)
        self.crs: dict[Key, Json] = {}
        self.reports: dict[str, MonitorReport] = {}
        """Pod's uid -> what its monitor said last; written by the verdict source. A namesake has said nothing yet."""
        self._prometheus: PrometheusView | None = None
        self.children: dict[str, Reflector[Child]] = {
            resource.kind: self._child(client, resource) for resource in kinds.CHILDREN
        }
        self.pods: Reflector[ServingPod] = Reflector(
            client,
            kinds.POD,
            project=projections.pod,
            on_change=self._pod_changed,
            label_selector=_OURS,
            index=lambda pod: f"{pod.probed}/{TENANT_NAME}" if pod.probed else f"{pod.namespace}/{pod.deployment}",
        )
        self.namespaces: Reflector[Kept] = Reflector(
            client, kinds.NAMESPACE, project=projections.namespace, on_change=self._namespace_changed
        )
        self.tenants: Reflector[Kept] = Reflector(
            client,
            kinds.R1PLUS_TENANT,
            project=projections.tenant,
            on_change=lambda _, tenant: enqueue((tenant.namespace, TENANT_NAME)),
        )
        self.nodes: Reflector[Kept] = Reflector(
            client, kinds.NODE, project=projections.node, on_change=self._node_changed
        )
        self.engines: Reflector[Kept] = Reflector(
            client, kinds.R1PLUS_ENGINE, project=projections.engine, on_change=self._engine_changed
        )
        self.endpoints: Reflector[Kept] = Reflector(
            client,
            kinds.ENDPOINT_SLICE,
            project=projections.endpoints,
            on_change=lambda _, kept: enqueue((kept.namespace, kept.value.service)),
            label_selector=_OURS,
            index=lambda kept: f"{kept.namespace}/{kept.value.service}",
        )
        self.progress: dict[str, FillProgress] = {}
        """Pod's uid -> how far its Job has filled a volume; written by the verdict source."""
        self.refused_volumes: dict[str, dict[str, str]] = {}
        """Namespace -> volume -> which write for it the API server refused, in its words; written by the reconciler."""
        self.pools: dict[Key, PoolView] = {}
        """Deployment -> its pooled detector; written by the verdict source."""
        self.suites = TenantSuites(client, self._suite_changed)
        self.waves = Waves(slots)

    def _child(self, client: ApiClient, resource: Resource) -> Reflector[Child]:
        return Reflector(
            client,
            resource,
            project=partial(projections.child, resource),
            on_change=partial(self._child_changed, resource),
            label_selector=_OURS,
            index=_index,
            optional=resource in kinds.OPTIONAL_CHILDREN,
            on_available=lambda: self._enqueue_all(None),
        )

    def reflectors(self) -> Iterable[Reflector[Any]]:
        """All of them; main runs each as a task."""
        cluster = (self.nodes, self.engines, self.namespaces)
        return (*self.children.values(), self.pods, self.endpoints, self.suites.index, self.tenants, *cluster)

    def start(self, group: asyncio.TaskGroup) -> None:
        """Keep the caches, in tasks of the group."""
        self._group = group
        self._tasks = [group.create_task(reflector.run()) for reflector in self.reflectors()]

    def stop(self) -> None:
        """Keep the caches no more."""
        for task in self._tasks:
            task.cancel()

    async def renew(self) -> None:
        """Read everything anew; afterwards all caches are at least as new as the call. For who begins to lead."""
        if self._group is None:
            raise RuntimeError("renew: the caches have not been started")
        self.stop()
        await asyncio.wait(self._tasks)
        for reflector in self.reflectors():
            reflector.expire()
        self.start(self._group)
        await self.caught_up()

    async def caught_up(self) -> None:
        """Wait until everything that there was at the call is known, the CRs included."""
        await self._relist_crs()
        await self.synced()

    async def _relist_crs(self) -> None:
        """Read all CRs, since how old kopf's are cannot be asked; asks until it has an answer."""
        while True:
            try:
                await self._read_crs()
            except ApiError as error:
                log.warning("Could not list %s, again in %.0f s: %s", names.KIND_DEPLOYMENT, RELIST_SECONDS, error)
                await asyncio.sleep(RELIST_SECONDS)
            else:
                return

    async def _read_crs(self) -> None:
        """One list; what kopf delivers meanwhile is not overruled."""
        before = {key: cr["metadata"]["uid"] for key, cr in self.crs.items()}
        async for crs, _ in self._client.iter_pages(kinds.R1PLUS_DEPLOYMENT, limit=CRS_PER_PAGE):
            for cr in crs:
                key = (cr["metadata"]["namespace"], cr["metadata"]["name"])
                before.pop(key, None)
                if key not in self.crs or _version(self.crs[key]) < _version(cr):
                    self.ingest(None, {"apiVersion": names.API_VERSION, "kind": names.KIND_DEPLOYMENT, **cr})
        for key, uid in before.items():
            self.forget(key, uid)

    async def synced(self) -> None:
        """Wait until every cache has held a complete list."""
        await asyncio.gather(*(reflector.sync_event.wait() for reflector in self.reflectors()))

    @property
    def is_synced(self) -> bool:
        """Whether every cache has held a complete list."""
        return all(reflector.sync_event.is_set() for reflector in self.reflectors())

    def ingest(self, event: str | None, cr: Json) -> None:
        """Take in a CR event from kopf and ask for a pass, unless only its status moved."""
        meta = cr["metadata"]
        key = (meta["namespace"], meta["name"])
        if event == "DELETED":
            self.forget(key, meta["uid"])
            self._enqueue(key)  # what was kept of it elsewhere goes with it
            return
        before = self.crs.get(key)
        if before is not None and event is not None and _version(cr) < _version(before):
            return  # From before a status of ours, whose answer has been taken in. (None: from a list, which decides.)
        self.crs[key] = projections.deployment(cr)
        if before is None:
            self._note_revisions(meta["uid"])
            self._enqueue(key)
        elif _wish(before) != _wish(self.crs[key]):
            self._edited(key)
        if before is not None and "deletionTimestamp" in meta and "deletionTimestamp" not in before["metadata"]:
            self._leave_waves(key, meta["uid"])

    def news(self, key: Key) -> None:
        """A monitor said something new about this deployment."""
        self._enqueue(key)

    def take_prometheus(self, view: PrometheusView) -> None:
        """Prometheus said something; whoever's rule or targets changed is looked at again."""
        before = {key: self._wiring(key) for key in self.crs}
        self._prometheus = view
        for key, wiring in before.items():
            if self._wiring(key) != wiring:
                self._enqueue(key)

    def _wiring(self, key: Key) -> PrometheusState | None:
        """Of what Prometheus says, what concerns this deployment."""
        view, (namespace, name) = self._prometheus, key
        if view is None:
            return None
        pods = self.pods.store.by_index(f"{namespace}/{name}")
        scraped = ((pod.name, view.targets.get((namespace, pod.name))) for pod in pods)
        targets = {pod: found for pod, found in scraped if found}
        return PrometheusState(view.url, view.error, view.rules.get(format_group_name(namespace, name), ()), targets)

    def forget(self, key: Key, uid: str) -> None:
        """This very CR is gone; a namesake that came after it stays."""
        if key in self.crs and self.crs[key]["metadata"]["uid"] == uid:
            del self.crs[key]
            self._enqueue((key[0], TENANT_NAME))  # An R1PlusTenant that is being deleted waits for it.
            self._leave_waves(key, uid)

    async def load_suites(self, key: Key) -> dict[str, SuiteSource]:
        """Return the namespace's own suites by which a pass over this CR may judge.

        Raises ApiError if one cannot be fetched.
        """
        namespace, facts = key[0], self.namespace(key[0])
        cr = self.crs.get(key)
        if cr is None or facts is None or not facts.is_tenant or not self.suites.names(namespace):
            return {}
        engines = (kept.value.engine for kept in self.engines.store.items() if kept.value.engine)
        return await self.suites.load(namespace, list_suite_names(cr, engines, self._owned(key, cr)))

    async def load_mounted(self, key: Key) -> tuple[SuiteSource, ...]:
        """Return the suites that the monitors of this CR's pods have mounted, trusted or not.

        Raises ApiError if they cannot be fetched.
        """
        name = name_accuracy_config(key[1])
        cr = self.crs.get(key)
        accuracy = self._owned(key, cr).get(("ConfigMap", name)) if cr else None
        return await self.suites.load_mounted(key[0], name, hash_mounted_suites(accuracy)) if accuracy else ()

    def _owned(self, key: Key, cr: Json) -> dict[tuple[str, str], Json]:
        """Return the living children of a CR, by kind and name.

        Its own are those that it controls, and those with its label that no R1PlusDeployment controls: somebody took
        the owner reference away, which a pass puts back.
        """
        return {
            (kind, child.name): child.live
            for kind, reflector in self.children.items()
            for index in (_of_deployment(*key), cr["metadata"]["uid"])
            for child in reflector.store.by_index(index)
            if not child.deleting
        }

    def observed(self, key: Key, suites: Mapping[str, SuiteSource] | None = None) -> Observation | None:
        """Everything about one CR, or None where there is none. `suites`: its own, if not those that are at hand."""
        cr = self.crs.get(key)
        if cr is None or cr["metadata"].get("deletionTimestamp"):
            return None
        namespace = key[0]
        # In the same order every time: a pod's event moves it, and what is told must not change with it.
        pods = sorted(self.pods.store.by_index(f"{namespace}/{key[1]}"), key=lambda pod: pod.name)
        own = self.suites.loaded(namespace) if suites is None else suites
        return Observation(
            cr=cr,
            engines=tuple(kept.value.engine for kept in self.engines.store.items() if kept.value.engine),
            suites={**self._shipped, **own},
            nodes=tuple(kept.value for kept in self.nodes.store.items()),
            suite_names=frozenset(self._shipped) | self.suites.names(namespace),
            children=self._owned(key, cr),
            pods=tuple(pod.facts for pod in pods),
            reports={pod.name: self.reports[pod.uid] for pod in pods if pod.uid in self.reports},
            kinds=frozenset(r.kind for r in kinds.OPTIONAL_CHILDREN if self.children[r.kind].is_available),
            prometheus_state=self._wiring(key),
            pool=self.pools.get(key),
            endpoints=self._endpoints(key),
            volumes=self._volumes(namespace),
            volume_write_errors=self.refused_volumes.get(namespace, {}),
        )

    def _endpoints(self, key: Key) -> frozenset[str] | None:
        """The pods to which its Service leads; None while there is no EndpointSlice of it."""
        slices = self.endpoints.store.by_index(f"{key[0]}/{key[1]}")
        return frozenset().union(*(kept.value.pods for kept in slices)) if slices else None

    def _volumes(self, namespace: str) -> dict[str, VolumeFacts]:
        """How the namespace's volumes stand, by name."""
        claims = self.children["PersistentVolumeClaim"].store.by_index(_volumes_of(namespace))
        if not claims:
            return {}
        pods = sorted(self.pods.store.by_index(f"{namespace}/{VOLUMES_NAME}"), key=lambda pod: pod.name)
        jobs = {job.name: job.live for job in self.children["Job"].store.by_index(_volumes_of(namespace))}
        found = {}
        for claim in claims:
            if claim.deleting:
                continue  # Nothing can mount it any more.
            own = [pod for pod in pods if pod.volume == claim.name]
            found[claim.name] = VolumeFacts(
                delivered_digest=read_delivered_digest(claim.live),
                has_failed=(jobs.get(claim.name, {}).get(JOB_ENDED) or {}).get("type") == FAILED,
                pods=tuple(pod.facts for pod in own),
                progress=next(
                    (self.progress[p.uid] for p in own if p.uid in self.progress and not is_finished(p.facts)), None
                ),
            )
        return found

    def volumes(self, namespace: str) -> VolumesObservation:
        """What a namespace needs and has of volumes.

        By the revisions that there are and by nothing else: after a start they are all known before any CR is, and a
        volume that seems to be needed by nobody is deleted.
        """
        engines = {kept.name: kept.value.engine for kept in self.engines.store.items()}
        needed: dict[str, EngineVolume] = {}
        owners: dict[str, set[tuple[str, str]]] = {}
        for child in sorted(self.children["ControllerRevision"].store.items(), key=lambda child: child.name):
            if child.namespace != namespace or not child.volume or child.deleting:
                continue
            live = child.live
            if volume := read_volume(live):
                needed[volume.name] = with_current_source(volume, engines.get(volume.order.engine))
                # One that was orphaned needs its volume, too, and owns nothing.
                by = {(controller(live["metadata"])["name"], child.owner)} if child.owner else set()
                owners[volume.name] = owners.get(volume.name, set()) | by
        parts = {
            (kind, child.name): child
            for kind in VOLUME_KINDS
            for child in self.children[kind].store.by_index(_volumes_of(namespace))
        }
        facts = self.namespace(namespace)
        return VolumesObservation(
            namespace=namespace,
            needs=tuple(VolumeNeed(needed[name], tuple(sorted(owners[name]))) for name in sorted(needed)),
            live={key: child.live for key, child in parts.items() if not child.deleting},
            deleting=frozenset(key for key, child in parts.items() if child.deleting),
            assigns_users=facts is not None and facts.assigns_users,
        )

    def namespace(self, name: str) -> NamespaceFacts | None:
        """A namespace, whatever it is; None where there is none of that name."""
        kept = self.namespaces.store.get(None, name)
        return kept.value if kept is not None else None

    def tenant(self, namespace: str) -> TenantObservation | None:
        """A namespace as a tenant; None where there is none of that name."""
        facts = self.namespace(namespace)
        if facts is None:
            return None
        cr = self.tenants.store.get(namespace, names.TENANT)
        leaving = cr is not None and "deletionTimestamp" in cr.value["metadata"]
        parts = self._parts(namespace)
        claims = self.children["PersistentVolumeClaim"].store.by_index(_volumes_of(namespace)) if leaving else ()
        return TenantObservation(
            namespace=facts,
            cr=cr.value if cr else None,
            live={key: child.live for key, child in parts.items() if not child.deleting},
            deleting=frozenset(key for key, child in parts.items() if child.deleting),
            deployments=tuple(sorted(key[1] for key in self.crs if key[0] == namespace)) if leaving else (),
            volumes=tuple(sorted(claim.name for claim in claims)),
            policy_digests=self._walls(namespace) if facts.is_tenant and self._decoy else {},
            node_addresses=self._addresses() if cr and cr.value["spec"].get("egress") else (),
            pods={
                (pod.namespace, pod.job): pod.facts
                for pod in sorted(self.pods.store.by_index(f"{namespace}/{TENANT_NAME}"), key=lambda pod: pod.name)
            },
            is_decoy_ready=self._decoy_ready(),
        )

    def _decoy_ready(self) -> bool:
        where = self.namespaces.store.get(None, self._decoy)
        pods = self.pods.store.by_index(f"{self._decoy}/{names.DECOY}")
        return where is not None and not where.value.is_terminating and any(pod.facts.ready for pod in pods)

    def remains(self, namespace: str) -> tuple[tuple[str, str, str, str], ...]:
        """What is left of a tenant whose namespace is gone: the prober's controls lie in the decoy's."""
        found = self._parts(namespace).items()
        return tuple((*key, child.uid) for key, child in found if key[0] != namespace and not child.deleting)

    def _parts(self, namespace: str) -> dict[ObjectKey, Child]:
        return {
            (child.namespace, kind, child.name): child
            for kind in TENANT_PARTS
            for child in self.children[kind].store.by_index(_tenant_of(namespace))
        }

    def _walls(self, namespace: str) -> dict[str, str]:
        """Of each deployment that serves, by its policy and its pods: a CR may not have been delivered yet."""
        found = {}
        for wall in self.children["NetworkPolicy"].store.items():
            if wall.namespace != namespace or not wall.owner or wall.deleting:
                continue
            if any(pod.facts.ready for pod in self.pods.store.by_index(f"{namespace}/{wall.name}")):
                found[wall.name] = _digest(wall)
        return found

    def _addresses(self) -> tuple[str, ...]:
        """In order, since what is told of them must not change with a node's events."""
        return tuple(sorted(address for node in self.nodes.store.items() for address in node.value.addresses))

    def monitored_pods(self) -> tuple[ServingPod, ...]:
        """Return the pods whose monitor or progress may be asked for: of a known revision, or of a volume's Job.

        The mark alone says nothing: whoever makes pods may label them so.
        """
        return tuple(pod for pod in self.pods.store.items() if self._is_of_revision(pod) or self._fills_volume(pod))

    def _is_of_revision(self, pod: ServingPod) -> bool:
        cr = self.crs.get((pod.namespace, pod.deployment))
        revision = self.children["ControllerRevision"].store.get(pod.namespace, pod.facts.revision)
        if cr is None or revision is None:
            return False
        is_owned = revision.owner == cr["metadata"]["uid"]
        is_made_for = pod.facts.owner_uid == (revision.made_for or revision.owner)
        return is_owned and is_made_for and pod.facts.is_made_by(revision.name)

    def _fills_volume(self, pod: ServingPod) -> bool:
        job = self.children["Job"].store.get(pod.namespace, pod.volume)
        return job is not None and job.volume == pod.volume and job.uid == pod.job

    def live_engines(self) -> dict[str, Json]:
        """Every R1PlusEngine as it lies in the cluster."""
        return {kept.name: kept.value.live for kept in self.engines.store.items()}

    def catalog(self) -> tuple[EngineObject, ...]:
        """Every R1PlusEngine as it lies in the cluster, and read."""
        return tuple(kept.value for kept in self.engines.store.items())

    async def write_through(self, child: Json, write: Awaitable[Json]) -> None:
        """Carry out a write to a child; its answer is what the next pass sees, and its echo causes none."""
        kind, key = child["kind"], (child["metadata"]["namespace"], child["metadata"]["name"])
        await self.children[kind].write_through(key, write)
        if kind == _REVISION and (written := self.children[kind].store.get(*key)):
            self._note_revision(written)

    def learn(self, written: Json) -> None:
        """Take in the API server's answer to a status, so that the next pass does not plan from before it.

        The answer may be newer than what was planned from: then somebody edited the CR meanwhile.
        """
        if (written["metadata"]["namespace"], written["metadata"]["name"]) in self.crs:
            self.ingest("MODIFIED", written)

    def unlearn(self, kind: str, namespace: str, name: str) -> None:
        """A child or a pod was deleted by us."""
        reflector = self.pods if kind == kinds.POD.kind else self.children[kind]
        reflector.forget((namespace, name))
        if kind == _REVISION:
            self._forget_revision((namespace, name))

    def release_slot(self, key: Key) -> None:
        """A pass over this deployment is over, and whose turn it is now is looked at."""
        self.waves.release(key)
        self._enqueue_turns()

    def _enqueue_turns(self) -> None:
        for key in self.waves.turns():
            self._enqueue(key)

    def _leave_waves(self, key: Key, uid: str) -> None:
        """An R1PlusDeployment that goes waits for no turn, and its revisions hold no slot."""
        self.waves.wait(key, None)
        self._note_revisions(uid)

    def _note_revisions(self, uid: str) -> None:
        """An R1PlusDeployment came or went, and its revisions count or do not."""
        for revision in self.children[_REVISION].store.by_index(uid):
            self._note_revision(revision)
        self._enqueue_turns()

    def _note_revision(self, child: Child) -> None:
        key = (child.namespace, min(child.deployments, default=""))
        owner = self.crs.get(key)
        where = self.namespace(child.namespace)
        # Nobody ends what is said by one that was orphaned, that waits for the garbage collector or for finalizers of
        # its deployment, or that is in a namespace where nothing is written any more.
        lives = owner is not None and "deletionTimestamp" not in owner["metadata"] and not child.deleting
        is_owned = owner is not None and owner["metadata"]["uid"] == child.owner
        counts = lives and is_owned and where is not None and where.is_tenant
        for waiting in self.waves.note((child.namespace, child.name), key, child.refresh if counts else None):
            self._enqueue(waiting)

    def _forget_revision(self, revision: Key) -> None:
        for waiting in self.waves.note(revision, revision, None):
            self._enqueue(waiting)

    async def write_tenant(self, namespace: str, write: Awaitable[Json]) -> None:
        """Carry out a write to an R1PlusTenant; its answer is what the next pass sees."""
        await self.tenants.write_through((namespace, names.TENANT), write)

    def _child_changed(self, resource: Resource, event: str, child: Child) -> None:
        is_wall = resource.kind == "NetworkPolicy"
        enqueue = self._at_once if is_wall else self._enqueue
        if child.volume:
            self._enqueue((child.namespace, VOLUMES_NAME))
        # Of some kinds whatever the label says: somebody may have taken it off. A claim that is gone was waited for.
        waited_for = resource.kind == "PersistentVolumeClaim" and event == "DELETED"
        if child.tenant or is_wall or resource.kind in TENANT_GRANTS or waited_for:
            enqueue((child.tenant or child.namespace, TENANT_NAME))
        for name in child.deployments:
            enqueue((child.namespace, name))
        if resource.kind == _REVISION:
            if event == "DELETED":
                self._forget_revision((child.namespace, child.name))
            else:
                self._note_revision(child)
            self._enqueue_turns()

    def _pod_changed(self, _event: str, pod: ServingPod) -> None:
        if pod.probed:
            self._enqueue((pod.probed, TENANT_NAME))
            return
        self._enqueue((pod.namespace, pod.deployment))
        if not pod.facts.ready:
            return
        if pod.namespace == self._decoy:
            for key in self.tenant_keys():
                self._enqueue(key)
        else:
            self._enqueue((pod.namespace, TENANT_NAME))  # There is something to knock under the walls of.

    def _namespace_changed(self, _event: str, namespace: Kept) -> None:
        self._enqueue((namespace.name, TENANT_NAME))
        self._enqueue_all(namespace.name)
        for (name, _), cr in self.crs.items():
            if name == namespace.name:
                self._note_revisions(cr["metadata"]["uid"])

    def look_again(self, namespace: str) -> None:
        """What a namespace is as a tenant changed for its deployments."""
        self._enqueue_all(namespace)

    def tenant_keys(self) -> list[Key]:
        """The keys of all namespaces that are tenants."""
        return [(kept.name, TENANT_NAME) for kept in self.namespaces.store.items() if kept.value.is_tenant]

    def _engine_changed(self, _event: str, _engine: Kept) -> None:
        self._enqueue(CATALOG_KEY)
        self._enqueue_all(None)
        # Where an engine is fetched from is what its R1PlusEngine says now.
        claims = self.children["PersistentVolumeClaim"].store.items()
        for namespace in {claim.namespace for claim in claims if claim.volume}:
            self._enqueue((namespace, VOLUMES_NAME))

    def _node_changed(self, _event: str, _node: Kept) -> None:
        self._enqueue_all(None)
        for tenant in self.tenants.store.items():
            if tenant.value["spec"].get("egress"):
                self._enqueue((tenant.namespace, TENANT_NAME))  # Its address shuts a way out that holds it.

    def _suite_changed(self, event: str, suite: Kept) -> None:
        self._enqueue_all(suite.namespace, self._enqueue if event == "ADDED" else self._edited)

    def _enqueue_all(self, namespace: str | None, enqueue: Callable[[Key], None] | None = None) -> None:
        for key in self.crs:
            if namespace is None or key[0] == namespace:
                (enqueue or self._enqueue)(key)


@lru_cache(maxsize=8192)
def _digest(wall: Child) -> str:
    """Kept, since a tenant may have a thousand, and they seldom change."""
    return hash_policies([wall.live])


def _volumes_of(namespace: str) -> str:
    """Under which the stores index what belongs to a namespace's volumes: no uid looks like it."""
    return f"volumes/{namespace}"


def _tenant_of(namespace: str) -> str:
    """Likewise what it has as a tenant."""
    return f"tenant/{namespace}"


def _of_deployment(namespace: str, name: str) -> str:
    """Likewise what has the label of an R1PlusDeployment, and no R1PlusDeployment that controls it."""
    return f"deployment/{namespace}/{name}"


def _index(child: Child) -> str | None:
    """By its owner; what has none, by whose it is."""
    if child.tenant:
        return _tenant_of(child.tenant)
    if child.owner or child.label:
        return child.owner or _of_deployment(child.namespace, child.label)
    return _volumes_of(child.namespace) if child.volume else None


def _version(cr: Json) -> int:
    """Of two states of objects of one kind, the one with the higher resourceVersion is the newer."""
    return int(cr["metadata"]["resourceVersion"])


def _wish(cr: Json) -> tuple[Any, ...]:
    """What of a CR decides a pass; the status is not among it, since we write it ourselves."""
    meta = cr["metadata"]
    return meta["uid"], meta.get("generation"), meta.get("deletionTimestamp"), meta.get("annotations")
