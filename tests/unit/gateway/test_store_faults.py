"""What a volume can do to the tenant's data: each fault is a reason of its own, and nothing is made anew over it."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from r1plus_gateway.access.caller import AccessError
from r1plus_gateway.store.administration.admin import UsageQuery, create_key, list_keys, report_usage, verify_audit
from r1plus_gateway.store.administration.key_records import KeySpec
from r1plus_gateway.store.database import migration
from r1plus_gateway.store.database.tables import metadata
from r1plus_gateway.store.errors import DataReason, MigrationError, StoreError
from support.gateway.tenant_data import ADMIN, Volume, count_from, make_caller, settle

pytestmark = pytest.mark.first_run_counts

PAGE = 4096
EVER = UsageQuery(date(2000, 1, 1), date(2999, 1, 1))


@pytest.fixture
async def used(volume: Volume) -> Volume:
    """A volume whose gateway has run and ended."""
    next_id = count_from()
    async with volume.open() as store:
        await create_key(store, ADMIN, KeySpec("ci"))
        running = [store.ledger.reserve(next_id(), make_caller(), "credit", 10) for _ in range(100)]
        await asyncio.gather(*[settle(store, one, 1, 1) for one in await asyncio.gather(*running)])
    assert volume.database.stat().st_size > 20 * PAGE
    return volume


async def read_problem(volume: Volume) -> tuple[DataReason, str]:
    """Return why the data of the volume cannot be used."""
    store = volume.make_store()
    assert not await store.open()
    with pytest.raises(AccessError) as refusal:
        await store.ledger.reserve("a", make_caller(), "credit", 1)
    assert refusal.value.status == 503
    assert str(volume.folder) not in str(refusal.value)
    await store.close()
    return store.state.reason, store.state.message


def remove(volume: Volume) -> None:
    volume.database.unlink()


def empty(volume: Volume) -> None:
    volume.database.write_bytes(b"")


def cut_in_the_header(volume: Volume) -> None:
    os.truncate(volume.database, 10)


def cut_after_the_first_page(volume: Volume) -> None:
    os.truncate(volume.database, PAGE)


def cut_in_the_middle(volume: Volume) -> None:
    os.truncate(volume.database, volume.database.stat().st_size // 2)


def cut_within_a_page(volume: Volume) -> None:
    os.truncate(volume.database, volume.database.stat().st_size - 100)


def flip_a_bit(volume: Volume, offset: int) -> None:
    with volume.database.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def flip_a_bit_in_the_first_page(volume: Volume) -> None:
    flip_a_bit(volume, 100)


def flip_a_bit_in_a_later_page(volume: Volume) -> None:
    flip_a_bit(volume, 10 * PAGE + 100)


def write_text_over_it(volume: Volume) -> None:
    volume.database.write_text("no database at all" * 1000)


def take_one_without_encryption(volume: Volume) -> None:
    volume.database.unlink()
    with sa.create_engine(f"sqlite:///{volume.database}").connect() as connection:
        connection.exec_driver_sql("CREATE TABLE meta (name TEXT)")
        connection.commit()


def lose_the_volume(volume: Volume) -> None:
    shutil.rmtree(volume.folder / "data")


CORRUPT, WRONG = DataReason.CORRUPT, DataReason.WRONG_KEY
FAULTS: dict[str, tuple[Callable[[Volume], None], DataReason, str]] = {
    "the file is gone": (remove, CORRUPT, "tenant.db is missing"),
    "the file is empty": (empty, CORRUPT, "tenant.db is cut"),
    "the file is cut in its header": (cut_in_the_header, CORRUPT, "tenant.db is cut"),
    "the file is cut after a page": (cut_after_the_first_page, CORRUPT, "backup"),
    "the file is cut in the middle": (cut_in_the_middle, CORRUPT, "backup"),
    "the file is cut within a page": (cut_within_a_page, CORRUPT, "backup"),
    "a bit of the first page flipped": (flip_a_bit_in_the_first_page, CORRUPT, "backup"),
    "a bit of a later page flipped": (flip_a_bit_in_a_later_page, CORRUPT, "backup"),
    "the file is something else": (write_text_over_it, WRONG, "was not made with this tenant's key"),
    "the file is not encrypted": (take_one_without_encryption, WRONG, "was not made with this tenant's key"),
    "the volume is not mounted": (lose_the_volume, DataReason.CONFIG_INVALID, "mounts the tenant's volume"),
}


@pytest.mark.parametrize(("damage", "reason", "message"), FAULTS.values(), ids=FAULTS)
async def test_a_damaged_volume_is_a_state_with_the_remedy(
    used: Volume, damage: Callable[[Volume], None], reason: DataReason, message: str
) -> None:
    damage(used)
    before = used.database.read_bytes() if used.database.exists() else None
    found, text = await read_problem(used)
    assert found is reason, text
    assert message in text
    assert (used.database.read_bytes() if used.database.exists() else None) == before


async def test_a_foreign_tenants_volume_is_refused_before_anything_is_written(used: Volume) -> None:
    other = Volume(used.folder, tenant_uid="another-uid")
    before = {path: path.read_bytes() for path in (used.database, used.ring)}
    found, text = await read_problem(other)
    assert found is DataReason.FOREIGN_TENANT
    assert used.tenant_uid in text and "another-uid" in text
    assert {path: path.read_bytes() for path in before} == before


async def test_a_foreign_tenants_file_beside_the_own_ring_is_refused(used: Volume, tmp_path: Path) -> None:
    other = Volume(tmp_path, tenant_uid="another-uid").make()
    async with other.open():
        pass
    shutil.copy(other.database, used.database)
    found, text = await read_problem(used)
    assert found is DataReason.WRONG_KEY
    assert "file and key ring together" in text


async def test_a_second_gateway_on_one_volume_waits_until_the_first_has_ended(volume: Volume) -> None:
    async with volume.open() as first:
        second = volume.make_store()
        assert not await second.open()
        assert second.state.reason is DataReason.LOCKED
        assert "another gateway uses the tenant's data" in second.state.message
        assert first.state.is_ready
    assert await second.open()
    assert second.state.is_ready
    await second.close()


async def test_a_newer_schema_is_read_and_not_written(used: Volume) -> None:
    async with used.open() as store:
        await store.write(
            lambda one: one.connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'") and None
        )
    store = used.make_store()
    assert await store.open()
    assert store.state.reason is DataReason.SCHEMA_NEWER
    assert "is at 9999, newer than this gateway" in store.state.message
    assert [record.name for record in await list_keys(store)] == ["ci"]
    assert (await verify_audit(store)).problem == ""
    with pytest.raises(AccessError, match="SchemaNewer"):
        await store.ledger.reserve("a", make_caller(), "credit", 1)
    with pytest.raises(StoreError, match="newer than this gateway"):
        await create_key(store, ADMIN, KeySpec("more"))
    await store.close()


async def test_the_migrations_make_the_tables(volume: Volume) -> None:
    async with volume.open() as store:
        with store.require_data().database.engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), metadata) == []


async def test_a_migration_that_cannot_get_its_lock_changes_nothing(volume: Volume) -> None:
    async with volume.open() as store:
        database = store.require_data().database
        await store.write(lambda one: one.connection.exec_driver_sql("DELETE FROM alembic_version") and None)
        with database.engine.connect() as holder:
            holder.exec_driver_sql("SELECT 1")  # BEGIN IMMEDIATE
            with pytest.raises(MigrationError, match="It is tried again"):
                migration.migrate(database)


async def test_the_file_shows_nothing_of_its_content(used: Volume) -> None:
    async with used.open() as store:
        with store.require_data().database.engine.connect() as connection:
            schema = connection.exec_driver_sql("SELECT sql FROM sqlite_master").scalars().all()
        rows = (await report_usage(store, EVER)).rows
    assert "CREATE TABLE" in repr(schema)
    assert {(row.caller_id, row.model) for row in rows} == {("key000000001", "credit")}
    content = used.database.read_bytes()
    for text in (b"SQLite format 3", b"CREATE TABLE", b"credit", b"key000000001"):
        assert text not in content


FULL_VOLUME = """
import asyncio, json, os, subprocess, sys
from pathlib import Path
from r1plus_gateway.access.caller import AccessError
from r1plus_gateway.store.administration.admin import *
from r1plus_gateway.store.administration.key_records import KeySpec
from support.gateway.tenant_data import ADMIN, Volume, make_caller, settle

def say(**values):
    print(json.dumps(values), flush=True)

def fill(folder):
    with (folder / "filler").open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while file.write(b"x" * size) == size:
                    pass
            except OSError:
                pass

async def reserve(store, name):
    try:
        return await store.ledger.reserve(name, make_caller(), "credit", 10)
    except AccessError as error:
        return error.status

async def main(volume):
    data = volume.folder / "data"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(data)], check=True)
    async with volume.open() as store:
        await create_key(store, ADMIN, KeySpec("ci"))
        first = await reserve(store, "a")
        fill(data)
        # The log has room for some more pages within its file.
        status, number = 0, 0
        while status != 503 and number < 1000:
            status, number = await reserve(store, f"b{number}"), number + 1
        say(status=status, reason=store.state.reason, message=store.state.message)
        say(keys=[record.name for record in await list_keys(store)])
        settlement = asyncio.create_task(settle(store, first, 3, 4))
        try:
            await create_key(store, ADMIN, KeySpec("more"))
        except Exception as error:
            say(error=type(error).__name__, waits=not settlement.done())
        (data / "filler").unlink()
        await settlement
        say(ready=store.state.is_ready, audit=(await verify_audit(store)).problem)
    fill(data)
    store = volume.make_store()
    opened = await store.open()
    say(opened=opened, reason=store.state.reason)
    await store.close()
    (data / "filler").unlink()
    subprocess.run(["mount", "-o", "remount,ro", str(data)], check=True)
    store = volume.make_store()
    opened = await store.open()
    say(opened=opened, reason=store.state.reason, message=store.state.message)
    await store.close()

asyncio.run(main(Volume(Path(sys.argv[1]))))
"""


@pytest.mark.unit_slow
def test_a_full_and_a_read_only_volume_are_told_apart_and_nothing_is_lost(volume: Volume) -> None:
    """On a small file system of its own, in a mount namespace that ends with the process."""
    command = ["unshare", "--mount", sys.executable, "-c", FULL_VOLUME, str(volume.folder)]
    if os.geteuid() != 0:
        command[1:1] = ["--user", "--map-root-user"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    full, reading, writing, again, starting, read_only = map(json.loads, done.stdout.splitlines())
    assert (full["status"], full["reason"]) == (503, "VolumeFull")
    assert "Enlarge the volume" in full["message"]
    assert reading == {"keys": ["ci"]}
    assert writing == {"error": "FullError", "waits": True}
    assert again == {"ready": True, "audit": ""}
    assert starting == {"opened": False, "reason": "VolumeFull"}
    assert (read_only["opened"], read_only["reason"]) == (False, "VolumeReadOnly")
    assert "gateway's user can write it" in read_only["message"]
