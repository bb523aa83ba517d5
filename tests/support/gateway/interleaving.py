"""Conversations of two end users of each tenant in turn, before one pod: what of one reaches a prompt of another.

Each is asked before something of it is deleted, so that its gateway has it in memory, and after that. Half of them also
keep what the end user says for its other conversations, and recall it.
"""

import asyncio
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from support.gateway.fake_triton import FakeTriton, Inputs, Piece
from support.gateway.process import GatewayProcess

END_USERS: Final = ("anna", "bert")
AT_ONCE: Final = 8
BEFORE: Final = "before"
_QUESTION: Final = re.compile(rf"([0-9a-f]{{16}})( {BEFORE})?: what is my code\?")


@dataclass(slots=True)
class Leaks:
    """Counts over all prompts."""

    prompts: int = 0
    recalled: int = 0
    """Prompts with the marker of their own conversation, as they should have."""
    remembered: int = 0
    """Prompts with what the same end user has said in another conversation, to be kept."""
    foreign: int = 0
    """Markers and names of another conversation in a prompt, of anybody, but for what was kept for this end user."""
    deleted: int = 0
    """Markers in a prompt that were deleted before it was made."""


@dataclass(frozen=True, slots=True)
class Markers:
    """What one conversation has that no other should show."""

    owner: tuple[int, int]
    """Number of the tenant, and of its end user."""
    own: str
    deleted: str
    kept: str
    """Said to be kept for other conversations; empty: nothing is."""

    def list_foreign(self, owner: tuple[int, int]) -> list[str]:
        """Return what no other conversation of this owner may show."""
        return [self.own, self.deleted, *([self.kept] if self.kept and self.owner != owner else [])]


async def answer_briefly(_: Inputs) -> Any:
    """Answer without a word of the prompt."""
    yield Piece("Fine.", 1)
    yield Piece("", 1, finish_reason="stop")


async def count_leaks(gateways: Sequence[GatewayProcess], pod: FakeTriton, conversations: int) -> Leaks:
    """Hold so many conversations at once, each with a marker that stays and one that is deleted, and ask with memory.

    `gateways`: of different tenants.
    """
    keys = [await gateway.create_key(scopes=["end-users"]) for gateway in gateways]
    markers: dict[str, Markers] = {}
    turns = asyncio.Semaphore(AT_ONCE)

    async def hold(session: aiohttp.ClientSession, number: int) -> None:
        async with turns:
            name, rest = secrets.token_hex(8), number // len(END_USERS)
            user, tenant, round_ = number % len(END_USERS), rest % len(gateways), rest // len(gateways)
            own, deleted, kept = (f"{letter}{secrets.token_hex(6)}" for letter in "KDL")
            markers[name] = Markers((tenant, user), own, deleted, kept if round_ % 2 else "")
            headers = {"Authorization": f"Bearer {keys[tenant]}", "x-r1plus-end-user": END_USERS[user]}
            await _hold(session, f"{gateways[tenant].url}/v1", headers, name, markers[name])

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(hold(session, number) for number in range(conversations)))
    return _count(pod, markers)


async def _hold(session: aiohttp.ClientSession, url: str, headers: dict[str, str], name: str, markers: Markers) -> None:
    texts = [
        f"My code is {markers.own}.",
        f"My former code is {markers.deleted}.",
        *(f"Number {n} of the rest. " * 20 for n in range(6)),
    ]
    items = [{"role": "user", "content": text} for text in texts]

    async def call(method: str, path: str, body: Any = None) -> Any:
        async with session.request(method, f"{url}{path}", json=body, headers=headers) as response:
            answer = await response.json()
            assert response.status == 200, answer
            return answer

    conversation = (await call("POST", "/conversations", {"items": items}))["id"]
    memory: dict[str, Any] = {"enabled": True, "budget_tokens": 256}
    said = ""
    if markers.kept:
        memory["long_term"], said = "keep", f"My badge has number {markers.kept}. "
    asked = {"model": "credit", "conversation": conversation, "memory": memory}
    await call("POST", "/responses", {**asked, "input": f"{said}{name} {BEFORE}: what is my code?"})
    listed = await call("GET", f"/conversations/{conversation}/items?order=asc&limit=2")
    await call("DELETE", f"/conversations/{conversation}/items/{listed['data'][1]['id']}")
    await call("POST", "/responses", {**asked, "input": f"{name}: what is my code?"})


def _count(pod: FakeTriton, markers: dict[str, Markers]) -> Leaks:
    leaks = Leaks()
    for inputs in pod.inputs:
        prompt = str(inputs.get("messages") or inputs["text_input"])
        own, before = _QUESTION.findall(prompt)[-1]
        leaks.prompts += 1
        owner = markers[own].owner
        for name, one in markers.items():
            if name == own:
                leaks.recalled += one.own in prompt
                leaks.deleted += not before and one.deleted in prompt
            else:
                leaks.foreign += any(text in prompt for text in (name, *one.list_foreign(owner)))
        others = (one.kept for name, one in markers.items() if name != own and one.owner == owner)
        leaks.remembered += any(kept and kept in prompt for kept in others)
    return leaks
