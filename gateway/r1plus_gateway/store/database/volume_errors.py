"""What a failed call on the tenant's volume means."""

import errno
import os
from pathlib import Path
from typing import Final

from r1plus_contract.remedies import Remedy
from r1plus_gateway.store.errors import (
    ConfigError,
    CorruptError,
    FullError,
    ReadOnlyError,
    StoreError,
    TooManyFilesError,
    UnavailableError,
)

RAISE_LIMIT: Final = "Nothing is lost. Raise the limit of open files (ulimit -Hn), or see who holds connections"


def translate_os_error(error: OSError, path: Path) -> StoreError:
    """Return what a failed call on the volume means."""
    text = f"{path}: {error.strerror}"
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return ConfigError(text, Remedy.MOUNT_VOLUME)
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return ReadOnlyError(text, Remedy.ALLOW_WRITES)
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return TooManyFilesError(f"{text}. {RAISE_LIMIT}")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FullError(text, Remedy.ENLARGE_VOLUME)
    if error.errno == errno.EIO:
        return CorruptError(text, Remedy.RESTORE_BACKUP)
    return UnavailableError(f"{text}. See whether the volume is healthy")


def find_lack_of_files(path: Path) -> TooManyFilesError | None:
    """Return the error of a process that can open no file at all now, for a library that does not say why it failed."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        translated = translate_os_error(error, path)
        return translated if isinstance(translated, TooManyFilesError) else None
    return None
