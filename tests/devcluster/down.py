"""Takes the cluster away, whatever state it is in, and lists what would be left of it.

Every part is found by what it is (a cgroup, a namespace, a mount, a folder), not by what a healthy run wrote down, so
this works after `kill -9` of anything, and a second time.
"""

import shutil
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from devcluster import daemons, host, space
from devcluster.cache import cache_dir
from devcluster.components import kubelet
from devcluster.layout import NETNS, Layout

KEPT = ("containerd", "logs")
_TOLD = {"process": "processes", "mount": "mounts", "cgroup": "cgroups", "network namespace": "network namespaces"}
_CNI_RESULTS = Path("/var/lib/cni/results")
_CONTAINER_LOG_LINKS = Path("/var/log/containers")
_SHIM_SOCKETS = Path("/run/containerd/s")
_DEVICE_PLUGINS = Path("/var/lib/kubelet/device-plugins")


def down(layout: Layout, *, purge: bool = False) -> None:
    """Remove processes, then mounts, then the namespace, then files: each may be in use by the one before.

    Imported images and the logs stay for the next start; `purge` removes them, and the image cache as well.
    """
    _end_processes(layout)
    host.unmount_under([layout.state, layout.run])
    host.remove_network()
    host.remove_cgroup()
    host.restore_kernel_settings(layout.state / "kernel-settings.json")
    _remove_strays(layout)
    _remove_files(layout, keep=() if purge else KEPT)
    if purge:
        shutil.rmtree(cache_dir() / "images", ignore_errors=True)


def leftovers(layout: Layout) -> dict[str, list[str]]:
    """What of the cluster is on the machine, by kind; empty after `down`."""
    pids = sorted({*host.cgroup_pids(), *host.namespace_pids()})
    kept = {layout.state / name for name in KEPT}
    files = [layout.run] if layout.run.exists() else []
    files += [*_strays(layout), *_dead_sockets()]
    files += [path for path in layout.state.iterdir() if path not in kept] if layout.state.is_dir() else []
    found = {
        "process": [f"{pid}: {_command_line(pid)}" for pid in pids],
        "daemon": [name for name in daemons.recorded_names(layout) if daemons.alive(name, layout)],
        "mount": host.mounts_under([layout.state, layout.run]),
        "cgroup": [str(folder) for folder in host.cgroup_folders()],
        "network namespace": [NETNS] if (host.NETNS_FOLDER / NETNS).exists() else [],
        "file": [str(path) for path in files],
    }
    return {kind: items for kind, items in found.items() if items}


def told(before: Mapping[str, Sequence[str]], layout: Layout) -> list[str]:
    """What `down` did, given what was there before it, and what it leaves on purpose, with the way to remove that."""
    counted = [(len(before.get(kind, ())), kind, several) for kind, several in _TOLD.items()]
    counts = [f"{count} {kind if count == 1 else several}" for count, kind, several in counted if count]
    ours = {cache_dir(): "programs, engines, images", layout.state: "the cluster's images and its last logs"}
    shared = dict(zip(space.go_folders(), ("Go's modules", "Go's build cache"), strict=True))
    shared[space.uv_folder()] = "uv's packages"
    kept = {folder: what for folder, what in (ours | shared).items() if folder.is_dir()}
    return [
        f"Stopped and removed: {', '.join(counts)}" if counts else "No cluster was running",
        "Kept, so that the next make demo is quick:" if kept else "Nothing is kept",
        *(f"  {space.gigabytes(space.used(folder)):>8}  {folder}  {what}" for folder, what in kept.items()),
        *_removal("To remove this project's:", kept, ours),
        *_removal("To remove the others', if no other project here uses Go and uv:", kept, shared),
    ]


def _removal(title: str, kept: Mapping[Path, str], group: Mapping[Path, str]) -> list[str]:
    folders = " ".join(str(folder) for folder in kept if folder in group)
    return [f"{title} rm -rf {folders}"] if folders else []


def _end_processes(layout: Layout) -> None:
    """The kubelet first, or it would start again what is being stopped; then everything at once, without ceremony."""
    daemons.stop(kubelet.NAME, layout, grace_s=0.0)
    for name in daemons.recorded_names(layout):
        daemons.stop(name, layout, grace_s=0.0)
    host.kill_all(host.cgroup_pids, "the cluster's processes")
    host.kill_all(host.namespace_pids, "processes in the network namespace")


def _strays(layout: Layout) -> list[Path]:
    """Files that components write to fixed places outside the cluster's folders."""
    found = [path for path in _CNI_RESULTS.glob("*") if str(layout.run) in path.read_text(errors="replace")]
    if _CONTAINER_LOG_LINKS.is_dir():
        found += [link for link in _CONTAINER_LOG_LINKS.iterdir() if _points_under(link, layout.state)]
    return found


def _remove_strays(layout: Layout) -> None:
    for path in _strays(layout):
        path.unlink(missing_ok=True)
    for path in _dead_sockets():
        path.unlink(missing_ok=True)
    for folder in (_CNI_RESULTS, _CNI_RESULTS.parent, _CONTAINER_LOG_LINKS, _SHIM_SOCKETS, _SHIM_SOCKETS.parent):
        _remove_if_empty(folder)
    if _DEVICE_PLUGINS.is_dir() and list(_DEVICE_PLUGINS.parent.iterdir()) == [_DEVICE_PLUGINS]:
        shutil.rmtree(_DEVICE_PLUGINS.parent)


def _dead_sockets() -> list[Path]:
    """Shims' sockets that nobody listens on any more; they lie in a folder that all containerds of a machine share."""
    if not _SHIM_SOCKETS.is_dir():
        return []
    return [path for path in _SHIM_SOCKETS.iterdir() if path.is_socket() and _refuses(path)]


def _refuses(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def _remove_files(layout: Layout, keep: tuple[str, ...]) -> None:
    shutil.rmtree(layout.run, ignore_errors=True)
    if not layout.state.is_dir():
        return
    for path in layout.state.iterdir():
        if path.name in keep:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    _remove_if_empty(layout.state)


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return


def _points_under(link: Path, folder: Path) -> bool:
    return link.is_symlink() and link.readlink().is_relative_to(folder)


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:120].strip()
    except OSError:
        return "ended meanwhile"
