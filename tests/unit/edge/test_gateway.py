"""The gateway of one machine: half of the key of its data is made once, and what it says of them is read with care."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from r1plus_cli import local
from r1plus_contract.gateway import PORT_INTERNAL, SETTINGS_FILE, DataReason, DataState, ModelSettings
from r1plus_contract.jsonable import dumps
from r1plus_contract.metrics import GATEWAY_PODS
from r1plus_contract.names import PORT_GRPC
from r1plus_edge.data_folder import open_data_folder
from r1plus_edge.errors import EdgeError
from r1plus_edge.gateway import EdgeGateway, explain_missing_helpers, make_half
from r1plus_edge.pods.images import find_images
from r1plus_edge.pods.triton_sockets import find_sockets
from r1plus_edge.start.listening import open_listener, read_listening
from r1plus_edge.start.tenant import DEFAULT_SPEC, TenantRequest
from r1plus_gateway.settings import parse_settings
from r1plus_operator.api.types import MAX_NAME
from r1plus_operator.plan.tenancy.gateway_helpers import CALCULATOR, DOCUMENTS
from r1plus_operator.plan.tenancy.gateway_objects import CONTAINER
from support.edge.certificates import write_certificate
from support.edge.foreign_listener import try_to_listen
from support.ports import free_port
from support.waiting import eventually


def test_a_half_whose_writing_was_cut_off_is_made_again_and_one_that_is_there_stays(tmp_path: Path) -> None:
    folder = open_data_folder(tmp_path / "data")
    (folder.secret / ".half-1.part").write_text("")
    make_half(folder)
    half = (folder.secret / "half-1").read_text()
    assert len(half) == 64
    make_half(folder)
    assert (folder.secret / "half-1").read_text() == half


def test_a_helper_whose_addon_is_missing_is_named_with_what_installs_it() -> None:
    helpers = (CALCULATOR, DOCUMENTS)
    assert explain_missing_helpers(helpers) == []
    (line,) = explain_missing_helpers(helpers, lambda module: module != "r1plus_documents")
    assert line.startswith(
        "The gateway's helper documents needs the add-on helpers, which is not installed; in a clone"
    )


@contextmanager
def make_gateway(
    root: Path, certificate: tuple[Path, Path] | tuple[None, None] = (None, None)
) -> Iterator[EdgeGateway]:
    """Have a gateway that does not run yet."""
    listening, config = read_listening(f"127.0.0.1:{free_port()}", *certificate), local.build_config("smollm2")
    folder, images, request = open_data_folder(root / "data"), find_images(root), TenantRequest(DEFAULT_SPEC, None)
    with closing(open_listener(listening)) as listener:
        gateway = EdgeGateway(
            folder,
            "local",
            listening,
            images,
            config,
            lambda: None,
            request,
            root / "cache",
            lambda line: None,
            listener,
        )
        yield gateway
        gateway.pod.remove()


@asynccontextmanager
async def run_gateway(gateway: EdgeGateway) -> AsyncIterator[None]:
    """Let it run for the block."""
    task = asyncio.create_task(gateway.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.unit_slow
async def test_with_a_certificate_its_owner_gets_a_key_over_tls_and_trusts_no_other(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    certificate, key = write_certificate(tmp_path)
    other, _ = write_certificate(tmp_path / "other")
    with make_gateway(tmp_path, (certificate, key)) as gateway:
        async with run_gateway(gateway):
            await eventually(lambda: gateway.pod.is_ready, "it is ready")

            async def has_key() -> bool:
                await gateway.ensure_key()
                return gateway.has_key

            await eventually(has_key, "it has a key")
            assert gateway._listening.local_url.startswith("https://localhost:")
            assert (await gateway.confirm_time()).startswith("The gateway goes by ")
            gateway._listening = replace(gateway._listening, certificate=other)
            with pytest.raises(EdgeError, match=r"The gateway does not answer: .*certificate verify failed"):
                await gateway.confirm_time()


def test_the_socket_of_the_longest_name_in_a_deep_folder_is_one_that_the_kernel_takes(tmp_path: Path) -> None:
    """It takes 107 bytes."""
    root = tmp_path / ("deep" * 30)
    root.mkdir()
    with make_gateway(root) as gateway:
        name = f"{'e' * MAX_NAME}-0123456789-012345"
        triton = find_sockets(gateway.pod._data.pods / name / "volumes" / "tmp")[PORT_GRPC]
        model = ModelSettings("edge", "edge-pods", 512, 4, addresses=("127.0.0.1",), grpc_socket=str(triton))
        gateway.set_model(model)
        gateway.pod._make_volumes()
        (settings,) = gateway.pod._root.glob(f"volumes/*/{SETTINGS_FILE}")
        (actual,) = parse_settings(settings.read_bytes()).models
        folder = gateway.pod.find_container(CONTAINER).program.folder
        assert Path(os.path.normpath(folder / actual.grpc_socket)) == triton
        assert len(actual.grpc_socket) <= 107


READY = DataState(DataReason.READY, "They can be used.")
ANSWERS: dict[str, tuple[bytes, DataState | None]] = {
    "the gateway's": (dumps(READY).encode(), READY),
    "no text": (b"\xff\xfe", None),
    "no state": (b"[]", None),
    "nested": (b"[" * 50_000, None),
    "a reason that is none": (b'{"reason": "Other", "message": ""}', None),
    "larger than any": (b" " * 2**23 + dumps(READY).encode(), None),
}
FAKE = """
import os, pathlib, socket
listener = socket.socket(fileno=int(os.environ["R1PLUS_GATEWAY_INTERNAL_LISTENER"]))
while True:
    connection, _ = listener.accept()
    with connection:
        connection.recv(65536)
        # A character set that is none must not matter.
        head = b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json; charset=none-such\\r\\nConnection: close\\r\\n\\r\\n"
        try:
            connection.sendall(head + pathlib.Path(ANSWER).read_bytes())
        except OSError:
            pass  # Who asks reads no more.
"""
"""Answers what a file has: the real gateway never says such things."""


ASK_SECONDS = 60.0
"""Who asks while a program that never accepts happens to run would wait for ever: serve keeps its socket open."""


@asynccontextmanager
async def run_substitute(gateway: EdgeGateway, answer: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """Have a program in place of the gateway's, and yield who asks it. `answer`: what it reads."""
    container = gateway.pod.find_container(CONTAINER)
    script = FAKE.replace("ANSWER", repr(str(answer)))
    container.program = replace(container.program, command=(sys.executable, "-c", script))
    timeout = aiohttp.ClientTimeout(total=ASK_SECONDS)
    async with run_gateway(gateway), aiohttp.ClientSession(timeout=timeout) as session:
        await eventually(lambda: container.pid, "it runs")
        yield session


@dataclass(frozen=True, slots=True)
class Fake:
    """A gateway whose program says anything."""

    gateway: EdgeGateway
    answer: Path
    session: aiohttp.ClientSession


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fake(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fake]:
    root = tmp_path_factory.mktemp("fake")
    (root / "answer").touch()
    with make_gateway(root) as gateway:
        async with run_substitute(gateway, root / "answer") as session:
            yield Fake(gateway, root / "answer", session)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("answer", "state"), ANSWERS.values(), ids=ANSWERS)
async def test_what_the_gateway_says_of_its_data_is_its_state_or_nothing(
    fake: Fake, answer: bytes, state: DataState | None
) -> None:
    fake.answer.write_bytes(answer)
    assert await fake.gateway.read_data_state(fake.session) == state


METRICS: dict[str, tuple[bytes, int]] = {
    "the gateway's": (f'{GATEWAY_PODS}{{model="a"}} 2.0\n'.encode(), 2),
    "no text": (b"\xff\xfe", 0),
    "no number": (f"{GATEWAY_PODS}{{}} many\n".encode(), 0),
    "no end": (f"{GATEWAY_PODS}{{}} inf\n".encode(), 0),
    "larger than any": (b"#" * 2**23 + f'\n{GATEWAY_PODS}{{model="a"}} 2.0\n'.encode(), 0),
}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("answer", "pods"), METRICS.values(), ids=METRICS)
async def test_what_the_gateway_says_of_its_pods_is_a_count_or_none(fake: Fake, answer: bytes, pods: int) -> None:
    fake.answer.write_bytes(answer)
    assert await fake.gateway.count_pods(fake.session) == pods


@pytest.mark.unit_slow
async def test_while_the_gateway_is_gone_no_other_users_program_gets_its_internal_port_and_nothing_is_believed(
    tmp_path: Path,
) -> None:
    (tmp_path / "answer").write_text(dumps(READY))
    async with AsyncExitStack() as stack:
        gateway = stack.enter_context(make_gateway(tmp_path))
        session = await stack.enter_async_context(run_substitute(gateway, tmp_path / "answer"))
        container = gateway.pod.find_container(CONTAINER)
        assert await eventually(lambda: gateway.read_data_state(session), "it answers") == READY
        container.program = replace(container.program, command=("/bin/false",))
        assert container.pid is not None
        os.kill(container.pid, signal.SIGKILL)
        await eventually(lambda: container.failures > 1 and container.pid is None, "it is gone, and waits")
        for host in ("127.0.0.1", "0.0.0.0", "::"):
            assert await try_to_listen(host, gateway.pod.ports[PORT_INTERNAL]) == "Address already in use"
        assert (await gateway.read_data_state(session), await gateway.count_pods(session)) == (None, 0)
