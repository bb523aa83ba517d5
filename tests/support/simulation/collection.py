"""What Kubernetes' controllers delete: children of owners that are gone, content of namespaces, claims that nobody mounts.

They are clients of the server that act a moment after each change.
"""

import random
from collections.abc import Callable
from typing import Any

from r1plus_operator.api import kinds
from r1plus_operator.runtime.errors import ApiError
from r1plus_operator.runtime.resources import Resource
from support.simulation.builtin_defaults import CLAIM_IN_USE
from support.simulation.metadata import FOREGROUND, ORPHAN, address_of
from support.simulation.server import Change, SimulatedApiServer

Object = dict[str, Any]
CLAIM = kinds.BY_KIND["PersistentVolumeClaim"]
_HANDLED = frozenset({ORPHAN, FOREGROUND, CLAIM_IN_USE})
"""Finalizers that a controller here removes."""
COLLECTOR = "system:serviceaccount:kube-system:generic-garbage-collector"
NAMESPACE_CONTROLLER = "system:serviceaccount:kube-system:namespace-controller"
Schedule = Callable[[float, Callable[[], None]], object]
"""As `loop.call_later`."""


class Collector:
    """These controllers. `schedule` calls them back; a world without a loop calls `collect`."""

    def __init__(
        self,
        server: SimulatedApiServer,
        rand: random.Random,
        schedule: Schedule | None = None,
        *,
        delay: tuple[float, float] = (0.05, 1.0),
    ) -> None:
        """`delay`: seconds between a change and what follows of it, drawn between the two."""
        self._server = server
        self._rand = rand
        self._schedule = schedule
        self._delay = delay
        self._is_due = False
        server.subscribe(self._on_change)

    def collect(self) -> None:
        """Do all that is to be done, until nothing changes."""
        while True:
            before = self._server.version
            self._collect_once()
            if self._server.version == before:
                return

    def _on_change(self, change: Change) -> None:
        if self._concerns(change) and self._schedule is not None and not self._is_due:
            self._is_due = True
            self._schedule(self._rand.uniform(*self._delay), self._run)

    def _concerns(self, change: Change) -> bool:
        """Whether something may have to follow of a change."""
        meta = change.obj["metadata"]
        owners = meta.get("ownerReferences")
        if change.resource == kinds.POD and self._has_marked_claim(meta["namespace"]):
            return True
        if change.verb == "deleted":
            is_content = self._is_terminating(meta.get("namespace"))
            return bool(owners) or is_content or bool(self._server.store.list_owned(meta["uid"]))
        if "deletionTimestamp" in meta:
            finalizers = meta.get("finalizers") or ()
            return change.resource == kinds.NAMESPACE or not _HANDLED.isdisjoint(finalizers)
        before = change.before["metadata"].get("ownerReferences") if change.before else None
        return bool(owners) and owners != before

    def _has_marked_claim(self, namespace: str) -> bool:
        return any("deletionTimestamp" in claim["metadata"] for claim in self._server.list_objects(CLAIM, namespace))

    def _is_terminating(self, namespace: str | None) -> bool:
        found = self._server.read(kinds.NAMESPACE, None, namespace) if namespace else None
        return found is not None and "deletionTimestamp" in found["metadata"]

    def _run(self) -> None:
        self._is_due = False
        before = self._server.version
        self._collect_once()
        if self._server.version != before and self._schedule is not None and not self._is_due:
            self._is_due = True
            self._schedule(self._rand.uniform(*self._delay), self._run)

    def _collect_once(self) -> None:
        live = {
            obj["metadata"]["uid"]: obj
            for resource in self._server.list_resources()
            for obj in self._server.list_objects(resource)
        }
        for resource in self._server.list_resources():
            for obj in self._server.list_objects(resource):
                if self._server.read(resource, *address_of(obj)) is obj:
                    self._visit(resource, obj, live)
        for namespace in self._server.list_objects(kinds.NAMESPACE):
            if "deletionTimestamp" in namespace["metadata"]:
                self._empty(namespace)

    def _visit(self, resource: Resource, obj: Object, live: dict[str, Object]) -> None:
        meta = obj["metadata"]
        finalizers = meta.get("finalizers") or []
        if "deletionTimestamp" in meta:
            if ORPHAN in finalizers:
                self._orphan(resource, obj)
            elif FOREGROUND in finalizers:
                self._delete_in_foreground(resource, obj)
            elif CLAIM_IN_USE in finalizers and not self._is_mounted(obj):
                self._drop_finalizer(resource, obj, CLAIM_IN_USE)
            return
        owners = meta.get("ownerReferences") or []
        if owners and not any(_keeps(owner, meta, live) for owner in owners):
            self._delete(resource, obj)

    def _orphan(self, resource: Resource, obj: Object) -> None:
        """Take the owner from its children's references, then let it go."""
        uid = obj["metadata"]["uid"]
        for child_resource, key in self._server.store.list_owned(uid):
            child = self._server.read(child_resource, key[0] or None, key[1])
            if child is not None:
                rest = [one for one in child["metadata"]["ownerReferences"] if one["uid"] != uid]
                body = {"metadata": {"ownerReferences": rest or None}}
                self._server.patch(child_resource, key[0] or None, key[1], body, user=COLLECTOR)
        self._drop_finalizer(resource, obj, ORPHAN)

    def _delete_in_foreground(self, resource: Resource, obj: Object) -> None:
        """Let an owner go once no child that blocks it is left."""
        uid = obj["metadata"]["uid"]
        for child_resource, key in self._server.store.list_owned(uid):
            child = self._server.read(child_resource, key[0] or None, key[1])
            blocks = child is not None and any(
                one["uid"] == uid and one.get("blockOwnerDeletion") for one in child["metadata"]["ownerReferences"]
            )
            if blocks:
                return
        self._drop_finalizer(resource, obj, FOREGROUND)

    def _is_mounted(self, claim: Object) -> bool:
        """Whether a pod that has a node and is not over uses a claim."""
        return any(
            (volume.get("persistentVolumeClaim") or {}).get("claimName") == claim["metadata"]["name"]
            for pod in self._server.list_objects(kinds.POD, claim["metadata"]["namespace"])
            if pod["spec"].get("nodeName") and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
            for volume in pod["spec"].get("volumes") or ()
        )

    def _drop_finalizer(self, resource: Resource, obj: Object, name: str) -> None:
        rest = [one for one in obj["metadata"]["finalizers"] if one != name]
        body = {"metadata": {"finalizers": rest or None}}
        self._server.patch(resource, *address_of(obj), body, user=COLLECTOR)

    def _delete(self, resource: Resource, obj: Object, user: str = COLLECTOR) -> None:
        meta = obj["metadata"]
        try:
            self._server.delete(resource, *address_of(obj), user=user, uid=meta["uid"])
        except ApiError:
            return  # A policy kept it: the next change brings it up again.

    def _empty(self, namespace: Object) -> None:
        """Delete a namespace's content, then the namespace."""
        name = namespace["metadata"]["name"]
        content = self._server.store.list_namespace(name)
        for resource, record in content:
            if "deletionTimestamp" not in record.obj["metadata"]:
                self._delete(resource, record.obj, NAMESPACE_CONTROLLER)
        if not self._server.store.list_namespace(name):
            self._server.finalize_namespace(name, user=NAMESPACE_CONTROLLER)


def _keeps(owner: Object, meta: Object, live: dict[str, Object]) -> bool:
    """Whether an owner that an object names keeps it.

    It is there, in the object's namespace if it has one, and does not wait in the foreground for the object to go.
    """
    found = live.get(owner["uid"])
    if found is None or found["metadata"].get("namespace") not in (None, meta.get("namespace")):
        return False
    return not ("deletionTimestamp" in found["metadata"] and FOREGROUND in (found["metadata"].get("finalizers") or []))
