"""Tools and forms of an answer that are not strict are taken as OpenAI takes them; the answer says what was dropped."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from r1plus_gateway.http.body.fields import Fields
from r1plus_gateway.http.completions import answers, completion_forms
from r1plus_gateway.http.completions.requests import GenerateRequest, parse_chat
from r1plus_gateway.http.schemas.schema_reports import SchemaReport, check_text
from r1plus_gateway.http.schemas.schemas import SchemaCheck
from r1plus_model_repo.backends.constraint.constraints import parse_schema
from support.gateway.access import ALICE, KEY
from support.gateway.fake_triton import Piece, answer
from support.gateway.rig import Rig, read_events, running
from support.tables import for_each
from support.waiting import eventually

ENGINE: Any = {"capabilities": ["messages", "response_schema"]}


class Note(BaseModel):
    """As agents describe a tool's arguments."""

    text: str = Field(max_length=500, description="What to note.")
    tags: set[str] = Field(default_factory=set)
    times: list["Note"] = Field(default_factory=list)


PLAIN = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
PLACE = "tools[1].function.parameters"
DROPPED = [
    f"{PLACE}.$ref.properties.text.maxLength",
    f"{PLACE}.$ref.properties.tags.uniqueItems",
    f"{PLACE}.$ref.properties.times.items.$ref",
]


def build_tool(name: str, parameters: Any, **more: Any) -> Any:
    return {"type": "function", "function": {"name": name, "parameters": parameters, **more}}


TOOLS = [build_tool("weather", PLAIN), build_tool("note", Note.model_json_schema())]


def call(name: str, **arguments: Any) -> str:
    return json.dumps({"name": name, "arguments": arguments})


async def ask(rig: Rig, **fields: Any) -> Any:
    async with rig.chat("Weather in Oslo?", **fields) as response:
        body = await response.json()
        assert response.status == 200, body
        return body


CALLS: dict[str, tuple[str, Any, Any]] = {
    "arguments that follow the schema": (call("note", text="Rain", tags=["a", "b"]), True, None),
    "a text that is too long": (call("note", text="x" * 501), False, "is too long"),
    "a set with the same twice": (call("note", text="Rain", tags=["a", "a"]), False, "$.tags: 'a' is there twice"),
    "a level below": (
        call("note", text="Rain", times=[{"tags": []}]),
        False,
        "$.times[0]: 'text' is a required property",
    ),
    "a tool that is enforced as a whole": (call("weather", city="Oslo"), True, None),
    "no call": ('{"content":"Hello"}', None, None),
}


@for_each("written, is_valid, problem", CALLS)
async def test_a_tool_that_cannot_be_enforced_fails_no_request(
    tmp_path: Path, written: str, is_valid: Any, problem: Any
) -> None:
    async with running(tmp_path, answer(written), **ENGINE) as rig:
        report = (await ask(rig, tools=TOOLS))["r1plus"]["schema"]
        parse_schema(rig.pod.inputs[0]["response_schema"])
        assert '"maxLength":500' in rig.pod.inputs[0]["system"], "the model reads all of it"
    found = report.pop("problem")
    assert report == {"dropped": DROPPED, "dropped_more": 0, "valid": is_valid}
    assert (problem is None and found is None) or problem in found


async def test_schemas_are_fitted_beside_the_loop_and_keys_take_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hostile tools take a second of a processor: one key's fill one thread, and other requests go on."""
    loop, begun, released = threading.get_ident(), threading.Event(), threading.Event()
    fitted: list[str] = []

    def parse_slowly(fields: Fields, *more: Any, **named: Any) -> GenerateRequest:
        if threading.get_ident() != loop:
            fitted.append(str(fields.get("user")))
            begun.set()
            assert released.wait(60)
        return parse_chat(fields, *more, **named)

    async def ask_as(name: str, **fields: Any) -> None:
        body = {"model": "credit", "messages": [{"role": "user", "content": "Hi"}], "user": name, **fields}
        async with rig.post("/v1/chat/completions", body, Authorization=f"Bearer r1p_{name}") as response:
            assert response.status == 200

    monkeypatch.setattr(completion_forms, "parse_chat", parse_slowly)
    monkeypatch.setattr(completion_forms, "MOST_PARSING", 1)
    async with running(tmp_path, answer('{"content":"a"}'), batch=64, **ENGINE) as rig:
        rig.authenticator.callers["r1p_bob"] = replace(ALICE, id="bob")
        asking = [asyncio.create_task(ask_as("alice", tools=TOOLS)) for _ in range(9)]
        await eventually(begun.is_set, "one of one key is fitted")
        lines = rig.gateway.api._forms[0]._parsing._turns._lines
        await eventually(lambda: lines["alice"].count == 9, "the others wait")
        asking.append(asyncio.create_task(ask_as("bob", tools=TOOLS)))
        await eventually(lambda: "bob" in lines, "the other key waits")
        await ask_as("bob")
        assert fitted == ["alice"]
        released.set()
        await asyncio.gather(*asking)
    assert fitted[:2] == ["alice", "bob"]


async def test_keys_take_turns_where_answers_are_validated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A validation takes up to 0.2 s of a processor: one key's many answers keep another key's waiting for one."""
    loop, begun, released, judged = threading.get_ident(), threading.Event(), threading.Event(), []

    def check_slowly(check: SchemaCheck, text: str) -> SchemaReport:
        assert threading.get_ident() != loop
        judged.append(text)
        begun.set()
        assert released.wait(60)
        return check_text(check, text)

    async def write(inputs: Any) -> AsyncIterator[Piece]:
        content = inputs["text_input"]
        yield Piece(json.dumps({"content": content}), 1)
        yield Piece("", 1, finish_reason="stop")

    async def ask_as(key: str, text: str) -> None:
        body = {"model": "credit", "messages": [{"role": "user", "content": text}], "tools": TOOLS}
        async with rig.post("/v1/chat/completions", body, Authorization=f"Bearer {key}") as response:
            assert response.status == 200

    monkeypatch.setattr(answers, "check_text", check_slowly)
    async with running(tmp_path, write, batch=64, **ENGINE) as rig:
        rig.authenticator.callers["r1p_bob"] = replace(ALICE, id="bob")
        asking = [asyncio.create_task(ask_as(KEY, "alice")) for _ in range(9)]
        lines = rig.gateway.api._completions._runs._judging._turns._lines
        await eventually(lambda: begun.is_set() and lines["alice"].count == 9, "all of one key wait")
        asking.append(asyncio.create_task(ask_as("r1p_bob", "bob")))
        await eventually(lambda: "bob" in lines, "the other one waits")
        released.set()
        await asyncio.gather(*asking)
    assert [json.loads(text)["content"] for text in judged][:2] == ["alice", "bob"]


async def test_a_stream_says_it_in_its_last_chunk(tmp_path: Path) -> None:
    async with (
        running(tmp_path, answer(call("note", text="x" * 501)), **ENGINE) as rig,
        rig.chat(tools=TOOLS, stream=True) as response,
    ):
        *chunks, _ = await read_events(response)
    assert [chunk["r1plus"]["schema"]["valid"] for chunk in chunks if "r1plus" in chunk] == [False]
    assert "r1plus" in chunks[-1]


async def test_tools_that_the_engine_enforces_are_sent_as_they_are(tmp_path: Path) -> None:
    described = {**PLAIN, "description": "Where."}
    async with running(tmp_path, answer(call("weather", city="Oslo")), **ENGINE) as rig:
        assert "r1plus" not in await ask(rig, tools=[build_tool("weather", described)])
        sent = json.loads(rig.pod.inputs[0]["response_schema"])
    assert sent["anyOf"][0]["properties"]["arguments"] == described


LONG = {"type": "object", "properties": {"a": {"type": "string", "maxLength": 129}}}
STRICT: dict[str, tuple[dict[str, Any], str]] = {
    "a tool": (
        {"tools": [TOOLS[0], build_tool("f", LONG, strict=True)]},
        "tools[1].function.parameters.properties.a.maxLength",
    ),
    "the form of an answer": (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": LONG, "strict": True}}},
        "response_format.json_schema.schema.properties.a.maxLength",
    ),
}


@for_each("fields, place", STRICT)
async def test_what_is_strict_and_cannot_be_enforced_is_refused_with_its_place(
    tmp_path: Path, fields: dict[str, Any], place: str
) -> None:
    async with running(tmp_path, answer("{}"), **ENGINE) as rig, rig.chat(**fields) as response:
        error = (await response.json())["error"]
        assert (response.status, error["param"], error["code"]) == (400, place, "invalid_value")
        assert error["message"] == (
            f"{place}: 129 characters that lengths and patterns of the schema repeat exceed 128; simplify it"
        )
        assert rig.pod.inputs == []


async def test_a_strict_tool_has_room_before_those_that_are_not(tmp_path: Path) -> None:
    half = {"type": "object", "properties": {"a": {"type": "string", "maxLength": 100}}}
    tools = [build_tool("loose", half), build_tool("strict", half, strict=True)]
    async with running(tmp_path, answer(call("strict", a="b")), **ENGINE) as rig:
        report = (await ask(rig, tools=tools))["r1plus"]["schema"]
    assert report["dropped"] == ["tools[0].function.parameters.properties.a.maxLength"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "as a stream"])
async def test_the_form_of_an_answer_is_checked(tmp_path: Path, stream: bool) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": LONG}}
    async with running(tmp_path, answer('{"a":"', "x" * 130, '"}'), **ENGINE) as rig:
        async with rig.chat(response_format=form, stream=stream) as response:
            body = (await read_events(response))[-2] if stream else await response.json()
        async with rig.post("/v1/generate", {"model": "credit", "prompt": "a", "response_format": form}) as response:
            native = await response.json()
    for report in (body["r1plus"]["schema"], native["r1plus"]["schema"]):
        assert report["dropped"] == ["response_format.json_schema.schema.properties.a.maxLength"]
        assert report["valid"] is False
        assert report["problem"].startswith("$.a: 'xxx")


async def test_an_answer_that_was_cut_is_not_valid(tmp_path: Path) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": LONG}}
    async with running(tmp_path, answer('{"a":"', finish_reason="length"), **ENGINE) as rig:
        report = (await ask(rig, response_format=form))["r1plus"]["schema"]
    assert (report["valid"], report["problem"]) == (False, "the answer is no JSON")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "as a stream"])
async def test_a_response_says_it_and_is_not_strict(tmp_path: Path, stream: bool) -> None:
    flat = [
        {"type": "function", "name": "note", "parameters": LONG},
        {"type": "function", "name": "f", "parameters": PLAIN},
    ]
    async with running(tmp_path, answer(call("note", a="b")), **ENGINE) as rig:
        async with rig.respond(tools=flat, stream=stream) as response:
            body = (await read_events(response))[-2]["response"] if stream else await response.json()
        form = {"type": "json_schema", "name": "n", "schema": LONG}
        async with rig.respond(text={"format": form}) as response:
            formed = await response.json()
    assert body["r1plus"]["schema"]["dropped"] == ["tools[0].parameters.properties.a.maxLength"]
    assert body["r1plus"]["schema"]["valid"] is True
    assert [tool["strict"] for tool in body["tools"]] == [False, True]
    assert formed["r1plus"]["schema"]["dropped"] == ["text.format.schema.properties.a.maxLength"]
    assert formed["text"]["format"]["strict"] is False


async def test_many_large_tools_become_one_schema_that_the_engine_takes(tmp_path: Path) -> None:
    wide = {"type": "object", "properties": {f"field_{n}": {"enum": ["a" * 90, "b"]} for n in range(90)}}
    tools = [build_tool(f"tool_{n}", {**wide, "description": "x" * 2000}) for n in range(60)]
    script = answer(call("tool_59", field_1="c"))
    async with running(tmp_path, script, **ENGINE, contextTokens=100_000) as rig:
        report = (await ask(rig, tools=tools))["r1plus"]["schema"]
        sent = rig.pod.inputs[0]["response_schema"]
    parse_schema(sent)
    arguments = [option["properties"].get("arguments", {}) for option in json.loads(sent)["anyOf"]]
    assert arguments[0] == {**wide, "description": "x" * 2000}
    assert wide in arguments, "one more fits without its description"
    assert arguments[59] == {"type": "object"}
    assert report["dropped"][-1].startswith("tools[")
    assert len(report["dropped"]) + report["dropped_more"] == sum(
        len(one.get("properties", ())) < 90 for one in arguments[:60]
    )
    assert report["valid"] is False
    assert report["problem"].startswith("$.field_1: 'c' is not one of ['aaa")
