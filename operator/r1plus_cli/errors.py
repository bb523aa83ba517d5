"""Errors of the command line.

    CliError                 printed as one line, exit status 1
    ├── NotFoundError        the cluster does not have what was named
    ├── UnavailableError     the cluster does not answer now; the same request may work later
    ├── AccessDeniedError    the user lacks the permission
    └── UsageError           the arguments or the file are invalid, exit status 2

Every message says what was requested, what was wrong, and what to do. Any other exception is a bug and shows a trace.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from r1plus_edge.errors import EdgeError


class CliError(Exception):
    """A request that could not be fulfilled."""

    status = 1


class NotFoundError(CliError):
    """An object, or its namespace, that does not exist."""


class UnavailableError(CliError):
    """A cluster that does not answer now."""


class AccessDeniedError(CliError):
    """A request that the user lacks the permission for."""


class UsageError(CliError):
    """Arguments or a file that cannot be read."""

    status = 2


@contextmanager
def converted_errors() -> Iterator[None]:
    """Turn errors of the edge tier into the command line's."""
    try:
        yield
    except EdgeError as error:
        raise (UsageError if error.status == UsageError.status else CliError)(str(error)) from error
