"""`r1plus knowledge` against a gateway that runs, with its real store and the real reader of documents."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from typer.testing import Result

from support.cli.command import run
from support.documents.making import make_encrypted_pdf, make_pdf
from support.documents.process import running_reader_process
from support.gateway.fake_triton import FakeTriton, answer, serving
from support.gateway.process import GatewayProcess, running_process

pytestmark = pytest.mark.asyncio(loop_scope="module")
Call = Callable[..., Result]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("gateway")
    async with (
        running_reader_process(folder) as documents,
        serving(FakeTriton(answer("x"))) as pod,
        running_process(folder, pod, {"data": {"hasKnowledge": True}}, documents=documents) as process,
    ):
        yield process


@pytest_asyncio.fixture(loop_scope="module")
async def call(gateway: GatewayProcess, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run `r1plus knowledge` as the holder of a new key."""
    monkeypatch.setenv("R1PLUS_API_KEY", await gateway.create_key())
    monkeypatch.setenv("R1PLUS_GATEWAY", gateway.url)
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *words: run("knowledge", *words)


@pytest.mark.unit_slow
async def test_documents_are_added_once_listed_searched_and_removed(call: Call, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# Hotels\n\nIn Zurich a night may cost 210 francs.")
    (tmp_path / "b.pdf").write_bytes(make_pdf(["Trains", "Leave: 28 days"]))
    words = ("add", tmp_path / "a.md", tmp_path / "b.pdf", "--store", "handbook")
    first = await asyncio.to_thread(call, *words)
    assert first.exit_code == 0, (first.output, first.exception)
    again = await asyncio.to_thread(call, *words)
    assert again.stdout == first.stdout
    listed = await asyncio.to_thread(call, "list", "--store", "handbook")
    rows = [line.split() for line in listed.stdout.splitlines()]
    assert {(row[1], row[2], row[4]) for row in rows[1:]} == {("a.md", "completed", "1"), ("b.pdf", "completed", "2")}
    stores = json.loads((await asyncio.to_thread(call, "list", "-o", "json")).stdout)
    assert [store["name"] for store in stores] == ["handbook"]
    found = await asyncio.to_thread(call, "search", "days of leave", "--store", "handbook")
    assert found.stdout.splitlines()[0].startswith("1. b.pdf, page 2 (")
    removed = await asyncio.to_thread(call, "remove", "--store", "handbook", "--yes")
    assert removed.stdout == "Deleted vector store handbook with 2 files\n"
    assert (await asyncio.to_thread(call, "list")).stdout.split() == [
        "ID",
        "NAME",
        "FILES",
        "CHUNKS",
        "BYTES",
        "SEARCH",
    ]


@pytest.mark.unit_slow
async def test_what_cannot_be_read_or_found_is_said(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret.pdf").write_bytes(make_encrypted_pdf())
    failed = await asyncio.to_thread(call, "add", tmp_path / "secret.pdf", "--store", "s")
    assert failed.exit_code != 0
    assert "secret.pdf: is encrypted; save it without a password" in str(failed.exception)
    unknown = await asyncio.to_thread(call, "search", "x", "--store", "none")
    assert "there is no vector store none" in str(unknown.exception)
    monkeypatch.setenv("R1PLUS_API_KEY", "nonesuch")
    assert "(401)" in (refused := str((await asyncio.to_thread(call, "list")).exception))
    assert refused.endswith("; the key is read from R1PLUS_API_KEY")
    assert "ConfigMap" not in refused
    silent = await asyncio.to_thread(call, "list", "--gateway", "http://127.0.0.1:1/v1")
    assert "of `r1plus serve`, see `r1plus serve status`" in str(silent.exception)
    monkeypatch.delenv("R1PLUS_API_KEY")
    assert "R1PLUS_API_KEY is not set" in str((await asyncio.to_thread(call, "list")).exception)


@pytest.mark.unit_slow
async def test_what_documents_and_names_say_controls_no_terminal(call: Call, tmp_path: Path) -> None:
    store = "evil\u202e\x1b[2J"
    (tmp_path / "a.txt").write_text("Red \x1b[31mhotel\x9b2J here.\nSecond\u2066 line.")
    added = await asyncio.to_thread(call, "add", tmp_path / "a.txt", "--store", store)
    assert added.exit_code == 0, (added.output, added.exception)
    found = await asyncio.to_thread(call, "search", "second line", "--store", store)
    stores = await asyncio.to_thread(call, "list")
    for result in (found, stores):
        assert all(line.isprintable() for line in result.stdout.split("\n")), result.stdout
    assert "Red  [31mhotel 2J here.\nSecond  line." in found.stdout
