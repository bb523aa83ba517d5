"""Takes the cluster away, whatever state it is in, and lists what would be left of it.

Every part is found by what it is (a cgroup, a namespace, a mount, a folder), not by what a healthy run wrote down, so
this works after `kill -9` of anything, and a second time.
"""

import shutil
import socket
from pathlib import Path

from devcluster import daemons, host
from devcluster.cache import cache_dir
from devcluster.components import kubelet
from devcluster.layout import NETNS, Layout

KEPT = ("containerd", "logs")
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


def leftovers(layout: Layout) -> list[str]:
    """One line for each thing of the cluster that is still on the machine; none after `down`."""
    found = [f"process {pid}: {_command_line(pid)}" for pid in sorted({*host.cgroup_pids(), *host.namespace_pids()})]
    found += [f"process {name}" for name in daemons.recorded_names(layout) if daemons.alive(name, layout)]
    found += [f"mount {point}" for point in host.mounts_under([layout.state, layout.run])]
    found += [f"cgroup {folder}" for folder in host.cgroup_folders()]
    found += [f"network namespace {NETNS}"] if (host.NETNS_FOLDER / NETNS).exists() else []
    found += [f"folder {layout.run}"] if layout.run.exists() else []
    found += [f"file {path}" for path in [*_strays(layout), *_dead_sockets()]]
    kept = {layout.state / name for name in KEPT}
    if layout.state.is_dir():
        found += [f"file {path}" for path in layout.state.iterdir() if path not in kept]
    return found


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
