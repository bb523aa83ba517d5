"""A machine that a real systemd has booted: PID 1 of namespaces of its own, over a copy of this machine's files.

Nothing of it reaches this machine: its root is an overlay whose writes stay in memory, its network has loopback alone,
its control groups are below ours, and the kernel's settings are read-only. It can be booted again, with what it wrote.
"""

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Iterator, Mapping
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
_DISK: Final = """
set -eu
mount -t tmpfs -o mode=755 tmpfs "$SCRATCH"
mkdir "$SCRATCH/upper" "$SCRATCH/work" "$SCRATCH/root"
echo mounted
exec cat
"""
_ENTER: Final = """
set -eu
for group in $GROUPS; do echo $$ >"$group/cgroup.procs"; done
exec nsenter --target="$DISK" --mount unshare --fork --kill-child --pid --mount --cgroup --uts --ipc --net /bin/sh -c "$BOOT"
"""
_BOOT: Final = """
set -eu
mount --make-rprivate /
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
cat /proc/sys/kernel/random/uuid >run/boot_id
mount --bind run/boot_id proc/sys/kernel/random/boot_id
mount -t sysfs -o ro sysfs sys
eval "$MOUNT_CGROUPS"
for device in null zero full random urandom tty; do touch dev/$device; mount --bind /dev/$device dev/$device; done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ip link set lo up
if [ ! -d former ]; then
  # Of what this machine starts by itself, nothing.
  rm -rf etc/systemd/system/*.wants etc/rc?.d
  for unit in sys-kernel-debug.mount sys-kernel-tracing.mount systemd-modules-load.service; do
    ln -s /dev/null etc/systemd/system/$unit
  done
  : >etc/machine-id
  : >etc/fstab
  mkdir former
fi
pivot_root . former
umount -l /former
exec env -i container=r1plus-test PATH=/usr/sbin:/usr/bin:/sbin:/bin "$SYSTEMD" --system --unit=multi-user.target \
  --show-status=0 </dev/null
"""


@dataclass(slots=True)
class SystemdMachine:
    """One with a disk of its own, which stays over boots."""

    scratch: Path
    environ: Mapping[str, str]
    """Of what boots it."""
    init: int = 0
    """Its PID 1, as this machine numbers it."""
    _process: "subprocess.Popen[bytes] | None" = None
    _groups: Collection[Path] = ()

    def boot(self) -> None:
        """Start systemd, and wait until every unit of the boot is up."""
        groups = _make_groups(self.scratch.name)
        self._groups = groups.values()
        own = {"GROUPS": " ".join(map(str, self._groups)), "MOUNT_CGROUPS": _build_cgroup_mounts(groups)}
        with self._log.open("ab") as output:
            # If the tests are killed, the machine ends, too: `unshare` kills its PID 1.
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig=KILL", "/bin/sh", "-c", _ENTER],
                env={**self.environ, **own},
                stdout=output,
                stderr=output,
            )
        self.init = wait_until(self._find_init, "systemd is PID 1", _BOOT_SECONDS, evidence=self._log.read_text)
        wait_until(self._is_up, "every unit of the boot is up", _BOOT_SECONDS, evidence=self._list_troubles)

    def reboot(self) -> None:
        """Let systemd end everything, and start again."""
        self.run("systemctl reboot")
        wait_until(lambda: not self._is_on, "systemd has ended", evidence=self._log.read_text)
        self._remove_groups()
        self.boot()

    def cut_power(self) -> None:
        """End every process at once, as SIGKILL does; return when none is left."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._remove_groups()

    def start(self, command: str, user: str = "", environ: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
        """Start a line of a shell there, as root or a user; what it prints, errors too, is its `stdout`."""
        enter = ["nsenter", f"--target={self.init}", "--all", "--root", "--wd"]
        identity = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"] if user else []
        own = {"HOME": f"/home/{user}" if user else "/root", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **(environ or {})}
        words = [*enter, *identity, "env", "-i", *(f"{name}={value}" for name, value in own.items())]
        return subprocess.Popen(
            [*words, "sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def run(
        self, command: str, user: str = "", environ: Mapping[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run such a line to its end."""
        with self.start(command, user, environ) as process:
            output, _ = process.communicate()
        return subprocess.CompletedProcess(command, process.returncode, output)

    def check(self, command: str, user: str = "", environ: Mapping[str, str] | None = None) -> str:
        """Run a line that has to succeed; return what it prints."""
        result = self.run(command, user, environ)
        assert result.returncode == 0, f"{command}: {result.returncode}: {result.stdout}"
        return result.stdout.strip()

    @property
    def _log(self) -> Path:
        return self.scratch.with_suffix(".log")

    @property
    def _is_on(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _remove_groups(self) -> None:
        for group in self._groups:
            wait_until(lambda group=group: _remove_group(group), f"{group} is empty")  # type: ignore[misc]
        self._groups = ()

    def _find_init(self) -> int:
        assert self._process is not None
        assert self._is_on, self._log.read_text()
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        is_init = children and Path(f"/proc/{children[0]}/cmdline").read_bytes().startswith(bytes(SYSTEMD))
        return int(children[0]) if is_init else 0

    def _is_up(self) -> bool:
        assert self._is_on, self._log.read_text()
        return self.run("systemctl is-system-running").stdout.strip() == "running"

    def _list_troubles(self) -> str:
        return self.run("systemctl --no-pager --failed; journalctl -b -p warning --no-pager").stdout


@contextmanager
def boot_machine(folders: Mapping[Path, str]) -> Iterator[SystemdMachine]:
    """Boot a machine for the block. `folders`: of this machine -> where that one has them. It needs root."""
    scratch = Path(tempfile.mkdtemp(prefix="r1plus-systemd-", dir="/srv"))
    environ = {"PATH": os.environ["PATH"], "SCRATCH": str(scratch), "SYSTEMD": str(SYSTEMD), "BOOT": _BOOT}
    environ["FOLDERS"] = " ".join(f"{own}:{there}" for own, there in folders.items())
    try:
        with _make_disk(environ) as holder:
            machine = SystemdMachine(scratch, {**environ, "DISK": str(holder)})
            try:
                machine.boot()
                yield machine
            finally:
                machine.cut_power()
    finally:
        shutil.rmtree(scratch)
        scratch.with_suffix(".log").unlink(missing_ok=True)


@contextmanager
def _make_disk(environ: Mapping[str, str]) -> Iterator[int]:
    """Have a process hold a mount namespace with the machine's disk for the block; return its number."""
    words = ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--propagation=private", "/bin/sh", "-c", _DISK]
    with subprocess.Popen(words, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"mounted\n"
        yield holder.pid


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
