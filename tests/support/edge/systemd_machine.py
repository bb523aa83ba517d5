"""A machine that a real systemd has booted: PID 1 of namespaces of its own, over a copy of this machine's files.

Nothing of it reaches this machine: its root is an overlay whose writes stay in memory, its network has loopback alone,
its control groups are below ours, and the kernel's settings are read-only.
"""

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from support.waiting import wait_until

SYSTEMD: Final = Path("/lib/systemd/systemd")
_CGROUPS: Final = Path("/sys/fs/cgroup")
_UNIFIED: Final = "unified"
"""Folder of cgroup v2 where it is mounted beside v1."""
_CONTROLLERS: Final = ("", "name=systemd", "memory", "pids", "devices")
"""Of v1, those by which units are limited; the empty one is v2. In a group for the processor, the whole machine would get
no more of it than one process beside it."""
_BOOT_SECONDS: Final = 300.0
_ENTER: Final = """
set -eu
for group in $GROUPS; do echo $$ >"$group/cgroup.procs"; done
exec unshare --fork --kill-child --pid --mount --cgroup --uts --ipc --net /bin/sh -c "$BOOT"
"""
_BOOT: Final = """
set -eu
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$SCRATCH"
mkdir "$SCRATCH/upper" "$SCRATCH/work" "$SCRATCH/root"
mount -t overlay -o "lowerdir=/,upperdir=$SCRATCH/upper,workdir=$SCRATCH/work" overlay "$SCRATCH/root"
cd "$SCRATCH/root"
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
for pair in $FOLDERS; do mkdir -p ".${pair#*:}"; mount --bind "${pair%%:*}" ".${pair#*:}"; done
mount -t proc proc proc
for part in proc/sys proc/sysrq-trigger proc/irq proc/bus; do
  if [ -e $part ]; then mount --bind $part $part; mount -o remount,bind,ro $part; fi
done
mount -t sysfs -o ro sysfs sys
eval "$MOUNT_CGROUPS"
for device in null zero full random urandom tty; do touch dev/$device; mount --bind /dev/$device dev/$device; done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ip link set lo up
# Of what this machine starts by itself, nothing.
rm -rf etc/systemd/system/*.wants etc/rc?.d
for unit in sys-kernel-debug.mount sys-kernel-tracing.mount systemd-modules-load.service; do
  ln -s /dev/null etc/systemd/system/$unit
done
: >etc/machine-id
: >etc/fstab
mkdir former
pivot_root . former
umount -l /former
exec env -i container=r1plus-test PATH=/usr/sbin:/usr/bin:/sbin:/bin "$SYSTEMD" --system --unit=multi-user.target \
  --show-status=0 </dev/null
"""


@dataclass(frozen=True, slots=True)
class SystemdMachine:
    """One that has booted."""

    init: int
    """Its PID 1, as this machine numbers it."""

    def run(
        self, command: str, user: str = "", environ: Mapping[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run a line of a shell there, as root or a user; what it prints, errors too, is its `stdout`."""
        enter = ["nsenter", f"--target={self.init}", "--all", "--root", "--wd"]
        identity = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"] if user else []
        own = {"HOME": f"/home/{user}" if user else "/root", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **(environ or {})}
        words = [*enter, *identity, "env", "-i", *(f"{name}={value}" for name, value in own.items())]
        return subprocess.run(
            [*words, "sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def check(self, command: str, user: str = "", environ: Mapping[str, str] | None = None) -> str:
        """Run a line that has to succeed; return what it prints."""
        result = self.run(command, user, environ)
        assert result.returncode == 0, f"{command}: {result.returncode}: {result.stdout}"
        return result.stdout.strip()


@contextmanager
def boot_machine(folders: Mapping[Path, str]) -> Iterator[SystemdMachine]:
    """Boot a machine for the block. `folders`: of this machine -> where that one has them. It needs root."""
    scratch = Path(tempfile.mkdtemp(prefix="r1plus-systemd-", dir="/srv"))
    log = scratch.with_suffix(".log")
    groups = _make_groups(scratch.name)
    environ = {
        "PATH": os.environ["PATH"],
        "SCRATCH": str(scratch),
        "SYSTEMD": str(SYSTEMD),
        "BOOT": _BOOT,
        "GROUPS": " ".join(map(str, groups.values())),
        "MOUNT_CGROUPS": _build_cgroup_mounts(groups),
        "FOLDERS": " ".join(f"{own}:{there}" for own, there in folders.items()),
    }
    with log.open("wb") as output:
        # If the tests are killed, the machine ends, too: `unshare` kills its PID 1.
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig=KILL", "/bin/sh", "-c", _ENTER], env=environ, stdout=output, stderr=output
        )
    try:
        yield _await_boot(process, log)
    finally:
        process.kill()
        process.wait()
        for group in groups.values():
            wait_until(lambda group=group: _remove_group(group), f"{group} is empty")  # type: ignore[misc]
        shutil.rmtree(scratch)
        log.unlink()


def _await_boot(process: "subprocess.Popen[bytes]", log: Path) -> SystemdMachine:
    def find_init() -> int:
        assert process.poll() is None, log.read_text()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        is_init = children and Path(f"/proc/{children[0]}/cmdline").read_bytes().startswith(bytes(SYSTEMD))
        return int(children[0]) if is_init else 0

    machine = SystemdMachine(wait_until(find_init, "systemd is PID 1", _BOOT_SECONDS, evidence=log.read_text))

    def is_running() -> bool:
        assert process.poll() is None, log.read_text()
        return machine.run("systemctl is-system-running").stdout.strip() == "running"

    wait_until(
        is_running,
        "every unit of the boot is up",
        _BOOT_SECONDS,
        evidence=lambda: machine.run("systemctl --no-pager --failed; journalctl -p warning --no-pager").stdout,
    )
    return machine


def _make_groups(name: str) -> dict[str, Path]:
    """Make a control group below ours in each hierarchy that is mounted; return controllers -> its folder."""
    groups = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, own = line.split(":", 2)
        parent = _CGROUPS / _find_folder(controllers) / own.lstrip("/")
        if controllers in _CONTROLLERS and parent.is_dir():
            groups[controllers] = parent / name
            groups[controllers].mkdir()
            if not controllers and not _is_hybrid():
                (parent / "cgroup.subtree_control").write_text("+memory +pids")
    return groups


def _is_hybrid() -> bool:
    """Whether v1 is mounted, and v2 beside it."""
    return (_CGROUPS / _UNIFIED).is_dir()


def _find_folder(controllers: str) -> str:
    """Return the folder of a hierarchy, as /proc/self/cgroup names it."""
    if not controllers:
        return _UNIFIED if _is_hybrid() else ""
    return controllers.removeprefix("name=")


def _build_cgroup_mounts(groups: Mapping[str, Path]) -> str:
    """Return the lines that mount the hierarchies, as they are mounted here."""
    lines = ["mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup"] if _is_hybrid() else []
    for controllers in groups:
        target = shlex.quote(f"sys/fs/cgroup/{_find_folder(controllers)}")
        options = f"none,{controllers}" if "=" in controllers else controllers
        kind = f"cgroup -o {options}" if controllers else "cgroup2"
        lines.append(f"mkdir -p {target}; mount -t {kind} cgroup {target}")
    # Read-only, so that systemd mounts no others: those would be this machine's own.
    return "\n".join([*lines, *["mount -o remount,ro sys/fs/cgroup"] * _is_hybrid()])


def _remove_group(group: Path) -> bool:
    """Remove a control group with those below it; False: something still runs in one."""
    for folder in (*sorted((one for one in group.rglob("*") if one.is_dir()), reverse=True), group):
        with suppress(FileNotFoundError):
            try:
                folder.rmdir()
            except OSError:
                return False
    return True
