"""Golden suites of tenants: an index of metadata, and a cache of the bodies that deployments name.

Anyone who may write ConfigMaps can add suites, in any number and up to 1 MiB each. So the watch brings metadata only.
A body is fetched for a pass that needs it, in a tenant's namespace, and read in a thread. The cache is bounded in
bytes, for all tenants and for each. The observer owns it, and calls `load` before a pass.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from r1plus_contract import names
from r1plus_operator.api import kinds
from r1plus_operator.observe import suite_projection
from r1plus_operator.observe.projections import CachedObject
from r1plus_operator.plan.accuracy.mounted_suites import read_mounted_suites
from r1plus_operator.plan.observation import Json, SuiteSource
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.reflector import Reflector

log = logging.getLogger(__name__)
MOST_BYTES = 24 * 2**20
"""Of text, for all tenants: some 400 suites of usual size. In memory a suite takes five times its text."""
SHARES = 4
"""A namespace gets one such share at most, so that its many suites evict no other tenant's."""
AT_ONCE = 2
"""Bodies that are fetched and read concurrently."""
MOST_MOUNTED = 2
"""Suites in a deployment's accuracy ConfigMap."""
Key = tuple[str, str]
"""Namespace and name of a suite; of a mounted one its ConfigMap's name, a slash and a number."""


@dataclass(frozen=True, slots=True)
class _CachedSuite:
    """A suite as read, the version of its ConfigMap, and the bytes of its text."""

    uid: str
    version: str
    source: SuiteSource
    size: int


class TenantSuites:
    """The index and the cached bodies."""

    def __init__(
        self,
        client: ApiClient,
        on_change: Callable[[str, CachedObject], None],
        *,
        most_bytes: int = MOST_BYTES,
        rand: random.Random | None = None,
    ) -> None:
        """Call `on_change` with ADDED, MODIFIED or DELETED and the index entry."""
        self._client = client
        self._most_bytes = most_bytes
        self._cached: dict[Key, _CachedSuite] = {}
        """In the order of their last use."""
        self._turns = asyncio.Semaphore(AT_ONCE)
        self.index: Reflector[CachedObject] = Reflector(
            client,
            kinds.CONFIG_MAP,
            project=suite_projection.project_suite_version,
            on_change=on_change,
            label_selector=names.LABEL_SUITE,
            index=lambda entry: entry.namespace,
            metadata_only=True,
            rand=rand,
        )

    def list_names(self, namespace: str) -> frozenset[str]:
        """Return the names of a namespace's own suites."""
        return frozenset(entry.name for entry in self.index.store.by_index(namespace))

    def list_cached(self, namespace: str) -> dict[str, SuiteSource]:
        """Return the cached ones of a namespace's own suites, by name."""
        sources = ((key[1], suite.source) for key, suite in self._cached.items() if key[0] == namespace)
        return {name: source for name, source in sources if "/" not in name}

    async def load(self, namespace: str, suite_names: Collection[str]) -> dict[str, SuiteSource]:
        """Return the namespace's own suites among `wanted`, by name; fetch and read those that are not at hand.

        Raises ApiError if the API server does not answer.
        """
        sources: dict[str, SuiteSource] = {}
        for name in sorted(suite_names):
            entry = self.index.store.get(namespace, name)
            if entry is None:
                self._cached.pop((namespace, name), None)
                continue
            sources[name] = await self._load_one(entry)
        return sources

    async def _load_one(self, entry: CachedObject) -> SuiteSource:
        key = (entry.namespace, entry.name)
        suite = self._cached.pop(key, None)
        if suite is None or (suite.uid, suite.version) != (entry.uid, entry.value):
            async with self._turns:
                objects, _ = await self._client.list(kinds.CONFIG_MAP, entry.namespace, name=entry.name)
                # Deleted since the index was updated: read it as an empty one until the index is updated again.
                obj = objects[0] if objects else {"metadata": {"name": entry.name, "uid": "", "resourceVersion": ""}}
                source = await asyncio.to_thread(suite_projection.read_suite, obj)
            suite = _CachedSuite(obj["metadata"]["uid"], obj["metadata"]["resourceVersion"], source, _count_bytes(obj))
        self._cached[key] = suite
        self._evict(entry.namespace)
        return suite.source

    async def load_mounted(self, namespace: str, name: str, version: str) -> tuple[SuiteSource, ...]:
        """Return the suites in a deployment's accuracy ConfigMap; fetch and read it if this version is not at hand.

        Raises ApiError if the API server does not answer.
        """
        keys = [(namespace, f"{name}/{number}") for number in range(MOST_MOUNTED)]
        suites = [suite for key in keys if (suite := self._cached.pop(key, None)) and suite.version == version]
        if not suites:
            async with self._turns:
                objects, _ = await self._client.list(kinds.CONFIG_MAP, namespace, name=name)
                texts = (objects[0].get("data") or {}) if objects else {}
                sources = await asyncio.to_thread(read_mounted_suites, texts)
            suites = [_CachedSuite("", version, source, _count_bytes({"data": texts})) for source in sources]
        for key, suite in zip(keys, suites, strict=False):
            self._cached[key] = suite
            self._evict(namespace)
        return tuple(suite.source for suite in suites)

    def _evict(self, namespace: str) -> None:
        """Evict the least recently used suites, of this namespace and of all, until both fit; the newest stays."""
        own = [key for key in self._cached if key[0] == namespace]
        self._shrink(own, self._most_bytes // SHARES)
        self._shrink(list(self._cached), self._most_bytes)

    def _shrink(self, keys: list[Key], most: int) -> None:
        size = sum(self._cached[key].size for key in keys)
        for key in keys[:-1]:
            if size <= most:
                return
            size -= self._cached.pop(key).size


def _count_bytes(obj: Json) -> int:
    """Count the bytes of a ConfigMap's text."""
    data: Mapping[str, str] = obj.get("data") or {}
    return sum(len(text.encode()) for text in data.values())
