"""Backups that do not fit: each is refused with its name, the value and the remedy, before anything is written."""

import io
import json
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from r1plus_gateway.store.administration.admin import verify_audit
from r1plus_gateway.store.copies.sealed_stream import SealedStreamError, StreamKind, StreamReader, seal
from r1plus_gateway.store.tenant import TenantStore
from support.gateway.backups import Files, back_up, check, fill, make_elsewhere, read_rows, restore
from support.gateway.tenant_data import Volume
from support.scratch import make_scratch_folder
from support.tables import for_each

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True)
class Made:
    """A backup, the key that it was sealed with, and a gateway in another cluster that has never been used."""

    files: Files
    key: bytes
    elsewhere: TenantStore


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def made() -> AsyncIterator[Made]:
    folder = make_scratch_folder("r1plus-tenant-")
    volume = Volume(folder / "here").make()
    async with volume.open() as store, make_elsewhere(volume, folder / "there").open() as elsewhere:
        await fill(store)
        yield Made(await back_up(store), store.require_data().keys.backup_key, elsewhere)
    shutil.rmtree(folder)


def reseal(stream: bytes, key: bytes, kind: StreamKind, **changes: Any) -> bytes:
    """Return the stream as a gateway of the same tenant would have made it with another header."""
    reader = StreamReader(io.BytesIO(stream).read, kind)
    plain = list(reader.open_frames(key))
    return b"".join(seal(replace(reader.header, **changes), key, plain))


Spoil = Callable[[Files, bytes], Files]


def change_backup(**changes: Any) -> Spoil:
    return lambda files, key: replace(files, backup=reseal(files.backup, key, StreamKind.BACKUP, **changes))


def change_keys(**changes: Any) -> Spoil:
    return lambda files, key: replace(files, keys=reseal(files.keys, key, StreamKind.KEYS, **changes))


def flip(stream: bytes, place: int) -> bytes:
    return stream[:place] + bytes([stream[place] ^ 1]) + stream[place + 1 :]


def change_ring(files: Files, key: bytes, change: Callable[[str], str], **more: str) -> Files:
    """Return a keys file whose ring has other wraps of the root."""
    ring = json.loads(StreamReader(io.BytesIO(files.keys).read, StreamKind.KEYS).header.ring)
    ring = {**ring, "wraps": {name: change(wrap) for name, wrap in ring["wraps"].items()}, **more}
    return change_keys(ring=json.dumps(ring))(files, key)


REFUSED: dict[str, tuple[Spoil, str]] = {
    "a backup that is cut": (lambda files, _: replace(files, backup=files.backup[:-1]), "backup: is cut at byte"),
    "a backup without its end": (lambda files, _: replace(files, backup=files.backup[:500]), "backup: is cut"),
    "no backup": (lambda files, _: replace(files, backup=b""), "backup: is not a file of r1plus tenant backup"),
    "a backup that was changed": (
        lambda files, _: replace(files, backup=flip(files.backup, len(files.backup) - 20)),
        "backup: was changed",
    ),
    "a backup with more behind it": (lambda files, _: replace(files, backup=files.backup + b"x"), "backup: goes on"),
    "two backups": (lambda files, _: replace(files, backup=files.backup * 2), "backup: goes on behind its end"),
    "files that were swapped": (
        lambda files, _: Files(files.keys, files.backup),
        "keys: is a file of backup; the files",
    ),
    "a keys file that is cut": (lambda files, _: replace(files, keys=files.keys[:-1]), "(keys|backup): "),
    "a keys file that was changed": (
        lambda files, _: replace(files, keys=flip(files.keys, len(files.keys) - 20)),
        "keys: was changed",
    ),
    "a keys file with another ring": (change_keys(ring="{}"), "keys: was changed"),
    "a ring that was cut": (
        lambda files, key: change_ring(files, key, lambda wrap: wrap[:4]),
        "keys: no half in Secret",
    ),
    "a ring of no tenant": (
        lambda files, key: change_ring(files, key, lambda wrap: wrap, tenant="\ud800"),
        "keys: was changed",
    ),
    "a keys file with another root": (change_keys(adopted_root="AAAA"), "keys: was changed"),
    "a keys file of another root": (change_keys(root_id="ab"), "keys: has a header that was changed"),
    "a backup of another root": (
        change_backup(root_id="ab"),
        "backup: was made under root ab, and the keys file is of",
    ),
    "a backup of another tenant": (
        change_backup(namespace="team-risk"),
        "backup: is of tenant team-risk, and this gateway serves team-credit",
    ),
    "keys of another tenant": (change_keys(namespace="team-risk"), "keys: is of tenant team-risk"),
    "a newer schema": (
        change_backup(schema="9999"),
        "backup: has schema 9999, newer than this gateway, whose newest is",
    ),
    "keys of a newer schema": (change_keys(schema="9999"), "keys: has schema 9999, newer than"),
    "keys older than the backup": (
        change_keys(created_at=1_700_000_000),
        "keys: are of 2023-11-14T22:13:20Z, older than the backup of 2027",
    ),
}


@for_each("spoil, message", REFUSED)
async def test_files_that_do_not_fit_are_refused_and_nothing_is_written(made: Made, spoil: Spoil, message: str) -> None:
    files, store = spoil(made.files, made.key), made.elsewhere
    before = await read_rows(store)
    for attempt in (restore(store, files), check(store, files, needs_new=True)):
        with pytest.raises(SealedStreamError, match=f"^{message}"):
            await attempt
    assert store.state.is_ready
    await store.maintain()
    assert {**await read_rows(store), "meta": before["meta"]} == before
    assert (await verify_audit(store)).records == 0


async def test_a_half_of_another_secret_opens_no_keys_file(made: Made, tmp_path: Path) -> None:
    async with Volume(tmp_path).make().open() as other:
        with pytest.raises(
            SealedStreamError, match=r"^keys: no half in Secret r1plus-gateway-key \(half-1\) opens.*--from"
        ):
            await restore(other, made.files)
        assert (await verify_audit(other)).records == 0


async def test_the_files_themselves_can_be_restored(made: Made) -> None:
    """The control of this page: run last, since it is the only one that writes."""
    assert (await restore(made.elsewhere, made.files)).rows["api_keys"] == 1
