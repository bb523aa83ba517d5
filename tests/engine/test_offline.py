"""From a bundle to an answer in a network namespace without any route, as an ordinary user with an empty home."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from devcluster.cache import cache_dir
from r1plus_edge.bundle.install import CURRENT
from r1plus_edge.data_folder import DataFolder, find_holder
from r1plus_edge.pods.processes import find_processes
from support.edge.engines import NEWER
from support.edge.served import COMMAND, read_command
from support.edge.whole_bundle import Bundled
from support.waiting import wait_until

pytestmark = [
    pytest.mark.edge,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root makes network namespaces and runs as another user"),
]
USER = 54321
"""No account has it: an empty home, no groups, no name."""
PYTHON = "/usr/bin/python3"
"""Debian's, with python3-venv."""
LOOPBACK_UP = """
import fcntl, os, socket, struct, sys
# SIOCSIFFLAGS: IFF_UP and IFF_RUNNING; a new namespace has nothing but a loopback that is down.
fcntl.ioctl(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0x8914, struct.pack("16sh", b"lo", 0x41))
os.execvp(sys.argv[1], sys.argv[1:])
"""


@dataclass(frozen=True, slots=True)
class Device:
    """A machine without a network, to its user."""

    home: Path

    @property
    def data(self) -> Path:
        return self.home / "data"

    def run(self, *words: str, enter: tuple[str, ...] = ("unshare", "--net")) -> "subprocess.CompletedProcess[str]":
        """Run a command as the user, in a new namespace without a route."""
        identity = [f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs"]
        environ = ["env", "-i", f"HOME={self.home}", "PATH=/usr/bin:/bin"]
        command = [*enter, PYTHON, "-c", LOOPBACK_UP, "setpriv", *identity, *environ, *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=self.home)

    def run_beside_serve(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run a command in the namespace of what serves."""
        pid = find_holder(DataFolder(self.data))
        return self.run(*words, enter=("nsenter", f"--net=/proc/{pid}/ns/net"))

    def install(self, bundled: Bundled, key: str, *options: str) -> "subprocess.CompletedProcess[str]":
        own = ("--", "--data", str(self.data), "--listen", "127.0.0.1:0")
        return self.run(PYTHON, str(bundled.installer), str(bundled.path), "--key", key, *options, *own)


@contextmanager
def make_device() -> Iterator[Device]:
    """Make a home with nothing in it, for the block."""
    home = Path(tempfile.mkdtemp(prefix="r1plus-offline-", dir="/tmp"))
    os.chown(home, USER, USER)
    try:
        yield Device(home)
    finally:
        if (pid := find_holder(DataFolder(home / "data"))) is not None:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: find_processes(home / "data") == [], "its guardian has ended the rest")
        shutil.rmtree(home)


@pytest.fixture
def device() -> Iterator[Device]:
    with make_device() as own:
        yield own


@dataclass(frozen=True, slots=True)
class InstalledDevice:
    """A device that serves out of a bundle, and what its owner has read."""

    device: Device
    output: str

    @property
    def current(self) -> Path:
        """The software that the next start runs."""
        return self.device.home / ".local/share/r1plus/software" / CURRENT

    def ask(self) -> str:
        """Return what the printed `curl` prints."""
        curl = re.search(r"curl .*?\n.*?'\n", self.output, re.DOTALL)
        assert curl is not None
        return self.device.run_beside_serve("/bin/bash", "-c", curl[0]).stdout


@pytest.fixture(scope="module")
def installation(bundled: Bundled) -> Iterator[InstalledDevice]:
    with make_device() as device:
        control = device.run("curl", "--max-time", "20", "https://pypi.org")
        assert control.returncode in (6, 7), control.stderr
        began = time.monotonic()
        result = device.install(bundled, bundled.key)
        print(f"installed, gated and serving after {time.monotonic() - began:.0f} s\n{result.stdout}")
        assert result.returncode == 0, result.stdout + result.stderr
        yield InstalledDevice(device, result.stdout)


def test_without_any_route_an_ordinary_user_gets_from_a_bundle_to_an_answer(installation: InstalledDevice) -> None:
    assert re.search(r"gate +Pass: 32 of 32 right", installation.output)
    assert "Stockholm" in installation.ask()
    serving = find_processes(installation.device.data)
    assert serving
    assert all(Path(f"/proc/{pid}").stat().st_uid == USER for pid in serving)
    triton = str(installation.device.home / ".cache/r1plus/tritonserver")
    assert any(triton in read_command(pid) for pid in serving)


def test_a_second_bundle_replaces_software_and_engine_of_the_first_while_it_serves(
    installation: InstalledDevice, newer: Path
) -> None:
    first = installation.current.resolve()
    began = time.monotonic()
    words = ("serve", "update", str(newer), "--data", str(installation.device.data))
    update = installation.device.run_beside_serve(str(installation.current / "bin/r1plus"), *words)
    print(f"updated after {time.monotonic() - began:.0f} s\n{update.stdout}")
    assert (update.returncode, "Pass, 32/32 right" in update.stdout) == (0, True), update.stdout + update.stderr
    assert f"({NEWER}) serves" in update.stdout
    second = installation.current.resolve()
    assert second != first
    assert first.exists(), "the slot before it stays"
    assert any(f"{second}/" in read_command(pid) for pid in find_processes(installation.device.data))
    assert "Stockholm" in installation.ask()


def test_it_stops_as_printed_and_its_maker_is_known_from_then_on(
    installation: InstalledDevice, bundled: Bundled
) -> None:
    stop = re.search(r"stop +(/.*)\n", installation.output)
    assert stop is not None
    assert installation.device.run(*stop[1].split()).stdout == "Stopped; nothing is left running\n"
    began = time.monotonic()
    known_key = installation.device.run(PYTHON, str(bundled.installer), str(bundled.path), "--no-start")
    print(f"installed again after {time.monotonic() - began:.0f} s\n{known_key.stdout}")
    assert known_key.returncode == 0, known_key.stderr


def test_another_key_or_an_altered_bundle_leaves_the_home_empty(
    bundled: Bundled, device: Device, tmp_path: Path
) -> None:
    other = subprocess.check_output([COMMAND, "suite", "keygen", "--out", tmp_path / "other.pem"], text=True).strip()
    refused = device.install(bundled, other)
    assert refused.returncode == 1
    assert re.search(r"Error: .*is signed by key [0-9a-f]{16}, and trusted is [0-9a-f]{16}", refused.stderr)
    altered = Bundled(bundled.path.with_name("altered.tar"), bundled.key, "", [])
    shutil.copy(bundled.path, altered.path)
    with altered.path.open("r+b") as file:
        file.seek(-100_000, os.SEEK_END)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    refused = device.install(altered, bundled.key)
    assert (refused.returncode, "its bytes are not those that were signed" in refused.stderr) == (1, True), (
        refused.stderr
    )
    refused = device.run(PYTHON, str(bundled.installer), str(bundled.path))
    assert (refused.returncode, "no signer is trusted" in refused.stderr) == (1, True), refused.stderr
    assert list(device.home.iterdir()) == []


def test_the_same_contents_and_key_give_the_same_bytes(bundled: Bundled, tmp_path: Path) -> None:
    assert bundled.printed == bundled.key
    again = tmp_path / "again.tar"
    environ = {**os.environ, "R1PLUS_CACHE": str(cache_dir()), "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7"}
    subprocess.run([*bundled.make, str(again)], check=True, env=environ, umask=0o077)
    for one, other in ((bundled.path, again), (bundled.installer, again.with_name("install.pyz"))):
        assert subprocess.run(["cmp", one, other]).returncode == 0


def test_its_python_is_debians() -> None:
    version = subprocess.check_output([PYTHON, "-c", "import sys; print(*sys.version_info[:2])"], text=True)
    assert version.split() == [str(part) for part in sys.version_info[:2]]
