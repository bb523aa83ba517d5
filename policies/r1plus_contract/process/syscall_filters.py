"""Filters of system calls: the instructions of classic BPF that they are written in, and how the kernel takes one.

The helpers and the edge tier confine their children with them.

No library for it is kept: `pyseccomp` had its last release in January 2021 and needs libseccomp in the image. Our
filters look at numbers and flags alone, without pointers to look behind, so nothing of a library's translation is
missed.
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

LOAD, AND, EQUAL, AT_LEAST, RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
NUMBER_OFFSET, ARCHITECTURE_OFFSET, ARGUMENTS_OFFSET = 0, 4, 16
"""Of a call, in what a filter reads. Each argument has eight bytes."""
ALLOW: Final = 0x7FFF0000
KILL: Final = 0x80000000
SKIP: Final = 0x00050000
"""The call does nothing, and returns 0; with an error's number it fails with that."""
REFUSE: Final = SKIP | errno.EPERM
X32_BIT: Final = 0x40000000
"""In the numbers of a second set of calls that x86-64 has."""
IO_URING: Final = (425, 426, 427)
"""Calls that make and connect sockets without the calls for it."""
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_LIBC: Final = ctypes.CDLL(None, use_errno=True)

Program = Sequence[tuple[int, int, int, int]]
"""A filter: (code, instructions to jump over if true, if false, operand) each."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The numbers that a filter needs of one kind of machine."""

    architecture: int
    socket: int
    socketpair: int
    connect: int
    fchmod: int


MACHINES: Final = {
    "x86_64": Machine(0xC000003E, 41, 53, 42, 91),
    "aarch64": Machine(0xC00000B7, 198, 199, 203, 52),
}


def find_machine() -> Machine:
    """Return what this machine is. Raises OSError: no filter is written for it."""
    name = platform.machine()
    if name not in MACHINES:
        raise OSError(errno.ENOSYS, f"no filter of system calls is written for {name}; run on {' or '.join(MACHINES)}")
    return MACHINES[name]


def install(program: Program) -> None:
    """Have the kernel run a filter at each system call of this process and of what it starts, for the rest of its life.

    It may be called between fork and exec. Raises OSError: the kernel does not take it.
    """
    packed = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    code = ctypes.create_string_buffer(packed, len(packed))
    header = ctypes.create_string_buffer(struct.pack("HP", len(program), ctypes.addressof(code)))  # struct sock_fprog
    renounce_privileges()
    control(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.addressof(header))


def renounce_privileges() -> None:
    """Let no program that this process runs get more rights; without it the kernel takes no limits. Raises OSError."""
    control(_PR_SET_NO_NEW_PRIVS, 1)


def control(option: int, value: int, pointer: int = 0) -> None:
    """Call prctl. Raises OSError."""
    arguments = [ctypes.c_ulong(part) for part in (value, pointer, 0, 0)]
    if _LIBC.prctl(ctypes.c_int(option), *arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
