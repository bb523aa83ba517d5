"""Everything that a pass over one R1PlusDeployment plans from, gathered at once. Built by the observer."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from r1plus_operator.api import kinds
from r1plus_operator.observe import projections, volume_observation
from r1plus_operator.observe.caches import Caches
from r1plus_operator.observe.keys import DeploymentKey
from r1plus_operator.observe.monitors.monitor_state import MonitorReports
from r1plus_operator.observe.tenant_suites import TenantSuites
from r1plus_operator.observe.unmarked_revisions import RevisionFinder
from r1plus_operator.observe.waves import Waves
from r1plus_operator.plan.accuracy.mounted_suites import find_mounted_suites, hash_mounted_suites
from r1plus_operator.plan.accuracy.suite_names import list_suite_names
from r1plus_operator.plan.deletion import Deletion
from r1plus_operator.plan.manifests.alerts import format_group_name
from r1plus_operator.plan.observation import (
    Json,
    Observation,
    PrometheusState,
    PrometheusView,
    SuiteSource,
    TenantView,
)
from r1plus_operator.plan.podspec.pod import name_accuracy_config
from r1plus_operator.runtime.client import ApiClient

ORPHAN = "orphan"
"""Finalizer by which Kubernetes' garbage collector leaves an object's children behind."""
_OPTIONAL_KINDS = frozenset(resource.kind for resource in (*kinds.OPTIONAL_CHILDREN, kinds.TRAIN_JOB))


class DeploymentGatherer:
    """Gathers what the caches have of one deployment, and reads what they lack."""

    def __init__(
        self,
        client: ApiClient,
        caches: Caches,
        crs: Mapping[DeploymentKey, Json],
        shipped_suites: Mapping[str, SuiteSource],
        suites: TenantSuites,
        monitors: MonitorReports,
        revisions: RevisionFinder,
        waves: Waves,
    ) -> None:
        """Read nothing yet."""
        self._client = client
        self._caches = caches
        self._crs = crs
        self._shipped = dict(shipped_suites)
        self._suites = suites
        self._monitors = monitors
        self._revisions = revisions
        self._waves = waves
        self.prometheus: PrometheusView | None = None
        """The last answers of Prometheus; None before the first."""
        self.volume_write_errors: dict[str, dict[str, str]] = {}
        """Namespace -> volume -> why the API server refused a write for it."""

    async def gather(
        self, key: DeploymentKey, read_view: Callable[[str], TenantView], write_error: str = ""
    ) -> Observation | None:
        """Return everything that a pass over one CR plans from; None if it is gone or going.

        What the caches lack is read first, so that the rest is of one moment. `read_view`: namespace -> its view as a
        tenant. `write_error`: the write that was refused in the last pass.

        Raises ApiError if something cannot be read.
        """
        unmarked = await self._revisions.find(key)
        tenant_suites = await self._load_suites(key)
        mounted = await self._load_mounted_suites(key, tenant_suites)
        observation = self.observe(key, tenant_suites)
        if observation is None:
            return None
        return replace(
            observation,
            children={**unmarked.orphans, **unmarked.own, **observation.children},
            mounted=mounted,
            write_objection=unmarked.objection,
            write_error=write_error,
            tenant=read_view(key.namespace),
            wave=self._waves.grant_slot(key),
        )

    async def _load_suites(self, key: DeploymentKey) -> dict[str, SuiteSource]:
        """Return the namespace's own suites by which a pass over this CR may judge.

        Raises ApiError if one cannot be fetched.
        """
        namespace, facts = key.namespace, self._caches.find_namespace(key.namespace)
        cr = self._crs.get(key)
        if cr is None or facts is None or not facts.is_tenant or not self._suites.list_names(namespace):
            return {}
        engines = (entry.value.engine for entry in self._caches.engines.store.items() if entry.value.engine)
        return await self._suites.load(
            namespace, list_suite_names(cr, engines, self._caches.list_children(key, cr["metadata"]["uid"]))
        )

    async def _load_mounted_suites(
        self, key: DeploymentKey, tenant_suites: Mapping[str, SuiteSource]
    ) -> tuple[SuiteSource, ...]:
        """Return the suites that the monitors of this CR's pods have mounted, where one of them is not at hand.

        Raises ApiError if they cannot be fetched.
        """
        name, cr = name_accuracy_config(key.name), self._crs.get(key)
        if cr is None:
            return ()
        accuracy = self._caches.list_children(key, cr["metadata"]["uid"]).get(("ConfigMap", name))
        at_hand = (*self._shipped.values(), *tenant_suites.values())
        if accuracy is None or not find_mounted_suites(accuracy, at_hand).has_unread:
            return ()
        return await self._suites.load_mounted(key.namespace, name, hash_mounted_suites(accuracy))

    def observe(self, key: DeploymentKey, suites: Mapping[str, SuiteSource] | None = None) -> Observation | None:
        """Return everything about one CR.

        None if it is gone or going. `suites`: the tenant's own; default: the cached ones.
        """
        cr = self._crs.get(key)
        if cr is None or cr["metadata"].get("deletionTimestamp"):
            return None
        namespace = key.namespace
        # Sorted: a pod's event moves it in the store, and messages must not change with that.
        pods = sorted(self._caches.pods.store.by_index(f"{namespace}/{key.name}"), key=lambda pod: pod.name)
        reports = self._monitors.reports
        tenant_suites = self._suites.list_cached(namespace) if suites is None else suites
        return Observation(
            cr=cr,
            engines=tuple(entry.value.engine for entry in self._caches.engines.store.items() if entry.value.engine),
            embedding_engines=tuple(
                entry.value.embedding for entry in self._caches.engines.store.items() if entry.value.embedding
            ),
            suites={**self._shipped, **tenant_suites},
            nodes=tuple(entry.value for entry in self._caches.nodes.store.items()),
            suite_names=frozenset(self._shipped) | self._suites.list_names(namespace),
            children=self._caches.list_children(key, cr["metadata"]["uid"]),
            pods=tuple(pod.facts for pod in pods),
            reports={pod.name: reports[pod.uid] for pod in pods if pod.uid in reports},
            count_ages=self._monitors.list_count_ages(pods),
            sweep_ages=self._monitors.list_sweep_ages(pods),
            kinds=frozenset(
                kind for kind, cache in self._caches.children.items() if kind in _OPTIONAL_KINDS and cache.is_available
            ),
            prometheus_state=self.select_prometheus_state(key),
            pool=self._monitors.pools.get(key),
            endpoints=self._list_endpoints(key),
            volumes=volume_observation.observe_volume_facts(self._caches, namespace, self._monitors.progress),
            volume_write_errors=self.volume_write_errors.get(namespace, {}),
        )

    async def load_deletion(self, key: DeploymentKey) -> Deletion | None:
        """Return a CR that is being deleted and what is left of it.

        None if it is gone, is not being deleted, or leaves its objects behind on purpose (`--cascade=orphan`). Raises
        ApiError if they cannot be read.
        """
        cr = self._crs.get(key)
        if cr is None or not cr["metadata"].get("deletionTimestamp"):
            return None
        if ORPHAN in cr["metadata"].get("finalizers", ()):
            return None
        uid = cr["metadata"]["uid"]
        controlled = self._caches.list_controlled(uid)
        pods = [
            (pod.name, pod.uid)
            for pod in self._caches.pods.store.by_index(f"{key.namespace}/{key.name}")
            if pod.facts.quarantine is not None and not pod.facts.terminating
        ]
        # The cache may still show the owner of what was left behind a moment ago.
        return Deletion(
            cr,
            tuple([one for one in controlled if await self._is_owned(key.namespace, *one[:2], uid)]),
            tuple([pod for pod in pods if await self._is_owned(key.namespace, kinds.POD.kind, pod[0], uid)]),
        )

    async def _is_owned(self, namespace: str, kind: str, name: str, uid: str) -> bool:
        """Whether the API server has the object, and this R1PlusDeployment controls it; a pod has it as an owner."""
        objects, _ = await self._client.list(kinds.BY_KIND[kind], namespace, name=name)
        if kind == kinds.POD.kind:
            return any(owner["uid"] == uid for obj in objects for owner in obj["metadata"].get("ownerReferences") or ())
        return any(projections.find_controller(obj["metadata"]).get("uid") == uid for obj in objects)

    def _list_endpoints(self, key: DeploymentKey) -> frozenset[str] | None:
        """Return the pods to which its Service leads; None while it has no EndpointSlice."""
        slices = self._caches.endpoints.store.by_index(f"{key.namespace}/{key.name}")
        return frozenset().union(*(entry.value.pods for entry in slices)) if slices else None

    def select_prometheus_state(self, key: DeploymentKey) -> PrometheusState | None:
        """Return what Prometheus knows of a deployment; None before its first answer."""
        view, (namespace, name) = self.prometheus, key
        if view is None:
            return None
        pods = self._caches.pods.store.by_index(f"{namespace}/{name}")
        targets_of_pods = ((pod.name, view.targets.get((namespace, pod.name))) for pod in pods)
        targets = {pod: pod_targets for pod, pod_targets in targets_of_pods if pod_targets}
        return PrometheusState(view.url, view.error, view.rules.get(format_group_name(namespace, name), ()), targets)
