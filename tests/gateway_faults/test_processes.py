"""What is lost when a process dies in the midst of streams: a pod, or the gateway. Nothing is, and nothing counts twice."""

import asyncio
from pathlib import Path

import pytest

from r1plus_client import AsyncClient, R1PlusError, StreamInterruptedError
from support.gateway.fake_triton import FakeTriton, count_up, serving
from support.gateway.pod_process import running_pod
from support.gateway.process import GatewayProcess, running_process, started
from support.waiting import eventually

pytestmark = pytest.mark.first_run_counts

STREAMS = 8


async def read_stream(client: AsyncClient, prompt: str, began: asyncio.Event) -> tuple[int, str]:
    """Ask for a stream that breaks off; return how many tokens came, and the error's code."""
    count = 0
    stream = await client.stream_generate(model="credit", prompt=prompt, max_new_tokens=900)
    with pytest.raises(StreamInterruptedError) as caught:
        async for text in stream:
            count += len(text.split())
            began.set()
    return count, caught.value.code


async def test_streams_of_a_killed_pod_end_with_an_error_and_cost_what_was_seen(tmp_path: Path) -> None:
    async with (
        running_pod(tmp_path) as pod,
        started(GatewayProcess(tmp_path, pod, pod.monitor, batch=2 * STREAMS)) as gateway,
    ):
        key = await gateway.create_key(limits={"budget_tokens": 1_000_000})
        async with gateway.make_client(key) as client:
            began = [asyncio.Event() for _ in range(STREAMS)]
            reading = [read_stream(client, f"s{n} 1000 20", event) for n, event in enumerate(began)]
            streams = [asyncio.create_task(one) for one in reading]
            await asyncio.gather(*(event.wait() for event in began))
            pod.kill()
            ends = await asyncio.gather(*streams)
            assert {code for _, code in ends} == {"answer_failed"}, "an error event, not a broken connection"
            (row,) = (await client.read_usage())["data"]
            seen = sum(count for count, _ in ends)
            assert (row["requests"], row["prompt_tokens"], row["completion_tokens"]) == (STREAMS, 7 * STREAMS, seen)
            pod.start()

            async def is_found_again() -> bool:
                return bool((await client.generate(model="credit", prompt="again 3 1", max_new_tokens=9)).text)

            await eventually(is_found_again, "the pod is found again", retry_on=(R1PlusError,))


async def test_a_gateway_that_is_killed_again_and_again_counts_each_request_once(tmp_path: Path) -> None:
    """By its tokens: what had ended, and what ran, of which the pod tells them."""
    async with serving(FakeTriton(count_up)) as pod, running_process(tmp_path, pod) as gateway:
        key = await gateway.create_key(limits={"budget_tokens": 100_000})
        async with gateway.make_client(key) as client:
            for _ in range(3):
                await client.generate(model="credit", prompt="5", max_new_tokens=50)
                stream = await client.stream_generate(model="credit", prompt="1000", max_new_tokens=100)
                with pytest.raises(R1PlusError):
                    async for _ in stream:
                        gateway.kill()
                gateway.start()
                await gateway.until_ready()

            async def is_settled() -> bool:
                usage = await client.read_usage()
                return bool(usage["remaining"]["budget_tokens"] == 100_000 - sum(map(sum, pod.usage.values())))

            await eventually(is_settled, "what the pod has counted is billed")
        assert len(pod.usage) == 6
        _, audit = await gateway.call_admin("GET", "/audit")
        assert audit["problem"] is None


async def test_a_budget_under_attack_is_never_exceeded(tmp_path: Path) -> None:
    """Fifty at a time: whole answers, streams, streams that are cut, until nothing is left; each token counts once."""
    async with serving(FakeTriton(count_up)) as pod, running_process(tmp_path, pod) as gateway:
        key = await gateway.create_key(limits={"budget_tokens": 1000})
        statuses: list[str] = []

        async def attack(client: AsyncClient, number: int) -> None:
            try:
                if number % 3 == 0:
                    await client.generate(model="credit", prompt="9", max_new_tokens=20)
                    return
                prompt = "1000" if number % 3 == 1 else "7"
                stream = await client.stream_generate(model="credit", prompt=prompt, max_new_tokens=30)
                async for _ in stream:
                    if number % 3 == 1:
                        await stream.close()
                        return
            except R1PlusError as error:
                statuses.append(type(error).__name__)

        async with gateway.make_client(key) as client:
            while "BudgetExhaustedError" not in statuses[-50:] or len(statuses) < 100:
                await asyncio.gather(*(attack(client, number) for number in range(50)))
                assert len(pod.ids) < 1000, "the budget never ends"
            await eventually(lambda: pod.running == 0, "all requests have ended")

            async def is_settled() -> bool:
                rows = (await client.read_usage())["data"]
                return bool(sum(row["requests"] for row in rows) == len(pod.ids))

            await eventually(is_settled, "all are settled")
            usage = await client.read_usage()
        (row,) = usage["data"]
        used = row["prompt_tokens"] + row["completion_tokens"]
        assert used == sum(map(sum, pod.usage.values())), "what the engine counted"
        assert used <= 1000
        assert usage["remaining"]["budget_tokens"] == 1000 - used
        assert set(statuses) <= {"BudgetExhaustedError", "RateLimitError"}, "the latter: not counted any more"
