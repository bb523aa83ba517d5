"""Tries what a hardened service must not do, and prints as JSON what came of each. It runs by itself, as a program."""

import ctypes
import json
import os
import socket
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

MARK: Final = "r1plus-probe"
"""A file that the machine has in /tmp and in /dev."""
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_NEW_USER: Final = 0x10000000
_TRACE_ME: Final = 0
_SHORT_INODE: Final = 0x0008


def _call(function: Any, *words: int) -> None:
    if function(*words) == -1:
        raise OSError(ctypes.get_errno(), "")


def _write(folder: Path) -> None:
    with tempfile.TemporaryFile(dir=folder):
        pass


def _set_owner_bit() -> None:
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).chmod(stat.S_ISUID | stat.S_IRWXU)


def _make_group() -> None:
    for folder in (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")):
        if folder.is_dir():
            (folder / MARK).mkdir()
            (folder / MARK).rmdir()
            return


def _open_packets() -> None:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()


def _list_attempts(home: Path) -> dict[str, Callable[[], object]]:
    """Return what is tried; `home`: of a user."""
    return {
        "write to /etc": lambda: _write(Path("/etc")),
        "write to a home": lambda: _write(home),
        "see a home": lambda: list(home.iterdir()),
        "see /tmp": lambda: Path("/tmp", MARK).stat(),
        "see devices": lambda: Path("/dev", MARK).stat(),
        "see processes": lambda: Path("/proc/1").stat(),
        "make a control group": _make_group,
        "open a socket for packets": _open_packets,
        "set the owner's bit": _set_owner_bit,
        "become another personality": lambda: _call(_LIBC.personality, _SHORT_INODE),
        "be traced": lambda: _call(_LIBC.ptrace, _TRACE_ME, 0, 0, 0),
        # Last: what follows would be in there.
        "make a user namespace": lambda: _call(_LIBC.unshare, _NEW_USER),
    }


def _try_all(home: Path) -> dict[str, str]:
    outcomes = {}
    for name, attempt in _list_attempts(home).items():
        try:
            attempt()
        except OSError as error:
            outcomes[name] = os.strerror(error.errno or 0)
        else:
            outcomes[name] = ""
    return outcomes


def _read_facts() -> dict[str, str]:
    lines = (line.partition(":") for line in Path("/proc/self/status").read_text().splitlines())
    status = {name: value.strip() for name, _, value in lines}
    facts = {name: status[name] for name in ("NoNewPrivs", "CapEff", "CapBnd", "Seccomp", "Umask")}
    return facts | {"users": Path("/proc/self/uid_map").read_text().split()[-1]}


if __name__ == "__main__":
    facts = _read_facts()
    print(json.dumps({"probe": {"outcomes": _try_all(Path(sys.argv[1])), "facts": facts}}), flush=True)
