"""What was decrypted of owners' content and will soon be needed again. It is in this process's memory only.

Each entry is one owner's and is found under that owner alone. Entries go when their content does. Who deletes something
calls `forget` or `clear`. Each round of the store calls `drop_stale`, which sees what retention, new keys and other
replicas have done. And each request compares the mark of its entry with the database before it uses it.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

from sqlalchemy.engine import Connection

from r1plus_gateway.store.keys.content_cipher import Owner

MOST_BYTES: Final = 48 * 2**20
"""Of all entries. A conversation of a thousand turns has about 7 MiB."""
IDLE_SECONDS: Final = 600.0
"""For which an entry is kept without a request that uses it."""
_SLOTS: Final = 256
V = TypeVar("V")


class Mark(Protocol):
    """What of the database an entry was made of."""

    def is_current(self, connection: Connection, owner: Owner) -> bool:
        """Return whether all of it is still there, under the key that it was read with."""


@dataclass(slots=True)
class _Entry(Generic[V]):
    value: V
    mark: Mark | None
    """None: of what each request reads and compares."""
    size: int
    used_at: float


class PlaintextCache:
    """All entries. The one that was not used for the longest time goes first."""

    def __init__(self, most_bytes: int = MOST_BYTES, read_time: Callable[[], float] = time.monotonic) -> None:
        self.most_bytes = most_bytes
        self._read_time = read_time
        self._entries: OrderedDict[tuple[Owner, str], _Entry[Any]] = OrderedDict()
        self._lock = threading.Lock()
        self._size = 0
        self._clearances = 0
        self._removals = [0] * _SLOTS
        """By the owner's slot, so that one owner's deletions seldom concern another."""

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size(self) -> int:
        """Bytes of memory, about."""
        return self._size

    def begin(self, owner: Owner) -> tuple[int, int]:
        """Return what `put` has to be called with: begin before the content is read."""
        return self._clearances, self._removals[_find_slot(owner)]

    def get(self, owner: Owner, name: str) -> Any | None:
        """Return an owner's value; None without one."""
        with self._lock:
            entry = self._entries.get((owner, name))
            if entry is None:
                return None
            entry.used_at = self._read_time()
            self._entries.move_to_end((owner, name))
            return entry.value

    def put(
        self, owner: Owner, name: str, value: object, mark: Mark | None, size: int, begun: tuple[int, int],
        instead_of: str = "",
    ) -> bool:  # fmt: skip
        """Keep a value of so many bytes; return whether it is kept. `instead_of`: the name that it had before.

        It is not where something of its owner was removed since `begun`, for it may be what was removed; nor where it
        needs more than a half of all memory.
        """
        with self._lock:
            self._pop((owner, name))
            self._pop((owner, instead_of))
            if begun != self.begin(owner) or size > self.most_bytes // 2:
                return False
            self._entries[owner, name] = _Entry(value, mark, size, self._read_time())
            self._size += size
            while self._size > self.most_bytes:
                self._pop(next(iter(self._entries)))
            return True

    def forget(self, owner: Owner, name: str) -> None:
        """Drop an owner's value."""
        with self._lock:
            self._removals[_find_slot(owner)] += 1
            self._pop((owner, name))

    def forget_owner(self, owner: Owner) -> None:
        """Drop all values of an owner."""
        with self._lock:
            self._removals[_find_slot(owner)] += 1
            for key in [key for key in self._entries if key[0] == owner]:
                self._pop(key)

    def clear(self) -> None:
        """Drop all."""
        with self._lock:
            self._clearances += 1
            self._entries.clear()
            self._size = 0

    def drop_idle(self) -> None:
        """Drop what was not used for `IDLE_SECONDS`."""
        before = self._read_time() - IDLE_SECONDS
        with self._lock:
            for key in [key for key, entry in self._entries.items() if entry.used_at < before]:
                self._pop(key)

    def drop_stale(self, connection: Connection) -> None:
        """Drop what is not as the database has it: another replica may have changed that."""
        with self._lock:
            entries = list(self._entries.items())
        stale = [
            (key, entry)
            for key, entry in entries
            if entry.mark is not None and not entry.mark.is_current(connection, key[0])
        ]
        with self._lock:
            for key, entry in stale:
                self._removals[_find_slot(key[0])] += 1
                if self._entries.get(key) is entry:
                    self._pop(key)

    def _pop(self, key: tuple[Owner, str]) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._size -= entry.size


def _find_slot(owner: Owner) -> int:
    return hash(owner) % _SLOTS
