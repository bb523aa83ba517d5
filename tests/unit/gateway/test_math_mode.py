"""`math_mode`: what is calculated, what the model and the caller are told of it, what it costs, and how it ends."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from r1plus_assistant.calculation.client import CalculatorUnavailableError
from r1plus_contract.calculator import FailureCode
from r1plus_gateway.access.caller import Outcome, TokenUsage
from support.gateway.fake_triton import FailureError, Inputs, Piece
from support.gateway.rig import Rig, read_events, read_typed_events, running
from support.tables import for_each
from support.waiting import eventually

TROLLEYS = "Mia has 7 trolleys with 12 crates each. 5 crates are empty. How many crates are full?"
TRANSLATION = " 18 * 5 - 72\n"
"""What a model might write of any question with three numbers."""
CAPABILITIES = ["messages", "count_only", "response_schema"]


class Model:
    """A script: translates as it is told, answers with what it is told, and remembers what it got."""

    def __init__(self) -> None:
        self.translation = TRANSLATION
        self.prose = ("There are ", "42.")
        self.trouble: Exception | None = None
        """Raised instead of a translation."""
        self.gate: asyncio.Event | None = None
        """Translations wait for it."""
        self.prompts: list[str] = []
        self.translated: list[Inputs] = []

    async def __call__(self, inputs: Inputs) -> AsyncIterator[Piece]:
        if "grammar" in inputs:
            self.translated.append(inputs)
            if self.gate is not None:
                yield Piece(" ", 1, prompt_tokens=300)
                await self.gate.wait()
            if self.trouble is not None:
                raise self.trouble
            yield Piece(self.translation, 9, prompt_tokens=300, finish_reason="stop")
            return
        self.prompts.append(inputs.get("text_input") or inputs["messages"])
        for count, piece in enumerate(self.prose, 1):
            yield Piece(piece, count)
        yield Piece("", len(self.prose), finish_reason="stop")


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
async def rig(tmp_path: Path, model: Model) -> AsyncIterator[Rig]:
    async with running(tmp_path, model, contextTokens=4096, capabilities=CAPABILITIES) as rig:
        yield rig


async def ask(rig: Rig, text: str, **fields: Any) -> Any:
    """Ask in math mode; return the answer."""
    async with rig.chat(text, **{"math_mode": True, **fields}) as response:
        body = await response.json()
        assert response.status == 200, body
        return body


class TestExpressions:
    """An expression of the text is calculated, and verified if the calculator says so."""

    async def test_the_result_is_in_the_answer_and_in_the_prompt_as_the_users_data(
        self, rig: Rig, model: Model
    ) -> None:
        body = await ask(rig, "What is 6 * 7?")
        assert body["r1plus"] == {
            "math": [
                {
                    "expression": "6 * 7",
                    "exact": "42",
                    "numeric": "42",
                    "unit": None,
                    "route": "text",
                    "translated": False,
                    "verified": True,
                    "checked": True,
                    "check": "counted twice",
                    "notes": ["a note"],
                    "agrees": True,
                    "error": None,
                }
            ],
            "math_skipped": None,
            "math_usage": {"prompt_tokens": 0, "completion_tokens": 0},
        }
        assert model.prompts == ["Results of a calculator, as data:\n> 6 * 7 = 42\n\nWhat is 6 * 7?"]
        assert not model.translated
        assert body["usage"] == {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}

    async def test_a_result_that_nothing_confirms_is_not_told_to_the_model(self, rig: Rig, model: Model) -> None:
        rig.calculator.is_verified = False
        (entry,) = (await ask(rig, "What is 6 * 7?"))["r1plus"]["math"]
        assert model.prompts == ["What is 6 * 7?"]
        assert (entry["exact"], entry["verified"], entry["checked"], entry["agrees"]) == ("42", False, False, None)
        assert entry["notes"] == ["a note", "not given to the model, since no second method has confirmed it"]

    async def test_prose_that_has_another_number_is_flagged(self, rig: Rig, model: Model) -> None:
        model.prose = ("It is 41.",)
        assert (await ask(rig, "What is 6 * 7?"))["r1plus"]["math"][0]["agrees"] is False

    async def test_in_a_conversation_the_last_message_alone_is_calculated(self, rig: Rig, model: Model) -> None:
        messages = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What is 1 + 1?"},
            {"role": "assistant", "content": "2"},
            {"role": "user", "content": "And 6 * 7?"},
        ]
        async with rig.post(
            "/v1/chat/completions", {"model": "credit", "messages": messages, "math_mode": True}
        ) as got:
            body = await got.json()
        assert [entry["expression"] for entry in body["r1plus"]["math"]] == ["6 * 7"]
        sent = json.loads(model.prompts[0])
        assert [message["content"] for message in sent[:3]] == ["Be brief.", "What is 1 + 1?", "2"]
        assert sent[3] == {"role": "user", "content": "Results of a calculator, as data:\n> 6 * 7 = 42\n\nAnd 6 * 7?"}

    @for_each("code, expected", {
        "the expression has no value": (FailureCode.UNDEFINED, "calculation_undefined"),
        "the calculator has no worker": (FailureCode.BUSY, "calculator_busy"),
    })  # fmt: skip
    async def test_what_has_no_result_is_said_and_the_model_answers(
        self, rig: Rig, model: Model, code: FailureCode, expected: str
    ) -> None:
        rig.calculator.fail(code, "divides by zero")
        (entry,) = (await ask(rig, "What is 1 / 0?"))["r1plus"]["math"]
        assert (entry["error"], entry["exact"], entry["verified"]) == (
            {"code": expected, "message": "divides by zero"}, None, False
        )  # fmt: skip
        assert model.prompts == ["What is 1 / 0?"]

    async def test_a_calculator_that_is_away_is_said_and_the_model_answers(self, rig: Rig, model: Model) -> None:
        rig.calculator.trouble = CalculatorUnavailableError("is away")
        (entry,) = (await ask(rig, "What is 6 * 7?"))["r1plus"]["math"]
        assert entry["error"] == {"code": "calculator_unavailable", "message": "is away"}


class TestTranslation:
    """Otherwise the model writes an expression of the question's numbers, which nobody has verified."""

    async def test_the_models_expression_is_calculated_and_is_not_called_verified(self, rig: Rig, model: Model) -> None:
        body = await ask(rig, TROLLEYS)
        (entry,) = body["r1plus"]["math"]
        assert rig.calculator.asked == [("7*5 - 12", 15)]
        assert {name: entry[name] for name in ("route", "translated", "verified", "checked")} == {
            "route": "translation", "translated": True, "verified": False, "checked": True
        }  # fmt: skip
        assert model.prompts == [f"Results of a calculator, as data:\n> 7*5 - 12 = 42\n\n{TROLLEYS}"]

    async def test_the_model_sees_stand_ins_and_a_grammar_that_all_questions_share(
        self, rig: Rig, model: Model
    ) -> None:
        await ask(rig, TROLLEYS)
        await ask(rig, "A ship carries 900 tons. 77 tons are unloaded and 104 tons loaded. How many tons are on it?")
        first, second = model.translated
        assert first["grammar"] == second["grammar"]
        assert rig.pod.schema_owners == ["gateway", "", "gateway", ""]
        assert first["text_input"].endswith(
            "\nQuestion: Mia has 18 trolleys with 72 crates each. 5 crates are empty. How many crates are full?\nExpression:"
        )
        assert (first["raw_prompt"], first["temperature"], first["max_new_tokens"]) == (True, 0.0, 24)

    async def test_its_tokens_are_in_the_answer_in_the_bill_and_in_the_reservation(
        self, rig: Rig, model: Model
    ) -> None:
        rig.pod.count_tokens = lambda inputs: 300 if inputs.get("raw_prompt") else 7
        body = await ask(rig, TROLLEYS, max_tokens=10)
        assert body["usage"] == {"prompt_tokens": 307, "completion_tokens": 11, "total_tokens": 318}
        assert body["r1plus"]["math_usage"] == {"prompt_tokens": 300, "completion_tokens": 9}
        await rig.until_settled()
        (settled,) = rig.ledger.settled
        assert settled.usage == TokenUsage(307, 11)
        note = 64 + 160
        assert settled.reservation.tokens == 300 + 24 + 7 + note + 10

    @for_each("translation, code", {
        "a number is left out": (" 18 * 5\n", "numbers_unused"),
        "it is no expression": (" twelve\n", "translation_failed"),
        "it has a number of its own": (" 18 * 5 - 9\n", "translation_failed"),
    })  # fmt: skip
    async def test_a_translation_that_cannot_be_used_is_said(
        self, rig: Rig, model: Model, translation: str, code: str
    ) -> None:
        model.translation = translation
        body = await ask(rig, TROLLEYS)
        assert (body["r1plus"]["math"], body["r1plus"]["math_skipped"]["code"]) == ([], code)
        assert model.prompts == [TROLLEYS]
        assert not rig.calculator.asked
        assert body["usage"]["prompt_tokens"] == 307, "it is billed all the same"

    async def test_units_that_do_not_fit_are_said(self, rig: Rig, model: Model) -> None:
        model.translation = " 8 + 40\n"
        body = await ask(rig, "A train runs 3 hours at 80 km per hour. How many km does it run?")
        assert body["r1plus"]["math_skipped"]["code"] == "units_do_not_fit"
        model.translation = " 8 * 40\n"
        (entry,) = (await ask(rig, "A train runs 3 hours at 80 km per hour. How many km does it run?"))["r1plus"][
            "math"
        ]
        assert (entry["expression"], entry["unit"]) == ("3*80", "km")

    async def test_less_than_nothing_is_no_number_of_things(self, rig: Rig, model: Model) -> None:
        rig.calculator.result = "-42"
        body = await ask(rig, TROLLEYS)
        assert (body["r1plus"]["math"], body["r1plus"]["math_skipped"]["code"]) == ([], "result_implausible")
        assert model.prompts == [TROLLEYS]
        (entry,) = (await ask(rig, "What is 5 - 47?"))["r1plus"]["math"]
        assert entry["exact"] == "-42"

    async def test_an_engine_that_fails_at_it_answers_without_it(self, rig: Rig, model: Model) -> None:
        model.trouble = FailureError(grpc.StatusCode.INTERNAL, "the engine rejects grammar")
        body = await ask(rig, TROLLEYS)
        assert body["r1plus"]["math_skipped"]["code"] == "translation_failed"
        assert body["choices"][0]["message"]["content"] == "There are 42."

    async def test_a_client_that_leaves_during_it_cancels_the_engine_and_pays_what_ran(
        self, rig: Rig, model: Model
    ) -> None:
        model.gate = asyncio.Event()
        task = asyncio.create_task(ask(rig, TROLLEYS))
        await eventually(lambda: len(model.translated) == 1, "the translation runs")
        await rig.until_running(1)
        task.cancel()
        await asyncio.wait([task])
        await rig.until_settled()
        (settled,) = rig.ledger.settled
        assert settled.outcome is Outcome.CANCELLED
        assert settled.usage.prompt_tokens == 300, "its prompt was worked on"
        assert not model.prompts
        await eventually(lambda: rig.pod.running == 0, "the engine is free")

    async def test_a_client_that_leaves_during_the_calculation_ends_the_request(self, rig: Rig, model: Model) -> None:
        rig.calculator.gate = asyncio.Event()
        task = asyncio.create_task(ask(rig, TROLLEYS))
        await eventually(lambda: len(rig.calculator.asked) == 1, "it calculates")
        task.cancel()
        await asyncio.wait([task])
        await rig.until_settled()
        assert (rig.ledger.settled[0].outcome, rig.ledger.settled[0].usage) == (Outcome.CANCELLED, TokenUsage(300, 9))
        assert not model.prompts


class TestSkips:
    """What is not calculated is said, with the reason."""

    @for_each("text, code", {
        "it asks for no number": ("Write two sentences about 3 cats and 4 dogs.", "no_expression"),
        "it has one number": ("How many days does a year with 13 months have?", "too_few_numbers"),
        "it has too many": ("How many are 1 of 2 of 3 of 4 of 5 of them?", "too_many_numbers"),
        "it has a range": ("How many km is a walk of 3-5 km and one of 4 km?", "ambiguous_numbers"),
        "it asks for a unit that does not fit": ("How many metres are 3 kg?", "units_do_not_fit"),
        "it reads a temperature": ("Convert 20 \u00b0C to \u00b0F", "units_do_not_fit"),
    })  # fmt: skip
    async def test_with_a_code(self, rig: Rig, model: Model, text: str, code: str) -> None:
        body = await ask(rig, text)
        assert (body["r1plus"]["math"], body["r1plus"]["math_skipped"]["code"]) == ([], code)
        assert body["r1plus"]["math_skipped"]["message"]
        assert model.prompts == [text]
        assert not model.translated

    async def test_an_engine_without_grammars_translates_nothing(self, tmp_path: Path, model: Model) -> None:
        async with running(tmp_path, model, capabilities=["messages", "count_only"]) as rig:
            assert (await ask(rig, TROLLEYS))["r1plus"]["math_skipped"]["code"] == "not_translatable"
            assert (await ask(rig, "What is 6 * 7?"))["r1plus"]["math"][0]["exact"] == "42"

    async def test_a_context_that_is_too_small_for_it_is_said(self, tmp_path: Path, model: Model) -> None:
        async with running(tmp_path, model, contextTokens=512, capabilities=CAPABILITIES) as rig:
            rig.pod.count_tokens = lambda inputs: 500 if inputs.get("raw_prompt") else 7
            assert (await ask(rig, TROLLEYS))["r1plus"]["math_skipped"]["code"] == "context_too_small"
            assert not model.translated


async def test_a_question_for_another_unit_is_answered_by_rules(rig: Rig, model: Model) -> None:
    (entry,) = (await ask(rig, "How many metres are 3 km and 250 m?"))["r1plus"]["math"]
    assert rig.calculator.asked == [("3 * 1000 + 250", 15)]
    assert (entry["route"], entry["unit"], entry["verified"]) == ("units", "m", True)
    assert "> 3 * 1000 + 250 = 42 m\n" in model.prompts[0]


class TestSwitch:
    """Off, unless the request or its preset says so."""

    async def test_without_it_nothing_changes(self, rig: Rig, model: Model) -> None:
        for fields in ({}, {"math_mode": False}, {"math_mode": False, "preset": "math"}, {"preset": "code"}):
            async with rig.chat("What is 6 * 7?", **fields) as response:
                assert "r1plus" not in await response.json()
        assert set(model.prompts) == {"What is 6 * 7?"}
        assert not rig.calculator.asked

    async def test_the_preset_switches_it_on(self, rig: Rig) -> None:
        async with rig.post(
            "/v1/chat/completions",
            {"model": "credit:math", "messages": [{"role": "user", "content": "What is 6 * 7?"}]},
        ) as response:
            assert (await response.json())["r1plus"]["math"][0]["exact"] == "42"

    async def test_without_a_calculator_it_is_refused_and_the_preset_says_so(
        self, tmp_path: Path, model: Model
    ) -> None:
        async with running(tmp_path, model, has_calculator=False) as rig:
            async with rig.chat("What is 6 * 7?", math_mode=True) as response:
                error = (await response.json())["error"]
            assert (response.status, error["code"], error["param"]) == (503, "calculator_not_configured", "math_mode")
            assert "spec.gateway.calculator" in error["message"]
            assert not rig.ledger.settled
            async with rig.chat("What is 6 * 7?", preset="math") as response:
                skipped = (await response.json())["r1plus"]["math_skipped"]
            assert (response.status, skipped["code"]) == (200, "calculator_not_configured")

    async def test_together_with_tools_it_is_refused_and_the_preset_goes_without(self, rig: Rig) -> None:
        tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
        async with rig.chat("What is 6 * 7?", math_mode=True, tools=tools) as response:
            error = (await response.json())["error"]
        assert (response.status, error["param"]) == (400, "math_mode")
        async with rig.chat("What is 6 * 7?", preset="math", tools=tools) as response:
            assert (response.status, "r1plus" in await response.json()) == (200, False)

    async def test_together_with_a_schema_it_calculates(self, rig: Rig, model: Model) -> None:
        model.prose = ('{"answer": 42}',)
        body = await ask(rig, "What is 6 * 7?", response_format={"type": "json_object"})
        assert body["r1plus"]["math"][0]["agrees"] is True


class TestForms:
    """Every form has it, whole and as a stream."""

    @for_each("path, body", {
        "a text": ("/v1/completions", {"prompt": "6 * 7 ="}),
        "the native form": ("/v1/generate", {"prompt": "6 * 7 ="}),
        "a response": ("/v1/responses", {"input": "6 * 7 ="}),
    })  # fmt: skip
    async def test_whole(self, rig: Rig, model: Model, path: str, body: Any) -> None:
        async with rig.post(path, {"model": "credit", "math_mode": True, **body}) as response:
            got = await response.json()
        assert response.status == 200, got
        (entry,) = got["r1plus"]["math"]
        assert (entry["exact"], entry["agrees"]) == ("42", True)
        assert model.prompts == ["Results of a calculator, as data:\n> 6 * 7 = 42\n\n6 * 7 ="]

    @for_each("path, body", {
        "a chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": TROLLEYS}]}),
        "a text": ("/v1/completions", {"prompt": TROLLEYS}),
        "the native form": ("/v1/generate", {"prompt": TROLLEYS}),
    })  # fmt: skip
    async def test_a_stream_has_it_in_the_last_chunk_with_a_choice(self, rig: Rig, path: str, body: Any) -> None:
        async with rig.post(path, {"model": "credit", "math_mode": True, "stream": True, **body}) as response:
            events = await read_events(response)
        *before, last, done = events
        assert done == "[DONE]"
        assert (last["r1plus"]["math"][0]["agrees"], last["r1plus"]["math"][0]["translated"]) == (True, True)
        assert not [event for event in before if "r1plus" in event]

    async def test_a_stream_of_a_response_has_it_in_its_last_event(self, rig: Rig) -> None:
        async with rig.respond(TROLLEYS, math_mode=True, stream=True) as response:
            events = await read_typed_events(response)
        last = events[-2]
        assert last["type"] == "response.completed"
        assert last["response"]["r1plus"]["math"][0]["agrees"] is True
        assert last["response"]["usage"]["input_tokens"] == 307
