"""Applier of a Plan to the API server. Decides nothing; hands every answer to the caches."""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Sequence
from typing import Any, Protocol

from r1plus_contract import names
from r1plus_contract.plain_text import to_printable
from r1plus_contract.timestamps import format_timestamp
from r1plus_operator.api import kinds
from r1plus_operator.plan.deployment import Plan
from r1plus_operator.plan.events import Event
from r1plus_operator.plan.observation import Json, NamespaceFacts
from r1plus_operator.plan.podspec.pod import GRACE_SECONDS
from r1plus_operator.plan.tenancy.tenant import TenantPlan
from r1plus_operator.plan.tenancy.volumes import VolumesPlan
from r1plus_operator.runtime.client import JSON_PATCH
from r1plus_operator.runtime.errors import ApiError, ConflictError, ForbiddenError, InvalidError, NotFoundError
from r1plus_operator.runtime.resources import Resource

log = logging.getLogger(__name__)


class OwnerGoneError(Exception):
    """The R1PlusDeployment does not exist any more, or another object has its name."""


class ApiWriter(Protocol):
    """The verbs that the applier uses; `runtime.client.ApiClient` has them."""

    async def list(self, res: Resource, namespace: str | None = None, *, name: str = "") -> tuple[list[Json], str]:
        """Read the objects of a namespace, all or those of one name."""

    async def apply(
        self, res: Resource, obj: Json, *, field_manager: str, force: bool = True, subresource: str = ""
    ) -> Json:
        """Apply an object (server-side)."""

    async def patch(
        self, res: Resource, name: str, namespace: str | None, body: Sequence[Json], *, content_type: str
    ) -> Json:
        """Change single fields."""

    async def delete(
        self,
        res: Resource,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        propagation: str = ...,
        grace_seconds: int | None = None,
    ) -> Json:
        """Delete exactly this object."""


class CacheWriter(Protocol):
    """Caches that take the answers to writes; `observe.Observer`."""

    async def write_through(self, child: Json, write: Awaitable[Json]) -> None:
        """Carry out the write of a child and cache the API server's answer."""

    async def write_tenant(self, namespace: str, write: Awaitable[Json]) -> None:
        """Carry out a write to a namespace's R1PlusTenant and cache the API server's answer."""

    def find_namespace(self, name: str) -> NamespaceFacts | None:
        """Return the namespace as it was seen last; None if there is none of that name."""

    def update_cached(self, cr: Json) -> None:
        """Cache the R1PlusDeployment as the API server has it now."""

    def evict(self, kind: str, namespace: str, name: str) -> None:
        """Drop a child or a pod that was deleted."""


class Applier:
    """Applies stages in order, the objects of a stage concurrently: network policies come before their pods."""

    def __init__(self, client: ApiWriter, cache: CacheWriter) -> None:
        self._client = client
        self._cache = cache

    async def apply_plan(self, cr: Json, plan: Plan, now: float) -> frozenset[str]:
        """Apply all of `plan`: status, quarantine, children, deletions, then Events.

        The status goes first, so that the user sees it even if a child is refused. Where traffic moves, it goes after
        the Service: a GitOps tool takes a promotion for done by it. If the plan creates a child, a status is written
        first in any case: that proves that the CR still exists. A deleted CR gets no children.

        Returns the pods that this call took out of traffic; pods that were out already are not included.

        Raises:
            OwnerGoneError: the CR is gone.
            ApiError: the API server refused a write; nothing after it was written. The next pass continues there.
        """
        before = cr.get("status") if plan.moves_traffic else None
        await self.write_status(cr, before or plan.status, prove=plan.creates)
        quarantined_pods = frozenset([pod for pod, patch in plan.relabel if await self._relabel(cr, pod, patch)])
        namespace = cr["metadata"]["namespace"]
        await _run_concurrently([self._remove_foreign_fields(namespace, *patch) for patch in plan.clear])
        await self._apply_stages(namespace, plan.apply)
        if before:
            await self.write_status(cr, plan.status)
        await _run_concurrently([self._delete(namespace, *key) for key in plan.delete])
        # After their Deployment: it would replace them.
        await _run_concurrently([self._delete(namespace, "Pod", *pod, grace=GRACE_SECONDS) for pod in plan.cut])
        await self._write_events(cr, [e for e in plan.notes if not e.pod or e.pod in quarantined_pods], now)
        return quarantined_pods

    async def report(self, cr: Json, plan: Plan, now: float) -> None:
        """Write of `plan` only what it reports: the status, then Events."""
        await self.write_status(cr, plan.status)
        await self._write_events(cr, [event for event in plan.notes if not event.pod], now)

    async def apply_volumes(self, namespace: str, plan: VolumesPlan) -> dict[str, ApiError]:
        """Apply the objects that fetch engines to a namespace's volumes, and delete those that have done so.

        Returns the error of each volume whose objects the API server refused. The other volumes go on.
        """
        errors: dict[str, ApiError] = {}

        async def apply(name: str, stages: tuple[tuple[Json, ...], ...]) -> None:
            try:
                await self._apply_stages(namespace, stages)
            except (InvalidError, ForbiddenError) as error:
                errors[name] = error

        deletions = [self._delete(namespace, *key) for key in plan.delete]
        await _run_concurrently([*(apply(*of_one) for of_one in plan.apply.items()), *deletions])
        return errors

    async def apply_tenant(self, cr: Json | None, plan: TenantPlan) -> None:
        """Apply what a namespace has as a tenant: network policies first, the R1PlusTenant's status last.

        The finalizer is set before anything is granted, and removed after everything is deleted. Deletions go on even
        if the API server refuses another write: a withdrawn right must not outlive somebody else's mistake.

        Raises:
            ApiError: the first refusal; no stage after it was applied, and no status was written.
        """
        if cr is not None and plan.finalizer:
            await self._apply_tenant_object(cr, {}, finalizers=[names.FINALIZER_TENANT])
        first_error = None
        try:
            await _run_concurrently([self._delete(*key) for key in plan.delete])
            if cr is not None and plan.finalizer is False:
                await self._remove_finalizer(cr)
        except ApiError as error:
            first_error = error
        await _run_concurrently([self._remove_foreign_fields(*patch) for patch in plan.clear])
        for stage in plan.apply:
            await _run_concurrently([self._apply(obj) for obj in stage])
            log.info("Applied: %s", ", ".join(f"{obj['kind']} {_format_key(obj)}" for obj in stage))
        if first_error is not None:
            raise first_error
        await self.report_tenant(cr, plan)

    async def report_tenant(self, cr: Json | None, plan: TenantPlan) -> None:
        """Write of `plan` only the R1PlusTenant's status."""
        if cr is not None and plan.status is not None:
            await self._apply_tenant_object(cr, {"status": plan.status}, subresource="status")

    async def _apply_tenant_object(self, cr: Json, body: Json, *, subresource: str = "", **more: Any) -> None:
        meta = {key: cr["metadata"][key] for key in ("name", "namespace", "uid")} | more
        obj = {"apiVersion": names.API_VERSION, "kind": names.KIND_TENANT, "metadata": meta, **body}
        write = self._client.apply(kinds.R1PLUS_TENANT, obj, field_manager=names.FIELD_MANAGER, subresource=subresource)
        await self._write_tenant(cr, write)

    async def _remove_finalizer(self, cr: Json) -> None:
        """Remove the finalizer by a patch.

        An apply would leave it in place if another manager has written it as well.
        """
        meta = cr["metadata"]
        path = f"/metadata/finalizers/{meta['finalizers'].index(names.FINALIZER_TENANT)}"
        patch = [
            {"op": "test", "path": "/metadata/uid", "value": meta["uid"]},
            {"op": "test", "path": path, "value": names.FINALIZER_TENANT},
            {"op": "remove", "path": path},
        ]
        write = self._client.patch(kinds.R1PLUS_TENANT, meta["name"], meta["namespace"], patch, content_type=JSON_PATCH)
        try:
            await self._write_tenant(cr, write)
        except InvalidError as error:
            log.info(
                "Finalizers of R1PlusTenant %s changed meanwhile, the next pass retries: %s", _format_key(cr), error
            )

    async def _write_tenant(self, cr: Json, write: Awaitable[Json]) -> None:
        """Carry out a write to an R1PlusTenant; if it is gone or replaced, its event causes the next pass."""
        try:
            await self._cache.write_tenant(cr["metadata"]["namespace"], write)
        except (NotFoundError, ConflictError) as error:
            log.info("R1PlusTenant %s was deleted or replaced, skipped its write: %s", _format_key(cr), error)

    async def apply_engines(self, objects: tuple[Json, ...]) -> None:
        """Apply entries of the shipped catalog."""
        for obj in objects:
            await self._client.apply(kinds.R1PLUS_ENGINE, obj, field_manager=names.FIELD_MANAGER)
            log.info("Applied R1PlusEngine %s", obj["metadata"]["name"])

    async def write_status(self, cr: Json, status: Json, *, prove: bool = False) -> None:
        """Write the status if it changed, or to `prove` that the CR is still the one that was planned for.

        Raises:
            OwnerGoneError: the CR is gone.
        """
        if (cr.get("status") or {}) == status and not prove:
            return
        meta = cr["metadata"]
        # With the version, so that a delayed status cannot replace a newer one.
        head = {key: meta[key] for key in ("name", "namespace", "uid", "resourceVersion")}
        body = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND_DEPLOYMENT,
            "metadata": head,
            "status": status,
        }
        try:
            live_cr = await self._client.apply(
                kinds.R1PLUS_DEPLOYMENT, body, field_manager=names.FIELD_MANAGER, subresource="status"
            )
        except (NotFoundError, ConflictError) as error:
            # 404: it is gone. 409: by the version, it is newer than the plan's or another object of its name. The API
            # server does not compare the uid of a status.
            live = await self._read_live(meta)
            if live is None:
                raise OwnerGoneError(f"{meta['namespace']}/{meta['name']}: {error}") from error
            self._cache.update_cached(live)
            raise
        self._cache.update_cached(live_cr)

    async def _read_live(self, meta: Json) -> Json | None:
        """Return this very CR, None if it is gone. By a list: the operator has no right to `get`."""
        live, _ = await self._client.list(kinds.R1PLUS_DEPLOYMENT, meta["namespace"], name=meta["name"])
        return next((cr for cr in live if cr["metadata"]["uid"] == meta["uid"]), None)

    async def _apply_stages(self, namespace: str, stages: tuple[tuple[Json, ...], ...]) -> None:
        for stage in stages:
            await _run_concurrently([self._apply(obj) for obj in stage])
        if stages:
            object_names = ", ".join(f"{obj['kind']} {obj['metadata']['name']}" for stage in stages for obj in stage)
            log.info("Applied in namespace %s: %s", namespace, object_names)

    async def _apply(self, obj: Json) -> None:
        resource = kinds.BY_KIND[obj["kind"]]
        write = self._client.apply(resource, obj, field_manager=names.FIELD_MANAGER)
        await self._cache.write_through(obj, write)

    async def _remove_foreign_fields(self, namespace: str, kind: str, name: str, patch: tuple[Json, ...]) -> None:
        """Remove what others added. If that is refused, the apply that follows may remove it, else the next pass."""
        try:
            await self._client.patch(kinds.BY_KIND[kind], name, namespace, patch, content_type=JSON_PATCH)
        except InvalidError as error:
            log.info("Foreign items stayed in %s %s/%s: %s", kind, namespace, name, error)
        else:
            log.info("Removed foreign items from %s %s/%s", kind, namespace, name)

    async def _relabel(self, cr: Json, pod: str, patch: tuple[Json, ...]) -> bool:
        """Take a pod out of traffic; return False if it is another pod by now, or is out already."""
        namespace = cr["metadata"]["namespace"]
        try:
            await self._client.patch(kinds.POD, pod, namespace, patch, content_type=JSON_PATCH)
        except (InvalidError, NotFoundError) as error:
            log.info("Pod %s/%s was not quarantined: %s", namespace, pod, error)
            return False
        log.warning("Quarantined Pod %s/%s", namespace, pod)
        return True

    async def _delete(self, namespace: str, kind: str, name: str, uid: str, grace: int | None = None) -> None:
        """Delete an object; a pod with a grace period other than its own, seconds."""
        try:
            await self._client.delete(kinds.BY_KIND[kind], name, namespace, uid=uid, grace_seconds=grace)
        except NotFoundError:
            log.debug("%s %s/%s was deleted already", kind, namespace, name)
        self._cache.evict(kind, namespace, name)
        log.info("Deleted %s %s/%s", kind, namespace, name)

    async def _write_events(self, cr: Json, events: Sequence[Event], now: float) -> None:
        namespace = self._cache.find_namespace(cr["metadata"]["namespace"])
        if namespace is not None and namespace.is_terminating:
            return  # The API server takes no new object there.
        for event in events:
            await self._write_event(cr, event, now)

    async def _write_event(self, cr: Json, event: Event, now: float) -> None:
        """Write an Event, named by the hash of its content, so that a repeated pass writes it once."""
        meta = cr["metadata"]
        digest = hashlib.sha256(f"{meta['uid']}{event.at}{event.reason}{event.message}".encode()).hexdigest()[:12]
        when = format_timestamp(now)
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{meta['name']}.{digest}", "namespace": meta["namespace"]},
            "involvedObject": {
                "apiVersion": names.API_VERSION,
                "kind": names.KIND_DEPLOYMENT,
                "name": meta["name"],
                "namespace": meta["namespace"],
                "uid": meta["uid"],
            },
            "type": "Warning" if event.is_warning else "Normal",
            "reason": event.reason,
            "message": to_printable(event.message[:1024]),
            "source": {"component": names.FIELD_MANAGER},
            "firstTimestamp": when,
            "lastTimestamp": when,
            "count": 1,
        }
        try:
            await self._client.apply(kinds.EVENT, body, field_manager=names.FIELD_MANAGER)
        except ApiError as error:
            # An Event is no state: losing one must not repeat the pass.
            log.warning("Event %s was not written: %s", event.reason, error)


def _format_key(obj: Json) -> str:
    return f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"


async def _run_concurrently(writes: list[Any]) -> None:
    """Run writes concurrently; all finish, then the first failure is raised."""
    if len(writes) == 1:
        await writes[0]  # It needs no task of its own.
        return
    results = await asyncio.gather(*writes, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
