"""Whether the disk holds what a first run writes, asked before it begins: a full disk half-way says nothing of itself.

The sizes are those of a first run from nothing, rounded up; what lies there already is not needed again.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from devcluster.binaries import ALL
from devcluster.cache import CACHE_VARIABLE, STATE_VARIABLE, binary, cache_dir, state_dir

GB = 10**9


@dataclass(frozen=True, slots=True)
class Need:
    """What one folder will hold, in bytes."""

    folder: Path
    bytes: int
    what: str
    moved_by: str
    """Environment variable that puts it elsewhere."""
    holds: int = 0
    """Bytes that are there already."""

    @property
    def missing(self) -> int:
        """Bytes that are still to be written."""
        return max(0, self.bytes - self.holds)

    def __str__(self) -> str:
        return f"{gigabytes(self.missing)} in {self.folder} ({self.what}; {self.moved_by}=DIR puts it elsewhere)"


def require(more: int = 0) -> None:
    """RuntimeError that names folder, need and remedy where a file system has too little room for a run.

    `more`: bytes that the cache and the cluster each hold beyond the ordinary.
    """
    whole = needs(more)
    if not shortage(whole):
        return  # Counting what lies there takes seconds, and with so much room it does not matter.
    if refusal := shortage([replace(need, holds=used(need.folder)) for need in whole]):
        raise RuntimeError(refusal)


def needs(more: int = 0) -> list[Need]:
    """What a run writes, folder by folder. Go's folders count only while programs are missing: later nothing is compiled."""
    found = [
        Need(cache_dir(), 6 * GB + more, "programs, engines, images", CACHE_VARIABLE),
        Need(state_dir(), 7 * GB + more, "the running cluster and its images", STATE_VARIABLE),
    ]
    if not all(binary(name).exists() for name in ALL):
        modules, compiled = go_folders()
        found += [
            Need(modules, 3 * GB, "Go's modules", "GOMODCACHE"),
            Need(compiled, 4 * GB, "Go's build cache", "GOCACHE"),
        ]
    return found


def go_folders() -> tuple[Path, Path]:
    """Where Go keeps modules and what it compiled, for whoever runs this."""
    home = Path.home()
    modules = os.environ.get("GOMODCACHE") or Path(os.environ.get("GOPATH") or home / "go") / "pkg" / "mod"
    cache = os.environ.get("GOCACHE") or Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "go-build"
    return Path(modules), Path(cache)


def uv_folder() -> Path:
    """Where uv keeps packages."""
    own = os.environ.get("UV_CACHE_DIR")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "uv"


def shortage(needed: Sequence[Need]) -> str:
    """What is missing where, in one message; nothing where all of it fits."""
    by_device: dict[int, list[Need]] = {}
    for need in needed:
        by_device.setdefault(_existing(need.folder).stat().st_dev, []).append(need)
    told = []
    for group in by_device.values():
        free, wanted = shutil.disk_usage(_existing(group[0].folder)).free, sum(need.missing for need in group)
        if wanted > free:
            parts = "; ".join(str(need) for need in group if need.missing)
            told.append(f"{gigabytes(wanted)} are needed and {gigabytes(free)} are free on one disk: {parts}")
    return f"Too little disk space. {'. '.join(told)}" if told else ""


def used(folder: Path) -> int:
    """Bytes on disk below `folder`, as du counts them; 0 where it is not there."""
    if not folder.is_dir():
        return 0
    done = subprocess.run(["du", "-sxB1", str(folder)], capture_output=True, text=True, check=False)
    return int(done.stdout.split()[0]) if done.stdout else 0


def gigabytes(count: int) -> str:
    """For people: 5.4 GB."""
    return f"{count / GB:.1f} GB"


def _existing(folder: Path) -> Path:
    """The nearest folder that is there: what will hold the one that is not."""
    return next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
