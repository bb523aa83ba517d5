"""What a machine offers, and machines that are refused."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from r1plus_edge.errors import EdgeError
from r1plus_edge.start.machine import (
    EARLIEST,
    FREE_BYTES,
    GIB,
    MIB,
    RESERVED_BYTES,
    LocalMachine,
    await_clock,
    check_machine,
    describe_node,
    read_free_memory,
    read_machine,
)
from r1plus_edge.update.handover import Handover, HandoverKind
from r1plus_edge.update.supervisor import check_start
from r1plus_edge.update.takeover import TakeOver
from support.waiting import wait_until

FIT = LocalMachine("x86_64", (3, 11), 2.0, 4 * GIB, 20 * GIB, has_avx2=True)
REFUSED = {
    "another processor": (replace(FIT, architecture="aarch64"), "processor: aarch64 is none"),
    "another Python": (replace(FIT, python=(3, 12)), "Python 3.12: Triton's package has its backend for 3.11"),
    "no AVX2": (replace(FIT, has_avx2=False), "it has no AVX2"),
    "a full disk": (replace(FIT, disk_bytes=300 * MIB), "300 MiB of disk are free, 1024 MiB are needed"),
}


@pytest.mark.parametrize(("machine", "words"), REFUSED.values(), ids=REFUSED)
def test_a_machine_is_refused_with_what_is_missing(machine: LocalMachine, words: str) -> None:
    with pytest.raises(EdgeError, match=words):
        check_machine(machine, Path("/data"))


def test_a_machine_that_fits_is_accepted_and_is_one_node_without_the_systems_share() -> None:
    check_machine(FIT, Path("/data"))
    node = describe_node(FIT)
    assert (node.cores, node.memory_bytes) == (2.0, 4 * GIB - RESERVED_BYTES)


def make_files(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    make_files(
        tmp_path / "proc",
        meminfo="MemTotal:  8388608 kB\nMemFree: 1 kB\nMemAvailable: 4194304 kB\n",
        cpuinfo="flags : fpu avx avx2 bmi\n",
    )
    return tmp_path / "proc"


def test_what_a_container_may_use_counts_not_what_its_host_has(tmp_path: Path, proc: Path) -> None:
    make_files(tmp_path / "cgroup", memory_DOT_max="1073741824\n", cpu_DOT_max="50000 100000\n")
    machine = read_machine(tmp_path, proc, tmp_path / "cgroup")
    assert (machine.memory_bytes, machine.cores, machine.has_avx2) == (GIB, 0.5, True)


def test_limits_of_version_1_count_as_well(tmp_path: Path, proc: Path) -> None:
    files = {"memory__memory_DOT_limit_in_bytes": "2147483648", "cpu__cpu_DOT_cfs_quota_us": "100000"}
    make_files(tmp_path / "cgroup", **files, cpu__cpu_DOT_cfs_period_us="100000")
    machine = read_machine(tmp_path, proc, tmp_path / "cgroup")
    assert (machine.memory_bytes, machine.cores) == (2 * GIB, 1.0)


GROUPS: dict[str, tuple[str, dict[str, str]]] = {
    "version 2": (
        "0::/user.slice/edge.service\n",
        {
            "user_DOT_slice__cpu_DOT_max": "150000 100000",
            "user_DOT_slice__edge_DOT_service__cpu_DOT_max": "max 100000",
            "user_DOT_slice__edge_DOT_service__memory_DOT_max": "1073741824",
        },
    ),
    "version 1": (
        "4:cpu,cpuacct:/edge\n3:memory:/system.slice/edge\n1:name=systemd:/a:b\n",
        {
            "cpu__edge__cpu_DOT_cfs_quota_us": "150000",
            "cpu__edge__cpu_DOT_cfs_period_us": "100000",
            "memory__system_DOT_slice__memory_DOT_limit_in_bytes": "1073741824",
        },
    ),
}


@pytest.mark.parametrize(("own", "files"), GROUPS.values(), ids=GROUPS)
def test_limits_of_its_own_control_group_and_of_those_above_it_count(
    tmp_path: Path, proc: Path, own: str, files: dict[str, str]
) -> None:
    make_files(proc, self__cgroup=own)
    make_files(tmp_path / "cgroup", **files)
    machine = read_machine(tmp_path, proc, tmp_path / "cgroup")
    assert (machine.memory_bytes, machine.cores) == (GIB, 1.5 if (os.cpu_count() or 1) > 1 else 1.0)


LIMITS = {
    "nobody's": (None, 8 * GIB - RESERVED_BYTES),
    "that of `serve install`, which leaves the system its part": (8 * GIB - FREE_BYTES, 8 * GIB - RESERVED_BYTES),
    "a smaller one": (2 * GIB, 2 * GIB - (RESERVED_BYTES - FREE_BYTES)),
    "a larger one than the machine's": (9 * GIB, 8 * GIB - RESERVED_BYTES),
}


@pytest.mark.parametrize(("limit", "expected"), LIMITS.values(), ids=LIMITS)
def test_a_units_limit_and_what_is_kept_for_the_system_are_not_both_taken_from_an_engine(
    tmp_path: Path, proc: Path, limit: int | None, expected: int
) -> None:
    make_files(proc, self__cgroup="0::/system.slice/edge.service\n")
    text = "max" if limit is None else str(limit)
    make_files(tmp_path / "cgroup", system_DOT_slice__edge_DOT_service__memory_DOT_max=text)
    assert describe_node(read_machine(tmp_path, proc, tmp_path / "cgroup")).memory_bytes == expected


V1_GROUPS = Path("/sys/fs/cgroup")
"""Of version 1: a group of version 2 that limits needs the whole hierarchy to be so."""
READ = "from pathlib import Path; from r1plus_edge.start.machine import *"
CORES = f"{READ}; print(read_machine(Path('/')).cores)"


@contextmanager
def make_control_group(controller: str) -> Iterator[Path]:
    """Have a control group of the kernel's for the block, two below the root."""
    groups = [V1_GROUPS / controller / f"r1plus-test-{os.getpid()}"]
    groups.append(groups[0] / "own")
    try:
        for group in groups:
            group.mkdir()
    except OSError:
        pytest.skip(f"this machine lets nobody make control groups of version 1 for {controller}")
    try:
        yield groups[1]
    finally:
        for group in reversed(groups):
            wait_until(lambda group=group: remove(group), "it is empty")


def run_in(group: Path, script: str) -> str:
    """Run a script of Python in a control group; return what it prints."""
    command = f"echo $$ >{group}/cgroup.procs && exec {sys.executable} -c {shlex.quote(script)}"
    return subprocess.check_output(["/bin/sh", "-c", command], text=True)


def test_a_processor_quota_of_the_kernel_counts() -> None:
    with make_control_group("cpu") as group:
        (group / "cpu.cfs_quota_us").write_text("50000")
        assert run_in(group, CORES) == "0.5\n"


def test_memory_that_the_kernel_limits_above_its_own_group_counts_and_pages_of_files_are_free(tmp_path: Path) -> None:
    write = f"""import os
from pathlib import Path
engine = Path({str(tmp_path / "engine")!r})
with engine.open("wb") as file:
    for _ in range(64):
        file.write(bytes({MIB}))
        os.fsync(file)
for _ in range(2):  # Verified, and then loaded: pages that were read again are others to the kernel.
    with engine.open("rb") as file:
        while file.read({MIB}):
            pass
"""
    with make_control_group("memory") as group:
        (group.parent / "memory.limit_in_bytes").write_text(str(160 * MIB))
        left = int(run_in(group, f"{READ}\n{write}\nprint(read_free_memory())"))
        used = int((group / "memory.usage_in_bytes").read_text())
    print(f"{used / MIB:.0f} MiB of 160 used, {left / MIB:.0f} MiB free")
    assert used >= 60 * MIB, "the pages of the file are charged"
    assert 100 * MIB < left < 160 * MIB


def remove(group: Path) -> bool:
    """Remove a control group; False: it is not empty yet."""
    try:
        group.rmdir()
    except OSError:
        return False
    return True


def test_processors_that_serve_was_denied_count_for_nothing_and_what_it_runs_has_not_more() -> None:
    one = str(min(os.sched_getaffinity(0)))
    assert subprocess.check_output(["taskset", "-c", one, sys.executable, "-c", CORES], text=True) == "1.0\n"


@pytest.mark.parametrize(
    "limits", [{}, {"memory_DOT_max": "max", "cpu_DOT_max": "max 100000"}], ids=["none", "no limit"]
)
def test_without_limits_the_whole_machine_counts(tmp_path: Path, proc: Path, limits: dict[str, str]) -> None:
    (tmp_path / "cgroup").mkdir()
    make_files(tmp_path / "cgroup", **limits)
    assert read_machine(tmp_path, proc, tmp_path / "cgroup").memory_bytes == 8 * GIB


async def test_a_clock_of_1970_is_waited_for_and_told_once() -> None:
    times, told = iter([0.0, 0.0, 1.0, EARLIEST - 1, EARLIEST, EARLIEST]), list[str]()
    await await_clock(told.append, lambda: next(times), period_seconds=0.0)
    assert len(told) == 1
    assert "clock: it says 1970-01-01T00:00:00Z, before r1plus was made" in told[0]
    assert "timedatectl set-time" in told[0]
    assert next(times) == EARLIEST, "it has waited until then"


async def test_a_clock_that_can_be_right_is_not_waited_for() -> None:
    told: list[str] = []
    await await_clock(told.append)
    assert told == []


def test_a_processor_without_avx2_is_refused_with_those_that_fit(tmp_path: Path, proc: Path) -> None:
    (proc / "cpuinfo").write_text("model name : Celeron J4125\nflags : fpu sse4_2 aes\n")
    machine = replace(read_machine(tmp_path, proc, tmp_path), disk_bytes=20 * GIB)
    with pytest.raises(EdgeError, match=r"no AVX2, which OpenVINO needs .* since 2013, AMD's since 2015; a virtual"):
        check_machine(machine, Path("/data"))


def test_avx512_alone_is_no_avx2(tmp_path: Path, proc: Path) -> None:
    (proc / "cpuinfo").write_text("flags : fpu avx avx512f\nmodel name : avx2 in its name\n")
    assert not read_machine(tmp_path, proc, tmp_path).has_avx2


def write_use(
    group: Path, limit: object, used: int, cached: int, *, again: int = 0, mapped: int = 0, is_v1: bool = False
) -> None:
    """Write what the kernel says of a control group's memory."""
    names, fields = ("max", "current"), ("inactive_file", "active_file", "file_mapped")
    if is_v1:
        names, fields = (
            ("limit_in_bytes", "usage_in_bytes"),
            tuple(f"total_{name}" for name in ("inactive_file", "active_file", "mapped_file")),
        )
    group.mkdir(parents=True, exist_ok=True)
    for name, number in zip(names, (limit, used), strict=True):
        (group / f"memory.{name}").write_text(f"{number}\n")
    lines = [f"{field} {number}" for field, number in zip(fields, (cached, again, mapped), strict=True)]
    (group / "memory.stat").write_text("\n".join(["inactive_anon 7", *lines, ""]))


def use_container(root: Path) -> None:
    write_use(root, GIB, GIB // 2, 0)


def use_unit(root: Path) -> None:
    write_use(root / "user.slice", 3 * GIB, GIB, GIB)
    write_use(root / "user.slice/edge.service", "max", GIB // 2, 0)


def use_v1(root: Path) -> None:
    write_use(root / "memory/user.slice", 2 * GIB, GIB, GIB // 4, is_v1=True)
    write_use(root / "memory/user.slice/edge.service", 2**63 - 4096, GIB, 0, is_v1=True)


def use_engine(root: Path) -> None:
    write_use(root / "edge.service", 3 * GIB, 2 * GIB, GIB // 4, again=GIB, mapped=GIB // 2)


def use_libraries(root: Path) -> None:
    write_use(root / "memory", 3 * GIB, 2 * GIB, GIB // 4, again=GIB // 4, mapped=GIB // 2, is_v1=True)


def use_full(root: Path) -> None:
    write_use(root / "user.slice/edge.service", GIB, GIB + 4096, 0)


USES: dict[str, tuple[Callable[[Path], None], str, int]] = {
    "without control groups": (lambda root: None, "", 4 * GIB),
    "a container's": (use_container, "0::/\n", GIB // 2),
    "of systemd, above its own unit, full of a file's pages": (use_unit, "0::/user.slice/edge.service\n", 3 * GIB),
    "of version 1": (use_v1, "3:memory:/user.slice/edge.service\n0::/x\n", GIB + GIB // 4),
    "whose files were read again, of which half are mapped": (use_engine, "0::/edge.service\n", GIB + 3 * (GIB // 4)),
    "of version 1, where more is mapped than was read again": (use_libraries, "", GIB + GIB // 4),
    "beyond its limit": (use_full, "0::/user.slice/edge.service\n", 0),
}


@pytest.mark.parametrize(("make", "own", "expected"), USES.values(), ids=USES)
def test_memory_is_free_as_far_as_the_kernel_and_every_control_group_have_it(
    tmp_path: Path, proc: Path, make: Callable[[Path], None], own: str, expected: int
) -> None:
    make_files(proc, self__cgroup=own)
    make(tmp_path / "cgroup")
    assert read_free_memory(proc, tmp_path / "cgroup") == expected


def test_a_disk_that_has_become_full_ends_neither_what_takes_over_nor_what_goes_back(tmp_path: Path) -> None:
    full, _ = REFUSED["a full disk"]
    for kind in (HandoverKind.FORWARD, HandoverKind.BACK):
        check_start(full, tmp_path, TakeOver(Handover(kind)))
    with pytest.raises(EdgeError, match="MiB of disk are free"):
        check_start(full, tmp_path, None)
