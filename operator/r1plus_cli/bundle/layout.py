"""An OCI image layout in a plain tar, read in place: nothing of it is unpacked.

Beside the layout's own files it may have files of the release, such as `wheels/NAME`. Any other name is refused.
"""

import hashlib
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from r1plus_cli.bundle.oci import MAX_DOCUMENT_BYTES, Descriptor
from r1plus_cli.errors import UsageError

FILE_FOLDERS = ("wheels", "crds", "schemas", "licenses")
"""Folders of a bundle with files that are used without a registry."""
CHUNK_BYTES = 2**20
_MAX_MEMBERS = 4096
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})")
_FILE = re.compile(rf"(?:{'|'.join(FILE_FOLDERS)})/[A-Za-z0-9][A-Za-z0-9._+-]{{0,200}}")
_FOLDERS = frozenset({"blobs", "blobs/sha256", *FILE_FOLDERS})


@dataclass(frozen=True, slots=True)
class Extent:
    """Where a file's bytes are in the tar."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The open tar of a bundle."""

    path: Path
    stream: BinaryIO
    members: dict[str, Extent]
    """Name in the tar -> where its bytes are."""

    @property
    def blob_digests(self) -> set[str]:
        """Digests of all blobs by their names; their bytes are not verified yet."""
        return {f"sha256:{match[1]}" for name in self.members if (match := _BLOB.fullmatch(name))}

    @property
    def files(self) -> dict[str, Extent]:
        """Files of the release beside the layout: name -> where its bytes are."""
        return {name: extent for name, extent in self.members.items() if _FILE.fullmatch(name)}

    def read_file(self, name: str) -> bytes:
        """Return a small file of the tar. Raise UsageError if it is missing or larger than a document may be."""
        extent = self.members.get(name)
        if extent is None:
            raise UsageError(f"{self.path}: {name} is missing, so this is not a release bundle; fetch the bundle again")
        if extent.size > MAX_DOCUMENT_BYTES:
            raise UsageError(f"{self.path}: {name}: {extent.size} bytes exceed {MAX_DOCUMENT_BYTES} for a document")
        return b"".join(self.iterate(name))

    def read_document(self, descriptor: Descriptor) -> bytes:
        """Return a verified manifest, index or bundle of a signature."""
        self.verify_blob(descriptor)
        return self.read_file(name_blob(descriptor.digest))

    def verify_blob(self, descriptor: Descriptor) -> None:
        """Check presence, size and sha256 of a blob. Raise UsageError."""
        self.verify_file(name_blob(descriptor.digest), descriptor.digest, descriptor.size)

    def verify_file(self, name: str, digest: str, size: int) -> None:
        """Check presence, size and sha256 of a file of the tar. Raise UsageError."""
        extent = self.members.get(name)
        if extent is None:
            raise UsageError(f"{self.path}: {name} is missing; fetch the bundle again")
        if extent.size != size:
            raise UsageError(f"{self.path}: {name}: {extent.size} bytes, not {size}; fetch the bundle again")
        actual = hashlib.sha256()
        for chunk in self.iterate(name):
            actual.update(chunk)
        if f"sha256:{actual.hexdigest()}" != digest:
            raise UsageError(f"{self.path}: {name}: its content has another sha256; fetch the bundle again")

    def iterate(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of a file of the tar in chunks."""
        extent = self.members[name]
        position = 0
        while position < extent.size:
            self.stream.seek(extent.offset + position)
            chunk = self.stream.read(min(CHUNK_BYTES, extent.size - position))
            if not chunk:
                raise UsageError(f"{self.path}: {name} is cut short; fetch the bundle again")
            position += len(chunk)
            yield chunk


@contextmanager
def open_layout(path: Path) -> Iterator[Layout]:
    """Open a bundle. Raise UsageError if it is no plain tar, is cut short, or has a name that no bundle has."""
    try:
        stream = path.open("rb")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    with stream:
        yield Layout(path, stream, _read_members(path, stream))


def name_blob(digest: str) -> str:
    """Return the name of a blob in a layout."""
    return f"blobs/{digest.replace(':', '/', 1)}"


def _read_members(path: Path, stream: BinaryIO) -> dict[str, Extent]:
    members: dict[str, Extent] = {}
    try:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in archive:
                _check_member(path, member, members)
                if member.isreg():
                    members[member.name] = Extent(member.offset_data, member.size)
    except tarfile.TarError as error:
        raise UsageError(f"{path}: not a whole, plain tar: {error}; fetch the bundle again") from error
    return members


def _check_member(path: Path, member: tarfile.TarInfo, members: dict[str, Extent]) -> None:
    name = member.name
    if member.isdir() and name.removesuffix("/") in _FOLDERS:
        return
    is_known = name in ("oci-layout", "index.json") or _BLOB.fullmatch(name) or _FILE.fullmatch(name)
    if not member.isreg() or not is_known:
        raise UsageError(f"{path}: {name!r:.120}: no bundle has such an entry; do not use this file")
    if name in members:
        raise UsageError(f"{path}: {name} is there twice; do not use this file")
    if len(members) >= _MAX_MEMBERS:
        raise UsageError(f"{path}: more than {_MAX_MEMBERS} entries; do not use this file")
