"""The wheels of a release: r1plus and what its command line tool needs, by platform and Python."""

import hashlib
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from devcluster.cache import cache_dir, locked, staged
from devcluster.images.sources import ROOT
from devcluster.shell import output
from devcluster.steps import Step
from devcluster.toolchain import uv
from r1plus_edge.bundle.software import build_wheel, download_wheels, list_platforms

EXTRA = "cli"
PYTHONS = ("3.11", "3.12")
"""Those that pyproject.toml allows."""
_MACOS = range(15, 10, -1)


@dataclass(frozen=True, slots=True)
class WheelPlatform:
    """A kind of machine that the command line tool is installed on."""

    name: str
    tags: tuple[str, ...]
    """Platform tags of wheels that run on it, the newest first."""


PLATFORMS = (
    WheelPlatform("linux/amd64", tuple(list_platforms("x86_64"))),
    WheelPlatform("linux/arm64", tuple(list_platforms("aarch64"))),
    WheelPlatform(
        "darwin/arm64",
        (
            *(f"macosx_{major}_0_{kind}" for major in _MACOS for kind in ("arm64", "universal2")),
            *(f"macosx_10_{minor}_universal2" for minor in range(16, 8, -1)),
        ),
    ),
)


def gather_wheels(step: Step, target: Path) -> None:
    """Put r1plus's wheel and those of its command line tool into the new folder `target`."""
    shutil.copytree(_fetch_dependencies(step), target)
    step.progress("building the wheel of r1plus")
    build_wheel(uv(), ROOT, target)


def _fetch_dependencies(step: Step) -> Path:
    """Return the cache's folder with the wheels that uv.lock names for the tool."""
    export = [uv(), "export", "--quiet", "--locked", "--extra", EXTRA, "--no-default-groups", "--no-emit-project"]
    requirements = output([*export, "--no-header", "--no-annotate", "--project", ROOT])
    wanted = "\n".join([requirements, *PYTHONS, *(platform.name for platform in PLATFORMS)])
    folder = cache_dir() / "release-wheels" / hashlib.sha256(wanted.encode()).hexdigest()[:16]
    with locked("release-wheels"):
        if folder.is_dir():
            step.cached()
            return folder
        with staged(folder) as made, tempfile.TemporaryDirectory() as scratch:
            count = len(re.findall(r"^[a-z]", requirements, re.MULTILINE))
            for platform in PLATFORMS:
                for python in PYTHONS:
                    step.progress(f"fetching {count} wheels for {platform.name}, Python {python}")
                    download_wheels(requirements, Path(scratch), platform.tags, python)
            shutil.copytree(Path(scratch) / "wheels", made)
    step.built()
    return folder
