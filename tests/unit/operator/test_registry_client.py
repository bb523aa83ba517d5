"""What the registry answers, as the historian hears it: recorded, later, or never."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from r1plus_contract.history import DeploymentFact, Facts, Receipt
from r1plus_operator.registry.client import DeliveryError, FactRefusedError, RegistryClient
from r1plus_operator.runtime.connection import FileToken
from support.http_server import serving

FACTS = Facts((DeploymentFact("u", "team", "credit"),))


@dataclass
class Answers:
    """The other end, as a test says."""

    status: int = 200
    body: str = '{"recorded": {"deployments": 1}}'
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, object]] = field(default_factory=list)
    url: str = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append((request.headers["Authorization"], await request.json()))
        return web.Response(status=self.status, text=self.body, headers=self.headers)


@pytest.fixture
async def answers() -> AsyncIterator[Answers]:
    found = Answers()
    async with serving(web.post("/v1/facts", found.answer)) as found.url:
        yield found


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("first\n")
    return path


def replace(token: Path, text: str | None) -> None:
    """The kubelet puts another token there, or none."""
    if text is None:
        token.unlink()
    else:
        token.write_text(text)
        os.utime(token, (1, 1))


async def test_facts_are_delivered_with_the_token_that_is_there_now(answers: Answers, token: Path) -> None:
    async with RegistryClient(answers.url + "/", FileToken(token)) as client:
        assert await client.deliver(FACTS) == Receipt({"deployments": 1})
        replace(token, "second")
        await client.deliver(FACTS)
    assert [bearer for bearer, _ in answers.asked] == ["Bearer first", "Bearer second"]
    document = json.loads(json.dumps(answers.asked[0][1]))
    assert document["deployments"] == [{"uid": "u", "namespace": "team", "name": "credit", "namespaceUid": ""}]
    assert document["live"] is None


async def test_an_answer_that_comes_in_pieces_is_read_whole_and_one_without_an_end_is_not(token: Path) -> None:
    begun, more = asyncio.Event(), asyncio.Event()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b'{"recorded": ')
        await writer.drain()
        begun.set()
        await more.wait()
        writer.write(b'{"alarms": 2}}' if not endless else b"{" * 200_000)
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    for endless in (False, True):
        begun.clear()
        more.clear()
        async with RegistryClient(url, FileToken(token)) as client:
            delivering = asyncio.create_task(client.deliver(FACTS))
            await begun.wait()
            more.set()  # Of one event loop: the client has read by then.
            if endless:
                with pytest.raises(DeliveryError, match="Receipt: not JSON"):
                    await delivering
            else:
                assert await delivering == Receipt({"alarms": 2})
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("status", [400, 413, 500])
async def test_what_cannot_be_recorded_is_refused(answers: Answers, token: Path, status: int) -> None:
    answers.status, answers.body = status, '{"error": "facts.alarms[0].text: too long"}'
    async with RegistryClient(answers.url, FileToken(token)) as client:
        with pytest.raises(FactRefusedError, match=f"{status} .*too long"):
            await client.deliver(FACTS)


@pytest.mark.parametrize("status", [301, 401, 403, 404, 429, 502, 503])
async def test_anything_else_is_tried_again(answers: Answers, token: Path, status: int) -> None:
    answers.status, answers.body, answers.headers = status, "not now", {"Location": "http://127.0.0.1:1/"}
    async with RegistryClient(answers.url, FileToken(token)) as client:
        with pytest.raises(DeliveryError, match=f"{status} not now"):
            await client.deliver(FACTS)


async def test_an_answer_that_is_no_receipt_a_token_that_is_gone_and_no_service_are_tried_again(
    answers: Answers, token: Path
) -> None:
    answers.body = "<html>"
    async with RegistryClient(answers.url, FileToken(token)) as client:
        with pytest.raises(DeliveryError, match="Receipt: not JSON"):
            await client.deliver(FACTS)
        replace(token, None)
        with pytest.raises(DeliveryError, match="No such file"):
            await client.deliver(FACTS)
    replace(token, "t")
    async with RegistryClient("http://127.0.0.1:1", FileToken(token)) as client:
        with pytest.raises(DeliveryError, match=r"127\.0\.0\.1:1"):
            await client.deliver(FACTS)
