"""A toy project with a Makefile of parts and their tests, and the runner started in it."""

import os
import subprocess
import sys
from pathlib import Path

from support.paths import TESTS

MAKEFILE = """
good: ; @{python} -m pytest -q -p no:cacheprovider test_good.py
bad: ; @{python} -m pytest -q -p no:cacheprovider test_bad.py
flaky: ; @{python} -m pytest -q -p no:cacheprovider test_flaky.py
chosen: ; @{python} -m pytest -q -p no:cacheprovider --tb=short test_flaky.py
crashes: ; @{python} -m pytest -q -p no:cacheprovider test_flaky.py; kill -SEGV $$$$
lint: ; @echo a.py: line too long; exit 1
slow: ; @{python} -m pytest -q -p no:cacheprovider test_slow.py
leaky: ; @setsid sleep 1000 & echo $$! > pid
meets: ; @until [ -e met ]; do sleep 0.1; done
met: ; @touch met
after: ; @[ -e met ]
fails: ; @until [ -s pid ]; do sleep 0.1; done; exit 1
all: ; @{python} -m runner slow
"""
GOOD = """
import pytest
@pytest.mark.parametrize("n", [1, 2])
def test_adds(n): assert n + 1 > n
@pytest.mark.skip
def test_later(): pass
"""
BAD = """
import pytest
@pytest.fixture
def breaking():
    yield
    raise RuntimeError("not torn down")
def test_holds(): pass
def test_leaves(breaking): pass
def test_breaks(): assert 1 == 2
@pytest.fixture
def server(): raise RuntimeError("no server")
def test_asks(server): pass
"""
FLAKY = """
import pathlib, pytest
def fail_once(name):
    mark = pathlib.Path(name)
    if not mark.exists():
        mark.touch()
        assert name == "the second time"
@pytest.mark.parametrize("n", [1, 2])
def test_chance(n): fail_once(f"chance-{n}")
@pytest.mark.first_run_counts
def test_guards(): fail_once("guards")
def test_holds(): pass
"""
SLOW = """
import pathlib, subprocess, sys, pytest
@pytest.fixture
def daemon():
    process = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    yield process
    # As long as a cluster would take, in small.
    subprocess.run([sys.executable, "-c", "import time; time.sleep(1.5)"], start_new_session=True, check=True)
    pathlib.Path("torn-down").touch()
    process.kill()
def test_waits(daemon):
    # Renamed into place: whoever sees the file sees all of it.
    pathlib.Path("pid.new").write_text(str(daemon.pid))
    pathlib.Path("pid.new").rename("pid")
    daemon.wait()
"""


FILES = {"good": GOOD, "bad": BAD, "slow": SLOW, "flaky": FLAKY}
RUNNER = (sys.executable, "-m", "runner")


def write_project(folder: Path) -> Path:
    """Write the Makefile and the tests of its parts."""
    (folder / "Makefile").write_text(MAKEFILE.format(python=sys.executable))
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = first_run_counts: as in r1plus\n")
    for name, text in FILES.items():
        (folder / f"test_{name}.py").write_text(text)
    return folder


def start(project: Path, *command: str, in_ci: bool = False) -> subprocess.Popen[str]:
    """Start a command as a shell at a terminal would: the tests themselves may run under nohup, and in CI."""
    env = {**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS.parent}", "PYTEST_ADDOPTS": "", "CI": "true" if in_ci else ""}
    command = ("env", "--default-signal=HUP", *command)
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=project, env=env, start_new_session=True, **piped)  # type: ignore[call-overload,no-any-return]


def run(project: Path, *words: str, in_ci: bool = False) -> tuple[int, str]:
    """Run the runner to its end; returns its exit status and all that it printed."""
    process = start(project, *RUNNER, *words, in_ci=in_ci)
    output, _ = process.communicate(timeout=250)
    return process.returncode, output
