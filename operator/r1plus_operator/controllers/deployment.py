"""One pass over a deployment: observe, plan, apply, requeue if the plan says so. The router calls `reconcile`."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from r1plus_operator.api import fence
from r1plus_operator.controllers.applier import Applier, OwnerGoneError
from r1plus_operator.controllers.tenant import TenantReconciler
from r1plus_operator.metrics.deployments import DeploymentMetrics
from r1plus_operator.observe.keys import DeploymentKey, PassKey, TenantKey, VolumesKey
from r1plus_operator.observe.monitors.pooled_detectors import Pools
from r1plus_operator.observe.observer import Observer
from r1plus_operator.plan.deletion import plan_deletion
from r1plus_operator.plan.deployment import Plan, plan
from r1plus_operator.plan.observation import Observation
from r1plus_operator.plan.settings import OperatorConfig
from r1plus_operator.runtime.errors import ApiError, ForbiddenError, InvalidError
from r1plus_operator.runtime.queue import WorkQueue

log = logging.getLogger(__name__)
TEST_ISOLATION_SECONDS = 1.0
"""From a change of a deployment's network policies to the namespace's pass that has them tested."""


class DeploymentReconciler:
    """Level-triggered: whatever caused a pass, it observes everything."""

    def __init__(
        self,
        observer: Observer,
        applier: Applier,
        queue: WorkQueue[PassKey],
        config: OperatorConfig,
        pools: Pools,
        metrics: DeploymentMetrics,
        tenants: TenantReconciler,
        clock: Callable[[], float] = time.time,
        on_reconciled: Callable[[DeploymentKey], None] | None = None,
    ) -> None:
        """Call `on_reconciled` with each key whose pass ended well, or whose CR is gone."""
        self._observer = observer
        self._applier = applier
        self._queue = queue
        self._config = config
        self._pools = pools
        self._metrics = metrics
        self._clock = clock
        self._on_reconciled = on_reconciled or _ignore
        self._tenants = tenants
        self._refusals: dict[DeploymentKey, str] = {}
        """Key -> why the API server refused a write of its last pass, where a retry does not help."""

    async def reconcile(self, key: DeploymentKey) -> None:
        """Reconcile one deployment; its slot is free afterwards, and its tenant follows what changed."""
        try:
            await self._reconcile(key)
        finally:
            self._observer.release_slot(key)
            self._tenants.follow_deployment(key)

    async def _reconcile(self, key: DeploymentKey) -> None:
        try:
            inputs = await self._plan(key)
        except Exception:
            # Without a plan no candidate begins: free the turn. A later pass asks for one again.
            self._observer.waves.set_waiting(key, None)
            raise
        if inputs is None:
            self._refusals.pop(key, None)
            self._pools.set_request(key, None)
            self._metrics.forget(key)
            self._observer.waves.set_waiting(key, None)
            await self._end_deployment(key)
            self._on_reconciled(key)
            return
        observation, next_plan, now = inputs
        # Before the writes: a candidate that is refused must block no other. A later pass asks for a turn again.
        self._observer.waves.set_waiting(key, next_plan.slot)
        try:
            quarantined_pods = await self._applier.apply_plan(observation.cr, next_plan, now)
        except OwnerGoneError as error:
            log.info("R1PlusDeployment was deleted, the garbage collector removes its children: %s", error)
            self._observer.forget(key, observation.cr["metadata"]["uid"])
            return
        except (InvalidError, ForbiddenError) as error:
            if fence.SUFFIX not in error.message:
                await self._report_refusal(key, str(error))
            raise
        self._pools.set_request(key, next_plan.pool)
        self._metrics.record(key, next_plan.status, replace(next_plan.facts, quarantined=bool(quarantined_pods)))
        self._on_reconciled(key)
        if any(obj["kind"] == "NetworkPolicy" for stage in next_plan.apply for obj in stage):
            # Changed network policies must be tested. One pass serves all deployments that change together: it
            # observes the whole namespace.
            self._queue.add_after(TenantKey(key.namespace), TEST_ISOLATION_SECONDS)
        if next_plan.writes and (next_plan.volumes or observation.volumes):
            # Our own writes cause no pass, and a revision that came or went may change the volumes.
            self._queue.add(VolumesKey(key.namespace))
        if self._refusals.pop(key, None):
            # The refused write succeeded now, and the status still reports it.
            self._queue.add(key)
        if next_plan.requeue_after is not None:
            self._queue.add_after(key, next_plan.requeue_after)

    async def _end_deployment(self, key: DeploymentKey) -> None:
        """Delete what a CR still controls that is being deleted and that a finalizer keeps."""
        deletion = await self._observer.deployments.load_deletion(key)
        if deletion is None:
            return
        now = self._clock()
        try:
            await self._applier.apply_plan(deletion.cr, plan_deletion(deletion, now), now)
        except OwnerGoneError as error:
            log.info("R1PlusDeployment was deleted, the garbage collector removes its children: %s", error)
            self._observer.forget(key, deletion.cr["metadata"]["uid"])
        if deletion.children:
            # Our own deletions are not reported. Volumes that no revision needs any more go, and an R1PlusTenant that
            # is being deleted may wait for both.
            self._queue.add(VolumesKey(key.namespace))
            self._queue.add(TenantKey(key.namespace))

    async def _plan(self, key: DeploymentKey) -> tuple[Observation, Plan, float] | None:
        """Return the observation of a deployment, the plan made from it, and when; None if the CR is gone."""
        refusal = self._refusals.get(key, "")
        observation = await self._observer.deployments.gather(key, self._tenants.get_view, refusal)
        if observation is None:
            return None
        now = self._clock()
        return observation, plan(observation, self._config, now), now

    async def _report_refusal(self, key: DeploymentKey, message: str) -> None:
        """Report in the status what the API server refused: a retry will not change it soon."""
        if self._refusals.get(key) == message:
            return
        self._refusals[key] = message
        inputs = await self._plan(key)
        if inputs is None:
            return
        observation, next_plan, now = inputs
        try:
            await self._applier.report(observation.cr, next_plan, now)
        except (ApiError, OwnerGoneError) as error:
            log.warning("Status of R1PlusDeployment %s/%s could not report a refused write: %s", *key, error)


def _ignore(_key: DeploymentKey) -> None:
    """Do nothing: no recorder is configured."""
