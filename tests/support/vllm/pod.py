"""The container that the plan renders, run on this machine: its command, environment, volumes, user and memory limit.

It gets a root of its own, as a runtime makes one: this machine's programs, Triton where our image has it, the pod's
volumes with their sizes, and a memory cgroup that it sees as its own. Other than in a pod: the ports are free ones of
this machine, and the root's folders are writable where this machine's user may write.
"""

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from r1plus_contract import names
from r1plus_model_repo.catalog.quantity import bytes_of
from support.engine.server import Server
from support.waiting import wait_until

TRITON: Final = "/opt/tritonserver"
"""Where our image has the server."""
CGROUPS: Final = Path("/sys/fs/cgroup/memory")
"""Of cgroup v1."""
_ENTER: Final = """\
root=$1 cgroup=$2 delivery=$3 triton=$4 shm=$5 tmp=$6 user=$7
shift 7
echo $$ >"$cgroup/cgroup.procs"
mount -t tmpfs tmpfs "$root"
for path in /*; do
    name=${path#/}
    case $name in delivery | lost+found | opt | tmp) continue ;; esac
    if [ -L "$path" ]; then cp -P "$path" "$root/$name"
    elif [ -d "$path" ]; then mkdir "$root/$name" && mount --rbind "$path" "$root/$name"; fi
done
mkdir -p "$root/delivery" "$root/tmp" "$root/opt/tritonserver"
mount --bind "$delivery" "$root/delivery"
mount --bind "$triton" "$root/opt/tritonserver"
mount -t tmpfs -o "size=$tmp,mode=1777" tmpfs "$root/tmp"
mount -t tmpfs -o "size=$shm,mode=1777" tmpfs "$root/dev/shm"
mount --bind "$cgroup" "$root/sys/fs/cgroup/memory"
mount -o remount,ro "$root"
exec chroot --userspec="$user" --groups= "$root" "$@"
"""


@dataclass(frozen=True, slots=True)
class RenderedPod:
    """The Triton container of a pod template."""

    spec: Mapping[str, Any]
    """Of the pod."""

    @property
    def container(self) -> Mapping[str, Any]:
        """The container itself."""
        return next(one for one in self.spec["containers"] if one["name"] == names.CONTAINER_TRITON)

    @property
    def environment(self) -> dict[str, str]:
        """Its environment variables."""
        return {one["name"]: one["value"] for one in self.container["env"]}

    @property
    def memory_bytes(self) -> int:
        """Its memory limit."""
        return bytes_of(self.container["resources"]["limits"]["memory"])

    @property
    def command(self) -> list[str]:
        """Its command and arguments without the ports."""
        whole = [*self.container.get("command", ()), *self.container["args"]]
        return [word for word in whole if not word.split("=")[0].endswith("-port")]

    def read_size(self, volume: str) -> int:
        """Return the size of a volume, bytes."""
        sizes = {one["name"]: one["emptyDir"]["sizeLimit"] for one in self.spec["volumes"] if "emptyDir" in one}
        return bytes_of(sizes[volume])

    @property
    def user(self) -> str:
        """User and group of its processes."""
        security = self.spec["securityContext"]
        return f"{security['runAsUser']}:{security['runAsGroup']}"


@contextlib.contextmanager
def limited_memory(limit: int) -> Iterator[Path]:
    """Make a memory cgroup with this limit, bytes, for the block."""
    folder = CGROUPS / f"r1plus-test-{os.getpid()}"
    folder.mkdir()
    try:
        (folder / "memory.limit_in_bytes").write_text(str(limit))
        yield folder
    finally:
        wait_until(lambda: not (folder / "cgroup.procs").read_text(), "the cgroup's processes have ended")
        folder.rmdir()


def start_pod(root: Path, pod: RenderedPod, cgroup: Path, delivery: Path, installed: Path, python: str) -> Server:
    """Start the container with files below `root`; `delivery` is its volume of that name."""
    (root / "root").mkdir()
    installed.chmod(0o755)  # It is a temporary folder, which only its owner may read.
    settings = [root / "root", cgroup, delivery, installed, pod.read_size("shm"), pod.read_size("tmp"), pod.user]
    enter = ["unshare", "--mount", "--propagation", "private", "bash", "-ec", _ENTER, "enter", *map(str, settings)]
    environment = {"LD_LIBRARY_PATH": f"{TRITON}/lib", **pod.environment}
    path = f"{Path(python).parent}:{TRITON}/bin:{os.environ['PATH']}"
    return Server(
        root,
        Path(TRITON),
        Path(names.DIR_MODELS),
        environ={**environment, "PATH": path},
        command=[*enter, *pod.command],
    )


def read_environment(pid: int) -> dict[str, str]:
    """Return the environment with which a process has started."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def read_used_bytes(pid: int, path: str) -> int:
    """Return what is used of the volume at `path`, as a process sees it."""
    done = subprocess.run(["nsenter", f"--target={pid}", "--mount", "--root", "df", "--output=used", "-B1", path],
                          capture_output=True, text=True, check=True)  # fmt: skip
    return int(done.stdout.split()[-1])
