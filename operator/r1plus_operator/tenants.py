"""The pass over a namespace as a tenant: its walls, what an R1PlusTenant gives, and the prober's runs."""

import time
from collections.abc import Callable

from r1plus_operator.api.conditions import Reason
from r1plus_operator.executor import Executor
from r1plus_operator.isolation_metrics import IsolationMetrics
from r1plus_operator.observe import Key, Observer
from r1plus_operator.plan.inputs import OperatorConfig, TenantView
from r1plus_operator.plan.tenant import plan_tenant
from r1plus_operator.runtime.queue import WorkQueue

_UNSEEN = TenantView("Unknown", Reason.PENDING, "The namespace has not been looked at yet")


class TenantReconciler:
    """Level-triggered, like the passes over deployments, which ask it for the view of their namespace."""

    def __init__(
        self,
        observer: Observer,
        executor: Executor,
        queue: WorkQueue[Key],
        config: OperatorConfig,
        told: IsolationMetrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._observer = observer
        self._executor = executor
        self._queue = queue
        self._config = config
        self._told = told
        self._clock = clock
        self._views: dict[str, TenantView] = {}
        """By namespace."""

    def view(self, namespace: str) -> TenantView:
        """The namespace as a tenant, as its last pass left it; before the first, as it is now."""
        if namespace not in self._views and (seen := self._observer.tenant(namespace)):
            self._views[namespace] = plan_tenant(seen, self._config, self._clock()).view
        return self._views.get(namespace, _UNSEEN)

    async def reconcile(self, key: Key) -> None:
        """Bring a namespace's walls to what they should be; where its view changed, its deployments are looked at."""
        namespace, _ = key
        seen = self._observer.tenant(namespace)
        if seen is None:
            self._views.pop(namespace, None)
            self._told.forget(namespace)
            return
        planned = plan_tenant(seen, self._config, self._clock())
        if planned.view != self._views.get(namespace):
            self._views[namespace] = planned.view
            self._observer.look_again(namespace)
        if planned.view.is_tenant:
            self._told.record(namespace, planned.view, planned.newest)
        else:
            self._told.forget(namespace)
        await self._executor.tenant(seen.cr, planned)
        if planned.again:
            self._queue.add(key)
        if planned.requeue_after is not None:
            self._queue.add_after(key, planned.requeue_after)
