"""Landlock: which files a process may open, by path. A kernel before 5.13, or started without it, has none.

No library is kept for it: three system calls, and two structures of at most two numbers.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from r1plus_contract.process.syscall_filters import renounce_privileges

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_RULE_PATH_BENEATH: Final = 1
_EXECUTE, _READ_FILE = 1, 4
_ALL_OF_FIRST_VERSION: Final = (1 << 13) - 1
_ABSENT: Final = (errno.ENOSYS, errno.EOPNOTSUPP)
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def allow_reading_only(paths: Iterable[Path]) -> bool:
    """Let this process, and what it starts, open and run files below these paths only; return whether the kernel can.

    Raises:
        OSError: the kernel has Landlock, and refuses.
    """
    attributes = struct.pack("=Q", _ALL_OF_FIRST_VERSION)
    try:
        ruleset = _call(_CREATE_RULESET, attributes, len(attributes), 0)
    except OSError as error:
        if error.errno in _ABSENT:
            return False
        raise
    try:
        for path in paths:
            _allow(ruleset, path)
        renounce_privileges()
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return True


def _allow(ruleset: int, path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        _call(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, struct.pack("=Qi", _EXECUTE | _READ_FILE, descriptor), 0)
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: int | bytes) -> int:
    values = [ctypes.c_char_p(one) if isinstance(one, bytes) else ctypes.c_long(one) for one in arguments]
    result = int(_LIBC.syscall(ctypes.c_long(number), *values))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
