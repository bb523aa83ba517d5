"""Whether the tenant's data can be used, with the reason, and what is logged when that changes."""

import logging
import time

from r1plus_contract.gateway import DataReason, DataState
from r1plus_gateway.store.database.database import Database
from r1plus_gateway.store.errors import BusyError, CorruptError, StoreError, UnavailableError
from r1plus_gateway.store.upkeep.retention_clock import RetentionClock

log = logging.getLogger(__name__)


class DataReadiness:
    """The last problem of the data, that of their key, and whether they are damaged."""

    def __init__(self, retention: RetentionClock, check_seconds: float) -> None:
        """`check_seconds`: between two looks at data that are damaged."""
        self._retention = retention
        self._check_seconds = check_seconds
        self.problem: StoreError = UnavailableError("The tenant's data are being opened; wait")
        """The last one; raised renewed where the data cannot be used."""
        self._state = DataState(DataReason.STARTING, str(self.problem))
        self._key_problem: StoreError | None = None
        self._is_damaged = False
        self._check_at = 0.0

    @property
    def can_serve(self) -> bool:
        """Whether the data can be used now."""
        return self._state.can_serve

    @property
    def state(self) -> DataState:
        """Whether the data can be used now, and why not; or why they could not be opened again."""
        problem = self._key_problem
        if self._state.is_ready and problem is not None:
            consequence = "This gateway runs on with the key that it has, and could not start again"
            return problem.describe(consequence, can_serve=True)
        if self._state.is_ready and (hold := self._retention.problem):
            return DataState(DataReason.CLOCK_AHEAD, str(hold), True, hold.remedy, hold.values)
        return self._state

    def set_ready(self) -> None:
        """Note that the data were used."""
        if self._is_damaged:
            return  # Pages that are whole can still be written.
        if not self._state.is_ready:
            log.info("Tenant's data can be used")
        self._state = DataState(DataReason.READY, "The tenant's data can be read and written.", can_serve=True)

    def set_problem(self, error: StoreError, *, is_open: bool) -> None:
        """Note why the data cannot be used. `is_open`: whether they were before."""
        if isinstance(error, BusyError):
            return  # The database works.
        self._is_damaged |= isinstance(error, CorruptError) and is_open
        state = error.describe()
        if state != self._state:
            log.warning("Tenant's data cannot be used: %s: %s", state.reason.value, state.message)
        self.problem, self._state = error.renew(), state

    def set_key_problem(self, error: StoreError | None) -> None:
        """Note why the key could not be opened again. Its loss stops nothing before the next start; None: it could."""
        if error is not None and str(error) != str(self._key_problem):
            log.warning("Tenant key could not be opened again: %s: %s", error.reason.value, error)
        self._key_problem = error.renew() if error is not None else None

    def check_damage(self, database: Database) -> None:
        """Look again at data that were damaged. Raises CorruptError."""
        if self._is_damaged and time.monotonic() >= self._check_at:
            self._check_at = time.monotonic() + self._check_seconds
            database.check_content()
            self._is_damaged = False
            self.set_ready()
