"""A server whose engine is lost ends, also while a client holds a stream open: as a container's first process and as another.

Triton alone would wait for such a client without a limit (`r1plus_model_repo.backends.guard`).
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from r1plus_contract import inference
from r1plus_contract.engine.heartbeat import ENV_HEARTBEAT, measure_lateness
from r1plus_edge.pods.processes import has_ended, list_children
from r1plus_model_repo.backends.heartbeat import PASS_SECONDS
from r1plus_operator.plan.podspec.triton_args import GUARD_OPTIONS
from support.engine.client import Client
from support.engine.models import bare_python, write_gpu_model
from support.engine.server import AS_IN_A_POD, Server, ending
from support.waiting import wait_until

pytestmark = [pytest.mark.triton, pytest.mark.timeout(1500)]

FIRST_PROCESS = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c")
OWN_SHARED_MEMORY = 'mount --bind "$0" /dev/shm && exec "$@"'
PLACES = {"as a container's first process": True, "as another process": False}
STUB = "triton_python_b"
"""The first 15 characters of the stub's name, which the kernel keeps."""
LOADS_FOR_EVER = "import time\n\nprint('Loading', flush=True)\ntime.sleep(3600)\n"
StartServer = Callable[[], Server]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    return bare_python(tmp_path_factory.mktemp("python"))


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return write_gpu_model(tmp_path)


@pytest.fixture
def shared_memory(tmp_path: Path) -> Path:
    """The volume that is /dev/shm of a container."""
    folder = tmp_path / "shm"
    folder.mkdir()
    return folder


@pytest.fixture(params=PLACES.values(), ids=PLACES.keys())
def start(
    request: pytest.FixtureRequest, tmp_path: Path, installed: Path, models: Path, python: str, shared_memory: Path
) -> Iterator[StartServer]:
    """Start a server in each place."""
    with ExitStack() as stack:

        def begin() -> Server:
            # As a container runtime does: a PID namespace, and a volume that outlives the container.
            enter = (*FIRST_PROCESS, OWN_SHARED_MEMORY, str(shared_memory)) if request.param else ()
            program = (str(installed / "bin" / "tritonserver"), f"--model-repository={models}", *GUARD_OPTIONS)
            command = (*enter, *AS_IN_A_POD, *program)
            environ = {ENV_HEARTBEAT: str(tmp_path / "heartbeat")}
            server = Server(tmp_path, installed, models, python=python, command=command, environ=environ)
            return stack.enter_context(ending(server))

        yield begin


def find_stub(server: Server) -> int:
    (pid,) = (pid for pid in server.descendants() if Path(f"/proc/{pid}/comm").read_text().strip() == STUB)
    return pid


def send_sigterm(server: Server) -> None:
    """Send it as a kubelet does: to the container's first process, from outside."""
    command = Path(f"/proc/{server.process.pid}/comm").read_text().strip()
    (pid,) = list_children(server.process.pid) if command == "unshare" else (server.process.pid,)
    os.kill(pid, signal.SIGTERM)


def test_a_killed_engine_process_ends_the_server_and_the_answers_of_clients_that_stay(start: StartServer) -> None:
    server = start()
    server.until_ready()
    below = server.descendants()
    with Client(server.grpc) as ask, Client(server.grpc) as idle:
        assert idle("Hi", raw_prompt=True).error == ""
        answer = ask.begin(prompt="hold", raw_prompt=True, max_new_tokens=400)
        ask.take()
        os.kill(find_stub(server), signal.SIGKILL)
        server.until_ended()
        assert "UNAVAILABLE" in ask.take_until_ended(answer).error
    assert "The process of the engine has died, ending the server" in server.log.read_text()
    wait_until(lambda: all(map(has_ended, below)), "no process of the server is left")


def test_an_engine_that_stops_ends_the_server_while_a_client_holds_a_stream(start: StartServer) -> None:
    server = start()
    server.until_ready()
    with Client(server.grpc) as ask, Client(server.grpc) as idle:
        assert idle("Hi", raw_prompt=True).error == ""
        assert "the engine stopped: out of memory in a kernel" in ask("break", raw_prompt=True).error
        server.until_ended()


def test_a_heartbeat_is_late_while_the_engines_process_hangs_though_the_server_says_that_it_is_ready(
    start: StartServer, tmp_path: Path
) -> None:
    server, heartbeat = start(), tmp_path / "heartbeat"
    server.until_ready()
    with Client(server.grpc) as ask:
        assert ask("Hi", raw_prompt=True).error == ""
        assert heartbeat.exists()
        stub = find_stub(server)
        os.kill(stub, signal.SIGSTOP)
        try:
            wait_until(lambda: measure_lateness(heartbeat) > 0, "the heartbeat is late", 10 * PASS_SECONDS)
            server.until_ready()
        finally:
            os.kill(stub, signal.SIGCONT)
        wait_until(lambda: measure_lateness(heartbeat) == 0, "it beats again", 10 * PASS_SECONDS)
        assert ask("Hi", raw_prompt=True).error == ""


def test_sigterm_ends_an_idle_server_cleanly(start: StartServer) -> None:
    server = start()
    server.until_ready()
    send_sigterm(server)
    server.until_ended()
    assert server.process.returncode == 0, server.last_words()
    assert server.log.read_text().count("Shut down") == 1


def test_sigterm_ends_a_server_that_loads(start: StartServer, models: Path) -> None:
    (models / inference.MODEL_NAME / "1" / "model.py").write_text(LOADS_FOR_EVER)
    server = start()
    wait_until(lambda: "Loading" in server.log.read_text(), "the model loads", evidence=server.last_words)
    send_sigterm(server)
    server.until_ended()


@pytest.mark.parametrize("start", [True], ids=["as a container's first process"], indirect=True)
def test_a_restarted_container_removes_the_shared_memory_that_a_killed_server_left(
    start: StartServer, shared_memory: Path
) -> None:
    server = start()
    server.until_ready()
    left = set(shared_memory.iterdir())
    assert left
    os.kill(find_stub(server), signal.SIGKILL)
    server.until_ended()
    assert left <= set(shared_memory.iterdir()), "else there is nothing to remove"
    start().until_ready()
    assert not left & set(shared_memory.iterdir())
