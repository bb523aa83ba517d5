"""What an administrator does with keys, and what is reported of their use."""

from dataclasses import fields, replace
from datetime import date
from functools import partial

import pytest

from r1plus_gateway.access.api_keys import parse_key, verify_key
from r1plus_gateway.access.caller import Limits
from r1plus_gateway.store.administration import admin
from r1plus_gateway.store.administration.admin import (
    BudgetRow,
    KeyRevokedError,
    UsageQuery,
    confirm_time,
    create_key,
    list_keys,
    report_usage,
    revoke_key,
    rotate_key,
    update_key,
    verify_audit,
)
from r1plus_gateway.store.administration.key_records import LIMITS, KeyChange, KeySpec
from r1plus_gateway.store.ledger.repository import LedgerRepository
from r1plus_gateway.store.tenant import TenantStore
from support.gateway.tenant_data import ADMIN, Volume, make_caller, settle
from support.tables import for_each

EVER = UsageQuery(date(2000, 1, 1), date(2999, 1, 1))
SPEC = KeySpec(
    "web shop",
    frozenset({"fraud", "credit"}),
    frozenset({"end-users"}),
    Limits(60, 10_000, 4, 10**6),
    expires_at=1_900_000_000.0,
)


async def test_a_key_is_listed_with_all_that_was_asked_for_and_without_its_secret(
    volume: Volume, store: TenantStore
) -> None:
    issued = await create_key(store, ADMIN, SPEC)
    volume.time.advance(1)
    other = await create_key(store, ADMIN, KeySpec("other"))
    newest, record = await list_keys(store)
    assert newest == other.record
    assert record == issued.record
    assert {name: getattr(record, name) for name in (field.name for field in fields(SPEC))} == {
        field.name: getattr(SPEC, field.name) for field in fields(SPEC)
    }
    assert record.created_at == volume.time.wall - 1
    assert parse_key(issued.key.encode()) == issued.key
    assert issued.key.secret not in repr(await list_keys(store)) + repr(issued)


async def test_keys_and_their_secrets_survive_a_restart(volume: Volume) -> None:
    async with volume.open() as store:
        issued = await create_key(store, ADMIN, SPEC)
    async with volume.open() as store:
        assert await verify_key(issued.key.encode(), store, store.clock.read()) == issued.record


async def test_of_a_rotated_key_the_old_secret_lives_on_for_its_grace_time(volume: Volume, store: TenantStore) -> None:
    first = await create_key(store, ADMIN, SPEC)
    second = await rotate_key(store, ADMIN, first.key.id, grace_seconds=60)
    assert second.key.id == first.key.id
    assert second.record.limits == SPEC.limits
    assert await read_valid(store, first.key.encode(), second.key.encode()) == [True, True]
    volume.time.advance(60)
    assert await read_valid(store, first.key.encode(), second.key.encode()) == [False, True]


async def test_at_most_two_secrets_of_a_key_are_valid(store: TenantStore) -> None:
    issued = [await create_key(store, ADMIN, SPEC)]
    issued += [await rotate_key(store, ADMIN, issued[0].key.id) for _ in range(2)]
    assert await read_valid(store, *(one.key.encode() for one in issued)) == [False, True, True]


async def test_rotation_without_grace_ends_the_old_secret_at_once(store: TenantStore) -> None:
    first = await create_key(store, ADMIN, SPEC)
    await rotate_key(store, ADMIN, first.key.id, grace_seconds=0)
    assert await read_valid(store, first.key.encode()) == [False]


async def test_a_revoked_key_ends_with_both_secrets_and_stays_in_the_list(store: TenantStore) -> None:
    first = await create_key(store, ADMIN, SPEC)
    second = await rotate_key(store, ADMIN, first.key.id)
    record = await revoke_key(store, ADMIN, first.key.id)
    assert await read_valid(store, first.key.encode(), second.key.encode()) == [False, False]
    assert await list_keys(store) == [record]
    assert await revoke_key(store, ADMIN, first.key.id) == record
    with pytest.raises(ValueError, match="is revoked, so it cannot be rotated"):
        await rotate_key(store, ADMIN, first.key.id)


CHANGES = {
    "a higher budget": KeyChange(limits={"budget_tokens": 2 * 10**6}),
    "no budget and no limit of requests": KeyChange(limits={"budget_tokens": None, "requests_per_minute": None}),
    "all limits": KeyChange(limits=dict.fromkeys(LIMITS, 7)),
    "all models": KeyChange({"models": None}),
    "another model and no scope": KeyChange({"models": frozenset({"debit"}), "scopes": frozenset()}),
    "no end": KeyChange({"expires_at": None}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_of_a_key_only_what_is_named_changes(store: TenantStore, change: KeyChange) -> None:
    issued = await create_key(store, ADMIN, SPEC)
    record = await update_key(store, ADMIN, issued.key.id, change)
    expected = replace(issued.record, **change.fields, limits=replace(SPEC.limits, **change.limits))
    assert record == expected != issued.record
    assert await list_keys(store) == [record]
    assert await verify_key(issued.key.encode(), store, store.clock.read()) == record


async def test_a_rotated_key_that_is_changed_keeps_both_secrets(store: TenantStore) -> None:
    first = await create_key(store, ADMIN, SPEC)
    second = await rotate_key(store, ADMIN, first.key.id)
    await update_key(store, ADMIN, first.key.id, CHANGES["no end"])
    assert await read_valid(store, first.key.encode(), second.key.encode()) == [True, True]


async def test_an_expired_key_lives_again_with_a_new_end_only(volume: Volume, store: TenantStore) -> None:
    issued = await create_key(store, ADMIN, replace(SPEC, expires_at=volume.time.wall + 60))
    volume.time.advance(60)
    await update_key(store, ADMIN, issued.key.id, CHANGES["a higher budget"])
    assert await read_valid(store, issued.key.encode()) == [False]
    await update_key(store, ADMIN, issued.key.id, KeyChange({"expires_at": volume.time.wall + 60}))
    assert await read_valid(store, issued.key.encode()) == [True]


async def test_a_revoked_key_is_not_changed(store: TenantStore) -> None:
    issued = await create_key(store, ADMIN, SPEC)
    record = await revoke_key(store, ADMIN, issued.key.id)
    with pytest.raises(KeyRevokedError, match="is revoked, so it cannot be changed; create a new one"):
        await update_key(store, ADMIN, issued.key.id, CHANGES["no end"])
    assert await list_keys(store) == [record]


async def test_every_wrong_field_of_a_change_is_named_and_none_is_made(store: TenantStore) -> None:
    issued = await create_key(store, ADMIN, SPEC)
    change = KeyChange({"models": frozenset(), "expires_at": 1.0}, {"budget_tokens": -1, "tokens_per_minute": 5})
    with pytest.raises(ValueError, match=r"models: has 0.*limits.budget_tokens: -1.*expires_at: is not"):
        await update_key(store, ADMIN, issued.key.id, change)
    assert await list_keys(store) == [issued.record]


async def read_valid(store: TenantStore, *texts: str) -> list[bool]:
    return [await verify_key(text, store, store.clock.read()) is not None for text in texts]


async def test_a_key_that_is_not_there_is_named(store: TenantStore) -> None:
    for action in (rotate_key, revoke_key, partial(update_key, change=CHANGES["no end"])):
        with pytest.raises(LookupError, match="No key has the id 'nothing'"):
            await action(store, ADMIN, "nothing")


@pytest.mark.parametrize("seconds", [-1.0, 31 * 86400.0, float("nan"), float("inf")])
async def test_a_grace_time_has_a_bound(store: TenantStore, seconds: float) -> None:
    issued = await create_key(store, ADMIN, SPEC)
    with pytest.raises(ValueError, match="grace"):
        await rotate_key(store, ADMIN, issued.key.id, grace_seconds=seconds)


async def test_every_wrong_field_is_named(store: TenantStore) -> None:
    spec = KeySpec("", frozenset(), frozenset({"everything"}), Limits(-1, 2**60), expires_at=1.0)
    with pytest.raises(ValueError, match="name") as failure:
        await create_key(store, ADMIN, spec)
    text = str(failure.value)
    for part in (
        "name: must have",
        "scopes: 'everything' is unknown",
        "models: has 0",
        "limits.requests_per_minute: -1",
    ):
        assert part in text
    assert "limits.tokens_per_minute" in text and "expires_at" in text
    assert await list_keys(store) == []


WRONG_SPECS = {
    "a name of two lines": KeySpec("a\nb"),
    "a long name": KeySpec("a" * 254),
    "an empty model": KeySpec("a", frozenset({""})),
    "a model with NUL": KeySpec("a", frozenset({"a\0"})),
    "too many models": KeySpec("a", frozenset(str(number) for number in range(257))),
    "an expiry that is no time": KeySpec("a", expires_at=float("nan")),
    "an expiry at the end of time": KeySpec("a", expires_at=float("inf")),
}


@pytest.mark.parametrize("spec", WRONG_SPECS.values(), ids=WRONG_SPECS)
async def test_a_wrong_specification_makes_no_key(store: TenantStore, spec: KeySpec) -> None:
    with pytest.raises(ValueError, match=r"name|models|expires_at"):
        await create_key(store, ADMIN, spec)
    assert await list_keys(store) == []


async def test_the_report_says_what_is_left_of_each_budget(store: TenantStore) -> None:
    issued = await create_key(store, ADMIN, SPEC)
    idle = await create_key(store, ADMIN, KeySpec("idle", limits=Limits(budget_tokens=5)))
    unlimited = await create_key(store, ADMIN, KeySpec("unlimited"))
    caller = issued.record.caller
    await settle(store, await store.ledger.reserve("a", caller, "credit", 500), 100, 50)
    await store.ledger.reserve("b", caller, "credit", 300)
    report = await report_usage(store, EVER)
    month = "2027-01"
    assert set(report.budgets) == {
        BudgetRow("api_key", issued.key.id, month, 150, 300, 10**6),
        BudgetRow("api_key", idle.key.id, month, 0, 0, 5),
        BudgetRow("api_key", unlimited.key.id, month, 0, 0, None),
    }
    left = {row.caller_id: row.left_tokens for row in report.budgets}
    assert left == {issued.key.id: 10**6 - 450, idle.key.id: 5, unlimited.key.id: None}
    (own,) = (await report_usage(store, UsageQuery(date(2027, 1, 1), date(2027, 1, 31), caller_id=idle.key.id))).budgets
    assert own.caller_id == idle.key.id


async def test_usage_is_reported_of_the_days_callers_and_models_that_are_asked_for(
    volume: Volume, store: TenantStore
) -> None:
    for number, (name, model) in enumerate(
        (("key000000001", "credit"), ("key000000001", "fraud"), ("key000000002", "credit"))
    ):
        await settle(store, await store.ledger.reserve(f"r{number}", make_caller(name), model, 10), 1, 1)
    day = date(2027, 1, 15)
    counts = {
        "all": (UsageQuery(day, day), 3),
        "another day": (UsageQuery(date(2027, 1, 16), date(2027, 1, 16)), 0),
        "one caller": (UsageQuery(day, day, caller_id="key000000001"), 2),
        "one model": (UsageQuery(day, day, model="credit"), 2),
        "another kind": (UsageQuery(day, day, caller_kind="service_account"), 0),
        "SQL": (UsageQuery(day, day, caller_id="' OR 1=1 --"), 0),
    }
    for name, (query, count) in counts.items():
        assert len((await report_usage(store, query)).rows) == count, name


@for_each("times", {"the bound": 1.0, "a tenth more": 1.1, "ten times as much": 10.0})
async def test_a_report_has_so_many_rows_and_that_of_one_key_has_its_own(
    store: TenantStore, monkeypatch: pytest.MonkeyPatch, times: float
) -> None:
    monkeypatch.setattr(admin, "MOST_ROWS", 10)
    callers = [make_caller("key000000001", end_user=f"user-{number}") for number in range(30)]
    for number, caller in enumerate((*callers, make_caller("key000000002"))):
        await settle(store, await store.ledger.reserve(f"u{number}", caller, "credit", 10), 1, 1)
    report = await report_usage(store, EVER)
    assert (len(report.rows), report.is_cut) == (2, False), "end users of a key are in one row"
    for number in range(round(10 * times)):
        reservation = await store.ledger.reserve(f"r{number}", callers[0], f"model-{number}", 10)
        await settle(store, reservation, 1, 1)
    report = await report_usage(store, EVER)
    assert (len(report.rows), report.is_cut) == (10, True)
    own = await report_usage(store, replace(EVER, caller_id="key000000002"))
    assert ([row.requests for row in own.rows], own.is_cut) == ([1], False)


async def test_after_a_clock_was_wrong_ledger_time_is_taken_back_by_hand(volume: Volume) -> None:
    real = volume.time.wall
    volume.time.wall = real + 400 * 86400
    async with volume.open() as store:
        await store.ledger.reserve("a", make_caller(), "credit", 1)
    volume.time.wall = real
    async with volume.open() as store:
        assert store.clock.read() - real == pytest.approx(400 * 86400)
        assert await confirm_time(store, ADMIN) == pytest.approx(400 * 86400)
        await store.ledger.reserve("b", make_caller(), "credit", 1)
        assert store.clock.read() == real
        assert (await verify_audit(store)).problem == ""
    async with volume.open() as store:
        assert store.clock.read() == real


async def test_another_replica_does_not_bring_back_the_time_before_a_confirmation(volume: Volume) -> None:
    """Each has a clock of its own, which has followed the ledger ahead."""
    real, other = volume.time.wall, volume.time.make_clock()

    def read_other(ledger: LedgerRepository) -> float:
        return LedgerRepository(ledger.connection, store.require_data().keys, other, "other").now

    volume.time.wall = real + 400 * 86400
    async with volume.open() as store:
        await store.ledger.reserve("a", make_caller(), "credit", 1)
        volume.time.wall = real
        assert await store.write(read_other) - real == pytest.approx(400 * 86400)
        await confirm_time(store, ADMIN)
        assert [await store.write(read_other) for _ in range(2)] == [real, real]
