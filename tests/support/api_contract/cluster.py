"""What every behaviour of the API server's contract starts from: a client, and a namespace of its own."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest

from r1plus_operator.api import kinds
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.errors import ApiError, ConflictError, NotFoundError
from r1plus_operator.runtime.resources import Resource
from support.apiserver import manifests
from support.apiserver.manifests import SERVICE_ACCOUNT

Object = dict[str, Any]
CONFIG_MAP, POD = kinds.CONFIG_MAP, kinds.POD
DEPLOYMENT, SERVICE = kinds.BY_KIND["Deployment"], kinds.BY_KIND["Service"]
REVISION, POLICY = kinds.BY_KIND["ControllerRevision"], kinds.BY_KIND["NetworkPolicy"]
R1P = kinds.R1PLUS_DEPLOYMENT
WATCH_SECONDS = 60.0
FINALIZER = "r1plus.test/hold"
NOT_CHECKED = "<nil>"
"""Field of the cause that says that CEL rules were not evaluated, since the schema refused the object already."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A server, simulated or real, by its client."""

    client: ApiClient
    namespace: str

    def config_map(self, name: str = "a", labels: dict[str, str] | None = None, **data: str) -> Object:
        """Return a ConfigMap of the namespace."""
        return manifests.config_map(name, self.namespace, labels, **data)

    def deployment(self, name: str = "d", **spec: Any) -> Object:
        """Return a Deployment of the namespace."""
        template = manifests.pod_template({"app": name})
        spec = {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template, **spec}
        return manifests.manifest(DEPLOYMENT, name, self.namespace, spec=spec)

    def r1plus_deployment(self, name: str = "credit", **spec: Any) -> Object:
        """Return an R1PlusDeployment of the namespace."""
        return manifests.r1plus_deployment(name, self.namespace, **spec)

    def service(self, **selector: str) -> Object:
        """Return a Service of the namespace."""
        spec = {"selector": selector, "ports": [{"name": "http", "port": 80, "targetPort": 8000}]}
        return manifests.manifest(SERVICE, "s", self.namespace, spec=spec)

    async def create_pod(
        self, name: str = "p", node: str = "", labels: dict[str, str] | None = None, **spec: Any
    ) -> Object:
        """Create a pod, bound to a node if one is named."""
        with suppress(ConflictError):
            await self.client.create(SERVICE_ACCOUNT, manifests.manifest(SERVICE_ACCOUNT, "default", self.namespace))
        more = {"nodeName": node, **spec} if node else spec
        return await self.client.create(POD, manifests.pod(name, self.namespace, labels, **more))

    async def create(self, resource: Resource, obj: Object, **metadata: Any) -> Object:
        """Create an object with more metadata."""
        return await self.client.create(resource, {**obj, "metadata": {**obj["metadata"], **metadata}})

    async def read(self, resource: Resource, name: str) -> Object:
        """Read an object of the namespace, or of the cluster."""
        return await self.client.get(resource, name, self.namespace if resource.is_namespaced else None)

    async def is_gone(self, resource: Resource, name: str) -> bool:
        """Whether there is no such object."""
        try:
            await self.read(resource, name)
        except NotFoundError:
            return True
        return False

    async def read_version(self) -> str:
        """Return a version that is as new as the last write."""
        return (await self.client.list(CONFIG_MAP, self.namespace))[1]

    async def read_events(
        self, version: str, count: int, resource: Resource = CONFIG_MAP, **options: Any
    ) -> list[tuple[str, Object]]:
        """Return the first events of a watch from a version on, without bookmarks."""
        events: list[tuple[str, Object]] = []
        watch = self.client.watch(resource, version, namespace=self.namespace, **options)
        async with asyncio.timeout(WATCH_SECONDS), aclosing(watch) as stream:
            async for kind, obj in stream:
                if kind != "BOOKMARK":
                    events.append((kind, obj))
                if len(events) == count:
                    break
        return events


Behaviour = Callable[[Cluster], Awaitable[None]]


async def refusal(request: Awaitable[Any]) -> tuple[type[ApiError], str, list[str]]:
    """Return the error of a request, its reason, and the fields that it names."""
    with pytest.raises(ApiError) as caught:
        await request
    return type(caught.value), caught.value.reason, sorted({cause.field for cause in caught.value.causes})


def list_behaviours(modules: Iterable[ModuleType]) -> list[Any]:
    """Return a test case for each public coroutine function of these modules; its name is the behaviour."""
    return [
        pytest.param(function, id=name.replace("_", " "))
        for module in modules
        for name, function in vars(module).items()
        if inspect.iscoroutinefunction(function) and function.__module__ == module.__name__ and name[0] != "_"
    ]
