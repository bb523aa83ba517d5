"""The gateway of one machine: half of the key of its data is made once, and what it says of them is read with care."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from r1plus_cli import local
from r1plus_contract.gateway import PORT_INTERNAL, DataReason, DataState
from r1plus_contract.jsonable import dumps
from r1plus_contract.metrics import GATEWAY_PODS
from r1plus_edge.data_folder import open_data_folder
from r1plus_edge.gateway import EdgeGateway, make_half
from r1plus_edge.images import find_images
from r1plus_edge.listening import open_listener, read_listening
from r1plus_edge.tenant import DEFAULT_SPEC, TenantRequest


def test_a_half_whose_writing_was_cut_off_is_made_again_and_one_that_is_there_stays(tmp_path: Path) -> None:
    folder = open_data_folder(tmp_path / "data")
    (folder.secret / ".half-1.part").write_text("")
    make_half(folder)
    half = (folder.secret / "half-1").read_text()
    assert len(half) == 64
    make_half(folder)
    assert (folder.secret / "half-1").read_text() == half


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[EdgeGateway]:
    """One that does not run, so that anybody may have its port."""
    listening, config = read_listening("127.0.0.1:0", None, None), local.build_config("smollm2")
    folder, images, request = (
        open_data_folder(tmp_path / "data"),
        find_images(tmp_path),
        TenantRequest(DEFAULT_SPEC, None),
    )
    with closing(open_listener(listening)) as listener:
        yield EdgeGateway(
            folder,
            "local",
            listening,
            images,
            config,
            lambda: None,
            request,
            tmp_path / "cache",
            lambda line: None,
            listener,
        )


READY = DataState(DataReason.READY, "They can be used.")
ANSWERS: dict[str, tuple[bytes, DataState | None]] = {
    "the gateway's": (dumps(READY).encode(), READY),
    "no text": (b"\xff\xfe", None),
    "no state": (b"[]", None),
    "nested": (b"[" * 50_000, None),
    "a reason that is none": (b'{"reason": "Other", "message": ""}', None),
    "larger than any": (b" " * 2**20 + dumps(READY).encode(), None),
}


@asynccontextmanager
async def answering(gateway: EdgeGateway, answer: bytes) -> AsyncIterator[aiohttp.ClientSession]:
    """Have a program at the gateway's port, and yield who asks it."""

    async def handle(_: web.Request) -> web.Response:
        # A character set that is none must not matter.
        return web.Response(body=answer, headers={"Content-Type": "application/json; charset=none-such"})

    application = web.Application()
    application.router.add_get("/{path:.*}", handle)
    port = gateway.pod.ports[PORT_INTERNAL]
    async with TestServer(application, port=port), aiohttp.ClientSession() as session:
        yield session


@pytest.mark.parametrize(("answer", "state"), ANSWERS.values(), ids=ANSWERS)
async def test_what_answers_at_the_gateways_port_is_its_state_or_nothing(
    gateway: EdgeGateway, answer: bytes, state: DataState | None
) -> None:
    async with answering(gateway, answer) as session:
        assert await gateway.read_data_state(session) == state


METRICS: dict[str, tuple[bytes, int]] = {
    "the gateway's": (f'{GATEWAY_PODS}{{model="a"}} 2.0\n'.encode(), 2),
    "no text": (b"\xff\xfe", 0),
    "no number": (f"{GATEWAY_PODS}{{}} many\n".encode(), 0),
    "no end": (f"{GATEWAY_PODS}{{}} inf\n".encode(), 0),
}


@pytest.mark.parametrize(("answer", "pods"), METRICS.values(), ids=METRICS)
async def test_what_answers_at_the_gateways_port_is_a_count_of_pods_or_none(
    gateway: EdgeGateway, answer: bytes, pods: int
) -> None:
    async with answering(gateway, answer) as session:
        assert await gateway.count_pods(session) == pods
