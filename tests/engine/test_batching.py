"""Many at once: batching, cancellation, what is counted, and what happens when the engine dies."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from r1plus_contract.inference import QUEUE_FULL
from r1plus_edge.pods.processes import has_ended
from r1plus_model_repo.backends.engine_loop import WAITING_PER_SLOT
from support.engine.client import LONG_STORY, Client
from support.engine.server import BATCH, Server, serving
from support.waiting import wait_until

pytestmark = [pytest.mark.triton, pytest.mark.timeout(1500)]

STORY = "Tell me a long story about a lighthouse."
RUNNING = "r1plus_engine_running_requests"
WAITING = "r1plus_engine_waiting_requests"
GENERATED = 'r1plus_engine_tokens_total{direction="completion"}'


def questions(count: int, tokens: int = 24) -> list[dict[str, object]]:
    return [{"prompt": LONG_STORY.format(n), "max_new_tokens": tokens} for n in range(count)]


@pytest.mark.parametrize("count", [1, 2, 8, 32, 48], ids="{} at once".format)
def test_all_of_many_are_answered_also_beyond_the_batch(ask: Client, count: int) -> None:
    answers = ask.all(questions(count, tokens=8))
    assert [answer.error for answer in answers] == [""] * count
    assert all(answer.tokens == 8 for answer in answers)


def test_thirty_two_at_once_take_far_less_than_thirty_two_times_one(ask: Client, server: Server) -> None:
    """Measured in seconds of the processor, which other processes do not lengthen."""
    ask.all(questions(2))
    started = server.processor_seconds()
    ask.all(questions(1))
    one = server.processor_seconds() - started
    started = server.processor_seconds()
    answers = ask.all(questions(32))
    many = server.processor_seconds() - started
    assert many < 32 * one / 2, f"one took {one:.2f} s of the processor, 32 at once {many:.2f} s"
    last_begin = max(answer.came_at[0] for answer in answers)
    assert last_begin < min(answer.ended_at for answer in answers), "they ran one after the other"


def test_a_short_request_does_not_wait_for_the_long_ones_before_it(ask: Client) -> None:
    long = [ask.begin(prompt=LONG_STORY.format(n), max_new_tokens=200) for n in range(4)]
    short = ask.begin(prompt="Hi", max_new_tokens=2)
    ask.take_until_ended(short)
    assert not any(answer.ended_at for answer in long)
    ask.hang_up()


def test_one_at_a_time_past_the_batch_wait_their_turn(ask: Client, server: Server) -> None:
    for question in questions(BATCH + 8, tokens=400):
        ask.begin(**question)  # type: ignore[arg-type]
    wait_until(lambda: server.metric(WAITING) > 0 and server.metric(RUNNING) == BATCH, "a full batch and a queue")
    ask.hang_up()
    wait_until(lambda: server.metric(WAITING) == 0 == server.metric(RUNNING), "all have left")


def test_a_full_queue_is_reported_at_once_and_empties(ask: Client, server: Server) -> None:
    """The first word and the status are what clients go by. Some answers end while the queue fills: more come than fit."""
    before = server.requests("queue_full")
    for question in questions(BATCH * (1 + WAITING_PER_SLOT) + 4 * BATCH, tokens=400):
        ask.begin(**question)  # type: ignore[arg-type]
    error = ask.take_refusal()
    assert f"{QUEUE_FULL}: the engine has" in error
    assert "try again later" in error
    assert server.metric(WAITING) > 0, "a refusal comes before the others are answered"
    ask.hang_up()
    wait_until(lambda: server.metric(WAITING) == 0 == server.metric(RUNNING), "all have left")
    assert ask("Hi", max_new_tokens=2).error == ""
    assert server.requests("queue_full") > before


def test_who_hangs_up_frees_the_slots_at_once(ask: Client, server: Server) -> None:
    """Control: the same requests left alone run on."""
    for question in questions(BATCH, tokens=400):
        ask.begin(**question)  # type: ignore[arg-type]
    server.until_metric(RUNNING, BATCH)
    for _ in range(BATCH * 3):
        ask.take()
    assert server.metric(RUNNING) == BATCH, "left alone, they run on"
    before, generated = server.requests("cancelled"), server.metric(GENERATED)
    ask.hang_up()
    assert ask("Hi", max_new_tokens=2).error == ""
    wait_until(lambda: server.requests("cancelled") == before + BATCH, "all of the batch are cancelled")
    server.until_metric(RUNNING, 0)
    assert server.metric(GENERATED) - generated < BATCH * 400 / 2, "they ran on"


def test_the_server_counts_tokens_and_results(ask: Client, server: Server) -> None:
    text = server.get("/metrics", metrics=True) or ""
    for series in ("r1plus_engine_tokens_total", "r1plus_engine_time_to_first_token_seconds_bucket", RUNNING, WAITING):
        assert series in text
    ok, refused = server.requests("ok"), server.requests("refused")
    ask("Hi", max_new_tokens=3)
    ask("Hi", max_new_tokens=0)
    wait_until(lambda: (server.requests("ok"), server.requests("refused")) == (ok + 1, refused + 1), "both are counted")


class TestLostEngine:
    """Nobody waits for ever, and the server ends, so that the container restarts: a kubelet sees nothing else of it."""

    @pytest.fixture
    def own_server(self, tmp_path: Path, installed: Path, models: Path, engine_python: str) -> Iterator[Server]:
        with serving(Server(tmp_path, installed, models, python=engine_python)) as running:
            yield running

    def test_a_killed_engine_process_ends_open_requests_and_the_server(
        self, tmp_path: Path, installed: Path, models: Path, engine_python: str
    ) -> None:
        with serving(Server(tmp_path, installed, models, python=engine_python)) as server:
            with Client(server.grpc) as ask:
                answer, below = ask.begin(prompt=STORY, max_new_tokens=400), server.descendants()
                ask.take()
                for pid in server.children():
                    os.kill(pid, signal.SIGKILL)
                assert ask.take_until_ended(answer).error
            server.until_ended()
            # vLLM's EngineCore outlives a parent that is killed; the rest of a container ends with its first process.
            server.end()
            wait_until(lambda: all(map(has_ended, below)), "no process of the engine is left")

    def test_a_server_that_is_asked_to_end_finishes_its_answers(self, own_server: Server) -> None:
        """The exit status is not asserted: after a stream that was open at SIGTERM, Triton 2.51 now and then holds the
        model until its exit timeout, without ever calling `finalize`. The pod's grace period is longer than that."""
        with Client(own_server.grpc) as ask:
            answer = ask.begin(prompt=STORY, max_new_tokens=8)
            ask.take()
            own_server.process.send_signal(signal.SIGTERM)
            ask.take_until_ended(answer)
            assert (answer.error, answer.tokens) == ("", 8)
        own_server.until_ended()

    def test_an_idle_server_that_is_asked_to_end_does_so_cleanly(self, own_server: Server) -> None:
        with Client(own_server.grpc) as ask:
            assert ask("Hello", max_new_tokens=2).error == ""
        own_server.until_callers_left()
        own_server.process.send_signal(signal.SIGTERM)
        own_server.until_ended()
        # Now and then Triton 2.51 holds the model until its exit timeout, without ever calling `finalize`, and says so.
        assert own_server.process.returncode == 0 or "Exit timeout expired" in own_server.last_words()
