"""Many at once: batching, cancellation, what is counted, and what happens when the engine dies."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from engine.asking import Client
from engine.conftest import BATCH, Server, until

pytestmark = pytest.mark.triton

STORY = "Tell me a long story about a lighthouse."
RUNNING = "r1plus_engine_running_requests"
WAITING = "r1plus_engine_waiting_requests"


def ended(server: Server, result: str) -> float:
    return server.metric(f'r1plus_engine_requests_total{{model="r1plus",result="{result}"}}') or server.metric(
        f'r1plus_engine_requests_total{{result="{result}"}}'
    )


def questions(count: int, tokens: int = 24) -> list[dict[str, object]]:
    return [{"prompt": f"{STORY} Number {n}.", "max_new_tokens": tokens} for n in range(count)]


@pytest.mark.parametrize("count", [1, 2, 8, 32, 48], ids="{} at once".format)
def test_all_of_many_are_answered_also_beyond_the_batch(ask: Client, count: int) -> None:
    answers = ask.all(questions(count, tokens=8))
    assert [answer.error for answer in answers] == [""] * count
    assert all(answer.tokens == 8 for answer in answers)


def test_thirty_two_at_once_take_far_less_than_thirty_two_times_one(ask: Client) -> None:
    ask.all(questions(2))
    started = time.monotonic()
    ask.all(questions(1))
    one = time.monotonic() - started
    started = time.monotonic()
    ask.all(questions(32))
    many = time.monotonic() - started
    assert many < 32 * one / 2, f"one took {one:.2f} s, 32 at once {many:.2f} s"


def test_a_short_request_does_not_wait_for_the_long_ones_before_it(ask: Client) -> None:
    long = [ask.begin(prompt=f"{STORY} {n}", max_new_tokens=200) for n in range(4)]
    short = ask.begin(prompt="Hi", max_new_tokens=2)
    while not short.ended_at:
        ask.take()
    assert not any(answer.ended_at for answer in long)
    ask.hang_up()


def test_one_at_a_time_past_the_batch_wait_their_turn(ask: Client, server: Server) -> None:
    for question in questions(BATCH + 8, tokens=64):
        ask.begin(**question)  # type: ignore[arg-type]
    until(lambda: server.metric(WAITING) > 0 and server.metric(RUNNING) == BATCH, 30)
    ask.hang_up()
    until(lambda: server.metric(WAITING) == 0 == server.metric(RUNNING), 30)


def test_who_hangs_up_frees_the_slots_at_once(ask: Client, server: Server) -> None:
    """Control: the same requests left alone run on."""
    for question in questions(BATCH, tokens=400):
        ask.begin(**question)  # type: ignore[arg-type]
    until(lambda: server.metric(RUNNING) == BATCH, 30)
    for _ in range(BATCH * 3):
        ask.take()
    assert server.metric(RUNNING) == BATCH, "left alone, they run on"
    before = ended(server, "cancelled")
    ask.hang_up()
    started = time.monotonic()
    assert ask("Hi", max_new_tokens=2).error == ""
    served = time.monotonic() - started
    until(lambda: ended(server, "cancelled") == before + BATCH, 30)
    until(lambda: server.metric(RUNNING) == 0, 30)
    assert served < 30


def test_the_server_counts_tokens_and_results(ask: Client, server: Server) -> None:
    text = server.get("/metrics", metrics=True) or ""
    for series in ("r1plus_engine_tokens_total", "r1plus_engine_time_to_first_token_seconds_bucket", RUNNING, WAITING):
        assert series in text
    ok, refused = ended(server, "ok"), ended(server, "refused")
    ask("Hi", max_new_tokens=3)
    ask("Hi", max_new_tokens=0)
    until(lambda: (ended(server, "ok"), ended(server, "refused")) == (ok + 1, refused + 1), 10)


LOST_ENGINE = """
import time

from r1plus_model_repo.backends.engine_loop import EngineLoop, Job
from r1plus_model_repo.backends.guard import end_server
from r1plus_model_repo.backends.openvino_genai import TritonReply
from r1plus_model_repo.backends.triton_metrics import TritonMeters


class Broken:
    def add(self, job):
        return self

    def decode(self, ids):
        return ""

    def step(self):
        raise RuntimeError("out of memory in a kernel")


class TritonPythonModel:
    def initialize(self, args):
        self._loop = EngineLoop(Broken(), TritonMeters(), max_batch=4, clock=time.monotonic, on_death=end_server)
        self._loop.start()

    def execute(self, requests):
        for request in requests:
            self._loop.submit(Job(None, 1, None), TritonReply(request.get_response_sender()))
"""


class TestLostEngine:
    """Nobody waits for ever, and the server ends, so that the container restarts: a kubelet sees nothing else of it."""

    def test_a_killed_engine_process_ends_open_requests_and_the_server(
        self, tmp_path: Path, installed: Path, models: Path
    ) -> None:
        server = Server(tmp_path, installed, models)
        try:
            server.until_ready()
            with Client(server.grpc) as ask:
                ask.begin(prompt=STORY, max_new_tokens=400)
                ask.take()
                for pid in server.children():
                    os.kill(pid, signal.SIGKILL)
                assert ask.until_error(180).error
            until(lambda: server.process.poll() is not None, 90)
        finally:
            server.end()

    def test_an_engine_that_stops_answers_all_with_an_error_and_ends_the_server(
        self, tmp_path: Path, installed: Path, models: Path
    ) -> None:
        repository = tmp_path / "models"
        shutil.copytree(models, repository)
        (repository / "r1plus" / "1" / "model.py").write_text(LOST_ENGINE)
        server = Server(tmp_path, installed, repository)
        try:
            server.until_ready()
            with Client(server.grpc) as ask:
                assert "out of memory in a kernel; the server is restarting" in ask(STORY).error
            until(lambda: server.process.poll() is not None, 60)
        finally:
            server.end()

    def test_a_server_that_is_asked_to_end_finishes_its_answers(
        self, tmp_path: Path, installed: Path, models: Path
    ) -> None:
        """The exit status is not asserted: after a stream that was open at SIGTERM, Triton 2.51 now and then holds the
        model until its exit timeout, without ever calling `finalize`. The pod's grace period is longer than that."""
        server = Server(tmp_path, installed, models)
        try:
            server.until_ready()
            with Client(server.grpc) as ask:
                answer = ask.begin(prompt=STORY, max_new_tokens=8)
                ask.take()
                server.process.send_signal(signal.SIGTERM)
                while not answer.ended_at:
                    ask.take(60)
                assert (answer.error, answer.tokens) == ("", 8)
            until(lambda: server.process.poll() is not None, 60)
        finally:
            server.end()

    def test_an_idle_server_that_is_asked_to_end_does_so_cleanly(
        self, tmp_path: Path, installed: Path, models: Path
    ) -> None:
        server = Server(tmp_path, installed, models)
        try:
            server.until_ready()
            with Client(server.grpc) as ask:
                assert ask("Hello", max_new_tokens=2).error == ""
            server.process.send_signal(signal.SIGTERM)
            until(lambda: server.process.poll() is not None, 60)
            assert server.process.returncode == 0
        finally:
            server.end()
