"""A program that is no Python, for one request: it is confined before it starts, and inherits two pipes and a file.

A worker takes its rights away when everything is loaded. A program has to load itself first, so its filter leaves a few
more calls: it may open files to read, where Landlock says which.
"""

import fcntl
import os
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from r1plus_sandbox.confinement import reset_signals
from r1plus_sandbox.landlock import allow_reading_only
from r1plus_sandbox.seccomp import install_program_filter, set_process_options

SOURCE: Final = 3
"""Descriptor of the file that a program reads; its path is `SOURCE_PATH`."""
SOURCE_PATH: Final = f"/proc/self/fd/{SOURCE}"
_PROGRAM: Final = 4
_MOST_DESCRIPTORS: Final = 8
_LIBRARIES: Final = tuple(map(Path, ("/lib", "/lib64", "/usr/lib", "/usr/lib64")))
NOT_STARTED: Final = 125
"""Exit status if the kernel takes no limit, or does not start the program."""


@dataclass(frozen=True, slots=True)
class ProgramLimits:
    """What one run of a program may use."""

    cpu_seconds: int = 2
    memory_bytes: int = 512 * 1024 * 1024
    """Of address space."""
    wall_seconds: float = 2.0
    """Then its supervisor kills it."""


@dataclass(frozen=True, slots=True)
class Streams:
    """Descriptors that a program gets: a file to read, and where it writes."""

    source: int
    output: int
    errors: int


def become_program(path: Path, arguments: list[str], streams: Streams, limits: ProgramLimits) -> NoReturn:
    """Confine this process, and run a program in its place, without environment. It does not return."""
    try:
        reset_signals()
        program = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        _keep_only(streams, program)
        confine_program(path, limits)
        os.execve(_PROGRAM, [path.name, *arguments], {})  # noqa: S606 - the path is the platform's
    except BaseException as error:  # noqa: BLE001 - a fork must not run its parent's handlers
        os.write(2, str(error).encode()[:500])
    finally:
        os._exit(NOT_STARTED)


def _keep_only(streams: Streams, program: int) -> None:
    """Close all descriptors but those of a program; its standard input is empty."""
    sources = (os.open(os.devnull, os.O_RDONLY), streams.output, streams.errors, streams.source, program)
    copies = [fcntl.fcntl(one, fcntl.F_DUPFD, len(sources)) for one in sources]
    for place, one in enumerate(copies):
        os.dup2(one, place, inheritable=place != _PROGRAM)
    os.closerange(len(copies), max(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 1024))


def confine_program(path: Path, limits: ProgramLimits) -> None:
    """Take from this process all that the program at `path` does not need, for the rest of its life.

    Raises:
        SandboxError, OSError: the kernel does not take a limit; nothing may be run then.
    """
    set_process_options()
    allow_reading_only((path, *_LIBRARIES))
    for kind, most in (
        (resource.RLIMIT_NOFILE, _MOST_DESCRIPTORS),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, limits.memory_bytes),
    ):
        resource.setrlimit(kind, (most, most))
    # At the first it gets SIGXCPU, which says why it ended; at the second SIGKILL.
    resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_seconds, limits.cpu_seconds + 1))
    install_program_filter()
