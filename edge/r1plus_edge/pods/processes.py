"""The processes of one data folder: how they are told from others, and how they all end.

Every container's process has the folder in a variable, which its children inherit. So none is missed, whatever forked
it. A process that ends loses its variables first, and its memory and its ports last: `EndWatch` waits for all of it.
"""

import hashlib
import os
import shutil
import signal
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from r1plus_edge.errors import EdgeError

ENV_DATA: Final = "R1PLUS_EDGE_DATA"
SHARED_MEMORY: Final = Path("/dev/shm")
_LOOK_SECONDS: Final = 0.02
_PROC: Final = Path("/proc")
_ENDED: Final = ("Z", "X")
"""States of a thread that runs no more."""
_TICKS: Final = os.sysconf("SC_CLK_TCK")
"""Of the kernel's clock, a second."""


def mark(root: Path) -> Mapping[str, str]:
    """Return the variable that marks processes of this data folder."""
    return {ENV_DATA: str(root)}


def check_unmarked(environ: Mapping[str, str] = os.environ) -> None:
    """Refuse to serve with a mark of one's own: what ends the processes that bear it would end this one.

    Raises:
        EdgeError: the environment has the variable.
    """
    if ENV_DATA in environ:
        raise EdgeError(f"{ENV_DATA}: marks processes that serve starts, and that it ends; unset it, and use --data")


def name_region(root: Path) -> str:
    """Return the prefix of the shared memory of Triton's Python backend, which a killed one leaves behind."""
    return f"r1plus-edge-{os.getuid()}-{hashlib.sha256(str(root).encode()).hexdigest()[:12]}-"


def find_processes(root: Path) -> list[int]:
    """Return the processes that bear the mark of this data folder."""
    wanted = f"{ENV_DATA}={root}".encode()
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit() and wanted in _read_environment(entry)]


def _read_environment(process: Path) -> list[bytes]:
    try:
        return (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return []  # It has ended, or is another user's.


def remove_remains(root: Path, pods: Path) -> list[int]:
    """Kill all processes of a data folder, and remove their shared memory and pods' folders. Return who was killed."""
    killed = EndWatch()
    while (processes := find_processes(root)) or killed.list_running():
        killed.add(processes)
        for pid in processes:
            send(pid, signal.SIGKILL)
        time.sleep(_LOOK_SECONDS)
    for region in SHARED_MEMORY.glob(f"{name_region(root)}*"):
        region.unlink(missing_ok=True)
    if pods.is_dir():
        for folder in pods.iterdir():
            shutil.rmtree(folder, ignore_errors=True)
    return sorted(killed.starts)


@dataclass(frozen=True, slots=True)
class EndWatch:
    """Processes whose end is waited for."""

    starts: dict[int, str] = field(default_factory=dict)
    """Number -> when it started, as in `Stat`: another process may have the number later."""

    def add(self, processes: Iterable[int]) -> None:
        """Wait for the end of these, too, as far as they run."""
        self.starts.update((pid, start) for pid in processes if (start := find_start(pid)) is not None)

    def list_running(self) -> list[int]:
        """Return those that have not ended, though some may show no variable any more."""
        return [pid for pid, start in self.starts.items() if find_start(pid) == start]


def send(pid: int, number: int) -> None:
    """Send a signal to a process that may have ended."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


@dataclass(frozen=True, slots=True)
class Stat:
    """What the kernel says of a process, or of one of its threads."""

    state: str
    seconds: float
    """Of a processor, since its start."""
    waited_seconds: float
    """Of a processor, of the processes that it has waited for."""
    threads: int
    started: str
    """When it started, ticks since the machine did: with its number this names a process for good."""

    @property
    def has_ended(self) -> bool:
        """Whether it runs no more: of one that is killed, other threads may hold its ports longer than the first."""
        return self.state in _ENDED and self.threads <= 1


def read_stat(folder: Path) -> Stat | None:
    """Return what /proc says of a process, or of a thread, by its folder there; None: it is gone."""
    try:
        # From its state on: the name before it may have spaces and brackets.
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    user, system, waited_user, waited_system = (int(field) / _TICKS for field in fields[11:15])
    return Stat(fields[0], user + system, waited_user + waited_system, int(fields[17]), fields[19])


def has_ended(pid: int) -> bool:
    """Return whether a process has ended with all its threads, also if its parent has not taken note of that."""
    return find_start(pid) is None


def find_start(pid: int) -> str | None:
    """Return when a process started, as in `Stat`; None: it has ended with all its threads."""
    stat = read_stat(_PROC / str(pid))
    return None if stat is None or stat.has_ended else stat.started


def measure_processor(root: Path) -> float:
    """Return the processor seconds of this process, of the data folder's, and of all that they have waited for."""
    stats = (read_stat(_PROC / str(pid)) for pid in find_processes(root))
    return sum(os.times()[:4]) + sum(one.seconds + one.waited_seconds for one in stats if one is not None)


def read_processor_seconds(processes: Iterable[int]) -> float:
    """Return the processor time of processes since their start, seconds. One that is gone counts nothing."""
    stats = (read_stat(_PROC / str(pid)) for pid in processes)
    return sum(one.seconds for one in stats if one is not None)


def read_thread_seconds(pid: int) -> dict[int, float]:
    """Return the processor time of each thread of a process, seconds. OSError: it is gone."""
    stats = {int(task.name): read_stat(task) for task in (_PROC / str(pid) / "task").iterdir()}
    return {thread: one.seconds for thread, one in stats.items() if one is not None}


def measure_memory(pid: int) -> int:
    """Return the memory of a process and its descendants that the kernel cannot take back, bytes.

    A memory-mapped engine is not part of it: its pages are the file's.
    """
    total, waiting = 0, [pid]
    while waiting:
        pid = waiting.pop()
        try:
            lines = (_PROC / str(pid) / "status").read_text().splitlines()
            children = list_children(pid)
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "RssShmem:")))
        waiting += children
    return total * 1024


def list_children(pid: int) -> list[int]:
    """Return the processes that all threads of a process have started. OSError: it has ended."""
    tasks = list((_PROC / str(pid) / "task").iterdir())
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def read_proportional_memory(processes: Iterable[int]) -> int:
    """Return the memory of processes, bytes: a page that several share counts in parts."""
    total = 0
    for pid in processes:
        try:
            lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total * 1024
