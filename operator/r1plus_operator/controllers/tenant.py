"""The pass over a namespace as a tenant: its network policies, what an R1PlusTenant grants, and isolation tests."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from r1plus_contract.gateway import ModelSettings
from r1plus_operator.api import fence
from r1plus_operator.api.conditions import Reason
from r1plus_operator.controllers.applier import Applier
from r1plus_operator.metrics.gateways import GatewayFleetMetrics
from r1plus_operator.metrics.isolation import IsolationMetrics
from r1plus_operator.observe.keys import DeploymentKey, PassKey, TenantKey
from r1plus_operator.observe.observer import Observer
from r1plus_operator.plan.observation import TenantView
from r1plus_operator.plan.settings import OperatorConfig
from r1plus_operator.plan.status.explanations import FAILED_REMEDY, suggest_write_remedy
from r1plus_operator.plan.tenancy.isolation_test_run import MAX_CONCURRENT_RUNS
from r1plus_operator.plan.tenancy.tenant import TenantObservation, TenantPlan, plan_tenant
from r1plus_operator.runtime.errors import ApiError, ForbiddenError, InvalidError
from r1plus_operator.runtime.queue import WorkQueue

log = logging.getLogger(__name__)
WITHOUT_EFFECT_SECONDS = 30.0
"""Until a pass that planned the same writes as the one before is repeated: somebody undoes them, or they do nothing."""
FAILURES_BEFORE_REPORT = 10
"""Consecutive retryable failures before the status reports them."""
_NOT_OBSERVED = TenantView("Unknown", Reason.PENDING, "The namespace has not been observed yet", is_tenant=False)
"""No tenant: a namespace and a deployment that are created together must not count as one before it is observed."""


class TenantReconciler:
    """Level-triggered, like the passes over deployments, which ask it for the view of their namespace."""

    def __init__(
        self,
        observer: Observer,
        applier: Applier,
        queue: WorkQueue[PassKey],
        config: OperatorConfig,
        metrics: IsolationMetrics,
        gateway_metrics: GatewayFleetMetrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._observer = observer
        self._applier = applier
        self._queue = queue
        self._config = config
        self._metrics = metrics
        self._gateway_metrics = gateway_metrics
        self._clock = clock
        self._views: dict[str, TenantView] = {}
        """Namespace -> its view."""
        self._active_runs: set[str] = set()
        """Namespaces in which an isolation test runs."""
        self._last_plans: dict[str, TenantPlan] = {}
        """Namespace -> the plan of its last pass, if that wrote anything."""
        self._refusals: dict[str, str] = {}
        """Namespace -> which write of the last pass failed, why, and what to do."""
        self._models: dict[str, Mapping[str, ModelSettings | None]] = {}
        """Namespace with a gateway -> its deployments, as the last pass has told the gateway of them."""

    def get_view(self, namespace: str) -> TenantView:
        """Return the namespace as a tenant, as its last pass left it; before the first, as it is now."""
        if namespace not in self._views and (observation := self._observer.observe_tenant(namespace)):
            self._views[namespace] = plan_tenant(observation, self._config, self._clock()).view
        return self._views.get(namespace, _NOT_OBSERVED)

    def follow_deployment(self, key: DeploymentKey) -> None:
        """Enqueue the tenant after a pass over a deployment, if its gateway must be told what has changed."""
        namespace, name = key
        models = self._models.get(namespace)
        if models is None:
            return
        is_known, exists = name in models, key in self._observer.crs
        if is_known is not exists or (exists and models[name] != self._observer.observe_model(key)):
            self._queue.add(TenantKey(namespace))

    async def reconcile(self, key: TenantKey) -> None:
        """Reconcile a namespace as a tenant; if its view changed, enqueue its deployments."""
        namespace = key.namespace
        observation = self._observe(namespace)
        if observation is None:
            await self._forget(namespace)
            return
        next_plan = self._plan(observation)
        try:
            await self._applier.apply_tenant(observation.cr, next_plan)
        except ApiError as error:
            is_permanent, text = isinstance(error, InvalidError | ForbiddenError), str(error)
            if fence.SUFFIX not in error.message and (
                is_permanent or self._queue.count_failures(key) >= FAILURES_BEFORE_REPORT
            ):
                remedy = suggest_write_remedy(text) if is_permanent else FAILED_REMEDY
                await self._report_refusal(namespace, f"{text}; {remedy}")
            self._active_runs.discard(namespace)  # A test that could not begin takes no turn.
            raise
        if self._refusals.pop(namespace, None):
            self._queue.add(key)  # The refused write succeeded now, and the status still reports it.
        if next_plan.has_changes:
            self._queue.add_after(key, WITHOUT_EFFECT_SECONDS if self._is_repeated(namespace, next_plan) else 0.0)
        else:
            self._last_plans.pop(namespace, None)
        if next_plan.requeue_after is not None:
            self._queue.add_after(key, next_plan.requeue_after)

    def _observe(self, namespace: str) -> TenantObservation | None:
        observation = self._observer.observe_tenant(namespace)
        if observation is None:
            return None
        at_limit = len(self._active_runs - {namespace}) >= MAX_CONCURRENT_RUNS
        return replace(observation, at_concurrency_limit=at_limit, write_error=self._refusals.get(namespace, ""))

    def _plan(self, observation: TenantObservation) -> TenantPlan:
        """Plan a pass, and update view, metrics and active runs by it."""
        namespace = observation.namespace.name
        next_plan = plan_tenant(observation, self._config, self._clock())
        if next_plan.view.gateway is not None:
            self._models[namespace] = observation.gateway.models
        else:
            self._models.pop(namespace, None)
        if next_plan.view != self._views.get(namespace):
            self._views[namespace] = next_plan.view
            self._observer.enqueue_deployments(namespace)
        if next_plan.view.is_tenant and namespace != self._config.isolation.decoy_namespace:
            self._metrics.record(namespace, next_plan.view, next_plan.newest)
        else:
            self._metrics.forget(namespace)
        self._gateway_metrics.record(namespace, next_plan.gateway_status, next_plan.gateway_ready_pods)
        if next_plan.has_active_run:
            self._active_runs.add(namespace)
        else:
            self._active_runs.discard(namespace)
        return next_plan

    def _is_repeated(self, namespace: str, next_plan: TenantPlan) -> bool:
        """Return whether the last pass wrote the same."""
        previous = self._last_plans.get(namespace)
        self._last_plans[namespace] = next_plan
        return previous is not None and _list_writes(previous) == _list_writes(next_plan)

    async def _forget(self, namespace: str) -> None:
        """Forget a namespace that is gone, and delete what is left of it in the decoy's namespace."""
        by_namespace: tuple[dict[str, Any], ...] = (self._views, self._last_plans, self._refusals, self._models)
        for values in by_namespace:
            values.pop(namespace, None)
        self._active_runs.discard(namespace)
        self._metrics.forget(namespace)
        self._gateway_metrics.forget(namespace)
        if leftovers := self._observer.list_leftovers(namespace):
            await self._applier.apply_tenant(None, TenantPlan(_NOT_OBSERVED, delete=leftovers))

    async def _report_refusal(self, namespace: str, message: str) -> None:
        """Report in the status which write failed, with the other conditions as they are now."""
        self._refusals[namespace] = message
        if (observation := self._observe(namespace)) is None:
            return
        try:
            await self._applier.report_tenant(observation.cr, self._plan(observation))
        except ApiError as error:
            log.warning("Status of R1PlusTenant in %s could not report a refused write: %s", namespace, error)


def _list_writes(tenant_plan: TenantPlan) -> tuple[object, ...]:
    return tenant_plan.clear, tenant_plan.apply, tenant_plan.delete, tenant_plan.finalizer
