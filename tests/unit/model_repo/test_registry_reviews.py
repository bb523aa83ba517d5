"""The registry's questions to the API server, against one that does what a real one cannot be made to do."""

import asyncio
from pathlib import Path

import pytest
from aiohttp import web

from r1plus_contract.history import AUDIENCE
from r1plus_registry import reviews as reviews_module
from r1plus_registry.errors import RegistryBusyError, RegistryUnavailableError
from r1plus_registry.reviews import ApiServer, Reviews, User
from support.rotating_tls import RotatingServer


async def test_token_reviews_succeed_after_the_ca_of_the_api_server_has_rotated(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("own")
    document = {"status": {"authenticated": True, "audiences": ["r1plus-registry"], "user": {"username": "alice"}}}
    async with (
        RotatingServer(tmp_path, document).listen() as server,
        Reviews(ApiServer(server.url, server.ca, token)) as reviews,
    ):
        assert (await reviews.authenticate("first", "10.0.0.1")) is not None
        server.rotate()
        with pytest.raises(RegistryUnavailableError, match="certificate verify failed"):
            await reviews.authenticate("second", "10.0.0.1")
        server.publish()
        assert (await reviews.authenticate("second", "10.0.0.1")) is not None


class SlowServer(RotatingServer):
    """An API server that reviews no token of one kind until it is released; other tokens at once."""

    released: asyncio.Event
    arrived: asyncio.Semaphore
    waiting = 0

    async def _answer(self, request: web.Request) -> web.Response:
        if (await request.json())["spec"]["token"].startswith("slow"):
            self.waiting += 1
            self.arrived.release()
            await self.released.wait()
        return await super()._answer(request)


@pytest.mark.parametrize("times", [1, 1.1, 10])
async def test_a_peers_tokens_take_the_api_server_from_nobody_else(times: float, tmp_path: Path) -> None:
    """Peer A sends as many tokens as one may, and more; B's are reviewed meanwhile, and A's again afterwards."""
    token = tmp_path / "token"
    token.write_text("own")
    server = SlowServer(
        tmp_path, {"status": {"authenticated": True, "audiences": [AUDIENCE], "user": {"username": "b"}}}
    )
    server.released, server.arrived = asyncio.Event(), asyncio.Semaphore(0)
    most, running = reviews_module.MOST_PENDING_OF_OWNER, reviews_module.MOST_RUNNING_OF_OWNER
    async with server.listen(), Reviews(ApiServer(server.url, server.ca, token)) as reviews:
        sent = [asyncio.create_task(reviews.authenticate(f"slow {n}", "10.0.0.1")) for n in range(round(most * times))]
        for _ in range(running):
            await server.arrived.acquire()
        refused = [task for task in sent if task.done()]
        assert len(refused) == round(most * times) - most
        for task in refused:
            with pytest.raises(RegistryBusyError, match=f"{most} of your requests are waiting already"):
                await task
        for n in range(20):
            assert await reviews.authenticate(f"token {n}", "10.0.0.2") == User("b")
        assert server.waiting == running
        server.released.set()
        assert set(await asyncio.gather(*(task for task in sent if task not in refused))) == {User("b")}
        assert await reviews.authenticate("token", "10.0.0.1") == User("b")


async def test_tokens_that_mean_nothing_push_out_no_user(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("own")
    document = {"status": {"authenticated": True, "audiences": [AUDIENCE], "user": {"username": "b"}}}
    server = RotatingServer(tmp_path, document)
    async with server.listen(), Reviews(ApiServer(server.url, server.ca, token)) as reviews:
        assert await reviews.authenticate("token", "10.0.0.2") == User("b")
        document["status"] = {"authenticated": False}
        for n in range(reviews_module.MOST_CACHED):
            reviews._refused.store(n, True)
        assert await reviews.authenticate("nonsense", "10.0.0.1") is None
        assert await reviews.authenticate("token", "10.0.0.2") == User("b"), "known for CACHE_SECONDS"
