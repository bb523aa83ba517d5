"""The startup probe of the monitor's container: only the process that holds the port lets it start."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from r1plus_contract.names import PORT_MONITOR
from r1plus_monitoring.process.listening import holds_port
from support.ports import free_port

HOLD = """
import socket, sys
listener = socket.create_server((sys.argv[1], int(sys.argv[2])), family=socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture(params=["0.0.0.0", "::"])
def holder(request: pytest.FixtureRequest, port: int) -> Iterator[int]:
    """Run another process that listens on the port; yields its pid."""
    if request.param == "::" and not socket.has_ipv6:
        pytest.skip("this kernel has no IPv6")
    command = [sys.executable, "-c", HOLD, request.param, str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process.pid
        process.communicate()


def test_a_port_that_another_process_has_taken_is_not_the_monitors(holder: int, port: int) -> None:
    assert holds_port(holder, port)
    assert not holds_port(os.getpid(), port)


def test_a_port_that_nobody_listens_on_is_nobodys(port: int) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", port))
        assert not holds_port(os.getpid(), port)
        bound.listen()
        assert holds_port(os.getpid(), port)


def test_as_a_probe_it_says_what_is_wrong() -> None:
    """The first process of this machine is no monitor."""
    command = [sys.executable, "-m", "r1plus_monitoring.process.listening"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert f"Port {PORT_MONITOR} is not this monitor's" in result.stdout
