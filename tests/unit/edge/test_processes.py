"""Nothing is left running: whoever forked it, and however `serve` ended."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from r1plus_edge.errors import EdgeError
from r1plus_edge.processes import (
    SHARED_MEMORY,
    check_unmarked,
    find_processes,
    mark,
    measure_processor,
    name_region,
    remove_remains,
)
from support.waiting import wait_until

SERVE = """
import subprocess, sys, time
from pathlib import Path
from r1plus_edge.data_folder import open_data_folder
from r1plus_edge.processes import mark
from r1plus_edge.serve import guard

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


def test_a_serve_that_ends_by_itself_leaves_nothing_either(tmp_path: Path) -> None:
    with start(tmp_path) as process:
        process.communicate(b"x")
        assert process.returncode == 0
    assert find_processes(tmp_path) == []


def test_modules_in_the_current_folder_are_not_run(tmp_path: Path) -> None:
    medium = tmp_path / "medium"
    medium.mkdir()
    (medium / "hashlib.py").write_text("open('ran', 'w')\n")
    with start(tmp_path / "data", medium) as process:
        process.communicate(b"x")
    assert [one.name for one in medium.iterdir()] == ["hashlib.py"]


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
        other.kill()


def test_serve_with_a_mark_of_its_own_is_refused_for_it_would_end_itself() -> None:
    check_unmarked({})
    with pytest.raises(EdgeError, match="R1PLUS_EDGE_DATA: marks processes"):
        check_unmarked(mark(Path("/data")))


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
