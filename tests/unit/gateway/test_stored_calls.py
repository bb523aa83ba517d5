"""Stored answers with programs and calls: what is stored is what the client got, and each output is stored once."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from r1plus_assistant.code.code_interpreter import build_call_item
from r1plus_assistant.responses.stored_programs import read_runs, refer_to_logs
from r1plus_contract.calculator import CodeRun, FailureCode
from r1plus_gateway.http.schemas.code_tool import CodeCall, CodeFailure
from r1plus_gateway.store.content.content import StoredResponse
from support.gateway.access import ALICE
from support.gateway.content import make_content
from support.gateway.fake_triton import Inputs, Piece, answer
from support.gateway.rig import Rig, read_typed_events, running
from support.gateway.tenant_data import Volume
from support.tables import for_each

MODEL: dict[str, Any] = {"capabilities": ["messages", "response_schema"]}
TOOL = {"type": "code_interpreter"}
PRINTED = "Stockholm has water. "


def build_answer(*calls: CodeCall) -> dict[str, Any]:
    """Return as much of an answer with these programs as is read of it."""
    output = [build_call_item(call, "completed") for call in calls]
    return {"id": "resp_1", "output": output, "r1plus": {"code": [call.describe() for call in calls]}}


@for_each(
    ("run", "copies"),
    {
        "prints": (CodeRun(PRINTED, "None", None), 1),
        "prints and gives": (CodeRun("a", PRINTED, None), 1),
        "prints what it gives": (CodeRun(PRINTED, PRINTED, None), 2),
        "fails": (CodeRun("a\n", None, PRINTED), 1),
        "prints a line": (CodeRun(f"{PRINTED}\n", "7", None), 1),
        "prints nothing and gives nothing": (CodeRun("", "", None), 0),
        "prints a NUL, which no item has": (CodeRun(f"{PRINTED}\0", "None", None), 2),
    },
)
def test_an_answer_is_stored_with_each_text_once_and_read_as_it_was(run: CodeRun, copies: int) -> None:
    body = build_answer(CodeCall("ci_0", "x", run), CodeCall("ci_1", "y", CodeRun("7\n", "None", None)))
    stored = refer_to_logs(body)
    assert json.dumps(stored).count(PRINTED) == copies
    assert read_runs(json.loads(json.dumps(stored))) == body


def test_a_program_without_a_result_and_an_answer_without_programs_are_stored_as_they_are() -> None:
    body = build_answer(CodeCall("ci_0", "x", failure=CodeFailure("code_limit", "print less")))
    assert read_runs(refer_to_logs(body)) == body
    plain = {"output": [], "r1plus": {"verdict": "Pass"}}
    assert read_runs(refer_to_logs(plain)) == plain


class Conversation:
    """A script that writes a program for the first question alone; it keeps the messages of each round."""

    def __init__(self) -> None:
        self.prompts: list[list[dict[str, str]]] = []

    async def __call__(self, inputs: Inputs) -> AsyncIterator[Piece]:
        question = [{"role": "user", "content": inputs.get("text_input", "")}]
        self.prompts.append(json.loads(inputs["messages"]) if "messages" in inputs else question)
        is_first = self.prompts[-1][-1]["content"] == "Go"
        program = {"name": "code_interpreter", "arguments": {"code": "x"}}
        yield Piece(json.dumps(program if is_first else {"content": "Done."}), 1)
        yield Piece("", 1, finish_reason="stop")

    def count(self, text: str) -> list[int]:
        """Return how often each round's messages have a text."""
        return [json.dumps(messages).count(text) for messages in self.prompts]


async def ask(rig: Rig, question: str, **fields: Any) -> Any:
    """Return an answer with the tool `code_interpreter`, unless other tools are named."""
    async with rig.respond(question, **{"tools": [TOOL], **fields}) as response:
        if fields.get("stream"):
            *_, last, _ = await read_typed_events(response)
            return last["response"]
        body = await response.json()
        assert response.status == 200, body
        return body


async def begin_conversation(rig: Rig) -> str:
    async with rig.post("/v1/conversations", {}) as response:
        return str((await response.json())["id"])


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_the_model_reads_an_output_of_a_continued_answer_once(tmp_path: Path, is_streamed: bool) -> None:
    volume, script = Volume(tmp_path / "volume").make(), Conversation()
    async with volume.open() as store, running(tmp_path, script, store=store, **MODEL) as rig:
        rig.calculator.run = CodeRun("", PRINTED, None)
        talk = await begin_conversation(rig)
        first = await ask(rig, "Go", conversation=talk, stream=is_streamed)
        await ask(rig, "Sure?", previous_response_id=first["id"])
        await ask(rig, "Sure?", conversation=talk)
        async with rig.get(f"/v1/responses/{first['id']}") as response:
            assert await response.json() == first
        row = await make_content(store).read(ALICE, lambda one: one.find_response(first["id"]))
    assert row is not None
    assert json.dumps(row.answer).count(PRINTED) == 1
    assert first["r1plus"]["code"][0]["value"] == PRINTED
    assert script.count(PRINTED) == [0, 1, 1, 1]


async def test_a_program_without_a_result_is_failed_in_its_conversation_too(tmp_path: Path) -> None:
    volume, script = Volume(tmp_path / "volume").make(), Conversation()
    async with volume.open() as store, running(tmp_path, script, store=store, **MODEL) as rig:
        talk = await begin_conversation(rig)
        rig.calculator.fail(FailureCode.LIMIT)
        first = await ask(rig, "Go", conversation=talk)
        async with rig.post(f"/v1/conversations/{talk}/items", {"items": first["output"][:1]}) as response:
            assert response.status == 200
        async with rig.get(f"/v1/conversations/{talk}/items?order=asc") as response:
            items = (await response.json())["data"]
        await ask(rig, "Sure?", conversation=talk)
    assert [(item["type"], item["status"]) for item in items] == [
        ("message", "completed"),
        ("code_interpreter_call", "failed"),
        ("message", "completed"),
        ("code_interpreter_call", "failed"),
    ]
    assert script.count("The program has no result") == [0, 1, 2]


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_a_stored_call_of_a_function_has_the_id_that_the_client_got(tmp_path: Path, is_streamed: bool) -> None:
    volume = Volume(tmp_path / "volume").make()
    weather = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
    script = answer('{"name":"weather","arguments":{}}')
    async with volume.open() as store, running(tmp_path, script, store=store, **MODEL) as rig:
        talk = await begin_conversation(rig)
        first = await ask(rig, "Go", tools=[weather], conversation=talk, stream=is_streamed)
        async with rig.get(f"/v1/responses/{first['id']}") as response:
            assert await response.json() == first
        async with rig.get(f"/v1/conversations/{talk}/items") as response:
            call, _ = (await response.json())["data"]
    assert call["call_id"] == first["output"][0]["call_id"]


async def test_an_answer_that_an_earlier_release_has_stored_is_shown_and_continued(tmp_path: Path) -> None:
    volume, script = Volume(tmp_path / "volume").make(), Conversation()
    body = build_answer(CodeCall("ci_0", "x", CodeRun("", PRINTED, None)))
    earlier = StoredResponse("resp_1", "", [], body)
    async with volume.open() as store, running(tmp_path, script, store=store, **MODEL) as rig:
        await make_content(store).write(ALICE, lambda one: one.store_response(earlier))
        async with rig.get("/v1/responses/resp_1") as response:
            assert await response.json() == body
        await ask(rig, "Sure?", previous_response_id="resp_1")
    assert script.count(PRINTED) == [1]
