"""Rotation of data keys: content stays readable throughout, and no older key is left at the end."""

import pytest
import sqlalchemy as sa

from r1plus_assistant.store.tenant_content import TenantContent
from r1plus_gateway.access.caller import Caller
from r1plus_gateway.store.administration import admin
from r1plus_gateway.store.administration.admin import rotate_data_keys, verify_audit
from r1plus_gateway.store.content.content import ListPage, StoredResponse
from r1plus_gateway.store.database import tables as t
from r1plus_gateway.store.keys import key_rotation
from r1plus_gateway.store.keys.key_rotation import KeyRotation, continue_rotation, read_rotation
from r1plus_gateway.store.tenant import TenantStore
from support.gateway.content import make_content, say
from support.gateway.tenant_data import ADMIN, Volume, make_caller

pytestmark = pytest.mark.first_run_counts

ANNA, BERT = make_caller(end_user="anna"), make_caller(end_user="bert")
TEXTS = ["first", "second", "third"]


async def fill(content: TenantContent) -> dict[str, str]:
    """Store a conversation and a response for two end users; return the conversations' ids by end user."""
    names = {}
    for caller in (ANNA, BERT):
        items = [say(text) for text in TEXTS]
        made = await content.write(caller, lambda one: one.create_conversation({"of": "names"}, items))  # noqa: B023
        answer = StoredResponse(f"resp_{caller.end_user}", "", [say("q")], {"text": caller.end_user})
        await content.write(caller, lambda one: one.store_response(answer))  # noqa: B023
        names[caller.end_user] = made.id
    return names


async def read_all(content: TenantContent, caller: Caller, name: str) -> tuple[list[str], str, str]:
    """Return what a caller reads: texts, metadata and the response."""
    conversation = await content.read(caller, lambda one: one.find_conversation(name))
    listed = await content.read(caller, lambda one: one.list_items(name, ListPage(is_ascending=True)))
    answer = await content.read(caller, lambda one: one.find_response(f"resp_{caller.end_user}"))
    assert conversation is not None and listed is not None and answer is not None
    texts = [item.content["content"][0]["text"] for item in listed.entries]
    return texts, conversation.attributes["of"], answer.answer["text"]


def list_key_ids(store: TenantStore) -> set[str]:
    with store.require_data().database.transaction(writes=False) as connection:
        return set(connection.scalars(sa.select(t.data_keys.c.id)))


async def test_content_is_readable_after_every_step_and_older_keys_go(store: TenantStore) -> None:
    content = make_content(store)
    names = await fill(content)
    old = list_key_ids(store)
    assert await rotate_data_keys(store, ADMIN) == KeyRotation(owners=2, older_keys=2, rows_left=10)
    cipher, has_more, left = store.cipher, True, []
    while has_more:
        has_more = await store.write(lambda one: continue_rotation(one.connection, cipher, one.now, 1))
        left.append((await store.read(read_rotation)).rows_left)
        for caller in (ANNA, BERT):
            assert await read_all(content, caller, names[caller.end_user]) == (TEXTS, "names", caller.end_user)
    assert left == [*range(9, -1, -1), 0]
    assert len(list_key_ids(store)) == 2
    assert not list_key_ids(store) & old
    assert (await verify_audit(store)).problem == ""


async def test_a_rotation_goes_on_with_what_is_written_meanwhile_and_after_a_restart(volume: Volume) -> None:
    async with volume.open() as store:
        content = make_content(store)
        names = await fill(content)
        await rotate_data_keys(store, ADMIN)
        await content.write(ANNA, lambda one: one.append_items(names["anna"], [say("meanwhile")]))
        assert (await store.read(read_rotation)).rows_left == 10, "what is written meanwhile has the new key"
    async with volume.open() as store:
        await store.maintain()
        assert await store.read(read_rotation) == KeyRotation(owners=2, older_keys=0, rows_left=0)
        texts, *_ = await read_all(make_content(store), ANNA, names["anna"])
        assert texts == [*TEXTS, "meanwhile"]


async def test_two_rotations_at_once_end_with_the_newest_key(store: TenantStore) -> None:
    content = make_content(store)
    names = await fill(content)
    for _ in range(2):
        await rotate_data_keys(store, ADMIN)
    assert len(list_key_ids(store)) == 6
    await store.maintain()
    assert len(list_key_ids(store)) == 2
    assert (await read_all(content, BERT, names["bert"]))[0] == TEXTS


async def test_a_row_that_does_not_decrypt_stops_the_rotation_and_destroys_no_key(
    store: TenantStore, caplog: pytest.LogCaptureFixture
) -> None:
    content = make_content(store)
    names = await fill(content)
    items = t.conversation_items
    is_berts = items.c.conversation_id == names["bert"]
    with store.require_data().database.transaction(writes=True) as connection:
        # As long as before, so that the books stay right.
        connection.execute(
            sa.update(items).where(is_berts).values(content=sa.func.randomblob(sa.func.length(items.c.content)))
        )
    await rotate_data_keys(store, ADMIN)
    await store.maintain()
    assert "Rotation of data keys stopped, older keys stay" in caplog.text
    assert len(list_key_ids(store)) == 4
    assert (await read_all(content, ANNA, names["anna"]))[0] == TEXTS
    await content.write(BERT, lambda one: one.delete_conversation(names["bert"]))
    await rotate_data_keys(store, ADMIN)
    await store.maintain()
    assert len(list_key_ids(store)) == 2


async def test_there_is_nothing_to_rotate_where_nothing_is_stored(store: TenantStore) -> None:
    assert await rotate_data_keys(store, ADMIN) == KeyRotation(owners=0, older_keys=0, rows_left=0)


async def test_owners_get_their_new_keys_a_few_at_a_time(store: TenantStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests wait for each transaction: with 10^5 owners one for all held them up for 20 s."""
    content = make_content(store)
    await fill(content)
    for module in (admin, key_rotation):
        monkeypatch.setattr(module, "MOST_OWNERS", 1)
    assert await rotate_data_keys(store, ADMIN) == KeyRotation(owners=2, older_keys=2, rows_left=10)
    with store.require_data().database.transaction(writes=False) as connection:
        is_begin = t.audit.c.action == "rotate_data_keys"
        records = connection.scalars(sa.select(t.audit.c.subject).where(is_begin).order_by(t.audit.c.seq)).all()
    assert records == ["1 owners", "1 owners"]
    await store.maintain()
    assert (await store.read(read_rotation)).older_keys == 0


async def test_large_rows_are_encrypted_again_one_at_a_time(
    store: TenantStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 rows of 2 MiB would not fit into the container."""
    monkeypatch.setattr(key_rotation, "MOST_BYTES", 1)
    await fill(make_content(store))
    await rotate_data_keys(store, ADMIN)
    cipher, left = store.cipher, []
    while await store.write(lambda one: continue_rotation(one.connection, cipher, one.now)):
        left.append((await store.read(read_rotation)).rows_left)
    assert left == [*range(9, -1, -1)]
