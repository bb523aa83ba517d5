"""A gateway without a network policy before it: names that it answers to, pages of other origins, listed addresses."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from r1plus_contract.process.hosts import read_host
from r1plus_gateway.http.listening.hosts import build_host_check
from support.gateway.fake_triton import FakeTriton, answer, serving
from support.gateway.rig import Rig, running, running_before
from support.waiting import eventually

LOOPBACK = ["127.0.0.1", "::1", "localhost"]


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with running(tmp_path, answer("Stockholm"), settings={"hosts": LOOPBACK}) as one:
        yield one


async def send_raw(rig: Rig, *lines: str, port: int | None = None) -> bytes:
    """Return the status line of the answer to a head that is sent as it is."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port or rig.gateway.port)
    writer.write("\r\n".join(["GET /healthz HTTP/1.1", *lines, "Connection: close", "", ""]).encode())
    status = (await reader.readline()).strip()
    await reader.read()
    writer.close()
    return status


NAMES = {
    "its address": ("127.0.0.1:8400", 200),
    "its name": ("localhost:8400", 200),
    "its name in capitals": ("LOCALHOST", 200),
    "its address in version 6": ("[::1]:8400", 200),
    "a name that was rebound": ("evil.example:8400", 421),
    "a name that only begins alike": ("127.0.0.1.evil.example", 421),
    "a name that only ends alike": ("evil-localhost", 421),
    "a user before a name": ("localhost@evil.example", 421),
    "another address of loopback": ("127.0.0.2", 421),
    "nothing": ("", 421),
    "brackets of nothing": ("[]", 421),
    "a broken address": ("[::1", 421),
}


@pytest.mark.parametrize(("host", "status"), NAMES.values(), ids=NAMES)
async def test_requests_under_other_names_are_refused(rig: Rig, host: str, status: int) -> None:
    actual = int((await send_raw(rig, f"Host: {host}")).split()[1])
    # What is no host at all is refused while the head is read.
    assert actual == status or (status == 421 and actual == 400)


ORIGINS = {
    "none": (None, 200),
    "its own": ("http://127.0.0.1:PORT", 200),
    "its own in capitals": ("HTTP://127.0.0.1:PORT", 200),
    "a page of another server on this machine": ("http://127.0.0.1:3000", 403),
    "its own server by another name": ("http://localhost:PORT", 403),
    "another": ("https://evil.example", 403),
    "none that a browser tells": ("null", 403),
    "one that only begins alike": ("http://localhost.evil.example", 403),
}


@pytest.mark.parametrize(("origin", "status"), ORIGINS.values(), ids=ORIGINS)
async def test_pages_of_other_origins_are_refused_whatever_key_they_have(
    rig: Rig, origin: str | None, status: int
) -> None:
    headers = {} if origin is None else {"Origin": origin.replace("PORT", str(rig.gateway.port))}
    question = {"model": "credit", "messages": [{"role": "user", "content": "Hi"}]}
    async with rig.post("/v1/chat/completions", question, **headers) as response:
        body: Any = await response.json()
        assert response.status == status
        assert status == 200 or body["error"]["code"] == "origin_not_allowed"


INTERNAL = {
    "its address": ({"Host": "127.0.0.1:9400"}, 200),
    "its name": ({"Host": "localhost"}, 200),
    "a name that was rebound": ({"Host": "evil.example:9400"}, 421),
    "a page of another origin": ({"Host": "127.0.0.1:9400", "Origin": "https://evil.example"}, 403),
    "a page of its gateway": ({"Host": "127.0.0.1:9400", "Origin": "http://127.0.0.1:8400"}, 403),
}


@pytest.mark.parametrize(("headers", "status"), INTERNAL.values(), ids=INTERNAL)
async def test_an_internal_port_on_loopback_answers_to_no_page_either(
    tmp_path: Path, headers: dict[str, str], status: int
) -> None:
    """Its series name callers."""
    async with running(tmp_path, answer("Stockholm")) as rig:
        lines = (f"{name}: {value}" for name, value in headers.items())
        assert int((await send_raw(rig, *lines, port=rig.gateway.internal_port)).split()[1]) == status


LISTENING = {
    "at the name of loopback": ("localhost", "localhost", 200),
    "at the name, asked by address": ("localhost", "127.0.0.1", 200),
    "at the name, asked by one that was rebound": ("localhost", "evil.example", 421),
    "at an address that is written otherwise": ("0:0:0:0:0:0:0:1", "[::1]", 200),
}


@pytest.mark.parametrize(("address", "host", "status"), LISTENING.values(), ids=LISTENING)
async def test_an_internal_port_knows_loopback_however_it_is_written(address: str, host: str, status: int) -> None:
    async def answer_all(_: web.Request) -> web.Response:
        return web.Response()

    request = make_mocked_request("GET", "/metrics", {"Host": f"{host}:9400"})
    assert (await build_host_check(address)(request, answer_all)).status == status


async def test_an_internal_port_of_a_network_answers_to_the_name_of_a_pod(tmp_path: Path) -> None:
    async with running(tmp_path, answer("Stockholm"), settings={"internalHost": "0.0.0.0"}) as rig:
        status = await send_raw(rig, "Host: 10.244.0.7:9400", port=rig.gateway.internal_port)
        assert status.endswith(b"200 OK")


async def test_without_names_in_the_settings_any_name_is_answered(tmp_path: Path) -> None:
    async with running(tmp_path, answer("Stockholm")) as rig:
        assert (await send_raw(rig, "Host: gateway.team-credit.svc")).endswith(b"200 OK")


@pytest.mark.parametrize(
    ("address", "name"),
    [("//LocalHost:1", "localhost"), ("http://[::1]:3", "::1"), ("null", ""), ("//", ""), ("//[x", ""), ("//a@b", "b")],
)
def test_the_host_of_an_address_is_read_without_port_user_and_brackets(address: str, name: str) -> None:
    assert read_host(address) == name


async def test_a_pod_without_a_grpc_port_is_asked_at_its_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket's path is seen from the gateway's working directory."""
    (tmp_path / "gateway").mkdir()
    (tmp_path / "pod").mkdir()
    monkeypatch.chdir(tmp_path / "gateway")
    pod = FakeTriton(answer("Stockholm"))
    model = {"addresses": ["127.0.0.1"], "grpcPort": 1, "grpcSocket": "../pod/grpc.sock:8001"}
    async with serving(pod, f"unix:{tmp_path}/pod/grpc.sock", 8001), running_before(tmp_path, pod, **model) as rig:
        async with rig.chat() as response:
            assert (await response.json())["choices"][0]["message"]["content"] == "Stockholm"
        assert response.headers["x-r1plus-verdict"] == "Pass"


async def test_addresses_of_the_settings_are_the_pods_and_no_name_is_resolved(tmp_path: Path) -> None:
    async with running(tmp_path, answer("Stockholm"), addresses=[]) as rig:
        rig.addresses = frozenset({"127.0.0.1"})
        async with rig.chat() as response:
            body = await response.json()
        assert (response.status, body["error"]["code"]) == (503, "model_unavailable")
        rig.model["addresses"] = ["127.0.0.1"]
        rig.write_settings()
        rig.file.refresh()

        async def answers() -> bool:
            async with rig.chat() as response:
                return bool(response.status == 200)

        await eventually(answers, "the pod of the new settings answers")
