"""What `serve` asks Triton itself at its sockets, as the plan's scripts ask at ports: readiness, and the wait before an end."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from r1plus_contract import names
from r1plus_contract.engine.heartbeat import HEARTBEAT, format_due, read_uptime
from r1plus_contract.monitor.admission import TOKEN_FILE
from r1plus_edge.pods.places import PodPlaces
from r1plus_edge.pods.probes import ContainerProbe, build_liveness, build_readiness
from r1plus_edge.pods.triton_sockets import Drain, build_drain, find_sockets, read_schema_share
from r1plus_monitoring.probe.client import TritonEngine
from r1plus_operator.plan.podspec.pod import GRACE_SECONDS, HUNG_LOOKS, build_liveness_script, build_readiness_script
from support.monitoring.patience import wait_long_for_metrics
from support.virtual_time import read_loop_time

IDENTITY = "1d"
Answer = Callable[[], str | None]
"""Returns status and body as on the wire; None: nothing is answered, and the connection stays open."""


@asynccontextmanager
async def serve_answer(path: Path, answer: Answer) -> AsyncIterator[int]:
    """Answer at a socket for the block, and at a port of loopback, which it gives."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if (text := answer()) is None:
            await reader.read()
        else:
            writer.write(text.encode())
        writer.close()

    servers = (await asyncio.start_unix_server(handle, path), await asyncio.start_server(handle, "127.0.0.1", 0))
    try:
        yield servers[1].sockets[0].getsockname()[1]
    finally:
        for server in servers:
            server.close()


READY, LOADING = "HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n\r\n"
STATES: dict[str, tuple[str | None, str, str]] = {
    "there is no token": (None, READY, "no admission token for this identity: the gate has not passed"),
    "the token is another identity's": (
        "1e\n{}\n",
        READY,
        "no admission token for this identity: the gate has not passed",
    ),
    "the token only begins alike": ("1dd\n", READY, "no admission token for this identity: the gate has not passed"),
    "the model is not loaded": (f"{IDENTITY}\n{{}}\n", LOADING, "the model is not ready: HTTP 400"),
    "its answer is none": (f"{IDENTITY}\n", "\r\n", "the model is not ready: HTTP none"),
    "it is ready": (f"{IDENTITY}\n{{}}\n", READY, ""),
}


@pytest.mark.parametrize(("token", "answer", "problem"), STATES.values(), ids=STATES)
async def test_it_is_ready_at_its_socket_when_the_plans_script_has_it_ready_at_its_port(
    tmp_path: Path, token: str | None, answer: str, problem: str
) -> None:
    if token is not None:
        (tmp_path / TOKEN_FILE).write_text(token)
    environment = {"PATH": "/usr/bin:/bin", names.ENV_IDENTITY: IDENTITY}
    sockets = find_sockets(tmp_path)
    async with serve_answer(sockets[names.PORT_HTTP], lambda: answer) as port:
        places = PodPlaces({names.DIR_ADMISSION: tmp_path, "/tmp": tmp_path}, {names.PORT_HTTP: port}, sockets)
        script = places.translate_command(("/bin/bash", "-c", build_readiness_script()))
        asked = ContainerProbe(1.0, 60.0, 1, command=tuple(script))
        assert await build_readiness(asked, places).check(environment) == problem
        assert (await asked.check(environment) == "") is (problem == "")
    gone = await build_readiness(asked, places).check(environment)
    assert gone == problem if "token" in problem else gone.startswith("http.sock: ")


BEATS = {
    "on time": (30, 0, ""),
    "of an older image": (None, 0, ""),
    "of no number": ("soon", 0, ""),
    "late": (-30, 1, "the engine hangs: its next sign of progress is"),
}


@pytest.mark.parametrize("is_liveness", [True, False], ids=["live", "ready"])
@pytest.mark.parametrize(("ahead", "code", "problem"), BEATS.values(), ids=BEATS)
async def test_a_hanging_engine_is_neither_live_nor_ready_though_its_server_says_so(
    tmp_path: Path, ahead: int | str | None, code: int, problem: str, is_liveness: bool
) -> None:
    """The plan's script in a cluster, and the probe here, say the same."""
    (tmp_path / TOKEN_FILE).write_text(f"{IDENTITY}\n")
    if ahead is not None:
        beat = format_due(read_uptime() + ahead) if isinstance(ahead, int) else ahead.encode()
        (tmp_path / Path(HEARTBEAT).name).write_bytes(beat)
    environment = {"PATH": "/usr/bin:/bin", names.ENV_IDENTITY: IDENTITY}
    sockets = find_sockets(tmp_path)
    async with serve_answer(sockets[names.PORT_HTTP], lambda: READY) as port:
        places = PodPlaces({names.DIR_ADMISSION: tmp_path, "/tmp": tmp_path}, {names.PORT_HTTP: port}, sockets)
        script = build_liveness_script() if is_liveness else build_readiness_script()
        asked = ContainerProbe(1.0, 60.0, 1, command=tuple(places.translate_command(("/bin/bash", "-c", script))))
        build = build_liveness if is_liveness else build_readiness
        answers = [await one.check(environment) for one in (asked, build(asked, places))]
    assert [bool(answer) for answer in answers] == [bool(code)] * 2
    assert all(answer.startswith(problem) for answer in answers)


def show(running: int, waiting: int) -> str:
    """Return metrics as Triton writes them."""
    gauges = f"r1plus_engine_running_requests {running}\nr1plus_engine_waiting_requests {waiting}\n"
    return f"{READY}# HELP r1plus_engine_running_requests Requests.\nnv_cpu_utilization 0.5\n{gauges}"


def one_by_one(*texts: str) -> tuple[Answer, Iterator[str]]:
    rest = iter(texts)
    return lambda: next(rest), rest


BUSY: dict[str, tuple[str, ...]] = {
    "none runs": (show(0, 0),),
    "one runs, then one waits": (show(1, 0), show(0, 1), show(0, 0)),
    "no engine runs": (f"{READY}nv_cpu_utilization 0.5\n",),
    "nothing is answered": ("",),
    "a gauge is no number": (f"{READY}r1plus_engine_running_requests many\n",),
}


@pytest.mark.parametrize("texts", BUSY.values(), ids=BUSY)
async def test_its_end_waits_while_requests_run_or_wait(tmp_path: Path, texts: tuple[str, ...]) -> None:
    answer, rest = one_by_one(*texts, "not asked for")
    metrics = tmp_path / "metrics.sock"
    async with serve_answer(metrics, answer):
        await Drain(metrics, 600.0).wait_for_requests()
    assert list(rest) == ["not asked for"]


async def test_its_end_waits_for_none_that_is_gone_or_hangs_and_not_beyond_its_time(
    tmp_path: Path, virtual_time: None
) -> None:
    metrics, looks = tmp_path / "metrics.sock", list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]()
    await Drain(metrics, 600.0, clock=read_loop_time).wait_for_requests()
    async with await asyncio.start_unix_server(lambda *streams: looks.append(streams), metrics):
        await Drain(metrics, 600.0, clock=read_loop_time).wait_for_requests()
        for _, writer in looks:
            writer.close()
    assert len(looks) == HUNG_LOOKS
    begin = read_loop_time()
    metrics.unlink()
    async with serve_answer(metrics, lambda: show(1, 0)):
        await Drain(metrics, 60.0, clock=read_loop_time).wait_for_requests()
    assert read_loop_time() - begin >= 60.0


@pytest.mark.parametrize(("drain", "seconds"), [(0, 0.0), (300, 300.0)], ids=["in place", "beside another one"])
def test_it_waits_as_long_as_the_pods_grace_period_has_for_requests(tmp_path: Path, drain: int, seconds: float) -> None:
    spec = {"terminationGracePeriodSeconds": GRACE_SECONDS + drain}
    assert build_drain(spec, find_sockets(tmp_path)).seconds == seconds


async def test_the_monitor_asks_readiness_and_metrics_at_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_long_for_metrics(monkeypatch)
    http, metrics = tmp_path / "http.sock", tmp_path / "metrics.sock"
    async with serve_answer(http, lambda: READY), serve_answer(metrics, lambda: show(2, 3)):
        engine = TritonEngine(f"unix:{http}", f"unix:{tmp_path}/grpc.sock:8001", 1.0, f"unix:{metrics}")
        assert (await engine.is_model_ready(), await engine.count_waiting_requests()) == (True, 3)
        await engine.close()


@pytest.mark.parametrize(
    ("answer", "share"),
    [
        pytest.param("r1plus_engine_schema_bytes 9\nr1plus_engine_schema_used_ratio 0.25\n", 0.25, id="it says so"),
        pytest.param("r1plus_engine_running_requests 3\n", None, id="an older engine does not"),
        pytest.param("r1plus_engine_schema_used_ratio much\n", None, id="no number"),
        pytest.param(None, None, id="it hangs"),
    ],
)
async def test_the_share_of_the_memory_for_schemas_is_read_at_its_socket(
    tmp_path: Path, answer: str | None, share: float | None, virtual_time: None
) -> None:
    metrics = find_sockets(tmp_path)[names.PORT_TRITON_METRICS]
    assert await read_schema_share(metrics) is None
    async with serve_answer(metrics, lambda: answer and f"{READY}{answer}"):
        assert await read_schema_share(metrics) == share
