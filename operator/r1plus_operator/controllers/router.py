"""What the workers call: each key goes to the reconciler of its kind, and each failure gets a delay."""

import logging
from collections.abc import Callable
from typing import assert_never

from r1plus_model_repo.catalog.loader import AnyEngine
from r1plus_operator.api import fence
from r1plus_operator.controllers.applier import Applier
from r1plus_operator.controllers.deployment import DeploymentReconciler
from r1plus_operator.controllers.tenant import TenantReconciler
from r1plus_operator.controllers.volumes import VolumesReconciler
from r1plus_operator.observe.keys import CatalogKey, DeploymentKey, PassKey, TenantKey, VolumesKey
from r1plus_operator.observe.observer import Observer
from r1plus_operator.plan.manifests.engines import list_missing_engines
from r1plus_operator.runtime.errors import ApiError, ForbiddenError, InvalidError
from r1plus_operator.runtime.queue import WorkQueue
from r1plus_policies.backoff import double_delay

log = logging.getLogger(__name__)
FIRST_BACKOFF_SECONDS, LONG_BACKOFF_SECONDS = 1.0, 60.0
"""After a refusal: the first retry, and every one that most likely changes nothing."""


class CatalogReconciler:
    """Reconciler of the R1PlusEngines that this version ships."""

    def __init__(
        self,
        observer: Observer,
        applier: Applier,
        engines: tuple[AnyEngine, ...],
        on_reconciled: Callable[[CatalogKey], None] | None = None,
    ) -> None:
        """Call `on_reconciled` after each pass that ended well."""
        self._observer = observer
        self._applier = applier
        self._engines = engines
        self._on_reconciled = on_reconciled

    async def reconcile(self, key: CatalogKey) -> None:
        """Create the engines that the cluster lacks. Raises ApiError if the API server refuses one."""
        await self._applier.apply_engines(list_missing_engines(self._engines, self._observer.list_live_engines()))
        if self._on_reconciled is not None:
            self._on_reconciled(key)


class PassRouter:
    """Router of passes to the four reconcilers."""

    def __init__(
        self,
        deployments: DeploymentReconciler,
        tenants: TenantReconciler,
        volumes: VolumesReconciler,
        catalog: CatalogReconciler,
        queue: WorkQueue[PassKey],
    ) -> None:
        self._deployments = deployments
        self._tenants = tenants
        self._volumes = volumes
        self._catalog = catalog
        self._queue = queue

    async def reconcile(self, key: PassKey) -> None:
        """Run one pass over what `key` names."""
        match key:
            case DeploymentKey():
                await self._deployments.reconcile(key)
            case TenantKey():
                await self._tenants.reconcile(key)
            case VolumesKey():
                await self._volumes.reconcile(key)
            case CatalogKey():
                await self._catalog.reconcile(key)
            case _:
                assert_never(key)

    def on_error(self, key: PassKey, error: Exception) -> float | None:
        """Log a failed pass; return the seconds until the next one (None: the queue's own backoff)."""
        if not isinstance(error, ApiError):
            log.error("Reconcile of %s failed", key, exc_info=error)
            return None
        log.warning("Reconcile of %s failed: %s", key, error)
        if fence.SUFFIX in error.message:
            return error.retry_after
        if isinstance(error, ForbiddenError):
            # Admission and RBAC may learn of a quota's count, a tenant or a right later than the operator does.
            return double_delay(self._queue.count_failures(key) + 1, FIRST_BACKOFF_SECONDS, LONG_BACKOFF_SECONDS)
        return LONG_BACKOFF_SECONDS if isinstance(error, InvalidError) else error.retry_after
