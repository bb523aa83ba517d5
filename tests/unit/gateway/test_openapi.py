"""The OpenAPI document says what the gateway does: its routes, its bounds, and the form of its answers."""

import json
import math
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
import pytest_asyncio
from jsonschema import Draft202012Validator

from r1plus_assistant.files.file_search import read_knowledge
from r1plus_assistant.responses.response_requests import parse_response, read_continuation_names
from r1plus_gateway.http.accounting import admission
from r1plus_gateway.http.body.fields import Fields
from r1plus_gateway.http.completions.requests import GenerateRequest, ModelName, parse_chat, parse_generate, parse_text
from r1plus_gateway.http.page import PageFiles
from r1plus_gateway.settings import Capability, ModelSettings
from support.gateway.fake_embedder import EMBEDDING
from support.gateway.fake_triton import FakeTriton, Script, answer, fail, serving
from support.gateway.process import GatewayProcess, running_process
from support.gateway.rig import Rig, read_events, read_typed_events, running
from support.tables import for_each

pytestmark = pytest.mark.asyncio(loop_scope="module")

Json = dict[str, Any]
USER = {"role": "user", "content": "Hi"}
CAPABILITIES = ["messages", "count_only", "response_schema"]
TOOL = {"type": "function", "function": {"name": "f"}}
CHAT: Json = {"model": "credit", "messages": [USER]}
TEXT: Json = {"model": "credit", "prompt": "Hi"}
FLAT_TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}}
RESPONSE: Json = {"model": "credit", "input": "Hi"}
FORMS = {
    "/v1/chat/completions": (CHAT, "ChatCompletion", "ChatCompletionChunk"),
    "/v1/responses": (RESPONSE, "Response", "ResponseEvent"),
    "/v1/completions": (TEXT, "TextCompletion", "TextCompletionChunk"),
    "/v1/generate": (TEXT, "Generation", "GenerationChunk"),
}
BODIES = {
    **FORMS,
    "/v1/calculate": ({"expression": "6 * 7"}, "Calculation"),
    "/v1/embeddings": ({"model": "minilm", "input": ["a"]}, "Embeddings"),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    folder = tmp_path_factory.mktemp("gateway")
    async with running(folder, answer("a", "b"), settings={"embedding": EMBEDDING}, capabilities=CAPABILITIES) as rig:
        yield rig


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def document(rig: Rig) -> Json:
    async with rig.client.get(f"{rig.url}/openapi.json") as response:
        assert response.status == 200
        got: Json = await response.json()
    return got


def check(document: Json, name: str, value: Any) -> None:
    """Raise if the value does not follow the schema of this name."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    Draft202012Validator(schema).validate(value)


def find_bodies(document: Json) -> Iterator[tuple[str, Json]]:
    """Yield the path and the schema of each body."""
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if "requestBody" in operation:
                yield path, operation["requestBody"]["content"]["application/json"]["schema"]


@pytest.mark.unit_slow
async def test_it_is_valid_and_needs_no_key_and_names_nothing_of_the_tenant(rig: Rig, document: Json) -> None:
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for _, body in find_bodies(document):
        Draft202012Validator.check_schema(body)
    for name in {part.split('"')[0] for part in json.dumps(document).split("#/components/schemas/")[1:]}:
        assert name in document["components"]["schemas"], f"{name} is referred to and not there"
    assert "credit" not in json.dumps(document)


async def test_every_route_of_the_api_is_in_it(rig: Rig, document: Json) -> None:
    page = {(route.method.lower(), route.path) for route in PageFiles().build_routes()}
    routes = {
        (route.method.lower(), route.resource.canonical)
        for route in rig.gateway.api.build(rig.file.current.limits).router.routes()
        if route.method != "HEAD" and route.resource is not None
    } - page
    assert routes == {(method, path) for path, operations in document["paths"].items() for method in operations}


@pytest.mark.parametrize("path", FORMS)
@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
async def test_answers_have_the_form_that_it_says(rig: Rig, document: Json, path: str, is_streamed: bool) -> None:
    body, name, event_name = FORMS[path]
    more = {"stream_options": {"include_usage": True}} if is_streamed and name != "Generation" else {}
    async with rig.post(path, {**body, "stream": is_streamed, **more}) as response:
        assert response.status == 200
        if not is_streamed:
            check(document, name, await response.json())
            return
        *events, done = await read_events(response)
    assert (len(events) >= 3, done) == (True, "[DONE]")
    for event in events:
        check(document, event_name, event)


async def test_a_calculation_has_the_form_that_it_says(rig: Rig, document: Json) -> None:
    for path in ("/v1/calculate", "/v1/embeddings"):
        body, name = BODIES[path]
        async with rig.post(path, body) as response:
            check(document, name, await response.json())


async def test_a_tool_call_has_the_form_that_it_says(tmp_path: Path, document: Json) -> None:
    async with running(tmp_path, answer('{"name":"f","arguments":{}}'), capabilities=CAPABILITIES) as rig:
        for is_streamed in (False, True):
            async with rig.chat(tools=[TOOL], stream=is_streamed) as response:
                if is_streamed:
                    for event in (await read_events(response))[:-1]:
                        check(document, "ChatCompletionChunk", event)
                else:
                    check(document, "ChatCompletion", await response.json())


@for_each("script, fields", {
    "a call": (answer('{"name":"f","arguments":{}}'), {"tools": [FLAT_TOOL], "tool_choice": "required"}),
    "a named call": (
        answer('{"name":"f","arguments":{}}'), {"tools": [FLAT_TOOL], "tool_choice": {"type": "function", "name": "f"}}
    ),
    "cut by its limit": (answer("a", finish_reason="length"), {"max_output_tokens": 1}),
    "under a schema": (
        answer("{}"), {"text": {"format": {"type": "json_schema", "name": "n", "schema": {}, "description": "d"}}}
    ),
    "failed": (fail(grpc.StatusCode.UNAVAILABLE, "gone", "a"), {"metadata": {"a": "b"}, "instructions": "Be brief."}),
})  # fmt: skip
async def test_a_response_has_the_form_that_it_says(
    tmp_path: Path, document: Json, script: Script, fields: Json
) -> None:
    async with running(tmp_path, script, capabilities=CAPABILITIES) as rig:
        async with rig.respond(**fields) as response:
            check(document, "Response" if response.status == 200 else "Error", await response.json())
        async with rig.respond(stream=True, **fields) as response:
            events = [event for event in await read_typed_events(response) if event != "[DONE]"]
    assert len(events) >= 5
    for event in events:
        check(document, "ResponseEvent", event)


@for_each("path, name", {
    "/v1/models": ("/v1/models", "Models"),
    "/v1/models/credit:code": ("/v1/models/credit:code", "Model"),
    "/v1/usage": ("/v1/usage", "OwnUsage"),
    "/v1/key": ("/v1/key", "OwnKey"),
    "an error": ("/v1/models/debit", "Error"),
    "another path": ("/v1/embeddings", "Error"),
})  # fmt: skip
async def test_other_answers_have_the_form_that_it_says(rig: Rig, document: Json, path: str, name: str) -> None:
    async with rig.get(path) as response:
        assert response.content_type == "application/json"
        check(document, name, await response.json())


async def test_bounds_are_those_that_hold(rig: Rig, document: Json) -> None:
    """Each field of each body just within its bounds is taken, and just outside refused by its name."""
    tried = 0
    for path, schema in find_bodies(document):
        for name, field in schema["properties"].items():
            for value, is_within in find_edges(field):
                async with rig.post(path, json.dumps({**BODIES[path][0], name: value}).encode()) as response:
                    got = await response.json()
                if is_within:
                    assert response.status == 200, (path, name, value, got)
                else:
                    assert (response.status, got["error"]["param"]) == (400, name), (path, value, got)
                tried += 1
    assert tried > 50


def find_edges(field: Json) -> Iterator[tuple[Any, bool]]:
    """Yield values at the bounds of a number, and whether each is within."""
    step = 1 if "integer" in field.get("type", ()) else 1e-9
    for keyword, sign in (("minimum", -1), ("maximum", 1)):
        if keyword in field:
            yield field[keyword], True
            yield field[keyword] + sign * step, False
    if "exclusiveMinimum" in field:
        yield field["exclusiveMinimum"], False
        yield math.nextafter(field["exclusiveMinimum"], math.inf), True


def parse_whole_response(fields: Fields, name: ModelName, model: ModelSettings) -> GenerateRequest:
    """Parse a response as its form does: what it continues is read first."""
    read_continuation_names(fields)
    return parse_response(fields, name, model)


def parse_whole_chat(fields: Fields, name: ModelName, model: ModelSettings) -> GenerateRequest:
    """Parse a chat with what is searched for it."""
    read_knowledge(fields)
    return parse_chat(fields, name, model)


@for_each("parse, body, path", {
    "chat": (parse_whole_chat, CHAT, "/v1/chat/completions"),
    "text": (parse_text, TEXT, "/v1/completions"),
    "generate": (parse_generate, TEXT, "/v1/generate"),
    "response": (parse_whole_response, {**RESPONSE, "tools": [FLAT_TOOL]}, "/v1/responses"),
})  # fmt: skip
async def test_every_field_that_it_lists_is_read(document: Json, parse: Any, body: Json, path: str) -> None:
    """What a table has and its parser does not read would be taken, and do nothing."""
    schema = dict(find_bodies(document))[path]
    ignored = {
        name
        for name, field in schema["properties"].items()
        if not field or "enum" in field or field == {"type": "null"}
    }
    read = Recording({"tools": [TOOL], **body, "stream": True})
    model = ModelSettings("credit", "h", 1024, 4, capabilities=tuple(Capability))
    parse(read, ModelName("credit", "credit", ""), model)
    assert set(schema["properties"]) - ignored - read.names <= {"model", "preset"}


class Recording(Fields):
    """Remembers which fields are read."""

    def __init__(self, body: Json) -> None:
        super().__init__(body)
        self.names: set[str] = set()

    def get(self, name: str) -> Any:
        """See `Fields`."""
        self.names.add(name)
        return super().get(name)

    def refuse_rest(self, *_: Any) -> None:
        """The body has fields that this form does not know."""


async def test_each_answer_to_a_key_that_was_refused_too_often_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "MOST_REFUSED", 1)
    async with running(tmp_path, answer("a"), settings={"embedding": EMBEDDING}, clock=lambda: 0.0) as rig:
        async with rig.get("/v1/models/debit") as response:
            assert response.status == 404
        async with rig.client.get(f"{rig.url}/openapi.json") as response:
            document = await response.json()
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                named = path.replace("{model}", "credit")
                send = rig.get(named) if method == "get" else rig.post(named, {})
                async with send as response:
                    assert response.status == (200 if operation.get("security") == [] else 429), path
                    assert str(response.status) in operation["responses"], path


@pytest.mark.unit_slow
async def test_the_admin_api_answers_in_the_form_that_it_says(tmp_path: Path) -> None:
    async with serving(FakeTriton(answer("a"))) as pod, running_process(tmp_path, pod) as gateway:
        document = await read_document(gateway)
        for path, operations in document["paths"].items():
            for operation in operations.values():
                assert ("429" in operation["responses"]) == (operation.get("security") != []), path
        _, made = await gateway.call_admin("POST", "/keys", {"name": "a", "limits": {"budget_tokens": 100.0}})
        check(document, "IssuedKey", made)
        assert made["limits"]["budget_tokens"] == 100
        async with gateway.make_client(made["key"]) as client:
            await client.generate(model="credit", prompt="x", max_new_tokens=1)
        for method, path, name in (
            ("GET", "/keys", "Keys"),
            ("GET", "/usage", "UsageReport"),
            ("GET", "/audit", "Audit"),
            ("POST", f"/keys/{made['id']}/rotate", "IssuedKey"),
            ("DELETE", f"/keys/{made['id']}", "Key"),
            ("DELETE", "/keys/unknown", "Error"),
        ):
            status, got = await gateway.call_admin(method, path)
            check(document, name, got)
            operations = document["paths"][f"/v1/admin{path.replace(made['id'], '{id}').replace('unknown', '{id}')}"]
            assert str(status) in operations[method.lower()]["responses"]


async def read_document(gateway: GatewayProcess) -> Json:
    """Return the document of a process."""
    async with aiohttp.ClientSession() as session, session.get(f"{gateway.url}/openapi.json") as response:
        got: Json = await response.json()
        return got
