"""How many requests wait, as Triton's own metrics tell."""

import pytest
from aiohttp import web

from r1plus_monitoring.probe.client import TritonEngine, parse_load
from support.monitoring.patience import wait_long_for_metrics

GAUGE = "r1plus_engine_waiting_requests"
RUNNING = "r1plus_engine_running_requests"


@pytest.mark.parametrize(
    ("text", "waiting"),
    [
        pytest.param(f'# TYPE {GAUGE} gauge\n{GAUGE}{{model="r1plus",version="1"}} 3.000000\n', 3, id="with labels"),
        pytest.param(f"{GAUGE} 0\n", 0, id="without"),
        pytest.param(f'{GAUGE}{{version="1"}} 2\n{GAUGE}{{version="2"}} 1\n', 3, id="two versions, while one loads"),
        pytest.param(f"{GAUGE}_total 7\nnv_inference_count 5\n", None, id="another metric"),
        pytest.param("", None, id="nothing"),
        pytest.param(f"{GAUGE} many\n", None, id="no number"),
        pytest.param(f"{GAUGE} NaN\n", None, id="not a number"),
        pytest.param(f"{GAUGE} +Inf\n", None, id="without end"),
    ],
)
def test_reading_the_gauge(text: str, waiting: int | None) -> None:
    assert parse_load(text).get(GAUGE) == waiting


@pytest.mark.parametrize(
    ("status", "body", "waiting", "all_requests"),
    [
        pytest.param(200, f"{GAUGE} 4\n{RUNNING} 2\n".encode(), 4, 6, id="it says so"),
        pytest.param(200, f"{GAUGE} 4\n".encode(), 4, None, id="it says half of it"),
        pytest.param(503, b"", None, None, id="it does not answer now"),
        pytest.param(200, b"\xff\xfe\xff", None, None, id="it answers nonsense"),
    ],
)
async def test_asking_triton(
    monkeypatch: pytest.MonkeyPatch, status: int, body: bytes, waiting: int | None, all_requests: int | None
) -> None:
    wait_long_for_metrics(monkeypatch)

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(status=status, body=body, content_type="text/plain", charset="utf-8")

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    engine = TritonEngine("127.0.0.1:1", "127.0.0.1:1", 1, f"{host}:{port}")
    silent = TritonEngine("127.0.0.1:1", "127.0.0.1:1", 1, "127.0.0.1:1")
    unasked = TritonEngine("127.0.0.1:1", "127.0.0.1:1", 1)
    try:
        assert await engine.count_waiting_requests() == waiting
        assert await engine.count_user_requests() == all_requests
        assert await silent.count_waiting_requests() is None
        assert await unasked.count_waiting_requests() is None
    finally:
        for one in (engine, silent, unasked):
            await one.close()
        await runner.cleanup()
