"""Objects by kind as etcd has them: one counter of versions, the history that watches go on from, snapshots.

A stored object is never changed: a write replaces it. So whoever reads may keep what it gets, and must not change it.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

from r1plus_operator.runtime.resources import Resource

Object = dict[str, Any]
Key = tuple[str, str]
"""Namespace (empty for a cluster-scoped kind) and name."""
FIRST_VERSION = 1000


class Record:
    """One version of an object, and its JSON, made once."""

    __slots__ = ("_item", "_metadata", "_text", "is_first", "obj", "version")

    def __init__(self, obj: Object, version: int, *, is_first: bool = False) -> None:
        """Keep a version; `is_first`: the one that the object was created with."""
        self.obj = obj
        self.version = version
        self.is_first = is_first
        self._text = self._metadata = self._item = b""

    @property
    def text(self) -> bytes:
        """The object."""
        if not self._text:
            self._text = orjson.dumps(self.obj)
        return self._text

    @property
    def metadata_text(self) -> bytes:
        """Its metadata, as PartialObjectMetadata."""
        if not self._metadata:
            self._metadata = orjson.dumps(
                {
                    "kind": "PartialObjectMetadata",
                    "apiVersion": "meta.k8s.io/v1",
                    "metadata": self.obj["metadata"],
                }
            )
        return self._metadata

    @property
    def item_text(self) -> bytes:
        """The object without `apiVersion` and `kind`, as lists of built-in kinds have it."""
        if not self._item:
            self._item = orjson.dumps({k: v for k, v in self.obj.items() if k not in ("apiVersion", "kind")})
        return self._item


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """A committed write: `after` is None for a deletion, whose last state `before` has then the deletion's version."""

    version: int
    key: Key
    before: Record | None
    after: Record | None
    at: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All objects at one version. Nothing in it is ever changed."""

    version: int
    objects: dict[Resource, dict[Key, Record]]


Listener = Callable[[HistoryEntry], None]


@dataclass(slots=True)
class _Kind:
    objects: dict[Key, Record] = field(default_factory=dict)
    history: deque[HistoryEntry] = field(default_factory=deque)
    listeners: list[Listener] = field(default_factory=list)
    """Open watches."""


class Store:
    """All kinds' objects."""

    def __init__(self, resources: Iterable[Resource], history_s: float) -> None:
        self._kinds = {resource: _Kind() for resource in resources}
        self._history_s = history_s
        self.version = FIRST_VERSION
        self.compacted = FIRST_VERSION - 1
        """Watches and pages from before this version are refused."""
        self._next_compaction = 0.0
        self._owned: dict[str, set[tuple[Resource, Key]]] = {}
        """By an owner's uid."""

    def get(self, resource: Resource, key: Key) -> Record | None:
        """Return an object; None if it is not there."""
        return self._kinds[resource].objects.get(key)

    def list_records(self, resource: Resource, namespace: str | None = None) -> list[Record]:
        """Return a kind's objects, of one namespace or of all, in the order of their keys."""
        objects = self._kinds[resource].objects
        return [objects[key] for key in sorted(objects) if not namespace or key[0] == namespace]

    def list_owned(self, uid: str) -> list[tuple[Resource, Key]]:
        """Return what names an owner, in the order of kinds and keys."""
        return sorted(self._owned.get(uid, ()), key=lambda one: (one[0].name, one[1]))

    def list_namespace(self, namespace: str) -> list[tuple[Resource, Record]]:
        """Return all objects of a namespace."""
        return [
            (resource, record)
            for resource, kind in self._kinds.items()
            if resource.is_namespaced
            for key, record in list(kind.objects.items())
            if key[0] == namespace
        ]

    def commit(
        self, resource: Resource, key: Key, obj: Object | None, at: float, *, last: Object | None = None
    ) -> Record | None:
        """Store an object in place of what is there, or delete it; return its record.

        `last`: state in which a deleted object is reported, if its deletion was the end of another write.

        Every open watch of the kind hears of it before this returns.
        """
        kind = self._kinds[resource]
        self.version += 1
        before = kind.objects.get(key)
        after = None
        if obj is None:
            if before is not None:
                del kind.objects[key]
                self._unindex(resource, key, before.obj)
                gone = last or before.obj
                at_end = {**gone, "metadata": {**gone["metadata"], "resourceVersion": str(self.version)}}
                before = Record(at_end, self.version)
        else:
            obj["metadata"]["resourceVersion"] = str(self.version)
            after = kind.objects[key] = Record(obj, self.version, is_first=before is None)
            self._index(resource, key, before.obj if before else None, obj)
        entry = HistoryEntry(self.version, key, before, after, at)
        kind.history.append(entry)
        if at >= self._next_compaction:
            self._compact_by_age(at)
        for listener in tuple(kind.listeners):
            listener(entry)
        return after

    def subscribe(self, resource: Resource, listener: Listener) -> Callable[[], None]:
        """Call `listener` after each write to a kind; return what ends that."""
        listeners = self._kinds[resource].listeners
        listeners.append(listener)
        return lambda: listeners.remove(listener)

    def list_history(self, resource: Resource, version: int) -> list[HistoryEntry]:
        """Return the writes to a kind after a version, oldest first."""
        history = self._kinds[resource].history
        if not history or history[-1].version <= version:
            return []
        start = bisect_right(history, version, key=lambda entry: entry.version)
        return [history[index] for index in range(start, len(history))]

    def compact(self) -> None:
        """Forget all history: a watch from an earlier version than the present one is refused."""
        self.compacted = self.version
        for kind in self._kinds.values():
            kind.history.clear()

    def save(self) -> Snapshot:
        """Return all objects as they are."""
        return Snapshot(self.version, {resource: dict(kind.objects) for resource, kind in self._kinds.items()})

    def restore(self, snapshot: Snapshot) -> None:
        """Put back all objects and the counter: versions are given out a second time."""
        for resource, kind in self._kinds.items():
            kind.objects = dict(snapshot.objects[resource])
        self.version = snapshot.version
        self._owned.clear()
        for resource, kind in self._kinds.items():
            for key, record in kind.objects.items():
                self._index(resource, key, None, record.obj)
        self.compact()

    def _compact_by_age(self, at: float) -> None:
        """Forget what is older than the history's length. Once in that time: it lasts up to twice as long."""
        self._next_compaction = at + self._history_s
        oldest = at - self._history_s
        for kind in self._kinds.values():
            while kind.history and kind.history[0].at < oldest:
                self.compacted = max(self.compacted, kind.history.popleft().version)

    def _index(self, resource: Resource, key: Key, before: Object | None, after: Object) -> None:
        owners = after["metadata"].get("ownerReferences")
        if before is not None:
            if before["metadata"].get("ownerReferences") == owners:
                return
            self._unindex(resource, key, before)
        for owner in owners or ():
            self._owned.setdefault(owner["uid"], set()).add((resource, key))

    def _unindex(self, resource: Resource, key: Key, obj: Object) -> None:
        for owner in obj["metadata"].get("ownerReferences") or ():
            owned = self._owned.get(owner["uid"])
            if owned is not None:
                owned.discard((resource, key))
                if not owned:
                    del self._owned[owner["uid"]]
