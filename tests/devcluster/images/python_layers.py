"""The two Python layers of every image of ours: locked dependencies, and the rooms of the project's own wheel.

Dependencies come from `uv.lock`, are installed once per set and kept in the cache, so that a change to the sources
repeats the second layer only. Of the wheel an image gets the rooms that it runs and no more: a change to the command
line tool, say, must not make a new Triton image, since that would be another serving identity to gate.
"""

import os
import shutil
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from devcluster.cache import locked, staged
from devcluster.images import store
from devcluster.images.recipe import digest, tree_digest
from devcluster.images.sources import ROOT
from devcluster.shell import output, run
from devcluster.steps import Step
from devcluster.toolchain import uv

PYTHON = "3.11"
"""Of the images' base; dependencies are chosen for it whatever Python this tool runs on."""

_PLATFORM = "x86_64-manylinux_2_35"
_WHEEL_INPUTS = (
    "policies",
    "model_repo",
    "monitoring",
    "operator",
    "gateway",
    "edge",
    "addons",
    "pyproject.toml",
    "README.md",
    "LICENSE",
)
_WHEELS_KEPT = 3
_SETS_KEPT = 8


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The packages of some extras, as `name==version` lines of the lock, less what the image has no use for."""

    requirements: str
    left_out: tuple[str, ...] = ()
    """Glob patterns, relative to the installed folder."""

    @property
    def key(self) -> str:
        """Names the folder in the cache."""
        return digest((PYTHON, _PLATFORM, self.requirements, *self.left_out))[:16]


def locked_dependencies(
    extras: Iterable[str], only: tuple[str, ...] = (), left_out: tuple[str, ...] = ()
) -> Dependencies:
    """What `uv.lock` says for these extras; with `only`, no other packages than those."""
    command = [uv(), "export", "--quiet", "--frozen", "--no-emit-project", "--no-default-groups"]
    command += [argument for extra in extras for argument in ("--extra", extra)]
    exported = output([*command, "--no-hashes", "--no-annotate", "--no-header"], cwd=ROOT)
    lines = [line for line in exported.splitlines() if not only or line.split("==")[0] in only]
    return Dependencies("\n".join(lines) + "\n", left_out)


def installed(dependencies: Dependencies, log: Path) -> Path:
    """Folder with the dependencies unpacked for the images' Python; made on first use."""
    shelf = store.images_dir() / "dependencies"
    folder = shelf / dependencies.key
    with locked("dependencies"):
        if not folder.is_dir():
            with staged(folder) as target:
                _install(dependencies, target, log)
        os.utime(folder)
        for old in store.older(shelf, _SETS_KEPT):
            shutil.rmtree(old)
    return folder


def _install(dependencies: Dependencies, target: Path, log: Path) -> None:
    wanted = target.parent / "requirements.txt"
    wanted.write_text(dependencies.requirements)
    for_images = ["--python-version", PYTHON, "--python-platform", _PLATFORM, "--only-binary", ":all:"]
    install_into(target, ("--requirement", wanted, *for_images), log)
    for pattern in dependencies.left_out:
        for path in target.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def install_into(target: Path, wanted: tuple[str | Path, ...], log: Path) -> None:
    """Unpack packages into a folder, theirs alone: copies, since what follows edits them and uv's cache is shared."""
    run([uv(), "pip", "install", "--no-deps", "--link-mode", "copy", "--target", target, *wanted], log=log)


def wheel(step: Step) -> Path:
    """The project's wheel, built when the sources have changed since the last one."""
    key = digest(tuple(_fingerprint(ROOT / name) for name in _WHEEL_INPUTS))[:16]
    shelf = store.images_dir() / "wheels"
    folder = shelf / key
    with locked("wheel"):
        if folder.is_dir():
            step.cached()
        else:
            with staged(folder) as target:
                run([uv(), "build", "--quiet", "--wheel", "--out-dir", target, ROOT], log=store.build_log("wheel"))
            step.built()
        os.utime(folder)
        for old in store.older(shelf, _WHEELS_KEPT):
            shutil.rmtree(old)
    return next(folder.glob("*.whl"))


def _fingerprint(path: Path) -> str:
    """Contents of a source folder or file; compiled files come and go and don't count."""
    return path.read_text() if path.is_file() else tree_digest(path, ignored=frozenset({"__pycache__"}))


def unpack_rooms(source: Path, rooms: tuple[str, ...], but: tuple[str, ...], target: Path) -> None:
    """The wheel's files below `rooms`, less those below `but`. A pure wheel is its files: unpacking it installs it."""
    with zipfile.ZipFile(source) as packed:
        for name in packed.namelist():
            if belongs(name, rooms, but):
                packed.extract(name, target)


def rooms_digest(source: Path, rooms: tuple[str, ...], but: tuple[str, ...]) -> str:
    """Names and checksums of what `unpack_rooms` would put into an image."""
    with zipfile.ZipFile(source) as packed:
        found = [info for info in packed.infolist() if belongs(info.filename, rooms, but)]
    return digest(tuple(f"{info.filename} {info.CRC} {info.file_size}" for info in found))


def belongs(name: str, rooms: tuple[str, ...], but: tuple[str, ...] = ()) -> bool:
    """Whether a file of the wheel is one of `rooms` or lies below one, and not so for `but`."""

    def lies_in(places: tuple[str, ...]) -> bool:
        return any(name == place or name.startswith(f"{place}/") for place in places)

    return lies_in(rooms) and not lies_in(but)
