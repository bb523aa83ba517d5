"""Heavy packages of a long target, kept in the cache: the room that they need, and their installation from a lock."""

import shutil
from pathlib import Path

from devcluster.cache import CACHE_VARIABLE
from devcluster.shell import lines
from devcluster.steps import Step
from devcluster.toolchain import uv


def check_room(folder: Path, needed_bytes: int, what: str) -> None:
    """Raise SystemExit unless the disk of `folder` has so much room for `what`; make the folder that it will be in."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    if free < needed_bytes:
        raise SystemExit(
            f"{folder.parent} has {free / 10**9:.1f} GB free, and {what} needs {needed_bytes / 10**9:.1f} GB:"
            f" make room, or put the cache elsewhere by {CACHE_VARIABLE}=DIR"
        )


def install(python: Path | str, lock: Path, *options: Path | str, log: Path, step: Step) -> None:
    """Install the lock's packages for a Python, each with its hash and without its dependencies: the lock is whole.

    Raises:
        CommandError: uv fails.
    """
    command = [uv(), "pip", "install", "--no-config", "--no-deps", "--require-hashes", "--python", python]
    for line in lines([*command, *options, "--requirements", lock], log=log):
        step.progress(line)
