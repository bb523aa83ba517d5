"""What leaves the monitor: series, the report over HTTP, the state file, log lines."""

import dataclasses
import json
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from r1plus_contract import metrics as names
from r1plus_contract.jsonable import dumps, loads
from r1plus_contract.suites.suite import Item, SuiteSampling
from r1plus_contract.verdict import MonitorReport, SweepFigures, Verdict, WatchStanding
from r1plus_monitoring.config import read_config
from r1plus_monitoring.logs import log
from r1plus_monitoring.probe.client import Failure, ProbeReply
from r1plus_monitoring.probe.probes import LABELS, SCORES, Prompter, Result, classify_reply
from r1plus_monitoring.report.exposition import Exposition
from r1plus_monitoring.report.publisher import ReportPublisher
from r1plus_monitoring.report.web import serve
from r1plus_monitoring.store.state import MonitorState, PartialSweep, StateStore, read_restarts
from r1plus_policies.detector.detector import Detector, DetectorKey
from r1plus_policies.gate.verdict import VerdictSubject
from r1plus_policies.watch.memory import WatchState
from support.monitoring.scripted import ScriptedEngine, loaded

OWN: Final = {"namespace": "bank", "deployment": "credit", "revision": "credit-1"}
NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def exposition() -> Exposition:
    return Exposition(**OWN)


def samples(exposition: Exposition) -> dict[str, list[tuple[dict[str, str], float]]]:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(exposition.render().decode()):
        for sample in family.samples:
            rest = {k: v for k, v in sample.labels.items() if k not in OWN}
            assert {k: sample.labels.get(k) for k in OWN} == OWN, sample.name
            found.setdefault(sample.name, []).append((rest, sample.value))
    return found


def test_counters_are_there_at_zero_from_the_start(exposition: Exposition) -> None:
    exposition.set_suite(loaded(), 0.98)
    found = samples(exposition)
    results = found[names.PROBE_RESULTS_TOTAL]
    assert {(r["task"], r["outcome"]) for r, _ in results} == {
        (task, outcome) for task in ("additions", "capitals") for outcome in names.OutcomeLabel.ALL
    }
    assert {value for _, value in results} == {0.0}
    assert found[names.PROBE_SKIPPED_TOTAL] == [
        ({"reason": "model_not_ready"}, 0.0),
        ({"reason": "engine_busy"}, 0.0),
    ]
    assert found[names.DETECTOR_EVIDENCE_RATIO] == [({"detector": "accuracy"}, 0.0), ({"detector": "errors"}, 0.0)]
    assert found[names.STANDING] == [({"standing": member.value}, 0.0) for member in WatchStanding]
    assert found[names.PROBER_RESTARTS_TOTAL] == [({}, 0.0)]
    assert found[names.ACCURACY_THRESHOLD_RATIO] == [({}, 0.98)]
    assert len(found[names.PROBE_TOKENS_TOTAL]) == 2


def test_an_accuracy_nobody_measured_is_not_exposed(exposition: Exposition) -> None:
    assert names.ACCURACY_RATIO not in samples(exposition)
    exposition.set_accuracy(SweepFigures(correct=163, total=210, lower=0.67, upper=0.86, finished_at=""))
    found = samples(exposition)
    assert found[names.ACCURACY_RATIO] == [({}, 163 / 210)]
    assert found[names.ACCURACY_LOWER_BOUND_RATIO] == [({}, 0.67)]
    assert found[names.ACCURACY_UPPER_BOUND_RATIO] == [({}, 0.86)]
    exposition.set_accuracy(None)
    assert names.ACCURACY_RATIO not in samples(exposition)


@pytest.mark.parametrize("verdict", list(Verdict))
def test_one_verdict_is_one_and_the_others_are_zero(exposition: Exposition, verdict: Verdict) -> None:
    exposition.set_verdict(verdict)
    found = {labels["verdict"]: value for labels, value in samples(exposition)[names.GATE_VERDICT]}
    assert found == {member.value: float(member is verdict) for member in Verdict}


def test_there_is_one_suite_at_a_time(exposition: Exposition) -> None:
    exposition.set_suite(loaded(25), 0.98)
    exposition.set_suite(loaded(24), 0.98)
    found = samples(exposition)[names.GOLDEN_SUITE_INFO]
    assert [labels["suite_hash"] for labels, _ in found] == [loaded(24).header.sha256]


def test_the_contract_names_every_series_that_is_exposed(exposition: Exposition) -> None:
    exposition.set_suite(loaded(), 0.98)
    known = {v for k, v in vars(names).items() if k.isupper() and isinstance(v, str)}
    for name in samples(exposition):
        assert name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum") in known


@pytest.mark.parametrize(
    ("reply", "result", "label"),
    [
        pytest.param(ProbeReply("yes", "stop"), Result.CORRECT, "correct", id="right"),
        pytest.param(ProbeReply("no", "stop"), Result.INCORRECT, "incorrect", id="wrong"),
        pytest.param(ProbeReply("yes", "length"), Result.INCORRECT, "incorrect", id="cut"),
        pytest.param(ProbeReply(failure=Failure.SERVER_ERROR), Result.SERVER_ERROR, "error", id="refused"),
        pytest.param(ProbeReply(failure=Failure.TIMEOUT), Result.TIMEOUT, "timeout", id="too late"),
        pytest.param(ProbeReply(failure=Failure.TRANSPORT), Result.TRANSPORT, "error", id="nobody there"),
    ],
)
async def test_a_probe_is_judged_and_counted(
    exposition: Exposition, reply: ProbeReply, result: Result, label: str
) -> None:
    async def behave(prompt: str, before: int) -> ProbeReply:
        return reply

    item = Item("i", "additions", "p", "exact", ("yes",))
    engine = ScriptedEngine(behaviour=behave)
    assert await Prompter(engine, {"i": item}, SuiteSampling(), exposition).ask("i") is result
    assert classify_reply(item, reply) is result
    counted = [labels for labels, n in samples(exposition)[names.PROBE_RESULTS_TOTAL] if n]
    assert counted == [{"task": "additions", "outcome": label}]
    scored = samples(exposition)[names.PROBE_LAST_SCORED_TIMESTAMP_SECONDS][0][1] > 0
    assert scored == (result in (Result.CORRECT, Result.INCORRECT))


def test_every_result_has_a_label_and_a_score() -> None:
    assert set(LABELS) == set(SCORES) == set(Result)


def publisher(folder: Path, exposition: Exposition, clock: datetime = NOON) -> ReportPublisher:
    return ReportPublisher(
        revision="credit-1",
        identity="id",
        restarts=2,
        store=StateStore(folder),
        exposition=exposition,
        clock=lambda: clock,
    )


def test_the_sequence_grows_with_changes_only(tmp_path: Path, exposition: Exposition) -> None:
    board = publisher(tmp_path, exposition)
    first = board.report.sequence
    board.update(message="other")
    board.update(message="other")
    assert board.report.sequence == first + 1


def test_the_sequence_grows_across_restarts_even_with_a_clock_that_went_back(
    tmp_path: Path, exposition: Exposition
) -> None:
    board = publisher(tmp_path, exposition)
    for n in range(2500):
        board.update(message=str(n))
    again = publisher(tmp_path, exposition, NOON.replace(year=2020))
    assert again.report.sequence > board.report.sequence - 1
    again.update(message="once more")
    assert again.report.sequence > board.report.sequence


def test_the_sequence_grows_without_the_file(tmp_path: Path, exposition: Exposition) -> None:
    board = publisher(tmp_path, exposition)
    board.update(message="one")
    (tmp_path / "state.json").unlink()
    assert publisher(tmp_path, exposition, NOON.replace(hour=13)).report.sequence > board.report.sequence


async def test_verdict_metrics_and_health_over_http(tmp_path: Path, exposition: Exposition) -> None:
    board = publisher(tmp_path, exposition)
    runner = await serve(board, exposition, socket.create_server(("127.0.0.1", 0)))
    try:
        host, port = runner.addresses[0][:2]
        async with aiohttp.ClientSession(f"http://{host}:{port}") as session:
            async with session.get("/verdict") as response:
                assert response.content_type == "application/json"
                assert loads(MonitorReport, await response.read()) == board.report
            async with session.get("/metrics") as response:
                assert names.GATE_VERDICT in await response.text()
            async with session.get("/healthz") as response:
                assert response.status == 200
            async with session.post("/verdict") as response:
                assert response.status == 405
    finally:
        await runner.cleanup()


HEADERS: dict[str, tuple[str, dict[str, str], int]] = {
    "its address": ("127.0.0.1", {"Host": "127.0.0.1:8080"}, 200),
    "its name": ("127.0.0.1", {"Host": "localhost:8080"}, 200),
    "a name that was rebound to loopback": ("127.0.0.1", {"Host": "evil.example"}, 421),
    "a page of another origin": ("127.0.0.1", {"Origin": "https://evil.example"}, 403),
    "the name of a pod, where it listens at a network": ("0.0.0.0", {"Host": "10.244.0.7:8080"}, 200),
}


@pytest.mark.parametrize(("address", "headers", "status"), HEADERS.values(), ids=HEADERS)
@pytest.mark.parametrize("path", ["/verdict", "/metrics"])
async def test_on_loopback_no_page_in_a_browser_reads_it(
    tmp_path: Path, exposition: Exposition, address: str, headers: dict[str, str], status: int, path: str
) -> None:
    runner = await serve(publisher(tmp_path, exposition), exposition, socket.create_server((address, 0)))
    try:
        async with (
            aiohttp.ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as session,
            session.get(path, headers=headers) as response,
        ):
            assert response.status == status
    finally:
        await runner.cleanup()


def test_state_comes_back_as_it_was_stored(tmp_path: Path) -> None:
    state = MonitorState(sequence=7, sweep=PartialSweep(VerdictSubject("a", "b", "c", "d"), 2**62, {"i": "1"}))
    StateStore(tmp_path).save(state)
    assert StateStore(tmp_path).state == state


DETECTOR = Detector(DetectorKey("p", "r", "h", 0.98), 1e5)
WATCH = WatchState(VerdictSubject("a", "b", "c", "d"), DETECTOR, DETECTOR, ())


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param("", id="empty"),
        pytest.param('{"sequence":', id="half written"),
        pytest.param('{"unknown":1}', id="of another version"),
        pytest.param(dumps(MonitorState(watch=WATCH)).replace('"alarmAt":100000.0', '"alarmAt":0.0'),
                     id="with a value that a detector refuses"),
    ],
)  # fmt: skip
def test_damaged_state_is_no_state(tmp_path: Path, damage: str) -> None:
    (tmp_path / "state.json").write_text(damage)
    assert StateStore(tmp_path).state == MonitorState()


@pytest.mark.parametrize(
    ("text", "count"),
    [pytest.param(None, 0, id="no file"), pytest.param("3\n", 3, id="three"), pytest.param("x", 0, id="no number")],
)
def test_restarts(tmp_path: Path, text: str | None, count: int) -> None:
    if text is not None:
        (tmp_path / "restarts").write_text(text)
    assert read_restarts(tmp_path) == count


@pytest.mark.parametrize(
    ("argv", "environ", "port"),
    [
        pytest.param([], {}, 8080, id="the contract's port"),
        pytest.param([], {"R1PLUS_MONITOR_PORT": "9"}, 9, id="the environment over the contract"),
        pytest.param(["--port=7"], {"R1PLUS_MONITOR_PORT": "9"}, 7, id="a flag over the environment"),
    ],
)
def test_where_settings_come_from(argv: list[str], environ: dict[str, str], port: int) -> None:
    found = read_config(argv, environ)
    assert (found.port, found.triton_grpc) == (port, "127.0.0.1:8001")


def test_a_log_line_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    log("info", "Gate decided", verdict=Verdict.PASS, detail="two\nlines")
    (line,) = capsys.readouterr().err.splitlines()
    found = json.loads(line)
    assert (found["level"], found["message"], found["verdict"], found["detail"]) == (
        "info", "Gate decided", "Pass", "two\nlines",
    )  # fmt: skip


async def test_logs_hold_no_prompt_and_no_answer(exposition: Exposition, capsys: pytest.CaptureFixture[str]) -> None:
    async def behave(prompt: str, before: int) -> ProbeReply:
        return dataclasses.replace(ProbeReply("SECRET ANSWER", "stop"), failure=Failure.SERVER_ERROR, detail="error")

    item = Item("i", "additions", "SECRET PROMPT", "exact", ("yes",))
    await Prompter(ScriptedEngine(behaviour=behave), {"i": item}, SuiteSampling(), exposition).ask("i")
    logged = capsys.readouterr().err
    assert '"error"' in logged
    assert "SECRET" not in logged
