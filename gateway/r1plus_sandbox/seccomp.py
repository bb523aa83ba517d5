"""Filters of system calls, installed by `prctl`: for workers one that refuses what is not listed, for the processes
around them one that refuses networks.

They are written here, since no library for it is kept: `pyseccomp` had its last release in January 2021 and needs
libseccomp in the image. The workers' filter is an allowlist of two dozen calls without pointers to look behind, so
nothing of a library's translation is missed. It covers the one machine that images are built for; another one is an
error.
"""

import ctypes
import errno
import os
import platform
import struct
from typing import Final

_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_SET_SECCOMP: Final = 22
_MODE_FILTER: Final = 2
_AUDIT_ARCH_X86_64: Final = 0xC000003E
_X32_BIT: Final = 0x40000000
"""In the numbers of a second set of calls that x86-64 has."""

_LOAD, _AND, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_NUMBER_OFFSET, _ARCHITECTURE_OFFSET, _ARGUMENTS_OFFSET = 0, 4, 16
_ALLOW: Final = 0x7FFF0000
_REFUSE: Final = 0x00050000 | errno.EPERM
_KILL: Final = 0x80000000
_PROT_EXEC: Final = 4
_NO_FAMILY: Final = 0x00050000 | errno.EAFNOSUPPORT
_MACHINES: Final = {"x86_64": (_AUDIT_ARCH_X86_64, 41), "aarch64": (0xC00000B7, 198)}
"""Machine -> its architecture, and its number of the call `socket`."""
_AF_UNIX: Final = 1
_IO_URING: Final = (425, 426, 427)
"""Calls that make sockets without the call `socket`."""

CALLS: Final = {
    "read": 0,
    "write": 1,
    "close": 3,
    "fstat": 5,
    "lseek": 8,
    "munmap": 11,
    "brk": 12,
    "rt_sigaction": 13,
    "rt_sigprocmask": 14,
    "rt_sigreturn": 15,
    "sched_yield": 24,
    "mremap": 25,
    "madvise": 28,
    "getpid": 39,
    "exit": 60,
    "gettimeofday": 96,
    "getrusage": 98,
    "times": 100,
    "sigaltstack": 131,
    "gettid": 186,
    "futex": 202,
    "restart_syscall": 219,
    "clock_gettime": 228,
    "exit_group": 231,
    "getrandom": 318,
}
"""What computing and one open socket need: no file is opened, no process started, no signal sent."""
CALLS_WITHOUT_EXECUTION: Final = {"mmap": 9, "mprotect": 10}
"""Allowed unless their third argument asks for executable memory."""


class SandboxError(RuntimeError):
    """The kernel does not take a limit, so nothing may be computed."""


_Program = list[tuple[int, int, int, int]]
"""A filter: (code, jump if true, jump if false, operand) each."""


def _begin_program(architecture: int) -> _Program:
    """Return the instructions that kill calls of another machine, and load the number of the call."""
    return [
        (_LOAD, 0, 0, _ARCHITECTURE_OFFSET),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_OFFSET),
        (_AT_LEAST, 0, 1, _X32_BIT),
        (_RETURN, 0, 0, _KILL),
    ]


def _build_worker_program() -> _Program:
    program = _begin_program(_AUDIT_ARCH_X86_64)
    for number in CALLS.values():
        program += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    for number in CALLS_WITHOUT_EXECUTION.values():
        program += [
            (_EQUAL, 0, 5, number),
            (_LOAD, 0, 0, _ARGUMENTS_OFFSET + 2 * 8),
            (_AND, 0, 0, _PROT_EXEC),
            (_EQUAL, 0, 1, 0),
            (_RETURN, 0, 0, _ALLOW),
            (_RETURN, 0, 0, _REFUSE),
        ]
    return [*program, (_RETURN, 0, 0, _REFUSE)]


def _build_local_program(architecture: int, call: int) -> _Program:
    program = _begin_program(architecture)
    for number in _IO_URING:
        program += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _REFUSE)]
    return [
        *program,
        (_EQUAL, 0, 3, call),
        (_LOAD, 0, 0, _ARGUMENTS_OFFSET),
        (_EQUAL, 1, 0, _AF_UNIX),
        (_RETURN, 0, 0, _NO_FAMILY),
        (_RETURN, 0, 0, _ALLOW),
    ]


class _Header(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def install_filter() -> None:
    """Refuse every other system call of this process, for the rest of its life.

    Raises:
        SandboxError: the kernel or the machine does not take the filter.
    """
    if platform.machine() != "x86_64":
        raise SandboxError(f"no filter of system calls is written for {platform.machine()}; run on x86-64")
    _install(_build_worker_program())


def refuse_networks() -> None:
    """Refuse this process, and all that it starts, every socket but Unix ones. Call it before threads are started.

    The containers of a pod share its network: a helper that was taken over could reach what the gateway may reach, and
    listen on the gateway's port while that restarts.

    Raises:
        SandboxError: the kernel or the machine does not take the filter.
    """
    machine = platform.machine()
    if machine not in _MACHINES:
        raise SandboxError(f"no filter of system calls is written for {machine}; run on {' or '.join(_MACHINES)}")
    _install(_build_local_program(*_MACHINES[machine]))


def _install(program: _Program) -> None:
    packed = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    code = ctypes.create_string_buffer(packed, len(packed))
    header = _Header(len(program), ctypes.addressof(code))
    _control(_PR_SET_NO_NEW_PRIVS, 1)
    _control(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.addressof(header))


def _control(option: int, value: int, pointer: int = 0) -> None:
    """Call prctl.

    Raises:
        SandboxError: it fails.
    """
    library = ctypes.CDLL(None, use_errno=True)
    arguments = [ctypes.c_ulong(part) for part in (value, pointer, 0, 0)]
    if library.prctl(ctypes.c_int(option), *arguments) != 0:
        number = ctypes.get_errno()
        raise SandboxError(f"prctl({option}) failed: {os.strerror(number)}; run on Linux 5.4 or later")


def set_process_options() -> None:
    """Let this process die with its parent, and keep others of its user from reading its memory."""
    _control(_PR_SET_PDEATHSIG, _SIGKILL)
    _control(_PR_SET_DUMPABLE, 0)


_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_SIGKILL: Final = 9
