"""Installs CRDs and waits until they can be used. For the fixtures and for tests that bring kinds of their own."""

import asyncio

from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.resources import Resource

CRDS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", False)


async def install_crd(client: ApiClient, crd: dict[str, object]) -> None:
    """Apply a CRD and wait, by a watch, until the server serves it."""
    applied = await client.apply(CRDS, crd, field_manager="test")
    name = applied["metadata"]["name"]
    async with asyncio.timeout(30):
        while not _established(applied):
            async for _, seen in client.watch(CRDS, applied["metadata"]["resourceVersion"], lifetime_s=30):
                if seen["metadata"].get("name") == name and _established(seen):
                    return
            applied = await client.get(CRDS, name)


def _established(crd: dict[str, object]) -> bool:
    status = crd.get("status")
    conditions = status.get("conditions") if isinstance(status, dict) else None
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions or ())
