"""Migrations go forward and back with data in the tables and under load, one at a time, whole or not at all."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from r1plus_contract.history import Facts
from r1plus_registry import migration, tables
from r1plus_registry.__main__ import main
from r1plus_registry.database import VARIABLE, DatabaseLimits, RegistryDatabase
from r1plus_registry.errors import DatabaseSchemaError, RegistryUnavailableError
from r1plus_registry.migration import BASE, HEAD, MigrationTimeouts, migrate
from r1plus_registry.unit_of_work import RegistryUnitOfWork
from support.registry import story
from support.waiting import DEADLINE_SECONDS, wait_until

ALL = [script.revision for script in migration.load_scripts().walk_revisions()][::-1]


def contents(database: RegistryDatabase) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table, but for columns that only the newest schema has."""
    with database.transaction(writes=False) as connection:
        return {
            table.name: [
                tuple(row) for row in connection.execute(sa.select(*_columns(table)).order_by(*table.primary_key))
            ]
            for table in tables.metadata.sorted_tables
        }


def _columns(table: sa.Table) -> list[sa.Column[object]]:
    newest = ("ended_at", "namespace_uid", "told_at")
    return [column for column in table.columns if column.name not in newest]


def test_the_migrations_make_the_tables(database: RegistryDatabase) -> None:
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []


def test_each_migration_goes_forward_and_back_with_data_in_the_tables(work: RegistryUnitOfWork) -> None:
    database = work.database
    with work.open_repository() as repository:
        repository.record(story.FACTS)
        repository.record(story.of("another"))
    before = contents(database)
    assert sum(len(rows) for rows in before.values()) > 15
    for revision in ALL[-2::-1]:
        assert migrate(database, revision)[1] == revision
        assert contents(database) == before
    assert migrate(database, HEAD) == (ALL[0], ALL[-1])
    assert contents(database) == before
    with work.open_repository() as repository:
        assert repository.record(story.FACTS) == {}


def test_the_documented_way_back_runs_the_migration_in_the_place_of_the_service(
    database: RegistryDatabase, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "registry.md").read_text()
    patch = {one["path"]: one["value"] for one in json.loads(re.findall(r"--type=json -p '(.*?)'", page, re.DOTALL)[0])}
    assert patch["/spec/replicas"] == 1
    _, *words = patch["/spec/template/spec/containers/0/command"]
    assert words[:2] == ["-m", main.__module__.removesuffix(".__main__")]
    monkeypatch.setenv(VARIABLE, dsn)
    for _ in range(2):  # Kubernetes starts it again and again.
        assert main(words[2:]) == 0
        assert migration.read_revision(database) == words[-1] != ALL[-1]


def test_foreign_keys_hold_after_going_back_and_forward(work: RegistryUnitOfWork) -> None:
    migrate(work.database, ALL[0])
    migrate(work.database, HEAD)
    with pytest.raises(Exception, match=r"(?i)foreign key"), work.database.transaction(writes=True) as connection:
        connection.execute(sa.insert(tables.suite_items).values(suite_id=99, item="a", stratum="b"))


def test_back_to_nothing_and_forward_again(database: RegistryDatabase) -> None:
    assert migrate(database, BASE) == (ALL[-1], "")
    assert migrate(database) == ("", ALL[-1])


@pytest.mark.parametrize("to", ["9999", "nonsense", "-1 OR 1=1"])
def test_a_revision_that_is_not_there_is_named(database: RegistryDatabase, to: str) -> None:
    with pytest.raises(DatabaseSchemaError, match=f"migrate --to {to}"):
        migrate(database, to)


def test_a_schema_from_the_future_is_left_alone(database: RegistryDatabase) -> None:
    with database.transaction(writes=True) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(DatabaseSchemaError, match=r"is at 9999, newer than this program.*migrate --to"):
        migrate(database)
    assert migration.read_revision(database) == "9999"


def test_of_several_at_once_each_finds_the_newest_schema(empty: RegistryDatabase) -> None:
    with ThreadPoolExecutor(3) as threads:
        ends = list(threads.map(lambda _: migrate(empty), range(3)))
    assert sorted(before for before, _ in ends) == ["", ALL[-1], ALL[-1]]
    assert {now for _, now in ends} == {ALL[-1]}


def test_under_load_nothing_is_lost_and_nobody_waits_for_long(dsn: str) -> None:
    database = RegistryDatabase(dsn, DatabaseLimits(connect=10.0, lock=10.0, statement=20.0, connections=6))
    with RegistryUnitOfWork(database).open_repository() as repository:
        repository.record(Facts(deployments=(story.DEPLOYMENT,)))
    stop, written, longest = threading.Event(), [0, 0, 0], [0.0, 0.0, 0.0]

    def load(lane: int) -> None:
        while not stop.is_set():
            fact = replace(story.ALARM, source=f"pod/{lane}", since=str(written[lane]))
            started = time.monotonic()
            try:
                with database.transaction(writes=True) as connection:
                    # Past the repository, whose table of deployments has a column more than the older schema.
                    values = {"deployment_uid": fact.deployment, "lost": [], "recorded_at": 0.0}
                    values |= {
                        n: getattr(fact, n) for n in ("revision", "source", "reason", "since", "before", "now", "text")
                    }
                    connection.execute(sa.insert(tables.alarms).values(values))
                written[lane] += 1
            except RegistryUnavailableError:
                pass  # Told in time that nothing was written: asked again, as the operator does.
            longest[lane] = max(longest[lane], time.monotonic() - started)

    def is_at(revision: str) -> bool:
        """Migrate; tried again, as the service does: a database under load may not give the lock in time."""
        return bool(migrate(database, revision, MigrationTimeouts(lock=10.0)))

    with ThreadPoolExecutor(3) as threads:
        lanes = [threads.submit(load, lane) for lane in range(3)]
        try:
            for revision in [ALL[0], HEAD] * 4:
                seen = sum(written)
                wait_until(
                    partial(is_at, revision), f"the schema is at {revision}", retry_on=(RegistryUnavailableError,)
                )
                wait_until(
                    lambda seen=seen: sum(written) > seen + 3 or any(lane.done() for lane in lanes), "the load goes on"
                )
        finally:
            stop.set()
        for lane in lanes:
            lane.result()
    with database.transaction(writes=False) as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(tables.alarms)) == sum(written)
    assert max(longest) < 10.0 + 10.0 + 20.0  # a connection, a lock, a statement
    database.close()


@pytest.fixture
def held(database: RegistryDatabase) -> Iterator[Callable[[], None]]:
    """Somebody holds a lock that each step of the way back to 0001 needs; the fixture's value lets go of it."""
    other = RegistryDatabase(database.url.render_as_string(hide_password=False))
    connection = other.engine.connect()
    if database.is_sqlite:
        connection.exec_driver_sql("SELECT 1")  # BEGIN IMMEDIATE
    else:
        connection.exec_driver_sql("LOCK TABLE deployments, suites IN ACCESS SHARE MODE")
    yield connection.rollback
    connection.close()
    other.close()


def test_a_migration_that_cannot_have_its_locks_gives_up_and_leaves_what_was(
    dsn: str, database: RegistryDatabase, held: Callable[[], None]
) -> None:
    with closing(RegistryDatabase(dsn, replace(database.limits, lock=0.3))) as impatient:
        with pytest.raises(RegistryUnavailableError, match="lock"):
            migrate(impatient, ALL[0], MigrationTimeouts(lock=0.3))
        assert migration.read_revision(impatient) == ALL[-1]
    held()
    assert migrate(database, ALL[0]) == (ALL[-1], ALL[0])


def fill(database: RegistryDatabase, count: int) -> None:
    """Add evaluations, of which the way forward to 0002 makes an index."""
    row = {column.name: "x" * 40 for column in tables.evaluations.columns if isinstance(column.type, sa.Text)}
    row |= {
        column.name: 1 for column in tables.evaluations.columns if isinstance(column.type, sa.BigInteger | sa.Double)
    }
    row |= {"deployment_uid": story.UID}
    row.pop("id")
    with RegistryUnitOfWork(database).open_repository() as repository:
        repository.record(Facts(deployments=(story.DEPLOYMENT,)))
    with database.transaction(writes=True) as connection:
        connection.execute(sa.insert(tables.evaluations), [row | {"decided_at": f"{n:040}"} for n in range(count)])


HALF_WAY = """
import sys
import sqlalchemy as sa
from r1plus_registry.__main__ import main

@sa.event.listens_for(sa.Engine, "connect")
def write_early(connection, _):
    if "sqlite" in type(connection).__module__:
        connection.execute("PRAGMA cache_size = 10")

@sa.event.listens_for(sa.Engine, "after_cursor_execute")
def wait(connection, cursor, statement, *_):
    if statement.startswith("CREATE INDEX ix_evaluations_decided_at"):
        print("half way", flush=True)
        sys.stdin.read()

main(["migrate"])
"""
"""The command, which waits for ever after the last change of 0002; SQLite writes to its log what is not committed."""


def test_a_migration_that_is_killed_half_way_was_never_there(database: RegistryDatabase) -> None:
    """Killed by SIGKILL after its changes of the schema and before they are committed; twice, and a third ends well."""
    fill(database, 3_000)
    migrate(database, ALL[0])
    before = contents(database)
    schema = _schema(database)
    env = {**os.environ, VARIABLE: database.url.render_as_string(hide_password=False)}
    for _ in range(2):
        if database.is_sqlite:
            with database.engine.connect() as connection:
                connection.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert not _half_way(database)
        command, pipe = [sys.executable, "-c", HALF_WAY], subprocess.PIPE
        with subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "half way\n"
            assert _half_way(database)
            process.send_signal(signal.SIGKILL)
            assert process.wait(DEADLINE_SECONDS) == -signal.SIGKILL
        wait_until(lambda: database.is_sqlite or not _half_way(database), "the server noticed")
        assert migration.read_revision(database) == ALL[0]
        assert _schema(database) == schema
    assert migrate(database) == (ALL[0], ALL[-1])
    assert contents(database) == before


def _half_way(database: RegistryDatabase) -> bool:
    """Whether a migration holds changes that nobody else sees yet."""
    if database.is_sqlite:
        wal = Path(f"{database.url.database}-wal")
        return wal.exists() and wal.stat().st_size > 64 * 1024
    held = "SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation WHERE l.mode = 'AccessExclusiveLock' AND c.relname = 'deployments'"
    with database.engine.connect() as connection:
        return bool(connection.exec_driver_sql(held).scalar())


def _schema(database: RegistryDatabase) -> dict[str, set[str]]:
    """Columns and indexes by table."""
    found: dict[str, set[str]] = {}
    with database.engine.connect() as connection:
        inspector = sa.inspect(connection)
        for table in inspector.get_table_names():
            found[table] = {column["name"] for column in inspector.get_columns(table)}
            found[table] |= {str(index["name"]) for index in inspector.get_indexes(table)}
    return found
