"""Writing of bundles: the same files and the same key give the same bytes, on whatever machine and day."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from r1plus_contract.suites.suite_files import SuiteSignature, write_signature
from r1plus_edge.bundle.manifest import (
    END,
    MANIFEST_FILE,
    MAX_MANIFEST_BYTES,
    SIGNATURE_FILE,
    BundleFile,
    BundleManifest,
    build_header,
    build_padding,
    build_signed_bytes,
    digest_manifest,
    encode_manifest,
    read_manifest,
)
from r1plus_edge.errors import EdgeError


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signs."""

    public_key: str
    """32 bytes in base64."""
    sign: Callable[[bytes], str]
    """Returns the Ed25519 signature of a message: 64 bytes in base64."""


def describe_file(path: str, source: Path) -> BundleFile:
    """Return a file as the manifest has it. Raises EdgeError: it is a link, or no plain file."""
    if source.is_symlink() or not source.is_file():
        raise EdgeError(f"{source}: is no plain file, and a bundle has no others; copy what it points to")
    with source.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    about = source.stat()
    return BundleFile(path, about.st_size, digest, bool(about.st_mode & 0o100))


def list_folder(prefix: str, folder: Path) -> dict[str, Path]:
    """Return path in the bundle -> file, of everything below a folder."""
    files = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return {f"{prefix}/{path.relative_to(folder).as_posix()}": path for path in files}


def write_bundle(out: Path, sources: Mapping[str, Path], manifest: BundleManifest, signer: Signer) -> str:
    """Write a bundle, and return its digest.

    `sources`: path in the bundle -> file; `manifest`: all but its files. `out` appears when it is complete.

    Raises:
        EdgeError: a file cannot be in a bundle, changed meanwhile, or `out` cannot be written.
    """
    files = tuple(describe_file(path, sources[path]) for path in sorted(sources))
    encoded = encode_manifest(replace(manifest, files=files))
    try:
        read_manifest(encoded)
    except ValueError as error:
        raise EdgeError(f"{out}: {error}") from error
    if len(encoded) > MAX_MANIFEST_BYTES:
        raise EdgeError(f"{out}: its manifest has {len(encoded)} bytes, at most {MAX_MANIFEST_BYTES} are allowed")
    signature = SuiteSignature(signer.public_key, signer.sign(build_signed_bytes(encoded)))
    part = out.with_name(f".{out.name}.part")
    try:
        with part.open("wb") as output:
            _write_bytes(output, MANIFEST_FILE, encoded)
            _write_bytes(output, SIGNATURE_FILE, write_signature(signature).encode())
            for file in files:
                _write_file(output, file, sources[file.path])
            output.write(END)
            output.flush()
            os.fsync(output.fileno())
        part.replace(out)
    except OSError as error:
        raise EdgeError(f"{out}: cannot be written: {error.strerror}; name a file that you may write") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    return digest_manifest(encoded)


def _write_bytes(output: BinaryIO, name: str, data: bytes) -> None:
    output.write(build_header(name, len(data)) + data + build_padding(len(data)))


def _write_file(output: BinaryIO, file: BundleFile, source: Path) -> None:
    output.write(build_header(file.path, file.size, file.is_executable))
    start = output.tell()
    with source.open("rb") as stream:
        shutil.copyfileobj(stream, output, 2**20)
    if output.tell() - start != file.size:
        raise EdgeError(f"{source}: changed while the bundle was written; write it again")
    output.write(build_padding(file.size))
