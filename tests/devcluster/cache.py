"""Where things lie: the cache that outlives a clone, and the folders of the running cluster.

Everything that takes minutes to make goes under `cache_dir()`, keyed by version, so that a second clone finds it.
Everything that a running cluster writes goes under `state_dir()` and `run_dir()`, which `down` removes.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devcluster.parts import go_binary

CACHE_VARIABLE = "R1PLUS_CACHE"
STATE_VARIABLE = "R1PLUS_DEVCLUSTER_STATE"
RUN_VARIABLE = "R1PLUS_DEVCLUSTER_RUN"


def cache_dir() -> Path:
    """Return the root of what is built once: binaries, images, engines. Outside every clone."""
    if os.environ.get(CACHE_VARIABLE):
        return Path(os.environ[CACHE_VARIABLE])
    if os.geteuid() == 0:
        return Path("/var/cache/r1plus")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "r1plus"


def state_dir() -> Path:
    """The running cluster's data: etcd, certificates, containerd's content, the kubelet's pods, logs."""
    return Path(os.environ.get(STATE_VARIABLE, "/var/lib/r1plus-devcluster"))


def run_dir() -> Path:
    """The running cluster's sockets and recorded process ids."""
    return Path(os.environ.get(RUN_VARIABLE, "/run/r1plus-devcluster"))


def log_dir() -> Path:
    """Build logs, kept beside what they built."""
    return cache_dir() / "log"


def binary(name: str) -> Path:
    """Path of a Go binary of the table, whether or not it has been built yet; `build` makes it."""
    part = go_binary(name)
    return cache_dir() / "bin" / f"{part.name}-{part.version}" / part.name


@contextmanager
def locked(name: str, root: Path | None = None) -> Iterator[None]:
    """Hold the lock `name` for the block: two runs at once take turns, and the kernel frees it if one is killed."""
    folder = (root if root is not None else cache_dir()) / "lock"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A temporary path beside `target` that is renamed to it when the block succeeds: `target` is whole or absent."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        made = scratch / target.name
        yield made
        made.replace(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
