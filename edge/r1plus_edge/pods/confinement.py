"""What a helper of the gateway may reach on this machine: the files that it needs, and no network.

In a cluster its container has neither another one's files nor a Secret, and network policies. Here it is a process of
the same user as the data, so the kernel restricts it before it runs: Landlock for files, signals and TCP, a network
namespace that has nothing, and a filter of system calls that leaves it only Unix sockets at which it listens. An
ordinary user may ask for all of them. A kernel that refuses one is named in the helper's log.
"""

import ctypes
import errno
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from r1plus_contract.process.syscall_filters import (
    ALLOW,
    AND,
    ARCHITECTURE_OFFSET,
    ARGUMENTS_OFFSET,
    AT_LEAST,
    EQUAL,
    IO_URING,
    LOAD,
    NUMBER_OFFSET,
    REFUSE,
    RETURN,
    SKIP,
    X32_BIT,
    Machine,
    Program,
    find_machine,
    install,
    renounce_privileges,
)

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
_OTHERS: Final = 0o077
"""Rights of a file that are not its owner's."""
_STANDARD_ERROR: Final = 2
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


_REFUSAL: Final = "This kernel does not restrict the {} of this process: "
_REMEDIES: Final = {
    "network": "a network namespace of their own is refused; the filter of system calls leaves them none all the same."
    " To have both, allow user namespaces: sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone and"
    " kernel.apparmor_restrict_unprivileged_userns; the unit of `r1plus serve install` refuses them to all it runs",
    "files": "Landlock is refused, so they can read what you can, keys too. It needs Linux 5.13, `landlock` in"
    " /sys/kernel/security/lsm (boot with lsm=landlock,...), and of a container that its seccomp profile allows it",
    "sockets": "filters of system calls are refused, without which they end at once. Filters need a kernel"
    " with CONFIG_SECCOMP_FILTER, on x86_64 or aarch64",
}
_PROBE: Final = "/bin/true"


@dataclass(frozen=True, slots=True)
class Confinement:
    """Folders of one process. What is in neither cannot be opened."""

    readable: tuple[str, ...]
    writable: tuple[str, ...]

    def apply(self) -> None:
        """Confine this process for the rest of its life. Runs between fork and exec, with the log as standard error."""
        steps = (("network", leave_network), ("files", self._restrict_files), ("sockets", restrict_sockets))
        for what, restrict in steps:
            try:
                restrict()
            except OSError as error:
                os.write(_STANDARD_ERROR, f"{_REFUSAL.format(what)}{error.strerror}\n".encode())

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
        renounce_privileges()
        _call(_RESTRICT_SELF, ruleset, 0)
        os.close(ruleset)


@dataclass(frozen=True, slots=True)
class PrivateFiles:
    """Let other users have no right to what a process makes, also where it gives them one.

    Triton's Python backend passes prompts and answers to its stub in /dev/shm, by a file that it lets all users read,
    whatever the umask is.
    """

    def apply(self) -> None:
        """Have that for the rest of this process' life. Runs between fork and exec, with the log as standard error."""
        os.umask(_OTHERS)
        try:
            install(_build_mode_filter(find_machine()))
        except OSError as error:
            text = f"This kernel lets other users read what this process shares in /dev/shm: {error.strerror}\n"
            os.write(_STANDARD_ERROR, text.encode())


def find_refusals(own: Path, probe: str = _PROBE) -> tuple[str, ...]:
    """Return what this machine refuses of a helper's confinement, why, and what to do; it tries one out.

    `own`: a folder that the helper could write; `probe`: a program that does nothing.
    """
    confine = build_confinement((), own).apply
    try:
        result = subprocess.run([probe], preexec_fn=confine, stderr=subprocess.PIPE, text=True, check=False)
    except OSError as error:
        return (f"unknown: {probe}: {error.strerror}; the first lines of a helper's log say it",)
    refusals = []
    for what, remedy in _REMEDIES.items():
        begin = _REFUSAL.format(what)
        reasons = (line.removeprefix(begin) for line in result.stderr.splitlines() if line.startswith(begin))
        refusals += [f"{what}: {reason}; {remedy}" for reason in reasons]
    return tuple(refusals)


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


def restrict_sockets() -> None:
    """Let this process have sockets of Unix streams only, and connect none: the desktop's and ours may be asked for
    programs to be run. So it also holds where a network namespace is refused, as in a service of systemd.

    Raises:
        OSError: the kernel has no filters of system calls, or the machine is none that we know.
    """
    install(_build_socket_filter(find_machine()))


def _build_socket_filter(machine: Machine) -> Program:
    """Return a filter that leaves a process Unix streams, and lets it connect none."""
    return (
        (LOAD, 0, 0, ARCHITECTURE_OFFSET),
        (EQUAL, 0, 13, machine.architecture),
        (LOAD, 0, 0, NUMBER_OFFSET),
        (AT_LEAST, 11, 0, X32_BIT),
        (EQUAL, 10, 0, machine.connect),
        (EQUAL, 9, 0, IO_URING[0]),
        (EQUAL, 2, 0, machine.socket),
        (EQUAL, 1, 0, machine.socketpair),
        (RETURN, 0, 0, ALLOW),
        (LOAD, 0, 0, ARGUMENTS_OFFSET),  # family
        (EQUAL, 0, 4, socket.AF_UNIX),
        (LOAD, 0, 0, ARGUMENTS_OFFSET + 8),  # kind, with flags
        (AND, 0, 0, 0xF),
        (EQUAL, 0, 1, socket.SOCK_STREAM),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, REFUSE),
    )


def _build_mode_filter(machine: Machine) -> Program:
    """Return a filter that skips each fchmod that gives others a right."""
    return (
        (LOAD, 0, 0, ARCHITECTURE_OFFSET),
        (EQUAL, 0, 6, machine.architecture),
        (LOAD, 0, 0, NUMBER_OFFSET),
        (EQUAL, 0, 4, machine.fchmod),
        (LOAD, 0, 0, ARGUMENTS_OFFSET + 8),  # mode
        (AND, 0, 0, _OTHERS),
        (EQUAL, 1, 0, 0),
        (RETURN, 0, 0, SKIP),
        (RETURN, 0, 0, ALLOW),
    )


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
