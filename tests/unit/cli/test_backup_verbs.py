"""`r1plus tenant backup`, `restore` and `verify-backup` between two gateways that run, with their real stores."""

import asyncio
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from typer.testing import Result

from r1plus_cli.errors import CliError, UsageError
from r1plus_cli.gateway.admin_api import TOKEN_VARIABLE
from support.cli.command import run
from support.gateway.backups import back_up as make_backup
from support.gateway.backups import fill
from support.gateway.content import make_content, say
from support.gateway.fake_triton import FakeTriton, answer, serving
from support.gateway.process import GatewayProcess, running_process, started
from support.gateway.rig import FakeMonitor
from support.gateway.tenant_data import Time, Volume, make_caller
from support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Tenant:
    """One tenant with a gateway in each of two clusters; the second has never been called."""

    def __init__(self, here: GatewayProcess, there: GatewayProcess, monkeypatch: pytest.MonkeyPatch) -> None:
        self.here, self.there = here, there
        self._monkeypatch = monkeypatch

    def call(self, gateway: GatewayProcess, *words: object) -> Result:
        """Run `r1plus` as the tenant's administrator."""
        self._monkeypatch.setenv(TOKEN_VARIABLE, gateway.make_token("team-credit", "r1plus-gateway-admin"))
        self._monkeypatch.setenv("R1PLUS_GATEWAY", gateway.url)
        return run(*words)

    def succeed(self, gateway: GatewayProcess, *words: object) -> str:
        """Run `r1plus`, and return what it prints."""
        result = self.call(gateway, *words)
        assert result.exit_code == 0, (result.output, result.exception)
        return " ".join(result.stdout.split())

    def fail(self, gateway: GatewayProcess, *words: object) -> CliError:
        """Run `r1plus`, and return its error."""
        error = self.call(gateway, *words).exception
        assert isinstance(error, CliError), error
        return error


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def gateways(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[GatewayProcess, GatewayProcess]]:
    folders = [tmp_path_factory.mktemp(name) for name in ("here", "there")]
    async with (
        serving(FakeTriton(answer("Stock", "holm"))) as pod,
        FakeMonitor().listen() as monitor,
    ):
        here, there = (GatewayProcess(folder, pod, monitor) for folder in folders)
        there.settings["data"]["tenantUid"] = "uid-of-another-cluster"
        for gateway in (here, there):
            gateway.settings["data"]["contentDays"] = 30
            gateway.write_settings()
        shutil.copy(folders[0] / "secret" / "half-1", folders[1] / "secret" / "half-1")
        async with started(here), started(there):
            yield here, there


@pytest.fixture
def tenant(gateways: tuple[GatewayProcess, GatewayProcess], monkeypatch: pytest.MonkeyPatch) -> Tenant:
    monkeypatch.setenv("COLUMNS", "300")
    return Tenant(*gateways, monkeypatch)


def list_names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def back_up(tenant: Tenant, folder: Path, name: str = "backup") -> tuple[object, ...]:
    """Make a backup, and return the words that name its files."""
    words = ("--file", folder / name, "--keys", folder / "keys")
    tenant.succeed(tenant.here, "tenant", "backup", *words)
    return words


async def talk(
    gateway: GatewayProcess, key: str, end_user: str, method: str, body: object = None
) -> tuple[int, int, str]:
    """Begin a conversation, or list those that there are; return the status, the number of entries, and a problem."""
    headers = {"Authorization": f"Bearer {key}", "x-r1plus-end-user": end_user}
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"{gateway.url}/v1/conversations", json=body, headers=headers) as response,
    ):
        answered = await response.json()
        return response.status, len(answered.get("data", ())), answered.get("error", {}).get("message", "")


@pytest.mark.unit_slow
async def test_backup_erase_and_restore_into_another_cluster(tenant: Tenant, tmp_path: Path) -> None:
    """The story of docs/tenant-data.md."""
    here, there, people = tenant.here, tenant.there, ("anna@example.com", "bert@example.com")
    key = tenant.succeed(here, "key", "create", "shop", "--budget", 1000, "--end-users")
    async with here.make_client(key) as client:
        await client.generate(model="credit", prompt="Capital of Sweden?", max_new_tokens=5)
    said = {"items": [{"type": "message", "role": "user", "content": "Two invoices are open."}]}
    for person in people:
        assert (await talk(here, key, person, "POST", said))[0] == 200
    file, keys = tmp_path / "backup", tmp_path / "keys"
    words = ("--file", file, "--keys", keys)
    (tmp_path / "backup.part").write_text("of a run that was killed")
    printed = tenant.succeed(here, "tenant", "backup", *words)
    assert re.search(rf"{file}: \d+ rows, {file.stat().st_size} bytes, as of 20", printed)
    assert f"{keys}: 2 data keys, for this backup and older ones. Keep it apart from the backups" in printed
    assert list_names(tmp_path) == {"backup", "keys"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (file, keys)} == {0o600}
    assert "Both files are whole" in tenant.succeed(here, "tenant", "verify-backup", *words)
    assert "Nothing was restored. It could be" in tenant.succeed(there, "tenant", "restore", *words, "--dry-run")

    tenant.succeed(here, "tenant", "erase", "--end-user", people[0], "--yes", "--receipt", tmp_path / "receipt")
    newest = ("--file", tmp_path / "newest", "--keys", keys)
    assert "1 data keys, for this backup and older ones, instead of" in tenant.succeed(
        here, "tenant", "backup", *newest
    )
    lost = "2 rows of content cannot be read, since their keys were destroyed after the backup: by erasures"
    assert lost in tenant.succeed(here, "tenant", "verify-backup", *words)
    asked = tenant.call(there, "tenant", "restore", *words)
    assert (asked.exit_code, lost in asked.output) == (1, True)
    restored = tenant.succeed(there, "tenant", "restore", *words, "--yes")
    assert re.match(r"Restored \d+ rows of backup_[0-9a-f]{32} of 20\S+Z, and 1 data keys; " + lost, restored)

    async with there.make_client(key) as client:
        await client.generate(model="credit", prompt="Capital of Sweden?", max_new_tokens=5)
    usage = json.loads(tenant.call(there, "usage", "-o", "json").stdout)
    assert [row["used_tokens"] for row in usage["budgets"]] == [18], "9 tokens here, and 9 there"
    status, _, problem = await talk(there, key, people[0], "GET")
    assert status == 410
    assert "The tenant's administrator removes it: r1plus tenant erase, once more" in problem
    assert await talk(there, key, people[1], "GET") == (200, 1, "")
    tenant.succeed(there, "tenant", "erase", "--end-user", people[0], "--yes")
    assert await talk(there, key, people[0], "GET") == (200, 0, "")
    audit = tenant.succeed(there, "audit")
    assert "records are whole" in audit
    assert re.search(r"Record \d+: restored at 20\S+Z from backup_[0-9a-f]{32} of 20\S+Z; what was recorded", audit)
    assert "refused (409): This tenant's data are in use" in str(tenant.fail(there, "tenant", "restore", *words))
    assert "Receipt erasure_" in tenant.succeed(there, "tenant", "verify-receipt", tmp_path / "receipt")


@pytest.mark.unit_long
async def test_a_restore_on_a_machine_whose_clock_is_years_ahead_keeps_what_it_restores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """This machine's clock is right, so here the backup is of three years ago."""
    monkeypatch.setenv("COLUMNS", "1000")
    volume = Volume(tmp_path_factory.mktemp("before"), time=Time(time.time() - 3 * 365 * 86400)).make()
    async with volume.open() as store:
        filled = await fill(store)
        anna = make_caller(filled.key.record.id, end_user="anna@example.com")
        await make_content(store).write(anna, lambda one: one.create_conversation({}, [say("x")]))
        files = await make_backup(store)
    words = ("--file", tmp_path / "backup", "--keys", tmp_path / "keys")
    (tmp_path / "backup").write_bytes(files.backup)
    (tmp_path / "keys").write_bytes(files.keys)
    key, person = filled.key.key.encode(), anna.end_user
    async with serving(FakeTriton(answer("x"))) as pod, FakeMonitor().listen() as monitor:
        gateway = GatewayProcess(tmp_path_factory.mktemp("ahead"), pod, monitor)
        gateway.settings["data"]["contentDays"] = 30
        gateway.write_settings()
        shutil.copy(volume.config.secret_folder / "half-1", gateway.folder / "secret" / "half-1")
        tenant = Tenant(gateway, gateway, monkeypatch)

        async def is_in_state(reason: str) -> bool:
            return (await gateway.read_data_state())["reason"] == reason

        async with started(gateway):
            restored = tenant.succeed(gateway, "tenant", "restore", *words)
            assert "1095 days ahead of what was seen" in restored and "r1plus tenant confirm-time" in restored
            await eventually(lambda: is_in_state("ClockAhead"), "retention waits for a person")
            assert await talk(gateway, key, person, "GET") == (200, 1, "")
        async with started(gateway):  # It says so after a restart, too.
            await eventually(lambda: is_in_state("ClockAhead"), "retention waits for a person")
            assert await talk(gateway, key, person, "GET") == (200, 1, "")
            tenant.succeed(gateway, "tenant", "confirm-time")

            async def is_deleted() -> bool:
                return await talk(gateway, key, person, "GET") == (200, 0, "")

            await eventually(is_deleted, "what is over is deleted")
            await eventually(lambda: is_in_state("Ready"), "retention goes on")


@pytest.mark.unit_slow
async def test_the_keys_are_replaced_and_an_older_backup_goes_with_them(tenant: Tenant, tmp_path: Path) -> None:
    first = back_up(tenant, tmp_path, "first")
    keys = (tmp_path / "keys").read_bytes()
    second = ("--file", tmp_path / "second", "--keys", tmp_path / "keys")
    assert "instead of those of 20" in tenant.succeed(tenant.here, "tenant", "backup", *second)
    assert (tmp_path / "keys").read_bytes() != keys
    for words in (first, second):
        assert "Both files are whole" in tenant.succeed(tenant.here, "tenant", "verify-backup", *words)
    (tmp_path / "keys").write_bytes(keys)
    assert "Both files are whole" in tenant.succeed(tenant.here, "tenant", "verify-backup", *first)


async def test_a_folder_for_the_keys_that_is_not_there_is_named(tenant: Tenant, tmp_path: Path) -> None:
    words = ("--file", tmp_path / "backup", "--keys", tmp_path / "mnt" / "keys")
    assert f"--keys: there is no folder {tmp_path / 'mnt'}; make it" in str(
        tenant.fail(tenant.here, "tenant", "backup", *words)
    )
    assert list_names(tmp_path) == set()


KILLED = """
import os, signal, sys
folder, last, count = sys.argv.pop(1), int(sys.argv.pop(1)), 0

def look(event, given):
    global count
    if event in ("open", "os.rename", "os.remove") and str(given[0]).startswith(folder):
        count += 1
        if count == last:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(look)
from r1plus_cli.main import main
main()
"""
"""Runs `r1plus`, and kills it before its n-th access to a file of a folder."""


@pytest.mark.unit_long
async def test_a_backup_that_is_killed_leaves_files_that_are_whole(tenant: Tenant, tmp_path: Path) -> None:
    """The newest keys open each backup that is there, whichever of the two was written when it was killed."""
    folder = tmp_path / "files"
    folder.mkdir()
    older = back_up(tenant, folder, "older")
    before, numbers = (folder / "keys").read_bytes(), iter(range(1, 100))
    states: set[tuple[bool, bool]] = set()
    for number in numbers:
        (folder / "keys").write_bytes(before)
        newer = ("tenant", "backup", "--file", folder / "newer", "--keys", folder / "keys")
        tenant.call(tenant.here, "key", "list")  # Lets the environment have the administrator's token.
        command = [sys.executable, "-c", KILLED, str(folder), str(number), *map(str, newer)]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        has_newer = (folder / "newer").exists()
        states.add(((folder / "keys").read_bytes() != before, has_newer))
        tenant.succeed(tenant.here, "tenant", "verify-backup", *older)
        if has_newer:
            words = ("--file", folder / "newer", "--keys", folder / "keys")
            tenant.succeed(tenant.here, "tenant", "verify-backup", *words)
            (folder / "newer").unlink()
        if done.returncode == 0:
            break
    assert states == {(False, False), (True, False), (True, True)}
    assert next(numbers) > 8
    assert list_names(folder) == {"older", "keys"}, "what was killed leaves parts, and the next one takes them"


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def change(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("backup", cut, r"refused \(400\): backup: is cut at byte"),
        ("backup", change, r"refused \(400\): backup: was changed"),
        ("keys", change, r"refused \(400\): keys: was changed"),
        (
            "backup",
            lambda file: file.write_bytes(b""),
            r"refused \(400\): backup: is not a file of r1plus tenant backup",
        ),
    ],
    ids=["a cut backup", "a changed backup", "a changed keys file", "an empty file"],
)
async def test_a_backup_that_is_not_whole_is_told(
    tenant: Tenant, tmp_path: Path, name: str, spoil: Callable[[Path], object], message: str
) -> None:
    words = back_up(tenant, tmp_path)
    spoil(tmp_path / name)
    assert re.search(message, str(tenant.fail(tenant.here, "tenant", "verify-backup", *words)))


class CutServer(BaseHTTPRequestHandler):
    """Answers with a part of a file: with its length, or without an end."""

    content = b""
    is_whole_answer = True

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content) + (0 if self.is_whole_answer else 1)))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize(
    ("is_whole_answer", "message"),
    [
        (False, "does not answer: peer closed connection"),
        (True, "The gateway's answer is not whole: backup: is cut at"),
    ],
    ids=["the connection ends", "the answer ends"],
)
async def test_a_backup_that_does_not_arrive_whole_leaves_no_file(
    tenant: Tenant, tmp_path: Path, is_whole_answer: bool, message: str
) -> None:
    back_up(tenant, tmp_path)
    before = (tmp_path / "keys").read_bytes()
    cut = {"content": (tmp_path / "backup").read_bytes()[:-1], "is_whole_answer": is_whole_answer}
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Cut", (CutServer,), cut)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        words = ("--file", tmp_path / "new", "--keys", tmp_path / "keys")
        url = f"http://127.0.0.1:{server.server_port}"
        error = tenant.fail(tenant.here, "tenant", "backup", *words, "--gateway", url)
        server.shutdown()
        thread.join()
    assert message in str(error)
    assert list_names(tmp_path) == {"backup", "keys"}
    assert (tmp_path / "keys").read_bytes() == before


async def test_no_file_is_written_over_that_is_not_to_be(tenant: Tenant, tmp_path: Path) -> None:
    words = back_up(tenant, tmp_path)
    assert "--file:" in str(tenant.fail(tenant.here, "tenant", "backup", *words))
    same = ("--file", tmp_path / "x", "--keys", tmp_path / "x")
    assert "names the same file" in str(tenant.fail(tenant.here, "tenant", "backup", *same))
    (tmp_path / "letter").write_text("Dear Anna")
    letter = ("--file", tmp_path / "x", "--keys", tmp_path / "letter")
    assert "is no keys file and would be replaced" in str(tenant.fail(tenant.here, "tenant", "backup", *letter))
    assert (tmp_path / "letter").read_text() == "Dear Anna"
    folder = ("--file", tmp_path / "absent" / "x", "--keys", tmp_path / "keys")
    assert "No such file or directory" in str(tenant.fail(tenant.here, "tenant", "backup", *folder))
    assert list_names(tmp_path) == {"backup", "keys", "letter"}


@pytest.mark.unit_slow
async def test_the_only_keys_of_another_tenant_are_not_replaced(
    tenant: Tenant, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    back_up(tenant, tmp_path)
    keys = (tmp_path / "keys").read_bytes()
    async with (
        serving(FakeTriton(answer("x"))) as pod,
        running_process(tmp_path_factory.mktemp("other"), pod) as other,
    ):
        error = tenant.fail(other, "tenant", "backup", "--file", tmp_path / "x", "--keys", tmp_path / "keys")
    assert isinstance(error, UsageError)
    assert "it was not replaced. Name a file of this tenant's own" in str(error)
    assert (tmp_path / "keys").read_bytes() == keys
    assert list_names(tmp_path) == {"backup", "keys"}
