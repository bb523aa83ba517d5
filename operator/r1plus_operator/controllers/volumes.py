"""One pass over the engine volumes of a namespace. The router calls `reconcile`."""

import time
from collections.abc import Callable

from r1plus_operator.api import fence
from r1plus_operator.controllers.applier import Applier
from r1plus_operator.observe.keys import DeploymentKey, PassKey, TenantKey, VolumesKey
from r1plus_operator.observe.observer import Observer
from r1plus_operator.plan.settings import OperatorConfig
from r1plus_operator.plan.tenancy.volumes import plan_volumes
from r1plus_operator.runtime.fairness import Priority
from r1plus_operator.runtime.queue import WorkQueue


class VolumesReconciler:
    """Level-triggered, like the passes over deployments, which wait for the volumes that they need."""

    def __init__(
        self,
        observer: Observer,
        applier: Applier,
        queue: WorkQueue[PassKey],
        config: OperatorConfig,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._observer = observer
        self._applier = applier
        self._queue = queue
        self._config = config
        self._clock = clock

    async def reconcile(self, key: VolumesKey) -> None:
        """Reconcile a namespace's volumes with what its revisions need, then enqueue the deployments that need one.

        Raises ApiError if the API server refuses a write.
        """
        namespace = key.namespace
        observation = self._observer.observe_volumes(namespace)
        next_plan = plan_volumes(observation, self._config, self._clock())
        try:
            errors = await self._applier.apply_volumes(namespace, next_plan)
            messages = {name: str(error) for name, error in errors.items() if fence.SUFFIX not in error.message}
            self._observer.store_volume_write_errors(namespace, messages)
        finally:
            for need in observation.needs:
                for name, _ in need.owners:
                    self._queue.add(DeploymentKey(namespace, name), Priority.LOW)
        for error in errors.values():
            raise error
        if next_plan.delete:
            # Our own deletions are not reported, and an R1PlusTenant may wait for these claims to go.
            self._queue.add(TenantKey(namespace))
        if next_plan.has_changes:
            self._queue.add(key)
        if next_plan.requeue_after is not None:
            self._queue.add_after(key, next_plan.requeue_after)
