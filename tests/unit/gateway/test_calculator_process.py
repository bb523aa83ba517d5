"""The gateway and the calculator as two processes that share a socket, as in the gateway's pod."""

from pathlib import Path

import aiohttp

from support.calculator.process import running_calculator_process
from support.gateway.fake_triton import FakeTriton, answer, serving
from support.gateway.process import running_process


async def test_an_expression_goes_through_both_and_comes_back_exact(tmp_path: Path) -> None:
    async with (
        serving(FakeTriton(answer("Hi"))) as pod,
        running_calculator_process(tmp_path) as calculator,
        running_process(tmp_path, pod, calculator=calculator) as gateway,
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {await gateway.create_key()}"}) as client,
    ):
        async with client.post(f"{gateway.url}/v1/calculate", json={"expression": "0.1 + 0.2"}) as response:
            body = await response.json()
        assert (response.status, body["exact"], body["verified"]) == (200, "3/10", True)
