"""A registry that is backed up, lost and restored, as docs/registry.md says: what the operator tells again is not there twice."""

import asyncio
import os
import re
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from r1plus_contract.history import Facts
from r1plus_registry import migration
from r1plus_registry.__main__ import main
from r1plus_registry.database import VARIABLE, RegistryDatabase
from r1plus_registry.errors import RegistryUnavailableError
from r1plus_registry.storage import Storage
from r1plus_registry.tables import metadata
from r1plus_registry.unit_of_work import RegistryUnitOfWork
from support.registry import story
from support.registry.postgres import Postgres
from support.registry.sqlite import Sqlite
from support.waiting import eventually

LATER = story.of("uid-2")
PAGE = (Path(__file__).parents[2] / "docs" / "registry.md").read_text()


def record(database: RegistryDatabase, *facts: Facts) -> list[dict[str, int]]:
    recorded = []
    for one in facts:
        with RegistryUnitOfWork(database).open_repository() as repository:
            recorded.append(repository.record(one))
    return recorded


def lose(database: RegistryDatabase) -> None:
    """Every table, as if the volume were new."""
    with database.transaction(writes=True) as connection:
        for table in ("alembic_version", *reversed(metadata.sorted_tables)):
            connection.exec_driver_sql(f"DROP TABLE {table}")


@pytest.fixture
def sqlite_file(sqlite: Sqlite, monkeypatch: pytest.MonkeyPatch) -> Iterator[RegistryDatabase]:
    with sqlite.scratch() as dsn, closing(RegistryDatabase(dsn)) as database:
        monkeypatch.setenv(VARIABLE, dsn)
        migration.migrate(database)
        yield database


async def test_a_sqlite_registry_is_restored_while_the_service_runs(
    sqlite_file: RegistryDatabase, tmp_path: Path
) -> None:
    copy = tmp_path / "registry.db"
    record(sqlite_file, story.FACTS)
    assert main(["backup", "--to", str(copy)]) == 0
    record(sqlite_file, LATER)
    lose(sqlite_file)
    storage = Storage(sqlite_file)
    storage._needs_preparation.clear()
    assert main(["restore", "--from", str(copy)]) == 0
    assert await storage.record(story.FACTS) == {}
    assert (await storage.record(LATER))["evaluations"] == 1
    found = await storage.read(lambda reader: reader.read_evaluations(None, None, include_ended=False, items=False))
    assert len(found) == 2
    for threads in (storage._threads, storage._migrator):
        threads.shutdown()


async def test_a_backup_of_an_older_schema_is_migrated_by_the_service_that_runs(
    sqlite_file: RegistryDatabase, tmp_path: Path
) -> None:
    record(sqlite_file, story.FACTS)
    migration.migrate(sqlite_file, "0001")
    assert main(["backup", "--to", str(tmp_path / "old.db")]) == 0
    storage = Storage(sqlite_file)
    keeping = asyncio.create_task(storage.run())
    await eventually(lambda: not storage.problem, "the service is ready")
    assert main(["restore", "--from", str(tmp_path / "old.db")]) == 0
    assert migration.read_revision(sqlite_file) == "0001"

    async def recorded() -> bool:
        return await storage.find_problem() == "" and await storage.record(story.FACTS) == {}

    await eventually(recorded, "the service goes on", retry_on=(RegistryUnavailableError,))
    assert migration.read_revision(sqlite_file) == migration.get_head()
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    for threads in (storage._threads, storage._migrator):
        threads.shutdown()


def damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.unlink()
    sqlite3.connect(path).execute("CREATE TABLE a (b)").connection.close()


def from_the_future(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")


UNUSABLE: dict[str, tuple[Any, str]] = {
    "that is not there": (Path.unlink, "unable to open database file"),
    "that is no database": (lambda path: path.write_bytes(b"x" * 9000), "file is not a database"),
    "that is damaged": (damaged, "registry.db"),
    "of another program": (empty, "is not a registry"),
    "of a newer registry": (from_the_future, "is at 9999, newer than this program"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "said"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_copy_that_cannot_be_used_is_refused_and_nothing_is_lost(
    sqlite_file: RegistryDatabase, tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Any, said: str
) -> None:
    copy = tmp_path / "registry.db"
    record(sqlite_file, story.FACTS)
    assert main(["backup", "--to", str(copy)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["registry.db"]
    spoil(copy)
    assert main(["restore", "--from", str(copy)]) in (1, 2)
    assert said in caplog.text
    assert record(sqlite_file, story.FACTS) == [{}]


@pytest.mark.postgres
def test_a_postgresql_registry_is_restored_by_the_documented_commands(
    postgresql: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    commands = re.findall(r"^(pg_(?:dump|restore) .*)$", PAGE, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["pg_dump", "pg_restore"]
    with postgresql.scratch() as dsn, closing(RegistryDatabase(dsn)) as database:
        migration.migrate(database)
        record(database, story.FACTS)
        for command in commands:
            words = command.replace('"$DSN"', dsn).replace("registry.dump", str(tmp_path / "registry.dump")).split()
            subprocess.run(
                [str(postgresql.program(words[0])), *words[1:]], check=True, capture_output=True, timeout=250
            )
            if words[0] == "pg_dump":
                record(database, LATER)
                lose(database)
        assert migration.migrate(database) == (migration.get_head(), migration.get_head())
        assert record(database, story.FACTS, LATER)[0] == {}
        with RegistryUnitOfWork(database).open_reader() as reader:
            assert len(reader.read_evaluations(None, None, include_ended=False, items=False)) == 2
        monkeypatch.setenv(VARIABLE, dsn)
        assert main(["backup", "--to", str(tmp_path / "x")]) == 2
        assert "use pg_dump" in caplog.text
