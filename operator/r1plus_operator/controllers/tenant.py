"""The pass over a namespace as a tenant: its walls, what an R1PlusTenant gives, and the prober's runs."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from r1plus_operator.api import fence
from r1plus_operator.api.conditions import Reason
from r1plus_operator.controllers.applier import Executor
from r1plus_operator.metrics.isolation import IsolationMetrics
from r1plus_operator.observe.observer import Key, Observer
from r1plus_operator.plan.observation import TenantView
from r1plus_operator.plan.settings import OperatorConfig
from r1plus_operator.plan.status.conditions import FAILED_REMEDY, REFUSED_REMEDY
from r1plus_operator.plan.tenancy.isolation_test_run import MAX_CONCURRENT_RUNS
from r1plus_operator.plan.tenancy.tenant import TenantObservation, TenantPlan, plan_tenant
from r1plus_operator.runtime.errors import ApiError, ForbiddenError, InvalidError
from r1plus_operator.runtime.queue import WorkQueue

log = logging.getLogger(__name__)
WITHOUT_EFFECT_SECONDS = 30.0
"""Until a pass that planned the very writes of the one before is repeated: somebody undoes them, or they do nothing."""
TOLD_AFTER = 10
"""Consecutive retryable failures before the status reports them."""
_UNSEEN = TenantView("Unknown", Reason.PENDING, "The namespace has not been observed yet", is_tenant=False)
"""Whoever makes a namespace and a deployment in it at once must not find it a tenant because nobody has looked."""


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
        """By namespace, like all that follows."""
        self._running: set[str] = set()
        """In which a run of the prober goes on."""
        self._wrote: dict[str, TenantPlan] = {}
        """What the last pass wrote, where it wrote anything."""
        self._refused: dict[str, str] = {}
        """Which write of the last pass failed, in the API server's words, and what is to be done."""

    def view(self, namespace: str) -> TenantView:
        """The namespace as a tenant, as its last pass left it; before the first, as it is now."""
        if namespace not in self._views and (seen := self._observer.tenant(namespace)):
            self._views[namespace] = plan_tenant(seen, self._config, self._clock()).view
        return self._views.get(namespace, _UNSEEN)

    async def reconcile(self, key: Key) -> None:
        """Bring a namespace's walls to what they should be; where its view changed, its deployments are looked at."""
        namespace, _ = key
        seen = self._seen(namespace)
        if seen is None:
            await self._gone(namespace)
            return
        planned = self._plan(seen)
        try:
            await self._executor.tenant(seen.cr, planned)
        except ApiError as error:
            for_good = isinstance(error, InvalidError | ForbiddenError)
            if fence.SUFFIX not in error.message and (for_good or self._queue.failures(key) >= TOLD_AFTER):
                await self._tell_refusal(namespace, f"{error}; {REFUSED_REMEDY if for_good else FAILED_REMEDY}")
            self._running.discard(namespace)  # A run that could not begin is nobody's turn.
            raise
        if self._refused.pop(namespace, None):
            self._queue.add(key)  # What was refused is written now, and the status still speaks of it.
        if planned.has_changes:
            self._queue.add_after(key, WITHOUT_EFFECT_SECONDS if self._is_repeated(namespace, planned) else 0.0)
        else:
            self._wrote.pop(namespace, None)
        if planned.requeue_after is not None:
            self._queue.add_after(key, planned.requeue_after)

    def _seen(self, namespace: str) -> TenantObservation | None:
        seen = self._observer.tenant(namespace)
        if seen is None:
            return None
        crowded = len(self._running - {namespace}) >= MAX_CONCURRENT_RUNS
        return replace(seen, at_concurrency_limit=crowded, write_error=self._refused.get(namespace, ""))

    def _plan(self, seen: TenantObservation) -> TenantPlan:
        """The plan of a pass, and what others are told by it."""
        namespace = seen.namespace.name
        planned = plan_tenant(seen, self._config, self._clock())
        if planned.view != self._views.get(namespace):
            self._views[namespace] = planned.view
            self._observer.look_again(namespace)
        if planned.view.is_tenant and namespace != self._config.isolation.decoy_namespace:
            self._told.record(namespace, planned.view, planned.newest)
        else:
            self._told.forget(namespace)
        if planned.has_active_run:
            self._running.add(namespace)
        else:
            self._running.discard(namespace)
        return planned

    def _is_repeated(self, namespace: str, planned: TenantPlan) -> bool:
        """Whether the last pass wrote the very same."""
        before = self._wrote.get(namespace)
        self._wrote[namespace] = planned
        return before is not None and _writes(before) == _writes(planned)

    async def _gone(self, namespace: str) -> None:
        """Of a namespace that is no more nothing is kept, here and in the decoy's."""
        for kept in (self._views, self._wrote, self._refused):
            kept.pop(namespace, None)
        self._running.discard(namespace)
        self._told.forget(namespace)
        if left := self._observer.remains(namespace):
            await self._executor.tenant(None, TenantPlan(_UNSEEN, delete=left))

    async def _tell_refusal(self, namespace: str, words: str) -> None:
        """Let the status say which write failed, and what else has become of the walls meanwhile."""
        self._refused[namespace] = words
        if (seen := self._seen(namespace)) is None:
            return
        try:
            await self._executor.tell_tenant(seen.cr, self._plan(seen))
        except ApiError as error:
            log.warning("Status of R1PlusTenant in %s could not report a refused write: %s", namespace, error)


def _writes(planned: TenantPlan) -> tuple[object, ...]:
    return planned.apply, planned.delete, planned.finalizer
