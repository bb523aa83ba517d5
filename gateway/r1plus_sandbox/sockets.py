"""The Unix socket of a process beside the gateway: its path, and who may connect."""

import os
import stat
from pathlib import Path
from typing import Final

SOCKET_MODE: Final = 0o660
"""The gateway has a user of its own, and a group in common."""


class SocketError(RuntimeError):
    """The socket's path cannot be used."""


def refuse_path(path: Path, error: OSError) -> SocketError:
    """Return what a failed call on the path means."""
    return SocketError(f"{path}: {error.strerror}; mount a volume there that this user may write to")


def share_socket(path: Path) -> None:
    """Let the gateway connect."""
    path.chmod(SOCKET_MODE)


def remove_socket(path: Path) -> None:
    """Remove the socket of a process that ends."""
    path.unlink(missing_ok=True)


def remove_old_socket(path: Path) -> None:
    """Remove what a predecessor left that was killed.

    Raises:
        SocketError: something else is there.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise SocketError(f"{path}: {error.strerror}; name a path that can be used") from error
    if not stat.S_ISSOCK(mode):
        raise SocketError(f"{path}: is no socket; remove it, or name another path")
    path.unlink()
