"""The project's own Python client against the real gateway."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from r1plus_client import (
    AsyncClient,
    BudgetExhaustedError,
    Evidence,
    InvalidRequestError,
    Message,
    OverloadedError,
    StreamInterruptedError,
    Usage,
)
from r1plus_gateway.access.caller import AccessError
from support.gateway.access import KEY
from support.gateway.fake_triton import Script, answer, fail
from support.gateway.rig import Rig, running

EVIDENCE = Evidence("credit-1", "Pass", "credit-1@sha256:0123456789ab")


@asynccontextmanager
async def client(folder: Path, script: Script) -> AsyncIterator[tuple[Rig, AsyncClient]]:
    async with running(folder, script) as rig, AsyncClient(rig.url, KEY, max_retries=0) as own:
        yield rig, own


async def test_generate_and_its_stream_give_the_same(tmp_path: Path) -> None:
    async with client(tmp_path, answer("Stock", "holm")) as (rig, own):
        whole = await own.generate(model="credit", prompt="Capital of Sweden?", max_new_tokens=8, stop="\n")
        async with await own.stream_generate(model="credit", prompt="Capital of Sweden?", max_new_tokens=8) as stream:
            text = "".join([piece async for piece in stream])
    assert (whole.text, whole.finish_reason, whole.usage, whole.evidence) == (
        "Stockholm",
        "stop",
        Usage(7, 2),
        EVIDENCE,
    )
    assert (text, stream.result.text) == ("Stockholm", "Stockholm")
    assert (stream.result.usage, stream.result.evidence) == (whole.usage, whole.evidence)
    assert whole.request_id == rig.pod.ids[0]


async def test_what_math_mode_has_calculated_is_in_the_answer_and_in_the_result_of_a_stream(tmp_path: Path) -> None:
    async with client(tmp_path, answer("It is ", "42.")) as (_, own):
        whole = await own.generate(model="credit", prompt="What is 6 * 7?", math_mode=True)
        plain = await own.generate(model="credit", prompt="What is 6 * 7?")
        messages = [Message("user", "Write a poem.")]
        stream = await own.stream_chat(model="credit", messages=messages, math_mode=True)
        assert "".join([piece async for piece in stream]) == "It is 42."
    assert plain.math is None
    assert whole.math is not None
    (entry,) = whole.math.entries
    assert (entry["exact"], entry["verified"], entry["agrees"], whole.math.skipped) == ("42", True, True, None)
    assert stream.result.math is not None
    assert stream.result.math.entries == ()
    assert (stream.result.math.skipped or {})["code"] == "no_expression"


async def test_chat_and_its_stream_give_the_same(tmp_path: Path) -> None:
    messages = [Message("system", "Be short."), Message("user", "Capital of Sweden?")]
    async with client(tmp_path, answer("Stock", "holm")) as (rig, own):
        whole = await own.chat(model="credit", messages=messages, max_new_tokens=8, preset="code")
        stream = await own.stream_chat(model="credit", messages=messages)
        text = "".join([piece async for piece in stream])
        assert [model.id for model in await own.list_models()][:2] == ["credit", "credit:code"]
        assert (await own.read_usage())["data"][0]["requests"] == 2
    assert (whole.text, whole.usage, text, stream.result.usage) == ("Stockholm", Usage(7, 2), "Stockholm", Usage(7, 2))
    assert rig.pod.inputs[0]["max_new_tokens"] == 8


async def test_errors_have_their_types(tmp_path: Path) -> None:
    async with client(tmp_path, fail(grpc.StatusCode.UNAVAILABLE, "QueueFull: the engine has 5")) as (rig, own):
        with pytest.raises(OverloadedError):
            await own.generate(model="credit", prompt="Hi")
        with pytest.raises(InvalidRequestError) as refused:
            await own.generate(model="credit", prompt="Hi", max_new_tokens=0)
        assert refused.value.param == "max_new_tokens"
        rig.ledger.refusal = AccessError(429, "insufficient_quota", "no tokens are left")
        with pytest.raises(BudgetExhaustedError):
            await own.generate(model="credit", prompt="Hi")


async def test_a_stream_that_breaks_off_says_what_had_come(tmp_path: Path) -> None:
    async with client(tmp_path, fail(grpc.StatusCode.INTERNAL, "out of memory", "Stock")) as (_, own):
        stream = await own.stream_generate(model="credit", prompt="Hi")
        with pytest.raises(StreamInterruptedError, match="out of memory") as broken:
            async for _ in stream:
                pass
    assert (broken.value.text, broken.value.code) == ("Stock", "answer_failed")


async def test_the_program_of_the_page_for_r1_runs_as_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = Path(__file__).parents[3] / "docs" / "r1-to-r1plus.md"
    program = page.read_text().split("```python")[1].split("```")[0]
    async with client(tmp_path, answer("Stock", "holm")) as (rig, _):
        here = program.replace("http://gateway.team-credit.svc", rig.url).replace("r1p_...", KEY)
        with pytest.warns(DeprecationWarning, match="`length` is R1's name: use `max_new_tokens`"):
            names: dict[str, Any] = {}
            await asyncio.to_thread(exec, here, names)
            names["client"].close()
        assert rig.pod.inputs[0]["max_new_tokens"] == 20
    assert capsys.readouterr().out == "Stockholm\n"
