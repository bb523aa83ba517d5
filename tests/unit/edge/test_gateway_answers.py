"""What `serve` makes of answers at the gateway's port, also of another program's: the gateway does not always run."""

from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from r1plus_cli import local
from r1plus_contract.gateway import DATA_PATH, PORT_INTERNAL, DataReason
from r1plus_edge.data_folder import open_data_folder
from r1plus_edge.gateway import EdgeGateway
from r1plus_edge.images import find_images
from r1plus_edge.listening import open_listener, read_listening
from r1plus_edge.tenant import TenantRequest
from r1plus_operator.api.tenants import R1PlusTenantSpec
from support.tables import for_each


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[EdgeGateway]:
    """One that has not been started."""
    listening = read_listening("127.0.0.1:0", None, None)
    with open_listener(listening) as listener:
        yield EdgeGateway(
            open_data_folder(tmp_path / "data"),
            "local",
            listening,
            find_images(tmp_path / "server"),
            local.build_config("smollm2"),
            lambda: None,
            TenantRequest(R1PlusTenantSpec(), None),
            tmp_path / "cache",
            lambda line: None,
            listener,
        )


@for_each("body, content_type, reason, pods", {
    "the gateway's": (b'{"reason": "VolumeFull", "message": "", "can_serve": false}', "application/json", DataReason.FULL, 0),
    "pods": (b'r1plus_gateway_pods{model="a"} 2.0\n', "text/plain", None, 2),
    "a page": (b"<html>", "text/html", None, 0),
    "no text": (b"\xff\xfe\xff", "text/plain", None, 0),
    "text of no character set": (b"{}", "text/plain; charset=none-such", None, 0),
    "no number": (b'r1plus_gateway_pods{model="a"} x\n', "text/plain", None, 0),
    "too large a number": (b'r1plus_gateway_pods{model="a"} inf\n', "text/plain", None, 0),
})  # fmt: skip
async def test_whatever_answers_ends_no_serve(
    gateway: EdgeGateway, body: bytes, content_type: str, reason: DataReason | None, pods: int
) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body, headers={"Content-Type": content_type})

    app = web.Application()
    app.add_routes([web.get(DATA_PATH, answer), web.get("/metrics", answer)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", gateway.pod.ports[PORT_INTERNAL]).start()
    try:
        async with aiohttp.ClientSession() as session:
            state = await gateway.read_data_state(session)
            assert (state.reason if state else None, await gateway.count_pods(session)) == (reason, pods)
    finally:
        await runner.cleanup()
