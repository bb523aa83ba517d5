"""`make quickstart` as an ordinary user in a clone: what it prints works, nothing is left, Ctrl-C leaves nothing.

`make test` runs it once; all else of it is in `make test-long NAME=edge`.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest

from devcluster.cache import cache_dir
from r1plus_edge.data_folder import DataFolder, find_holder
from r1plus_edge.pods.processes import find_processes
from r1plus_model_repo.importing.smollm2 import build_engines
from r1plus_model_repo.importing.triton_server import WHEEL, install_server
from support.edge.served import read_command
from support.edge.sources import copy_sources
from support.edge.suites import write_part
from support.waiting import wait_until

pytestmark = [
    pytest.mark.edge,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can run it as another user"),
]
NOBODY = 65534
PHASES = ["uv", "packages", "machine", "triton", "engine", "load", "gate", "gateway"]


@dataclass(frozen=True, slots=True)
class User:
    """An ordinary user with a clone, who has what is fetched already."""

    home: Path

    @property
    def data(self) -> Path:
        return self.home / "data"

    def command(self, *words: str) -> list[str]:
        """Return a command of the user, with nothing of our environment."""
        identity = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        variables = [
            f"HOME={self.home}",
            "PATH=/usr/bin:/bin",
            f"R1PLUS_CACHE={cache_dir()}",
            f"UV_CACHE_DIR={cache_dir() / 'tests' / 'uv-of-nobody'}",
        ]
        return ["setpriv", *identity, "env", "-i", *variables, *words]

    def make_command(self, target: str) -> list[str]:
        """Return a `make` of the user."""
        options = f"OPTIONS=--suite {self.home / 'part-v1'} --data {self.data} --listen 127.0.0.1:0"
        return self.command("make", "-s", "--no-print-directory", "-C", str(self.home / "src"), target, options)

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run a command; return what came of it."""
        return subprocess.run(self.command(*words), capture_output=True, text=True, cwd="/")

    def make(self, target: str) -> str:
        """Run a target; return what it prints."""
        result = subprocess.run(self.make_command(target), capture_output=True, text=True, cwd="/")
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def processes(self) -> list[str]:
        """Return the commands of this user's that have to do with the folder: none may be left."""
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        own = [read_command(pid) for pid in pids]
        return [command for command in own if str(self.home) in command and "setpriv" not in command]


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    """A user `nobody` with a copy of the sources; what takes minutes to fetch is in the cache."""
    build_engines(cache_dir() / "engines", print, ("smollm2-edge-q4-1",))
    install_server(cache_dir() / "tritonserver" / WHEEL.replace("==", "-"), print)
    packages = cache_dir() / "tests" / "uv-of-nobody"
    packages.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="r1plus-quickstart-", dir="/tmp"))
    try:
        copy_sources(home / "src")
        write_part(home / "part-v1")
        (home / ".local/bin").mkdir(parents=True)
        if uv := shutil.which("uv", path=f"{os.environ['PATH']}:{Path.home()}/.local/bin"):
            shutil.copy(uv, home / ".local/bin")
        for path in (home, packages):
            subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", str(path)], check=True)
        yield User(home)
    finally:
        if (pid := find_holder(DataFolder(home / "data"))) is not None:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: find_processes(home / "data") == [], "its guardian has ended the rest")
        shutil.rmtree(home)


@pytest.mark.triton
def test_each_line_that_it_prints_works_and_it_goes_down_without_a_trace(user: User) -> None:
    printed = user.make("quickstart")
    assert re.search(r"gate +Pass: 32 of 32 right", printed), printed
    assert re.search(r"Ready after \d+ s", printed)
    phases = json.loads(printed.splitlines()[-1])["phases"]
    assert [phase["name"] for phase in phases] == PHASES
    assert sum(phase["processorSeconds"] for phase in phases if phase["name"] in ("load", "gate")) > 1
    curl = re.search(r"curl .*?\n.*?'\n", printed, re.DOTALL)
    assert curl is not None
    assert "Stockholm" in subprocess.check_output(["/bin/bash", "-c", curl[0]], text=True)
    program = re.search(r"  from openai.*?print\(.*?\)\n", printed, re.DOTALL)
    assert program is not None
    assert "Stockholm" in subprocess.check_output([sys.executable, "-c", dedent(program[0])], text=True)
    state = re.search(r"state    (.*)", printed)
    assert state is not None
    assert "Serving" in user.run(*state[1].split()).stdout
    assert all(Path(f"/proc/{pid}").stat().st_uid == NOBODY for pid in find_processes(user.data))
    assert "It serves already" in user.make("quickstart")
    assert user.make("quickstart-down") == "Stopped; nothing is left running\n"
    wait_until(lambda: user.processes() == [], "nothing of it runs", evidence=lambda: str(user.processes()))


MOMENTS = {"while packages are installed": r" uv  +installed", "while its engine is loaded or gated": r" (load|gate) "}


@pytest.mark.parametrize("line", MOMENTS.values(), ids=MOMENTS)
def test_ctrl_c_before_it_serves_leaves_nothing_running(user: User, line: str) -> None:
    user.make("quickstart-down")
    if line == MOMENTS["while packages are installed"]:
        shutil.rmtree(user.home / "src/.venv-edge", ignore_errors=True)
    with subprocess.Popen(
        user.make_command("quickstart"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert any(re.search(line, one) for one in process.stdout)
        assert user.processes()
        os.killpg(process.pid, signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait() != 0
    assert any(one.startswith(("Stopped", "Interrupted; nothing is left running")) for one in rest.splitlines()), rest
    wait_until(lambda: user.processes() == [], "nothing of it runs", evidence=lambda: str(user.processes()))
