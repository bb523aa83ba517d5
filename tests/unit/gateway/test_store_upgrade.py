"""Data that an earlier gateway wrote: `tests/golden/gateway-COMMIT` has its volume and half of the key, made for this."""

import json
import shutil
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
import sqlalchemy as sa

from r1plus_gateway.access.api_keys import verify_key
from r1plus_gateway.store import migration
from r1plus_gateway.store import tables as t
from r1plus_gateway.store.admin import UsageQuery, report_usage, verify_audit
from r1plus_gateway.store.content import Page, StoredResponse
from r1plus_gateway.store.root_rotation import rotate_root
from support.gateway.backups import Files, restore
from support.gateway.content import check_books, make_content, say
from support.gateway.content_crash import take_steps
from support.gateway.tenant_data import ADMIN, Volume, make_caller
from support.paths import TESTS
from support.scratch import make_scratch_folder

EVER = UsageQuery(date(2000, 1, 1), date(2999, 1, 1))
EARLIER = sorted(path.name for path in (TESTS / "golden").glob("gateway-*"))


@pytest.fixture(params=EARLIER)
def earlier(request: pytest.FixtureRequest) -> Iterator[tuple[Volume, dict[str, Any]]]:
    """A copy of what an earlier gateway left on its volume, and the keys that it issued."""
    folder = make_scratch_folder("r1plus-tenant-")
    shutil.copytree(TESTS / "golden" / request.param, folder, dirs_exist_ok=True)
    facts = json.loads((folder / "facts.json").read_text())
    yield Volume(folder, facts["tenant"]), facts
    shutil.rmtree(folder)


async def test_keys_usage_and_audit_log_of_an_earlier_gateway_are_all_there(
    earlier: tuple[Volume, dict[str, Any]],
) -> None:
    volume, facts = earlier
    async with volume.open() as store:
        assert migration.read_revision(store.require_data().database) == migration.get_head()
        found = await verify_key(facts["key"], store, store.clock.read())
        assert found is not None
        assert (found.name, found.limits.budget_tokens) == ("web shop", 1000)
        assert await verify_key(facts["revoked"], store, store.clock.read()) is None
        report = await report_usage(store, EVER)
        used = sorted((row.prompt_tokens, row.completion_tokens, row.unsettled_tokens) for row in report.rows)
        assert used == [(30, 12, 50)], "a request that ran when it ended counts in full"
        assert (await verify_audit(store)).problem == ""


async def test_the_root_of_an_earlier_gateway_is_rotated(earlier: tuple[Volume, dict[str, Any]]) -> None:
    volume, facts = earlier
    async with volume.open() as store:
        before = await report_usage(store, EVER)
        root = store.require_data().keys.root_id
        assert (await rotate_root(store, ADMIN)).root_id != root
        await store.maintain()
    async with volume.open() as store:
        assert store.require_data().keys.root_id != root
        found = await verify_key(facts["key"], store, store.clock.read())
        assert found is not None
        assert await report_usage(store, EVER) == before
        assert (await verify_audit(store)).problem == ""
        if "conversation" in facts:
            caller = make_caller(found.id, end_user=facts["end_user"])
            content = make_content(store)
            listed = await content.read(caller, lambda one: one.list_items(facts["conversation"], Page()))
            memories = await content.read(caller, lambda one: one.read_memories())
            assert listed is not None
            assert [item.content for item in listed.entries] == [say("y"), say("x")]
            assert [memory.text for memory in memories] == ["I live in Kiel."]
            await store.read(check_books)


async def test_a_backup_of_an_earlier_gateway_is_restored_and_rotated(
    earlier: tuple[Volume, dict[str, Any]], volume: Volume
) -> None:
    there, facts = earlier
    if "conversation" not in facts:
        pytest.skip("this one made no backup")
    files = Files(*((there.folder / name).read_bytes() for name in ("backup.r1b", "keys.r1k")))
    shutil.copy(there.config.secret_folder / "half-1", volume.config.secret_folder)
    async with volume.open() as store:
        assert (await restore(store, files)).unreadable_rows == 0
        for _ in range(2):
            found = await verify_key(facts["key"], store, store.clock.read())
            assert found is not None
            caller = make_caller(found.id, end_user=facts["end_user"])
            listed = await make_content(store).read(caller, lambda one: one.list_items(facts["conversation"], Page()))
            assert listed is not None and len(listed.entries) == 2
            await rotate_root(store, ADMIN)
            await store.maintain()


async def test_a_store_of_an_earlier_gateway_takes_content(earlier: tuple[Volume, dict[str, Any]]) -> None:
    volume, _ = earlier
    caller = make_caller(end_user="anna@example.com")
    async with volume.open() as store:
        made = await make_content(store).write(caller, lambda one: one.create_conversation({}, [say("x")]))
    async with volume.open() as store:
        listed = await make_content(store).read(caller, lambda one: one.list_items(made.id, Page()))
        assert listed is not None
        assert [item.content for item in listed.entries] == [say("x")]


async def test_content_of_the_schema_before_is_counted_again(volume: Volume) -> None:
    """It counted ciphertext only, and kept an entry and a key of owners whose content is gone."""
    async with volume.open() as store:
        await take_steps(store, lambda: None)
        content = make_content(store)
        for name in ("anna", "bert"):
            caller = make_caller(end_user=name)
            await content.write(caller, lambda one: one.create_conversation({"a": "b"}, [say("x"), say("y")]))
            answer = StoredResponse(f"resp_of_{name}", "", [say("q")], {})
            await content.write(caller, lambda one: one.store_response(answer))  # noqa: B023
        with store.require_data().database.transaction(writes=True) as connection:
            before = check_books(connection)
            migration.move_within(connection, "0002")
            connection.execute(sa.update(t.content_sizes).values(bytes=1))
            gone = {"caller_kind": "api_key", "caller_id": "key000000009", "end_user": "", "bytes": 0}
            connection.execute(sa.insert(t.content_sizes), [gone])
    async with volume.open() as store:
        assert await store.read(check_books) == before
