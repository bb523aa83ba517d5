"""Errors of the tenant's data. Each is a reason of the condition GatewayReady, and its message has the remedy.

StoreError
├── KeyLostError         half of the tenant key is missing: restore it
├── WrongKeyError        the halves do not open this data: they belong to other data
├── ForeignTenantError   the data are another tenant's
├── CorruptError         a file is damaged or was cut: restore a backup
├── FullError            the volume is full: enlarge it
├── ReadOnlyError        the volume cannot be written
├── LockedError          another process uses the data
├── SchemaNewerError     a newer program has migrated the data: run that one; reading works
├── MigrationError       a migration failed, or did not get its locks in time
├── ConfigError          a setting is missing or invalid
└── UnavailableError     the database does not answer now
    ├── BusyError        too many requests wait for it
    ├── TooManyFilesError  the process has no descriptor left: raise its limit
    └── RestoringError   a backup is being restored, or was a moment ago: wait
"""

from typing import ClassVar, Self

from r1plus_contract.gateway import DataReason, DataState
from r1plus_contract.remedies import DataProblem, Remedy


class StoreError(Exception):
    """Base of all errors of the tenant's data."""

    reason: ClassVar[DataReason] = DataReason.UNAVAILABLE
    may_be_written: bool = False
    """Whether it came while a transaction was committed, so that it is not known whether it was."""

    def __init__(self, problem: str = "", remedy: Remedy | None = None, **values: str) -> None:
        self.data_problem = DataProblem(remedy, {"problem": problem, **values}) if remedy else None
        super().__init__(str(self.data_problem) if self.data_problem else problem)

    def renew(self) -> Self:
        """Return the same error without its traceback, to be kept, and raised more than once."""
        renewed = type(self)(*self.args)
        renewed.may_be_written, renewed.data_problem = self.may_be_written, self.data_problem
        return renewed

    def describe(self, consequence: str = "", *, can_serve: bool = False) -> DataState:
        """Return the state of the data that have this problem; `consequence`: a sentence after the remedy."""
        message = f"{self}. {consequence}" if consequence else str(self)
        remedy, values = (self.data_problem.remedy, self.data_problem.values) if self.data_problem else ("", {})
        return DataState(self.reason, message, can_serve, remedy, values, consequence)


class KeyLostError(StoreError):
    """Half of the tenant key is missing, so nothing can be read."""

    reason = DataReason.KEY_LOST


class WrongKeyError(StoreError):
    """Both halves exist and do not open this data."""

    reason = DataReason.WRONG_KEY


class ForeignTenantError(StoreError):
    """The data say that they belong to another tenant."""

    reason = DataReason.FOREIGN_TENANT


class CorruptError(StoreError):
    """A file is damaged, cut, or missing although it existed."""

    reason = DataReason.CORRUPT


class FullError(StoreError):
    """The volume is full: recording fails, reading works."""

    reason = DataReason.FULL


class ReadOnlyError(StoreError):
    """The volume or its files cannot be written."""

    reason = DataReason.READ_ONLY


class LockedError(StoreError):
    """Another process holds the data."""

    reason = DataReason.LOCKED


class SchemaNewerError(StoreError):
    """The schema is newer than this program: reading works, recording does not."""

    reason = DataReason.SCHEMA_NEWER


class MigrationError(StoreError):
    """The schema could not be migrated; nothing was changed."""

    reason = DataReason.MIGRATION_FAILED


class ConfigError(StoreError):
    """A setting is missing or invalid."""

    reason = DataReason.CONFIG_INVALID


class UnavailableError(StoreError):
    """The database is unavailable now. Nothing of the request was recorded."""

    reason = DataReason.UNAVAILABLE


class BusyError(UnavailableError):
    """Too many requests wait for the database, which itself works."""


class TooManyFilesError(UnavailableError):
    """No file can be opened now; the data are as they were."""

    reason = DataReason.TOO_MANY_FILES


class RestoringError(UnavailableError):
    """A backup is being restored, or another replica has restored one a moment ago."""

    reason = DataReason.STARTING
