"""How controllers, kubelet and people of a world reach the simulated API server: at once and without faults."""

from contextlib import suppress
from typing import Any

from r1plus_operator.runtime.errors import ConflictError, NotFoundError
from r1plus_operator.runtime.resources import Resource
from support.simulation.server import SimulatedApiServer

Json = dict[str, Any]


class Access:
    """One user's calls. What is gone meanwhile, or was there first, is no error for a level-triggered controller."""

    def __init__(self, server: SimulatedApiServer, user: str) -> None:
        self._server = server
        self._user = user

    def read(self, resource: Resource, namespace: str | None, name: str) -> Json | None:
        """Return an object, or None."""
        return self._server.read(resource, namespace, name)

    def list(self, resource: Resource, namespace: str | None = None) -> list[Json]:
        """Return the objects of a kind in a namespace, or in all."""
        return self._server.list_objects(resource, namespace)

    def create(self, resource: Resource, obj: Json) -> Json:
        """Create an object of this kind."""
        body = {"apiVersion": resource.api_version, "kind": resource.kind, **obj}
        return self._server.create(resource, body, user=self._user)

    def apply(self, resource: Resource, obj: Json, *, field_manager: str, subresource: str = "") -> Json:
        """Apply an object of this kind (server-side)."""
        body = {"apiVersion": resource.api_version, "kind": resource.kind, **obj}
        return self._server.apply(resource, body, user=self._user, field_manager=field_manager, subresource=subresource)

    def patch(self, resource: Resource, namespace: str | None, name: str, body: Json, *, subresource: str = "") -> None:
        """Merge a patch into an object that may be gone."""
        with suppress(NotFoundError):
            self._server.patch(resource, namespace, name, body, user=self._user, subresource=subresource)

    def replace(self, resource: Resource, obj: Json) -> None:
        """Replace an object, as `kubectl replace` does, if it has not changed meanwhile."""
        with suppress(NotFoundError, ConflictError):
            self._server.replace(resource, obj, user=self._user)

    def delete(self, resource: Resource, obj: Json, *, grace_seconds: int | None = None) -> None:
        """Delete this very object."""
        meta = obj["metadata"]
        with suppress(NotFoundError, ConflictError):
            self._server.delete(
                resource,
                meta.get("namespace"),
                meta["name"],
                user=self._user,
                uid=meta["uid"],
                grace_seconds=grace_seconds,
            )
