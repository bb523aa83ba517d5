"""One pass: observe, plan, execute, come back if asked to. The queue's workers call `reconcile`."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from r1plus_model_repo.catalog.types import Engine
from r1plus_operator.api import fence
from r1plus_operator.controllers.applier import Executor, OwnerGoneError
from r1plus_operator.controllers.tenant import TenantReconciler
from r1plus_operator.metrics.deployments import DeploymentMetrics
from r1plus_operator.observe.observer import CATALOG_KEY, TENANT_NAME, VOLUMES_NAME, Key, Observer
from r1plus_operator.observe.pooled_detectors import Pools
from r1plus_operator.plan.deployment import Plan, plan
from r1plus_operator.plan.manifests.engines import list_missing_engines
from r1plus_operator.plan.observation import Observation
from r1plus_operator.plan.settings import OperatorConfig
from r1plus_operator.plan.tenancy.volumes import plan_volumes
from r1plus_operator.runtime.errors import ApiError, ForbiddenError, InvalidError
from r1plus_operator.runtime.queue import WorkQueue

log = logging.getLogger(__name__)
LONG_BACKOFF_SECONDS = 60.0
"""After a refusal that asking again will not change."""
TEST_ISOLATION_SECONDS = 1.0
"""From a change of a deployment's network policies to the namespace's pass that has them tested."""


class Reconciler:
    """Level-triggered: whatever woke it, a pass looks at everything."""

    def __init__(
        self,
        observer: Observer,
        executor: Executor,
        queue: WorkQueue[Key],
        config: OperatorConfig,
        catalog: tuple[Engine, ...],
        pools: Pools,
        told: DeploymentMetrics,
        tenants: TenantReconciler,
        clock: Callable[[], float] = time.time,
        noticed: Callable[[Key], None] | None = None,
    ) -> None:
        """`noticed` is told whose pass ended well, or whose CR is gone."""
        self._observer = observer
        self._executor = executor
        self._queue = queue
        self._config = config
        self._catalog = catalog
        self._pools = pools
        self._told = told
        self._clock = clock
        self._noticed = noticed or _nobody
        self._tenants = tenants
        self._refused: dict[Key, str] = {}
        """Whose last pass the API server refused for good, and in which words."""

    async def reconcile(self, key: Key) -> None:
        """Bring one deployment, a namespace's volumes or walls, or the shipped catalog to what it should be."""
        if key == CATALOG_KEY:
            await self._executor.engines(list_missing_engines(self._catalog, self._observer.live_engines()))
            self._noticed(key)
        elif key[1] == VOLUMES_NAME:
            await self._volumes(key)
        elif key[1] == TENANT_NAME:
            await self._tenants.reconcile(key)
        else:
            try:
                await self._deployment(key)
            finally:
                self._observer.release_slot(key)

    async def _deployment(self, key: Key) -> None:
        try:
            made = await self._plan(key)
        except Exception:
            # What cannot be planned begins nothing: others have their turn, and it lines up again in a later pass.
            self._observer.waves.wait(key, None)
            raise
        if made is None:
            self._refused.pop(key, None)
            self._pools.want(key, None)
            self._told.forget(key)
            self._observer.waves.wait(key, None)
            self._noticed(key)
            return
        observed, planned, now = made
        # Before it is written: what begins and is refused stands in nobody's way, and lines up again in a later pass.
        self._observer.waves.wait(key, planned.slot)
        try:
            out = await self._executor.run(observed.cr, planned, now)
        except OwnerGoneError as error:
            log.info("R1PlusDeployment was deleted, the garbage collector removes its children: %s", error)
            self._observer.forget(key, observed.cr["metadata"]["uid"])
            return
        except (InvalidError, ForbiddenError) as error:
            if fence.SUFFIX not in error.message:
                await self._tell_refusal(key, str(error))
            raise
        self._pools.want(key, planned.pool)
        self._told.record(key, planned.status, replace(planned.facts, quarantined=bool(out)))
        self._noticed(key)
        if any(obj["kind"] == "NetworkPolicy" for stage in planned.apply for obj in stage):
            # Network policies that changed are to be tested. One pass for all deployments that come at once: each such
            # pass looks at the whole namespace.
            self._queue.add_after((key[0], TENANT_NAME), TEST_ISOLATION_SECONDS)
        if planned.writes and (planned.volumes or observed.volumes):
            # Our own writes cause no pass, and a revision that came or went is the namespace's business, too.
            self._queue.add((key[0], VOLUMES_NAME))
        if self._refused.pop(key, None):
            # What was refused is written now, and the status still speaks of it.
            self._queue.add(key)
        if planned.requeue_after is not None:
            self._queue.add_after(key, planned.requeue_after)

    async def _plan(self, key: Key) -> tuple[Observation, Plan, float] | None:
        """Return all that a pass over a deployment reads, the plan made from it, and when; None where there is none."""
        observed = self._observer.observed(key, await self._observer.load_suites(key))
        if observed is None:
            return None
        observed = replace(
            observed,
            write_error=self._refused.get(key, ""),
            tenant=self._tenants.view(key[0]),
            wave=self._observer.waves.view(key),
        )
        now = self._clock()
        planned = plan(observed, self._config, now)
        if planned.lacks_mounted:
            observed = replace(observed, mounted=await self._observer.load_mounted(key))
            now = self._clock()
            planned = plan(observed, self._config, now)
        return observed, planned, now

    async def _volumes(self, key: Key) -> None:
        """Bring a namespace's volumes to what its revisions need; whoever needs one is looked at after it."""
        namespace = key[0]
        seen = self._observer.volumes(namespace)
        planned = plan_volumes(seen, self._config, self._clock())
        try:
            refused = await self._executor.volumes(namespace, planned)
            words = {name: str(error) for name, error in refused.items() if fence.SUFFIX not in error.message}
            self._observer.refused_volumes[namespace] = words
        finally:
            for need in seen.needs:
                for name, _ in need.owners:
                    self._queue.add((namespace, name))
        for error in refused.values():
            raise error
        if planned.delete:
            # The claims that are gone by it are not reported, and an R1PlusTenant may wait for them.
            self._queue.add((namespace, TENANT_NAME))
        if planned.has_changes:
            self._queue.add(key)
        if planned.requeue_after is not None:
            self._queue.add_after(key, planned.requeue_after)

    async def _tell_refusal(self, key: Key, words: str) -> None:
        """Let the status say at once what the API server refuses; asking again will not change it soon."""
        if self._refused.get(key) == words:
            return
        self._refused[key] = words
        made = await self._plan(key)
        if made is None:
            return
        observed, planned, now = made
        try:
            await self._executor.tell(observed.cr, planned, now)
        except (ApiError, OwnerGoneError) as error:
            log.warning("Status of R1PlusDeployment %s/%s could not report a refused write: %s", *key, error)

    def on_error(self, key: Key, error: Exception) -> float | None:
        """Report a failed pass; how long to wait (None: the queue's own backoff)."""
        if not isinstance(error, ApiError):
            log.error("Reconcile of %s/%s failed", *key, exc_info=error)
            return None
        log.warning("Reconcile of %s/%s failed: %s", *key, error)
        if isinstance(error, InvalidError | ForbiddenError) and fence.SUFFIX not in error.message:
            return LONG_BACKOFF_SECONDS
        return error.retry_after


def _nobody(_key: Key) -> None:
    """Nobody wants to be told."""
