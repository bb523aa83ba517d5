"""What a helper of the gateway may reach on this machine: the files that it needs, and no network.

In a cluster its container has neither another one's files nor a Secret, and network policies. Here it is a process of
the same user as the data, so the kernel restricts it before it runs: Landlock for files, signals and TCP, and a network
namespace that has nothing. An ordinary user may ask for both. A kernel that refuses one is named in the helper's log.
"""

import ctypes
import errno
import os
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SYSTEM: Final = ("/usr", "/lib", "/lib64", "/bin", "/etc", "/proc", "/sys", "/dev/urandom", "/dev/random", "/dev/zero")
"""Not all of /dev: it has this user's terminals, and the memory that Triton shares with its backend."""
_DEVICES: Final = ("/dev/null",)
"""Written as well."""
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG: Final = 1
_PATH_BENEATH: Final = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REFER, _TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 13, 1 << 14
_FIRST_RIGHTS: Final = (1 << 13) - 1
"""Of Landlock's first version."""
_READ: Final = _EXECUTE | _READ_FILE | _READ_DIR
_ALL_TCP, _ALL_SCOPES = 0b11, 0b11
_NET_VERSION, SCOPE_VERSION = 4, 6
"""Since which TCP, and signals to others, can be refused."""
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_NO_NEW_PRIVS: Final = 38
_STANDARD_ERROR: Final = 2
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Confinement:
    """Folders of one process. What is in neither cannot be opened."""

    readable: tuple[str, ...]
    writable: tuple[str, ...]

    def apply(self) -> None:
        """Confine this process for the rest of its life. Runs between fork and exec, with the log as standard error."""
        for what, restrict in (("network", leave_network), ("files", self._restrict_files)):
            try:
                restrict()
            except OSError as error:
                text = f"This kernel does not restrict the {what} of this process: {error.strerror}\n"
                os.write(_STANDARD_ERROR, text.encode())

    def _restrict_files(self) -> None:
        version = read_landlock_version()
        handled = _FIRST_RIGHTS | (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
        parts = [handled]
        parts += [_ALL_TCP] if version >= _NET_VERSION else []
        parts += [_ALL_SCOPES] if version >= SCOPE_VERSION else []
        attributes = struct.pack(f"={len(parts)}Q", *parts)
        ruleset = _call(_CREATE_RULESET, attributes, len(attributes), 0)
        for path in self.readable:
            _allow(ruleset, path, handled & _READ)
        for path in self.writable:
            _allow(ruleset, path, handled)
        if _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise _last_error()
        _call(_RESTRICT_SELF, ruleset, 0)
        os.close(ruleset)


def read_landlock_version() -> int:
    """Return the version of Landlock that this kernel has. Raises OSError: it has none, or it is switched off."""
    return _call(_CREATE_RULESET, None, 0, _VERSION_FLAG)


def build_confinement(mounted: Iterable[Path], own: Path) -> Confinement:
    """Return what a helper needs: Python and our code, what its container mounts, and its own folder to write."""
    installed = map(os.path.realpath, (sys.prefix, sys.base_prefix, *filter(None, sys.path)))
    # Python run in a home has that on its path, and with it the data folder.
    code = (path for path in installed if not own.resolve().is_relative_to(path))
    readable = dict.fromkeys((*_SYSTEM, *code, *map(os.path.realpath, mounted)))
    return Confinement(tuple(readable), (str(own), *_DEVICES))


def leave_network() -> None:
    """Move this process into a network namespace of its own, in which nothing is: not even loopback is up.

    Raises:
        OSError: the kernel does not let an ordinary user do that.
    """
    user, group = os.geteuid(), os.getegid()
    if _LIBC.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        raise _last_error()
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123 - between fork and exec, the less the better
            file.write(text)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # It cannot be reached anyway, and the others hold.
    try:
        if not Path(path).is_dir():
            rights &= _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
        _call(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, descriptor), 0)
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: int | bytes | None) -> int:
    """Make a system call. Raises OSError."""
    converted = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result = int(_LIBC.syscall(ctypes.c_long(number), *converted))
    if result < 0:
        raise _last_error()
    return result


def _last_error() -> OSError:
    number = ctypes.get_errno() or errno.EPERM
    return OSError(number, os.strerror(number))
