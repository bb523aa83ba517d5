"""What can go wrong here.

RegistryError
├── ConfigError         a setting is absent or unreadable: names the variable and the chart value
├── DocumentError       what was sent is no such document: the sender's fault, asking again does not help
├── UnavailableError    the database does not answer, is locked: asking again may help
│   ├── BusyError       more was asked than it gets through: asking again helps
│   └── FullError       no room is left: somebody must make some
└── SchemaError         the database has another schema than this program: a migration is due, or a newer program
"""


class RegistryError(Exception):
    """Base of all errors of the registry."""


class ConfigError(RegistryError):
    """A setting is absent or unreadable."""


class DocumentError(RegistryError):
    """A document names a value that cannot be recorded."""


class UnavailableError(RegistryError):
    """The database could not do it now. Nothing of the request was recorded."""


class BusyError(UnavailableError):
    """Too much waits for the database already; it is well itself."""


class FullError(UnavailableError):
    """No room is left to record anything; reading goes on."""


class SchemaError(RegistryError):
    """The database's schema is not this program's."""
