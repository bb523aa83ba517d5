"""What a create does at a subresource: evict a pod, issue a token."""

from typing import Any, Protocol

from r1plus_operator.api import kinds
from r1plus_operator.runtime.errors import ApiError
from r1plus_operator.runtime.resources import Resource
from support.simulation import refusals
from support.simulation.metadata import format_time

Object = dict[str, Any]
TOKEN_SECONDS = 3600.0


class Verbs(Protocol):
    """The server's verbs that these use; `server.SimulatedApiServer`."""

    def now(self) -> float:
        """Return seconds since the epoch."""

    def read(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        """Return an object, or None."""

    def list_objects(self, resource: Resource, namespace: str | None = None) -> list[Object]:
        """Return a kind's objects."""

    def delete(
        self, resource: Resource, namespace: str | None, name: str, *, user: str, grace_seconds: int | None
    ) -> Object:
        """Delete an object."""


def create(verbs: Verbs, resource: Resource, obj: Object, subresource: str, user: str) -> Object:
    """Act on the object that `metadata` names, which is there."""
    if (resource, subresource) == (kinds.POD, "eviction"):
        return _evict(verbs, obj, user)
    if (resource.kind, subresource) == ("ServiceAccount", "token"):
        expires = format_time(verbs.now() + TOKEN_SECONDS)
        status = {"token": f"token-of-{obj['metadata']['name']}", "expirationTimestamp": expires}
        return {**obj, "status": status}
    raise ApiError(404, "NotFound", "the server could not find the requested resource")


def _evict(verbs: Verbs, eviction: Object, user: str) -> Object:
    """Delete a pod unless a PodDisruptionBudget's status allows none."""
    namespace, name = eviction["metadata"]["namespace"], eviction["metadata"]["name"]
    pod = verbs.read(kinds.POD, namespace, name)
    assert pod is not None
    labels = pod["metadata"].get("labels") or {}
    for budget in verbs.list_objects(kinds.BY_KIND["PodDisruptionBudget"], namespace):
        wanted = (budget["spec"].get("selector") or {}).get("matchLabels") or {}
        is_selected = bool(wanted) and wanted.items() <= labels.items()
        if is_selected and (budget.get("status") or {}).get("disruptionsAllowed", 0) < 1:
            raise refusals.evicted_too_many(budget["metadata"]["name"])
    grace = (eviction.get("deleteOptions") or {}).get("gracePeriodSeconds")
    verbs.delete(kinds.POD, namespace, name, user=user, grace_seconds=grace)
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
