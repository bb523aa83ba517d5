"""Probes through the Service: asked as a user asks, counted apart, and evidence of nothing about this pod."""

import asyncio
from dataclasses import dataclass, field, replace

import pytest

from r1plus_contract import metrics
from r1plus_contract.monitor.admission import Admission, write_token
from r1plus_contract.suites.suite import SuiteSampling
from r1plus_contract.verdict import Gate, Verdict, WatchStanding
from r1plus_monitoring.probe.client import Failure, ProbeReply
from r1plus_monitoring.process.prober import build_prober
from support.monitoring.scripted import (
    ADDITIONS,
    Pod,
    ScriptedEngine,
    loaded,
    metric,
    running,
    until,
    watched,
    watching,
)

SERVICE = "credit.bank.svc:8001"
PROMPTS = {item.prompt for item in loaded().items}


@dataclass
class Way:
    """What lies behind the Service; a new connection for each probe."""

    reply: ProbeReply
    asked: list[tuple[str, str]] = field(default_factory=list)
    opened: int = 0
    closed: int = 0

    def connect(self, target: str) -> ScriptedEngine:
        self.opened += 1
        way = self

        class Connection(ScriptedEngine):
            async def ask(self, prompt: str, sampling: SuiteSampling) -> ProbeReply:
                way.asked.append((target, prompt))
                return way.reply

            async def close(self) -> None:
                way.closed += 1

        return Connection()


async def test_what_a_user_would_get_is_counted_apart_and_its_tokens_as_probes(pod: Pod) -> None:
    pod.mount(service=SERVICE)
    way = Way(ProbeReply("yes", "stop", 1000, 100))
    async with watched(pod, ScriptedEngine(), connect=way.connect, service_probe_interval=0.01) as prober:
        await until(lambda: len(way.asked) > 3, "probes through the Service")
        assert {target for target, _ in way.asked} == {SERVICE}
        assert {prompt for _, prompt in way.asked} <= PROMPTS
        assert way.opened - way.closed in (0, 1), "a connection each, given back"
        assert metric(prober, metrics.SERVICE_PROBE_RESULTS_TOTAL, outcome="correct") >= 3
        assert metric(prober, metrics.PROBE_TOKENS_TOTAL, direction="prompt") >= 3000
        assert metric(prober, f"{metrics.SERVICE_PROBE_DURATION_SECONDS}_count") >= 3


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        pytest.param(ProbeReply(failure=Failure.TRANSPORT), "error", id="nobody there"),
        pytest.param(ProbeReply(failure=Failure.TIMEOUT), "timeout", id="no answer"),
        pytest.param(ProbeReply("no", "stop", 5, 1), "incorrect", id="a wrong answer"),
    ],
)
async def test_a_way_that_is_broken_says_nothing_of_the_pod(pod: Pod, reply: ProbeReply, outcome: str) -> None:
    pod.mount(service=SERVICE)
    way = Way(reply)
    async with watched(pod, ScriptedEngine(), connect=way.connect, service_probe_interval=0.001) as prober:
        await until(lambda: len(way.asked) > 60, "many of them")
        report = prober.publisher.report
        assert report.watch is not None
        assert (report.verdict, report.watch.standing) == (Verdict.PASS, WatchStanding.STEADY)
        assert metric(prober, metrics.SERVICE_PROBE_RESULTS_TOTAL, outcome=outcome) >= 60
        assert metric(prober, metrics.PROBE_RESULTS_TOTAL, outcome=outcome) == 0
        assert all(o.result.value == "1" for o in prober.publisher.build_outcome_page(0).outcomes)


async def test_an_error_of_our_own_on_that_way_is_counted_and_ends_nothing(
    pod: Pod, capsys: pytest.CaptureFixture[str]
) -> None:
    """`running` would raise what ends the prober."""
    pod.mount(service=SERVICE)
    quoted = "an answer's text"

    def connect(target: str) -> ScriptedEngine:
        raise ValueError(quoted)

    async with watched(pod, ScriptedEngine(), connect=connect, service_probe_interval=0.001) as prober:
        await until(lambda: metric(prober, metrics.SERVICE_PROBE_RESULTS_TOTAL, outcome="error") > 3, "many of them")
        assert metric(prober, metrics.PROBE_RESULTS_TOTAL, outcome="error") == 0
    told = capsys.readouterr().err
    assert '"failure": "ValueError"' in told
    assert quoted not in told


async def test_a_pod_that_may_not_serve_or_is_told_of_no_service_asks_nobody(pod: Pod) -> None:
    way = Way(ProbeReply("yes", "stop", 5, 1))
    pod.mount(service=SERVICE)
    refused = ScriptedEngine(wrong=ADDITIONS)
    async with running(pod, refused, connect=way.connect, service_probe_interval=0.001) as prober:
        assert (await watching(prober)).verdict is Verdict.FAIL
        assert way.opened == 0
    pod.mount(threshold=0.5)
    async with watched(pod, ScriptedEngine(), connect=way.connect, service_probe_interval=0.001) as prober:
        await until(lambda: prober.publisher.report.sweep, "a sweep")
        assert way.opened == 0


async def test_the_prober_of_a_pod_asks_the_service_that_the_settings_name(pod: Pod) -> None:
    pod.mount(service="127.0.0.1:1")
    token = Admission(pod.identity.digest(), Gate.ENFORCE, Verdict.PASS, loaded().header.sha256, "2026-01-01T00:00:00Z")
    write_token(pod.admission, token)
    nowhere = replace(pod.config(), triton_http="127.0.0.1:1", triton_grpc="127.0.0.1:1", triton_metrics="127.0.0.1:1")
    prober = build_prober(nowhere, service_probe_interval=0.01)
    task = asyncio.create_task(prober.run())
    try:
        await until(lambda: metric(prober, metrics.SERVICE_PROBE_RESULTS_TOTAL, outcome="error") > 0, "nobody there")
        assert metric(prober, metrics.PROBE_RESULTS_TOTAL) == 0
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
