"""The unit of `r1plus serve install`, as systemd would run it: its ExecStart serves, its ExecStop ends all.

PID 1 is no systemd here, so a test does what systemd does of the unit: its environment and nothing else, no new rights,
no capabilities, a /tmp of its own, and a file system that can be written in the unit's folders only. Its filter of system calls, its
control group and its namespaces for users and devices are not imitated.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from devcluster.cache import cache_dir
from r1plus_edge.data_folder import DataFolder, find_holder
from r1plus_edge.processes import find_processes
from r1plus_edge.report import ServePhase, read_status
from r1plus_edge.service import Service, render_unit
from r1plus_model_repo.importing.smollm2 import build_engines
from r1plus_model_repo.importing.triton_server import WHEEL, install_server
from support.edge.served import COMMAND, START_SECONDS
from support.edge.suites import write_part
from support.waiting import wait_until

pytestmark = [
    pytest.mark.edge,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a file system that cannot be written"),
]
ROOT = Path(__file__).parents[2]
PROTECTED = """
set -e
mount --make-rprivate /
# PrivateTmp: a /tmp of its own. What the unit runs may be a clone in /tmp: only that is seen in there.
number=0
for folder in $VISIBLE; do
  number=$((number + 1)); mkdir "$SCRATCH/$number"; mount --bind "$folder" "$SCRATCH/$number"
done
mount -t tmpfs tmpfs /tmp
number=0
for folder in $VISIBLE; do
  number=$((number + 1)); mkdir -p "$folder"; mount --bind "$SCRATCH/$number" "$folder"
  mount -o remount,bind,ro "$folder"
done
# ProtectSystem=strict with ReadWritePaths.
for folder in $WRITABLE; do mount --bind "$folder" "$folder"; mount -o remount,bind,rw "$folder"; done
mount -o remount,bind,ro /
if touch /etc/r1plus-test 2>/dev/null; then echo "the file system can be written" >&2; exit 3; fi
unset WRITABLE VISIBLE SCRATCH
exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
"""


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit's lines, as systemd reads them."""

    text: str
    data: DataFolder

    def read(self, name: str) -> list[str]:
        """Return the words of a setting."""
        (value,) = re.findall(rf"^{name}=(.*)$", self.text, re.MULTILINE)
        return [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(value)]

    def start(self, name: str, log: Path) -> "subprocess.Popen[bytes]":
        """Run a command of the unit."""
        environ = ["env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "LANG=C.UTF-8", "HOME=/"]
        command = ["sh", *environ, *self.read("Environment"), *self.read(name)]
        scratch = self.data.root.parent / log.stem
        scratch.mkdir()
        folders = {"WRITABLE": " ".join(self.read("ReadWritePaths")), "VISIBLE": f"{ROOT} {cache_dir()}"}
        with log.open("wb") as output:
            return subprocess.Popen(
                ["unshare", "--mount", "/bin/sh", "-c", PROTECTED, *command],
                env={"PATH": os.environ["PATH"], "SCRATCH": str(scratch), **folders},
                stdout=output,
                stderr=output,
                umask=int(self.read("UMask")[0], 8),
                cwd="/",
                start_new_session=True,
            )


@pytest.fixture
def unit() -> Iterator[Unit]:
    build_engines(cache_dir() / "engines", print, ("smollm2-edge-q4-1",))
    install_server(cache_dir() / "tritonserver" / WHEEL.replace("==", "-"), print)
    folder = Path(tempfile.mkdtemp(prefix="r1plus-service-", dir="/srv"))
    try:
        write_part(folder / "part-v1")
        (folder / "data").mkdir()
        # The gate is not what is tested: on busy cores it takes minutes, or fails by answers that come too late.
        options = ("--tier", "edge", "--gate", "Observe", "--suite", str(folder / "part-v1"), "--listen", "127.0.0.1:0")
        service = Service("r1plus-edge", False, COMMAND, options, folder / "data", cache_dir(), 8 * 2**30)
        yield Unit(render_unit(service), DataFolder(folder / "data"))
    finally:
        if (pid := find_holder(DataFolder(folder / "data"))) is not None:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: find_processes(folder / "data") == [], "nothing of it runs")
        shutil.rmtree(folder)


def test_exec_start_serves_and_exec_stop_ends_all(unit: Unit, tmp_path: Path) -> None:
    started = unit.start("ExecStart", tmp_path / "start.log")

    def serves() -> bool:
        assert started.poll() is None, (tmp_path / "start.log").read_text()
        status = read_status(unit.data.status)
        return status is not None and status.phase is ServePhase.SERVING

    wait_until(serves, "it serves", START_SECONDS, evidence=(tmp_path / "start.log").read_text)
    assert find_holder(unit.data) == started.pid, "systemd's main process is serve itself"
    status = read_status(unit.data.status)
    assert status is not None
    body = {"model": "edge", "messages": [{"role": "user", "content": "What is the capital of Sweden?"}]}
    headers = {"Authorization": f"Bearer {unit.data.key.read_text().strip()}"}
    answer = httpx.post(
        f"{status.url}/v1/chat/completions", json=body, headers=headers, timeout=START_SECONDS, trust_env=False
    ).json()
    assert "Stockholm" in answer["choices"][0]["message"]["content"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in unit.data.root.iterdir() if path.is_file())
    stopped = unit.start("ExecStop", tmp_path / "stop.log")
    assert stopped.wait(START_SECONDS) == 0, (tmp_path / "stop.log").read_text()
    assert started.wait(START_SECONDS) == 0, "a stop is no failure, after which systemd would start it again"
    assert find_processes(unit.data.root) == []


def test_wrong_options_end_it_with_the_status_that_systemd_does_not_restart(unit: Unit, tmp_path: Path) -> None:
    wrong = Unit(unit.text.replace("--tier edge", "--tier edge --engine nonesuch"), unit.data)
    started = wrong.start("ExecStart", tmp_path / "start.log")
    assert started.wait(START_SECONDS) == int(unit.read("RestartPreventExitStatus")[0]), (
        tmp_path / "start.log"
    ).read_text()
