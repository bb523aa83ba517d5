"""The engine's heartbeat: a process that hangs falls silent, and a long prompt or a first compilation is not late."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from r1plus_contract.engine.heartbeat import measure_lateness, read_uptime
from r1plus_model_repo.backends import engine_loop
from r1plus_model_repo.backends.engine_loop import Job
from r1plus_model_repo.backends.heartbeat import (
    FIRST_SECONDS,
    IDLE_SECONDS,
    PASS_SECONDS,
    LoopHeartbeat,
    limit_pass,
)
from support.model_repo.fake_engine import SECONDS, FakeEngine, LoopStage
from support.tables import for_each
from support.waiting import wait_until


def read_due(path: Path) -> int:
    return int(path.read_text())


class Uptime:
    """A machine's uptime that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class SeenEngine(FakeEngine):
    """Notes by when the heartbeat was due in each step."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.dues: list[int] = []

    def step(self) -> None:
        self.dues.append(read_due(self.path) - 1000)
        super().step()


def run_loop(path: Path, *prompts: tuple[str, int]) -> list[int]:
    """Answer prompts of so many tokens one after the other; return in how many seconds each step was due."""
    engine = SeenEngine(path)
    stage = LoopStage(engine, 1, heartbeat=LoopHeartbeat(path, Uptime()))
    for text, tokens in prompts:
        stage.submit(Job(text, tokens, None))
    stage.run()
    return engine.dues


def test_a_first_compilation_is_not_late_and_later_steps_are_due_soon(tmp_path: Path) -> None:
    assert run_loop(tmp_path / "beat", ("abc", 5)) == [FIRST_SECONDS, PASS_SECONDS, PASS_SECONDS]


def test_a_long_prompt_is_not_late_before_its_first_token(tmp_path: Path) -> None:
    dues = run_loop(tmp_path / "beat", ("a", 5), ("bc", 4000))
    assert dues == [FIRST_SECONDS, PASS_SECONDS + 400, PASS_SECONDS]


@for_each("tokens, has_generated, seconds", {
    "the first request": (1, False, FIRST_SECONDS),
    "answers that go on": (0, True, PASS_SECONDS),
    "a prompt": (100, True, PASS_SECONDS + 10),
    "a prompt of any length": (10**6, True, FIRST_SECONDS),
})  # fmt: skip
def test_how_long_a_pass_may_take(tokens: int, has_generated: bool, seconds: float) -> None:
    assert limit_pass(tokens, has_generated=has_generated) == seconds


class HangingEngine(FakeEngine):
    """Hangs in a step until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.is_stepping, self.go = threading.Event(), threading.Event()

    def step(self) -> None:
        self.is_stepping.set()
        assert self.go.wait(SECONDS)
        super().step()


def test_a_step_that_hangs_is_late_while_work_runs(tmp_path: Path) -> None:
    path, uptime, engine = tmp_path / "beat", Uptime(), HangingEngine()
    stage = LoopStage(engine, 1, heartbeat=LoopHeartbeat(path, uptime))
    stage.submit(Job("ab", 5, None))
    stage.loop.start()
    assert engine.is_stepping.wait(SECONDS)
    uptime.now += FIRST_SECONDS + 1
    assert read_due(path) < uptime.now
    engine.go.set()
    stage.close()
    assert read_due(path) > uptime.now, "it went on"


def wait_for_beat(path: Path, uptime: Uptime) -> None:
    wait_until(lambda: path.exists() and read_due(path) > uptime.now, "a beat", SECONDS)


@pytest.fixture
def short_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_loop, "IDLE_SECONDS", 0.01)


def test_an_idle_loop_beats_without_any_request(tmp_path: Path, short_idle: None) -> None:
    path, uptime = tmp_path / "beat", Uptime()
    stage = LoopStage(FakeEngine(), 1, heartbeat=LoopHeartbeat(path, uptime))
    stage.loop.start()
    wait_for_beat(path, uptime)
    uptime.now += PASS_SECONDS + 1
    wait_for_beat(path, uptime)
    stage.close()
    assert IDLE_SECONDS < PASS_SECONDS / 10


def test_a_request_that_hangs_before_the_loop_is_late_though_the_loop_is_idle(tmp_path: Path, short_idle: None) -> None:
    path, uptime = tmp_path / "beat", Uptime()
    heartbeat = LoopHeartbeat(path, uptime)
    stage = LoopStage(FakeEngine(), 1, heartbeat=heartbeat)
    heartbeat.begin_request()
    stage.loop.start()
    wait_for_beat(path, uptime)
    uptime.now += PASS_SECONDS + 1
    beats = []
    heartbeat._uptime = lambda: beats.append(0) or uptime.now
    wait_until(lambda: len(beats) > 5, "beats of the idle loop", SECONDS)
    assert read_due(path) < uptime.now
    heartbeat.end_request()
    wait_for_beat(path, uptime)
    stage.close()


def remove_folder(path: Path) -> None:
    path.parent.rmdir()


def test_what_an_earlier_process_left_is_no_lateness(tmp_path: Path) -> None:
    path = tmp_path / "beat"
    path.write_text("000000000001\n")
    assert measure_lateness(path) == int(read_uptime()) - 1
    LoopHeartbeat(path)
    assert not path.exists()
    assert measure_lateness(path) == 0


@for_each("break_it", {"its folder is gone": remove_folder, "it is a folder": Path.mkdir})
def test_a_heartbeat_that_cannot_be_written_ends_no_engine(
    tmp_path: Path, break_it: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "folder" / "beat"
    path.parent.mkdir()
    heartbeat = LoopHeartbeat(path)
    break_it(path)
    for _ in range(2):
        heartbeat.beat(PASS_SECONDS)
    assert capsys.readouterr().err.count("a hanging engine is not noticed") == 1
    assert measure_lateness(path) == 0


def test_one_beat_a_second_is_written(tmp_path: Path) -> None:
    path, uptime = tmp_path / "beat", Uptime()
    heartbeat = LoopHeartbeat(path, uptime)
    heartbeat.beat(PASS_SECONDS)
    path.write_text("")
    uptime.now += 0.5
    heartbeat.beat(PASS_SECONDS)
    assert path.read_text() == ""
    uptime.now += 0.5
    heartbeat.beat(PASS_SECONDS)
    assert read_due(path) == uptime.now + PASS_SECONDS
