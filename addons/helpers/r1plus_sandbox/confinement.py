"""All limits of a worker, in the order in which they can be set."""

import os
import resource
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from r1plus_sandbox.seccomp import install_filter, set_process_options

SOCKET: Final = 3
"""Descriptor of a worker's socket, its only one besides three of /dev/null."""


_LAST_SECONDS: Final = 2


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """What one worker may use: it answers one request."""

    cpu_seconds: int = 2
    memory_bytes: int = 272 * 1024 * 1024
    """Of address space, beyond what it has from its supervisor: 240 MiB of Python and SymPy, so 512 MiB in all."""
    wall_seconds: float = 2.0
    """Then its supervisor kills it."""


def keep_only_socket(descriptor: int) -> None:
    """Close all descriptors but one, which becomes `SOCKET`; standard streams lead to /dev/null.

    A worker never sees connections of other requests, and writes no tenant's text into a log.
    """
    null = os.open(os.devnull, os.O_RDWR)
    socket = os.dup2(descriptor, 200, inheritable=False)
    for stream in range(3):
        os.dup2(null, stream)
    os.dup2(socket, SOCKET, inheritable=False)
    os.closerange(SOCKET + 1, max(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 1024))


def reset_signals() -> None:
    """Undo what the supervisor has set up: a signal kills a worker."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGXCPU, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)


def _read_address_space() -> int:
    """Return the bytes of address space that this process has."""
    pages = Path("/proc/self/statm").read_text().split()[0]
    return int(pages) * resource.getpagesize()


def confine(limits: WorkerLimits) -> None:
    """Take from this process all that computing does not need, for the rest of its life.

    Raises:
        SandboxError: the kernel does not take a limit; nothing may be computed then.
    """
    set_process_options()
    memory = _read_address_space() + limits.memory_bytes
    for kind, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_NOFILE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (most, most))
    # A worker that handles the signal of the first has some time to say so.
    resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_seconds, limits.cpu_seconds + _LAST_SECONDS))
    install_filter()
