"""Conversations and stored responses over HTTP: a gateway with its real store, before a model that says what it read."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from yarl import URL

from support.gateway.fake_triton import FakeTriton, Inputs, Piece, serving
from support.gateway.process import GatewayProcess, running_process
from support.tables import for_each

pytestmark = pytest.mark.asyncio(loop_scope="module")
Json = dict[str, Any]
LONG = "Tell all."
"""What the model answers longer than its limit."""
HELD = "Wait."
"""What the model answers when `RELEASED` is set."""
BEGUN, RELEASED = asyncio.Event(), asyncio.Event()


async def repeat_last(inputs: Inputs) -> Any:
    """Answer with the number of messages and the last one."""
    messages = json.loads(inputs["messages"]) if "messages" in inputs else [{"content": inputs["text_input"]}]
    yield Piece(f"{len(messages)}: {messages[-1]['content']}", 1)
    if messages[-1]["content"] == HELD:
        BEGUN.set()
        await RELEASED.wait()
    yield Piece("", 1, finish_reason="length" if messages[-1]["content"] == LONG else "stop")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("gateway")
    settings = {"data": {"contentDays": 30}, "limits": {"contentBytesPerKey": 20_000}}
    async with serving(FakeTriton(repeat_last)) as pod, running_process(folder, pod, settings) as process:
        yield process
        _, audit = await process.call_admin("GET", "/audit")
        assert audit["problem"] is None


class Client:
    """A key holder."""

    def __init__(self, gateway: GatewayProcess, key: str, end_user: str = "") -> None:
        self._gateway = gateway
        self._headers = {"Authorization": f"Bearer {key}", **({"x-r1plus-end-user": end_user} if end_user else {})}

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, Json]:
        """Return status and answer."""
        url = URL(f"{self._gateway.url}/v1{path}", encoded=True)
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, url, json=body, headers=self._headers) as response,
        ):
            return response.status, await response.json()

    async def get(self, method: str, path: str, body: Any = None) -> Json:
        """Return an answer that is no error."""
        status, answer = await self.call(method, path, body)
        assert status == 200, answer
        return answer

    async def respond(self, text: str, **fields: Any) -> Json:
        """Return a response."""
        return await self.get("POST", "/responses", {"model": "credit", "input": text, **fields})

    async def stream(self, text: str, **fields: Any) -> list[Json]:
        """Return the events of a stream."""
        body = {"model": "credit", "input": text, "stream": True, **fields}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self._gateway.url}/v1/responses", json=body, headers=self._headers) as response,
        ):
            text = (await response.read()).decode()
        return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]


@pytest_asyncio.fixture(loop_scope="module")
async def client(gateway: GatewayProcess) -> Client:
    return Client(gateway, await gateway.create_key())


def read_text(response: Json) -> str:
    return str(response["output"][0]["content"][0]["text"])


def say(text: str, role: str = "user") -> Json:
    return {"role": role, "content": text}


@pytest.mark.unit_slow
async def test_a_conversation_is_made_read_changed_and_deleted(client: Client) -> None:
    made = await client.get("POST", "/conversations", {"items": [say("Hi")], "metadata": {"topic": "names"}})
    assert made | {"id": "", "created_at": 0} == {
        "id": "",
        "object": "conversation",
        "created_at": 0,
        "metadata": {"topic": "names"},
    }
    path = f"/conversations/{made['id']}"
    assert await client.get("GET", path) == made
    assert (await client.get("POST", path, {"metadata": {"topic": "b"}}))["metadata"] == {"topic": "b"}
    added = await client.get(
        "POST",
        f"{path}/items",
        {"items": [say("Hello", "assistant"), {"type": "function_call_output", "call_id": "c", "output": "7"}]},
    )
    assert [item["type"] for item in added["data"]] == ["message", "function_call_output"]
    listed = await client.get("GET", f"{path}/items?order=asc")
    assert [item.get("role") for item in listed["data"]] == ["user", "assistant", None]
    assert listed["data"][0] | {"id": ""} == {
        "id": "",
        "type": "message",
        "status": "completed",
        "role": "user",
        "content": [{"type": "input_text", "text": "Hi"}],
    }
    assert (listed["first_id"], listed["last_id"]) == (listed["data"][0]["id"], listed["data"][2]["id"])
    page = await client.get("GET", f"{path}/items?limit=1&order=asc&after={listed['first_id']}")
    assert page["data"] == listed["data"][1:2]
    assert page["has_more"]
    item = f"{path}/items/{listed['last_id']}"
    assert await client.get("GET", item) == listed["data"][2]
    assert (await client.get("DELETE", item))["id"] == made["id"]
    assert (await client.call("GET", item))[0] == 404
    assert [one["id"] for one in (await client.get("GET", "/conversations"))["data"]] == [made["id"]]
    assert await client.get("DELETE", path) == {"id": made["id"], "object": "conversation.deleted", "deleted": True}
    assert (await client.call("GET", path))[0] == 404
    assert (await client.get("GET", "/conversations"))["data"] == []


@pytest.mark.unit_slow
async def test_a_response_is_continued_by_its_id(client: Client) -> None:
    first = await client.respond("My name is Anna.", instructions="Be brief.")
    assert (first["store"], first["r1plus"]["storage"], read_text(first)) == (True, "stored", "1: My name is Anna.")
    second = await client.respond("Who am I?", previous_response_id=first["id"])
    assert second["previous_response_id"] == first["id"]
    assert read_text(second) == "3: Who am I?", "earlier instructions do not carry over"
    third = await client.respond("Sure?", previous_response_id=second["id"], store=False)
    assert (third["store"], third["r1plus"]["storage"], read_text(third)) == (False, "not_requested", "5: Sure?")
    assert await client.get("GET", f"/responses/{second['id']}") == second
    items = await client.get("GET", f"/responses/{second['id']}/input_items")
    assert [item["content"][0]["text"] for item in items["data"]] == ["Who am I?"]
    assert (await client.call("GET", f"/responses/{third['id']}"))[0] == 404
    assert (await client.get("DELETE", f"/responses/{first['id']}"))["deleted"]
    status, error = await client.call(
        "POST", "/responses", {"model": "credit", "input": "a", "previous_response_id": second["id"]}
    )
    assert (status, error["error"]["code"]) == (404, "not_found"), "what it continues is gone"


async def test_openais_client_may_ask_for_parts_that_no_entry_has(client: Client) -> None:
    """It repeats `include[]` for each."""
    response = await client.respond("one")
    made = await client.get("POST", "/conversations", {"items": [say("Hi")]})
    items = f"/conversations/{made['id']}/items"
    item = (await client.get("GET", items))["data"][0]["id"]
    for path in (items, f"{items}/{item}", f"/responses/{response['id']}", f"/responses/{response['id']}/input_items"):
        query = "include[]=message.output_text.logprobs&include[]=reasoning.encrypted_content"
        assert await client.get("GET", f"{path}?{query}") == await client.get("GET", path)


@pytest.mark.parametrize("query", ["stream=true", "starting_after=3", "include_obfuscation=true"])
async def test_a_stored_response_is_not_streamed_again(client: Client, query: str) -> None:
    response = await client.respond("one")
    assert await client.get("GET", f"/responses/{response['id']}?stream=false") == response
    status, answer = await client.call("GET", f"/responses/{response['id']}?{query}")
    assert (status, answer["error"]["param"]) == (400, query.partition("=")[0])


async def test_a_response_whose_history_is_broken_says_so(client: Client) -> None:
    first = await client.respond("one")
    second = await client.respond("two", previous_response_id=first["id"])
    await client.get("DELETE", f"/responses/{first['id']}")
    body = {"model": "credit", "input": "three", "previous_response_id": second["id"]}
    status, answer = await client.call("POST", "/responses", body)
    assert (status, answer["error"]["code"], answer["error"]["param"]) == (404, "not_found", "previous_response_id")
    assert f"{second['id']} follows {first['id']}, which is not there" in answer["error"]["message"]
    assert await client.get("GET", f"/responses/{second['id']}")


async def test_a_conversation_grows_by_what_is_asked_and_answered(client: Client) -> None:
    conversation = (await client.get("POST", "/conversations"))["id"]
    first = await client.respond("One.", conversation=conversation)
    assert first["conversation"] == {"id": conversation}
    second = await client.respond("Two.", conversation={"id": conversation}, store=False)
    assert (read_text(second), second["store"], second["r1plus"]["storage"]) == ("3: Two.", False, "stored")
    items = (await client.get("GET", f"/conversations/{conversation}/items?order=asc"))["data"]
    said = [(item["role"], item["content"][0]["text"]) for item in items]
    assert said == [("user", "One."), ("assistant", "1: One."), ("user", "Two."), ("assistant", "3: Two.")]


@pytest.mark.parametrize("form", ["respond", "stream"])
async def test_a_cut_message_stays_incomplete_in_a_conversation(client: Client, form: str) -> None:
    """Also where a client puts it into another one."""
    conversation = (await client.get("POST", "/conversations"))["id"]
    await getattr(client, form)(LONG, conversation=conversation)
    items = (await client.get("GET", f"/conversations/{conversation}/items?order=asc"))["data"]
    assert [item["status"] for item in items] == ["completed", "incomplete"]
    copied = await client.get("POST", "/conversations", {"items": items})
    again = (await client.get("GET", f"/conversations/{copied['id']}/items?order=asc"))["data"]
    assert [item | {"id": ""} for item in again] == [item | {"id": ""} for item in items]
    assert read_text(await client.respond("More.", conversation=copied["id"])) == "3: More."


async def test_a_stream_is_stored_before_its_end_is_told(client: Client) -> None:
    conversation = (await client.get("POST", "/conversations"))["id"]
    events = await client.stream("One.", conversation=conversation)
    created, completed = events[0]["response"], events[-1]["response"]
    assert (created["store"], created["r1plus"]["storage"]) == (True, "pending")
    assert (completed["store"], completed["r1plus"]["storage"]) == (True, "stored")
    assert await client.get("GET", f"/responses/{completed['id']}") == completed
    items = (await client.get("GET", f"/conversations/{conversation}/items"))["data"]
    assert [item["role"] for item in items] == ["assistant", "user"]


async def test_what_has_no_room_is_answered_and_says_that_it_is_not_stored(client: Client) -> None:
    large = "x" * 6000
    stored = [await client.respond(large) for _ in range(2)]
    assert [one["r1plus"]["storage"] for one in stored] == ["stored", "limit_exceeded"]
    assert [one["store"] for one in stored] == [True, False]
    assert (await client.call("GET", f"/responses/{stored[1]['id']}"))[0] == 404
    (*_, end) = await client.stream(large)
    assert (end["type"], end["response"]["r1plus"]["storage"]) == ("response.completed", "limit_exceeded")
    status, error = await client.call("POST", "/conversations", {"items": [say(large)] * 2})
    assert (status, error["error"]["code"]) == (413, "storage_limit_exceeded")
    assert "exceed the 20000 that this key may store" in error["error"]["message"]


@pytest_asyncio.fixture(loop_scope="module")
async def others(gateway: GatewayProcess) -> dict[str, Client]:
    trusted = await gateway.create_key(scopes=["end-users"])
    return {
        "another key": Client(gateway, await gateway.create_key()),
        "another key's end user of the same name": Client(
            gateway, await gateway.create_key(scopes=["end-users"]), "anna"
        ),
        "another end user": Client(gateway, trusted, "bert"),
        "the key itself": Client(gateway, trusted),
        "anna": Client(gateway, trusted, "anna"),
        "a ServiceAccount": Client(gateway, gateway.make_token("team-credit", "web")),
    }


async def test_ids_of_others_are_worth_nothing(others: dict[str, Client]) -> None:
    anna = others.pop("anna")
    conversation = (await anna.get("POST", "/conversations", {"items": [say("secret")]}))["id"]
    item = (await anna.get("GET", f"/conversations/{conversation}/items"))["data"][0]["id"]
    response = (await anna.respond("secret"))["id"]
    requests = [
        ("GET", f"/conversations/{conversation}", None),
        ("POST", f"/conversations/{conversation}", {"metadata": {}}),
        ("DELETE", f"/conversations/{conversation}", None),
        ("GET", f"/conversations/{conversation}/items", None),
        ("POST", f"/conversations/{conversation}/items", {"items": [say("x")]}),
        ("GET", f"/conversations/{conversation}/items/{item}", None),
        ("DELETE", f"/conversations/{conversation}/items/{item}", None),
        ("GET", f"/responses/{response}", None),
        ("GET", f"/responses/{response}/input_items", None),
        ("DELETE", f"/responses/{response}", None),
        ("POST", "/responses", {"model": "credit", "input": "a", "previous_response_id": response}),
        ("POST", "/responses", {"model": "credit", "input": "a", "conversation": conversation}),
    ]
    for name, other in others.items():
        for method, path, body in requests:
            status, answer = await other.call(method, path, body)
            assert status == 404, (name, method, path, answer)
            unknown = json.dumps(answer).replace(conversation, "").replace(response, "").replace(item, "")
            assert "secret" not in unknown
        assert (await other.get("GET", "/conversations"))["data"] == []
    assert (await anna.get("GET", f"/conversations/{conversation}/items"))["data"][0]["id"] == item
    await anna.get("GET", f"/responses/{response}")


async def test_an_erased_end_user_has_nothing_left(gateway: GatewayProcess, others: dict[str, Client]) -> None:
    anna, bert = others["anna"], others["another end user"]
    for client in (anna, bert):
        await client.get("POST", "/conversations", {"items": [say("x")]})
    response = (await anna.respond("secret"))["id"]
    status, receipt = await gateway.call_admin("POST", "/erasures", {"end_user": "anna"})
    assert (status, receipt["conversations"] >= 1, receipt["responses"] >= 1) == (201, True, True)
    assert (await anna.get("GET", "/conversations"))["data"] == []
    assert (await anna.call("GET", f"/responses/{response}"))[0] == 404
    assert len((await bert.get("GET", "/conversations"))["data"]) == 1


@pytest.mark.parametrize("form", ["respond", "stream"])
async def test_what_answers_from_erased_content_is_not_stored_after_the_receipt(
    gateway: GatewayProcess, others: dict[str, Client], form: str
) -> None:
    anna = others["anna"]
    before = await anna.respond("My code is 4711.")
    BEGUN.clear(), RELEASED.clear()
    answering = asyncio.create_task(getattr(anna, form)(HELD, previous_response_id=before["id"]))
    await BEGUN.wait()
    try:
        status, receipt = await gateway.call_admin("POST", "/erasures", {"end_user": "anna"})
    finally:
        RELEASED.set()
    assert (status, receipt["responses"] >= 1) == (201, True)
    answer = await answering
    response = answer if form == "respond" else answer[-1]["response"]
    assert (read_text(response), response["store"]) == (f"3: {HELD}", False)
    assert response["r1plus"]["storage"] == "gone"
    assert (await anna.call("GET", f"/responses/{response['id']}"))[0] == 404
    _, again = await gateway.call_admin("POST", "/erasures", {"end_user": "anna"})
    assert (again["responses"], again["data_keys"]) == (0, [])
    assert (await anna.respond("Hello again."))["r1plus"]["storage"] == "stored"


@for_each("name", {
    "a space before it": " anna",
    "a space behind it": "anna ",
    "the end of a line": "anna\n",
    "more bytes than a header's": "ä" * 200,
    "a direction of writing": "anna\u202e",
})  # fmt: skip
async def test_no_receipt_attests_an_erasure_of_a_name_that_nobody_can_have(gateway: GatewayProcess, name: str) -> None:
    status, answer = await gateway.call_admin("POST", "/erasures", {"end_user": name})
    assert (status, answer["error"]["param"]) == (400, "end_user"), answer


@for_each("method, path, body, param", {
    "an unknown field": ("POST", "/conversations", {"name": "x"}, "name"),
    "too many items": ("POST", "/conversations", {"items": [say("x")] * 21}, "items"),
    "no items to add": ("POST", "/conversations/conv_x/items", {"items": []}, "items"),
    "an item of another kind": ("POST", "/conversations", {"items": [{"type": "image"}]}, "items[0].type"),
    "an item that is none": ("POST", "/conversations", {"items": [7]}, "items[0]"),
    "metadata of another type": ("POST", "/conversations", {"metadata": [1]}, "metadata"),
    "metadata that is too long": ("POST", "/conversations", {"metadata": {"a": "x" * 513}}, "metadata.a"),
    "metadata that is not there": ("POST", "/conversations/conv_x", {}, "metadata"),
    "a page of none": ("GET", "/conversations?limit=0", None, "limit"),
    "a page that is too long": ("GET", "/conversations?limit=101", None, "limit"),
    "a page of another script": ("GET", "/conversations?limit=%D9%A7", None, "limit"),
    "another order": ("GET", "/conversations?order=newest", None, "order"),
    "an entry that is none": ("GET", "/conversations?after=conv_x", None, "after"),
    "an unknown parameter": ("GET", "/conversations?offset=1", None, "offset"),
    "both to continue": ("POST", "/responses", {"model": "credit", "input": "a", "previous_response_id": "r", "conversation": "c"}, "conversation"),
    "a conversation of another type": ("POST", "/responses", {"model": "credit", "input": "a", "conversation": 7}, "conversation"),
    "a conversation without an id": ("POST", "/responses", {"model": "credit", "input": "a", "conversation": {}}, "conversation"),
})  # fmt: skip
async def test_bad_input(client: Client, method: str, path: str, body: Any, param: str | None) -> None:
    status, answer = await client.call(method, path, body)
    assert (status, answer["error"]["param"]) == (400, param), answer


@for_each("name", {
    "NUL": "%00",
    "SQL": "'%20OR%201=1--",
    "nothing UTF-8": "%FF",
    "three kilobytes": "a" * 3000,
    "bidirectional controls": "%E2%80%AE",
    "another kind of id": "resp_00000000000000000000000000000000",
})  # fmt: skip
async def test_ids_that_nothing_has(client: Client, name: str) -> None:
    for path in (f"/conversations/{name}", f"/conversations/{name}/items", f"/responses/{name}"):
        status, answer = await client.call("GET", path)
        assert (status, answer["error"]["code"]) == (404, "not_found"), path


async def test_what_no_response_is_has_no_endpoint(client: Client) -> None:
    status, answer = await client.call("POST", "/responses/compact", {"input": "a"})
    assert (status, answer["error"]["code"]) == (404, "not_found")


@for_each("path", {
    "conversations": "/v1/conversations",
    "items": "/v1/conversations/{id}/items",
    "items of a request": "/v1/responses/{id}/input_items",
})  # fmt: skip
async def test_the_document_says_how_long_a_page_may_be(gateway: GatewayProcess, path: str) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{gateway.url}/openapi.json") as response:
        listed = (await response.json())["paths"][path]["get"]
    (limit,) = (one["schema"] for one in listed["parameters"] if one["name"] == "limit")
    assert limit == {"type": "integer", "minimum": 1, "maximum": 100}


async def test_an_administrator_has_no_conversations(gateway: GatewayProcess) -> None:
    admin = Client(gateway, gateway.make_token("team-credit", "r1plus-gateway-admin"))
    status, answer = await admin.call("GET", "/conversations")
    assert (status, answer["error"]["code"]) == (403, "admin_not_allowed")


@pytest.mark.unit_slow
async def test_a_tenant_that_stores_nothing_says_so(tmp_path: Path) -> None:
    continuing = {"model": "credit", "input": "a", "conversation": "conv_x"}
    async with serving(FakeTriton(repeat_last)) as pod, running_process(tmp_path, pod) as gateway:
        client = Client(gateway, await gateway.create_key())
        response = await client.respond("Hi", store=True)
        assert (response["store"], response["r1plus"]["storage"]) == (False, "not_requested")
        for path, body in (("/conversations", {}), ("/responses", continuing)):
            status, answer = await client.call("POST", path, body)
            assert (status, answer["error"]["code"]) == (403, "storage_disabled")
            assert "spec.data.retentionDays" in answer["error"]["message"]
        assert (await client.call("GET", f"/responses/{response['id']}"))[0] == 404


async def test_the_query_of_a_search_is_bounded_as_the_document_says(client: Client) -> None:
    made = await client.get("POST", "/conversations", {})
    for characters, status in ((4096, 200), (4097, 400)):
        item = {"type": "file_search_call", "queries": ["x" * characters]}
        found, answer = await client.call("POST", f"/conversations/{made['id']}/items", {"items": [item]})
        assert found == status, answer
    assert answer["error"]["param"] == "items[0].queries"
