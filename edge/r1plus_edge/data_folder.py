"""The one folder with everything that `serve` writes: state, keys, logs. One `serve` at a time has it.

The lock is the kernel's: it ends with its process, however that ends, and tells who holds it.
"""

import fcntl
import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from r1plus_edge.errors import EdgeError

_FLOCK: Final = "hhqqi"
"""struct flock of the kernel: type, whence, start, length, pid."""
_PRIVATE: Final = 0o700
_NAMES: Final = frozenset(
    {
        *("objects.json", "status.json", "tenant.json", "update.json", "requests", "control.sock", "trial", "former"),
        *("key", "secret", "store", "logs", "pods", "claims", "lock"),
    }
)
"""What `serve` makes in it."""
_OF_A_DISK: Final = "lost+found"
_MOST_NAMED: Final = 3
_UNQUOTABLE: Final = re.compile(r"""[\s'"\\$`&|;<>()*?\[\]#~!{}]""")
"""Of a path in a shell's command line."""


@dataclass(frozen=True, slots=True)
class DataFolder:
    """Where each thing is."""

    root: Path

    @property
    def objects(self) -> Path:
        """What the plan has made: revisions with their verdicts, settings, the Service's selector."""
        return self.root / "objects.json"

    @property
    def status(self) -> Path:
        """What `serve status` reads."""
        return self.root / "status.json"

    @property
    def tenant(self) -> Path:
        """Who this machine is to the gateway: uid, and when it was made."""
        return self.root / "tenant.json"

    @property
    def key(self) -> Path:
        """The first API key; only its owner reads it."""
        return self.root / "key"

    @property
    def secret(self) -> Path:
        """Half of the key that the gateway's data are encrypted with."""
        return self.root / "secret"

    @property
    def store(self) -> Path:
        """The gateway's data."""
        return self.root / "store"

    @property
    def logs(self) -> Path:
        """A file for each container."""
        return self.root / "logs"

    @property
    def pods(self) -> Path:
        """Folders of pods; all go when `serve` ends."""
        return self.root / "pods"

    @property
    def claims(self) -> Path:
        """A folder for each engine volume, with a link to the engine's files."""
        return self.root / "claims"

    @property
    def update(self) -> Path:
        """Which update is in force, and which one is under way."""
        return self.root / "update.json"

    @property
    def requests(self) -> Path:
        """R1PlusDeployments of updates, by their digests."""
        return self.root / "requests"

    @property
    def control(self) -> Path:
        """The socket by which `serve update` reaches who serves."""
        return self.root / "control.sock"

    @property
    def trial(self) -> "DataFolder":
        """Of other software, while it is gated."""
        return DataFolder(self.root / "trial")

    @property
    def former(self) -> "DataFolder":
        """What the software before this one had recorded: objects and updates."""
        return DataFolder(self.root / "former")


def open_data_folder(root: Path) -> DataFolder:
    """Make the folder if it is missing; only its owner may read it.

    Raises:
        EdgeError: it cannot be made or written, is another user's, or has other things in it: what is in `pods` goes.
    """
    folder = DataFolder(root.absolute())
    check_path("--data", folder.root)
    if problem := _explain_owner(folder.root) or _explain_contents(folder):
        raise EdgeError(problem)
    try:
        for path in (folder.root, folder.logs, folder.pods, folder.store, folder.secret):
            path.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
        folder.root.chmod(_PRIVATE)
    except (FileExistsError, NotADirectoryError) as error:
        raise EdgeError(f"--data {root}: {error.filename} is a file; name a folder") from error
    except OSError as error:
        raise EdgeError(_explain_unwritable(folder.root, error)) from error
    if not os.access(folder.root, os.W_OK | os.X_OK):
        raise EdgeError(f"--data {root}: you may not write there; name another folder")
    return folder


def check_readable(folder: DataFolder) -> None:
    """Refuse to tell what serves, or that nothing does, from a folder that cannot be read.

    Raises:
        EdgeError: it is another user's.
    """
    try:
        os.scandir(folder.root).close()
    except PermissionError as error:
        raise EdgeError(
            f"--data {folder.root}: it is another user's, and you may not read it; run this as that user, or name a"
            " folder of your own"
        ) from error
    except OSError:
        return  # Nothing was served there.


def check_path(option: str, path: Path) -> None:
    """Refuse a path that Triton cannot hand on: it starts its Python backend through a shell, unquoted.

    Raises:
        EdgeError: it has such a character.
    """
    if match := _UNQUOTABLE.search(str(path)):
        raise EdgeError(
            f"{option} {path}: has the character {match[0]!r}, with which Triton cannot start; name a folder without"
        )


def _explain_owner(root: Path) -> str:
    """Return that the folder is another user's; empty: it is not."""
    try:
        owner = root.stat().st_uid
    except OSError:
        return ""
    if owner == os.geteuid():
        return ""
    return f"--data {root}: it is user {owner}'s, and you are user {os.geteuid()}; name a folder of your own"


def _explain_contents(folder: DataFolder) -> str:
    """Return that the folder is used for other things; empty: it is new, or `serve` has had it before."""
    try:
        names = {path.name for path in folder.root.iterdir()}
    except OSError:
        return ""
    others = sorted(name for name in names - _NAMES - {_OF_A_DISK} if not name.endswith(".part"))
    if not others or {_open_lock(folder).name, folder.secret.name} <= names:
        return ""
    shown = ", ".join(others[:_MOST_NAMED]) + (", …" if len(others) > _MOST_NAMED else "")
    return f"--data {folder.root}: has other things in it ({shown}); name a new or an empty folder"


def _explain_unwritable(root: Path, error: OSError) -> str:
    return f"--data {root}: {error.strerror} ({error.filename}); name a folder that you may write"


@contextmanager
def hold(folder: DataFolder) -> Iterator[int]:
    """Have the folder alone for the block, which gets the lock's descriptor: open, it has the folder beyond an `exec`.

    Raises:
        EdgeError: another `serve` has it.
    """
    with _open_lock(folder).open("a+b") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _describe_holder(_ask_holder(lock.fileno()))
            raise EdgeError(
                f"--data {folder.root}: r1plus serve runs there already ({holder});"
                " `r1plus serve stop` there ends it, or name another folder"
            ) from error
        yield lock.fileno()


def find_holder(folder: DataFolder) -> int | None:
    """Return the process that has the folder; None: none does. Not for the holder itself, whose lock it would end.

    0 or less: one of another container, or of another machine, where a network's file system has the folder.
    """
    try:
        with _open_lock(folder).open("rb") as lock:
            return _ask_holder(lock.fileno())
    except OSError:
        return None


def _describe_holder(pid: int | None) -> str:
    return f"pid {pid}" if pid is None or pid > 0 else "in another container, or on another machine"


def _open_lock(folder: DataFolder) -> Path:
    return folder.root / "lock"


def _ask_holder(descriptor: int) -> int | None:
    question = struct.pack(_FLOCK, fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, question)[: len(question)])
    return None if kind == fcntl.F_UNLCK else int(pid)
