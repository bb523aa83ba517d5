"""Unpacking of an engine from a tar stream: plain files below `engine/`, `model.sig`, and a limit on their size."""

import tarfile
from pathlib import Path, PurePosixPath
from typing import IO, Protocol, cast

from r1plus_contract.engine.engine_fetch import ENGINE_FOLDER, SIGNATURE_FILE, FillRefusal
from r1plus_model_repo.engine_fetch.errors import FillError

MAX_FILES = 4096
MAX_PATH = 512
MAX_HEADER = 16 * 1024
_HEADERS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
_CHUNK_BYTES = 1024 * 1024


class ByteStream(Protocol):
    """A stream of bytes."""

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes; empty at the end."""


def unpack(source: ByteStream, folder: Path, max_bytes: int) -> None:
    """Write the tar's `engine/` below `folder`, at most `max_bytes`.

    Raises:
        FillError: the tar holds something else, or is not a tar.
        OSError: a write fails.
    """
    bytes_left = max_bytes
    try:
        with tarfile.open(fileobj=cast(IO[bytes], source), mode="r|*", tarinfo=_Member) as tar:
            for count, member in enumerate(tar):
                if count >= MAX_FILES:
                    raise _archive_error(f"it has more than {MAX_FILES} files and folders")
                bytes_left -= member.size
                if bytes_left < 0:
                    raise _archive_error(
                        f"its files take more than the {max_bytes} bytes of spec.artifact.archive.size"
                    )
                if not member.isdir():
                    _write(folder / _check_path(member), _open_content(tar, member))
    except (tarfile.TarError, EOFError) as error:
        raise _archive_error(f"it is not a complete tar: {error}") from error


class _Member(tarfile.TarInfo):
    """A tar member whose headers are limited: tarfile reads long-name headers of any size into memory."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _HEADERS and self.size > MAX_HEADER:
            raise _archive_error(f"it has a header of {self.size} bytes")
        return super()._proc_member(tar)  # type: ignore[misc,no-any-return]


def _open_content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = tar.extractfile(member) if member.isreg() else None
    if content is None:
        raise _archive_error(f"{member.name!r:.200}: an engine may hold plain files only")
    return content


def _check_path(member: tarfile.TarInfo) -> PurePosixPath:
    """Return where below the folder a file belongs. Raise FillError for a name outside `engine/`."""
    path = PurePosixPath(member.name)
    if path == PurePosixPath(SIGNATURE_FILE):
        return path
    parts = path.parts
    inside = len(parts) > 1 and parts[0] == ENGINE_FOLDER and ".." not in parts and not path.is_absolute()
    if not inside or len(member.name) > MAX_PATH or not member.name.isprintable() or "\\" in member.name:
        raise _archive_error(f"{member.name!r:.200}: every file must be below {ENGINE_FOLDER}/")
    return path


def _write(path: Path, content: IO[bytes]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("xb")
    except (FileExistsError, NotADirectoryError) as error:
        raise _archive_error(f"{path.name!r:.200}: it is in the archive twice") from error
    with file:
        while piece := content.read(_CHUNK_BYTES):
            file.write(piece)


def _archive_error(reason: str) -> FillError:
    text = f"the archive: {reason}; pack the folder that `r1plus engine import` wrote: tar -cf ENGINE.tar -C DIR engine"
    return FillError(FillRefusal.ENGINE_INVALID, text)
