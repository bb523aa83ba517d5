"""What no confined process may do, each as something to try from within."""

import ctypes
import mmap
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final


def try_attack(action: Callable[[], Any]) -> str:
    """Return how an attack ends: `done`, or the name of its error."""
    try:
        action()
    except (OSError, ValueError, MemoryError, SystemError) as error:
        return type(error).__name__
    return "done"


def _map_code() -> None:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC).close()


def _open_pair() -> None:
    for one in socket.socketpair():
        one.close()


def _open_pipe() -> None:
    for one in os.pipe():
        os.close(one)


def call_kernel(number: int, *arguments: int) -> Callable[[], None]:
    """Return what makes this system call. Calling it raises OSError."""

    def call() -> None:
        library = ctypes.CDLL(None, use_errno=True)
        if library.syscall(number, *arguments) < 0:
            raise OSError(ctypes.get_errno(), "refused")

    return call


ATTACKS: Final[dict[str, Callable[[], Any]]] = {
    "a TCP socket": lambda: socket.socket(socket.AF_INET).close(),
    "a Unix socket": lambda: socket.socket(socket.AF_UNIX).close(),
    "a pair of sockets": _open_pair,
    "another descriptor": lambda: os.dup(3),
    "a file to read": lambda: Path("/etc/passwd").read_bytes(),
    "a file to write": lambda: Path("/tmp/calculator-attack").write_text("x"),
    "a folder": lambda: list(Path("/").iterdir()),
    "a status of a file": lambda: Path("/etc/passwd").stat(),
    "a program": lambda: os.execv("/bin/true", ["/bin/true"]),
    "a process": os.fork,
    "a child": lambda: subprocess.run(["/bin/true"], check=True),
    "a signal to the supervisor": lambda: os.kill(os.getppid(), signal.SIGTERM),
    "a pipe": _open_pipe,
    "memory that can run": _map_code,
    "memory without end": lambda: bytearray(2**30),
    "a higher limit": call_kernel(160, 0, 0),
    "a trace of the supervisor": call_kernel(101, 16, os.getppid(), 0, 0),
    "a kernel ring": call_kernel(425, 8, 0),
    "a namespace": call_kernel(272, 0x10000000),
    "a mount": call_kernel(165, 0, 0, 0, 0, 0),
    "a keyring": call_kernel(250, 0, 0, 0),
    "a program of the kernel": call_kernel(321, 0, 0, 0),
    "a message with descriptors": call_kernel(46, 3, 0, 0),
}
