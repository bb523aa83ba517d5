"""`memory` in a response: a gateway with its real store, before a model with a small context."""

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import grpc
import pytest
import pytest_asyncio

from r1plus_assistant.memory.quotation import HEAD
from support.gateway.fake_triton import FailureError, FakeTriton, Inputs, Piece, serving
from support.gateway.interleaving import Leaks, answer_briefly, count_leaks
from support.gateway.process import GatewayProcess, running_process
from support.tables import for_each

pytestmark = pytest.mark.asyncio(loop_scope="module")
Json = dict[str, Any]
CONTEXT = 1024
FILLER = "The river was calm and the boats lay still in the evening. " * 6
DATA = {"data": {"contentDays": 30}}


def read_prompt(inputs: Inputs) -> str:
    """Return all text of a prompt."""
    if "messages" not in inputs:
        return str(inputs["text_input"])
    return "\n".join(message["content"] for message in json.loads(inputs["messages"]))


class Tokens:
    """Counts a token for every four bytes, or for fewer."""

    def __init__(self) -> None:
        self.bytes_per_token = 4
        self.asked = 0

    def __call__(self, inputs: Inputs) -> int:
        self.asked += 1
        return len(read_prompt(inputs).encode()) // self.bytes_per_token


async def refuse_what_is_long(inputs: Inputs) -> Any:
    """Answer as an engine does: what exceeds the context is refused."""
    tokens = len(read_prompt(inputs).encode()) // 4
    if tokens > CONTEXT:
        raise FailureError(
            grpc.StatusCode.INVALID_ARGUMENT, f"text_input: prompt has {tokens} tokens; the context of {CONTEXT}"
        )
    yield Piece("Fine.", 1, tokens)
    yield Piece("", 1, tokens, finish_reason="stop")


class Caller:
    """A key holder at a gateway."""

    def __init__(self, gateway: GatewayProcess, pod: FakeTriton, key: str) -> None:
        self._url = f"{gateway.url}/v1"
        self._headers = {"Authorization": f"Bearer {key}"}
        self.pod = pod

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, Json]:
        """Return status and answer."""
        async with (
            aiohttp.ClientSession(headers=self._headers) as session,
            session.request(method, f"{self._url}{path}", json=body) as response,
        ):
            return response.status, await response.json()

    async def respond(self, text: str, **fields: Any) -> tuple[int, Json]:
        """Return status and answer of a response."""
        return await self.call(
            "POST", "/responses", {"model": "credit", "input": text, "max_output_tokens": 16, **fields}
        )

    async def begin(self, *texts: str, role: str = "user") -> str:
        """Return a conversation of these texts, one of which may be of another role."""
        items = [{"role": "user", "content": text} for text in texts]
        items[0]["role"] = role
        _, made = await self.call("POST", "/conversations", {"items": items[:20]})
        for start in range(20, len(items), 20):
            await self.call("POST", f"/conversations/{made['id']}/items", {"items": items[start : start + 20]})
        return str(made["id"])

    @property
    def prompt(self) -> str:
        """What the engine got last."""
        return read_prompt(self.pod.inputs[-1])


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[GatewayProcess, FakeTriton]]:
    pod = FakeTriton(refuse_what_is_long)
    async with serving(pod), running_process(tmp_path_factory.mktemp("gateway"), pod, DATA) as gateway:
        yield gateway, pod


@pytest_asyncio.fixture(loop_scope="module")
async def caller(rig: tuple[GatewayProcess, FakeTriton]) -> Caller:
    gateway, pod = rig
    pod.count_tokens = Tokens()
    return Caller(gateway, pod, await gateway.create_key())


@pytest.mark.unit_slow
async def test_a_conversation_longer_than_the_context_is_answered(caller: Caller) -> None:
    conversation = await caller.begin("My locker has the code 4711.", *[FILLER] * 24)
    status, refusal = await caller.respond("What opens my locker?", conversation=conversation)
    assert (status, refusal["error"]["code"]) == (400, "context_length_exceeded"), "else this shows nothing"
    status, answer = await caller.respond("What opens my locker?", conversation=conversation, memory={"enabled": True})
    assert status == 200, answer
    figures = answer["r1plus"]["memory"]
    assert figures | {"estimated_tokens": 0, "retrieved": 0} == {
        "budget_tokens": CONTEXT // 2,
        "estimated_tokens": 0,
        "turns": 25,
        "verbatim_turns": 5,
        "cards": 1,
        "retrieved": 0,
        "remembered": 0,
        "search": "words",
    }
    assert 0 < figures["estimated_tokens"] <= figures["budget_tokens"]
    assert '"My locker has the code 4711."' in caller.prompt
    assert caller.prompt.startswith(HEAD)
    assert caller.prompt.endswith("What opens my locker?")
    roles = [message["role"] for message in caller.pod.messages]
    assert "system" not in roles
    items = (await caller.call("GET", f"/conversations/{conversation}/items?limit=2"))[1]["data"]
    assert [item["content"][0]["text"] for item in items] == ["Fine.", "What opens my locker?"], (
        "no quotation is stored"
    )


@for_each("memory", {"without it": None, "switched off": {"enabled": False}, "off, with a budget": {"enabled": False, "budget_tokens": 64}})  # fmt: skip
async def test_off_all_is_in_the_prompt(caller: Caller, memory: Json | None) -> None:
    conversation = await caller.begin("My locker has the code 4711.", "It rains.")
    status, answer = await caller.respond("And now?", conversation=conversation, memory=memory)
    assert (status, "memory" in answer["r1plus"]) == (200, False)
    assert caller.prompt == "My locker has the code 4711.\nIt rains.\nAnd now?"


async def test_stored_responses_are_remembered(caller: Caller) -> None:
    previous = None
    memory = {"enabled": True, "budget_tokens": 300}
    for text in ("My locker has the code 4711.", *[FILLER] * 6):
        status, answer = await caller.respond(text, previous_response_id=previous, memory=memory)
        assert status == 200, answer
        previous = answer["id"]
    assert (await caller.respond("What opens it?", previous_response_id=previous, memory=memory))[0] == 200
    assert '"My locker has the code 4711."' in caller.prompt
    assert len(caller.prompt) // 4 <= 300 + 32
    assert (await caller.call("GET", f"/responses/{previous}"))[1]["r1plus"]["memory"]["turns"] == 6


async def test_memory_that_was_estimated_too_small_is_packed_again(caller: Caller) -> None:
    conversation = await caller.begin(*[f"My code {n} is {n}{n}{n}." for n in range(1, 30)], *[FILLER] * 3)
    tokens = Tokens()
    tokens.bytes_per_token, caller.pod.count_tokens = 1, tokens
    memory = {"enabled": True, "budget_tokens": 400}
    status, answer = await caller.respond("What is my code?", conversation=conversation, memory=memory)
    assert (status, tokens.asked) == (200, 2), answer
    assert answer["r1plus"]["memory"]["budget_tokens"] < 400
    assert len(caller.prompt.encode()) <= 400 + len("What is my code?") + 2


async def test_where_nothing_is_continued_memory_has_nothing(caller: Caller) -> None:
    status, answer = await caller.respond("Hm?", memory={"enabled": True})
    figures = answer["r1plus"]["memory"]
    assert (status, caller.prompt) == (200, "Hm?")
    assert figures.pop("search") == "words"
    assert sum(figures.values()) == figures["budget_tokens"] == CONTEXT // 2


async def test_a_budget_leaves_room_for_the_answer(caller: Caller) -> None:
    conversation = await caller.begin(*[FILLER] * 24)
    memory = {"enabled": True, "budget_tokens": CONTEXT}
    fields = {"conversation": conversation, "memory": memory, "max_output_tokens": 300}
    status, answer = await caller.respond("Which boats lay in the river? " * 20, **fields)
    assert status == 200, answer
    assert len(caller.prompt.encode()) // 4 <= CONTEXT - 300


async def test_what_developers_say_is_kept(caller: Caller) -> None:
    conversation = await caller.begin("Speak in rhymes.", *[FILLER] * 12, role="developer")
    memory = {"enabled": True, "budget_tokens": 128}
    assert (await caller.respond("Go on.", conversation=conversation, memory=memory, instructions="Be kind."))[0] == 200
    assert [(one["role"], one["content"][:16]) for one in caller.pod.messages][:2] == [
        ("system", "Be kind."),
        ("system", "Speak in rhymes."),
    ]


async def test_a_deleted_item_is_forgotten(caller: Caller) -> None:
    conversation = await caller.begin("My locker has the code 4711.", *[FILLER] * 12)
    path = f"/conversations/{conversation}/items"
    item = (await caller.call("GET", f"{path}?order=asc&limit=1"))[1]["data"][0]["id"]
    ask = {"conversation": conversation, "memory": {"enabled": True}}
    await caller.respond("What is the code of my locker?", **ask)
    assert "4711" in caller.prompt
    await caller.call("DELETE", f"{path}/{item}")
    await caller.respond("What is the code of my locker?", **ask)
    assert "4711" not in caller.prompt


async def test_a_stream_says_what_memory_did(caller: Caller) -> None:
    conversation = await caller.begin("My locker has the code 4711.")
    body = {
        "model": "credit",
        "input": "Hm?",
        "conversation": conversation,
        "memory": {"enabled": True},
        "stream": True,
    }
    headers = caller._headers
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{caller._url}/responses", json=body) as response,
    ):
        lines = (await response.text()).splitlines()
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert events[-1]["response"]["r1plus"]["memory"]["verbatim_turns"] == 1


@for_each("memory, param", {
    "no object": (True, "memory"),
    "neither on nor off": ({}, "memory.enabled"),
    "a word": ({"enabled": "yes"}, "memory.enabled"),
    "a budget too small": ({"enabled": True, "budget_tokens": 63}, "memory.budget_tokens"),
    "a budget beyond the context": ({"enabled": True, "budget_tokens": CONTEXT + 1}, "memory.budget_tokens"),
    "a budget that is no number": ({"enabled": True, "budget_tokens": "all"}, "memory.budget_tokens"),
    "an unknown field": ({"enabled": True, "vectors": 1}, "memory.vectors"),
    "an unknown way": ({"enabled": True, "long_term": "forever"}, "memory.long_term"),
})  # fmt: skip
async def test_bad_input(caller: Caller, memory: Any, param: str) -> None:
    status, answer = await caller.respond("Hi", memory=memory)
    assert (status, answer["error"]["param"]) == (400, param), answer


KEEP = {"enabled": True, "long_term": "keep"}
RECALL = {"enabled": True, "long_term": "recall"}


async def test_what_the_user_said_is_recalled_in_another_conversation(caller: Caller) -> None:
    status, answer = await caller.respond("My locker has the code 4711. What is a locker?", memory=KEEP)
    assert (status, answer["r1plus"]["memory"]["kept"]) == (200, 1), answer
    await caller.respond("What is the code of my locker?", memory={"enabled": True})
    assert "4711" not in caller.prompt, "not asked for"
    status, answer = await caller.respond("What is the code of my locker?", memory=RECALL)
    assert (status, answer["r1plus"]["memory"]["remembered"]) == (200, 1), answer
    assert "kept" not in answer["r1plus"]["memory"]
    assert '"My locker has the code 4711."' in caller.prompt
    assert "What is a locker?" not in caller.prompt
    await caller.respond("Actually, I changed the code of my locker to 9026.", memory=KEEP)
    _, listed = await caller.call("GET", "/memories")
    assert [(one["text"], one["source"]) for one in listed["data"]] == [
        ("Actually, I changed the code of my locker to 9026.", "said")
    ]
    await caller.respond("What is the code of my locker?", memory=RECALL)
    assert "4711" not in caller.prompt
    assert "9026" in caller.prompt


async def test_a_memory_is_pinned_changed_and_deleted(caller: Caller) -> None:
    status, made = await caller.call("POST", "/memories", {"text": "I eat no celery.", "expires_after_days": 7})
    assert (status, made["source"], made["expires_at"] - made["created_at"]) == (200, "pinned", 7 * 86400), made
    path = f"/memories/{made['id']}"
    assert await caller.call("GET", path) == (200, made)
    _, changed = await caller.call("POST", path, {"text": "I eat no nuts."})
    assert (changed["text"], changed["expires_at"] > made["expires_at"]) == ("I eat no nuts.", True)
    await caller.respond("What can't I eat?", memory=RECALL)
    assert "celery" not in caller.prompt
    assert '"I eat no nuts."' in caller.prompt
    assert await caller.call("DELETE", path) == (200, {"id": made["id"], "object": "memory.deleted", "deleted": True})
    await caller.respond("What can't I eat?", memory=RECALL)
    assert "nuts" not in caller.prompt
    for method, body in (("GET", None), ("POST", {"text": "x"}), ("DELETE", None)):
        assert (await caller.call(method, path, body))[0] == 404


async def test_a_memory_is_its_owners(caller: Caller, rig: tuple[GatewayProcess, FakeTriton]) -> None:
    gateway, pod = rig
    _, made = await caller.call("POST", "/memories", {"text": "I eat no celery."})
    other = Caller(gateway, pod, await gateway.create_key())
    for method, body in (("GET", None), ("POST", {"text": "x"}), ("DELETE", None)):
        assert (await other.call(method, f"/memories/{made['id']}", body))[0] == 404
    assert (await other.call("GET", "/memories"))[1]["data"] == []
    await other.respond("What can't I eat?", memory=RECALL)
    assert "celery" not in other.prompt
    assert (await other.call("GET", f"/memories?after={made['id']}"))[0] == 400


@for_each("body, param", {
    "no text": ({}, "text"),
    "a blank text": ({"text": "  "}, "text"),
    "a text too long": ({"text": "x" * 401}, "text"),
    "a text that is no string": ({"text": 7}, "text"),
    "more days than the tenant keeps": ({"text": "x", "expires_after_days": 31}, "expires_after_days"),
    "no day": ({"text": "x", "expires_after_days": 0}, "expires_after_days"),
    "an unknown field": ({"text": "x", "source": "said"}, "source"),
})  # fmt: skip
async def test_bad_memories(caller: Caller, body: Json, param: str) -> None:
    status, answer = await caller.call("POST", "/memories", body)
    assert (status, answer["error"]["param"]) == (400, param), answer
    assert (await caller.call("GET", "/memories"))[1]["data"] == []


async def test_what_is_not_to_be_stored_is_not_kept(caller: Caller) -> None:
    status, answer = await caller.respond("My code is 4711.", memory=KEEP, store=False)
    assert (status, answer["error"]["param"]) == (400, "memory.long_term"), answer
    assert (await caller.respond("My code is 4711.", memory=RECALL, store=False))[0] == 200
    assert (await caller.call("GET", "/memories"))[1]["data"] == []


@pytest.mark.unit_slow
async def test_no_marker_of_one_end_user_or_tenant_is_in_a_prompt_of_another(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    pod = FakeTriton(answer_briefly)
    one, two = (tmp_path_factory.mktemp(name) for name in ("one", "two"))
    async with serving(pod), running_process(one, pod, DATA) as first, running_process(two, pod, DATA) as second:
        leaks = await count_leaks([first, second], pod, 24)
    assert leaks == Leaks(prompts=48, recalled=48, remembered=leaks.remembered)
    assert leaks.remembered > 0, "what is kept reaches other conversations of its own end user"
