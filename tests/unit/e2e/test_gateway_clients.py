"""What the end-to-end tests and the demo call a gateway with, against the running gateway before a fake pod."""

import asyncio
import io
import sys
from pathlib import Path

import pytest

from e2e.demo import scenes
from e2e.demo.telling import Teller
from e2e.gateways import Evidence, GatewayAsker
from r1plus_cli.errors import CliError
from support.gateway.access import KEY
from support.gateway.fake_triton import answer
from support.gateway.rig import running

GOOD = Evidence("credit-1", "Pass")


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole answers", "streams"])
async def test_the_asker_counts_answers_by_what_their_headers_say(tmp_path: Path, is_streamed: bool) -> None:
    async with running(tmp_path, answer("Stock", "holm")) as rig:
        asker = GatewayAsker(f"{rig.url}/v1", key=KEY, model="credit", is_streamed=is_streamed)
        await asyncio.to_thread(asker.ask)
        await asyncio.to_thread(asker.ask)
    assert asker.evidence == {GOOD: 2}
    assert asker.newest == GOOD
    assert asker.revisions == {"credit-1"}


async def test_the_asker_says_what_the_gateway_refused(tmp_path: Path) -> None:
    async with running(tmp_path, answer("Stock", "holm")) as rig:
        asker = GatewayAsker(f"{rig.url}/v1", key=KEY, model="nobodys")
        with pytest.raises(CliError, match="NotFoundError"):
            await asyncio.to_thread(asker.ask)
    assert not asker.evidence


@pytest.mark.unit_slow
async def test_what_the_demo_prints_is_what_a_person_pastes(tmp_path: Path) -> None:
    async with running(tmp_path, answer("Stock", "holm")) as rig:
        environment = {"OPENAI_BASE_URL": f"{rig.url}/v1", "OPENAI_API_KEY": KEY, "NO_PROXY": "127.0.0.1"}
        script = await asyncio.to_thread(scenes.run_command, environment, sys.executable, str(scenes.ASK_SCRIPT))
        printed = await asyncio.to_thread(scenes.run_command, environment, "bash", "-c", scenes.CURL)
    assert script.splitlines() == ["Stockholm", "answered by credit-1@sha256:0123456789ab"]
    out = io.StringIO()
    scenes.show_answer(printed, Teller(out))
    shown = out.getvalue()
    assert ">>> HTTP/1.1 200 OK\n" in shown
    assert ">>> x-r1plus-revision: credit-1\n" in shown.replace("X-R1plus", "x-r1plus")
    assert "Stockholm" in shown
    assert "nosniff" not in shown
