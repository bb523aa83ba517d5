"""Bundles: all that a device without a network needs, in one signed file.

`open_bundle` verifies who signed it and every byte of it before anything of it is used; `Bundle.extract` verifies again
while it writes, since the file may have changed in between. Standard library only: the installer runs before anything
is installed.
"""

import hashlib
import os
import shutil
import stat
import tarfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from r1plus_contract.atomic_files import sync
from r1plus_contract.suites.suite import SuiteError
from r1plus_contract.suites.suite_files import PUBLIC_KEY_BYTES, decode_base64, key_id, read_signature
from r1plus_edge.bundle.manifest import (
    BLOCK,
    END,
    MANIFEST_FILE,
    MAX_MANIFEST_BYTES,
    MAX_SIGNATURE_BYTES,
    SIGNATURE_FILE,
    BundleFile,
    BundleManifest,
    Host,
    Part,
    build_header,
    build_padding,
    build_signed_bytes,
    digest_manifest,
    read_host,
    read_manifest,
)
from r1plus_edge.bundle.signature import verify_signature
from r1plus_edge.errors import EdgeError

_CHUNK_BYTES: Final = 2**20
_MIB: Final = 2**20
SPARE_BYTES: Final = 64 * _MIB
"""Of the disk, that an extraction leaves."""
_COPY_AGAIN: Final = "copy the bundle again from where it was made"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose signature and files were verified."""

    path: Path
    manifest: BundleManifest
    digest: str
    """What names it: the sha256 of its manifest, 64 hex digits."""
    signer: str
    """The trusted public key that signed it: 32 bytes in base64."""
    offset: int
    """Of the first file's header."""

    @property
    def parts(self) -> frozenset[Part]:
        """The folders that it has."""
        return self.manifest.parts

    def extract(self, part: Part, target: Path) -> None:
        """Write the files of a part below the new folder `target`: all of them, on the disk, or none.

        Raises:
            EdgeError: it has no such part, the file changed since it was verified, the disk has no room for it, or
                `target` exists.
        """
        files = {file.path: file for file in self.manifest.list_files(part)}
        if not files:
            raise EdgeError(f"{self.path}: it has no {part.value}; name a bundle that was made with it")
        if target.exists():
            raise EdgeError(f"{target}: exists already; remove it, or name another folder")
        with _translate_write_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            check_room(target.parent, self.manifest.count_bytes(part))
            staging = target.with_name(f".{target.name}.part")
            shutil.rmtree(staging, ignore_errors=True)
            try:
                self._write(part, files, staging)
                staging.rename(target)
                sync(target.parent)
            finally:
                shutil.rmtree(staging, ignore_errors=True)

    def _write(self, part: Part, files: dict[str, BundleFile], staging: Path) -> None:
        staging.mkdir()
        with _open_file(self.path) as stream:
            stream.seek(self.offset)
            for file in self.manifest.files:
                if file.path not in files:
                    header = build_header(file.path, file.size)
                    stream.seek(len(header) + file.size + len(build_padding(file.size)), os.SEEK_CUR)
                    continue
                target = staging / file.path.removeprefix(f"{part.value}/")
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("xb") as output:
                    _copy_file(self.path, stream, file, output.write)
                    os.fchmod(output.fileno(), 0o755 if file.is_executable else 0o644)
                    output.flush()
                    os.fsync(output.fileno())
        for folder in (staging, *(path for path in staging.rglob("*") if path.is_dir())):
            folder.chmod(0o755)
            sync(folder)


def open_bundle(path: Path, trust: Collection[str], host: Host | None = None) -> Bundle:
    """Return the bundle in a file once everything in it is verified.

    `trust` are public keys of signers, 32 bytes in base64 each, as `r1plus suite keygen` prints them. It reads the
    whole file, in pieces. `host` is this machine by default.

    Raises:
        EdgeError: it is no bundle, only a part of one, altered, for another machine, or signed by somebody else.
    """
    with _open_file(path) as stream:
        _check_keys(trust)
        manifest_bytes = _read_head(path, stream, MANIFEST_FILE, MAX_MANIFEST_BYTES)
        signature = _read_head(path, stream, SIGNATURE_FILE, MAX_SIGNATURE_BYTES)
        signer = _find_signer(path, manifest_bytes, signature, trust)
        try:
            manifest = read_manifest(manifest_bytes)
        except ValueError as error:
            raise EdgeError(f"{path}: {MANIFEST_FILE}: {error}; make it again with `r1plus edge bundle`") from error
        _check_host(path, manifest, host or read_host())
        offset = stream.tell()
        for file in manifest.files:
            _copy_file(path, stream, file, lambda _: None)
        _check_end(path, stream)
    return Bundle(path, manifest, digest_manifest(manifest_bytes), signer, offset)


def _check_keys(trust: Collection[str]) -> None:
    if not trust:
        raise EdgeError("no signer is trusted: give the public key of who makes your bundles, as you got it from them")
    if wrong := [key for key in trust if decode_base64(key, PUBLIC_KEY_BYTES) is None]:
        raise EdgeError(
            f"key {wrong[0]!r:.100}: is not {PUBLIC_KEY_BYTES} bytes in base64; give it as `r1plus suite keygen` has"
            " printed it"
        )


@contextmanager
def _open_file(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file: a pipe could not be verified first, and a device may have no end."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise EdgeError(f"{path}: {error.strerror}; name the file of a bundle") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise EdgeError(f"{path}: is no regular file; name the file of a bundle")
    with os.fdopen(descriptor, "rb") as stream:
        yield stream


def _read(path: Path, stream: BinaryIO, size: int) -> bytes:
    try:
        return stream.read(size)
    except OSError as error:
        raise EdgeError(f"{path}: cannot be read: {error.strerror}; {_COPY_AGAIN}") from error


def _read_head(path: Path, stream: BinaryIO, name: str, limit: int) -> bytes:
    """Read manifest or signature: its size is what its own header says."""
    header = _read(path, stream, BLOCK)
    member = _parse_header(header)
    if member is None or member.name != name:
        raise EdgeError(f"{path}: is no bundle, since {name} is not where it has to be; name the file of a bundle")
    if not member.isreg() or not 0 <= member.size <= limit or build_header(name, member.size) != header:
        raise EdgeError(
            f"{path}: {name}: is no plain file of at most {limit} bytes, as `r1plus edge bundle` writes it;"
            f" {_COPY_AGAIN}"
        )
    data, padding = _read(path, stream, member.size), build_padding(member.size)
    if len(data) < member.size or _read(path, stream, len(padding)) != padding:
        raise EdgeError(f"{path}: ends within {name}: it is a part of a bundle; {_COPY_AGAIN}")
    return data


def _find_signer(path: Path, manifest: bytes, signature: bytes, trust: Collection[str]) -> str:
    try:
        signed = read_signature(signature.decode(), SIGNATURE_FILE)
    except (SuiteError, UnicodeDecodeError) as error:
        raise EdgeError(f"{path}: {error}; make it again with `r1plus edge bundle`") from error
    if signed.public_key not in trust:
        trusted = ", ".join(sorted(map(key_id, trust)))
        raise EdgeError(
            f"{path}: is signed by key {key_id(signed.public_key)}, and trusted is {trusted}; get a bundle from who has"
            " the trusted key, or ask them whether this key is theirs, too"
        )
    if not verify_signature(signed.public_key, signed.signature, build_signed_bytes(manifest)):
        raise EdgeError(
            f"{path}: the signature of key {key_id(signed.public_key)} does not fit: the manifest was altered after it"
            f" was signed; {_COPY_AGAIN}"
        )
    return signed.public_key


def _check_host(path: Path, manifest: BundleManifest, host: Host) -> None:
    if manifest.architecture != host.architecture:
        raise EdgeError(
            f"{path}: is for {manifest.architecture!r:.40}, and this machine is {host.architecture}; make it on a"
            " machine of the same kind"
        )
    if manifest.python and manifest.python != host.python:
        raise EdgeError(
            f"{path}: its software is for Python {manifest.python!r:.40}, and this is {host.python}; use that Python:"
            " Debian 12 has 3.11"
        )


def _copy_file(path: Path, stream: BinaryIO, file: BundleFile, write: Callable[[bytes], object]) -> None:
    """Hand on the content of the next file, which must be the one that the manifest names."""
    expected = build_header(file.path, file.size, file.is_executable)
    header = _read(path, stream, len(expected))
    if header != expected:
        raise EdgeError(f"{path}: {_describe_header(header[:BLOCK], file)}; {_COPY_AGAIN}")
    digest, rest = hashlib.sha256(), file.size
    while rest:
        piece = _read(path, stream, min(_CHUNK_BYTES, rest))
        if not piece:
            raise EdgeError(f"{path}: ends within {file.path}: it is a part of a bundle; {_COPY_AGAIN}")
        rest -= len(piece)
        digest.update(piece)
        write(piece)
    padding = build_padding(file.size)
    if digest.hexdigest() != file.sha256 or _read(path, stream, len(padding)) != padding:
        raise EdgeError(f"{path}: {file.path}: its bytes are not those that were signed; {_COPY_AGAIN}")


def _check_end(path: Path, stream: BinaryIO) -> None:
    end = _read(path, stream, len(END) + 1)
    if end == END:
        return
    if END.startswith(end):
        raise EdgeError(f"{path}: ends too early: it is a part of a bundle; {_COPY_AGAIN}")
    member = _parse_header(end[:BLOCK])
    extra = repr(member.name)[:200] if member is not None else "something after its last file"
    raise EdgeError(f"{path}: has {extra}, which the manifest does not name; {_COPY_AGAIN}")


def _parse_header(header: bytes) -> tarfile.TarInfo | None:
    """Return what a tar header says; None: it is none. Extended headers are not followed."""
    try:
        return tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError):
        return None


def _describe_header(header: bytes, file: BundleFile) -> str:
    """Return what is wrong with a header that is not the one of this file."""
    member = _parse_header(header)
    if member is None:
        return f"{file.path} is named by the manifest, and is not there: it is a part of a bundle, or altered"
    if not member.isreg():
        kind = "a link" if member.issym() or member.islnk() else "a folder" if member.isdir() else "no plain file"
        return f"{member.name!r:.200} is {kind}, and a bundle has plain files only"
    if member.name != file.path:
        return f"{member.name!r:.200} is where the manifest names {file.path}"
    return f"{file.path}: its header (size {member.size}, mode {member.mode:o}) is not what the manifest says"


@contextmanager
def _translate_write_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EdgeError(
            f"{target}: cannot be written: {error.strerror}; free some disk, or name a folder that you may write"
        ) from error


def check_room(folder: Path, size: int) -> None:
    """Refuse to write so many bytes where they, and `SPARE_BYTES`, are not free. Raises EdgeError."""
    free = shutil.disk_usage(folder).free
    if free < size + SPARE_BYTES:
        raise EdgeError(
            f"{folder}: {free / _MIB:.0f} MiB of disk are free, {(size + SPARE_BYTES) / _MIB:.0f} MiB are needed;"
            " free some, or name a folder on another disk"
        )
