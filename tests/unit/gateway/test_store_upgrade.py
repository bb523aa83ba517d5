"""Data that an earlier gateway wrote: `tests/golden/gateway-COMMIT` has its volume and half of the key, made for this."""

import json
import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from r1plus_assistant.knowledge.documents import SocketDocumentReader
from r1plus_assistant.knowledge.search import Passage, SearchMethod, UnknownVectorStoreError
from r1plus_assistant.knowledge.service import KnowledgeService, run_knowledge
from r1plus_gateway.access.api_keys import verify_key
from r1plus_gateway.settings import GatewayLimits
from r1plus_gateway.store.administration.admin import UsageQuery, report_usage, verify_audit
from r1plus_gateway.store.content.content import ListPage, StoredResponse
from r1plus_gateway.store.content.knowledge import IngestionState
from r1plus_gateway.store.database import migration
from r1plus_gateway.store.database import tables as t
from r1plus_gateway.store.keys.content_cipher import Owner
from r1plus_gateway.store.keys.root_rotation import rotate_root
from support.documents.process import running_reader_process
from support.gateway.backups import Files, restore
from support.gateway.content import check_books, make_content, say
from support.gateway.content_crash import take_steps
from support.gateway.fake_embedder import FakeEmbedder
from support.gateway.tenant_data import ADMIN, Volume, make_caller
from support.paths import TESTS
from support.scratch import make_scratch_folder
from support.waiting import eventually

EVER = UsageQuery(date(2000, 1, 1), date(2999, 1, 1))
EARLIER = sorted(path.name for path in (TESTS / "golden").glob("gateway-*"))
WITH_CONTENT = [name for name in EARLIER if (TESTS / "golden" / name / "backup.r1b").exists()]


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
            listed = await content.read(caller, lambda one: one.list_items(facts["conversation"], ListPage()))
            memories = await content.read(caller, lambda one: one.read_memories())
            assert listed is not None
            assert [item.content for item in listed.entries] == [say("y"), say("x")]
            assert [memory.text for memory in memories] == ["I live in Kiel."]
            response = await content.read(caller, lambda one: one.find_response(facts["response"]))
            assert response is not None and response.answer == {"text": "a"}
            await store.read(check_books)


@pytest.mark.unit_slow
@pytest.mark.parametrize("earlier", WITH_CONTENT, indirect=True)
async def test_a_backup_of_an_earlier_gateway_is_restored_and_rotated(
    earlier: tuple[Volume, dict[str, Any]], volume: Volume
) -> None:
    there, facts = earlier
    files = Files(*((there.folder / name).read_bytes() for name in ("backup.r1b", "keys.r1k")))
    shutil.copy(there.config.secret_folder / "half-1", volume.config.secret_folder)
    async with volume.open() as store:
        assert (await restore(store, files)).unreadable_rows == 0
        await store.read(check_books)
        for _ in range(2):
            found = await verify_key(facts["key"], store, store.clock.read())
            assert found is not None
            caller = make_caller(found.id, end_user=facts["end_user"])
            listed = await make_content(store).read(
                caller, lambda one: one.list_items(facts["conversation"], ListPage())
            )
            assert listed is not None and len(listed.entries) == 2
            await rotate_root(store, ADMIN)
            await store.maintain()


async def find_passage(base: KnowledgeService, owner: Owner, store_id: str, question: str) -> Passage:
    """Return the best passage of a vector store, by words and vectors."""
    result = await base.search.find(owner, [store_id], question, 1)
    assert result.method is SearchMethod.HYBRID
    return result.passages[0]


@pytest.mark.unit_slow
@pytest.mark.parametrize("earlier", WITH_CONTENT, indirect=True)
async def test_documents_of_an_earlier_gateway_are_found_and_what_it_had_begun_is_read_to_its_end(
    earlier: tuple[Volume, dict[str, Any]], tmp_path: Path
) -> None:
    volume, facts = earlier
    async with (
        volume.open() as store,
        running_reader_process(tmp_path) as socket,
        run_knowledge(store, GatewayLimits, SocketDocumentReader(str(socket)), FakeEmbedder) as base,
    ):
        key = await verify_key(facts["key"], store, store.clock.read())
        assert key is not None
        shared, own = (base.knowledge.identify(make_caller(key.id, end_user=user)) for user in ("", facts["end_user"]))
        parts = [await base.knowledge.read(shared, lambda one: one.read_part(facts["file"], n)) for n in range(3)]  # noqa: B023
        assert (parts[0] or b"").startswith(b"# Travel") and parts[1] and parts[2] is None
        found = await find_passage(base, shared, facts["vector_store"], "What may a hotel in Geneva cost?")
        assert (found.file_name, found.chunk.heading) == ("handbook.md", "Travel > Hotels")
        assert "210 francs" in found.chunk.text

        async def is_read() -> bool:
            begun = await base.knowledge.read(
                own, lambda one: one.find_store_file(facts["begun_vector_store"], facts["begun_file"])
            )
            return begun is not None and begun.state is IngestionState.COMPLETED

        await eventually(is_read, "what was begun is read")
        found = await find_passage(base, own, facts["begun_vector_store"], "Point 59.3")
        assert "Point 59.3 was read" in found.chunk.text
        with pytest.raises(UnknownVectorStoreError):
            await find_passage(base, shared, facts["begun_vector_store"], "Point 59.3")
        await store.read(check_books)


async def test_a_store_of_an_earlier_gateway_takes_content(earlier: tuple[Volume, dict[str, Any]]) -> None:
    volume, _ = earlier
    caller = make_caller(end_user="anna@example.com")
    async with volume.open() as store:
        made = await make_content(store).write(caller, lambda one: one.create_conversation({}, [say("x")]))
    async with volume.open() as store:
        listed = await make_content(store).read(caller, lambda one: one.list_items(made.id, ListPage()))
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
