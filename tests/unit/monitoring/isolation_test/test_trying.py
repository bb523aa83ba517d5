"""When a try is believed: by a clock of the test's own, so that half a minute takes no time."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1plus_contract.monitor.isolation import AttemptFinding, AttemptOutcome
from r1plus_monitoring.isolation_test.attempts import (
    EXPECT_ANSWER,
    EXPECT_OPEN,
    EXPECT_SHUT,
    PAUSE_SECONDS,
    Attempt,
    Expectation,
    Network,
    Rounds,
    attempt_until_settled,
)

pytestmark = pytest.mark.first_run_counts

S, O, F = AttemptOutcome.SHUT, AttemptOutcome.OPEN, AttemptOutcome.FAILED  # noqa: E741


@dataclass
class World:
    """Attempts end as written, the last one for ever; each takes a quarter of a second."""

    ends: list[AttemptOutcome]
    began: float = 1000.0
    time: float = 1000.0
    attempts: int = 0
    heard: list[str] = field(default_factory=list)

    def now(self) -> float:
        return self.time

    async def pause(self, seconds: float) -> None:
        self.time += seconds

    async def attempt(self) -> Attempt:
        self.time += 0.25
        self.attempts += 1
        if self.attempts == self.opens:
            self.network.open_since = self.time
        outcome = self.ends[min(self.attempts, len(self.ends)) - 1]
        return Attempt(outcome, f"attempt {self.attempts}")

    opens: int | None = 0
    """During which attempt the pod's own connection succeeds; 0: it has before the first, None: it never does."""
    network: Network = field(default_factory=lambda: Network(1000.0, open_since=None))

    async def tried(self, wish: Expectation, seconds: float = 30.0) -> AttemptFinding:
        rounds = Rounds(seconds, self.now, self.pause, self.heard.append)
        self.network.start = self.began
        if self.opens == 0:
            self.network.open_since = self.began
        return await attempt_until_settled("connection", wish, self.attempt, rounds, self.network)


@pytest.mark.parametrize(
    ("wish", "ends", "outcome", "attempts", "late"),
    [
        pytest.param(EXPECT_SHUT, [S], S, 3, 0, id="a wall that stands is seen three times"),
        pytest.param(EXPECT_SHUT, [O, S], S, 4, 250, id="a wall that comes late is late"),
        pytest.param(EXPECT_SHUT, [O, O, O, S], S, 6, 1750, id="for as long as it was seen open"),
        pytest.param(EXPECT_SHUT, [S, O, S], S, 5, 1000, id="a wall that falls once more is tried anew"),
        pytest.param(EXPECT_SHUT, [S, S, O, S], S, 6, 1750, id="even at the third time"),
        pytest.param(EXPECT_SHUT, [F, S], S, 4, 0, id="a name that resolves later"),
        pytest.param(EXPECT_SHUT, [S, F, S], S, 5, 0, id="a failure in between shows no wall"),
        pytest.param(EXPECT_SHUT, [O], O, 41, 30250, id="a wall that never comes"),
        pytest.param(EXPECT_SHUT, [F], F, 41, 0, id="a name that never resolves"),
        pytest.param(EXPECT_SHUT, [O, F], F, 41, 250, id="it was open, and then nobody could say"),
        pytest.param(
            EXPECT_SHUT, [O] * 39 + [S], S, 42, 28750, id="what is shut when the time is up is tried to the end"
        ),
        pytest.param(EXPECT_SHUT, [O] * 40 + [S, O], O, 42, 31000, id="and found open after it"),
        pytest.param(EXPECT_SHUT, [O] * 40 + [S, F], F, 42, 29500, id="and found to say nothing after it"),
        pytest.param(EXPECT_SHUT, [S, O] * 40, O, 42, 31000, id="a wall that flaps is open"),
        pytest.param(EXPECT_OPEN, [O], O, 1, 0, id="a connection that is open is believed"),
        pytest.param(EXPECT_OPEN, [S, F, O], O, 3, 0, id="a connection that opens later"),
        pytest.param(EXPECT_OPEN, [S], S, 41, 0, id="a connection that never opens"),
        pytest.param(EXPECT_OPEN, [F], F, 41, 0, id="a connection that cannot be found"),
        pytest.param(EXPECT_ANSWER, [S], S, 1, 0, id="a refusal is an answer"),
        pytest.param(EXPECT_ANSWER, [O], O, 1, 0, id="so is the contrary"),
        pytest.param(EXPECT_ANSWER, [F, F, S], S, 3, 0, id="no answer is asked for again"),
        pytest.param(EXPECT_ANSWER, [F], F, 41, 0, id="no answer at all"),
    ],
)
async def test_a_try_settles(
    wish: Expectation, ends: list[AttemptOutcome], outcome: AttemptOutcome, attempts: int, late: int
) -> None:
    world = World(ends)
    assert await world.tried(wish) == AttemptFinding("connection", outcome, late, f"attempt {attempts}")
    assert len(world.heard) == attempts


@pytest.mark.parametrize(
    ("ends", "opens", "outcome", "attempts", "late"),
    [
        pytest.param([S], 5, S, 8, 0, id="is blocked three times more once the network is there"),
        pytest.param([S, S, S, O], 3, O, 43, 31750, id="is open as soon as there is a network"),
        pytest.param([O, S], 5, S, 8, 250, id="was open before its own connection"),
        pytest.param([O, O, O, S], 100, S, 103, 1750, id="is tried to the end of the longer time"),
        pytest.param([S], 120, S, 123, 0, id="has a network at the last moment"),
        pytest.param([S], None, S, 121, 0, id="never has a network"),
        pytest.param([O], None, O, 121, 90250, id="is open, and its own connection is not"),
    ],
)
async def test_what_is_blocked_before_a_pod_has_a_network_is_tried_again_when_it(
    ends: list[AttemptOutcome], opens: int | None, outcome: AttemptOutcome, attempts: int, late: int
) -> None:
    world = World(ends, opens=opens)
    assert await world.tried(EXPECT_SHUT) == AttemptFinding("connection", outcome, late, f"attempt {attempts}")


async def test_each_attempt_is_told_to_people() -> None:
    world = World([O, S])
    await world.tried(EXPECT_SHUT)
    assert world.heard[:2] == ["   0.2 s  connection: open, attempt 1", "   1.0 s  connection: shut, attempt 2"]


async def test_time_counts_from_the_processs_beginning() -> None:
    """It may have begun before its first attempt."""
    world = World([O, S], time=1020.0)
    assert await world.tried(EXPECT_SHUT) == AttemptFinding("connection", S, 20250, "attempt 4")
    world = World([O], time=1029.9)
    assert (await world.tried(EXPECT_SHUT)).d == "attempt 1"


async def test_the_time_is_up_at_its_end() -> None:
    world = World([O])
    assert await world.tried(EXPECT_SHUT, seconds=1.0) == AttemptFinding("connection", O, 1000, "attempt 2")


async def test_an_open_policy_is_late_by_something() -> None:
    """0 says that it never was open."""
    world = World([O, S], began=1000.2499)
    assert (await world.tried(EXPECT_SHUT)).late == 1


@given(
    st.lists(st.sampled_from(AttemptOutcome), min_size=1, max_size=60),
    st.sampled_from([EXPECT_SHUT, EXPECT_OPEN, EXPECT_ANSWER]),
    st.floats(0, 40),
)
async def test_every_try_ends_soon_after_its_time(
    ends: list[AttemptOutcome], wish: Expectation, seconds: float
) -> None:
    world = World(ends)
    found = await world.tried(wish, seconds)
    assert world.time - world.began <= seconds + 3 * (PAUSE_SECONDS + 0.25)
    assert found.o is world.ends[min(world.attempts, len(ends)) - 1]
    if found.o is S and wish is EXPECT_SHUT:
        assert [ends[min(k, len(ends) - 1)] for k in range(world.attempts)][-3:] == [S, S, S]
