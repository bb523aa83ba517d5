"""The software of a bundle: wheels of the locked environment, and this project's own, for the machines it runs on.

Which wheels, the lock says, with their digests. They are chosen for Debian 12's C library wherever the bundle is made,
so two machines make the same bundle.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from r1plus_edge.errors import EdgeError
from r1plus_model_repo.importing.triton_server import PYTHON, link_or_copy

EXTRA: Final = "edge"
BUILDER: Final = "hatchling==1.27.0"
"""Writes its version into the wheel: another one would make another bundle."""
CERTIFICATES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
OLDEST_GLIBC_MINOR, GLIBC_MINOR = 5, 36
"""Of the C library 2.x: wheels for any of these run on Debian 12, which has the last."""
_MOST_ERROR: Final = 1500


def find_project(module: Path = Path(__file__)) -> Path:
    """Return the clone that this code is in. Raises EdgeError: it is installed without one."""
    root = module.resolve().parents[3]
    if not (root / "uv.lock").is_file():
        raise EdgeError(
            "--software: this r1plus is installed without its lock, which says what belongs to it; make the bundle with"
            " an r1plus that runs from a clone"
        )
    return root


def gather_wheels(project: Path, cache: Path, target: Path, tell: Callable[[str], None]) -> None:
    """Put the wheels of the locked environment into the new folder `target`; those of others are kept in the cache.

    Raises:
        EdgeError: the lock does not fit the project, or a wheel cannot be fetched or built.
    """
    uv = find_uv(cache)
    export = [uv, "export", "--quiet", "--locked", "--extra", EXTRA, "--no-default-groups", "--no-emit-project"]
    requirements = _run("the lock", [*export, "--no-header", "--no-annotate", "--project", str(project)])
    folder = cache / "bundle-wheels" / hashlib.sha256(requirements.encode()).hexdigest()[:16]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=folder.parent) as scratch:
        if not folder.is_dir():
            tell(f"fetching {len(re.findall(r'^[a-z]', requirements, re.MULTILINE))} wheels")
            download_wheels(requirements, Path(scratch), list_platforms())
            (Path(scratch) / "wheels").rename(folder)
        shutil.copytree(folder, target, copy_function=lambda one, other: link_or_copy(Path(one), Path(other)))
        tell("building the wheel of r1plus")
        build_wheel(uv, project, target)


def build_wheel(uv: str, project: Path, target: Path) -> None:
    """Build the wheel of r1plus. The same sources make the same bytes. Raises EdgeError: it cannot be built."""
    with tempfile.TemporaryDirectory() as scratch:
        constraint = Path(scratch) / "constraint.txt"
        constraint.write_text(BUILDER)
        build = [uv, "build", "--quiet", "--wheel", "--build-constraint", str(constraint), "--no-create-gitignore"]
        _run("the wheel of r1plus", [*build, "--out-dir", str(target), "--python", sys.executable, str(project)])


def read_wheel_version(wheels: Path) -> str:
    """Return the version of r1plus in a folder of wheels: the clone's, which may have been raised since its install."""
    (own,) = wheels.glob("r1plus-*.whl")
    return own.name.split("-")[1]


def find_uv(cache: Path) -> str:
    """Return uv: from the PATH, or where `make bootstrap` or, without root, `make quickstart` has put it.

    Raises:
        EdgeError: it is in none of these places.
    """
    folders = [Path.home() / ".local" / "bin", *sorted(cache.glob("uv-*/bin"), reverse=True)]
    uv = shutil.which("uv") or shutil.which("uv", path=os.pathsep.join(map(str, folders)))
    if uv is None:
        raise EdgeError(
            "--software: uv is not on the PATH, and it reads the lock; `make quickstart` installs it for you"
        )
    return uv


def list_platforms(machine: str = "x86_64") -> list[str]:
    """Return the platform tags of wheels that run on Debian 12, the newest first."""
    versions = range(GLIBC_MINOR, OLDEST_GLIBC_MINOR - 1, -1)
    older = ("manylinux2014", "manylinux2010", "manylinux1", "linux")
    return [*(f"manylinux_2_{minor}_{machine}" for minor in versions), *(f"{name}_{machine}" for name in older)]


def download_wheels(requirements: str, scratch: Path, platforms: Sequence[str], python: str = PYTHON) -> None:
    """Fetch wheels into `scratch/wheels`; each has the digest that the lock names.

    Raises:
        EdgeError: a wheel cannot be fetched, or there is none for these platforms.
    """
    file, environment = scratch / "requirements.txt", scratch / "pip"
    file.write_text(requirements)
    if not environment.is_dir():
        venv.create(environment, with_pip=True)
    choice = ["--python-version", python, "--implementation", "cp"]
    for abi in (f"cp{python.replace('.', '')}", "abi3", "none"):
        choice += ["--abi", abi]
    for platform in platforms:
        choice += ["--platform", platform]
    strict = ["--require-hashes", "--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--quiet"]
    download = [str(environment / "bin" / "python"), "-I", "-m", "pip", "download", *strict, *choice]
    _run("a wheel", [*download, "-r", str(file), "-d", str(scratch / "wheels")])


def _run(what: str, command: Sequence[str]) -> str:
    environment = dict(os.environ)
    if CERTIFICATES.exists():
        environment.setdefault("UV_SYSTEM_CERTS", "1")  # A company's own authority is among these.
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if result.returncode != 0:
        raise EdgeError(f"--software: {what} cannot be had: {result.stderr.strip()[-_MOST_ERROR:]}")
    return result.stdout
