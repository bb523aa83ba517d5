"""The audit log: a record that was changed, removed, moved or cut is found, and no text of a request is in it."""

import json
import re
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from r1plus_gateway.access.caller import AnswerEvidence, Outcome, TokenUsage
from r1plus_gateway.store.administration.admin import create_key, revoke_key, rotate_key, update_key, verify_audit
from r1plus_gateway.store.administration.audit import HEAD_FILE, AuditHead, OutsideHead, read_head_file
from r1plus_gateway.store.administration.key_records import KeyChange, KeySpec
from r1plus_gateway.store.database import tables as t
from r1plus_gateway.store.tenant import Periods, TenantStore
from r1plus_gateway.store.upkeep import maintenance
from support.gateway.tenant_data import ADMIN, EVIDENCE, Volume, count_from, make_caller, settle

RECORDS = 6


@pytest.fixture
async def filled(store: TenantStore) -> TenantStore:
    """A store with some records, the head of which is on the volume."""
    next_id = count_from()
    for _ in range(RECORDS):
        await settle(store, await store.ledger.reserve(next_id(), make_caller(), "credit", 10), 1, 2)
    await store.maintain()
    return store


async def test_each_request_leaves_one_record_with_who_what_and_how_much(volume: Volume, store: TenantStore) -> None:
    reservation = await store.ledger.reserve("req-1", make_caller(end_user="ann"), "credit", 10)
    await store.ledger.settle(reservation, TokenUsage(2, 3), Outcome.SLOW_READER, EVIDENCE)
    failed = await store.ledger.reserve("req-2", make_caller(), "credit", 10)
    await store.ledger.settle(failed, TokenUsage(0, 0), Outcome.FAILED, None)
    first, second = await store.read(lambda connection: connection.execute(sa.select(t.audit)).mappings().all())
    assert {**first, "mac": b"", "end_user": len(first["end_user"])} == {
        "seq": 1,
        "at": volume.time.wall,
        "action": "request",
        "caller_kind": "api_key",
        "caller_id": "key000000001",
        "end_user": 32,
        "subject": "req-1",
        "model": "credit",
        "revision": EVIDENCE.revision,
        "engine_digest": EVIDENCE.engine_digest,
        "verdict": "Pass",
        "prompt_tokens": 2,
        "completion_tokens": 3,
        "unsettled_tokens": 0,
        "outcome": "slow_reader",
        "key_version": 1,
        "mac": b"",
    }
    assert (second["outcome"], second["revision"], second["end_user"]) == ("failed", "", "")


async def test_what_an_administrator_changes_is_recorded(store: TenantStore) -> None:
    issued = await create_key(store, ADMIN, KeySpec("ci"))
    await rotate_key(store, ADMIN, issued.key.id)
    for _ in range(2):  # what changes nothing leaves no record
        await update_key(
            store, ADMIN, issued.key.id, KeyChange({"models": frozenset({"b", "a"})}, {"budget_tokens": 9})
        )
    for _ in range(2):
        await revoke_key(store, ADMIN, issued.key.id)
    rows = await store.read(lambda connection: connection.execute(sa.select(t.audit)).all())
    assert [(row.action, row.caller_kind, row.caller_id, row.subject) for row in rows] == [
        (action, "admin", ADMIN.id, issued.key.id)
        for action in ("create_key", "rotate_key", "update_key", "revoke_key")
    ]
    assert [row.outcome for row in rows] == ["", "", "budget_tokens none -> 9; models all -> a,b", ""]
    assert (await verify_audit(store)).problem == ""


async def test_a_whole_log_is_verified_to_its_head(filled: TenantStore) -> None:
    report = await verify_audit(filled)
    assert (report.records, report.problem) == (RECORDS, "")
    assert filled.config.folder is not None
    assert read_head_file(filled.config.folder) == OutsideHead(report.head)
    assert (await verify_audit(filled, report.head)).problem == ""


def execute(statement: str) -> Callable[[sa.Connection], object]:
    return lambda connection: connection.exec_driver_sql(statement)


def put_back(connection: sa.Connection) -> None:
    """Take the database to an earlier state, head included: as one with the keys of the database could."""
    connection.exec_driver_sql("DELETE FROM audit WHERE seq > 3")
    row = connection.execute(sa.select(t.audit.c.seq, t.audit.c.mac).order_by(t.audit.c.seq.desc()).limit(1)).one()
    head = AuditHead(row.seq, row.mac).encode()
    connection.execute(sa.update(t.meta).where(t.meta.c.name == "audit_head").values(value=head))


def swap(connection: sa.Connection) -> None:
    for before, after in ((2, 99), (3, 2), (99, 3)):
        connection.exec_driver_sql(f"UPDATE audit SET seq = {after} WHERE seq = {before}")


def close_gap(connection: sa.Connection) -> None:
    connection.exec_driver_sql("DELETE FROM audit WHERE seq = 3")
    for seq in (4, 5, 6):
        connection.exec_driver_sql(f"UPDATE audit SET seq = {seq - 1} WHERE seq = {seq}")


DAMAGE: dict[str, tuple[Callable[[sa.Connection], object], str]] = {
    "tokens changed": (execute("UPDATE audit SET completion_tokens = 1 WHERE seq = 3"), "record 3 was changed"),
    "caller changed": (execute("UPDATE audit SET caller_id = 'other' WHERE seq = 1"), "record 1 was changed"),
    "time changed": (execute("UPDATE audit SET at = at + 1 WHERE seq = 2"), "record 2 was changed"),
    "a MAC changed": (execute("UPDATE audit SET mac = zeroblob(32) WHERE seq = 2"), "record 2 was changed"),
    "one removed": (execute("DELETE FROM audit WHERE seq = 3"), "record 3 is missing"),
    "the first removed": (execute("DELETE FROM audit WHERE seq = 1"), "record 1 is missing"),
    "one removed, and the rest numbered again": (close_gap, "record 3 was changed, or moved"),
    "two swapped": (swap, "record 2 was changed, or moved"),
    "the end cut": (execute("DELETE FROM audit WHERE seq > 4"), "records 5 to 6 are missing at the end"),
    "all removed": (execute("DELETE FROM audit"), "records 1 to 6 are missing at the end"),
    "one forged at the end": (
        execute("INSERT INTO audit SELECT 7, at, action, caller_kind, caller_id, end_user, subject, model, revision,"
                " engine_digest, verdict, prompt_tokens, completion_tokens, unsettled_tokens, outcome, key_version, mac"
                " FROM audit WHERE seq = 6"),
        "record 7 was changed",
    ),
    "the whole database put back, its head too": (put_back, "records 4 to 6 are missing at the end"),
    "the head in the database put back": (
        execute("UPDATE meta SET value = '{\"seq\": 0, \"mac\": \"" + "00" * 32 + "\"}' WHERE name = 'audit_head'"),
        "the stored head is record 0, and the log goes on to 6",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "problem"), DAMAGE.values(), ids=DAMAGE)
async def test_damage_is_found_and_named(
    filled: TenantStore, damage: Callable[[sa.Connection], object], problem: str
) -> None:
    await filled.write(lambda ledger: damage(ledger.connection) and None)
    report = await verify_audit(filled)
    assert re.search(problem, report.problem)


async def test_a_log_that_was_written_again_from_some_record_on_is_found_by_a_head_that_was_kept(
    volume: Volume, filled: TenantStore
) -> None:
    """By one who has the audit key: only a head outside of the database shows it."""
    kept = (await verify_audit(filled)).head
    await filled.write(lambda ledger: put_back(ledger.connection))
    next_id = count_from(100)
    for _ in range(5):
        await settle(filled, await filled.ledger.reserve(next_id(), make_caller(), "credit", 10), 1, 1)
    assert "record 6 is another one" in (await verify_audit(filled)).problem
    await filled.maintain()
    assert (await verify_audit(filled)).problem == ""
    assert "record 6 is another one" in (await verify_audit(filled, kept)).problem


async def test_records_are_removed_when_they_are_old_and_the_rest_is_still_verified(volume: Volume) -> None:
    next_id = count_from()
    periods = Periods(prune=0.0)
    store = volume.make_store(periods)
    assert await store.open()
    for _ in range(3):
        for _ in range(4):
            await settle(store, await store.ledger.reserve(next_id(), make_caller(), "credit", 10), 1, 2)
        kept = (await verify_audit(store)).head
        volume.time.advance(200 * 86400)
    await store.maintain()
    report = await verify_audit(store, kept)
    assert (report.records, report.head.seq, report.problem) == (9, 13, "")
    rows = await store.read(lambda connection: connection.execute(sa.select(t.audit).order_by(t.audit.c.seq)).all())
    assert [row.seq for row in rows] == list(range(5, 14))
    assert (rows[-1].action, rows[-1].subject) == ("prune_audit", "1-4")
    await store.maintain()
    assert (await verify_audit(store)).head == report.head, "nothing more is old"
    assert "record 2 was removed by retention" in (await verify_audit(store, AuditHead(2, bytes(32)))).problem
    volume.time.advance(10_000 * 86400)
    await store.maintain()
    report = await verify_audit(store)
    assert (report.records, report.problem) == (2, ""), "the newest record always stays"
    await store.close()


def move_base(connection: sa.Connection) -> None:
    """Remove old records and say that retention did, without the audit key."""
    row = connection.execute(sa.select(t.audit.c.seq, t.audit.c.mac).where(t.audit.c.seq == 3)).one()
    connection.execute(sa.delete(t.audit).where(t.audit.c.seq <= 3))
    text = json.dumps({"seq": row.seq, "mac": row.mac.hex(), "seal": "00" * 32})
    connection.execute(sa.insert(t.meta).values(name="audit_base", value=text))


async def test_records_that_retention_did_not_remove_are_missed(filled: TenantStore) -> None:
    await filled.write(lambda ledger: move_base(ledger.connection))
    assert "the base of an audit log was changed" in (await verify_audit(filled)).problem


async def test_a_head_of_no_record_is_a_finding(filled: TenantStore) -> None:
    assert (await verify_audit(filled, AuditHead(-1, bytes(32)))).problem != ""


async def test_a_head_file_that_is_damaged_is_a_finding(volume: Volume, filled: TenantStore) -> None:
    (volume.folder / "data" / HEAD_FILE).write_text("{}")
    assert "head that is stored on the volume cannot be read" in (await verify_audit(filled)).problem


async def test_the_chain_goes_on_after_a_restart(volume: Volume) -> None:
    next_id = count_from()
    for round_ in range(1, 4):
        async with volume.open() as store:
            await settle(store, await store.ledger.reserve(next_id(), make_caller(), "credit", 10), 1, 1)
            report = await verify_audit(store)
            assert (report.records, report.problem) == (round_, "")


async def test_hostile_texts_of_a_pod_are_recorded_as_one_bounded_line(store: TenantStore) -> None:
    evidence = AnswerEvidence("r\n\0\ud800" + "x" * 10_000, "d" * 10_000, "Pass\r\n")
    reservation = await store.ledger.reserve("a", make_caller(), "credit", 10)
    await store.ledger.settle(reservation, TokenUsage(1, 1), Outcome.ANSWERED, evidence)
    (row,) = await store.read(lambda connection: connection.execute(sa.select(t.audit)).all())
    assert (row.revision[:5], len(row.revision), len(row.engine_digest), row.verdict) == ("r???x", 253, 253, "Pass??")
    assert (await verify_audit(store)).problem == ""


async def test_old_records_are_removed_in_several_batches_per_round_and_no_more(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one transaction requests would wait for them, and one for a round would be too slow for many requests."""
    monkeypatch.setattr(maintenance, "MOST_PRUNED", 2)
    monkeypatch.setattr(maintenance, "AUDIT_BATCHES", 3)
    next_id = count_from()
    store = volume.make_store()
    assert await store.open()
    for _ in range(15):
        await settle(store, await store.ledger.reserve(next_id(), make_caller(), "credit", 10), 1, 2)
    volume.time.advance(1000 * 86400)
    firsts = []
    for _ in range(3):
        await store.maintain()
        firsts.append(await store.read(lambda connection: connection.scalar(sa.select(sa.func.min(t.audit.c.seq)))))
    assert firsts == [7, 13, 16], "the newest of the first 15, and what says that they were removed"
    await store.close()
