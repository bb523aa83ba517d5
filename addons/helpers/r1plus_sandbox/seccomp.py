"""Filters of system calls: for workers and programs one that refuses what is not listed, for the processes around them
one that refuses networks.

The workers' filter is an allowlist of two dozen calls; that of programs has in addition what loading one needs. They
cover the one machine that images are built for; another one is an error.
"""

import errno
import os
import platform
import socket
from typing import Final

from r1plus_contract.process.syscall_filters import (
    ALLOW,
    AND,
    ARCHITECTURE_OFFSET,
    ARGUMENTS_OFFSET,
    AT_LEAST,
    EQUAL,
    IO_URING,
    KILL,
    LOAD,
    MACHINES,
    NUMBER_OFFSET,
    REFUSE,
    RETURN,
    SKIP,
    X32_BIT,
    Machine,
    Program,
    control,
    find_machine,
    install,
)

_WORKERS_MACHINE: Final = "x86_64"
_PROT_EXEC: Final = 4
_NO_FAMILY: Final = SKIP | errno.EAFNOSUPPORT

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

CALLS_TO_LOAD: Final = {
    "poll": 7,
    "pread64": 17,
    "access": 21,
    "arch_prctl": 158,
    "sched_getaffinity": 204,
    "set_tid_address": 218,
    "clock_nanosleep": 230,
    "newfstatat": 262,
    "set_robust_list": 273,
    "statx": 332,
    "rseq": 334,
}
"""What a program needs to load itself, and to sleep."""
_OPENAT, _MMAP, _PRLIMIT64, _EXECVEAT = 257, 9, 302, 322
_MAP_ANONYMOUS: Final = 0x20
_AT_EMPTY_PATH: Final = 0x1000
_WRITES: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_TMPFILE


class SandboxError(RuntimeError):
    """The kernel does not take a limit, so nothing may be computed."""


def _begin_program(architecture: int) -> Program:
    """Return the instructions that kill calls of another machine, and load the number of the call."""
    return [
        (LOAD, 0, 0, ARCHITECTURE_OFFSET),
        (EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER_OFFSET),
        (AT_LEAST, 0, 1, X32_BIT),
        (RETURN, 0, 0, KILL),
    ]


def _build_worker_program() -> Program:
    program = [*_begin_program(MACHINES[_WORKERS_MACHINE].architecture)]
    for number in CALLS.values():
        program += [(EQUAL, 0, 1, number), (RETURN, 0, 0, ALLOW)]
    for number in CALLS_WITHOUT_EXECUTION.values():
        program += [
            (EQUAL, 0, 5, number),
            (LOAD, 0, 0, ARGUMENTS_OFFSET + 2 * 8),
            (AND, 0, 0, _PROT_EXEC),
            (EQUAL, 0, 1, 0),
            (RETURN, 0, 0, ALLOW),
            (RETURN, 0, 0, REFUSE),
        ]
    return [*program, (RETURN, 0, 0, REFUSE)]


def _allow_where(number: int, argument: int, mask: int, value: int) -> Program:
    """Return the instructions that allow a call whose argument has this value under a mask, and refuse it else."""
    return [
        (EQUAL, 0, 5, number),
        (LOAD, 0, 0, ARGUMENTS_OFFSET + argument * 8),
        (AND, 0, 0, mask),
        (EQUAL, 0, 1, value),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, REFUSE),
    ]


def _build_loading_program() -> Program:
    """Return the filter of a program that loads itself, and then computes.

    It opens files to read only; starts what it has a descriptor of, which is itself and once; maps memory that can run
    out of files alone; and reads limits without setting any.
    """
    program = [*_begin_program(MACHINES[_WORKERS_MACHINE].architecture)]
    for number in (*CALLS.values(), *CALLS_TO_LOAD.values()):
        program += [(EQUAL, 0, 1, number), (RETURN, 0, 0, ALLOW)]
    program += [
        (EQUAL, 0, 8, _MMAP),
        (LOAD, 0, 0, ARGUMENTS_OFFSET + 2 * 8),
        (AND, 0, 0, _PROT_EXEC),
        (EQUAL, 3, 0, 0),
        (LOAD, 0, 0, ARGUMENTS_OFFSET + 3 * 8),
        (AND, 0, 0, _MAP_ANONYMOUS),
        (EQUAL, 0, 1, 0),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, REFUSE),
    ]
    program += _allow_where(CALLS_WITHOUT_EXECUTION["mprotect"], 2, _PROT_EXEC, 0)
    program += _allow_where(_OPENAT, 2, _WRITES, 0)
    program += _allow_where(_EXECVEAT, 4, 0xFFFFFFFF, _AT_EMPTY_PATH)
    return [*program, *_build_prlimit_part(), (RETURN, 0, 0, REFUSE)]


def _build_prlimit_part() -> Program:
    """Return the instructions that allow to read a limit: both halves of the pointer to a new one are null."""
    return [
        (EQUAL, 0, 6, _PRLIMIT64),
        (LOAD, 0, 0, ARGUMENTS_OFFSET + 2 * 8),
        (EQUAL, 0, 3, 0),
        (LOAD, 0, 0, ARGUMENTS_OFFSET + 2 * 8 + 4),
        (EQUAL, 0, 1, 0),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, REFUSE),
    ]


def _build_local_program(machine: Machine) -> Program:
    program = [*_begin_program(machine.architecture)]
    for number in IO_URING:
        program += [(EQUAL, 0, 1, number), (RETURN, 0, 0, REFUSE)]
    return [
        *program,
        (EQUAL, 0, 3, machine.socket),
        (LOAD, 0, 0, ARGUMENTS_OFFSET),
        (EQUAL, 1, 0, socket.AF_UNIX),
        (RETURN, 0, 0, _NO_FAMILY),
        (RETURN, 0, 0, ALLOW),
    ]


def install_filter() -> None:
    """Refuse every other system call of this process, for the rest of its life.

    Raises:
        SandboxError: the kernel or the machine does not take the filter.
    """
    _check_machine()
    _install(_build_worker_program())


def install_program_filter() -> None:
    """Refuse this process, and the program that it becomes, all that loading and computing does not need.

    Raises:
        SandboxError: the kernel or the machine does not take the filter.
    """
    _check_machine()
    _install(_build_loading_program())


def _check_machine() -> None:
    if platform.machine() != _WORKERS_MACHINE:
        raise SandboxError(f"no filter of system calls is written for {platform.machine()}; run on x86-64")


def refuse_networks() -> None:
    """Refuse this process, and all that it starts, every socket but Unix ones. Call it before threads are started.

    The containers of a pod share its network: a helper that was taken over could reach what the gateway may reach, and
    listen on the gateway's port while that restarts.

    Raises:
        SandboxError: the kernel or the machine does not take the filter.
    """
    try:
        machine = find_machine()
    except OSError as error:
        raise SandboxError(str(error.strerror)) from error
    _install(_build_local_program(machine))


def _install(program: Program) -> None:
    try:
        install(program)
    except OSError as error:
        raise SandboxError(
            f"a filter of system calls is refused: {error.strerror}; run on Linux 5.4 or later"
        ) from error


def set_process_options() -> None:
    """Let this process die with its parent, and keep others of its user from reading its memory.

    Raises:
        SandboxError: the kernel refuses it.
    """
    try:
        control(_PR_SET_PDEATHSIG, _SIGKILL)
        control(_PR_SET_DUMPABLE, 0)
    except OSError as error:
        raise SandboxError(
            f"an option of the process is refused: {error.strerror}; run on Linux 5.4 or later"
        ) from error


_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_SIGKILL: Final = 9
