"""Carries out a Plan against the API server. Decides nothing; reports what was written to whoever keeps the caches."""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Sequence
from typing import Any, Protocol

from r1plus_contract import names
from r1plus_contract.timestamps import format_timestamp
from r1plus_operator.api import kinds
from r1plus_operator.plan.deployment import Plan
from r1plus_operator.plan.events import Event
from r1plus_operator.plan.observation import Json
from r1plus_operator.plan.tenancy.tenant import TenantPlan
from r1plus_operator.plan.tenancy.volumes import VolumesPlan
from r1plus_operator.runtime.client import JSON_PATCH
from r1plus_operator.runtime.errors import ApiError, ConflictError, ForbiddenError, InvalidError, NotFoundError
from r1plus_operator.runtime.resources import Resource

log = logging.getLogger(__name__)


class OwnerGoneError(Exception):
    """The R1PlusDeployment is not there any more, or another object bears its name."""


class Writer(Protocol):
    """The verbs an executor uses; `runtime.client.ApiClient` has them."""

    async def list(self, res: Resource, namespace: str | None = None, *, name: str = "") -> tuple[list[Json], str]:
        """Read the objects of a namespace, all or those of one name."""

    async def apply(
        self, res: Resource, obj: Json, *, field_manager: str, force: bool = True, subresource: str = ""
    ) -> Json:
        """Server-side apply."""

    async def patch(
        self, res: Resource, name: str, namespace: str | None, body: Sequence[Json], *, content_type: str
    ) -> Json:
        """Change single fields."""

    async def delete(
        self, res: Resource, name: str, namespace: str | None = None, *, uid: str | None = None, propagation: str = ...
    ) -> Json:
        """Delete exactly this object."""


class Learner(Protocol):
    """Who is told of every write; `observe.Observer`."""

    async def write_through(self, child: Json, write: Awaitable[Json]) -> None:
        """Carry out the write of a child and take in the API server's answer."""

    async def write_tenant(self, namespace: str, write: Awaitable[Json]) -> None:
        """Carry out a write to a namespace's R1PlusTenant, likewise."""

    def learn(self, written: Json) -> None:
        """The R1PlusDeployment as the API server has it now."""

    def unlearn(self, kind: str, namespace: str, name: str) -> None:
        """A child that was deleted."""


class Executor:
    """Stages in order, the objects of one stage at once: walls stand before the pods they surround."""

    def __init__(self, client: Writer, learner: Learner) -> None:
        self._client = client
        self._learner = learner

    async def run(self, cr: Json, plan: Plan, now: float) -> frozenset[str]:
        """Write everything of `plan`: children, deletions, status, then what happened as Events.

        The status goes first: it tells the user even when a child is refused, and where a child may come into being it
        is written in any case, to prove that the CR is still there. No child is made for a dead one.

        Returns the pods that it took out of traffic: where the plan is from before a pod was out, it was not this one.

        Raises:
            OwnerGoneError: the CR is gone.
            ApiError: what the API server refused; nothing after it was written, the next pass goes on from there.
        """
        await self.status(cr, plan.status, prove=plan.creates)
        out = frozenset([pod for pod, patch in plan.relabel if await self._relabel(cr, pod, patch)])
        await _together([self._clear(cr, *stray) for stray in plan.clear])
        await self._stages(cr["metadata"]["namespace"], plan.apply)
        await _together([self._delete(cr["metadata"]["namespace"], *gone) for gone in plan.delete])
        for note in plan.notes:
            if not note.pod or note.pod in out:
                await self._note(cr, note, now)
        return out

    async def tell(self, cr: Json, plan: Plan, now: float) -> None:
        """Of `plan` only what it says: the status, then what happened as Events."""
        await self.status(cr, plan.status)
        for note in plan.notes:
            if not note.pod:
                await self._note(cr, note, now)

    async def volumes(self, namespace: str, plan: VolumesPlan) -> dict[str, ApiError]:
        """Write what brings engines to a namespace's volumes, and delete what has done it.

        Returns what the API server refused, by volume: the others go on.
        """
        refused: dict[str, ApiError] = {}

        async def bring(name: str, stages: tuple[tuple[Json, ...], ...]) -> None:
            try:
                await self._stages(namespace, stages)
            except (InvalidError, ForbiddenError) as error:
                refused[name] = error

        deletions = [self._delete(namespace, *gone) for gone in plan.delete]
        await _together([*(bring(*of_one) for of_one in plan.apply.items()), *deletions])
        return refused

    async def tenant(self, cr: Json | None, plan: TenantPlan) -> None:
        """Write what a namespace has as a tenant: walls first, the R1PlusTenant's own word last.

        Nothing is given before the finalizer stands, and it goes when all has been taken. What is to be taken is taken
        whatever the API server refuses beside it: rights that are withdrawn do not outlive another's mistake.

        Raises:
            ApiError: the first refusal; of what was to be made, nothing after its stage was, and nothing was told.
        """
        if cr is not None and plan.finalizer:
            await self._of_tenant(cr, {}, finalizers=[names.FINALIZER_TENANT])
        fault = None
        try:
            await _together([self._delete(*gone) for gone in plan.delete])
            if cr is not None and plan.finalizer is False:
                await self._let_go(cr)
        except ApiError as error:
            fault = error
        for stage in plan.apply:
            await _together([self._apply(obj) for obj in stage])
            log.info("Applied: %s", ", ".join(f"{obj['kind']} {_where(obj)}" for obj in stage))
        if fault is not None:
            raise fault
        await self.tell_tenant(cr, plan)

    async def tell_tenant(self, cr: Json | None, plan: TenantPlan) -> None:
        """Of `plan` only what it says of the R1PlusTenant."""
        if cr is not None and plan.status is not None:
            await self._of_tenant(cr, {"status": plan.status}, subresource="status")

    async def _of_tenant(self, cr: Json, body: Json, *, subresource: str = "", **more: Any) -> None:
        meta = {key: cr["metadata"][key] for key in ("name", "namespace", "uid")} | more
        obj = {"apiVersion": names.API_VERSION, "kind": names.KIND_TENANT, "metadata": meta, **body}
        write = self._client.apply(kinds.R1PLUS_TENANT, obj, field_manager=names.FIELD_MANAGER, subresource=subresource)
        await self._learned(cr, write)

    async def _let_go(self, cr: Json) -> None:
        """Take the finalizer off. Not by an apply, which would leave it where somebody else has written it, too."""
        meta = cr["metadata"]
        path = f"/metadata/finalizers/{meta['finalizers'].index(names.FINALIZER_TENANT)}"
        patch = [
            {"op": "test", "path": "/metadata/uid", "value": meta["uid"]},
            {"op": "test", "path": path, "value": names.FINALIZER_TENANT},
            {"op": "remove", "path": path},
        ]
        write = self._client.patch(kinds.R1PLUS_TENANT, meta["name"], meta["namespace"], patch, content_type=JSON_PATCH)
        try:
            await self._learned(cr, write)
        except InvalidError as error:
            log.info("Finalizers of R1PlusTenant %s changed meanwhile, the next pass retries: %s", _where(cr), error)

    async def _learned(self, cr: Json, write: Awaitable[Json]) -> None:
        """Carry out a write to an R1PlusTenant; where it is gone, or another one, its event brings the next pass."""
        try:
            await self._learner.write_tenant(cr["metadata"]["namespace"], write)
        except (NotFoundError, ConflictError) as error:
            log.info("R1PlusTenant %s was deleted or replaced, skipped its write: %s", _where(cr), error)

    async def engines(self, objects: tuple[Json, ...]) -> None:
        """Write entries of the shipped catalog."""
        for obj in objects:
            await self._client.apply(kinds.R1PLUS_ENGINE, obj, field_manager=names.FIELD_MANAGER)
            log.info("Applied R1PlusEngine %s", obj["metadata"]["name"])

    async def status(self, cr: Json, status: Json, *, prove: bool = False) -> None:
        """Write the status if it says anything new, or to `prove` that the CR is still the one that was planned for."""
        if (cr.get("status") or {}) == status and not prove:
            return
        meta = cr["metadata"]
        # With the version, so that a status that was held up on its way cannot take the place of a newer one.
        head = {key: meta[key] for key in ("name", "namespace", "uid", "resourceVersion")}
        body = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND_DEPLOYMENT,
            "metadata": head,
            "status": status,
        }
        try:
            written = await self._client.apply(
                kinds.R1PLUS_DEPLOYMENT, body, field_manager=names.FIELD_MANAGER, subresource="status"
            )
        except (NotFoundError, ConflictError) as error:
            # 409 is said of an absent object with a uid, of a namesake, and of one newer than what was planned from.
            live = await self._live(meta)
            if live is None:
                raise OwnerGoneError(f"{meta['namespace']}/{meta['name']}: {error}") from error
            self._learner.learn(live)
            raise
        self._learner.learn(written)

    async def _live(self, meta: Json) -> Json | None:
        """This very CR, if it still exists. By a list, which the operator may do anyway; it has no right to `get`."""
        live, _ = await self._client.list(kinds.R1PLUS_DEPLOYMENT, meta["namespace"], name=meta["name"])
        return next((cr for cr in live if cr["metadata"]["uid"] == meta["uid"]), None)

    async def _stages(self, namespace: str, stages: tuple[tuple[Json, ...], ...]) -> None:
        for stage in stages:
            await _together([self._apply(obj) for obj in stage])
        if stages:
            applied = ", ".join(f"{obj['kind']} {obj['metadata']['name']}" for stage in stages for obj in stage)
            log.info("Applied in namespace %s: %s", namespace, applied)

    async def _apply(self, obj: Json) -> None:
        resource = kinds.BY_KIND[obj["kind"]]
        write = self._client.apply(resource, obj, field_manager=names.FIELD_MANAGER)
        await self._learner.write_through(obj, write)

    async def _clear(self, cr: Json, kind: str, name: str, patch: tuple[Json, ...]) -> None:
        """Take out what others added. Where that is refused the apply that follows may do; else the next pass tries."""
        namespace = cr["metadata"]["namespace"]
        try:
            await self._client.patch(kinds.BY_KIND[kind], name, namespace, patch, content_type=JSON_PATCH)
        except InvalidError as error:
            log.info("Foreign items stayed in %s %s/%s: %s", kind, namespace, name, error)
        else:
            log.info("Removed foreign items from %s %s/%s", kind, namespace, name)

    async def _relabel(self, cr: Json, pod: str, patch: tuple[Json, ...]) -> bool:
        """Take a pod out of traffic. Where it is another one by now, or is out already, the next pass looks again."""
        namespace = cr["metadata"]["namespace"]
        try:
            await self._client.patch(kinds.POD, pod, namespace, patch, content_type=JSON_PATCH)
        except (InvalidError, NotFoundError) as error:
            log.info("Pod %s/%s was not quarantined: %s", namespace, pod, error)
            return False
        log.warning("Quarantined Pod %s/%s", namespace, pod)
        return True

    async def _delete(self, namespace: str, kind: str, name: str, uid: str) -> None:
        try:
            await self._client.delete(kinds.BY_KIND[kind], name, namespace, uid=uid)
        except NotFoundError:
            log.debug("Found %s %s/%s deleted already", kind, namespace, name)
        self._learner.unlearn(kind, namespace, name)
        log.info("Deleted %s %s/%s", kind, namespace, name)

    async def _note(self, cr: Json, note: Event, now: float) -> None:
        """Leave an Event; its name is its content's, so a repeated pass tells nothing twice."""
        meta = cr["metadata"]
        digest = hashlib.sha256(f"{meta['uid']}{note.at}{note.reason}{note.message}".encode()).hexdigest()[:12]
        when = format_timestamp(now)
        event = {
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
            "type": "Warning" if note.is_warning else "Normal",
            "reason": note.reason,
            "message": note.message[:1024],
            "source": {"component": names.FIELD_MANAGER},
            "firstTimestamp": when,
            "lastTimestamp": when,
            "count": 1,
        }
        try:
            await self._client.apply(kinds.EVENT, event, field_manager=names.FIELD_MANAGER)
        except ApiError as error:
            # An Event is news, not state: losing one must not repeat the pass.
            log.warning("Event %s was not written: %s", note.reason, error)


def _where(obj: Json) -> str:
    return f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"


async def _together(writes: list[Any]) -> None:
    """Run writes at once; all finish, then the first failure is raised."""
    if len(writes) == 1:
        await writes[0]  # It needs no task of its own.
        return
    results = await asyncio.gather(*writes, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
