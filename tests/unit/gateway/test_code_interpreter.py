"""The tool `code_interpreter`: the model writes programs, the gateway runs them, and the rounds end in an answer."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import openai
import pytest

from r1plus_assistant.calculation import desk
from r1plus_assistant.calculation.client import CalculatorUnavailableError, SocketCalculator
from r1plus_assistant.calculation.desk import MOST_AT_ONCE
from r1plus_assistant.code.code_rounds import LAST_ONE
from r1plus_contract.calculator import CalculatorReply, CodeRun, FailureCode
from r1plus_contract.frame_server import serve_frames
from r1plus_contract.jsonable import dumps
from r1plus_gateway.access.caller import AccessError, Outcome
from r1plus_gateway.http.body.json_body import LONE_SURROGATE
from r1plus_gateway.http.schemas.tools import read_cut_text
from support.calculator.process import running_patient_interpreter
from support.gateway.access import ALICE, KEY
from support.gateway.fake_calculator import FakeCalculator
from support.gateway.fake_triton import FakeTriton, Inputs, Piece, PromptCounter, Script, fail, serving
from support.gateway.process import running_process
from support.gateway.rig import (
    REPORT,
    REVISION,
    FakeMonitor,
    Rig,
    read_typed_events,
    read_until,
    running,
    running_before,
)
from support.paths import TESTS
from support.tables import for_each
from support.waiting import eventually

MODEL: dict[str, Any] = {"capabilities": ["messages", "response_schema"]}
TOOL = {"type": "code_interpreter", "container": {"type": "auto"}}
WEATHER = {"type": "function", "name": "weather", "parameters": {"type": "object"}}


def write_program(code: str) -> str:
    """Return what a model says that wants a program to be run."""
    return json.dumps({"name": "code_interpreter", "arguments": {"code": code}})


def say(text: str) -> str:
    return json.dumps({"content": text})


class Rounds:
    """A script whose every round answers the next text, with so many tokens."""

    def __init__(self, *answers: str, tokens: int = 5, finish_reason: str = "stop") -> None:
        self._answers = answers
        self._tokens = tokens
        self._finish_reason = finish_reason
        self.asked: list[Inputs] = []
        self.gate: asyncio.Event | None = None
        """The last round waits for it."""

    async def __call__(self, inputs: Inputs) -> AsyncIterator[Piece]:
        self.asked.append(inputs)
        number = len(self.asked)
        if self.gate is not None and number == len(self._answers):
            await self.gate.wait()
        yield Piece(self._answers[number - 1], self._tokens)
        yield Piece("", self._tokens, finish_reason=self._finish_reason if number == len(self._answers) else "stop")

    def read_messages(self, number: int) -> list[dict[str, str]]:
        """Return the conversation of a round."""
        return list(json.loads(self.asked[number]["messages"]))

    def list_options(self, number: int) -> list[str]:
        """Return what the answer of a round may be: functions by their names, and `content`."""
        options = json.loads(self.asked[number]["response_schema"])["anyOf"]
        return [one["properties"].get("name", {"const": "content"})["const"] for one in options]


async def ask(rig: Rig, **fields: Any) -> Any:
    """Return the body of an answer."""
    async with rig.respond("6 * 7?", tools=[TOOL], **fields) as response:
        body = await response.json()
        assert response.status == 200, body
        return body


async def fetch_status(rig: Rig) -> int:
    """Return the status of an answer."""
    async with rig.respond("6 * 7?", tools=[TOOL]) as response:
        return int(response.status)


async def test_a_program_is_run_and_the_model_answers_with_what_it_printed(tmp_path: Path) -> None:
    rounds = Rounds(write_program("print(6 * 7)"), say("It is 42."))
    async with running(tmp_path, rounds, **MODEL) as rig:
        body = await ask(rig)
        assert rig.calculator.programs == ["print(6 * 7)"]
        (metric,) = [rig.metric("r1plus_gateway_code_runs_total", model="credit", key="alice", outcome="completed")]
    call, message = body["output"]
    assert call == {
        "type": "code_interpreter_call",
        "id": call["id"],
        "status": "completed",
        "code": "print(6 * 7)",
        "container_id": "none",
        "outputs": [{"type": "logs", "logs": "42\n"}],
    }
    assert message["content"][0]["text"] == "It is 42."
    assert (body["status"], body["tools"], body["tool_choice"], body["max_tool_calls"]) == (
        "completed",
        [TOOL],
        "auto",
        4,
    )
    assert body["r1plus"]["code"] == [
        {"id": call["id"], "output": "42\n", "value": "None", "error": None, "failure": None}
    ]
    assert (body["usage"]["input_tokens"], body["usage"]["output_tokens"]) == (14, 10)
    assert metric == 1
    assert [entry["role"] for entry in rounds.read_messages(1)] == ["system", "user", "assistant", "user"]
    assert rounds.read_messages(1)[2]["content"] == '{"name":"code_interpreter","arguments":{"code":"print(6 * 7)"}}'
    assert rounds.read_messages(1)[3]["content"] == "Result of the tool call code_interpreter: 42\n"
    assert rounds.list_options(0) == rounds.list_options(1) == ["code_interpreter", "content"]


@for_each("tools, owner", {
    "of the gateway alone": ([TOOL], "gateway"), "with the caller's": ([TOOL, WEATHER], "caller:alice")
})  # fmt: skip
async def test_schemas_of_rounds_take_memory_of_who_brings_the_tools(
    tmp_path: Path, tools: list[dict[str, Any]], owner: str
) -> None:
    async with running(tmp_path, Rounds(write_program("1"), say("1")), **MODEL) as rig:
        async with rig.respond("1?", tools=tools) as response:
            assert response.status == 200
        assert rig.pod.schema_owners == [owner, owner]


async def test_openai_reads_answer_and_stream(tmp_path: Path) -> None:
    answers = (write_program("print(6 * 7)"), say("It is 42."))
    async with (
        running(tmp_path, Rounds(*answers, *answers), **MODEL) as rig,
        openai.AsyncOpenAI(base_url=f"{rig.url}/v1", api_key=KEY, max_retries=0) as client,
    ):
        fields: dict[str, Any] = {"model": "credit", "input": "6 * 7?", "tools": [TOOL]}
        answer = await client.responses.create(**fields, include=["code_interpreter_call.outputs"])
        async with client.responses.stream(**fields) as stream:
            kinds = [event.type async for event in stream]
            final = await stream.get_final_response()
    for response in (answer, final):
        call, message = response.output
        assert call.type == "code_interpreter_call"
        assert call.outputs is not None
        assert (call.code, call.outputs[0].type, message.type) == ("print(6 * 7)", "logs", "message")
        assert response.output_text == "It is 42."
    assert kinds[2:9] == [
        "response.output_item.added",
        "response.code_interpreter_call.in_progress",
        "response.code_interpreter_call_code.delta",
        "response.code_interpreter_call_code.done",
        "response.code_interpreter_call.interpreting",
        "response.code_interpreter_call.completed",
        "response.output_item.done",
    ]
    assert kinds[-1] == "response.completed"


async def test_a_stream_has_the_program_before_it_runs_and_says_the_same_at_its_end(tmp_path: Path) -> None:
    rounds = Rounds(write_program("1"), write_program("2"), say("Done."))
    async with running(tmp_path, rounds, **MODEL) as rig:
        rig.calculator.gate = asyncio.Event()
        async with rig.respond("Go", tools=[TOOL], stream=True) as response:
            seen = b""
            while b"response.code_interpreter_call.interpreting" not in seen:
                seen += await asyncio.wait_for(response.content.readany(), 60)
            assert rig.calculator.programs == ["1"]
            rig.calculator.gate.set()
            seen += await response.read()
    events = [json.loads(line[6:]) for line in seen.decode().split("\n") if line.startswith("data: {")]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    done = [event for event in events if event["type"] == "response.output_item.done"]
    assert [event["output_index"] for event in done] == [0, 1, 2]
    assert events[-1]["response"]["output"] == [event["item"] for event in done]
    (delta,) = [event for event in events if event["type"] == "response.output_text.delta"]
    assert (delta["delta"], delta["output_index"]) == ("Done.", 2)


@for_each(
    ("run", "logs"),
    {
        "prints and gives": (CodeRun("a", "7", None), "a\n7"),
        "gives": (CodeRun("", "7", None), "7"),
        "gives None": (CodeRun("a\n", "None", None), "a\n"),
        "fails": (CodeRun("a\n", None, "ZeroDivisionError: x"), "a\nZeroDivisionError: x"),
    },
)
async def test_the_model_reads_what_was_printed_and_the_value_or_the_error(
    tmp_path: Path, run: CodeRun, logs: str
) -> None:
    rounds = Rounds(write_program("x"), say("Done."))
    async with running(tmp_path, rounds, **MODEL) as rig:
        rig.calculator.run = run
        body = await ask(rig)
    assert body["output"][0]["outputs"] == [{"type": "logs", "logs": logs}]
    assert body["output"][0]["status"] == "completed"
    assert rounds.read_messages(1)[-1]["content"].endswith(f": {logs}")


async def test_after_the_last_program_the_model_has_to_answer(tmp_path: Path) -> None:
    rounds = Rounds(write_program("1"), write_program("2"), say("Done."))
    async with running(tmp_path, rounds, **MODEL) as rig:
        body = await ask(rig, max_tool_calls=2)
    assert [rounds.list_options(number) for number in range(3)] == [["code_interpreter", "content"]] * 2 + [["content"]]
    assert rounds.read_messages(2)[-1]["content"].endswith(LAST_ONE)
    assert [item["type"] for item in body["output"]] == ["code_interpreter_call"] * 2 + ["message"]


async def test_an_engine_that_asks_for_a_program_beyond_the_last_one_gets_none(tmp_path: Path) -> None:
    async with running(tmp_path, Rounds(*[write_program("1")] * 9), **MODEL) as rig:
        body = await ask(rig)
        assert len(rig.calculator.programs) == 4
    assert (body["output"][-1]["type"], body["output"][-1]["content"][0]["text"]) == ("message", "")


@for_each(
    ("choice", "first"),
    {
        "auto": ("auto", ["weather", "code_interpreter", "content"]),
        "any": ("required", ["weather", "code_interpreter"]),
        "a program": ({"type": "code_interpreter"}, ["code_interpreter"]),
    },
)
async def test_a_choice_holds_for_the_first_round(tmp_path: Path, choice: Any, first: list[str]) -> None:
    call = json.dumps({"name": "weather", "arguments": {}})
    rounds = Rounds(write_program("1"), call)
    async with (
        running(tmp_path, rounds, **MODEL) as rig,
        rig.respond("Go", tools=[WEATHER, TOOL], tool_choice=choice) as response,
    ):
        body = await response.json()
    assert rounds.list_options(0) == first
    assert rounds.list_options(1) == ["weather", "code_interpreter", "content"]
    assert [item["type"] for item in body["output"]] == ["code_interpreter_call", "function_call"]
    assert body["tool_choice"] == choice


@for_each("choice", {"none": "none", "another function": {"type": "function", "name": "weather"}})
async def test_a_choice_may_leave_the_tool_out(tmp_path: Path, choice: Any) -> None:
    rounds = Rounds('{"name":"weather","arguments":{}}')
    async with (
        running(tmp_path, rounds, **MODEL) as rig,
        rig.respond("Go", tools=[WEATHER, TOOL], tool_choice=choice) as response,
    ):
        assert response.status == 200
    assert "code_interpreter" not in json.dumps(rounds.asked)


@for_each(
    ("fields", "status", "code", "message"),
    {
        "twice": ({"tools": [TOOL, TOOL]}, 400, "invalid_value", "tools[1]: is a second code_interpreter; send one"),
        "a container by its id": (
            {"tools": [{"type": "code_interpreter", "container": "cntr_1"}]},
            400,
            "invalid_value",
            'tools[0].container: \'cntr_1\': no container is kept between requests; send {"type": "auto"}',
        ),
        "a container of another kind": (
            {"tools": [{"type": "code_interpreter", "container": {"type": "mine"}}]},
            400,
            "invalid_value",
            "tools[0].container.type: 'mine' is not one of auto",
        ),
        "files": (
            {"tools": [{"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["file_1"]}}]},
            400,
            "unsupported_parameter",
            "tools[0].container.file_ids: is not supported; leave it out, or send []",
        ),
        "another field": (
            {"tools": [{"type": "code_interpreter", "interpreter": "/bin/sh"}]},
            400,
            "unsupported_parameter",
            "tools[0].interpreter: is not a known field; leave it out",
        ),
        "too many rounds": (
            {"tools": [TOOL], "max_tool_calls": 9},
            400,
            "invalid_value",
            "max_tool_calls: 9 is not between 1 and 8",
        ),
        "a function of its name": (
            {"tools": [TOOL, {**WEATHER, "name": "code_interpreter"}]},
            400,
            "invalid_value",
            "tools: a function has the name of the tool code_interpreter; rename it",
        ),
        "a schema besides": (
            {"tools": [TOOL], "text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}}}},
            400,
            "unsupported_parameter",
            "text.format: cannot be held together with tools; send one of them",
        ),
        "math_mode besides": (
            {"tools": [TOOL], "math_mode": True},
            400,
            "unsupported_parameter",
            "math_mode: cannot be held together with tools; send one of them",
        ),
    },
)
async def test_what_cannot_be_held_is_refused(
    tmp_path: Path, fields: dict[str, Any], status: int, code: str, message: str
) -> None:
    async with running(tmp_path, Rounds(), **MODEL) as rig, rig.respond("Go", **fields) as response:
        error = (await response.json())["error"]
        assert (response.status, error["code"], error["message"]) == (status, code, message)
        assert not rig.ledger.settled
        assert not rig.ledger.open


@for_each(
    ("tools", "choice", "message"),
    {
        "no tool": ([], {"type": "code_interpreter"}, "code_interpreter is not one of the tools; add it to tools"),
        "another tool": (
            [WEATHER],
            {"type": "code_interpreter"},
            "code_interpreter is not one of the tools; add it to tools",
        ),
        "another choice": (
            [TOOL],
            {"type": "function", "name": "weather"},
            'names none of the tools; send "auto", or {"type": "code_interpreter"}',
        ),
    },
)
async def test_a_choice_of_a_tool_that_is_not_there_is_named(
    tmp_path: Path, tools: list[Any], choice: Any, message: str
) -> None:
    async with (
        running(tmp_path, Rounds(), **MODEL) as rig,
        rig.respond("Go", tools=tools, tool_choice=choice) as response,
    ):
        error = (await response.json())["error"]
    assert (response.status, error["message"]) == (400, f"tool_choice: {message}")


@for_each("has_calculator", {"no calculator": False, "a calculator that runs no code": True})
async def test_a_gateway_that_runs_no_code_says_who_can_change_that(tmp_path: Path, has_calculator: bool) -> None:
    calculator = FakeCalculator(runs_code=False)
    async with serving(FakeTriton(Rounds())) as pod:
        given = {"calculator": calculator} if has_calculator else {"has_calculator": False}
        async with running_before(tmp_path, pod, **given, **MODEL) as rig, rig.respond("Go", tools=[TOOL]) as response:
            error = (await response.json())["error"]
    assert (response.status, error["code"], error["param"]) == (503, "code_interpreter_not_configured", "tools[0]")
    assert error["message"].startswith("tools[0]: this gateway runs no code. Leave the tool out, or ask the platform")
    assert "spec.gateway.codeInterpreter: true" in error["message"]


async def test_a_chat_names_the_endpoint_that_has_the_tool(tmp_path: Path) -> None:
    async with running(tmp_path, Rounds(), **MODEL) as rig, rig.chat(tools=[TOOL]) as response:
        message = (await response.json())["error"]["message"]
    assert message.endswith("only function is; code_interpreter is a tool of POST /v1/responses")


async def test_an_engine_without_conversations_is_named(tmp_path: Path) -> None:
    async with (
        running(tmp_path, Rounds(), capabilities=["response_schema"]) as rig,
        rig.respond("Go", tools=[TOOL]) as response,
    ):
        error = (await response.json())["error"]
    assert (response.status, error["param"]) == (400, "tools")
    assert "the engine of credit takes no conversation; leave code_interpreter out" in error["message"]


@for_each(
    ("code", "reported", "outcome"),
    {
        "too long": (FailureCode.TIME_LIMIT, "code_time_limit", "limit"),
        "too much output": (FailureCode.LIMIT, "code_limit", "limit"),
        "too much memory": (FailureCode.MEMORY_LIMIT, "code_memory_limit", "limit"),
        "a busy calculator": (FailureCode.BUSY, "calculator_busy", "unavailable"),
        "a crash": (FailureCode.FAILED, "code_failed", "unavailable"),
    },
)
async def test_a_program_without_a_result_ends_in_an_answer(
    tmp_path: Path, code: FailureCode, reported: str, outcome: str
) -> None:
    rounds = Rounds(write_program("x"), say("It cannot be said."))
    async with running(tmp_path, rounds, **MODEL) as rig:
        rig.calculator.fail(code, "it cannot; print less")
        body = await ask(rig)
        assert rig.metric("r1plus_gateway_code_runs_total", model="credit", key="alice", outcome=outcome) == 1
    call, message = body["output"]
    assert (call["status"], message["content"][0]["text"]) == ("failed", "It cannot be said.")
    assert body["r1plus"]["code"][0]["failure"] == {"code": reported, "message": "it cannot; print less"}
    assert rounds.read_messages(1)[-1]["content"].endswith("The program has no result: it cannot; print less")


@for_each("is_streamed", {"as a whole": False, "as a stream": True})
async def test_a_program_with_a_lone_surrogate_fails_and_the_answer_goes_on(tmp_path: Path, is_streamed: bool) -> None:
    program = r'{"name":"code_interpreter","arguments":{"code":"print(\"\ud83d\ude00 \\ud800 \ud800\")"}}'
    rounds = Rounds(program, say("It cannot be run."), say("Yes."))
    async with running(tmp_path, rounds, **MODEL) as rig:
        async with rig.respond("Go", tools=[TOOL], stream=is_streamed) as response:
            body = (await read_typed_events(response))[-2]["response"] if is_streamed else await response.json()
        assert not rig.calculator.programs
        assert rig.metric("r1plus_gateway_code_runs_total", model="credit", key="alice", outcome="limit") == 1
        async with rig.respond([*body["output"], {"role": "user", "content": "Sure?"}]) as response:
            assert response.status == 200, await response.text()
    call, message = body["output"]
    failure = body["r1plus"]["code"][0]["failure"]
    assert (call["code"], call["status"]) == ('print("\N{GRINNING FACE} \\ud800 \N{REPLACEMENT CHARACTER}")', "failed")
    assert (failure["code"], failure["message"]) == ("code_invalid_request", f"code: {LONE_SURROGATE}")
    assert call["outputs"][0]["logs"] == f"The program has no result: code: {LONE_SURROGATE}"
    assert rounds.read_messages(1)[-1]["content"].endswith(LONE_SURROGATE)
    assert rounds.read_messages(2)[:2] == rounds.read_messages(1)[2:]
    assert message["content"][0]["text"] == "It cannot be run."


@for_each(
    ("answer", "kind", "text"),
    {
        "a text": (r'{"content":"a\ud800b"}', "message", "a\N{REPLACEMENT CHARACTER}b"),
        "a call of a function": (
            r'{"name":"weather","arguments":{"city":"\ud800"}}',
            "function_call",
            '{"city":"\N{REPLACEMENT CHARACTER}"}',
        ),
    },
)
async def test_another_answer_with_a_lone_surrogate_has_a_replacement_character(
    tmp_path: Path, answer: str, kind: str, text: str
) -> None:
    for tools in ([WEATHER, TOOL], [WEATHER]):
        async with (
            running(tmp_path, Rounds(answer), **MODEL) as rig,
            rig.respond("Go", tools=tools) as response,
        ):
            (item,) = (await response.json())["output"]
        assert item["type"] == kind
        assert (item["arguments"] if kind == "function_call" else item["content"][0]["text"]) == text


async def test_a_client_that_sends_a_lone_surrogate_is_told_what_to_send(tmp_path: Path) -> None:
    body = (
        rb'{"model":"credit","input":[{"type":"code_interpreter_call","code":"\ud800"},{"role":"user","content":"Go"}]}'
    )
    async with running(tmp_path, Rounds(), **MODEL) as rig, rig.post("/v1/responses", body) as response:
        error = (await response.json())["error"]
    assert (response.status, error["code"]) == (400, "invalid_json")
    assert error["message"].endswith(LONE_SURROGATE)


async def test_a_program_with_a_nul_can_be_sent_back(tmp_path: Path) -> None:
    async with running(tmp_path, Rounds(write_program("'a\0b'"), say("No."), say("Yes.")), **MODEL) as rig:
        body = await ask(rig)
        async with rig.respond([*body["output"], {"role": "user", "content": "Sure?"}]) as response:
            assert response.status == 200, await response.text()
        assert rig.calculator.programs == ["'a\0b'"]
    assert body["output"][0]["code"] == "'a\N{REPLACEMENT CHARACTER}b'"


async def test_programs_and_calculations_of_a_caller_share_its_places(tmp_path: Path) -> None:
    async with running(tmp_path, Rounds(write_program("x"), say("Later.")), **MODEL) as rig:
        with ExitStack() as places:
            for _ in range(MOST_AT_ONCE):
                places.enter_context(rig.assistant.desk.take_place("alice"))
            body = await ask(rig)
        assert not rig.calculator.programs
    failure = body["r1plus"]["code"][0]["failure"]
    assert failure["code"] == "calculator_busy"
    assert failure["message"].startswith("4 of your calculations and programs run already")


async def test_without_the_calculator_the_model_answers_all_the_same(tmp_path: Path) -> None:
    async with running(tmp_path, Rounds(write_program("x"), say("I do not know.")), **MODEL) as rig:
        rig.calculator.trouble = CalculatorUnavailableError("the calculator is away; try again later")
        body = await ask(rig)
    assert body["r1plus"]["code"][0]["failure"]["code"] == "calculator_unavailable"
    assert body["output"][1]["content"][0]["text"] == "I do not know."


async def test_a_program_that_no_calculator_takes_is_not_sent(tmp_path: Path) -> None:
    async with running(tmp_path, Rounds(write_program("x" * 20_000), say("No.")), **MODEL) as rig:
        body = await ask(rig)
        assert not rig.calculator.programs
    assert body["r1plus"]["code"][0]["failure"]["code"] == "code_limit"


async def test_the_model_reads_the_ends_of_a_long_output_and_the_client_all_of_it(tmp_path: Path) -> None:
    rounds = Rounds(write_program("x"), say("Long."))
    async with running(tmp_path, rounds, **MODEL) as rig:
        rig.calculator.run = CodeRun("a" * 4000 + "z" * 4000, "None", None)
        body = await ask(rig)
    assert len(body["output"][0]["outputs"][0]["logs"]) == 8000
    said = rounds.read_messages(1)[-1]["content"]
    assert said.endswith("a" * 256 + "\n[7488 bytes are left out]\n" + "z" * 256)


@for_each("is_streamed", {"as a whole": False, "as a stream": True})
@for_each("revision, evidence", {
    "another revision": ("credit-2", (None, None, "unverified")),
    "another pod of that revision": ("credit-1", ("credit-1", "sha256:0123456789abcdef", "Pass")),
})  # fmt: skip
async def test_an_answer_whose_rounds_two_revisions_answered_names_neither(
    tmp_path: Path, revision: str, evidence: tuple[Any, ...], is_streamed: bool
) -> None:
    rounds = Rounds(write_program("1"), say("Done."))
    revisions = [REVISION, {"name": "credit-2", "identity": "2d", "engineDigest": "fedcba9876543210"}]
    identity = {"credit-1": "1d", "credit-2": "2d"}[revision]
    async with AsyncExitStack() as stack:
        rig = await stack.enter_async_context(running(tmp_path, rounds, **MODEL, revisions=revisions))
        rig.calculator.gate = asyncio.Event()

        async def fetch() -> tuple[Any, Any]:
            """Return headers and body."""
            async with rig.respond("Go", tools=[TOOL], stream=is_streamed) as response:
                body = (await read_typed_events(response))[-2]["response"] if is_streamed else await response.json()
                return response.headers, body

        asked = asyncio.create_task(fetch())
        await eventually(lambda: rig.calculator.programs, "a program runs")
        await stack.enter_async_context(serving(FakeTriton(rounds), "127.0.0.2", rig.pod.port))
        monitor = await stack.enter_async_context(FakeMonitor().listen("127.0.0.2", rig.monitor.port))
        monitor.body = dumps(replace(REPORT, revision=revision, identity=identity))
        rig.addresses = frozenset({"127.0.0.2"})
        pool = rig.gateway.models.find("credit", ALICE)
        assert pool is not None
        await pool.refresh()
        rig.calculator.gate.set()
        headers, body = await asked
        await rig.until_settled()
    assert tuple(body["r1plus"][name] for name in ("revision", "engine_digest", "verdict")) == evidence
    if not is_streamed:
        assert headers.get("x-r1plus-revision") == evidence[0]
    settled = rig.ledger.settled[0].evidence
    assert settled is not None and settled.revision == revision, "the audit log names what answered last"


async def test_each_round_reserves_its_tokens_before_it_begins(tmp_path: Path) -> None:
    rounds = Rounds(write_program("1"), write_program("2"), say("Done."), tokens=20)
    counter = PromptCounter(100)
    capabilities = [*MODEL["capabilities"], "count_only"]
    async with running(tmp_path, rounds, capabilities=capabilities) as rig:
        rig.pod.count_tokens = counter
        body = await ask(rig, max_output_tokens=300)
        await rig.until_settled()
        (settled,) = rig.ledger.settled
    # 7 of the prompt and 20 of the answer were used of each earlier round; its limit is for all rounds together.
    assert rig.ledger.extended == [7 + 20 + 100 + 280 - 400, 2 * 27 + 100 + 260 - 407]
    assert (settled.reservation.tokens, settled.outcome) == (414, Outcome.ANSWERED)
    assert (settled.usage.prompt_tokens, settled.usage.completion_tokens) == (21, 60)
    assert (body["usage"]["input_tokens"], body["usage"]["output_tokens"]) == (21, 60)
    assert [inputs["max_new_tokens"] for inputs in rounds.asked] == [300, 280, 260]


@for_each("is_streamed", {"as a whole": False, "as a stream": True})
async def test_a_budget_that_ends_between_two_rounds_ends_the_answer(tmp_path: Path, is_streamed: bool) -> None:
    rounds = Rounds(write_program("1"), say("Done."))
    async with running(tmp_path, rounds, **MODEL) as rig:
        rig.ledger.extension_refusal = AccessError(429, "insufficient_quota", "Key alice: no budget is left")
        async with rig.respond("Go", tools=[TOOL], stream=is_streamed) as response:
            if is_streamed:
                *_, error, failed, _ = [*await read_typed_events(response), None]
                assert (error["code"], failed["response"]["status"]) == ("insufficient_quota", "failed")
                assert [item["type"] for item in failed["response"]["output"]] == ["code_interpreter_call"]
                assert [run["output"] for run in failed["response"]["r1plus"]["code"]] == ["42\n"]
                assert failed["response"]["usage"]["total_tokens"] == 12
            else:
                assert (response.status, (await response.json())["error"]["code"]) == (429, "insufficient_quota")
        await rig.until_settled()
        (settled,) = rig.ledger.settled
    assert (len(rounds.asked), settled.outcome, settled.usage.completion_tokens) == (1, Outcome.FAILED, 5)


async def test_a_stream_that_ends_at_its_budget_says_all_that_was_used(tmp_path: Path) -> None:
    rounds = Rounds(write_program("1"), write_program("2"))
    async with running(tmp_path, rounds, **MODEL) as rig:
        rig.calculator.gate = asyncio.Event()
        async with rig.respond("Go", tools=[TOOL], stream=True) as response:
            await eventually(lambda: len(rig.calculator.programs) == 1, "the first program runs")
            rig.calculator.gate.set()
            rig.calculator.gate = asyncio.Event()
            await eventually(lambda: len(rig.calculator.programs) == 2, "the second program runs")
            rig.ledger.extension_refusal = AccessError(429, "insufficient_quota", "Key alice: no budget is left")
            rig.calculator.gate.set()
            *_, failed = await read_typed_events(response)
        await rig.until_settled()
        (settled,) = rig.ledger.settled
    assert failed["response"]["usage"]["total_tokens"] == 2 * (7 + 5)
    assert (settled.usage.prompt_tokens, settled.usage.completion_tokens) == (14, 10)


async def test_the_record_names_what_answered_where_no_later_round_began(tmp_path: Path) -> None:
    async with running(tmp_path, Rounds(write_program("1")), **MODEL) as rig:
        rig.calculator.gate = asyncio.Event()
        asking = asyncio.create_task(fetch_status(rig))
        await eventually(lambda: rig.calculator.programs, "the program runs")
        rig.model["name"] = "debit"
        rig.write_settings()
        rig.file.refresh()
        rig.calculator.gate.set()
        assert await asking == 503
        await rig.until_settled()
        (settled,) = rig.ledger.settled
    assert settled.evidence is not None
    assert (settled.evidence.revision, settled.usage.completion_tokens) == ("credit-1", 5)


async def test_callers_take_turns_with_their_programs(tmp_path: Path) -> None:
    async with running(tmp_path, Rounds(), **MODEL) as rig:
        rig.calculator.gate = asyncio.Event()
        run = rig.assistant.desk.run_code
        runs = [asyncio.create_task(run(f"{group}{number}", group)) for group in "abc" for number in range(2)]
        await eventually(lambda: len(rig.calculator.programs) == 2, "the calculator's places are taken")
        assert rig.calculator.programs == ["a0", "b0"]
        runs[1].cancel()
        rig.calculator.gate.set()
        await asyncio.wait(runs)
    assert rig.calculator.programs == ["a0", "b0", "c0", "b1", "c1"]


async def test_programs_of_one_caller_wait_for_one_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [write_program("1")] * (count := 2 * MOST_AT_ONCE) + [say("Done.")] * count
    async with running(tmp_path, Rounds(*answers), **MODEL) as rig:
        rig.calculator.gate = asyncio.Event()
        asking = [asyncio.create_task(ask(rig)) for _ in range(count)]
        await eventually(lambda: len(rig.pod.inputs) == count and rig.pod.running == 0, "all have a program")
        rig.calculator.gate.set()
        bodies = await asyncio.gather(*asking)
        assert [body["output"][0]["status"] for body in bodies] == ["completed"] * count
        rig.calculator.gate = asyncio.Event()
        monkeypatch.setattr(desk, "TURN_SECONDS", 0.0)
        first = asyncio.create_task(rig.assistant.desk.run_code("1", "alice"))
        await eventually(lambda: len(rig.calculator.programs) == count + 1, "the first one runs")
        with pytest.raises(desk.CallerBusyError, match="other programs have not ended in time"):
            await rig.assistant.desk.run_code("2", "alice")
        rig.calculator.gate.set()
        await first


async def test_a_context_that_the_programs_have_filled_is_named(tmp_path: Path) -> None:
    counts = iter((100, 1024))
    async with running(
        tmp_path, Rounds(write_program("1")), capabilities=[*MODEL["capabilities"], "count_only"]
    ) as rig:
        rig.pod.count_tokens = lambda _: next(counts)
        async with rig.respond("Go", tools=[TOOL]) as response:
            error = (await response.json())["error"]
        await rig.until_settled()
    assert (response.status, error["code"], error["param"]) == (400, "context_length_exceeded", "tools")
    assert (
        "have 1024 tokens with the prompt, and the context has 1024; ask for programs that print less"
        in error["message"]
    )


async def test_a_context_that_an_engine_without_counts_finds_full_is_named(tmp_path: Path) -> None:
    too_long = fail(grpc.StatusCode.INVALID_ARGUMENT, "messages: prompt has 1030 tokens; the context of 1024")

    async def run_once(inputs: Inputs) -> AsyncIterator[Piece]:
        if "messages" in inputs:
            async for piece in too_long(inputs):
                yield piece
        yield Piece(write_program("1"), 5, finish_reason="stop")

    async with running(tmp_path, run_once, **MODEL) as rig, rig.respond("Go", tools=[TOOL]) as response:
        error = (await response.json())["error"]
    assert (response.status, error["code"], error["param"]) == (400, "context_length_exceeded", "tools")


@for_each("where", {"while a program runs": "program", "in a later round": "round"})
async def test_a_client_that_leaves_frees_slot_and_program_and_pays_what_was_used(tmp_path: Path, where: str) -> None:
    rounds = Rounds(write_program("1"), say("Done."))
    async with running(tmp_path, rounds, **MODEL) as rig:
        if where == "program":
            rig.calculator.gate = asyncio.Event()
        else:
            rounds.gate = asyncio.Event()
        asking = asyncio.create_task(ask(rig))
        ready = (lambda: rig.calculator.programs) if where == "program" else (lambda: len(rounds.asked) == 2)
        await eventually(ready, "the answer is in its middle")
        asking.cancel()
        await rig.until_settled()
        await rig.until_running(0)
        (settled,) = rig.ledger.settled
        assert rig.assistant.desk._places._taken == {}
    assert (settled.outcome, settled.usage.completion_tokens) == (Outcome.CANCELLED, 5)


async def test_a_client_that_leaves_a_stream_ends_the_program_that_runs(tmp_path: Path) -> None:
    async with running(tmp_path, Rounds(write_program("1")), **MODEL) as rig:
        rig.calculator.gate = asyncio.Event()
        async with rig.respond("Go", tools=[TOOL], stream=True) as response:
            await read_until(response, b"response.code_interpreter_call.interpreting")
            await eventually(lambda: rig.calculator.programs, "the program runs")
            response.close()
        await rig.until_settled()
        await eventually(lambda: rig.assistant.desk._places._taken == {}, "the program's place is free")
        (settled,) = rig.ledger.settled
    assert (settled.outcome, settled.usage.completion_tokens) == (Outcome.CANCELLED, 5)


async def test_an_answer_that_is_cut_shows_its_text_and_no_schema(tmp_path: Path) -> None:
    async with running(
        tmp_path, Rounds(write_program("1"), '{"content": "It is 4', finish_reason="length"), **MODEL
    ) as rig:
        body = await ask(rig)
    assert (body["status"], body["output"][1]["content"][0]["text"]) == ("incomplete", "It is 4")


async def test_programs_that_use_up_the_limit_leave_no_round_to_answer(tmp_path: Path) -> None:
    rounds = Rounds(write_program("1"), write_program("2"), say("Done."), tokens=20)
    async with running(tmp_path, rounds, **MODEL) as rig:
        body = await ask(rig, max_output_tokens=40)
    assert len(rounds.asked) == 2
    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert [item["type"] for item in body["output"]] == ["code_interpreter_call"] * 2 + ["message"]
    assert body["output"][-1]["content"][0]["text"] == ""


@for_each(
    ("answer", "text"),
    {
        "within a word": ('{"content": "It is 4', "It is 4"),
        "within an escape": ('{"content":"a\\', "a"),
        "within a letter": ('{"content":"a\\u00e', "a"),
        "after a letter": ('{"content":"\\u00e4 \\ud55c', "ä 한"),
        "within a pair": ('{"content":"a\\ud83d', "a"),
        "whole": ('{"content":"a"}', "a"),
        "a program": ('{"name":"code_interpreter","arguments":{"code":"pri', ""),
        "nothing": ("", ""),
    },
)
def test_text_is_read_up_to_its_cut(answer: str, text: str) -> None:
    assert read_cut_text(answer) == text


async def test_a_past_program_can_be_sent_back_and_reads_as_it_did(tmp_path: Path) -> None:
    rounds = Rounds(write_program("print(6 * 7)"), say("It is 42."), say("Yes."))
    async with running(tmp_path, rounds, **MODEL) as rig:
        body = await ask(rig)
        items = [{"role": "user", "content": "6 * 7?"}, *body["output"], {"role": "user", "content": "Sure?"}]
        async with rig.respond(items, tools=[TOOL]) as response:
            assert response.status == 200
    assert rounds.read_messages(2)[:4] == rounds.read_messages(1)
    assert [entry["content"] for entry in rounds.read_messages(2)[4:]] == ["It is 42.", "Sure?"]


async def test_a_past_program_reads_no_longer_than_while_it_answered(tmp_path: Path) -> None:
    rounds = Rounds(write_program("x"), say("Long."), say("Yes."))
    async with running(tmp_path, rounds, **MODEL) as rig:
        rig.calculator.run = CodeRun("a" * 8000, "None", None)
        body = await ask(rig)
        async with rig.respond([*body["output"], {"role": "user", "content": "Sure?"}]) as response:
            assert response.status == 200
    assert rounds.read_messages(2)[1] == rounds.read_messages(1)[-1]


async def test_a_program_without_code_and_a_nul_that_is_printed_can_be_sent_back(tmp_path: Path) -> None:
    rounds = Rounds(write_program(""), write_program("print(chr(0))"), say("Odd."), say("Yes."))
    async with running(tmp_path, rounds, **MODEL) as rig:
        rig.calculator.run = CodeRun("a\0b\n", "None", None)
        body = await ask(rig)
        async with rig.respond([*body["output"], {"role": "user", "content": "Sure?"}]) as response:
            assert response.status == 200, await response.text()
    assert body["output"][1]["outputs"] == [{"type": "logs", "logs": "a\N{REPLACEMENT CHARACTER}b\n"}]
    assert body["r1plus"]["code"][1]["output"] == "a\0b\n"


@for_each(
    ("item", "message"),
    {
        "without code": ({}, "input[0].code: is missing or empty"),
        "other outputs": (
            {"code": "1", "outputs": [{"type": "image", "url": "x"}]},
            "input[0].outputs[0]: expected an object of type logs with a text",
        ),
        "outputs with another field": (
            {"code": "1", "outputs": [{"type": "logs", "logs": "1", "files": []}]},
            "input[0].outputs[0].files: is not a known field; leave it out",
        ),
    },
)
async def test_a_past_program_of_another_form_is_refused(tmp_path: Path, item: dict[str, Any], message: str) -> None:
    items = [{"type": "code_interpreter_call", **item}, {"role": "user", "content": "Go"}]
    async with running(tmp_path, Rounds(), **MODEL) as rig, rig.respond(items) as response:
        assert (response.status, (await response.json())["error"]["message"]) == (400, message)


async def serve_real(tmp_path: Path, script: Script) -> Any:
    """Return the answer of a gateway whose calculator is the real one, with its interpreter."""
    async with running_patient_interpreter(tmp_path) as path, serving(FakeTriton(script)) as pod:
        calculator = SocketCalculator(str(path), answer_seconds=120, runs_code=True)
        async with running_before(tmp_path, pod, calculator=calculator, **MODEL) as rig:
            return await ask(rig)


async def test_the_real_interpreter_runs_what_the_model_has_written(tmp_path: Path) -> None:
    rounds = Rounds(
        write_program("print(sum(range(10)))\n'ready'"),
        write_program("1 / 0"),
        write_program("open('/etc/passwd').read()"),
        write_program("while True:\n    print('x' * 100)"),
        say("Done."),
    )
    body = await serve_real(tmp_path, rounds)
    first, second, third, fourth = body["r1plus"]["code"]
    assert (first["output"], first["value"], first["error"]) == ("45\n", "ready", None)
    assert second["error"].endswith("ZeroDivisionError: division by zero")
    assert "NotImplementedError" in third["error"] or "PermissionError" in third["error"]
    assert fourth["failure"]["code"] == "code_limit"
    assert body["output"][-1]["content"][0]["text"] == "Done."


@pytest.mark.parametrize("reply", [CodeRun("x" * 17_000, None, None), CodeRun("", "x" * 9_000, None)])
async def test_a_calculator_that_was_taken_over_sends_no_more_than_one_may(tmp_path: Path, reply: CodeRun) -> None:
    async def answer(_: bytes) -> bytes:
        return dumps(CalculatorReply(run=reply)).encode()

    async with serve_frames(tmp_path / "calculator.sock", answer, 1 << 16):
        with pytest.raises(CalculatorUnavailableError, match="not understood"):
            await SocketCalculator(str(tmp_path / "calculator.sock"), runs_code=True).run_code("1")


@pytest.mark.unit_slow
async def test_a_stored_answer_is_continued_with_its_programs_and_memory_leaves_them_out(tmp_path: Path) -> None:
    prompts: list[Any] = []

    async def write_once(inputs: Inputs) -> AsyncIterator[Piece]:
        """Write a program for the first question alone, then say what came last."""
        prompts.append(json.loads(inputs["messages"]) if "messages" in inputs else [{"content": inputs["text_input"]}])
        last = prompts[-1][-1]["content"]
        yield Piece(write_program("6 * 7") if last == "6 * 7?" else say(last.rpartition(": ")[2]), 1)
        yield Piece("", 1, finish_reason="stop")

    fields: dict[str, Any] = {"model": "credit", "tools": [TOOL]}
    settings = {"data": {"contentDays": 30}}
    async with (
        running_patient_interpreter(tmp_path) as calculator,
        serving(FakeTriton(write_once)) as pod,
        running_process(tmp_path, pod, settings, calculator=calculator, runs_code=True, **MODEL) as gateway,
        openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=await gateway.create_key(), max_retries=0) as client,
    ):
        talk = await client.conversations.create()
        first = await client.responses.create(**fields, input="6 * 7?", conversation=talk.id)
        stored = await client.responses.retrieve(first.id)
        items = (await client.conversations.items.list(talk.id, order="asc")).data
        await client.responses.create(**fields, input="Sure?", previous_response_id=first.id)
        memory = {"memory": {"enabled": True, "budget_tokens": 200}}
        await client.responses.create(**fields, input="Sure?", conversation=talk.id, extra_body=memory)
    assert [item.type for item in first.output] == ["code_interpreter_call", "message"]
    assert (first.output_text, stored.output) == ("42", first.output)
    assert [item.type for item in items] == ["message", "code_interpreter_call", "message"]
    program, outputs = items[1].model_dump(include={"code"}), items[1].model_dump()["outputs"]
    assert (program, outputs) == ({"code": "6 * 7"}, [{"type": "logs", "logs": "42"}])
    assert prompts[2][1:-2] == prompts[1][1:]
    assert [one["content"] for one in prompts[2][-2:]] == ["42", "Sure?"]
    assert not any("code_interpreter" in one["content"] for one in prompts[3][1:])


async def test_the_example_of_the_documentation_works_as_printed(tmp_path: Path) -> None:
    page = (TESTS.parent / "docs" / "code.md").read_text()
    _, _, example = page.partition("```python\n")
    rounds = Rounds(write_program("print(338350)"), say("It is 338350."))
    async with running(tmp_path, rounds, **MODEL) as rig:
        rig.calculator.run = CodeRun("338350\n", "None", None)
        environment = {**os.environ, "OPENAI_BASE_URL": f"{rig.url}/v1", "OPENAI_API_KEY": KEY}
        command = (sys.executable, "-c", example.partition("```")[0])
        process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.PIPE)
        output, _ = await process.communicate()
    assert output.decode() == "print(338350)\n338350\n\nIt is 338350.\n"
    assert rounds.list_options(0) == ["code_interpreter"]
