"""What the server decides about an object's metadata: identity, versions, generations, marks of deletion."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from r1plus_operator.api import kinds
from r1plus_operator.runtime.errors import ApiError, FieldCause
from r1plus_operator.runtime.resources import Resource
from support.simulation import refusals
from support.simulation.store import Key
from support.simulation.traits import Traits

Object = dict[str, Any]
ORPHAN, FOREGROUND = "orphan", "foregroundDeletion"
"""Finalizers that the garbage collector removes."""
_KEPT = (
    *("uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds"),
    *("namespace", "name"),
)
"""What no writer changes."""


def format_time(seconds: float) -> str:
    """Return seconds since the epoch as Kubernetes writes a Time."""
    return _format_second(int(seconds))


@lru_cache(maxsize=64)
def _format_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def key_of(obj: Object) -> Key:
    """Return the key that an object is stored by."""
    meta = obj["metadata"]
    return meta.get("namespace") or "", meta["name"]


def address_of(obj: Object) -> tuple[str | None, str]:
    """Return namespace and name as the verbs take them."""
    return obj["metadata"].get("namespace"), obj["metadata"]["name"]


def refuse_uid(resource: Resource, name: str, asked: str, actual: str) -> ApiError:
    """409 of a precondition: the object is another one than the caller means."""
    why = f"Precondition failed: UID in precondition: {asked}, UID in object meta: {actual}"
    return refusals.conflict(resource, name, why)


def check_version(resource: Resource, asked: Object, live: Object) -> None:
    """Refuse a write that names another version than the present one."""
    if asked.get("resourceVersion") and asked["resourceVersion"] != live["resourceVersion"]:
        raise refusals.changed(resource, live["name"])


def check_identity(resource: Resource, asked: Object, live: Object) -> None:
    """Refuse a write that would give an object another name or uid."""
    for name in ("name", "uid"):
        if asked.get(name) and asked[name] != live[name]:
            cause = FieldCause(f"metadata.{name}", f'Invalid value: "{asked[name]}": field is immutable')
            raise refusals.invalid(resource, live["name"], [cause])


def with_kept_metadata(live: Object, result: Object) -> Object:
    """Return the object with the metadata that no writer changes."""
    meta = dict(result["metadata"])
    for key in _KEPT:
        if key in live["metadata"]:
            meta[key] = live["metadata"][key]
        else:
            meta.pop(key, None)
    return {**result, "metadata": meta}


def is_new_generation(resource: Resource, live: Object, result: Object) -> bool:
    """Whether what an object asks for has changed; of a Deployment, its annotations are part of that."""
    for name in live.keys() | result.keys():
        if name not in ("metadata", "status") and live.get(name) != result.get(name):
            return True
    is_deployment = resource == kinds.BY_KIND["Deployment"]
    return is_deployment and live["metadata"].get("annotations") != result["metadata"].get("annotations")


def select_grace(obj: Object, asked: int | None) -> int:
    """Return the seconds that a pod has; 0 for one that no kubelet runs, and for any other kind."""
    if obj["kind"] != kinds.POD.kind:
        return 0
    is_over = (obj.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    if not obj["spec"].get("nodeName") or is_over:
        return 0
    grace = obj["spec"].get("terminationGracePeriodSeconds", 30) if asked is None else asked
    former = obj["metadata"].get("deletionGracePeriodSeconds")
    return int(grace if former is None else min(grace, former))


def select_finalizers(finalizers: list[str], propagation: str) -> list[str]:
    """Return an object's finalizers once it is deleted in this way."""
    kept = [one for one in finalizers if one not in (ORPHAN, FOREGROUND)]
    return kept + {"Orphan": [ORPHAN], "Foreground": [FOREGROUND]}.get(propagation, [])


def is_released(resource: Resource, live: Object, result: Object) -> bool:
    """Whether an object that is being deleted goes with this write: nothing keeps it any more."""
    if "deletionTimestamp" not in live["metadata"] or result["metadata"].get("finalizers"):
        return False
    if resource == kinds.NAMESPACE:
        return not result["spec"].get("finalizers")
    return not live["metadata"].get("deletionGracePeriodSeconds")


def with_mark(traits: Traits, live: Object, grace: int, finalizers: list[str], now: float) -> Object:
    """Return an object marked for deletion; a mark that is there is only ever brought forward."""
    meta = {key: value for key, value in live["metadata"].items() if key != "finalizers"}
    is_first = "deletionTimestamp" not in meta
    if is_first or grace < meta.get("deletionGracePeriodSeconds", 0):
        meta["deletionTimestamp"] = format_time(now + grace)
        meta["deletionGracePeriodSeconds"] = grace
    if is_first and traits.counts_generations:
        meta["generation"] = meta.get("generation", 0) + 1
    if finalizers:
        meta["finalizers"] = finalizers
    if traits.resource != kinds.NAMESPACE:
        return {**live, "metadata": meta}
    meta.pop("deletionGracePeriodSeconds", None)
    return {**live, "metadata": meta, "status": {**(live.get("status") or {}), "phase": "Terminating"}}
