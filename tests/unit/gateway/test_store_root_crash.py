"""A rotation of the root that is killed at any of its steps, also within the one that encrypts the file again."""

import asyncio
import os
import resource
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from r1plus_gateway.store.administration.admin import verify_audit
from r1plus_gateway.store.database.database import Database, lock_folder, open_file
from r1plus_gateway.store.errors import UnavailableError
from r1plus_gateway.store.keys.tenant_keys import derive_keys, make_half
from support.gateway.backups import ANNA, BERT, Filled, read_texts
from support.gateway.content import say
from support.gateway.killed_restore import STATUS_DONE, Killer, empty, fork
from support.gateway.killed_rotation import kill_rotations, prepare, read_filled
from support.gateway.tenant_data import Volume
from support.scratch import make_scratch_folder
from support.tables import for_each

pytestmark = pytest.mark.first_run_counts

OLD, NEW = derive_keys(b"a" * 32), derive_keys(b"b" * 32)
ROWS, ROW_BYTES = 40, 20_000
STEP_BYTES = 32 * 1024
LONG = (pytest.mark.unit_long, pytest.mark.timeout(3000))


@pytest.fixture
def folder() -> Iterator[Path]:
    made = make_scratch_folder("r1plus-tenant-")
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.mark.unit_slow
@for_each("stride", {"at each fourth step": 4, "at each step": pytest.param(1, marks=LONG)})
def test_a_rotation_that_is_killed_leaves_the_state_before_or_after(folder: Path, stride: int) -> None:
    asyncio.run(prepare(folder))
    kill_rotations(folder, stride=stride)


async def rotate_half_until_killed(volume: Volume, half: str, number: int) -> None:
    """Take a second half of the Secret while the gateway runs, and die before the access of this number to its files."""
    async with volume.open() as store:
        (volume.config.secret_folder / "half-2").write_text(half)
        killer, data = Killer(number), str(volume.folder / "data")
        files = ("open", "os.rename")
        sys.addaudithook(lambda event, given: killer.step() if event in files and data in str(given[0]) else None)
        await store.maintain()
        os._exit(STATUS_DONE)


async def open_by_second_half(volume: Volume, filled: Filled) -> None:
    """Open what a kill left by both halves, and then by the new one alone."""
    async with volume.open() as store:
        await store.maintain()
    (volume.config.secret_folder / "half-1").unlink()
    async with volume.open() as store:
        assert [await read_texts(store, filled, caller) for caller in (ANNA, BERT)] == [[say("x"), say("y")]] * 2
        assert (await verify_audit(store)).problem == ""
    os._exit(STATUS_DONE)


@pytest.mark.unit_long
def test_a_rotation_of_the_secrets_half_that_is_killed_leaves_data_that_open_by_the_new_one(folder: Path) -> None:
    fork(lambda: asyncio.run(prepare(folder)))
    volume, filled, half, statuses = Volume(folder / "here"), read_filled(folder), make_half(), list[int]()
    while STATUS_DONE not in statuses:
        empty(volume, folder / "new", "")
        statuses.append(fork(lambda: asyncio.run(rotate_half_until_killed(volume, half, len(statuses)))))
        assert fork(lambda: asyncio.run(open_by_second_half(volume, filled))) == STATUS_DONE, len(statuses)
    assert statuses == [-signal.SIGKILL] * (len(statuses) - 1) + [STATUS_DONE]
    assert len(statuses) > 3


def make_file(folder: Path) -> None:
    database = open_file(folder, [OLD], lock_folder(folder), is_new=True)
    with database.transaction(writes=True) as connection:
        connection.exec_driver_sql("CREATE TABLE x (b BLOB)")
        for _ in range(ROWS):
            connection.exec_driver_sql("INSERT INTO x VALUES (randomblob(?))", (ROW_BYTES,))
    database.empty_log()
    database.close()


def open_any(folder: Path) -> Database:
    return open_file(folder, [OLD, NEW], lock_folder(folder), is_new=False)


def read_size(database: Database) -> int:
    database.check_content()
    with database.transaction(writes=False) as connection:
        return int(connection.exec_driver_sql("SELECT sum(length(b)) FROM x").scalar_one())


def encrypt_within(folder: Path, most_bytes: int, action: signal.Handlers) -> None:
    """Encrypt the file again, where no file may be longer than so many bytes."""
    database = open_any(folder)
    signal.signal(signal.SIGXFSZ, action)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))
    try:
        database.encrypt_again(NEW)
    except UnavailableError as error:
        assert "has its key of before" in str(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert read_size(database) == ROWS * ROW_BYTES
        os._exit(3)
    os._exit(0)


@pytest.mark.unit_slow
@pytest.mark.parametrize(
    ("action", "cut"),
    [(signal.SIG_DFL, -signal.SIGXFSZ), (signal.SIG_IGN, 3)],
    ids=["is killed within the log", "finds no room within the log"],
)
def test_a_file_whose_encryption(folder: Path, action: signal.Handlers, cut: int) -> None:
    """The kernel stops it at each 32 KiB that SQLite's log grows by."""
    make_file(folder)
    shutil.copytree(folder, folder / "kept")
    statuses, limit = [], (folder / "tenant.db").stat().st_size
    limit -= limit % STEP_BYTES  # The log grows longer than the file.
    for most_bytes in range(STEP_BYTES, limit + 3 * STEP_BYTES, STEP_BYTES):
        for path in (folder / "kept").iterdir():
            shutil.copy(path, folder)
        statuses.append(fork(lambda: encrypt_within(folder, most_bytes, action)))  # noqa: B023
        database = open_any(folder)
        assert read_size(database) == ROWS * ROW_BYTES, most_bytes
        database.encrypt_again(NEW)
        assert read_size(database) == ROWS * ROW_BYTES, most_bytes
        database.close()
        assert (folder / "tenant.db").read_bytes()[:16] == NEW.database_salt
        for path in folder.glob("tenant.db-*"):
            path.unlink()
    turn = statuses.index(0)
    assert statuses == [cut] * turn + [0] * (len(statuses) - turn)
    assert turn > 10
    sys.stdout.flush()
