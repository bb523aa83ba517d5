"""The supervisor with real processes: a prober that dies, hangs or cannot start, orphans, and the end."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from r1plus_contract.admission import read_token
from r1plus_monitoring.supervisor import Patience, backoff
from unit.monitoring import scripted
from unit.monitoring.scripted import Pod

SUPERVISE = """
import sys
from pathlib import Path
from r1plus_monitoring.supervisor import Patience, Supervisor
patience = Patience(tick=0.05, stale=float(sys.argv[2]), first_backoff=0.05, longest_backoff=0.2, farewell=2.0)
sys.exit(Supervisor(sys.argv[3:], Path(sys.argv[1]), patience).run())
"""


@contextmanager
def supervised(
    state: Path, command: list[str], environ: dict[str, str] | None = None, stale: float = 30.0
) -> Iterator[subprocess.Popen[bytes]]:
    """A supervisor process over `command`; it and what it started are gone at the end."""
    with (state / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISE, str(state), str(stale), *command],
            env={**os.environ, **(environ or {})},
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def until(holds: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.02)


def logged(state: Path, message: str) -> list[dict[str, object]]:
    lines = (json.loads(line) for line in (state / "log").read_text().splitlines() if line.startswith("{"))
    return [line for line in lines if line["message"] == message]


def started(state: Path) -> list[int]:
    return [int(str(line["pid"])) for line in logged(state, "Prober started")]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def verdict_at(port: int) -> dict[str, object] | None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/verdict", timeout=2) as response:
            return dict(json.load(response))
    except OSError:
        return None


@pytest.mark.parametrize(
    ("failures", "seconds"),
    [
        pytest.param(1, 1.0, id="the first death waits the first backoff"),
        pytest.param(2, 2.0, id="the second twice that"),
        pytest.param(5, 16.0, id="and so on"),
        pytest.param(6, 30.0, id="to the longest"),
        pytest.param(10_000, 30.0, id="where it stays, without overflow"),
    ],
)
def test_backoff(failures: int, seconds: float) -> None:
    assert backoff(failures, Patience()) == seconds


def test_a_killed_prober_comes_back_and_the_token_and_the_verdict_stay(tmp_path: Path) -> None:
    pod = Pod.make(tmp_path)
    pod.mount()
    port = free_port()
    command = [sys.executable, scripted.__file__, *pod.flags(port)]
    environ = {**pod.environ(), "PYTHONPATH": str(Path(scripted.__file__).parents[2])}
    with supervised(pod.state, command, environ):
        until(lambda: (verdict_at(port) or {}).get("verdict") == "Pass", "a Pass")
        token, first = read_token(pod.admission), verdict_at(port)
        assert token is not None
        assert first is not None
        os.kill(started(pod.state)[-1], signal.SIGKILL)
        until(lambda: len(started(pod.state)) == 2, "a second prober")
        until(lambda: (verdict_at(port) or {}).get("phase") == "Watching", "its report")
        second = verdict_at(port)
        assert second is not None
        assert read_token(pod.admission) == token
        assert (second["verdict"], second["gate"], second["admitted"]) == ("Pass", first["gate"], True)
        assert int(str(second["sequence"])) > int(str(first["sequence"]))
        assert second["proberRestarts"] == 1


def test_a_stopped_prober_is_killed_and_started_anew(tmp_path: Path) -> None:
    pod = Pod.make(tmp_path)
    pod.mount()
    port = free_port()
    command = [sys.executable, scripted.__file__, *pod.flags(port)]
    environ = {**pod.environ(), "PYTHONPATH": str(Path(scripted.__file__).parents[2])}
    with supervised(pod.state, command, environ, stale=6.0):
        until(lambda: (verdict_at(port) or {}).get("verdict") == "Pass", "a Pass")
        os.kill(started(pod.state)[0], signal.SIGSTOP)
        until(lambda: len(started(pod.state)) == 2, "a second prober", 30)
        until(lambda: (verdict_at(port) or {}).get("phase") == "Watching", "its report")
        assert logged(pod.state, "Prober hung, killed it")
        assert read_token(pod.admission) is not None


def test_a_prober_that_dies_at_once_is_started_again_and_again(tmp_path: Path) -> None:
    with supervised(tmp_path, [sys.executable, "-c", "raise SystemExit(3)"]) as process:
        until(lambda: len(started(tmp_path)) >= 4, "four starts")
        assert process.poll() is None
        assert {line["status"] for line in logged(tmp_path, "Prober ended")} == {3}
        assert int((tmp_path / "restarts").read_text()) >= 3


def test_a_prober_that_cannot_start_does_not_end_the_supervisor(tmp_path: Path) -> None:
    with supervised(tmp_path, ["/nowhere/prober"]) as process:
        until(lambda: len(logged(tmp_path, "Prober could not be started")) >= 3, "three tries")
        assert process.poll() is None


def test_sigterm_ends_both(tmp_path: Path) -> None:
    with supervised(tmp_path, [sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        until(lambda: started(tmp_path), "a prober")
        process.terminate()
        assert process.wait(10) == 0
        with pytest.raises(ProcessLookupError):
            os.kill(started(tmp_path)[0], 0)


def test_a_prober_deaf_to_sigterm_is_killed_at_the_end(tmp_path: Path) -> None:
    ready = tmp_path / "deaf"
    deaf = (
        "import signal, time, pathlib, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "pathlib.Path(sys.argv[1]).touch(); time.sleep(600)"
    )
    with supervised(tmp_path, [sys.executable, "-c", deaf, str(ready)]) as process:
        until(ready.exists, "a prober")
        process.terminate()
        assert process.wait(10) == 0
        with pytest.raises(ProcessLookupError):
            os.kill(started(tmp_path)[0], 0)


def test_the_supervisor_imports_nothing_but_the_standard_library_and_its_own() -> None:
    code = (
        "import sys; import r1plus_monitoring.supervisor;"
        "print([m for m in ('aiohttp', 'grpc', 'numpy', 'prometheus_client', 'pydantic') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
