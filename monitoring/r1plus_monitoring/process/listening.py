"""Whether the container's first process holds the monitor's port: its startup probe. Standard library only.

The pod's containers share one network. Where another of them has taken the port, this one never counts as started, so
the pod takes no traffic and the operator believes no report. The supervisor keeps the port until the container ends.
"""

import sys
from pathlib import Path
from typing import Final

from r1plus_contract.names import PORT_MONITOR

_LISTENS: Final = "0A"
_INODE_COLUMN: Final = 9


def list_listeners(port: int, proc: Path = Path("/proc")) -> set[str]:
    """Return what `/proc/PID/fd` shows of the sockets that listen on this TCP port in this network."""
    lines = [line.split() for name in ("tcp", "tcp6") for line in _read_lines(proc / "net" / name)]
    return {
        f"socket:[{fields[_INODE_COLUMN]}]"
        for fields in lines
        if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port
    }


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()[1:]
    except FileNotFoundError:  # a kernel without IPv6
        return []


def holds_port(pid: int, port: int, proc: Path = Path("/proc")) -> bool:
    """Return whether this process has a socket that listens on this TCP port."""
    listeners = list_listeners(port, proc)
    try:
        descriptors = list((proc / str(pid) / "fd").iterdir()) if listeners else []
    except PermissionError:  # another user's process
        return False
    return any(_read_link(one) in listeners for one in descriptors)


def _read_link(path: Path) -> str:
    try:
        return str(path.readlink())
    except (FileNotFoundError, PermissionError):  # closed meanwhile, or another user's
        return ""


def main() -> int:
    """Return 0 if the first process holds the port, else 1 with the reason on standard output."""
    if holds_port(1, PORT_MONITOR):
        return 0
    print(f"Port {PORT_MONITOR} is not this monitor's: it does not listen yet, or another container has taken it")
    return 1


if __name__ == "__main__":
    sys.exit(main())
