"""The speed of a trial of `r1plus advise`, measured at a real gateway."""

import os
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from r1plus_cli import local
from r1plus_cli.advice.figures import Speed
from r1plus_cli.advice.speed import SuiteTooLongError, measure_speed
from r1plus_cli.errors import CliError
from r1plus_contract.suites.suite import Suite, load_suite
from support.gateway.access import KEY
from support.gateway.fake_triton import answer, fail
from support.gateway.rig import running

FOLDER = local.SHIPPED_SUITES / "smollm2-edge-v1"
WHOLE = load_suite((FOLDER / "suite.json").read_text(), (FOLDER / "items.jsonl").read_text())
SUITE = replace(WHOLE, items=WHOLE.items[:3])


async def measure(url: str, suite: Suite = SUITE) -> Speed:
    return await measure_speed(url, KEY, "credit", suite, batch=2, threads=1.0, list_processes=lambda: [os.getpid()])


async def test_each_item_is_asked_alone_and_with_others(tmp_path: Path) -> None:
    async with running(tmp_path, answer("Stock", "holm")) as rig:
        speed = await measure(rig.url)
    assert len(rig.pod.inputs) == 1 + 3 + 3  # The first one, which is not measured; alone; in batches.
    assert rig.pod.inputs[0]["max_new_tokens"] == SUITE.header.sampling.max_new_tokens
    assert speed.tokens_per_second == pytest.approx(2 * speed.answers_per_second)
    assert speed.first_token_seconds > 0


async def test_a_prompt_that_the_engine_refuses_is_too_long(tmp_path: Path) -> None:
    endless = replace(SUITE.items[0], prompt="word " * 100_000)
    async with running(tmp_path, fail(grpc.StatusCode.INVALID_ARGUMENT, "Refused: text_input: too long")) as rig:
        with pytest.raises(SuiteTooLongError, match="suite smollm2-edge-v1 does not fit this engine: "):
            await measure(rig.url, replace(SUITE, items=(endless,)))


@pytest.mark.parametrize("tokens", [(), ("Stock",)], ids=["at once", "after a token"])
async def test_an_engine_that_fails_is_no_matter_of_the_suite(tmp_path: Path, tokens: tuple[str, ...]) -> None:
    async with running(tmp_path, fail(grpc.StatusCode.INTERNAL, "out of memory", *tokens)) as rig:
        with pytest.raises(CliError, match="it did not answer all of suite smollm2-edge-v1: ") as failure:
            await measure(rig.url)
    assert not isinstance(failure.value, SuiteTooLongError)


async def test_a_gateway_that_is_gone_is_named() -> None:
    with pytest.raises(CliError, match=r"127\.0\.0\.1:9: it did not answer all of suite"):
        await measure("http://127.0.0.1:9")
