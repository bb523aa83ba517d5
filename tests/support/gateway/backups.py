"""Backups for tests: made of a store, and read as a restore reads what arrives."""

import io
import shutil
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from r1plus_gateway.access.caller import Caller, Limits
from r1plus_gateway.store.administration.admin import IssuedKey, create_key
from r1plus_gateway.store.administration.key_records import KeySpec
from r1plus_gateway.store.content.content import ListPage
from r1plus_gateway.store.copies.backup import make_copy
from r1plus_gateway.store.copies.restoration import RestoreReport, check_backup, restore_backup
from r1plus_gateway.store.copies.sealed_stream import StreamHeader, StreamKind, StreamReader, seal
from r1plus_gateway.store.database import migration
from r1plus_gateway.store.database import tables as t
from r1plus_gateway.store.database.table_copy import BACKED_UP, encode_tables
from r1plus_gateway.store.tenant import TenantStore
from support.gateway.content import make_content, say
from support.gateway.tenant_data import ADMIN, Volume, make_caller, settle

ANNA = make_caller(end_user="anna@example.com", limits=Limits(budget_tokens=1000, tokens_per_minute=500))
BERT = make_caller("key000000002", end_user="bert@example.com")


@dataclass(frozen=True)
class Files:
    """What `r1plus tenant backup` leaves."""

    backup: bytes
    keys: bytes

    @property
    def body(self) -> bytes:
        """What a restore sends."""
        return self.keys + self.backup


async def copy(store: TenantStore, kind: StreamKind) -> bytes:
    """Return a whole copy."""
    async with aclosing(make_copy(store, ADMIN, kind)) as pieces:
        return b"".join([piece async for piece in pieces])


async def back_up(store: TenantStore) -> Files:
    """Return a backup, and the keys as they are after it."""
    backup = await copy(store, StreamKind.BACKUP)
    return Files(backup, await copy(store, StreamKind.KEYS))


async def back_up_first_schema(store: TenantStore) -> Files:
    """Return a backup as the first release has made them, which had no content; the store's own goes."""
    files = await back_up(store)
    data, header = store.require_data(), replace(read_header(files.backup), schema="0001")
    with data.database.transaction(writes=True) as connection:
        migration.move_within(connection, "0001")
        tables = [table for table in BACKED_UP if sa.inspect(connection).has_table(table.name)]
        backup = b"".join(seal(header, data.keys.backup_key, encode_tables(connection, tables)))
        migration.move_within(connection, migration.get_head())
    return replace(files, backup=backup)


async def restore(store: TenantStore, files: Files) -> RestoreReport:
    """Restore as the tenant's admin."""
    return await restore_backup(store, ADMIN, io.BytesIO(files.body).read)


async def check(store: TenantStore, files: Files, *, needs_new: bool = False) -> RestoreReport:
    """Check as the tenant's admin."""
    return await check_backup(store, ADMIN, io.BytesIO(files.body).read, needs_new=needs_new)


def make_elsewhere(volume: Volume, folder: Path, tenant_uid: str = "uid-of-another-cluster") -> Volume:
    """Return a new volume in another cluster, with the same half of the Secret."""
    other = Volume(folder, tenant_uid=tenant_uid, time=volume.time).make()
    shutil.rmtree(other.config.secret_folder)
    shutil.copytree(volume.config.secret_folder, other.config.secret_folder)
    return other


def read_header(stream: bytes, kind: StreamKind = StreamKind.BACKUP) -> StreamHeader:
    """Return what a copy says of itself."""
    return StreamReader(io.BytesIO(stream).read, kind).header


async def read_rows(store: TenantStore) -> dict[str, list[Any]]:
    """Return all rows of all tables, but for the beats of the gateway."""
    tables = [table for table in t.metadata.sorted_tables if table.name != "instances"]
    return await store.read(
        lambda connection: {table.name: list(connection.execute(sa.select(table)).all()) for table in tables}
    )


@dataclass(frozen=True)
class Filled:
    """What a tenant has when its backup is made."""

    key: IssuedKey
    conversations: dict[str, str]
    """By end user."""


async def fill(store: TenantStore) -> Filled:
    """Make a key, use 42 tokens, and store a conversation for each of two end users."""
    issued = await create_key(store, ADMIN, KeySpec("ci", frozenset({"credit"}), frozenset({"end-users"})))
    await settle(store, await store.ledger.reserve("a", ANNA, "credit", 100), 30, 12)
    content, made = make_content(store), {}
    for caller in (ANNA, BERT):
        conversation = await content.write(
            caller, lambda one: one.create_conversation({"a": "ä"}, [say("x"), say("y")])
        )
        made[caller.end_user] = conversation.id
    return Filled(issued, made)


async def read_texts(store: TenantStore, filled: Filled, caller: Caller = ANNA) -> list[Any]:
    """Return the items of a caller's conversation, through the list of its conversations."""
    content = make_content(store)
    listed = await content.read(caller, lambda one: one.list_conversations(ListPage()))
    assert listed is not None
    assert [one.id for one in listed.entries] == [filled.conversations[caller.end_user]]
    items = await content.read(
        caller, lambda one: one.list_items(filled.conversations[caller.end_user], ListPage(is_ascending=True))
    )
    assert items is not None
    return [item.content for item in items.entries]
