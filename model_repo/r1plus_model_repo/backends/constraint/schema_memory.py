"""The memory in which an engine keeps compiled schemas and grammars: shared by callers, and emptied by a renewal.

A caller may hold as much as is still free. So one alone gets half, several get equal parts, and a newcomer finds room.
"""

import threading
from collections import Counter
from collections.abc import Callable
from typing import Final

from r1plus_contract.inference import GATEWAY_OWNER, SCHEMA_MEMORY_FULL
from r1plus_model_repo.backends.requests import RefusedError, SchemaMemoryFullError

MOST_COMPILED_BYTES: Final = 64 * 2**20
"""Of all schemas and grammars that one process keeps."""
RESERVED_BYTES: Final = 8 * 2**20
"""Of these, for the grammars that the gateway writes itself: `math_mode` asks by them."""
MOST_SCHEMA_BYTES: Final = 16 * 2**20
"""Of one: 1,000 numbers with fractions as bounds would take 140 MiB."""
FULL_SHARE: Final = 0.8
"""Used so far, the memory is emptied as soon as the engine is idle."""
RENEWAL_SECONDS: Final = 300.0
"""Least time between two renewals: each holds up all callers for some seconds."""


class SchemaMemory:
    """Accounts of compiled constraints by owner. Safe from any thread."""

    def __init__(
        self,
        clock: Callable[[], float],
        most_bytes: int = MOST_COMPILED_BYTES,
        reserved_bytes: int = RESERVED_BYTES,
    ) -> None:
        self._clock = clock
        self._most_bytes = most_bytes
        self._reserved_bytes = reserved_bytes
        self._lock = threading.Lock()
        self._sizes: dict[bytes, int] = {}
        """Digest of a constraint -> bytes that it takes."""
        self._bytes_of: Counter[str] = Counter()
        self._has_refused = False
        self._renewed_at = clock()

    @property
    def used_bytes(self) -> int:
        """Bytes of all compiled constraints."""
        return self._bytes_of.total()

    @property
    def used_share(self) -> float:
        """Part of all that is used."""
        return self.used_bytes / self._most_bytes

    def knows(self, digest: bytes) -> bool:
        """Return whether this constraint is compiled."""
        return digest in self._sizes

    def check_room(self, name: str, owner: str, size: int) -> None:
        """Check that an owner may compile a further constraint. `name`: its input; `size`: its bytes.

        Raises:
            RefusedError: it is too large for any owner.
            SchemaMemoryFullError: it may not, now.
        """
        if size > MOST_SCHEMA_BYTES:
            raise RefusedError(
                f"{name}: takes about {size} bytes once it is compiled, more than {MOST_SCHEMA_BYTES}; simplify it:"
                " bounds of numbers with fractions, optional properties and classes of characters take most"
            )
        with self._lock:
            if size <= self._measure_room(owner):
                return
            self._has_refused = True
            mine = self._bytes_of[owner]
            seconds = max(0, round(self._renewed_at + RENEWAL_SECONDS - self._clock()))
            message = (
                f"{SCHEMA_MEMORY_FULL}: {name}: the engine keeps {len(self._sizes)} schemas and grammars in"
                f" {self.used_bytes} bytes, {mine} of them for this caller, who may hold as much as is free; this one"
                f" needs {size} more. Send one that the engine knows, or try again: the memory is emptied at the first"
                f" idle moment in {seconds} s or later"
            )
        raise SchemaMemoryFullError(message)

    def add(self, digest: bytes, owner: str, size: int) -> None:
        """Note a constraint that was compiled."""
        with self._lock:
            self._sizes[digest] = size
            self._bytes_of[owner] += size

    def is_renewal_due(self) -> bool:
        """Return whether the memory should be emptied at the next idle moment."""
        is_full = self.used_share >= FULL_SHARE
        return (is_full or self._has_refused) and self._clock() - self._renewed_at >= RENEWAL_SECONDS

    def clear(self) -> None:
        """Note that nothing is compiled any more."""
        with self._lock:
            self._sizes.clear()
            self._bytes_of.clear()
            self._has_refused = False
            self._renewed_at = self._clock()

    def _measure_room(self, owner: str) -> int:
        """Return how many bytes the next constraint of an owner may take."""
        own = self._bytes_of[GATEWAY_OWNER]
        if owner == GATEWAY_OWNER:
            return self._most_bytes - self.used_bytes
        free = self._most_bytes - max(self._reserved_bytes, own) - (self.used_bytes - own)
        return (free - self._bytes_of[owner]) // 2
