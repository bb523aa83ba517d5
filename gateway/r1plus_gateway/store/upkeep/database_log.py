"""The database's log: moved into the file each round, and emptied where it has rows that were deleted."""

import threading
import time
from typing import Final

from r1plus_gateway.store.database.database import Database
from r1plus_gateway.store.errors import BusyError

_LOG_TRIES: Final = 10
"""Tries to empty the database's log between two beats: short reads come and go."""
_LOG_PAUSE_SECONDS: Final = 0.01


class DatabaseLog:
    """Whether the log has rows that were deleted, and how they leave it."""

    def __init__(self, turn: threading.Lock) -> None:
        """`turn`: held while the writer must wait."""
        self._turn = turn
        self.has_deleted = True
        """Whether the log may have rows that were deleted: also those of a gateway before this one."""

    def move(self, database: Database) -> None:
        """Move the log into the file; empty it where rows were deleted, once no reader needs it. Raises StoreError."""
        if not self.has_deleted:
            database.checkpoint()
            return
        self.has_deleted = False
        try:
            self._empty(database)
        except BusyError:  # the next round tries again
            self.has_deleted = True
        except BaseException:  # however it ended, the rows may be in the log still
            self.has_deleted = True
            raise

    def _empty(self, database: Database) -> None:
        """Empty the log between two short reads. Raises StoreError; BusyError while a reader needs it."""
        database.checkpoint()  # most of the work, which stops no other
        for has_more in (*[True] * (_LOG_TRIES - 1), False):
            try:
                with self._turn:  # else the writer would be in the way, or would meet a lock
                    database.empty_log()
            except BusyError:
                if not has_more or database.has_long_reads:
                    raise
                time.sleep(_LOG_PAUSE_SECONDS)
            else:
                return
