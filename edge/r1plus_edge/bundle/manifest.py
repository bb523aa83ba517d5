"""The manifest of a bundle: everything that is in it, with sizes and digests. Its signature covers every byte.

A bundle is one plain tar. First its manifest, then the signature, then exactly the files that the manifest names, in
its order, with headers that follow from it. So nothing in a bundle is a matter of interpretation. Standard library
only: the installer runs before anything is installed.
"""

import hashlib
import platform
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from r1plus_contract.jsonable import ContractError, dumps, loads

FORMAT: Final = 1
MANIFEST_FILE: Final = "manifest.json"
SIGNATURE_FILE: Final = "bundle.sig"
SBOM_FILE: Final = "sbom.cdx.json"
BLOCK: Final = tarfile.BLOCKSIZE
END: Final = bytes(2 * BLOCK)
"""Of a tar."""
MAX_MANIFEST_BYTES: Final = 4 * 2**20
MAX_SIGNATURE_BYTES: Final = 1024
MAX_FILES: Final = 8192
MAX_BYTES: Final = 64 * 2**30
"""Of all files together."""
MAX_PATH: Final = 255
_SHA256_DIGITS: Final = 64
_FILE_MODE, _PROGRAM_MODE = 0o644, 0o755


class Part(StrEnum):
    """A folder of a bundle. Each may be absent."""

    ENGINE = "engine"
    """As `r1plus engine import` writes it: `engine.yaml` and `engine/`."""
    SUITE = "suite"
    """The files of one golden suite."""
    WHEELS = "wheels"
    """This software and all that it needs, for one version of Python."""
    TRITON = "triton"
    """tritonserver, laid out."""


@dataclass(frozen=True, slots=True)
class BundleFile:
    """One file."""

    path: str
    """POSIX, below the folder of a part; the bill of materials is at the top."""
    size: int
    sha256: str
    """64 hex digits."""
    is_executable: bool = False


@dataclass(frozen=True, slots=True)
class BundleManifest:
    """What a bundle has, and for which machine."""

    software: str
    """Version of r1plus that made it, and of the wheels in it."""
    architecture: str
    """As `uname -m` has it, such as x86_64."""
    python: str
    """Of the wheels, such as 3.11; empty without wheels."""
    files: tuple[BundleFile, ...]
    """Sorted by path."""
    engine: str = ""
    """Name of the engine; empty: none is in it."""
    suite: str = ""
    """Name of the golden suite; empty: none is in it."""
    triton: str = ""
    """Package and version, such as nvidia-pytriton-0.7.0; empty: it is not in it."""
    format: int = FORMAT

    @property
    def parts(self) -> frozenset[Part]:
        """The folders that it has."""
        return frozenset(part for part in Part if any(True for _ in self.list_files(part)))

    def list_files(self, part: Part) -> Iterator[BundleFile]:
        """Return the files of a part."""
        return (file for file in self.files if file.path.startswith(f"{part.value}/"))

    def count_bytes(self, part: Part) -> int:
        """Return what the files of a part take."""
        return sum(file.size for file in self.list_files(part))


@dataclass(frozen=True, slots=True)
class Host:
    """The machine that a bundle is for."""

    architecture: str
    python: str


def read_host() -> Host:
    """Return this machine."""
    return Host(platform.machine(), ".".join(map(str, sys.version_info[:2])))


def encode_manifest(manifest: BundleManifest) -> bytes:
    """Return the manifest's bytes."""
    return dumps(manifest).encode()


def build_signed_bytes(manifest: bytes) -> bytes:
    """Return what is signed; no signature of a suite can be one of a bundle."""
    return b"r1plus bundle 1\n" + manifest


def read_manifest(data: bytes) -> BundleManifest:
    """Read a manifest. Raise ValueError with the first problem."""
    try:
        manifest = loads(BundleManifest, data.decode())
    except (ContractError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from error
    if problem := next(_find_problems(manifest), None):
        raise ValueError(problem)
    return manifest


def build_header(path: str, size: int, is_executable: bool = False) -> bytes:
    """Return the tar header of a file: a block, or three for a long path."""
    member = tarfile.TarInfo(path)
    member.size, member.mode = size, _PROGRAM_MODE if is_executable else _FILE_MODE
    return member.tobuf(tarfile.GNU_FORMAT)


def build_padding(size: int) -> bytes:
    """Return the zero bytes after a file's content."""
    return bytes(-size % BLOCK)


def find_path_problem(path: str) -> str:
    """Return why a path may not be in a bundle; empty: it may."""
    parts = path.split("/")
    if not path.isprintable() or "\\" in path:
        return "has a character that no name in a bundle may have"
    if path.startswith("/") or any(part in ("", ".", "..") for part in parts):
        return "does not stay below its folder"
    if path == SBOM_FILE:
        return ""
    if len(parts) == 1 or parts[0] not in {part.value for part in Part}:
        return f"is in none of the folders {', '.join(part.value for part in Part)}"
    return f"is longer than {MAX_PATH} bytes" if len(path.encode()) > MAX_PATH else ""


def _find_problems(manifest: BundleManifest) -> Iterator[str]:
    if manifest.format != FORMAT:
        yield f"format: {manifest.format} is not {FORMAT}: another release made it"
    if len(manifest.files) > MAX_FILES:
        yield f"files: {len(manifest.files)}, at most {MAX_FILES} are allowed"
    if (total := sum(file.size for file in manifest.files)) > MAX_BYTES:
        yield f"files: together {total} bytes, at most {MAX_BYTES} are allowed"
    for file in manifest.files:
        yield from _find_file_problems(file)
    yield from _find_path_problems([file.path for file in manifest.files])
    labels = {Part.ENGINE: manifest.engine, Part.SUITE: manifest.suite, Part.TRITON: manifest.triton}
    for part, label in {**labels, Part.WHEELS: manifest.python}.items():
        if bool(label) != (part in manifest.parts):
            field = "python" if part is Part.WHEELS else part.value
            yield f"{field}: {label!r:.80}, while {part.value}/ has {'no' if label else ''} files".replace("  ", " ")
        if label and (not label.isprintable() or "/" in label or label.startswith(".")):
            yield f"{part.value}: {label!r:.80} is no name"


def _find_file_problems(file: BundleFile) -> Iterator[str]:
    if problem := find_path_problem(file.path):
        yield f"files: {file.path!r:.200} {problem}"
    if file.size < 0:
        yield f"files: {file.path!r:.200}: size {file.size} is negative"
    if len(file.sha256) != _SHA256_DIGITS or not set(file.sha256) <= set("0123456789abcdef"):
        yield f"files: {file.path!r:.200}: sha256 {file.sha256!r:.80} is not {_SHA256_DIGITS} hex digits"


def _find_path_problems(paths: Sequence[str]) -> Iterator[str]:
    if twice := [path for path, count in Counter(paths).items() if count > 1]:
        yield f"files: {twice[0]!r:.200} is named twice"
    if list(paths) != sorted(paths):
        yield "files: they are not sorted by path"
    known = set(paths)
    for path in paths:
        parents = path.split("/")[:-1]
        if any("/".join(parents[: depth + 1]) in known for depth in range(len(parents))):
            yield f"files: {path!r:.200} is below a file"


def digest_manifest(manifest: bytes) -> str:
    """Return what a bundle is named by: the sha256 of its manifest."""
    return hashlib.sha256(manifest).hexdigest()
