"""Errors of the registry.

RegistryError
├── ConfigError         a setting is missing or invalid: has the variable and the chart value
├── DocumentError       the request's document is invalid: a retry does not help
├── UnavailableError    the database does not answer or is locked: a retry may help
│   ├── BusyError       too many requests are pending: a retry helps
│   └── FullError       the volume is full: it must be enlarged
└── SchemaError         the schema differs from this program's: a migration or a newer program is needed
"""


class RegistryError(Exception):
    """Base of all errors of the registry."""


class RegistryConfigError(RegistryError):
    """A setting is missing or invalid."""


class DocumentError(RegistryError):
    """A document has a value that cannot be recorded."""


class RegistryUnavailableError(RegistryError):
    """The database is unavailable now. Nothing of the request was recorded."""


class RegistryBusyError(RegistryUnavailableError):
    """Too many requests wait for the database, which itself works."""


class RegistryFullError(RegistryUnavailableError):
    """The volume is full: recording fails, reading works."""


class DatabaseSchemaError(RegistryError):
    """The schema of the database differs from this program's."""
