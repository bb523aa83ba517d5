"""Knocking at real sockets on loopback."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

import pytest

from r1plus_contract.monitor.isolation import (
    BANNER,
    Against,
    AttemptFinding,
    AttemptOutcome,
    ConnectionTarget,
    Findings,
)
from r1plus_monitoring.isolation_test import decoy
from r1plus_monitoring.isolation_test.attempts import ROUNDS_SECONDS, Attempt, Rounds
from r1plus_monitoring.isolation_test.connections import attempt_connection, try_connections
from r1plus_monitoring.isolation_test.network import Address, resolve
from r1plus_monitoring.isolation_test.termination_message import encode_findings
from support.virtual_time import virtual_time
from support.waiting import DEADLINE_SECONDS

pytestmark = pytest.mark.first_run_counts

HERE = "127.0.0.1"
DECOY, PLATFORM, OWN = Against.DECOY, Against.PLATFORM, Against.OWN
SHUT, OPEN, FAILED = AttemptOutcome.SHUT, AttemptOutcome.OPEN, AttemptOutcome.FAILED
NO_NAME = "fe80::1%nowhere"
"""No server is asked for it: its scope is no interface of this machine."""


@pytest.fixture
async def cleanup() -> AsyncIterator[ExitStack]:
    """Whoever was greeted has gone before the loop does."""
    with ExitStack() as stack:
        yield stack
    if greetings := asyncio.all_tasks() - {asyncio.current_task()}:
        _, left = await asyncio.wait(greetings, timeout=DEADLINE_SECONDS)
        assert not left


def bound(cleanup: ExitStack, host: str = HERE, port: int = 0) -> socket.socket:
    """A port that is taken and refuses, until somebody listens."""
    one = cleanup.enter_context(socket.socket())
    one.bind((host, port))
    return one


def port_of(one: socket.socket) -> int:
    return int(one.getsockname()[1])


async def decoy_port(cleanup: ExitStack) -> int:
    (server,) = await decoy.listen((0,), HERE)
    cleanup.callback(server.close)
    return port_of(server.sockets[0])


async def says(cleanup: ExitStack, words: bytes, *, hang: bool = False, host: str = HERE) -> int:
    """Another server than the decoy."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(words)
        if hang:
            cleanup.callback(writer.transport.abort)
        else:
            writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(greet, host, 0)
    cleanup.callback(server.close)
    return port_of(server.sockets[0])


async def test_the_decoy_is_found(cleanup: ExitStack) -> None:
    port = await decoy_port(cleanup)
    assert await attempt_connection(ConnectionTarget("d", HERE, port, DECOY)) == Attempt(OPEN, f"{HERE} is the decoy")


async def test_the_decoy_says_who_it_is_and_closes(cleanup: ExitStack) -> None:
    reader, writer = await asyncio.open_connection(HERE, await decoy_port(cleanup))
    assert await reader.read() == BANNER
    writer.close()


@pytest.mark.parametrize("against", Against)
async def test_a_port_that_refuses_is_shut(cleanup: ExitStack, against: Against) -> None:
    port = port_of(bound(cleanup))
    assert await attempt_connection(ConnectionTarget("d", HERE, port, against)) == Attempt(
        SHUT, f"{HERE} connection refused"
    )


@pytest.mark.parametrize("against", [PLATFORM, OWN])
async def test_whoever_connects_is_through(cleanup: ExitStack, against: Against) -> None:
    listening = bound(cleanup)
    listening.listen()
    assert await attempt_connection(ConnectionTarget("d", HERE, port_of(listening), against)) == Attempt(
        OPEN, f"{HERE} connected"
    )


@pytest.mark.parametrize(
    ("words", "hang"),
    [
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", False, id="says something else"),
        pytest.param(b"", False, id="says nothing"),
        pytest.param(BANNER[:-1], False, id="says half of it"),
        pytest.param(BANNER[:-1], True, id="says half of it and waits"),
    ],
)
async def test_another_on_the_decoys_address_is_not_the_decoy(cleanup: ExitStack, words: bytes, hang: bool) -> None:
    port = await says(cleanup, words, hang=hang)
    seen = await attempt_connection(ConnectionTarget("d", HERE, port, DECOY))
    assert seen == Attempt(FAILED, f"{HERE} connected, but it is not the decoy that answers")


async def test_a_decoy_that_says_more_is_the_decoy(cleanup: ExitStack) -> None:
    """Its first words decide; no more of them are read."""
    assert (
        await attempt_connection(ConnectionTarget("d", HERE, await says(cleanup, BANNER + b"more"), DECOY))
    ).outcome is OPEN


async def test_packets_that_vanish_are_blocked(cleanup: ExitStack) -> None:
    """A queue that is full drops what asks for a place in it, as a wall does."""
    full = bound(cleanup)
    full.listen(0)
    waiting = [cleanup.enter_context(socket.socket()) for _ in range(3)]
    for one in waiting:
        one.setblocking(False)
        one.connect_ex((HERE, port_of(full)))
    with virtual_time():
        assert await attempt_connection(ConnectionTarget("d", HERE, port_of(full), PLATFORM), here) == Attempt(
            SHUT, f"{HERE} timed out"
        )


@pytest.mark.parametrize("host", [NO_NAME, "a..b", "x" * 70 + ".svc"])
async def test_a_name_without_an_address_says_nothing(host: str) -> None:
    seen = await attempt_connection(ConnectionTarget("d", host, 80, PLATFORM))
    assert (seen.outcome, seen.detail.startswith(f"{host}: ")) == (FAILED, True)


async def test_an_address_of_no_network_is_shut() -> None:
    """Class E: the system itself has no way there."""
    assert (await attempt_connection(ConnectionTarget("d", "255.255.255.255", 80, PLATFORM))).outcome is SHUT


async def resolved(host: str, port: int) -> tuple[Address, ...]:
    """Two addresses of this machine."""
    return tuple(Address(socket.AF_INET, (one, port)) for one in ("127.0.0.2", "127.0.0.3"))


async def here(host: str, port: int) -> tuple[Address, ...]:
    """As the system resolves it, without a thread."""
    return (Address(socket.AF_INET, (host, port)),)


async def nothing(host: str, port: int) -> tuple[Address, ...]:
    return ()


@pytest.mark.parametrize(
    ("listening", "outcome"),
    [
        pytest.param(["127.0.0.2"], OPEN, id="the first"),
        pytest.param(["127.0.0.3"], OPEN, id="the last"),
        pytest.param([], SHUT, id="none"),
    ],
)
async def test_a_name_with_one_open_address_is_open(
    cleanup: ExitStack, listening: list[str], outcome: AttemptOutcome
) -> None:
    first = bound(cleanup, "127.0.0.2")
    for one in (first, bound(cleanup, "127.0.0.3", port_of(first))):
        if one.getsockname()[0] in listening:
            one.listen()
    assert (
        await attempt_connection(ConnectionTarget("d", "a.name", port_of(first), PLATFORM), resolved)
    ).outcome is outcome


async def test_one_address_that_says_nothing_leaves_the_name_undecided(cleanup: ExitStack) -> None:
    """The other one refuses."""
    port = await says(cleanup, b"", host="127.0.0.2")
    bound(cleanup, "127.0.0.3", port)
    assert (await attempt_connection(ConnectionTarget("d", "a.name", port, DECOY), resolved)).outcome is FAILED


async def test_a_name_without_any_address() -> None:
    assert await attempt_connection(ConnectionTarget("d", "a.name", 80, OWN), nothing) == Attempt(
        FAILED, "a.name: has no address"
    )


async def test_the_system_says_each_address_once() -> None:
    found = await resolve(HERE, 80)
    assert [str(one) for one in found] == [HERE]


async def knocked(connections: list[ConnectionTarget], rounds: Rounds, expect: AttemptOutcome = SHUT) -> Findings:
    return await try_connections(tuple(connections), expect, rounds, rounds.now())


async def test_every_door_is_found_in_its_order(cleanup: ExitStack) -> None:
    listening, port = bound(cleanup), await decoy_port(cleanup)
    listening.listen()
    refusing = port_of(bound(cleanup))
    connections = [
        ConnectionTarget("own", HERE, port_of(listening), OWN),
        ConnectionTarget("decoy", HERE, port, DECOY),
        ConnectionTarget("decoy-shut", HERE, refusing, DECOY),
        ConnectionTarget("node", HERE, port_of(listening), PLATFORM),
        ConnectionTarget("nowhere", NO_NAME, 80, PLATFORM),
        ConnectionTarget("own-shut", HERE, refusing, OWN),
    ]
    found = await knocked(connections, Rounds(0.0, pause=no_pause, say=quiet))
    assert [(one.n, one.o) for one in found.tries] == [
        ("own", OPEN),
        ("decoy", OPEN),
        ("decoy-shut", SHUT),
        ("node", OPEN),
        ("nowhere", FAILED),
        ("own-shut", SHUT),
    ]
    assert [bool(one.late) for one in found.tries] == [False, True, False, True, False, False]


def quiet(_: str) -> None:
    """Nobody listens."""


async def no_pause(_seconds: float) -> None:
    """What is tried again is tried at once."""


async def test_a_policy_that_comes_late_is_found_shut_and_late(cleanup: ExitStack) -> None:
    """It comes after the first knock."""
    (server,) = await decoy.listen((0,), HERE)
    connection = ConnectionTarget("d", HERE, port_of(server.sockets[0]), DECOY)
    (found,) = (await knocked([connection], Rounds(pause=no_pause, say=lambda _: server.close()))).tries
    assert (found.o, found.late > 0) == (SHUT, True)


@pytest.mark.parametrize(
    ("against", "expect"),
    [
        pytest.param(OWN, SHUT, id="one's own"),
        pytest.param(OWN, OPEN, id="one's own, for the control"),
        pytest.param(PLATFORM, OPEN, id="the platform's, for the control"),
    ],
)
async def test_a_door_that_opens_late_is_found_open(
    cleanup: ExitStack, against: Against, expect: AttemptOutcome
) -> None:
    later = bound(cleanup)
    rounds = Rounds(pause=no_pause, say=lambda _: later.listen())
    (found,) = (await knocked([ConnectionTarget("d", HERE, port_of(later), against)], rounds, expect)).tries
    assert found == AttemptFinding("d", OPEN, 0, f"{HERE} connected")


@dataclass
class LateNetwork:
    """A pod that reaches nothing until a number of attempts have ended, a quarter of a second each."""

    blocked: list[socket.socket]
    attempts: int
    heard: list[str] = field(default_factory=list)

    def now(self) -> float:
        return 0.25 * len(self.heard)

    def say(self, line: str) -> None:
        self.heard.append(line)
        if len(self.heard) == self.attempts:
            for one in self.blocked:
                one.listen()

    async def run(self, connections: list[ConnectionTarget]) -> dict[str, AttemptOutcome]:
        rounds = Rounds(now=self.now, pause=no_pause, say=self.say)
        found = await try_connections(tuple(connections), SHUT, rounds, 0.0)
        return {one.n: one.o for one in found.tries}


async def test_a_pod_that_is_held_back_at_first_is_not_taken_for_one_that_policies_block(cleanup: ExitStack) -> None:
    own, forbidden, shut = bound(cleanup), bound(cleanup), port_of(bound(cleanup))
    network = LateNetwork([own, forbidden], attempts=60)
    found = await network.run(
        [
            ConnectionTarget("forbidden", HERE, port_of(forbidden), PLATFORM),
            ConnectionTarget("shut", HERE, shut, PLATFORM),
            ConnectionTarget("own", HERE, port_of(own), OWN),
        ]
    )
    assert found == {"forbidden": OPEN, "shut": SHUT, "own": OPEN}


async def test_ones_own_connection_is_waited_for_longer_than_others(cleanup: ExitStack) -> None:
    """A busy node may take more than half a minute until a new pod's policies let it out."""
    own = bound(cleanup)
    network = LateNetwork([own], attempts=300)
    assert await network.run([ConnectionTarget("own", HERE, port_of(own), OWN)]) == {"own": OPEN}
    assert network.now() > ROUNDS_SECONDS


async def test_a_pod_without_a_network_ends(cleanup: ExitStack) -> None:
    shut = port_of(bound(cleanup))
    network = LateNetwork([], attempts=0)
    connections = [ConnectionTarget("forbidden", HERE, shut, PLATFORM), ConnectionTarget("own", HERE, shut, OWN)]
    assert await network.run(connections) == {"forbidden": SHUT, "own": SHUT}


async def test_findings_are_json_of_the_contract(cleanup: ExitStack) -> None:
    found = await knocked(
        [ConnectionTarget("d", HERE, port_of(bound(cleanup)), PLATFORM)], Rounds(0.0, pause=no_pause, say=quiet)
    )
    assert json.loads(encode_findings(found)) == {
        "tries": [{"n": "d", "o": "shut", "late": 0, "d": f"{HERE} connection refused"}]
    }
