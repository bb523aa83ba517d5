"""`r1plus tenant backup`, `restore` and `verify-backup`: for the tenant's administrators, through its gateway."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, BinaryIO, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.text import Text

from r1plus_cli.errors import CliError, UsageError
from r1plus_cli.gateway.admin_api import GatewayTarget, Json, open_download, upload
from r1plus_cli.gateway.target import GatewayOption, find_target
from r1plus_cli.hints import runnable_hint
from r1plus_cli.options import KubeconfigOption, NamespaceOption, open_console
from r1plus_contract.atomic_files import sync
from r1plus_contract.timestamps import format_timestamp
from r1plus_gateway.store.copies.sealed_stream import Read, SealedStreamError, StreamHeader, StreamKind, StreamReader

PIECE_BYTES: Final = 256 * 1024
FileOption = Annotated[Path, typer.Option("--file", help="The backup.", exists=True, dir_okay=False)]
KeysOption = Annotated[
    Path, typer.Option("--keys", help="The newest keys file of this tenant.", exists=True, dir_okay=False)
]
Advance = Callable[[int], None]


def backup_command(
    file: Annotated[Path, typer.Option("--file", help="New file for the backup.")],
    keys: Annotated[
        Path, typer.Option("--keys", help="File for the wrapped keys; the one of the last backup is replaced.")
    ],
    namespace: NamespaceOption = None,
    gateway: GatewayOption = "",
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Copy a tenant's API keys, budgets, usage, audit log and content into an encrypted file. Nothing stops meanwhile.

    Keep three things apart, since together they open the data: the backup, the keys file, and the recovery export of
    `r1plus tenant init`. Keep the newest keys file only: an older one opens what was erased since.

    Example: `r1plus tenant backup -n team-credit --file credit-1128.r1b --keys /mnt/keys/credit.r1k`
    """
    if file.exists():
        raise UsageError(f"--file: {file} exists; name a new file")
    if file.absolute() == keys.absolute():
        raise UsageError("--keys: names the same file as --file; keep the two apart")
    before = _read_kept_keys(keys)
    target = find_target(kubeconfig, namespace, gateway)

    def check(header: StreamHeader) -> None:
        if before is not None and (before.root_id, before.namespace) != (header.root_id, header.namespace):
            raise UsageError(
                f"--keys: {keys} has the keys of tenant {before.namespace} (root {before.root_id}), and this is"
                f" {header.namespace} (root {header.root_id}); it was not replaced. Name a file of this tenant's own,"
                " and a new one after rotate-root: older backups need the one of before"
            )

    with contextlib.ExitStack() as stack:
        backup_part, keys_part = (stack.enter_context(_open_part(path)) for path in (file, keys))
        backup = _download(target, "/backup", StreamKind.BACKUP, backup_part, check)
        newest = _download(target, "/backup-keys", StreamKind.KEYS, keys_part, check)
        if (newest.rotation, newest.root_id) != (backup.rotation, backup.root_id):
            raise CliError(
                "A rotation of data keys, or of the root, ended while the backup was made, so its content would not be"
                " readable; nothing was written. Make the backup again"
            )
        size = backup_part.stat().st_size
        _put(keys_part, keys)
        _put(backup_part, file)
    replaced = f", instead of those of {format_timestamp(before.created_at)}" if before else ""
    _say(f"{file}: {backup.rows} rows, {size} bytes, as of {format_timestamp(backup.created_at)}")
    _say(f"{keys}: {newest.rows} data keys, for this backup and older ones{replaced}. Keep it apart from the backups")


def restore_command(
    file: FileOption,
    keys: KeysOption,
    is_dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and restore nothing.")] = False,
    is_confirmed: Annotated[
        bool, typer.Option("--yes", help="Restore also what cannot be read, and do not ask.")
    ] = False,
    namespace: NamespaceOption = None,
    gateway: GatewayOption = "",
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Restore a backup into a tenant whose gateway has no data yet: all of it or, whatever happens, nothing.

    In another cluster restore the Secret's half first: `r1plus tenant init -n NAMESPACE --from EXPORT`. Then API keys,
    budgets, usage, audit log and content are as of the backup. Content of end users that were erased stays unreadable.

    Example: `r1plus tenant restore -n team-credit --file credit-1128.r1b --keys /mnt/keys/credit.r1k`
    """
    target = find_target(kubeconfig, namespace, gateway)
    checked = _upload(target, "/backup-checks", file, keys, "Checking", for_restore="true")
    if is_dry_run:
        _say(f"Nothing was restored. It could be: {_describe(checked)}")
        return
    if checked["unreadable_rows"] and not is_confirmed:
        typer.confirm(f"{_describe_unreadable(checked)}. Restore all the same?", abort=True)
    restored = _upload(target, "/restores", file, keys, "Restoring")
    _say(f"Restored {_describe(restored)}")
    if problem := restored.get("retention_problem"):
        _say(problem)


def verify_backup_command(
    file: FileOption,
    keys: KeysOption,
    namespace: NamespaceOption = None,
    gateway: GatewayOption = "",
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Verify that a backup is whole, and that its keys file opens it. The tenant's gateway reads both to their ends.

    Exit status 1 if a file is cut, changed, another tenant's, or not the one that goes with the other.
    """
    target = find_target(kubeconfig, namespace, gateway)
    _say(f"Both files are whole: {_describe(_upload(target, '/backup-checks', file, keys, 'Checking'))}")


def _read_kept_keys(keys: Path) -> StreamHeader | None:
    """Return the header of the keys file that will be replaced. Raises UsageError for any other file."""
    if not keys.parent.is_dir():
        raise UsageError(
            f"--keys: there is no folder {keys.parent}; make it, or mount what keeps the keys files apart from the"
            " backups"
        )
    if not keys.exists():
        return None
    try:
        with keys.open("rb") as stream:
            return StreamReader(stream.read, StreamKind.KEYS).header
    except (SealedStreamError, OSError) as error:
        raise UsageError(
            f"--keys: {keys} is no keys file and would be replaced ({error}); name another file"
        ) from error


@contextlib.contextmanager
def _open_part(path: Path) -> Iterator[Path]:
    """Yield a new file beside `path`, which only its owner reads; it is gone after the block unless it was renamed."""
    part = path.with_name(f"{path.name}.part")
    try:
        part.unlink(missing_ok=True)  # of a run that was killed
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise UsageError(f"{part}: {error.strerror}") from error
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def _put(part: Path, path: Path) -> None:
    """Give a whole file its name, at once."""
    try:
        part.replace(path)
        sync(path.parent)
    except OSError as error:
        raise CliError(f"{path}: {error.strerror}; name another folder") from error


def _download(
    target: GatewayTarget, path: str, kind: StreamKind, part: Path, check: Callable[[StreamHeader], None]
) -> StreamHeader:
    """Write what the gateway sends, to its last frame. Raises CliError for what is not whole."""
    title = "Copying" if kind is StreamKind.BACKUP else "Copying keys"
    try:
        with open_download(target, path) as pieces, part.open("wb") as file, _show_progress(title, None) as advance:
            reader = StreamReader(_read_pieces(pieces), kind)
            check(reader.header)
            for frame in reader.copy_frames():
                file.write(frame)
                advance(len(frame))
            reader.require_end()
            file.flush()
            os.fsync(file.fileno())
    except SealedStreamError as error:
        raise CliError(f"The gateway's answer is not whole: {error}") from error
    except OSError as error:
        raise CliError(f"{part}: {error.strerror}; make room, or name another folder") from error
    return reader.header


def _read_pieces(pieces: Iterator[bytes]) -> Read:
    buffer = bytearray()

    def read(count: int) -> bytes:
        while len(buffer) < count:
            piece = next(pieces, None)
            if piece is None:
                break
            buffer.extend(piece)
        taken = bytes(buffer[:count])
        del buffer[:count]
        return taken

    return read


def _upload(target: GatewayTarget, path: str, file: Path, keys: Path, title: str, **query: str) -> Json:
    """Send keys file and backup, and return what the gateway says of them."""
    with keys.open("rb") as key_stream, file.open("rb") as stream:
        size = sum(os.fstat(one.fileno()).st_size for one in (key_stream, stream))
        with _show_progress(title, size) as advance:
            return upload(target, path, _read_files(advance, key_stream, stream), size, query)


def _read_files(advance: Advance, *files: BinaryIO) -> Iterator[bytes]:
    for file in files:
        while piece := file.read(PIECE_BYTES):
            yield piece
            advance(len(piece))


@contextlib.contextmanager
def _show_progress(title: str, total: int | None) -> Iterator[Advance]:
    """Show bytes on a terminal; a pipe gets the last line only."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(title, total=total)
        yield lambda count: progress.advance(task, count)


def _describe(answer: Json) -> str:
    backup = answer["backup"]
    text = (
        f"{sum(answer['rows'].values())} rows of {backup['id']} of {format_timestamp(backup['created_at'])}, and"
        f" {answer['data_keys']} data keys"
    )
    return f"{text}; {_describe_unreadable(answer)}" if answer["unreadable_rows"] else text


def _describe_unreadable(answer: Json) -> str:
    return (
        f"{answer['unreadable_rows']} rows of content cannot be read, since their keys were destroyed after the backup:"
        " by erasures, or by a rotation of data keys"
    )


def _say(text: str) -> None:
    open_console().print(Text(runnable_hint(text)))
