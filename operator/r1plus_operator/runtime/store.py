"""A kind's objects in memory, as projections. Written by a reflector, read by the observer.

A projection keeps the few fields that decisions need and drops the body: 20,000 objects take 165 MB instead of 650 MB.
"""

import asyncio
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class Projection(Protocol):
    """The fields that the runtime needs of a projection; a frozen dataclass with these and more is one.

    `namespace` is empty (or None) for a cluster-scoped object. Equality decides what counts as a change.
    """

    @property
    def namespace(self) -> str | None:
        """Where the object lives."""

    @property
    def name(self) -> str:
        """Unique in its namespace at any one time."""

    @property
    def uid(self) -> str:
        """Unique for ever: a namesake that came later has another."""


P = TypeVar("P", bound=Projection)
Key = tuple[str, str]


def build_key(obj: Projection) -> Key:
    """Return (namespace, name); the namespace is empty for a cluster-scoped object."""
    return obj.namespace or "", obj.name


class Store(Generic[P]):
    """The newest known state of every object of a kind. `sync_event` is set after the first complete list."""

    def __init__(self, index: Callable[[P], str | None] | None = None) -> None:
        """Index objects by what `index` returns, usually their owner's uid; None leaves an object out of the index."""
        self._index = index
        self._objects: dict[Key, P] = {}
        self._indexed: dict[str, dict[Key, P]] = {}
        self.sync_event = asyncio.Event()

    def __len__(self) -> int:
        return len(self._objects)

    def get(self, namespace: str | None, name: str) -> P | None:
        """Return one object, or None."""
        return self._objects.get((namespace or "", name))

    def items(self) -> tuple[P, ...]:
        """Return all objects as they are now; safe to iterate over while the store changes."""
        return tuple(self._objects.values())

    def by_index(self, value: str) -> tuple[P, ...]:
        """Return the objects whose index is `value`, for example all that one owner owns."""
        group = self._indexed.get(value)
        return tuple(group.values()) if group else ()

    def keys(self) -> frozenset[Key]:
        """Return the keys as they are now."""
        return frozenset(self._objects)

    def upsert(self, obj: P) -> P | None:
        """Store an object and return its predecessor. For the reflector."""
        key = build_key(obj)
        before = self._unindex(key)
        self._objects[key] = obj
        if self._index is not None and (value := self._index(obj)) is not None:
            self._indexed.setdefault(value, {})[key] = obj
        return before

    def drop(self, key: Key) -> P | None:
        """Remove an object and return it. For the reflector."""
        self._unindex(key)
        return self._objects.pop(key, None)

    def _unindex(self, key: Key) -> P | None:
        before = self._objects.get(key)
        if before is None or self._index is None or (value := self._index(before)) is None:
            return before
        group = self._indexed.get(value, {})
        group.pop(key, None)
        if not group:
            self._indexed.pop(value, None)
        return before
