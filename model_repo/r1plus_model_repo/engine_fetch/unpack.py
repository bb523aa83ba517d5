"""An engine out of a tar, as it streams in: plain files below `engine/`, `model.sig`, and never more than was said."""

import tarfile
from pathlib import Path, PurePosixPath
from typing import IO, Protocol, cast

from r1plus_contract.engine_fetch import ENGINE_FOLDER, SIGNATURE_FILE, FillRefusal
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
_PIECE = 1024 * 1024


class Source(Protocol):
    """What is read from."""

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes; empty at the end."""


def unpack(source: Source, folder: Path, most: int) -> None:
    """Write the tar's `engine/` below `folder`, `most` bytes at most.

    Raises:
        FillError: the tar holds something else, or is none.
        OSError: the volume took no more.
    """
    left = most
    try:
        with tarfile.open(fileobj=cast(IO[bytes], source), mode="r|*", tarinfo=_Member) as tar:
            for count, member in enumerate(tar):
                if count >= MAX_FILES:
                    raise _invalid(f"more than {MAX_FILES} files and folders")
                left -= member.size
                if left < 0:
                    raise _invalid(f"its files take more than the {most} bytes of spec.artifact.archive.size")
                if not member.isdir():
                    _write(folder / _place(member), _content(tar, member))
    except (tarfile.TarError, EOFError) as error:
        raise _invalid(f"it is no whole tar: {error}") from error


class _Member(tarfile.TarInfo):
    """Long names come in headers of their own, which are read whole into memory: of what size an archive says."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _HEADERS and self.size > MAX_HEADER:
            raise _invalid(f"a header of {self.size} bytes")
        return super()._proc_member(tar)  # type: ignore[misc,no-any-return]


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = tar.extractfile(member) if member.isreg() else None
    if content is None:
        raise _invalid(f"{member.name!r:.200}: an engine may hold plain files only")
    return content


def _place(member: tarfile.TarInfo) -> PurePosixPath:
    """Where below the folder a file goes: a name that would leave `engine/` is refused, not mended."""
    path = PurePosixPath(member.name)
    if path == PurePosixPath(SIGNATURE_FILE):
        return path
    parts = path.parts
    inside = len(parts) > 1 and parts[0] == ENGINE_FOLDER and ".." not in parts and not path.is_absolute()
    if not inside or len(member.name) > MAX_PATH or not member.name.isprintable() or "\\" in member.name:
        raise _invalid(f"{member.name!r:.200}: every file belongs below {ENGINE_FOLDER}/")
    return path


def _write(path: Path, content: IO[bytes]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("xb")
    except (FileExistsError, NotADirectoryError) as error:
        raise _invalid(f"{path.name!r:.200}: twice in it") from error
    with file:
        while piece := content.read(_PIECE):
            file.write(piece)


def _invalid(why: str) -> FillError:
    text = f"the archive: {why}; pack the folder that `r1plus engine import` wrote: tar -cf ENGINE.tar -C DIR engine"
    return FillError(FillRefusal.ENGINE_INVALID, text)
