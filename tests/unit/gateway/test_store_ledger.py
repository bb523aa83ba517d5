"""Reservations and settlements: hard budgets, limits that no clock frees, exactly-once, and nobody left waiting."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import date

import pytest
import sqlalchemy as sa

from r1plus_gateway.access.caller import (
    AccessError,
    Caller,
    CallerKind,
    Limits,
    Outcome,
    Remaining,
    Reservation,
    TokenUsage,
)
from r1plus_gateway.store.administration.admin import UsageQuery, report_usage
from r1plus_gateway.store.clock import format_month
from r1plus_gateway.store.database.tables import metadata
from r1plus_gateway.store.tenant import TenantStore
from support.gateway.tenant_data import EVIDENCE, Time, Volume, count_from, make_caller, settle
from support.tables import for_each
from support.waiting import eventually

EVER = UsageQuery(date(2000, 1, 1), date(2999, 1, 1))


async def read_used(store: TenantStore) -> int:
    """Return the tokens of all budgets and reservations, in all months that this test sees."""
    report = await report_usage(store, EVER)
    return sum(budget.used_tokens + budget.reserved_tokens for budget in report.budgets)


async def read_recorded(store: TenantStore) -> int:
    """Return the tokens of all usage."""
    rows = (await report_usage(store, EVER)).rows
    return sum(row.prompt_tokens + row.completion_tokens + row.unsettled_tokens for row in rows)


async def reserve_all(store: TenantStore, caller: Caller, count: int, tokens: int) -> list[Reservation]:
    """Reserve at once and return what was admitted; each refusal is one for want of quota."""
    next_id = count_from()
    tasks = (store.ledger.reserve(next_id(), caller, "credit", tokens) for _ in range(count))
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    refusals = [end for end in ends if isinstance(end, BaseException)]
    assert all(isinstance(one, AccessError) and one.code == "insufficient_quota" for one in refusals), refusals
    return [end for end in ends if isinstance(end, Reservation)]


async def test_of_fifty_requests_at_once_no_more_are_admitted_than_the_budget_has_tokens(store: TenantStore) -> None:
    caller = make_caller(limits=Limits(budget_tokens=1000))
    admitted = await reserve_all(store, caller, 50, 60)
    assert len(admitted) == 16
    await asyncio.gather(*(settle(store, one, 20, 40) for one in admitted))
    assert await read_used(store) == 960
    with pytest.raises(AccessError, match="960 of 1000 used") as refusal:
        await store.ledger.reserve("another", caller, "credit", 41)
    assert (refusal.value.status, refusal.value.retry_after) == (429, None)
    assert (await store.ledger.reserve("last", caller, "credit", 40)).remaining.budget_tokens == 0


async def test_what_a_request_did_not_use_is_free_again(store: TenantStore) -> None:
    caller = make_caller(limits=Limits(budget_tokens=100))
    first = await store.ledger.reserve("a", caller, "credit", 90)
    await settle(store, first, 5, 5)
    assert (await store.ledger.reserve("b", caller, "credit", 90)).remaining == Remaining(budget_tokens=0)


async def test_callers_share_no_budget(store: TenantStore) -> None:
    limits = Limits(budget_tokens=10, requests_per_minute=1, concurrent_requests=1)
    callers = (
        make_caller("key000000001", limits),
        make_caller("key000000002", limits),
        make_caller("key000000001", limits, kind=CallerKind.SERVICE_ACCOUNT),
    )
    for caller in callers:
        admitted = await store.ledger.reserve(f"{caller.kind}-{caller.id}", caller, "credit", 10)
        assert admitted.remaining.budget_tokens == 0
    for caller in callers:
        with pytest.raises(AccessError):
            await store.ledger.reserve(f"{caller.kind}-{caller.id}-again", caller, "credit", 10)


async def test_a_settlement_counts_once(store: TenantStore, caplog: pytest.LogCaptureFixture) -> None:
    reservation = await store.ledger.reserve("a", make_caller(limits=Limits(budget_tokens=100)), "credit", 50)
    await asyncio.gather(*(settle(store, reservation, 3, 4) for _ in range(5)))
    await settle(store, reservation, 30, 40)
    assert await read_used(store) == await read_recorded(store) == 7
    assert caplog.text.count("Request a was settled before") == 5


async def test_a_reservation_that_never_was_settles_nothing(store: TenantStore) -> None:
    await settle(store, Reservation("unknown", make_caller(), "credit", 50), 3, 4)
    assert await read_recorded(store) == 0


async def test_a_request_that_used_more_than_it_reserved_is_counted_in_full(store: TenantStore) -> None:
    caller = make_caller(limits=Limits(budget_tokens=100))
    await settle(store, await store.ledger.reserve("a", caller, "credit", 10), 5, 95)
    assert await read_used(store) == 100
    with pytest.raises(AccessError):
        await store.ledger.reserve("b", caller, "credit", 1)


async def test_requests_per_minute_come_back_one_by_one(volume: Volume, store: TenantStore) -> None:
    caller, next_id = make_caller(limits=Limits(requests_per_minute=6)), count_from()
    left = [(await store.ledger.reserve(next_id(), caller, "credit", 1)).remaining.requests for _ in range(6)]
    assert left == [5, 4, 3, 2, 1, 0]
    with pytest.raises(AccessError, match="limit of 6 requests per minute") as refusal:
        await store.ledger.reserve(next_id(), caller, "credit", 1)
    assert refusal.value.code == "rate_limit_exceeded"
    assert refusal.value.retry_after == pytest.approx(10.0)
    assert refusal.value.hold_seconds == pytest.approx(10.0), "whatever it asks for"
    volume.time.advance(10)
    await store.ledger.reserve(next_id(), caller, "credit", 1)
    with pytest.raises(AccessError):
        await store.ledger.reserve(next_id(), caller, "credit", 1)


async def test_tokens_per_minute_count_what_is_reserved_and_give_back_what_was_not_used(
    volume: Volume, store: TenantStore
) -> None:
    caller = make_caller(limits=Limits(tokens_per_minute=600))
    first = await store.ledger.reserve("a", caller, "credit", 600)
    assert (first.remaining.tokens, first.remaining.reset_seconds) == (0, pytest.approx(60.0))
    with pytest.raises(AccessError, match="tokens per minute") as refusal:
        await store.ledger.reserve("b", caller, "credit", 100)
    assert refusal.value.retry_after == pytest.approx(10.0)
    assert refusal.value.hold_seconds == 0, "a smaller request may fit"
    await settle(store, first, 100, 100)
    assert (await store.ledger.reserve("b", caller, "credit", 400)).remaining.tokens == 0


async def test_tokens_that_have_leaked_are_not_given_back_again(volume: Volume, store: TenantStore) -> None:
    caller = make_caller(limits=Limits(tokens_per_minute=600))
    first = await store.ledger.reserve("a", caller, "credit", 600)
    volume.time.advance(60)
    await store.ledger.reserve("b", caller, "credit", 600)
    await settle(store, first, 1, 1)
    with pytest.raises(AccessError):
        await store.ledger.reserve("c", caller, "credit", 100)


async def test_a_request_larger_than_the_limit_per_minute_is_told_that_waiting_does_not_help(
    store: TenantStore,
) -> None:
    with pytest.raises(AccessError, match="may use 601 tokens, more than its limit of 600") as refusal:
        await store.ledger.reserve("a", make_caller(limits=Limits(tokens_per_minute=600)), "credit", 601)
    assert refusal.value.retry_after is None


async def test_concurrent_requests_are_those_that_are_not_settled(store: TenantStore) -> None:
    caller = make_caller(limits=Limits(concurrent_requests=2))
    first, _ = [await store.ledger.reserve(name, caller, "credit", 1) for name in "ab"]
    with pytest.raises(AccessError, match="2 of its requests run") as refusal:
        await store.ledger.reserve("c", caller, "credit", 1)
    assert refusal.value.retry_after == 1.0
    await settle(store, first, 1, 0)
    await store.ledger.reserve("c", caller, "credit", 1)


@pytest.mark.parametrize(
    "limits", [Limits(0), Limits(tokens_per_minute=0), Limits(concurrent_requests=0), Limits(budget_tokens=0)]
)
async def test_a_limit_of_zero_admits_nothing(store: TenantStore, limits: Limits) -> None:
    with pytest.raises(AccessError) as refusal:
        await store.ledger.reserve("a", make_caller(limits=limits), "credit", 1)
    assert refusal.value.retry_after is None, "waiting does not help"


async def test_a_request_refused_for_the_budget_takes_no_tokens(store: TenantStore) -> None:
    caller = make_caller(limits=Limits(requests_per_minute=5, tokens_per_minute=100, budget_tokens=50))
    for name in "ab":
        with pytest.raises(AccessError):
            await store.ledger.reserve(name, caller, "credit", 60)
    remaining = (await store.ledger.reserve("i", caller, "credit", 50)).remaining
    assert (remaining.requests, remaining.tokens, remaining.budget_tokens) == (2, 50, 0)


WRONG: dict[str, tuple[str, str, int]] = {
    "no request id": ("", "credit", 1),
    "a NUL in the model": ("a", "cre\0dit", 1),
    "a long model": ("a", "c" * 254, 1),
    "a lone surrogate": ("a", "\ud800", 1),
    "negative tokens": ("a", "credit", -1),
    "more tokens than a number has exactly": ("a", "credit", 2**63),
}


@pytest.mark.parametrize(("request_id", "model", "tokens"), WRONG.values(), ids=WRONG)
async def test_what_cannot_be_recorded_is_a_mistake_of_the_caller(
    store: TenantStore, request_id: str, model: str, tokens: int
) -> None:
    with pytest.raises(ValueError, match=r"request_id|model|tokens"):
        await store.ledger.reserve(request_id, make_caller(), model, tokens)


async def test_a_request_id_is_used_by_one_request_at_a_time(store: TenantStore) -> None:
    caller = make_caller()
    ends = await asyncio.gather(
        *(store.ledger.reserve("a", caller, "credit", 1) for _ in range(3)), return_exceptions=True
    )
    assert sorted(type(end).__name__ for end in ends) == ["Reservation", "ValueError", "ValueError"]
    (reservation,) = (end for end in ends if isinstance(end, Reservation))
    await settle(store, reservation, 1, 1)
    await store.ledger.reserve("a", caller, "credit", 1)


def jump_back(time: Time) -> None:
    time.wall -= 40 * 86400


def jump_forward(time: Time) -> None:
    time.wall += 40 * 86400


JUMPS = {"back": jump_back, "forward": jump_forward}


@pytest.mark.parametrize("jump", JUMPS.values(), ids=JUMPS)
async def test_a_jump_of_the_clock_frees_neither_a_minute_nor_a_month(
    volume: Volume, store: TenantStore, jump: Callable[[Time], None]
) -> None:
    by_minute = make_caller("key000000001", Limits(requests_per_minute=1))
    by_month = make_caller("key000000002", Limits(budget_tokens=10))
    await store.ledger.reserve("a", by_minute, "credit", 10)
    await store.ledger.reserve("b", by_month, "credit", 10)
    jump(volume.time)
    for caller in (by_minute, by_month):
        with pytest.raises(AccessError):
            await store.ledger.reserve("c", caller, "credit", 1)
    volume.time.advance(60)
    await store.ledger.reserve("d", by_minute, "credit", 10)


async def test_a_gateway_that_starts_with_a_clock_that_is_behind_goes_on_from_the_latest_time(volume: Volume) -> None:
    by_minute = make_caller("key000000001", Limits(requests_per_minute=1))
    by_month = make_caller("key000000002", Limits(budget_tokens=10))
    async with volume.open() as store:
        await settle(store, await store.ledger.reserve("a", by_minute, "credit", 10), 5, 5)
        await settle(store, await store.ledger.reserve("b", by_month, "credit", 10), 5, 5)
        month = format_month(store.clock.read())
    jump_back(volume.time)
    async with volume.open() as store:
        assert format_month(store.clock.read()) == month
        for caller in (by_minute, by_month):
            with pytest.raises(AccessError):
                await store.ledger.reserve("c", caller, "credit", 1)
        volume.time.advance(60)
        await store.ledger.reserve("d", by_minute, "credit", 10)


async def test_a_new_month_has_a_new_budget_and_a_request_counts_in_the_month_that_it_began_in(
    volume: Volume, store: TenantStore
) -> None:
    caller = make_caller(limits=Limits(budget_tokens=100))
    before = await store.ledger.reserve("a", caller, "credit", 100)
    volume.time.advance(31 * 86400)
    during = await store.ledger.reserve("b", caller, "credit", 100)
    await settle(store, before, 50, 50)
    with pytest.raises(AccessError):
        await store.ledger.reserve("c", caller, "credit", 1)
    await settle(store, during, 1, 1)
    assert (await store.ledger.reserve("d", caller, "credit", 98)).remaining.budget_tokens == 0


async def test_a_client_that_leaves_while_it_is_admitted_leaves_no_reservation(store: TenantStore) -> None:
    caller, next_id = make_caller(limits=Limits(concurrent_requests=1)), count_from()
    for turns in range(20):
        request = asyncio.create_task(store.ledger.reserve(next_id(), caller, "credit", 1))
        for _ in range(turns):
            await asyncio.sleep(0)
        request.cancel()
        ends = await asyncio.gather(request, return_exceptions=True)
        if isinstance(ends[0], Reservation):
            await settle(store, ends[0], 0, 0)
        await settle(store, await store.ledger.reserve(next_id(), caller, "credit", 1), 0, 0)
    assert await read_used(store) == 0


async def test_a_settlement_whose_handler_is_cancelled_is_recorded(store: TenantStore) -> None:
    reservation = await store.ledger.reserve("a", make_caller(), "credit", 10)
    handler = asyncio.create_task(settle(store, reservation, 3, 4))
    await asyncio.sleep(0)
    handler.cancel()
    await asyncio.gather(handler, return_exceptions=True)

    async def is_recorded() -> bool:
        return await read_recorded(store) == 7

    await eventually(is_recorded, "the settlement is recorded", period_s=0.001)


async def test_usage_is_by_caller_model_day_and_end_user(volume: Volume, store: TenantStore) -> None:
    next_id = count_from()
    for end_user, model, outcome in (
        ("ann", "credit", Outcome.ANSWERED),
        ("ann", "credit", Outcome.CANCELLED),
        ("bob", "credit", Outcome.SLOW_READER),
        ("", "fraud", Outcome.FAILED),
    ):
        caller = make_caller(end_user=end_user)
        reservation = await store.ledger.reserve(next_id(), caller, model, 10)
        await store.ledger.settle(reservation, TokenUsage(2, 3), outcome, EVIDENCE)
    volume.time.advance(86400)
    await settle(store, await store.ledger.reserve(next_id(), make_caller(end_user="ann"), "credit", 10), 1, 1)
    rows = (await report_usage(store, EVER)).rows
    assert [(row.model, row.day, row.requests, row.prompt_tokens, row.completion_tokens) for row in rows] == [
        ("credit", "2027-01-15", 3, 6, 9),
        ("fraud", "2027-01-15", 1, 2, 3),
        ("credit", "2027-01-16", 1, 1, 1),
    ]
    ann = (await report_usage(store, UsageQuery(date(2027, 1, 15), date(2027, 1, 15), end_user="ann"))).rows
    assert [(row.requests, row.prompt_tokens) for row in ann] == [(2, 4)]
    assert (await report_usage(store, UsageQuery(date(2027, 1, 1), date(2027, 1, 31), end_user="nobody"))).rows == ()


async def test_no_end_user_is_readable_in_the_database(volume: Volume, store: TenantStore) -> None:
    caller = make_caller(end_user="ann@bank.example")
    await settle(store, await store.ledger.reserve("a", caller, "credit", 10), 1, 1)

    def dump(connection: sa.Connection) -> str:
        return repr([connection.execute(sa.select(table)).all() for table in metadata.sorted_tables])

    text = await store.read(dump)
    assert "credit-aaaaaaaaaa" in text
    assert "bank.example" not in text


async def test_a_refusal_for_the_budget_costs_a_request_of_the_minute(volume: Volume, store: TenantStore) -> None:
    """Its prompt was counted by a pod: a key that has spent nearly all may not have that without limit."""
    caller = make_caller(limits=Limits(budget_tokens=100, requests_per_minute=3))
    await settle(store, await store.ledger.reserve("first", caller, "credit", 90), 60, 30)
    holds = []
    for number in range(3):
        with pytest.raises(AccessError, match="more than is left of its budget") as refusal:
            await store.ledger.reserve(f"r{number}", caller, "credit", 40)
        holds.append(refusal.value.hold_seconds)
    assert holds == [0, 0, pytest.approx(20.0)]
    volume.time.advance(20)
    await store.ledger.reserve("small", caller, "credit", 10)


async def test_a_budget_that_leaves_no_prompt_and_answer_is_spent(store: TenantStore) -> None:
    caller = make_caller(limits=Limits(budget_tokens=100))
    await settle(store, await store.ledger.reserve("first", caller, "credit", 99), 60, 39)
    with pytest.raises(AccessError) as refusal:
        await store.ledger.reserve("second", caller, "credit", 2)
    assert refusal.value.hold_seconds > 0


async def test_a_request_that_runs_may_set_more_tokens_aside_within_its_budget(store: TenantStore) -> None:
    caller = make_caller(limits=Limits(budget_tokens=100, concurrent_requests=1, requests_per_minute=1))
    reservation = await store.ledger.reserve("r1", caller, "credit", 40)
    extended = await store.ledger.extend(reservation, 50, 0)
    assert (extended.tokens, extended.remaining.budget_tokens) == (90, 10)
    with pytest.raises(AccessError, match="this request may use 11 tokens, more than is left of its budget") as refused:
        await store.ledger.extend(extended, 11, 0)
    assert (refused.value.status, refused.value.code) == (429, "insufficient_quota")
    await store.ledger.settle(extended, TokenUsage(30, 5), Outcome.ANSWERED, EVIDENCE)
    assert (
        await store.ledger.reserve("r2", replace(caller, limits=Limits(budget_tokens=100)), "credit", 65)
    ).tokens == 65


async def test_a_request_that_is_extended_in_a_new_month_counts_in_that_month(
    volume: Volume, store: TenantStore
) -> None:
    caller = make_caller(limits=Limits(budget_tokens=100))
    reservation = await store.ledger.reserve("r1", caller, "credit", 60)
    volume.time.advance(31 * 86400)
    with pytest.raises(AccessError, match="this request may use 41 tokens, more than is left of its budget"):
        await store.ledger.extend(reservation, 41, 0)
    extended = await store.ledger.extend(reservation, 30, 0)
    assert (extended.tokens, extended.remaining.budget_tokens) == (90, 10)
    with pytest.raises(AccessError):
        await store.ledger.reserve("r2", caller, "credit", 11)
    await store.ledger.settle(extended, TokenUsage(50, 30), Outcome.ANSWERED, EVIDENCE)
    assert (await store.ledger.reserve("r2", caller, "credit", 20)).remaining.budget_tokens == 0


ROUNDS = {
    "the first tokens are used": (100, 0, 390),
    "the first tokens are used in part": (60, 0, 390),
    "none of the first tokens is used": (0, 0, 390),
    "some of both are used": (60, 100, 290),
    "all is used": (100, 400, 0),
}
"""Tokens that a request has used when it sets more aside, tokens that it uses then, and what is given back of 500."""


@for_each("used, more, returned", ROUNDS)
async def test_tokens_that_a_request_has_set_aside_later_have_not_leaked_before(
    volume: Volume, store: TenantStore, used: int, more: int, returned: int
) -> None:
    """600 a minute are 10 a second: of 100 tokens nothing is left after a minute, and of 400 after a second 390."""
    caller = make_caller(limits=Limits(tokens_per_minute=600))
    reservation = await store.ledger.reserve("r1", caller, "credit", 100)
    volume.time.advance(60)
    extended = await store.ledger.extend(reservation, 400, used)
    assert extended.remaining.tokens == 200
    volume.time.advance(1)
    await settle(store, extended, used + more, 0)
    left = (await store.ledger.reserve("r2", caller, "credit", 0)).remaining.tokens
    assert left == 210 + returned


async def test_a_request_that_sets_tokens_aside_again_and_again_frees_nothing_of_others(
    volume: Volume, store: TenantStore
) -> None:
    caller = make_caller(limits=Limits(tokens_per_minute=600))
    reservation = await store.ledger.reserve("r1", caller, "credit", 500)
    for _ in range(10):  # As much is set aside again as has leaked.
        volume.time.advance(3)
        reservation = await store.ledger.extend(reservation, 30, 0)
    await store.ledger.reserve("other", caller, "credit", 100)
    await settle(store, reservation, 0, 0)
    assert (await store.ledger.reserve("r2", caller, "credit", 0)).remaining.tokens == 600 - 100


async def test_a_gateway_that_dies_has_used_what_it_had_extended(volume: Volume) -> None:
    caller = make_caller(limits=Limits(budget_tokens=100))
    async with volume.open() as store:
        await store.ledger.extend(await store.ledger.reserve("r1", caller, "credit", 40), 50, 0)
    async with volume.open() as store:
        with pytest.raises(AccessError, match="90 of 100 used"):
            await store.ledger.reserve("r2", caller, "credit", 11)


async def test_what_is_not_recorded_any_more_cannot_be_extended(store: TenantStore) -> None:
    reservation = Reservation("gone", make_caller(), "credit", 40)
    with pytest.raises(AccessError, match="send it again") as refused:
        await store.ledger.extend(reservation, 1, 0)
    assert refused.value.status == 503
