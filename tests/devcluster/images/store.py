"""The images' own corner of the cache: buildah with a storage of its own, so that nothing of the host is touched.

Each command runs in a mount namespace of its own: whatever it mounts is gone when it ends, however it ends.
buildah builds Containerfiles without a daemon. `BUILDAH_ISOLATION=chroot` makes RUN work where no container can be
started; overlay storage shares layers between images, and vfs stands in where the file system can't carry overlay.
"""

import functools
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from devcluster.cache import cache_dir, log_dir
from devcluster.images.recipe import REPOSITORY
from devcluster.shell import run, succeeds

REPRODUCIBLE = ("--timestamp", "0", "--identity-label=false")
"""The same files make the same layers, with the same digests, whenever and with whatever version they are built."""
ARCHIVES_KEPT = 3
"""Archives of one image that stay: clones of different versions share a cache and must not undo each other's work."""


def images_dir() -> Path:
    """Everything of the images lies here: archives, buildah's storage, and the folders that contexts are made from."""
    return cache_dir() / "images"


def archive_of(name: str, key: str) -> Path:
    """Where the OCI archive of an image lies once it is built."""
    return images_dir() / "archives" / name / f"{key}.tar"


def build_log(name: str) -> Path:
    """What buildah, mmdebstrap and uv said while they made this image."""
    return log_dir() / f"image-{name}.log"


def build(ref: str, context: Path, base: str | None, log: Path) -> None:
    """Run the context's Containerfile. Layers are kept, so a change to the last COPY repeats only that one."""
    arguments = ["--build-arg", f"BASE={base}"] if base is not None else []
    file = context / "Containerfile"
    command = ["build", "--layers", "--pull-never", *REPRODUCIBLE, *arguments, "--tag", ref, "--file"]
    run([*_buildah(), *command, file, context], log=log, env=_environment())


def export(ref: str, archive: Path, log: Path) -> None:
    """Write an image as an OCI archive, the form that nodes import and registries take."""
    command = ["push", "--quiet", ref, f"oci-archive:{archive}:{ref}"]
    run([*_buildah(), *command], log=log, env=_environment())


def ensure_stored(ref: str, archive: Path, log: Path) -> None:
    """Make an image available to FROM, from its archive if the storage was cleared since it was built."""
    if not has(ref):
        run([*_buildah(), "pull", "--quiet", f"oci-archive:{archive}"], log=log, env=_environment())


def has(ref: str) -> bool:
    """Whether buildah's storage holds the image."""
    return succeeds([*_buildah(), "inspect", "--type", "image", ref])


def sweep() -> None:
    """Clear what killed builds left, under the lock `images`: containers, nameless images; everything, if one is half there.

    Nothing is lost with the storage but the time that cached layers save: a base comes back from its archive.
    """
    if succeeds([*_buildah(), "images", "--all", "--quiet"]):
        succeeds([*_buildah(), "rm", "--all"])
        succeeds([*_buildah(), "rmi", "--prune"])
    else:
        shutil.rmtree(_storage(), ignore_errors=True)


def forget(ref: str) -> None:
    """Drop an image and the layers that only it uses from the storage; its archive stays."""
    succeeds([*_buildah(), "rmi", ref])


def forget_older(name: str, refs_to_keep: frozenset[str]) -> None:
    """Drop the archives of one image beyond the newest few, and their copies in the storage."""
    for archive in older(images_dir() / "archives" / name, ARCHIVES_KEPT):
        ref = f"{REPOSITORY}/{name}:{archive.stem}"
        if ref not in refs_to_keep:
            archive.unlink(missing_ok=True)
            forget(ref)


def older(folder: Path, kept: int) -> list[Path]:
    """What lies in a folder beyond the `kept` entries that were used last; every use sets an entry's time."""
    found = [path for path in folder.iterdir() if not path.name.startswith(".")]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)[kept:]


def _storage() -> Path:
    return images_dir() / "storage"


def _buildah() -> Sequence[str | Path]:
    storage = _storage()
    return (
        "unshare",
        "--mount",
        "buildah",
        "--root",
        storage / "root",
        "--runroot",
        storage / "run",
        "--storage-driver",
        _driver(storage),
    )


@functools.cache
def _driver(storage: Path) -> str:
    """overlay, if a trial mount works on the cache's file system; else vfs, which copies every layer."""
    trial = storage / "trial"
    lower, upper, work, merged = folders = [trial / part for part in ("lower", "upper", "work", "merged")]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    works = succeeds(["unshare", "--mount", "mount", "-t", "overlay", "overlay", "-o", options, merged])
    return "overlay" if works else "vfs"


def _environment() -> dict[str, str]:
    return os.environ | {"BUILDAH_ISOLATION": "chroot"}
