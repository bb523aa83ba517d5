"""What the command line says when it cannot go on.

    CliError                 printed as one line, exit status 1
    └── UsageError           the words or the file were wrong, exit status 2

Every message names what was asked, what was found, and what to do.
Anything else that escapes is a bug and shows a trace.
"""


class CliError(Exception):
    """The world did not give what was asked for."""

    status = 1


class UsageError(CliError):
    """What the user gave cannot be read at all."""

    status = 2
