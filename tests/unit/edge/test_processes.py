"""Nothing is left running: whoever forked it, and however `serve` ended."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from devcluster import daemons
from r1plus_edge.errors import EdgeError
from r1plus_edge.pods.processes import (
    SHARED_MEMORY,
    EndWatch,
    check_unmarked,
    find_processes,
    find_start,
    has_ended,
    mark,
    measure_processor,
    name_region,
    read_processor_seconds,
    read_stat,
    read_thread_seconds,
    remove_remains,
)
from support.waiting import wait_until

SERVE = """
import subprocess, sys, time
from pathlib import Path
from r1plus_edge.data_folder import open_data_folder
from r1plus_edge.pods.processes import mark
from r1plus_edge.start.serve import guard

folder = open_data_folder(Path(sys.argv[1]))
with guard(folder):
    orphan = "import os, time; os.setsid(); os.fork(); time.sleep(600)"
    subprocess.Popen([sys.executable, "-c", orphan], env=dict(mark(folder.root)))
    (folder.pods / "edge-1").mkdir()
    print("serves", flush=True)
    sys.stdin.read(1)
"""


def start(root: Path, cwd: Path | None = None) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-P", "-c", SERVE, str(root)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=cwd)
    assert process.stdout is not None
    assert process.stdout.readline() == b"serves\n"
    wait_until(lambda: len(find_processes(root)) == 2, "the process and its orphan run")
    return process


def test_a_serve_that_is_killed_leaves_no_process_memory_or_folder(tmp_path: Path) -> None:
    region = SHARED_MEMORY / f"{name_region(tmp_path)}8000-stub"
    with start(tmp_path) as process:
        region.touch()
        process.kill()
    wait_until(lambda: find_processes(tmp_path) == [], "its guardian has ended them")
    wait_until(lambda: not region.exists() and not any((tmp_path / "pods").iterdir()), "and removed the rest")


@pytest.mark.unit_slow
def test_a_serve_that_ends_by_itself_leaves_nothing_either(tmp_path: Path) -> None:
    with start(tmp_path) as process:
        process.communicate(b"x")
        assert process.returncode == 0
    assert find_processes(tmp_path) == []


@pytest.mark.unit_slow
def test_modules_in_the_current_folder_are_not_run(tmp_path: Path) -> None:
    medium = tmp_path / "medium"
    medium.mkdir()
    (medium / "hashlib.py").write_text("open('ran', 'w')\n")
    with start(tmp_path / "data", medium) as process:
        process.communicate(b"x")
    assert [one.name for one in medium.iterdir()] == ["hashlib.py"]


@pytest.mark.unit_slow
def test_without_a_guardian_the_next_start_removes_what_is_left(tmp_path: Path) -> None:
    with start(tmp_path) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        guardian = next(int(pid) for pid in children if b"guardian" in Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill(guardian, signal.SIGKILL)
        process.kill()
    before = find_processes(tmp_path)
    assert before
    assert remove_remains(tmp_path, tmp_path / "pods") == sorted(before)
    assert find_processes(tmp_path) == []


def test_processes_of_another_folder_are_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["/bin/sleep", "600"], env=dict(mark(tmp_path / "other"))) as other:
        assert remove_remains(tmp_path, tmp_path / "pods") == []
        assert other.poll() is None
        assert remove_remains(tmp_path / "other", tmp_path / "pods") == [other.pid]


def test_serve_with_a_mark_of_its_own_is_refused_for_it_would_end_itself() -> None:
    check_unmarked({})
    with pytest.raises(EdgeError, match="R1PLUS_EDGE_DATA: marks processes"):
        check_unmarked(mark(Path("/data")))


@pytest.mark.unit_slow
def test_the_processor_time_of_the_folders_processes_counts_while_they_run(tmp_path: Path) -> None:
    busy = "import time\nwhile time.process_time() < 0.5: pass\nprint('done', flush=True); time.sleep(600)"
    before = measure_processor(tmp_path)
    command = [sys.executable, "-c", busy]
    with subprocess.Popen(command, env={**mark(tmp_path)}, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"done\n"
        used = measure_processor(tmp_path) - before
        process.kill()
    assert used > 0.4  # The kernel counts in ticks.


OUTLIVED = """
import ctypes, sys, threading
threading.Thread(target=sys.stdin.read).start()
ctypes.CDLL(None).pthread_exit(None)
"""
ENDS: dict[str, Callable[[int], bool]] = {
    "of serve and its stories": has_ended,
    "of the embedded cluster": lambda pid: daemons.start_time(pid) is None,
}


@pytest.mark.parametrize("is_over", ENDS.values(), ids=ENDS)
def test_a_process_has_not_ended_while_one_of_its_threads_runs(is_over: Callable[[int], bool]) -> None:
    """Of one that is killed the first thread may be a zombie while others still hold its ports."""
    with subprocess.Popen([sys.executable, "-c", OUTLIVED], stdin=subprocess.PIPE) as process:

        def has_lost_first_thread() -> bool:
            stat = read_stat(Path(f"/proc/{process.pid}"))
            return stat is not None and stat.state == "Z"

        wait_until(has_lost_first_thread, "its first thread has ended")
        assert not is_over(process.pid)
        process.kill()
        wait_until(lambda: is_over(process.pid), "all have ended")


FADING = """
import ctypes, sys, threading
threading.Thread(target=sys.stdin.read).start()
print("runs", flush=True)
open(sys.argv[1]).close()
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_process_counts_until_its_last_thread_ends_though_its_variables_are_gone(tmp_path: Path) -> None:
    """The kernel takes the variables of a process that ends before its memory, files and ports."""
    fifo, watch = tmp_path / "fifo", EndWatch()
    os.mkfifo(fifo)
    command = [sys.executable, "-c", FADING, fifo]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(mark(tmp_path))) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"runs\n"
        watch.add(find_processes(tmp_path))
        fifo.write_text("")
        wait_until(lambda: find_processes(tmp_path) == [], "its variables are gone")
        assert watch.list_running() == [process.pid]
        process.kill()
        wait_until(lambda: watch.list_running() == [], "it has ended")


def test_another_process_with_the_number_of_one_that_has_ended_is_not_waited_for() -> None:
    assert EndWatch({os.getpid(): "1"}).list_running() == []


def test_a_process_whose_name_looks_like_what_the_kernel_says_is_read_all_the_same(tmp_path: Path) -> None:
    program = tmp_path / "a) Z 1 (b"
    shutil.copy("/bin/sleep", program)
    with subprocess.Popen([program, "600"]) as process:
        wait_until(lambda: "Z 1" in Path(f"/proc/{process.pid}/comm").read_text(), "it has its name")
        started = find_start(process.pid)
        assert started is not None and started.isdigit()
        assert (find_start(process.pid), has_ended(process.pid)) == (started, False)
        process.kill()
    assert (find_start(process.pid), read_processor_seconds([process.pid])) == (None, 0.0)


def test_a_thread_counts_for_itself_and_for_its_process_also_when_it_has_ended() -> None:
    busy = """
import sys, threading, time
def work():
    while time.thread_time() < 0.3: pass
thread = threading.Thread(target=work)
thread.start()
thread.join()
threading.Thread(target=sys.stdin.read).start()
print("worked", flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"worked\n"
        wait_until(lambda: len(read_thread_seconds(process.pid)) == 2, "the kernel has ended the one that worked")
        threads, whole = read_thread_seconds(process.pid), read_processor_seconds([process.pid])
        process.kill()
    assert whole - sum(threads.values()) > 0.25  # The kernel counts in ticks.
