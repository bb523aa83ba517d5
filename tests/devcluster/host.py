"""What the cluster needs of the host beside processes: a network namespace, a cgroup, a few kernel settings.

Each comes as a pair: the function that makes it, and the one that takes it back. The second works on whatever it
finds, for the run that made it may have been killed at any line.
"""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from devcluster.layout import NETNS, NODE_NETWORK
from devcluster.shell import output, succeeds
from support.waiting import wait_until

CGROUP = "r1plus-devcluster"
CGROUP_ROOT = Path("/sys/fs/cgroup")
NETNS_FOLDER = Path("/run/netns")
NODE_DEVICE = "node0"

# Of cgroup v1 and v2: four times the default, so that pods and the tests beside them both get on.
CPU_WEIGHTS = {"cpu.shares": "4096", "cpu.weight": "400"}

# The kubelet sets these for the whole machine; `restore_kernel_settings` puts the old values back.
KERNEL_SETTINGS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)


def make_network(netns: str = NETNS) -> None:
    """A namespace from which no packet can leave the machine; a bridge carries the node's address.

    A bridge, because the kernel may have no dummy device; the default route only has to exist, for kube-apiserver
    and others to find 'the' address.
    """
    output(["ip", "netns", "add", netns])
    inside = ["ip", "-n", netns]
    for words in (
        "link set lo up",
        f"link add {NODE_DEVICE} type bridge",
        f"address add {NODE_NETWORK} dev {NODE_DEVICE}",
        f"link set {NODE_DEVICE} up",
        f"route add default dev {NODE_DEVICE}",
    ):
        output([*inside, *words.split()])
    settings = ("net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables")
    script = "\n".join(f"echo 1 > /proc/sys/{setting}" for setting in settings)
    output(["nsenter", f"--net={NETNS_FOLDER / netns}", "--", "sh", "-ec", script])


def remove_network(netns: str = NETNS) -> None:
    """Delete the namespace, and with it every device, address and firewall rule that was made inside it."""
    if (NETNS_FOLDER / netns).exists():
        kill_all(namespace_pids, "processes in the network namespace")
        succeeds(["ip", "netns", "delete", netns])
    # `ip` mounts the folder on itself for the first namespace of a machine, and leaves that when the last one goes.
    if NETNS_FOLDER.is_mount() and not any(NETNS_FOLDER.iterdir()):
        succeeds(["umount", str(NETNS_FOLDER)])


def namespace_pids(netns: str = NETNS) -> list[int]:
    """Processes whose network namespace is the cluster's: its daemons, and whatever was started with `exec`."""
    if not (NETNS_FOLDER / netns).exists():
        return []
    return [int(pid) for pid in output(["ip", "netns", "pids", netns]).split()]


def cgroup_folders() -> list[Path]:
    """The cluster's cgroup in every hierarchy where there is one; on v1 runc also makes it in the unified one."""
    roots = [*_hierarchies(), CGROUP_ROOT / "unified"]
    return [folder for folder in (root / CGROUP for root in roots) if folder.is_dir()]


def make_cgroup() -> None:
    """Make the cgroup that the kubelet puts pods under, and the one beside it for the cluster's daemons.

    At the default weight the whole cluster would get no more of the processor than one single process of the host.
    """
    for root in _hierarchies():
        (root / CGROUP).mkdir(exist_ok=True)
        for name, weight in CPU_WEIGHTS.items():
            if (root / CGROUP / name).exists():
                (root / CGROUP / name).write_text(weight)
    daemon_cgroup().mkdir(exist_ok=True)


def daemon_cgroup() -> Path:
    """Where daemons are put, so that their children can be found when their parents have been killed."""
    root = CGROUP_ROOT if _unified() else CGROUP_ROOT / "pids"
    return root / CGROUP / "daemons"


def cgroup_pids() -> list[int]:
    """Every process of the cluster: daemons, their children and all that runs in pods."""
    found: set[int] = set()
    for folder in cgroup_folders():
        for procs in folder.rglob("cgroup.procs"):
            try:
                found.update(int(pid) for pid in procs.read_text().split())
            except OSError:
                continue  # The cgroup went away meanwhile, which is what is wanted.
    return sorted(found - {0, os.getpid()})


def remove_cgroup() -> None:
    """Kill what is left in the cgroup and remove its folders, the deepest first."""
    kill_all(cgroup_pids, "processes in the cluster's cgroup")
    for top in cgroup_folders():
        for folder in [*_deepest_first(top), top]:
            wait_until(partial(_removed, folder), f"cgroup {folder} is empty and removed")


def kill_all(pids: Callable[[], list[int]], what: str) -> None:
    """SIGKILL everything that `pids` lists, again and again, until it lists nothing."""

    def all_gone() -> bool:
        left = pids()
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    wait_until(all_gone, f"{what} are gone after SIGKILL", evidence=lambda: f"Still there: {pids()}")


def mounts_under(folders: list[Path]) -> list[str]:
    """Mount points under any of `folders`, the last mounted first."""
    prefixes = tuple(f"{folder}/" for folder in folders)
    points = [line.split()[4].replace("\\040", " ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in reversed(points) if point.startswith(prefixes) or f"{point}/" in prefixes]


def unmount_under(folders: list[Path]) -> None:
    """Take every mount under `folders` away, and make sure of it: what is deleted next must not be somebody else's."""
    for point in mounts_under(folders):
        succeeds(["umount", "--lazy", point])
    left = mounts_under(folders)
    if left:
        raise RuntimeError(
            f"could not unmount {', '.join(left[:3])} ({len(left)} in all); unmount by hand and run down again"
        )


def save_kernel_settings(record: Path) -> None:
    """Write down the settings that the kubelet will change, unless an earlier run has done so already."""
    if record.exists():
        return
    values = {name: path.read_text().strip() for name, path in _kernel_settings()}
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(values))


def restore_kernel_settings(record: Path) -> None:
    """Put back what `save_kernel_settings` wrote down."""
    if not record.exists():
        return
    old = json.loads(record.read_text())
    for name, path in _kernel_settings():
        if name in old and path.read_text().strip() != old[name]:
            path.write_text(old[name])
    record.unlink()


def _kernel_settings() -> Iterator[tuple[str, Path]]:
    for name in KERNEL_SETTINGS:
        path = Path("/proc/sys") / name
        if path.exists():
            yield name, path


def _unified() -> bool:
    return (CGROUP_ROOT / "cgroup.controllers").exists()


def _hierarchies() -> list[Path]:
    """Roots of the cgroup hierarchies; on v1 the unified one of systemd holds no controller and is left alone."""
    if _unified():
        return [CGROUP_ROOT]
    return [
        root for root in CGROUP_ROOT.iterdir() if root.is_dir() and not root.is_symlink() and root.name != "unified"
    ]


def _deepest_first(top: Path) -> list[Path]:
    folders = [folder for folder in top.rglob("*") if folder.is_dir()]
    return sorted(folders, key=lambda folder: len(folder.parts), reverse=True)


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
