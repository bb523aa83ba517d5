"""Golden suites of tenants: an index of metadata, and the bodies that deployments name.

Anyone who may write ConfigMaps writes here, in any number and up to 1 MiB each. So the watch brings metadata only; a
body is fetched for a pass that needs it, in a tenant's namespace; it is read in a thread; and what is kept is bounded
in bytes, for all tenants and for each. The observer owns it, and calls `load` before a pass.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from r1plus_contract import names
from r1plus_operator.api import kinds
from r1plus_operator.observe import projections
from r1plus_operator.observe.projections import Kept
from r1plus_operator.plan.accuracy.mounted_suites import read_mounted_suites
from r1plus_operator.plan.observation import Json, SuiteSource
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.reflector import Reflector

log = logging.getLogger(__name__)
MOST_BYTES = 24 * 2**20
"""Of text, for all tenants: some 400 suites of usual size. Read, a suite takes five times its text."""
SHARES = 4
"""A namespace has this part of it at most, so that its many suites push out no other tenant's."""
AT_ONCE = 2
"""Bodies that are fetched and read at the same time."""
MOST_MOUNTED = 2
"""Suites in a deployment's accuracy ConfigMap."""
Key = tuple[str, str]
"""Namespace and name of a suite; of a mounted one its ConfigMap's name, a slash and a number."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A suite as it was read, from which version of its ConfigMap, and how many bytes its text has."""

    uid: str
    version: str
    source: SuiteSource
    size: int


class TenantSuites:
    """The index and what is loaded."""

    def __init__(
        self, client: ApiClient, on_change: Callable[[str, Kept], None], *, most_bytes: int = MOST_BYTES
    ) -> None:
        """`on_change` is called with ADDED, MODIFIED or DELETED and the index entry."""
        self._client = client
        self._most_bytes = most_bytes
        self._loaded: dict[Key, _Loaded] = {}
        """The one that was used last is last."""
        self._turns = asyncio.Semaphore(AT_ONCE)
        self.index: Reflector[Kept] = Reflector(
            client,
            kinds.CONFIG_MAP,
            project=projections.suite_version,
            on_change=on_change,
            label_selector=names.LABEL_SUITE,
            index=lambda entry: entry.namespace,
            metadata_only=True,
        )

    def names(self, namespace: str) -> frozenset[str]:
        """Names of the suites that a namespace has of its own."""
        return frozenset(entry.name for entry in self.index.store.by_index(namespace))

    def loaded(self, namespace: str) -> dict[str, SuiteSource]:
        """What is at hand of a namespace's own suites, by name."""
        own = ((key[1], found.source) for key, found in self._loaded.items() if key[0] == namespace)
        return {name: source for name, source in own if "/" not in name}

    async def load(self, namespace: str, wanted: Collection[str]) -> dict[str, SuiteSource]:
        """Return the namespace's own suites among `wanted`, by name; fetch and read those that are not at hand.

        Raises ApiError if the API server does not answer.
        """
        found: dict[str, SuiteSource] = {}
        for name in sorted(wanted):
            entry = self.index.store.get(namespace, name)
            if entry is None:
                self._loaded.pop((namespace, name), None)
                continue
            found[name] = await self._load_one(entry)
        return found

    async def _load_one(self, entry: Kept) -> SuiteSource:
        key = (entry.namespace, entry.name)
        known = self._loaded.pop(key, None)
        if known is None or (known.uid, known.version) != (entry.uid, entry.value):
            async with self._turns:
                objects, _ = await self._client.list(kinds.CONFIG_MAP, entry.namespace, name=entry.name)
                # Deleted since the index heard of it: as unreadable as an empty one, until the index hears of that.
                obj = objects[0] if objects else {"metadata": {"name": entry.name, "uid": "", "resourceVersion": ""}}
                source = await asyncio.to_thread(projections.suite, obj)
            known = _Loaded(obj["metadata"]["uid"], obj["metadata"]["resourceVersion"], source, _size(obj))
        self._loaded[key] = known
        self._evict(entry.namespace)
        return known.source

    async def load_mounted(self, namespace: str, name: str, version: str) -> tuple[SuiteSource, ...]:
        """Return the suites in a deployment's accuracy ConfigMap; fetch and read it if this version is not at hand.

        Raises ApiError if the API server does not answer.
        """
        keys = [(namespace, f"{name}/{number}") for number in range(MOST_MOUNTED)]
        known = [found for key in keys if (found := self._loaded.pop(key, None)) and found.version == version]
        if not known:
            async with self._turns:
                objects, _ = await self._client.list(kinds.CONFIG_MAP, namespace, name=name)
                texts = (objects[0].get("data") or {}) if objects else {}
                sources = await asyncio.to_thread(read_mounted_suites, texts)
            known = [_Loaded("", version, source, _size({"data": texts})) for source in sources]
        for key, found in zip(keys, known, strict=False):
            self._loaded[key] = found
            self._evict(namespace)
        return tuple(found.source for found in known)

    def _evict(self, namespace: str) -> None:
        """Drop what was used longest ago, of this namespace and of all, until both fit; the newest stays."""
        own = [key for key in self._loaded if key[0] == namespace]
        self._shrink(own, self._most_bytes // SHARES)
        self._shrink(list(self._loaded), self._most_bytes)

    def _shrink(self, keys: list[Key], most: int) -> None:
        size = sum(self._loaded[key].size for key in keys)
        for key in keys[:-1]:
            if size <= most:
                return
            size -= self._loaded.pop(key).size


def _size(obj: Json) -> int:
    """Bytes of a ConfigMap's text."""
    data: Mapping[str, str] = obj.get("data") or {}
    return sum(len(text.encode()) for text in data.values())
