"""What this machine offers: as a node of the operator's plan, and what must not be missing."""

import asyncio
import math
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from r1plus_contract.timestamps import format_timestamp
from r1plus_edge.errors import EdgeError
from r1plus_model_repo.importing import triton_server
from r1plus_operator.plan.observation import NodeFacts

MIB: Final = 2**20
GIB: Final = 2**30
RESERVED_BYTES: Final = 512 * MIB
"""Of the memory: for the system, the gateway and `serve` itself."""
FREE_BYTES: Final = 256 * MIB
"""Of that, what the unit of `serve install` leaves to the rest of the system by its `MemoryMax`."""
LEAST_DISK_BYTES: Final = 1 * GIB
"""For Triton, the engine and what serving writes."""
EARLIEST: Final = 1764201600.0
"""Of clocks that can be right: 27 November 2025, seconds since the epoch."""
LABELS: Final[Mapping[str, str]] = {"kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux"}
_MEMORY_FILES: Final = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
"""Of control groups, version 2 and 1: what is allowed, and what is used."""
_PAGE_FIELDS: Final = (
    ("inactive_file", "active_file", "file_mapped"),
    ("total_inactive_file", "total_active_file", "total_mapped_file"),
)
"""Of `memory.stat`, in the same order: pages of files read once, of those read again, and of those that run."""
_CPU_LIMIT: Final = "cpu.max"
_CPU_LIMIT_V1: Final = ("cpu.cfs_quota_us", "cpu.cfs_period_us")


@dataclass(frozen=True, slots=True)
class LocalMachine:
    """This machine, as far as it may be used. Bytes and cores."""

    architecture: str
    python: tuple[int, int]
    """Version of the Python that runs this."""
    cores: float
    memory_bytes: int
    disk_bytes: int
    """Free for an ordinary user where the data are."""
    has_avx2: bool
    reserved_bytes: int = RESERVED_BYTES
    """Of the memory, what no engine gets."""

    @property
    def text(self) -> str:
        """Describe it in a line."""
        return f"{self.cores:g} cores, {self.memory_bytes / GIB:.1f} GiB memory, {self.disk_bytes / GIB:.1f} GiB disk"


def read_machine(folder: Path, proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> LocalMachine:
    """Read what this process may use; limits of a container, or of systemd, count. `folder`: whose disk is asked.

    A container's limit has room for all that `RESERVED_BYTES` is for; a unit's leaves the system out, so less is taken.
    """
    memory = _read_field(proc / "meminfo", "MemTotal:") * 1024
    roots, groups = (cgroup, cgroup / "memory"), _list_groups("memory", proc, cgroup)
    most = min([memory, *_read_memory_limits(group for group in groups if group in roots)])
    unit = _read_memory_limits(group for group in groups if group not in roots)
    usable = min([most - RESERVED_BYTES, *(limit - (RESERVED_BYTES - FREE_BYTES) for limit in unit)])
    cores = [float(len(os.sched_getaffinity(0)))]
    cores += [limit for group in _list_groups("cpu", proc, cgroup) for limit in _read_cpu_limits(group)]
    return LocalMachine(
        architecture=platform.machine(),
        python=sys.version_info[:2],
        cores=min(cores),
        memory_bytes=min([most, *unit]),
        disk_bytes=shutil.disk_usage(folder).free,
        has_avx2=_has_flag(proc / "cpuinfo", "avx2"),
        reserved_bytes=min([most, *unit]) - usable,
    )


def read_free_memory(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes of memory that another process may have now; limits of a container, or of systemd, count."""
    available = _read_field(proc / "meminfo", "MemAvailable:") * 1024
    left = (_read_memory_left(group) for group in _list_groups("memory", proc, cgroup))
    return min([available, *(max(0, one) for one in left if one is not None)])


async def await_clock(
    tell: Callable[[str], None], now: Callable[[], float] = time.time, period_seconds: float = 1.0
) -> None:
    """Wait until the clock can be right, so that no key that has expired is valid. A device may start in 1970."""
    if now() >= EARLIEST:
        return
    tell(
        f"clock: it says {format_timestamp(now())}, before r1plus was made; so keys that have expired would be valid."
        " Set it with `timedatectl set-time`, or let it be set from a network; serve waits for that"
    )
    while now() < EARLIEST:  # noqa: ASYNC110 - it is the kernel's
        await asyncio.sleep(period_seconds)


def check_machine(machine: LocalMachine, folder: Path) -> None:
    """Refuse a machine on which nothing here can run.

    Raises:
        EdgeError: what is missing, and what to do.
    """
    if machine.architecture != "x86_64":
        raise EdgeError(f"processor: {machine.architecture} is none that Triton's package is built for; use x86_64")
    if (version := ".".join(map(str, machine.python))) != triton_server.PYTHON:
        raise EdgeError(
            f"Python {version}: Triton's package has its backend for {triton_server.PYTHON}; make the environment with"
            " that, as `make quickstart` does"
        )
    if not machine.has_avx2:
        raise EdgeError(
            "processor: it has no AVX2, which OpenVINO needs to serve a model of any tier; use one that has it (Intel's"
            " Core and Xeon since 2013, AMD's since 2015; a virtual machine must pass it on), or call a gateway that"
            " serves elsewhere"
        )
    if machine.disk_bytes < LEAST_DISK_BYTES:
        raise EdgeError(
            f"{folder}: {machine.disk_bytes / MIB:.0f} MiB of disk are free, {LEAST_DISK_BYTES / MIB:.0f} MiB are"
            " needed; free some, or name a folder on another disk with --data"
        )


def describe_node(machine: LocalMachine) -> NodeFacts:
    """Return the machine as the one node of the plan."""
    return NodeFacts(
        name="localhost",
        memory_bytes=max(0, machine.memory_bytes - machine.reserved_bytes),
        cores=machine.cores,
        labels=LABELS,
        addresses=("127.0.0.1",),
    )


def _has_flag(cpuinfo: Path, flag: str) -> bool:
    lines = cpuinfo.read_text().splitlines()
    return any(flag in line.split() for line in lines if line.startswith("flags"))


def _read_number(path: Path) -> int | None:
    """Return the number in a file; None where there is none, or no limit."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _read_memory_limits(groups: Iterable[Path]) -> list[int]:
    """Return the bytes that control groups allow; none where they have no limit."""
    files = (group / limit for group in groups for limit, _ in _MEMORY_FILES)
    return [limit for file in files if (limit := _read_number(file)) is not None]


def _read_memory_left(group: Path) -> int | None:
    """Return the bytes that a control group has left; None: no limit.

    A group that has read files is full of their pages, and a new process gets them; but those that a process maps, as
    Triton does an engine, are needed.
    """
    for (limit_file, use_file), fields in zip(_MEMORY_FILES, _PAGE_FIELDS, strict=True):
        limit, used = _read_number(group / limit_file), _read_number(group / use_file)
        if limit is not None and used is not None:
            inactive, active, mapped = (_read_field(group / "memory.stat", field) for field in fields)
            return limit - used + inactive + max(0, active - mapped)
    return None


def _read_field(path: Path, name: str) -> int:
    """Return the number behind a name, the first word of a line; 0 where there is none."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name} ")), 0)


def _list_groups(controller: str, proc: Path, cgroup: Path) -> list[Path]:
    """Return the folders of this process' control group and of those above it: of version 2, and of 1."""
    paths = {"": "", controller: ""}
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        paths |= {name: path.strip("/") for name in controllers.split(",") if name in paths}
    groups = []
    for name, path in paths.items():
        base = cgroup / name
        own = base / path
        groups += [own, *(parent for parent in own.parents if parent.is_relative_to(base))]
    return groups


def _read_cpu_limits(cgroup: Path) -> list[float]:
    """Return the cores that a control group allows; none where it has no limit."""
    try:
        quota, period = (cgroup / _CPU_LIMIT).read_text().split()
        limits = [int(quota) / int(period)] if quota != "max" else []
    except (OSError, ValueError):
        numbers = [_read_number(cgroup / name) for name in _CPU_LIMIT_V1]
        limits = [numbers[0] / numbers[1]] if numbers[0] and numbers[1] and numbers[0] > 0 else []
    return [limit for limit in limits if math.isfinite(limit) and limit > 0]
