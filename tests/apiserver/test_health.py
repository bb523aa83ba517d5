"""The liveness probe through a half-open connection to the real API server: it fails, names the watch, and recovers."""

import asyncio
import itertools

import httpx
import pytest
from prometheus_client import CollectorRegistry

from devcluster.apiserver_only import ApiServer
from r1plus_operator.api.kinds import CONFIG_MAP
from r1plus_operator.health import find_problem, serve
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.reflector import Reflector
from support.apiserver.broken_network import broken_network
from support.apiserver.reflected import PATIENT, project, put
from support.waiting import DEADLINE_SECONDS, eventually

pytestmark = pytest.mark.apiserver
STUCK_SECONDS = 2.0


async def busy(client: ApiClient, namespace: str) -> None:
    """Something to watch, so that silence means what a missing bookmark does."""
    for number in itertools.count():
        await put(client, namespace, "busy", str(number))
        await asyncio.sleep(STUCK_SECONDS / 10)


async def test_a_stuck_watch_fails_the_probe_until_it_moves(
    apiserver: ApiServer, client: ApiClient, namespace: str
) -> None:
    async with broken_network(apiserver) as (proxy, far):
        watcher = Reflector(
            far, CONFIG_MAP, project=project, on_change=lambda *_: None, namespace=namespace, timing=PATIENT
        )
        tasks = [asyncio.create_task(watcher.run()), asyncio.create_task(busy(client, namespace))]
        runner = await serve(
            0,
            watcher.sync_event.is_set,
            lambda: find_problem([watcher], 0.0, stuck_after=STUCK_SECONDS),
            CollectorRegistry(),
        )
        port = next(address[1] for address in runner.addresses if "." in address[0])
        said: tuple[int, str] = (0, "")

        async def probe(status: int) -> bool:
            nonlocal said
            async with httpx.AsyncClient(timeout=DEADLINE_SECONDS) as http:
                answer = await http.get(f"http://127.0.0.1:{port}/healthz")
            said = (answer.status_code, answer.text)
            return answer.status_code == status

        await watcher.sync_event.wait()
        await eventually(lambda: probe(200), "the probe succeeds")
        proxy.freeze()
        await eventually(lambda: probe(503), "the probe fails")
        assert said[1].startswith("watches without an answer") and "configmaps" in said[1]
        proxy.restore()
        await eventually(lambda: probe(200), "the probe succeeds again")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await runner.cleanup()
