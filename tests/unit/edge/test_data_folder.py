"""The data folder: its owner, its one user, and folders that are refused."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from r1plus_edge.data_folder import DataFolder, find_holder, hold, open_data_folder
from r1plus_edge.errors import EdgeError
from support.waiting import wait_until

HOLDER = """
import sys
from pathlib import Path
from r1plus_edge.data_folder import hold, open_data_folder
with hold(open_data_folder(Path(sys.argv[1]))):
    print("holds", flush=True)
    sys.stdin.read()
"""

ON_A_READ_ONLY_ROOT = """
mount -t tmpfs -o ro tmpfs "$1" && exec "$2" -c "
import asyncio, sys
from pathlib import Path
from r1plus_edge.data_folder import open_data_folder
from r1plus_edge.errors import EdgeError
from r1plus_edge.start.preparation import prepare_triton

root = Path(sys.argv[1])
for step in (lambda: open_data_folder(root / 'data'), lambda: asyncio.run(prepare_triton(root / 'cache', root, print))):
    try:
        step()
    except EdgeError as error:
        print(error)
" "$1"
"""


def test_a_new_folder_is_its_owners_alone(tmp_path: Path) -> None:
    folder = open_data_folder(tmp_path / "a" / "data")
    assert folder.root.stat().st_mode & 0o777 == 0o700
    assert all(path.is_dir() for path in (folder.logs, folder.pods, folder.store, folder.secret))
    assert open_data_folder(folder.root) == folder, "a second start finds it"


def make_file(path: Path) -> Path:
    path.write_text("")
    return path


def make_file_in_the_way(path: Path) -> Path:
    path.mkdir()
    (path / "logs").write_text("")
    return path


def give_away(path: Path) -> Path:
    path.mkdir()
    os.chown(path, 12345, 12345)
    return path


def fill(path: Path) -> Path:
    (path / "pods").mkdir(parents=True)
    (path / "pods" / "mine.yaml").write_text("mine")
    (path / "Makefile").write_text("")
    return path


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a file": (make_file, "is a file; name a folder"),
    "a folder with a file in the way": (make_file_in_the_way, "logs is a file; name a folder"),
    "a folder of other things, whose pods would go": (fill, r"has other things in it \(Makefile\); name a new or an"),
    "a folder below a file": (lambda path: make_file(path) / "data", "is a file; name a folder"),
    "a name with a blank": (lambda path: path / "my data", "has the character ' '"),
    "a name that a shell would run": (lambda path: path / "$(reboot)", "has the character '\\$'"),
    "a place where nobody writes": (lambda path: Path("/proc/r1plus"), "name a folder that you may write"),
}


@pytest.mark.parametrize(("make", "words"), REFUSED.values(), ids=REFUSED)
def test_a_folder_is_refused_with_why_and_what_to_do(tmp_path: Path, make: Callable[[Path], Path], words: str) -> None:
    with pytest.raises(EdgeError, match=words):
        open_data_folder(make(tmp_path / "data"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_a_read_only_root_is_refused_with_what_to_name(tmp_path: Path) -> None:
    command = ["unshare", "--mount", "sh", "-c", ON_A_READ_ONLY_ROOT, "sh", str(tmp_path), sys.executable]
    assert subprocess.check_output(command, text=True).splitlines() == [
        f"--data {tmp_path}/data: Read-only file system ({tmp_path}/data); name a folder that you may write",
        f"{tmp_path}/cache: Read-only file system; name another folder with R1PLUS_CACHE",
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders to others")
def test_another_users_folder_is_refused_by_both_numbers(tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match="it is user 12345's, and you are user 0; name a folder of your own"):
        open_data_folder(give_away(tmp_path / "data"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a folder away")
def test_nothing_is_made_in_another_users_folder(tmp_path: Path) -> None:
    folder = give_away(tmp_path / "data")
    with pytest.raises(EdgeError, match="it is user 12345's"):
        open_data_folder(folder)
    assert not any(folder.iterdir())


def test_a_folder_that_serve_has_had_is_opened_whatever_somebody_has_put_there(tmp_path: Path) -> None:
    with hold(folder := open_data_folder(tmp_path)):
        (tmp_path / "notes.txt").write_text("")
    assert open_data_folder(tmp_path) == folder


OFD_HOLDER = """
import fcntl, struct, sys
with open(sys.argv[1], "a+b") as lock:
    fcntl.fcntl(lock, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
    print("holds", flush=True)
    sys.stdin.read()
"""


def test_a_holder_without_a_pid_here_is_told_as_one_of_elsewhere(tmp_path: Path) -> None:
    folder = open_data_folder(tmp_path / "data")
    command = [sys.executable, "-c", OFD_HOLDER, str(folder.root / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"holds\n"
        assert find_holder(folder) == -1, "a signal to it would reach every process"
        with pytest.raises(EdgeError, match="in another container, or on another machine"), hold(folder):
            pass
        holder.kill()


def test_a_second_serve_is_refused_by_the_first_ones_pid_until_that_is_killed(tmp_path: Path) -> None:
    root = tmp_path / "data"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"holds\n"
        folder = DataFolder(root)
        assert find_holder(folder) == first.pid
        with pytest.raises(EdgeError, match=rf"runs there already \(pid {first.pid}\)"), hold(folder):
            pass
        first.kill()
        first.wait()
    wait_until(lambda: find_holder(folder) is None, "the lock ends with its process")
    with hold(folder):
        pass


def test_nobody_has_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    assert find_holder(DataFolder(tmp_path / "none")) is None
