"""The election: tables on a clock that the test moves, and two candidates whose clocks and messages do as they like."""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from r1plus_operator.runtime.errors import ApiError, ConflictError, ForbiddenError, NotFoundError, TransportError
from r1plus_operator.runtime.lease import LEASE, Claim, Elector, LeaseLostError, LeaseTerms, SetBackError
from r1plus_operator.runtime.resources import Resource
from support.examples import count_examples

pytestmark = pytest.mark.first_run_counts

TERMS = LeaseTerms()
Object = dict[str, Any]


class LeaseServer:
    """One Lease as the API server keeps it: every write is a new version, a write of an old one is refused."""

    def __init__(self) -> None:
        self.lease: Object | None = None
        self._versions = itertools.count(1)

    def read(self) -> Object:
        if self.lease is None:
            raise NotFoundError(404, "NotFound", "no Lease")
        return self.lease

    def write(self, version: str, spec: Object) -> Object:
        present = self.read()["metadata"]["resourceVersion"] if version or self.lease else ""
        if version != present:
            raise ConflictError(409, "Conflict", "the object has been modified")
        before = self.lease["spec"] if self.lease else {}
        self.lease = {"metadata": {"resourceVersion": str(next(self._versions))}, "spec": {**before, **spec}}
        return self.lease

    def restore(self, version: int) -> None:
        """Go back to a version: 1 is the first Lease, 0 is none. Versions are given out a second time."""
        self.lease = {**self.read(), "metadata": {"resourceVersion": str(version)}} if version else None
        self._versions = itertools.count(version + 1)

    @property
    def holder(self) -> str:
        return str(self.read()["spec"]["holderIdentity"])

    @property
    def term(self) -> int:
        return int(self.read()["spec"]["leaseTransitions"])


@dataclass
class Api:
    """A candidate's way to the server. `faults` are what happens to its next requests, in order."""

    server: LeaseServer
    faults: list[Callable[[Callable[[], Object]], Awaitable[Object]]] = field(default_factory=list)

    async def get(self, res: Resource, name: str, namespace: str | None = None) -> Object:
        assert (res, name, namespace) == (LEASE, "op", "ns")
        return await self._through(self.server.read)

    async def create(self, res: Resource, obj: Object) -> Object:
        assert (obj["apiVersion"], obj["kind"]) == (res.api_version, res.kind)
        assert obj["metadata"] == {"name": "op", "namespace": "ns"}
        return await self._through(lambda: self.server.write("", obj["spec"]))

    async def patch(self, res: Resource, name: str, namespace: str | None, body: Object) -> Object:
        return await self._through(lambda: self.server.write(body["metadata"]["resourceVersion"], body["spec"]))

    async def _through(self, request: Callable[[], Object]) -> Object:
        return await self.faults.pop(0)(request) if self.faults else request()


def refused(error: ApiError) -> Callable[[Callable[[], Object]], Awaitable[Object]]:
    async def fault(_: Callable[[], Object]) -> Object:
        raise error

    return fault


async def unheard(request: Callable[[], Object]) -> Object:
    """Done, but the answer is lost."""
    request()
    raise TransportError("the connection broke")


async def hanging(_: Callable[[], Object]) -> Object:
    await asyncio.Event().wait()
    raise AssertionError


NO_ANSWER = refused(TransportError("the connection broke"))
FORBIDDEN = refused(ForbiddenError(403, "Forbidden", "no"))


class World:
    """A server, a clock for all, and what happens as time passes. A candidate's sleep moves the clock."""

    def __init__(self) -> None:
        self.server = LeaseServer()
        self.now = 100.0
        self.events: list[tuple[float, Callable[[], object]]] = []

    def candidate(self, name: str, *faults: Callable[[Callable[[], Object]], Awaitable[Object]]) -> Elector:
        terms = LeaseTerms(call=0.02) if hanging in faults else TERMS
        api = Api(self.server, list(faults))
        return Elector(api, "ns", "op", name, terms=terms, clock=lambda: self.now, sleep=self._sleep)

    def at(self, seconds: float, event: Callable[[], object]) -> None:
        """Let it happen so many seconds from now."""
        self.events.append((self.now + seconds, event))
        self.events.sort(key=lambda one: one[0])

    async def lost(self, leader: Elector) -> float:
        """Hold until the Lease is lost; after how many seconds that was."""
        began = self.now
        with pytest.raises(LeaseLostError):
            await leader.hold()
        assert not leader.is_leader
        return self.now - began

    async def _sleep(self, seconds: float) -> None:
        until = self.now + seconds
        while self.events and self.events[0][0] <= until:
            when, event = self.events.pop(0)
            self.now = max(self.now, when)
            event()
        self.now = until
        await asyncio.sleep(0)


async def led() -> tuple[World, Elector, Elector]:
    """A world in which a leads and b is another candidate."""
    world = World()
    leader, other = world.candidate("a"), world.candidate("b")
    await leader.attempt()
    return world, leader, other


class StopError(Exception):
    """Ends a `hold` that would go on for ever."""


def stop() -> None:
    raise StopError


async def test_a_free_lease_is_made_and_a_second_candidate_waits() -> None:
    world = World()
    first, second = world.candidate("a"), world.candidate("b")
    assert await first.attempt()
    assert not await second.attempt()
    assert (world.server.holder, world.server.term, first.is_leader, second.is_leader) == ("a", 1, True, False)
    assert first.count_remaining_seconds() == TERMS.renew_deadline


async def test_a_leader_that_renews_leads_for_ever_and_in_one_term() -> None:
    world, leader, other = await led()
    for minute in range(1, 60):
        world.at(minute, lambda: asyncio.ensure_future(other.attempt()))
    world.at(60, stop)
    with pytest.raises(StopError):
        await leader.hold()
    assert (leader.is_leader, other.is_leader, world.server.term) == (True, False, 1)


async def test_a_released_lease_is_taken_at_the_next_look_within_a_second() -> None:
    world, leader, other = await led()
    world.at(5, lambda: asyncio.ensure_future(leader.release()))
    holding = asyncio.ensure_future(other.acquire())
    await holding
    assert (world.server.holder, world.server.term, leader.is_leader) == ("b", 2, False)
    assert world.now - 105 <= TERMS.retry / 2 + 1e-6


async def test_a_dead_leaders_lease_is_taken_after_its_duration_and_not_before() -> None:
    world, leader, other = await led()
    began = world.now
    await other.acquire()
    assert TERMS.duration < world.now - began <= TERMS.duration + TERMS.retry / 2
    assert (world.server.holder, other.is_leader, leader.is_leader) == ("b", True, False)


async def test_a_pod_that_starts_again_need_not_wait_for_itself_and_what_it_was_before_is_out() -> None:
    world = World()
    before, after = world.candidate("a"), world.candidate("a")
    await before.attempt()
    assert await after.attempt()
    assert world.server.term == 2
    assert await world.lost(before) <= TERMS.retry
    assert after.is_leader


FAULTS: dict[str, tuple[list[Any], float]] = {
    "one renewal fails": ([NO_ANSWER], 100),
    "four requests in a row fail": ([NO_ANSWER] * 4, 100),
    "a renewal's answer is lost": ([unheard], 100),
    "a renewal and the look after it hang": ([hanging, hanging], 100),
    "the right to renew is gone": ([FORBIDDEN] * 99, TERMS.renew_deadline),
    "nothing is answered any more": ([NO_ANSWER] * 99, TERMS.renew_deadline),
    "every request hangs": ([hanging] * 99, TERMS.renew_deadline),
}


@pytest.mark.parametrize(("faults", "leads_for"), FAULTS.values(), ids=FAULTS.keys())
async def test_what_a_leader_survives(faults: list[Any], leads_for: float) -> None:
    world = World()
    leader = world.candidate("a", *(one_ok(), one_ok()), *faults)
    assert await leader.attempt()
    world.at(100, stop)
    if leads_for == 100:
        with pytest.raises(StopError):
            await leader.hold()
        assert leader.is_leader
    else:
        assert await world.lost(leader) == pytest.approx(leads_for)


def one_ok() -> Callable[[Callable[[], Object]], Awaitable[Object]]:
    async def through(request: Callable[[], Object]) -> Object:
        return request()

    return through


def taken(server: LeaseServer) -> None:
    server.write(server.read()["metadata"]["resourceVersion"], {"holderIdentity": "thief", "leaseTransitions": 9})


def touched(server: LeaseServer) -> None:
    server.write(server.read()["metadata"]["resourceVersion"], {})


def deleted(server: LeaseServer) -> None:
    server.lease = None


MEDDLING: dict[str, tuple[Callable[[LeaseServer], None], bool]] = {
    "another takes it: it is lost at the next renewal": (taken, False),
    "somebody annotates it: nothing happens": (touched, True),
    "somebody deletes it: the leader makes it again": (deleted, True),
}


@pytest.mark.parametrize(("meddle", "survives"), MEDDLING.values(), ids=MEDDLING.keys())
async def test_when_somebody_else_writes_the_lease(meddle: Callable[[LeaseServer], None], survives: bool) -> None:
    world, leader, other = await led()
    await other.attempt()
    world.at(3, lambda: meddle(world.server))
    world.at(3.1, lambda: asyncio.ensure_future(other.attempt()))
    world.at(50, stop)
    if survives:
        with pytest.raises(StopError):
            await leader.hold()
        assert (leader.is_leader, other.is_leader, world.server.holder, world.server.term) == (True, False, "a", 1)
    else:
        assert await world.lost(leader) <= 3 + TERMS.retry


async def test_a_release_takes_nothing_from_a_successor() -> None:
    world = World()
    leader = world.candidate("a")
    await leader.attempt()
    taken(world.server)
    await leader.release()
    assert (world.server.holder, leader.is_leader) == ("thief", False)


def set_back(server: LeaseServer) -> None:
    """Restore the Lease that was there at the start, and the counter with it."""
    server.restore(1)


async def test_a_leader_notices_that_etcd_was_set_back_and_leads_no_more() -> None:
    world, leader, _ = await led()
    world.at(30, lambda: set_back(world.server))
    with pytest.raises(SetBackError, match=r"the Lease has resourceVersion 1, and had 1\d before: etcd was restored"):
        await leader.hold()
    assert not leader.is_leader
    assert world.now - 130 <= TERMS.retry


async def test_a_standby_notices_that_etcd_was_set_back_before_it_leads() -> None:
    world, leader, other = await led()
    world.at(30, lambda: set_back(world.server))
    holding = asyncio.ensure_future(leader.hold())
    with pytest.raises(SetBackError):
        await other.acquire()
    assert not other.is_leader
    holding.cancel()


async def test_a_standby_notices_a_set_back_to_before_there_was_a_lease_when_the_next_is_made() -> None:
    world, _, other = await led()
    for _ in range(9):
        touched(world.server)
    await other.attempt()
    world.server.restore(0)
    await other.attempt()
    world.now += TERMS.duration + 1
    with pytest.raises(SetBackError, match="resourceVersion 1, and had 10 before"):
        await other.attempt()
    assert not other.is_leader


async def test_a_lease_that_is_deleted_and_made_again_is_no_set_back() -> None:
    world, _, other = await led()
    await other.attempt()
    deleted(world.server)
    await other.attempt()
    world.now += TERMS.duration + 1
    await other.attempt()
    assert (other.is_leader, world.server.holder) == (True, "b")


async def test_belief_counts_from_the_request_and_not_from_its_answer() -> None:
    now = 100.0
    claim, server = Claim("a", TERMS, lambda: now), LeaseServer()
    claim.observe_lease(None)
    sent_at, accepted = now, server.write("", claim.build_spec(new=True))
    now += 4.0
    claim.record_acceptance(accepted, sent_at)
    assert claim.count_remaining_seconds() == TERMS.renew_deadline - 4.0


async def test_a_candidate_that_may_not_look_goes_on_trying(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    candidate = world.candidate("a", FORBIDDEN, NO_ANSWER)
    with caplog.at_level(logging.WARNING):
        await candidate.acquire()
    assert candidate.is_leader
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]


@dataclass
class Request:
    """One on its way. `version` None: a look; else a write in place of that version."""

    sent_at: float
    version: str | None
    spec: Object
    answer: Object | None = None
    arrived: bool = False


@dataclass
class Candidate:
    """A Claim with a clock of its own, driven as `Elector` drives it, but for the time that everything takes."""

    name: str
    rate: float
    offset: float
    claim: Claim
    request: Request | None = None


class Election(RuleBasedStateMachine):
    """Messages arrive late, twice behind each other, after their sender gave up, or never; clocks run unevenly."""

    names = st.sampled_from(["a", "b", "c"])
    rates = st.sampled_from([0.85, 1.0, 1.2])

    @initialize(rates=st.tuples(rates, rates, rates))
    def begin(self, rates: tuple[float, float, float]) -> None:
        self.now = 0.0
        self.server = LeaseServer()
        self.abandoned: list[Request] = []
        self.candidates = {name: self._fresh(name, rate) for name, rate in zip("abc", rates, strict=True)}

    def _fresh(self, name: str, rate: float) -> Candidate:
        offset = 1000.0 * ord(name)
        return Candidate(name, rate, offset, Claim(name, TERMS, lambda: offset + self.now * rate))

    def _clock(self, one: Candidate) -> float:
        return one.offset + self.now * one.rate

    @rule(seconds=st.sampled_from([0.1, 1.0, 4.0, 8.0, 11.0, 16.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(name=names)
    def sends(self, name: str) -> None:
        one = self.candidates[name]
        if one.request is not None:
            return
        version, new = one.claim.find_claimable_version(), True
        if one.claim.count_remaining_seconds() > 0:
            version, new = one.claim.find_renewable_version(), False
        spec = one.claim.build_spec(new=new) if version is not None else {}
        one.request = Request(self._clock(one), version, spec)

    @rule(name=names)
    def looks(self, name: str) -> None:
        one = self.candidates[name]
        if one.request is None:
            one.request = Request(self._clock(one), None, {})

    @rule(name=names)
    def request_arrives(self, name: str) -> None:
        request = self.candidates[name].request
        if request is not None and not request.arrived:
            self._arrive(request)

    @rule(name=names)
    def answer_comes(self, name: str) -> None:
        one = self.candidates[name]
        request = one.request
        if request is None or not request.arrived:
            return
        one.request = None
        if request.version is None:
            one.claim.observe_lease(request.answer)
        elif request.answer is not None:
            one.claim.record_acceptance(request.answer, request.sent_at)

    @rule(name=names)
    def all_goes_well(self, name: str) -> None:
        """Look and write without a delay, as it mostly is."""
        for step in (self.looks, self.sends):
            step(name)
            self.request_arrives(name)
            self.answer_comes(name)

    @rule(name=names)
    def gives_up(self, name: str) -> None:
        one = self.candidates[name]
        if one.request is not None and not one.request.arrived:
            self.abandoned.append(one.request)
        one.request = None

    @precondition(lambda self: self.abandoned)
    @rule()
    def abandoned_request_arrives(self) -> None:
        self._arrive(self.abandoned.pop(0))

    @rule(name=names)
    def releases(self, name: str) -> None:
        one = self.candidates[name]
        version = one.claim.find_renewable_version() if one.claim.count_remaining_seconds() > 0 else None
        if version:
            self.abandoned.append(Request(self._clock(one), version, {"holderIdentity": ""}))
            self.starts_again(name)

    @rule(name=names)
    def starts_again(self, name: str) -> None:
        self.gives_up(name)
        self.candidates[name] = self._fresh(name, self.candidates[name].rate)

    @invariant()
    def at_most_one_believes(self) -> None:
        leaders = [one.name for one in self.candidates.values() if one.claim.count_remaining_seconds() > 0]
        assert len(leaders) <= 1, leaders

    def _arrive(self, request: Request) -> None:
        request.arrived = True
        try:
            request.answer = (
                self.server.read() if request.version is None else self.server.write(request.version, request.spec)
            )
        except (ConflictError, NotFoundError):
            request.answer = None


TestElection = Election.TestCase
TestElection.settings = settings(max_examples=count_examples(100), stateful_step_count=40, deadline=None)


@pytest.mark.unit_long
class TestElectionAtLength(TestElection):
    settings = settings(max_examples=1000, stateful_step_count=40, deadline=None)
