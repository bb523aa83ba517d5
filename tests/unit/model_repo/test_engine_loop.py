"""The engine's loop against fakes: who runs, who waits, who is let go, and what happens when the engine fails."""

import threading

import pytest

from r1plus_contract.inference import QUEUE_FULL, FinishReason
from r1plus_model_repo.backends.engine_loop import (
    CANCEL_LOOKS,
    DRAIN_SECONDS,
    LEAST_WAITING,
    MOST_WAITING_TOKENS,
    Job,
)
from support.model_repo.fake_engine import SECONDS, FakeClient, FakeEngine, FakeHandle, LoopStage
from support.waiting import wait_until


class Stage(LoopStage):
    """A loop with a fake engine."""

    def __init__(self, engine: FakeEngine, max_batch: int = 2) -> None:
        super().__init__(engine, max_batch)
        self.engine = engine

    def ask(self, text: str, stop: tuple[str, ...] = ()) -> FakeClient:
        return self.submit(Job(text, 5, None, stop))


def test_all_are_answered_with_reason_and_counts() -> None:
    stage = Stage(FakeEngine())
    clients = [stage.ask(text) for text in ("one", "three", "a")]
    stage.run()
    assert [client.text for client in clients] == ["one", "three", "a"]
    assert [client.end for client in clients] == [(FinishReason.LENGTH, 5, n) for n in (3, 5, 1)]
    assert stage.meters.results == ["ok"] * 3
    assert stage.meters.counted == {"prompt": 15, "completion": 9}
    assert len(stage.meters.first) == 3


def test_the_tokens_of_a_step_are_counted_at_once() -> None:
    stage = Stage(FakeEngine(), 3)
    for text in ("abc", "abcd", "ab"):
        stage.ask(text)
    stage.run()
    assert [count for direction, count in stage.meters.counts if direction == "completion"] == [3, 3, 2, 1]


def test_the_first_piece_has_the_tokens_of_the_prompt() -> None:
    """A stream that is cut has a bill all the same."""
    stage = Stage(FakeEngine())
    client = stage.ask("three")
    stage.run()
    assert client.counts == [(5, n) for n in (1, 2, 3, 4)]


class TimedEngine(FakeEngine):
    """An engine whose steps take time, and nothing else does."""

    def __init__(self, step_seconds: float) -> None:
        super().__init__()
        self.step_seconds = step_seconds

    def now(self) -> float:
        return self.step_seconds * self.steps


def answer_at_once(count: int, step_seconds: float, stop: tuple[str, ...] = ()) -> list[FakeClient]:
    """Return the clients of so many answers of 20 tokens that run together."""
    engine = TimedEngine(step_seconds)
    stage = LoopStage(engine, count, clock=engine.now)
    clients = [stage.submit(Job("abcdefghijklmnopqrst", 5, None, stop)) for _ in range(count)]
    stage.run()
    return clients


@pytest.mark.parametrize(
    ("count", "step_seconds", "sizes"),
    [
        (1, 0.05, [1] * 20),
        (7, 0.05, [1] * 20),
        (8, 0.05, [1, *[2] * 9, 1]),
        (16, 0.05, [1, *[4] * 4, 3]),
        (32, 0.03125, [1, 8, 8, 3]),
        (32, 0.0625, [1, *[5] * 3, 4]),
        (32, 0.5, [1] * 20),
    ],
    ids=[
        "one gets each token at once",
        "so do a few",
        "more get two together",
        "a batch of 16 gets four together",
        "a batch of 32 gets eight together",
        "not so many where they take longer",
        "each at once where a step takes long",
    ],
)
def test_the_more_run_the_fewer_pieces_an_answer_has(count: int, step_seconds: float, sizes: list[int]) -> None:
    for client in answer_at_once(count, step_seconds):
        assert [len(piece) for piece in client.pieces] == sizes
        assert client.text == "abcdefghijklmnopqrst"
        assert client.counts == [(5, sum(sizes[: n + 1])) for n in range(len(sizes) - 1)]
        assert client.usage == (5, 20)


def test_a_stop_string_within_a_piece_ends_the_answer_at_its_token() -> None:
    for client in answer_at_once(32, 0.03125, stop=("klm",)):
        assert client.pieces == ["a", "bcdefghi", "j"]
        assert client.end == (FinishReason.STOP, 5, 13)
        assert client.usage == (5, 13)


def test_an_answer_whose_neighbours_have_ended_gets_each_token_at_once() -> None:
    engine = TimedEngine(0.03125)
    stage = LoopStage(engine, 32, clock=engine.now)
    client = stage.submit(Job("abcdefghijkl", 5, None))
    for _ in range(31):
        stage.submit(Job("abcd", 5, None))
    stage.run()
    assert client.pieces == ["a", "bcde", *"fghijkl"]


def test_a_client_that_left_between_two_pieces_has_used_what_was_counted() -> None:
    class LeavingEngine(TimedEngine):
        def step(self) -> None:
            super().step()
            if self.steps == 6:
                clients[0].hung_up.set()

    engine = LeavingEngine(0.03125)
    stage = LoopStage(engine, 32, clock=engine.now)
    clients = [stage.submit(Job("abcdefghij", 5, None)) for _ in range(32)]
    stage.run()
    assert (clients[0].text, clients[0].end) == ("a", (FinishReason.CANCELLED, 5, 5))
    assert clients[0].usage == (5, 5)
    assert stage.meters.counted["completion"] == 5 + 31 * 10


@pytest.mark.parametrize("at", ["start", "run"])
def test_what_the_engine_refuses_ends_that_request_alone(at: str) -> None:
    stage = Stage(FakeEngine(**{"refuses_alone": "bad"} if at == "start" else {"fails_alone": "bad"}), 1)
    bad, good = stage.ask("bad"), stage.ask("good")
    stage.run()
    assert bad.refusal == "grammar: cannot be compiled"
    assert (good.text, good.end) == ("good", (FinishReason.LENGTH, 5, 4))
    assert stage.meters.results == ["refused", "ok"]
    assert stage.deaths == []
    assert not stage.loop.is_full


@pytest.mark.parametrize("batch", [1, 2, 3, 8], ids="batch of {}".format)
def test_never_more_than_the_batch_run_at_once(batch: int) -> None:
    stage = Stage(FakeEngine(), batch)
    for n in range(9):
        stage.ask("x" * (n + 1))
    stage.run()
    assert stage.engine.largest == batch
    assert stage.meters.loads[-1] == (0, 0)
    assert max(running for running, _ in stage.meters.loads) == batch


def test_who_waits_takes_the_slot_that_becomes_free_first() -> None:
    stage = Stage(FakeEngine(), 2)
    long, short, waiting = stage.ask("x" * 50), stage.ask("ab"), stage.ask("cd")
    stage.run()
    assert (long.text, short.text, waiting.text) == ("x" * 50, "ab", "cd")
    assert stage.engine.steps == 50, "the third ran beside the first"


def test_a_stop_string_ends_the_generation_and_frees_its_slot() -> None:
    stage = Stage(FakeEngine())
    client = stage.ask("one two three", stop=("two",))
    stage.run()
    assert client.text == "one "
    assert client.end == (FinishReason.STOP, 5, 7)
    assert stage.engine.handles[0].is_cancelled


def test_a_stop_string_in_the_very_last_token_counts_as_stop() -> None:
    stage = Stage(FakeEngine())
    client = stage.ask("one two", stop=("two",))
    stage.run()
    assert (client.text, client.end) == ("one ", (FinishReason.STOP, 5, 7))


def test_who_hangs_up_is_let_go_within_a_step_and_the_other_is_not() -> None:
    gate = threading.Semaphore(0)
    stage = Stage(FakeEngine(gate=gate), 1)
    leaving, waiting_too, staying = stage.ask("x" * 1000), stage.ask("never"), stage.ask("stay")
    stage.loop.start()
    gate.release(3)
    wait_until(lambda: leaving.counts, "the first is running")
    leaving.hung_up.set()
    waiting_too.hung_up.set()
    gate.release(1000)
    stage.close()
    assert leaving.end is not None
    assert leaving.end[0] is FinishReason.CANCELLED
    assert stage.engine.handles[0].is_cancelled
    assert len(leaving.text) <= 5
    assert waiting_too.end == (FinishReason.CANCELLED, 5, 0)
    assert (staying.text, staying.end) == ("stay", (FinishReason.LENGTH, 5, 4))
    assert sorted(stage.meters.results) == ["cancelled", "cancelled", "ok"]


def test_what_a_step_made_for_who_left_during_it_is_neither_counted_nor_sent() -> None:
    gate = threading.Semaphore(0)
    stage = Stage(FakeEngine(gate=gate), 1)
    leaving = stage.ask("x" * 1000)
    stage.loop.start()
    gate.release(3)
    wait_until(lambda: len(leaving.counts) == 3, "three tokens are sent")
    leaving.hung_up.set()  # the fourth step waits for the gate
    gate.release(1000)
    stage.close()
    assert (leaving.text, leaving.end) == ("xxx", (FinishReason.CANCELLED, 5, 3))
    assert stage.meters.counted == {"prompt": 5, "completion": 3}


def test_usage_is_what_the_meters_counted_however_a_request_ends() -> None:
    stage = Stage(FakeEngine(fails_alone="bad"), 1)
    clients = [stage.ask(text) for text in ("whole", "bad", "never")]
    clients[2].hung_up.set()
    stage.run()
    assert [client.usage for client in clients] == [(5, 5), (5, 0), (0, 0)]
    assert stage.meters.counted == {"prompt": 10, "completion": 5}


def test_who_was_refused_in_the_step_that_loses_the_engine_gets_one_answer() -> None:
    class LostEngine(FakeEngine):
        def add(self, job: Job) -> FakeHandle:
            handle = super().add(job)
            handle.is_lost = job.prompt == "lost"
            return handle

    stage = Stage(LostEngine(fails_alone="bad"), 2)
    bad, lost = stage.ask("bad"), stage.ask("lost")
    stage.run()
    assert stage.died.wait(SECONDS)
    assert (bad.refusal, bad.failed) == ("grammar: cannot be compiled", "")
    assert "the engine stopped: read failed" in lost.failed
    assert stage.meters.results == ["refused", "error"]


FAILURES = {
    "a step fails": FakeEngine(fails_at=3),
    "the first step fails": FakeEngine(fails_at=1),
    "a request cannot be started": FakeEngine(refuses="third"),
}


@pytest.mark.parametrize("engine", FAILURES.values(), ids=FAILURES.keys())
def test_when_the_engine_is_lost_nobody_waits_for_ever(engine: FakeEngine) -> None:
    stage = Stage(engine, 2)
    clients = [stage.ask(text) for text in ("first", "second", "third", "fourth")]
    stage.loop.start()
    assert stage.died.wait(SECONDS)
    late = stage.ask("late")
    for client in [*clients, late]:
        assert client.over.wait(SECONDS)
        assert client.end is not None or "the engine stopped" in client.failed
    assert "the engine stopped" in late.failed
    assert len(stage.deaths) == 1
    assert stage.meters.results.count("error") == sum(bool(c.failed) for c in [*clients, late])


def test_closing_an_idle_loop_ends_it() -> None:
    stage = Stage(FakeEngine())
    stage.run()
    assert stage.engine.steps == 0


FULL = 2 + LEAST_WAITING
"""As many as run and wait at a batch of 2."""


def test_the_queue_is_bounded_and_says_so() -> None:
    stage = Stage(FakeEngine(), 2)
    taken, beyond = [stage.ask("ab") for _ in range(FULL)], [stage.ask("ab") for _ in range(1000)]
    assert stage.loop.is_full
    refusal = (
        f"{QUEUE_FULL}: the engine has {FULL} requests of {5 * FULL} prompt tokens, and takes {FULL} of"
        f" {2 * 128 + MOST_WAITING_TOKENS}; nothing was computed, try again later"
    )
    assert {client.turned_away for client in beyond} == {refusal}
    stage.run()
    assert [client.text for client in taken] == ["ab"] * FULL
    assert stage.meters.results == ["queue_full"] * 1000 + ["ok"] * FULL


@pytest.mark.parametrize("ends", ["answered", "hung up", "lost"])
def test_a_request_that_ends_makes_room(ends: str) -> None:
    gate = threading.Semaphore(0)
    engine = FakeEngine(gate=gate, fails_at=1 if ends == "lost" else 0)
    stage = Stage(engine, 2)
    clients = [stage.ask("ab") for _ in range(FULL)]
    for client in clients:
        if ends == "hung up":
            client.hung_up.set()
    gate.release(1000)
    stage.run()
    assert not stage.loop.is_full
    late = stage.ask("late")
    assert late.turned_away == ""


def test_prompts_that_wait_are_bounded_in_tokens() -> None:
    stage = Stage(FakeEngine(), 2)
    half = MOST_WAITING_TOKENS // 2 + 200
    clients = [stage.submit(Job("ab", half, None)) for _ in range(3)]
    assert [bool(client.turned_away) for client in clients] == [False, True, True]
    assert stage.ask("short").turned_away == ""
    stage.run()


def test_a_step_asks_few_of_those_that_wait_whether_they_hung_up() -> None:
    gate = threading.Semaphore(0)
    stage = Stage(FakeEngine(gate=gate), 1)
    stage.ask("x" * 4)
    waiting = [stage.ask("ab") for _ in range(LEAST_WAITING)]
    stage.loop.start()
    gate.release(1)
    wait_until(lambda: stage.engine.steps == 1, "a step")
    assert sum(client.looked_at for client in waiting) <= 2 * CANCEL_LOOKS
    waiting[-1].hung_up.set()
    gate.release(1000)
    stage.close()
    assert waiting[-1].end == (FinishReason.CANCELLED, 5, 0)
    assert [client.text for client in waiting[:-1]] == ["ab"] * (LEAST_WAITING - 1)


class FilledEngine(TimedEngine):
    """An engine that has to be renewed after some steps of a second, and notes when requests join."""

    def __init__(self, full_after: int) -> None:
        super().__init__(1.0)
        self.full_after = full_after
        self.joined_at: list[int] = []

    def add(self, job: Job) -> FakeHandle:
        self.joined_at.append(self.steps)
        return super().add(job)

    def renew(self) -> None:
        assert all(handle.sent == len(handle.text) for handle in self.handles)
        super().renew()


def run_filled(engine: FilledEngine, *texts: str) -> list[str]:
    stage = LoopStage(engine, 2, clock=engine.now)
    clients = [stage.submit(Job(text, 5, None)) for text in texts]
    stage.run()
    return [client.text for client in clients]


def test_an_engine_is_renewed_when_nothing_runs_and_before_the_next_request() -> None:
    engine = FilledEngine(full_after=4)
    assert run_filled(engine, "abcd", "abcd", "xy") == ["abcd", "abcd", "xy"]
    assert (engine.renewed_at, engine.joined_at) == ([4], [0, 0, 4])


def test_the_meters_show_the_memory_for_schemas_fill_up_and_emptied() -> None:
    engine = FilledEngine(full_after=2)
    stage = LoopStage(engine, 1, clock=engine.now)
    for text in ("ab", "x"):
        stage.submit(Job(text, 5, None))
    stage.run()
    assert stage.meters.schemas[:3] == [(0, 0.0), (1, 0.5), (0, 0.0)]


def test_an_engine_that_is_never_idle_is_drained_to_be_renewed() -> None:
    engine = FilledEngine(full_after=1)
    texts = ["ab", "abc"] * 10
    assert run_filled(engine, *texts) == texts
    assert (engine.renewed_at[0], engine.joined_at[:4]) == (3, [0, 0, 3, 3])


def test_a_long_answer_lets_the_others_wait_for_one_drain_only() -> None:
    engine = FilledEngine(full_after=1)
    texts = ["x" * 60, *["ab"] * 20]
    assert run_filled(engine, *texts) == texts
    begin = 1 + int(DRAIN_SECONDS)
    assert engine.joined_at == [0, 0, *range(begin, begin + 2 * 19, 2)]
    assert engine.renewed_at in ([], [60])


def test_a_request_that_finds_no_memory_for_its_schema_is_turned_away_alone() -> None:
    stage = Stage(FakeEngine(has_no_room_for="full"))
    full, other = stage.ask("full"), stage.ask("ab")
    stage.run()
    assert full.turned_away == "SchemaMemoryFull: grammar: no room"
    assert other.text == "ab"
    assert stage.meters.results == ["schema_memory_full", "ok"]
