"""The supervisor with real processes: a prober that dies, hangs or cannot start, orphans, and the end."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from r1plus_contract.monitor.admission import Admission, read_token
from r1plus_monitoring.config import ENV_LISTEN_FD
from r1plus_monitoring.process.supervisor import Heartbeat
from support.monitoring.scripted import Pod, prober_process
from support.ports import free_port
from support.waiting import DEADLINE_SECONDS, wait_until

STALE_SECONDS = 10_000.0
"""A heartbeat is never as old as that by itself, however slow the machine: tests set the clock."""
SUPERVISE = f"""
import os, sys, time
from pathlib import Path
from r1plus_monitoring.process.supervisor import Supervisor, SupervisorTimeouts
state = Path(sys.argv[1])
patience = SupervisorTimeouts(tick=0.05, stale={STALE_SECONDS}, first_backoff=0.05, longest_backoff=0.2, farewell=0.2)
clock = lambda: time.monotonic() + {2 * STALE_SECONDS} * (state / "later").exists()
address = ("0.0.0.0", int(os.environ["PORT"])) if "PORT" in os.environ else None
sys.exit(Supervisor(sys.argv[2:], state, patience, clock=clock, address=address).run())
"""


@contextmanager
def supervised(
    state: Path, command: list[str], environ: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a supervisor process over `command`; it and what it started are gone at the end."""
    with (state / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISE, str(state), *command], env=environ, stderr=log, start_new_session=True
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def logged(state: Path, message: str) -> list[dict[str, object]]:
    lines = (json.loads(line) for line in (state / "log").read_text().splitlines() if line.startswith("{"))
    return [line for line in lines if line["message"] == message]


def started(state: Path) -> list[int]:
    return [int(str(line["pid"])) for line in logged(state, "Prober started")]


def report_with(port: int, field: str, value: str) -> dict[str, Any]:
    """Wait until the prober reports this value, and return the report."""

    def look() -> dict[str, Any] | None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/verdict", timeout=10) as response:
            report = dict(json.load(response))
        return report if report[field] == value else None

    return wait_until(look, f"a report with {field} {value}", retry_on=(OSError,))


@contextmanager
def admitted_prober(pod: Pod) -> Iterator[tuple[int, int, Admission, dict[str, Any]]]:
    """Run a real prober under a supervisor until its gate has passed; yield its port and pid, token and report."""
    pod.mount()
    port = free_port()
    command, environ = prober_process(pod, port)
    with supervised(pod.state, command, {**environ, "PORT": str(port)}):
        report, token = report_with(port, "verdict", "Pass"), read_token(pod.admission)
        assert token is not None
        yield port, started(pod.state)[0], token, report


def test_a_heartbeat_is_as_old_as_its_last_change_whatever_its_dates_say() -> None:
    beat = Heartbeat()
    assert beat.age(written_at=5_000, now=100.0) == 0.0
    assert beat.age(written_at=5_000, now=130.0) == 30.0
    assert beat.age(written_at=9_000_000_000, now=131.0) == 0.0, "the node's clock was set forward"
    assert beat.age(written_at=4_000, now=132.0) == 0.0, "and back again"
    assert beat.age(written_at=4_000, now=133.0) == 1.0


@pytest.mark.unit_slow
def test_a_killed_prober_comes_back_and_the_token_and_the_verdict_stay(pod: Pod) -> None:
    with admitted_prober(pod) as (port, pid, token, first):
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: len(started(pod.state)) == 2, "a second prober")
        second = report_with(port, "phase", "Watching")
        assert read_token(pod.admission) == token
        assert (second["verdict"], second["gate"], second["admitted"]) == ("Pass", first["gate"], True)
        assert second["sequence"] > first["sequence"]
        assert second["proberRestarts"] == 1


@pytest.mark.unit_slow
def test_a_stopped_prober_is_killed_and_started_anew(pod: Pod) -> None:
    with admitted_prober(pod) as (port, pid, _token, _first):
        os.kill(pid, signal.SIGSTOP)
        stat = Path(f"/proc/{pid}/stat")
        wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", "a stopped prober")
        (pod.state / "later").touch()
        wait_until(lambda: len(started(pod.state)) == 2, "a second prober")
        report_with(port, "phase", "Watching")
        assert {line["pid"] for line in logged(pod.state, "Prober hung, killed it")} == {pid}
        assert read_token(pod.admission) is not None


def test_a_prober_that_dies_at_once_is_started_again_and_again(tmp_path: Path) -> None:
    with supervised(tmp_path, [sys.executable, "-c", "raise SystemExit(3)"]) as process:
        wait_until(lambda: len(started(tmp_path)) >= 4, "four starts")
        assert process.poll() is None
        assert {line["status"] for line in logged(tmp_path, "Prober ended")} == {3}
        assert int((tmp_path / "restarts").read_text()) >= 3


def test_a_prober_that_cannot_start_does_not_end_the_supervisor(tmp_path: Path) -> None:
    with supervised(tmp_path, ["/nowhere/prober"]) as process:
        wait_until(lambda: len(logged(tmp_path, "Prober could not be started")) >= 3, "three tries")
        assert process.poll() is None


def ends_with_its_supervisor(state: Path, process: subprocess.Popen[bytes]) -> None:
    """Check that SIGTERM to the supervisor ends both."""
    process.terminate()
    assert process.wait(DEADLINE_SECONDS) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(started(state)[0], 0)


def test_sigterm_ends_both(tmp_path: Path) -> None:
    with supervised(tmp_path, [sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        wait_until(lambda: started(tmp_path), "a prober")
        ends_with_its_supervisor(tmp_path, process)


def test_a_prober_deaf_to_sigterm_is_killed_at_the_end(tmp_path: Path) -> None:
    ready = tmp_path / "deaf"
    deaf = (
        "import signal, time, pathlib, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "pathlib.Path(sys.argv[1]).touch(); time.sleep(600)"
    )
    with supervised(tmp_path, [sys.executable, "-c", deaf, str(ready)]) as process:
        wait_until(ready.exists, "a prober")
        ends_with_its_supervisor(tmp_path, process)


def test_the_supervisor_imports_nothing_but_the_standard_library_and_its_own() -> None:
    code = (
        "import sys; import r1plus_monitoring.process.supervisor;"
        "print([m for m in ('aiohttp', 'grpc', 'numpy', 'prometheus_client', 'pydantic') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def listens_elsewhere(host: str, port: int, option: int | None) -> bool:
    """Return whether another process of the pod could listen there as well."""
    is_ipv6 = ":" in host
    with socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET) as other:
        if is_ipv6:
            other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if option is not None:
            other.setsockopt(socket.SOL_SOCKET, option, 1)
        try:
            other.bind((host, port))
            other.listen()
        except OSError as error:
            assert error.errno == errno.EADDRINUSE
            return False
    return True


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1", "::", "::1"])
@pytest.mark.parametrize("option", [None, socket.SO_REUSEADDR, socket.SO_REUSEPORT], ids=["plain", "addr", "port"])
def test_nobody_else_can_answer_for_the_monitor_while_no_prober_runs(
    tmp_path: Path, host: str, option: int | None
) -> None:
    if ":" in host and not socket.has_dualstack_ipv6():
        pytest.skip("this kernel has no IPv6")
    port = free_port()
    assert listens_elsewhere(host, port, option)
    with supervised(tmp_path, [sys.executable, "-c", "raise SystemExit(3)"], {**os.environ, "PORT": str(port)}):
        wait_until(lambda: started(tmp_path), "a first start")
        while len(started(tmp_path)) < 4:
            assert not listens_elsewhere(host, port, option)


@pytest.mark.unit_slow
def test_who_asks_between_two_probers_is_answered_by_the_next(pod: Pod) -> None:
    with admitted_prober(pod) as (port, pid, _token, _first):
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: logged(pod.state, "Prober ended"), "its end")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/verdict", timeout=DEADLINE_SECONDS) as response:
            assert json.load(response)["proberRestarts"] == 1


def test_a_monitor_serves_at_a_socket_that_who_starts_it_keeps_open_beyond_its_end(pod: Pod) -> None:
    pod.mount()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        descriptor, port = listener.fileno(), listener.getsockname()[1]
        command = [sys.executable, "-m", "r1plus_monitoring", *pod.flags(port)]
        environ = {**os.environ, **pod.environ(), ENV_LISTEN_FD: str(descriptor)}
        with subprocess.Popen(command, env=environ, pass_fds=(descriptor,), start_new_session=True) as process:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=DEADLINE_SECONDS) as response:
                assert response.read() == b"ok\n"
            os.killpg(process.pid, signal.SIGKILL)
        assert not listens_elsewhere("127.0.0.1", port, socket.SO_REUSEADDR)


@pytest.mark.unit_slow
def test_a_port_that_is_taken_is_reported_and_tried_again(pod: Pod) -> None:
    pod.mount()
    port = free_port()
    with socket.create_server(("0.0.0.0", port)) as taken:
        command, environ = prober_process(pod, port)
        with supervised(pod.state, command, {**environ, "PORT": str(port)}):
            tried = wait_until(lambda: logged(pod.state, "Prober could not be started"), "a try")
            assert f"port {port} is taken by another process of this pod" in str(tried[0]["error"])
            assert started(pod.state) == []
            taken.close()
            report_with(port, "verdict", "Pass")
