"""Conversations of two end users in turn through a real gateway: what of one reaches a prompt of the other."""

import asyncio
import secrets
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from support.gateway.fake_triton import FakeTriton, Inputs, Piece
from support.gateway.process import GatewayProcess

END_USERS: Final = ("anna", "bert")
AT_ONCE: Final = 8


@dataclass(slots=True)
class Leaks:
    """Counts over all prompts."""

    prompts: int = 0
    recalled: int = 0
    """Prompts with the marker of their own conversation, as they should have."""
    foreign: int = 0
    """Markers of another conversation in a prompt, whoever's it is."""
    deleted: int = 0
    """Markers that were deleted before."""


async def answer_briefly(_: Inputs) -> Any:
    """Answer without a word of the prompt."""
    yield Piece("Fine.", 1)
    yield Piece("", 1, finish_reason="stop")


async def count_leaks(gateway: GatewayProcess, pod: FakeTriton, conversations: int) -> Leaks:
    """Hold so many conversations at once, each with a marker that stays and one that is deleted, and ask with memory."""
    key = await gateway.create_key(scopes=["end-users"])
    markers: dict[str, tuple[str, str]] = {}
    turns = asyncio.Semaphore(AT_ONCE)

    async def hold(session: aiohttp.ClientSession, number: int) -> None:
        async with turns:
            name = secrets.token_hex(8)
            markers[name] = (f"K{secrets.token_hex(6)}", f"D{secrets.token_hex(6)}")
            await _hold(session, f"{gateway.url}/v1", END_USERS[number % 2], name, *markers[name])

    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        await asyncio.gather(*(hold(session, number) for number in range(conversations)))
    return _count(pod, markers)


async def _hold(session: aiohttp.ClientSession, url: str, user: str, name: str, kept: str, deleted: str) -> None:
    texts = [
        f"My code is {kept}.",
        f"My former code is {deleted}.",
        *(f"Number {n} of the rest. " * 20 for n in range(6)),
    ]
    items = [{"role": "user", "content": text} for text in texts]
    headers = {"x-r1plus-end-user": user}

    async def call(method: str, path: str, body: Any = None) -> Any:
        async with session.request(method, f"{url}{path}", json=body, headers=headers) as response:
            answer = await response.json()
            assert response.status == 200, answer
            return answer

    conversation = (await call("POST", "/conversations", {"items": items}))["id"]
    listed = await call("GET", f"/conversations/{conversation}/items?order=asc&limit=2")
    await call("DELETE", f"/conversations/{conversation}/items/{listed['data'][1]['id']}")
    memory = {"enabled": True, "budget_tokens": 256}
    asked = {"model": "credit", "conversation": conversation, "memory": memory, "input": f"{name}: what is my code?"}
    await call("POST", "/responses", asked)


def _count(pod: FakeTriton, markers: dict[str, tuple[str, str]]) -> Leaks:
    leaks = Leaks()
    for inputs in pod.inputs:
        prompt = str(inputs.get("messages") or inputs["text_input"])
        (own,) = [name for name in markers if name in prompt]
        leaks.prompts += 1
        for name, (kept, deleted) in markers.items():
            leaks.recalled += name == own and kept in prompt
            leaks.foreign += name != own and kept in prompt
            leaks.deleted += deleted in prompt
    return leaks
