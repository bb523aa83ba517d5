"""The gateway and the calculator as two processes that share a socket, as in the gateway's pod."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
import pytest_asyncio
from openai.types.responses import Response

from r1plus_assistant.calculation.client import SocketCalculator
from r1plus_contract.calculator import FailureCode
from support.calculator.process import running_calculator_process
from support.gateway.fake_triton import FakeTriton, Inputs, Piece, answer, serving
from support.gateway.process import running_process
from support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")
TOOL: Any = {"type": "code_interpreter", "container": {"type": "auto"}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def calculator(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Path]:
    """The socket of a calculator, which takes three seconds of processor time to start."""
    async with running_calculator_process(tmp_path_factory.mktemp("calculator")) as path:
        yield path


@pytest.mark.unit_slow
async def test_an_expression_goes_through_both_and_comes_back_exact(calculator: Path, tmp_path: Path) -> None:
    async with (
        serving(FakeTriton(answer("Hi"))) as pod,
        running_process(tmp_path, pod, calculator=calculator) as gateway,
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {await gateway.create_key()}"}) as client,
    ):
        async with client.post(f"{gateway.url}/v1/calculate", json={"expression": "0.1 + 0.2"}) as response:
            body = await response.json()
        assert (response.status, body["exact"], body["verified"]) == (200, "3/10", True)


@pytest.mark.unit_slow
async def test_the_real_calculator_answers_through_its_socket(calculator: Path) -> None:
    client = SocketCalculator(str(calculator), answer_seconds=120)
    reply = await client.calculate("integrate(x^2, x, 0, 3)", 15)
    assert reply.calculation is not None
    assert (reply.calculation.exact, reply.calculation.verified) == ("9", True)
    reply = await client.calculate("1/0", 15)
    assert reply.failure is not None
    assert reply.failure.code is FailureCode.UNDEFINED


@pytest.mark.unit_slow
async def test_a_program_of_the_model_goes_through_both(calculator: Path, tmp_path: Path) -> None:
    async def write_and_say(inputs: Inputs) -> AsyncIterator[Piece]:
        """Write a program, and say what the gateway says of it."""
        _, _, result = inputs.get("messages", "").partition("Result of the tool call code_interpreter: ")
        program = {"name": "code_interpreter", "arguments": {"code": "print(6 * 7)"}}
        yield Piece(json.dumps({"content": result[:2]} if result else program), 5)
        yield Piece("", 5, finish_reason="stop")

    async with (
        serving(FakeTriton(write_and_say)) as pod,
        running_process(
            tmp_path, pod, calculator=calculator, runs_code=True, capabilities=["messages", "response_schema"]
        ) as gateway,
        openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=await gateway.create_key()) as client,
    ):

        async def ask() -> Response | None:
            """Return an answer, unless a busy machine ended the program. No other failure is repeated."""
            answer = await client.responses.create(model="credit", input="6 * 7?", tools=[TOOL])
            (run,) = (answer.model_extra or {})["r1plus"]["code"]
            if run["failure"] is None:
                return answer
            assert run["failure"]["code"] == "code_time_limit", run
            return None

        answer = await eventually(ask, "the program has run within its two seconds")
    assert answer.output_text == "42"
