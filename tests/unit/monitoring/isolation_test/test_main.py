"""The command line, as a container starts it."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from r1plus_contract.jsonable import loads
from r1plus_contract.monitor.isolation import BANNER, AttemptOutcome, Findings
from support.isolation.api_server import HOST, SECRET, TOKEN, ApiServer, answer, authority_and_server
from support.ports import free_port
from support.waiting import DEADLINE_SECONDS

pytestmark = pytest.mark.first_run_counts

POLICIES = (sys.executable, "-m", "r1plus_monitoring.isolation_test")
ROOT = Path(__file__).parents[4]


@contextmanager
def decoy(*ports: int) -> Iterator[subprocess.Popen[str]]:
    """It listens by the time that it says so."""
    command = [*POLICIES, "decoy", "--ports", ",".join(map(str, ports))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == f"The decoy listens on {', '.join(map(str, ports))}\n"
            yield process
        finally:
            process.kill()


def run(*arguments: str, log: Path | None = None) -> subprocess.CompletedProcess[str]:
    named = ["--termination-log", str(log)] if log else []
    return subprocess.run([*POLICIES, *arguments, *named], capture_output=True, text=True, timeout=DEADLINE_SECONDS)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """As the kubelet makes it, before the container starts."""
    path = tmp_path / "termination-log"
    path.touch()
    return path


def test_the_decoy_listens_on_every_port_and_ends_at_once() -> None:
    ports = (free_port(), free_port())
    with decoy(*ports) as process:
        for port in ports:
            with socket.create_connection(("127.0.0.1", port), DEADLINE_SECONDS) as one, one.makefile("rb") as heard:
                assert heard.read() == BANNER
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_SECONDS) == 0


@pytest.mark.unit_slow
def test_what_was_found_are_the_last_words(log: Path) -> None:
    port = free_port()
    with decoy(port):
        connections = [
            {"name": "decoy", "host": "127.0.0.1", "port": port, "against": "decoy"},
            {"name": "own", "host": "127.0.0.1", "port": port, "against": "own"},
            {"name": "shut", "host": "127.0.0.1", "port": 1, "against": "platform"},
        ]
        # Three times as long for its own connection: before that nothing else counts.
        ran = run("knock", "--doors", json.dumps(connections), "--rounds-for", "2", log=log)
    assert (ran.returncode, ran.stderr) == (0, "")
    found = {one.n: one.o for one in loads(Findings, log.read_text()).tries}
    assert found == {"decoy": AttemptOutcome.OPEN, "own": AttemptOutcome.OPEN, "shut": AttemptOutcome.SHUT}
    assert "decoy: open, 127.0.0.1 is the decoy" in ran.stdout
    names = [line.split("  ")[-1].partition(":")[0] for line in ran.stdout.splitlines()]
    # Load decides how many attempts come before its own connection has succeeded. One more may be under way then.
    printed = Counter(names[names.index("own") :])
    assert (printed["own"], printed["decoy"] in range(1, 7), printed["shut"] in (3, 4)) == (1, True, True)
    assert names.count("own") == 1


def test_the_control_finds_the_decoy_open_at_once(log: Path) -> None:
    port = free_port()
    connections = [{"name": "decoy", "host": "127.0.0.1", "port": port, "against": "decoy"}]
    with decoy(port):
        ran = run("knock", "--doors", json.dumps(connections), "--expect", "open", log=log)
    assert ran.returncode == 0
    (found,) = loads(Findings, log.read_text()).tries
    assert (found.o, found.late) == (AttemptOutcome.OPEN, 0)


async def test_questions_are_put_with_what_the_volume_holds(tmp_path: Path, log: Path) -> None:
    folder = tmp_path / "walls"
    context = authority_and_server(folder)
    requests = [{"name": "secrets", "method": "GET", "path": "/api/v1/secrets"}]
    async with ApiServer(context, [answer(503), answer(200)]) as server:
        arguments = ["--questions", json.dumps(requests), "--token-dir", str(folder), "--api", f"{HOST}:{server.port}"]
        ran = await asyncio.to_thread(run, "ask", *arguments, log=log)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert await asyncio.to_thread(log.read_text) == '{"tries":[{"d":"HTTP 200","late":0,"n":"secrets","o":"open"}]}'
    assert [line.split("  ")[-1] for line in ran.stdout.splitlines()] == [
        "secrets: failed, HTTP 503",
        "secrets: open, HTTP 200",
    ]
    assert f"Authorization: Bearer {TOKEN}".encode() in server.requests[0]
    assert SECRET not in ran.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(["knock", "--doors", "[]"], "--doors: empty list", id="no connections"),
        pytest.param(["ask", "--questions", "{}"], "--questions: expected a list", id="no requests"),
        pytest.param(["ask", "--questions", '[{"name":"a","method":"GET","path":"/"}]', "--token-dir", "/nowhere"],
                     "/nowhere: ", id="no token"),
        pytest.param(["knock", "--doors", "[]", "--rounds-for", "soon"], "--rounds-for: 'soon'", id="no seconds"),
    ],
)  # fmt: skip
def test_an_order_that_cannot_be_tried_is_refused_in_the_last_words(log: Path, arguments: list[str], says: str) -> None:
    ran = run(*arguments, log=log)
    assert ran.returncode == 2
    assert says in ran.stderr
    assert log.read_text() == ran.stderr.strip()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param([], "decoy|knock|ask", id="no verb"),
        pytest.param(["steal"], "invalid choice: 'steal'", id="another verb"),
        pytest.param(["knock"], "--doors", id="no connections"),
        pytest.param(["knock", "--doors", "[]", "--expect", "failed"], "--expect", id="a wish that is none"),
        pytest.param(["decoy", "--ports", "0"], "--ports: '0' is no list", id="no ports"),
        pytest.param(["ask", "--questions", "[]", "--api", "443"], "'443' is not HOST:PORT", id="no API server"),
    ],
)
def test_bad_arguments_are_named(arguments: list[str], says: str) -> None:
    ran = run(*arguments)
    assert ran.returncode == 2
    assert says in ran.stderr


def test_help_teaches() -> None:
    said = run("--help").stdout
    for word in ("decoy", "knock", "ask", "--expect open", "dryRun=All", '"against": "platform"', "Exit code"):
        assert word in said


def test_a_knock_that_is_told_to_end_does_so_without_a_word(log: Path) -> None:
    with socket.socket() as refusing:
        refusing.bind(("127.0.0.1", 0))
        connection = {"name": "own", "host": "127.0.0.1", "port": refusing.getsockname()[1], "against": "own"}
        command = [*POLICIES, "knock", "--doors", json.dumps([connection]), "--termination-log", str(log)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            assert "own: shut" in process.stdout.readline()
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE_SECONDS) == 128 + signal.SIGTERM
    assert log.read_text() == ""


def test_only_the_contract_and_the_standard_library_are_loaded() -> None:
    """What attacks walls should be short enough to be read."""
    script = (
        f"import sys; sys.path[:0] = ['{ROOT}/policies', '{ROOT}/monitoring']; import r1plus_monitoring.isolation_test.__main__;"
        "print(*{name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names);"
        "print(*(name for name in sys.modules if name.startswith('r1plus_monitoring.')))"
    )
    loaded = subprocess.run(
        [sys.executable, "-ISc", script], capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=True
    )
    rooms, ours = loaded.stdout.splitlines()
    assert set(rooms.split()) <= {"__main__", "r1plus_contract", "r1plus_monitoring"}
    assert all(name.startswith("r1plus_monitoring.isolation_test") for name in ours.split())
