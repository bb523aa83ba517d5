"""Watches what the phases measure by: when, and in which order, objects came into being in all namespaces."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.errors import GoneError
from r1plus_operator.runtime.resources import Resource

Json = dict[str, Any]
Key = tuple[str, str, str]
"""(kind, namespace, name)."""


@dataclass(frozen=True, slots=True)
class Seen:
    """An object's newest event."""

    version: int
    """Where it stands among all writes of the cluster: etcd counts them."""
    at: float
    """When the event came, on the clock of `time.perf_counter`."""
    uid: str
    generation: int


class Sight:
    """The newest state of each object, and the first pod of each namespace."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._news = asyncio.Condition()
        self.newest: dict[Key, Seen] = {}
        self.first_pod: dict[str, int] = {}
        """Namespace -> version at which its first pod came."""

    async def follow(self, resource: Resource, generation: Callable[[Json], int]) -> None:
        """Watch one kind in all namespaces until cancelled."""
        while True:
            objects, version = await self._client.list(resource)
            for obj in objects:
                await self._take(resource, obj, generation)
            try:
                async with aclosing(self._client.watch(resource, version, lifetime_s=3600.0)) as events:
                    async for event, obj in events:
                        if event in ("ADDED", "MODIFIED"):
                            await self._take(resource, obj, generation)
            except GoneError:
                continue

    async def _take(self, resource: Resource, obj: Json, generation: Callable[[Json], int]) -> None:
        meta = obj["metadata"]
        seen = Seen(int(meta["resourceVersion"]), time.perf_counter(), meta["uid"], generation(obj))
        async with self._news:
            self.newest[resource.kind, meta["namespace"], meta["name"]] = seen
            if resource.kind == "Pod":
                self.first_pod.setdefault(meta["namespace"], seen.version)
            self._news.notify_all()

    async def until(self, holds: Callable[[], bool], what: str, seconds: float = 600.0) -> float:
        """When something came to hold; AssertionError after `seconds`."""
        try:
            async with asyncio.timeout(seconds), self._news:
                while not holds():
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"after {seconds:.0f} s still not so: {what}") from None
        return time.perf_counter()

    async def until_quiet(self, seconds: float, at_most: float = 600.0) -> None:
        """Wait until nothing has happened for so long; TimeoutError if that is not so after `at_most` seconds."""
        async with asyncio.timeout(at_most):
            while await self._news_within(seconds):
                pass

    async def _news_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._news:
                return await self._news.wait()
        return False

    async def until_seen(self, key: Key, holds: Callable[[Seen], bool], seconds: float = 60.0) -> Seen:
        """The state of one object that first holds something."""
        await self.until(lambda: key in self.newest and holds(self.newest[key]), f"{key}", seconds)
        return self.newest[key]


@asynccontextmanager
async def watching(client: ApiClient, **kinds: tuple[Resource, Callable[[Json], int]]) -> AsyncIterator[Sight]:
    """A Sight of these kinds."""
    sight = Sight(client)
    tasks = [asyncio.create_task(sight.follow(*of)) for of in kinds.values()]
    try:
        yield sight
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
