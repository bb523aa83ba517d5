"""Look-ups of API keys: those who ask before one reads share it, and a flood of forged keys keeps out no known one."""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from sqlalchemy.engine import Connection

from r1plus_gateway.access.api_keys import KeyRecord
from r1plus_gateway.store.administration.key_records import find_record
from r1plus_gateway.store.errors import BusyError

MOST_UNKNOWN_KEYS: Final = 128
"""Look-ups of keys that have not called yet, at one time: a flood of forged keys does not keep out the others."""
MOST_KNOWN_KEYS: Final = 10_000


class ReadRecord(Protocol):
    """`TenantStore.read`, of a key's record."""

    async def __call__(
        self, step: Callable[[Connection], KeyRecord | None], *, on_start: Callable[[], None]
    ) -> KeyRecord | None:
        """Run a step on a snapshot. Raises StoreError."""


class KeyLookups:
    """The look-ups that run, and which keys have called."""

    def __init__(self, read: ReadRecord) -> None:
        self._read = read
        self._unknown_reads = 0
        self._look_ups: dict[str, asyncio.Task[KeyRecord | None]] = {}
        """Id of a key -> its look-up that has not begun to read."""
        self._known_keys: dict[str, None] = {}

    async def find(self, key_id: str) -> KeyRecord | None:
        """Return the record of a key; None if there is none. Raises StoreError."""
        return await asyncio.shield(self._look_ups.get(key_id) or self._start_look_up(key_id))

    def clear(self) -> None:
        """Forget which keys have called: the data are others now."""
        self._known_keys.clear()

    def _start_look_up(self, key_id: str) -> "asyncio.Task[KeyRecord | None]":
        """Begin a look-up that all share who ask before it reads: so no request sees what was before it came.

        Raises:
            BusyError: too many keys are looked up that have not called yet.
        """
        is_known = key_id in self._known_keys
        if not is_known and self._unknown_reads >= MOST_UNKNOWN_KEYS:
            raise BusyError(f"{self._unknown_reads} keys that are not known are looked up already")
        self._unknown_reads += not is_known
        task = self._look_ups[key_id] = asyncio.create_task(self._look_up(key_id))

        def end(task: "asyncio.Task[KeyRecord | None]") -> None:
            self._unknown_reads -= not is_known
            if not task.cancelled():
                task.exception()  # else it is logged where all who asked have left

        task.add_done_callback(end)
        return task

    async def _look_up(self, key_id: str) -> KeyRecord | None:
        task = asyncio.current_task()

        def stop_sharing() -> None:
            if self._look_ups.get(key_id) is task:
                self._look_ups.pop(key_id, None)

        try:
            record = await self._read(lambda connection: find_record(connection, key_id), on_start=stop_sharing)
        finally:
            stop_sharing()
        if record is not None and key_id not in self._known_keys:
            if len(self._known_keys) >= MOST_KNOWN_KEYS:
                del self._known_keys[next(iter(self._known_keys))]
            self._known_keys[key_id] = None
        return record
