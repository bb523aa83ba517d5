"""Backup and restore over HTTP: whole, cut, slow, and refused in the form that the API's clients read."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from jsonschema import Draft202012Validator

from r1plus_gateway.http.metrics import GatewayMetrics
from r1plus_gateway.http.server import run_gateway
from r1plus_gateway.settings import SettingsFile
from r1plus_gateway.store.administration.admin import create_key, list_keys, rotate_data_keys, verify_audit
from r1plus_gateway.store.administration.key_records import KeySpec
from r1plus_gateway.store.copies.sealed_stream import StreamKind, StreamReader
from r1plus_gateway.store.tenant import TenantStore
from support.gateway.access import ALICE, FakeAuthenticator, FakeLedger
from support.gateway.backups import Files, back_up, fill, make_elsewhere
from support.gateway.tenant_data import ADMIN, Volume
from support.tables import for_each
from support.waiting import eventually

FILE = "application/octet-stream"


@dataclass
class Site:
    """A gateway without models, before an open store; `admin` and `alice` are its callers' keys."""

    url: str
    store: TenantStore
    client: aiohttp.ClientSession

    def call(self, method: str, path: str, key: str = "admin", **options: Any) -> Any:
        headers = {"Authorization": f"Bearer {key}", **options.pop("headers", {})}
        return self.client.request(method, f"{self.url}/v1/admin{path}", headers=headers, **options)

    def send(self, path: str, data: Any, kind: str = FILE, **headers: str) -> Any:
        return self.call("POST", path, data=data, headers={"Content-Type": kind, **headers})

    async def get_files(self) -> Files:
        parts = []
        for path in ("/backup", "/backup-keys"):
            async with self.call("GET", path) as response:
                assert (response.status, response.content_type) == (200, FILE)
                assert response.headers["Cache-Control"] == "no-store"
                parts.append(await response.read())
        return Files(*parts)


@asynccontextmanager
async def run_site(tmp_path: Path, volume: Volume, limits: dict[str, float]) -> AsyncIterator[Site]:
    there = make_elsewhere(volume, tmp_path / "there")
    settings = {"namespace": "team-credit", "host": "127.0.0.1", "port": 0, "internalPort": 0, "limits": limits}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    metrics, authenticator, ledger = GatewayMetrics(), FakeAuthenticator(), FakeLedger()
    authenticator.callers = {"admin": ADMIN, "alice": ALICE}
    file = SettingsFile(tmp_path / "settings.json", metrics.set_settings_validity)
    async with (
        there.open() as store,
        run_gateway(file, metrics, authenticator, ledger, ledger, store=store) as gateway,
        aiohttp.ClientSession() as client,
    ):
        yield Site(f"http://127.0.0.1:{gateway.port}", store, client)


@pytest.fixture
async def site(tmp_path: Path, volume: Volume) -> AsyncIterator[Site]:
    """The tenant in another cluster, where nobody has called yet."""
    async with run_site(tmp_path, volume, {}) as made:
        yield made


@pytest.fixture
async def impatient_site(tmp_path: Path, volume: Volume) -> AsyncIterator[Site]:
    """The same, with limits that a test can wait for; on a machine that stalls, they may cut off any body."""
    async with run_site(tmp_path, volume, {"slowReaderSeconds": 0.3, "bodySeconds": 0.3}) as made:
        yield made


@pytest.fixture
async def files(store: TenantStore) -> Files:
    """A backup of the tenant in this cluster."""
    await fill(store)
    return await back_up(store)


async def test_what_is_sent_can_be_checked_and_restored(site: Site, files: Files) -> None:
    async with site.client.get(f"{site.url}/openapi.json") as response:
        document = await response.json()
    schema = {"$ref": "#/components/schemas/Restore", "components": document["components"]}
    for path, status in (("/backup-checks?for_restore=true", 200), ("/restores", 201), ("/backup-checks", 200)):
        async with site.send(path, files.body) as response:
            answer = await response.json()
            assert response.status == status, answer
        Draft202012Validator(schema).validate(answer)
        assert (answer["rows"]["conversations"], answer["data_keys"]) == (2, 2)
        assert (answer["id"] is not None, answer["unreadable_rows"]) == (status == 201, 0)
    async with site.call("GET", "/audit") as response:
        audit = await response.json()
    Draft202012Validator({**schema, "$ref": "#/components/schemas/Audit"}).validate(audit)
    assert (audit["problem"], len(audit["restores"])) == (None, 1)
    async with site.send("/backup-checks", (await site.get_files()).body) as response:
        assert response.status == 200


async def refuse(response: aiohttp.ClientResponse) -> tuple[int, str, str | None]:
    error = (await response.json())["error"]
    return response.status, error["code"], error["param"]


@for_each("change, expected", {
    "no backup": (lambda files: files.keys, (400, "invalid_value", "backup")),
    "nothing": (lambda _: b"", (400, "invalid_value", "keys")),
    "a cut backup": (lambda files: files.body[:-1], (400, "invalid_value", "backup")),
    "the wrong order": (lambda files: files.backup + files.keys, (400, "invalid_value", "keys")),
})  # fmt: skip
async def test_files_that_do_not_fit_are_refused(site: Site, files: Files, change: Any, expected: Any) -> None:
    for path in ("/restores", "/backup-checks"):
        async with site.send(path, change(files)) as response:
            assert await refuse(response) == expected
    assert site.store.state.is_ready
    assert await list_keys(site.store) == []


@for_each("path, options, expected", {
    "JSON": ("/restores", {"kind": "application/json"}, (415, "unsupported_media_type", None)),
    "a compressed body": ("/restores", {"Content-Encoding": "gzip"}, (415, "unsupported_media_type", None)),
    "an unknown parameter": ("/restores?force=true", {}, (400, "invalid_value", "force")),
    "another unknown parameter": ("/backup-checks?dry_run=true", {}, (400, "invalid_value", "dry_run")),
    "a value that is none": ("/backup-checks?for_restore=yes", {}, (400, "invalid_value", "for_restore")),
})  # fmt: skip
async def test_requests_of_another_form_are_refused(site: Site, path: str, options: Any, expected: Any) -> None:
    async with site.send(path, b"x", **options) as response:
        assert await refuse(response) == expected


async def test_data_in_use_and_a_second_copy_are_conflicts(site: Site, files: Files) -> None:
    await create_key(site.store, ADMIN, KeySpec("mine"))
    for path in ("/restores", "/backup-checks?for_restore=true"):
        async with site.send(path, files.body) as response:
            assert await refuse(response) == (409, "data_in_use", None)


@for_each("method, path", {
    "a backup": ("GET", "/backup"),
    "a keys file": ("GET", "/backup-keys"),
    "a check": ("POST", "/backup-checks"),
    "a restore": ("POST", "/restores"),
    "a rotation of the root": ("POST", "/root/rotate"),
})  # fmt: skip
async def test_only_admins_may(site: Site, method: str, path: str) -> None:
    async with site.call(method, path, key="alice") as response:
        assert await refuse(response) == (403, "admin_only", None)
    async with site.call(method, path, key="nobody") as response:
        assert response.status == 401
    assert (await verify_audit(site.store)).records == 0


async def test_a_root_is_rotated_where_nothing_else_is_and_there_is_room(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(site.store)
    root = site.store.require_data().keys.root_id
    with monkeypatch.context() as patch:
        patch.setattr("r1plus_gateway.store.database.database._LOG_OVERHEAD", 1e12)
        async with site.call("POST", "/root/rotate") as response:
            assert await refuse(response) == (409, "volume_full", None)
    await rotate_data_keys(site.store, ADMIN)
    async with site.call("POST", "/root/rotate") as response:
        assert await refuse(response) == (409, "rotation_running", None)
    assert site.store.require_data().keys.root_id == root
    await site.store.maintain()
    async with site.call("POST", "/root/rotate") as response:
        assert response.status == 200
        answer = await response.json()
    now = site.store.require_data().keys.root_id
    assert now != root
    assert answer == {"object": "root", "id": now, "owners": 2, "older_keys": 2, "rows_left": 6}
    async with site.client.get(f"{site.url}/openapi.json") as response:
        document = await response.json()
    Draft202012Validator({"$ref": "#/components/schemas/Root", "components": document["components"]}).validate(answer)


async def fill_much(store: TenantStore) -> None:
    """Make a backup larger than what sockets hold."""
    rows = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000) INSERT INTO usage"
        " SELECT 'api_key', printf('%0253d', i), printf('%0253d', i), 'd', '', 1, 1, 1, 0 FROM n"
    )
    await store.write(lambda ledger: ledger.connection.exec_driver_sql(rows) and None)


async def until_free(store: TenantStore) -> None:
    def is_free() -> bool:
        store.copier.require_free()
        return True

    await eventually(is_free, "the copy has ended", retry_on=(ValueError,))


async def begin_copy(site: Site) -> asyncio.StreamWriter:
    """Ask for a backup and take nothing of it but its first line."""
    reader, writer = await asyncio.open_connection(*site.url.removeprefix("http://").split(":"), limit=1024)
    writer.write(b"GET /v1/admin/backup HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    return writer


@pytest.mark.unit_slow
async def test_a_client_that_takes_nothing_is_cut_off(impatient_site: Site) -> None:
    await fill_much(impatient_site.store)
    writer = await begin_copy(impatient_site)
    await until_free(impatient_site.store)
    writer.transport.abort()


@pytest.mark.unit_slow
async def test_a_second_copy_is_refused_and_a_client_that_leaves_ends_the_first(site: Site) -> None:
    await fill_much(site.store)
    writer = await begin_copy(site)
    async with site.call("GET", "/backup-keys") as response:
        assert await refuse(response) == (409, "copy_running", None)
    writer.transport.abort()
    await until_free(site.store)
    assert StreamReader(io.BytesIO((await site.get_files()).backup).read, StreamKind.BACKUP).header.rows > 40_000


@pytest.mark.unit_slow
async def test_a_client_that_sends_nothing_more_is_told_so_and_nothing_stays(
    impatient_site: Site, files: Files
) -> None:
    site = impatient_site
    for path in ("/restores", "/backup-checks"):

        async def stall() -> AsyncIterator[bytes]:
            yield files.body[:-10]
            await answered.wait()  # noqa: B023

        answered = asyncio.Event()
        async with site.send(path, stall()) as response:
            assert await refuse(response) == (408, "request_timeout", None)
            answered.set()
    assert await list_keys(site.store) == []
    assert site.store.state.is_ready


async def test_a_client_that_leaves_leaves_nothing(site: Site, files: Files) -> None:
    _, writer = await asyncio.open_connection(*site.url.removeprefix("http://").split(":"))
    head = f"POST /v1/admin/restores HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin\r\nContent-Type: {FILE}\r\n"
    writer.write(f"{head}Content-Length: {len(files.body)}\r\n\r\n".encode() + files.body[:-10])
    await eventually(lambda: not site.store.state.is_ready, "the restore has begun")
    writer.transport.abort()
    await eventually(lambda: site.store.state.is_ready, "the restore has ended")
    assert await list_keys(site.store) == []
    async with site.send("/restores", files.body) as response:
        assert response.status == 201
