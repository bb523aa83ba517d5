"""What a round removes and encrypts again: retention, erasures and rotation of data keys, a few batches each."""

import logging
import time
from typing import TYPE_CHECKING, Final

from r1plus_gateway.store.keys.content_cipher import UnreadableContentError
from r1plus_gateway.store.keys.key_rotation import continue_rotation
from r1plus_gateway.store.ledger.repository import MOST_PRUNED
from r1plus_gateway.store.upkeep.database_log import DatabaseLog
from r1plus_gateway.store.upkeep.erasure_records import prune_erasures
from r1plus_gateway.store.upkeep.erasure_steps import continue_erasures, find_unfinished
from r1plus_gateway.store.upkeep.retention import date_back, prune_content, prune_knowledge

if TYPE_CHECKING:
    from r1plus_gateway.store.tenant import TenantStore

log = logging.getLogger(__name__)
AUDIT_BATCHES: Final = 20
"""Transactions that remove old audit records between two beats: 2,000 records a second."""
ROTATIONS_PER_ROUND: Final = 20
"""Transactions that encrypt again between two beats."""
ERASURES_PER_ROUND: Final = 20
"""Transactions between two beats that go on with erasures."""


class Maintenance:
    """Where retention and rotation stand between two rounds."""

    def __init__(self, store: "TenantStore", database_log: DatabaseLog, prune_seconds: float, hold_seconds: float):
        """`prune_seconds`: between two rounds of retention; `hold_seconds`: while a clock is too far ahead."""
        self._store = store
        self._log = database_log
        self._prune_seconds, self._hold_seconds = prune_seconds, hold_seconds
        self._prune_at = 0.0
        self._prune_requests = 0
        self._is_rotating = True
        """Whether older data keys may be in use: also those that a gateway before this one left."""

    def prune_soon(self) -> None:
        """Let the next round remove what is over, also before the hour, and where one is on its way."""
        self._prune_at = 0.0
        self._prune_requests += 1

    def resume_rotation(self) -> None:
        """Let the rounds encrypt again what older data keys encrypted."""
        self._is_rotating = True

    async def prune(self) -> None:
        """Remove what is older than its retention, once an hour, a few batches per round: other rounds' work waits."""
        if time.monotonic() < self._prune_at:
            return
        requests, days = self._prune_requests, self._store.config.content_days
        present = await self._store.write(self._store.retention.advance)
        now = present.moment
        before = now - self._store.config.audit_days * 86400
        has_more = await self._prune_audit(before)
        has_more |= await self._store.write(lambda ledger: prune_content(ledger.connection, now, days))
        has_more |= await self._store.write(lambda ledger: prune_knowledge(ledger.connection, now))
        await self._store.write(lambda ledger: prune_erasures(ledger.connection, before))
        if present.held_from is None:  # Else, once it is confirmed, what is of today would begin in the past.
            await self._store.write(lambda ledger: date_back(ledger.connection, now))
        self._log.has_deleted = True
        if not has_more and requests == self._prune_requests:
            most = self._hold_seconds if self._store.retention.problem else self._prune_seconds
            self._prune_at = time.monotonic() + min(self._prune_seconds, most)

    async def erase(self) -> None:
        """Go on with erasures whose request has ended, or whose gateway is gone, as much as a round has time for."""
        for _ in range(ERASURES_PER_ROUND):
            if await self._store.read(find_unfinished) is None:
                return
            await self._store.write(continue_erasures)
            self._log.has_deleted = True

    async def _prune_audit(self, before: float) -> bool:
        """Remove audit records from before a time. Return whether there may be more."""
        for _ in range(AUDIT_BATCHES):
            if await self._store.write(lambda ledger: ledger.prune_audit(before, MOST_PRUNED)) < MOST_PRUNED:
                return False
        return True

    async def rotate(self) -> None:
        """Encrypt again what older data keys encrypted, as much as a round has time for."""
        cipher = self._store.cipher
        for _ in range(ROTATIONS_PER_ROUND):
            if not self._is_rotating:
                return
            try:
                self._is_rotating = await self._store.write(
                    lambda ledger: continue_rotation(ledger.connection, cipher, ledger.now)
                )
            except UnreadableContentError as error:
                self._is_rotating = False
                log.error("Rotation of data keys stopped, older keys stay: %s; delete it and rotate again", error)
            self._log.has_deleted = True
