"""The engine's loop against fakes: who runs, who waits, who is let go, and what happens when the engine fails."""

import threading

import pytest

from r1plus_contract.inference import FinishReason
from r1plus_model_repo.backends.engine_loop import Job
from support.model_repo.fake_engine import SECONDS, FakeClient, FakeEngine, LoopStage


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
