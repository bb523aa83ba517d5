"""The reader's process: hostile documents end in an error with their name, and the next one is read."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from r1plus_assistant.knowledge.documents import SocketDocumentReader, UnreadableDocumentError
from r1plus_contract.documents import DocumentFailureCode, DocumentReply
from r1plus_contract.frame_server import SocketError
from r1plus_documents.server.preload import preload
from r1plus_documents.server.server import DocumentServer, run_reader
from r1plus_documents.server.worker import LIMITS
from r1plus_sandbox.confinement import WorkerLimits
from support.documents.making import (
    change_archive,
    make_docx,
    make_pdf,
    make_pdf_bomb,
    make_pdf_with_many_pages,
    understate_sizes,
)
from support.documents.process import running_reader_process
from support.virtual_time import skip_seconds
from support.waiting import eventually

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.first_run_counts]


def make_bomb() -> bytes:
    """Return a DOCX with a picture that unpacks to 40 MB."""
    return change_archive(make_docx(("text", 0)), {"word/media/x.bin": b"\0" * 40_000_000})


class Reader:
    """Reads documents at a socket."""

    def __init__(self, path: Path, seconds: float = 120.0) -> None:
        self._client = SocketDocumentReader(str(path), seconds)

    async def read(self, name: str, data: bytes) -> list[DocumentReply]:
        """Return all replies to a document."""

        async def read_part(position: int) -> bytes | None:
            part = data[position * 100_000 : (position + 1) * 100_000]
            return part or None

        return [reply async for reply in self._client.read(name, len(data), read_part)]

    async def fail(self, name: str, data: bytes) -> UnreadableDocumentError:
        """Return why a document cannot be read."""
        with pytest.raises(UnreadableDocumentError) as failed:
            await self.read(name, data)
        return failed.value


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def reader(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Reader]:
    async with running_reader_process(tmp_path_factory.mktemp("reader")) as path:
        yield Reader(path)


@contextlib.asynccontextmanager
async def serve_documents(folder: Path, limits: WorkerLimits = LIMITS) -> AsyncIterator[tuple[DocumentServer, Reader]]:
    """Run a reader with other limits in this process."""
    preload()
    async with run_reader(folder / "r.sock", limits, 1) as server:
        yield server, Reader(folder / "r.sock")


@pytest.mark.parametrize(
    ("name", "make"),
    [
        # Made by the test that needs it: each worker imports this module, and 300 MiB take two seconds to pack.
        ("bomb.pdf", lambda: make_pdf_bomb(300)),
        ("bomb.docx", lambda: understate_sizes(make_bomb(), 100)),
        ("deep.docx", lambda: change_archive(make_docx(("x", 0)), {"word/document.xml": b"<a>" * 100_000})),
        ("deep.html", lambda: b"<div>" * 100_000 + b"text"),
        ("empty.pdf", lambda: b"%PDF-1.7\n" + b"0 0 obj\n" * 50_000),
        pytest.param("long.pdf", lambda: make_pdf_with_many_pages(100_000), marks=pytest.mark.unit_long),
        pytest.param(
            "short.pdf",
            lambda: make_pdf_with_many_pages(100_000).replace(b"/Count 100000", b"/Count 000001"),
            marks=pytest.mark.unit_long,
        ),
    ],
    ids=[
        "a PDF that unpacks to 300 MiB",
        "an archive that lies of its sizes",
        "XML of 100,000 levels",
        "HTML of 100,000 levels",
        "a PDF of nothing",
        "a PDF of 100,000 pages",
        "a PDF of 100,000 pages that says it has one",
    ],
)
async def test_a_hostile_document_ends_in_an_error_with_its_name(
    reader: Reader, name: str, make: Callable[[], bytes]
) -> None:
    failed = await reader.fail(name, make())
    assert failed.message.startswith(f"{name}: ")
    assert (await reader.read("a.txt", b"text"))[1].blocks[0].text == "text"


async def test_what_a_library_cannot_read_is_the_documents_fault(reader: Reader) -> None:
    """So it is not tried again."""
    xml = (
        b'<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body><w:p><w:r><w:rPr>'
    )
    xml += b'<w:vanish w:val="banana"/></w:rPr><w:t>text</w:t></w:r></w:p></w:body></w:document>'
    failed = await reader.fail("a.docx", change_archive(make_docx(("text", 0)), {"word/document.xml": xml}))
    assert failed.code is DocumentFailureCode.DAMAGED


async def test_html_of_some_depth_is_read(reader: Reader) -> None:
    replies = await reader.read("deep.html", b"<div>" * 240 + b"text")
    assert [block.text for reply in replies for block in reply.blocks] == ["text"]


async def test_an_element_of_many_attributes_is_read(reader: Reader) -> None:
    attributes = b" ".join(b"a%d=1" % number for number in range(100_000))
    replies = await reader.read("wide.html", b"<p " + attributes + b">text")
    assert [block.text for reply in replies for block in reply.blocks] == ["text"]


async def test_the_text_of_a_document_comes_while_it_is_read(reader: Reader) -> None:
    replies = await reader.read("long.pdf", make_pdf([f"Page {number}. " + "word " * 300 for number in range(120)]))
    assert len(replies) > 4
    assert [reply.pages for reply in replies] == sorted(reply.pages for reply in replies)
    assert replies[-1].pages == 120


@pytest.mark.unit_slow
async def test_too_much_time_is_told_as_that(tmp_path: Path) -> None:
    limits = WorkerLimits(cpu_seconds=1, memory_bytes=LIMITS.memory_bytes, wall_seconds=600.0)
    async with serve_documents(tmp_path, limits) as (_, reader):
        failed = await reader.fail("slow.pdf", make_pdf(["word " * 2000] * 3000))
        assert failed.code is DocumentFailureCode.TIME_LIMIT
        assert failed.message == "slow.pdf: takes longer to read than it may; split it"


@pytest.mark.unit_slow
async def test_too_much_memory_is_told_as_that(tmp_path: Path) -> None:
    limits = WorkerLimits(cpu_seconds=60, memory_bytes=64 * 2**20, wall_seconds=600.0)
    async with serve_documents(tmp_path, limits) as (_, reader):
        failed = await reader.fail("large.txt", b"word\n\n" * 6_000_000)
        assert failed.code is DocumentFailureCode.MEMORY_LIMIT
        assert (await reader.read("a.txt", b"text"))[-1].is_end


async def test_a_child_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    async with serve_documents(tmp_path) as (server, _):

        async def stall(_: int) -> bytes | None:
            await eventually(lambda: server.running, "a child has the connection")
            await asyncio.sleep(0)  # now its time runs
            skip_seconds(LIMITS.wall_seconds)
            await eventually(lambda: server.killed == 1, "the child was ended")
            return None

        patient = SocketDocumentReader(str(tmp_path / "r.sock"), 2 * LIMITS.wall_seconds)
        with pytest.raises(UnreadableDocumentError, match=r"a\.txt: the reader broke off"):
            async for _ in patient.read("a.txt", 5, stall):
                pass


async def test_a_gateway_that_leaves_ends_the_child(tmp_path: Path) -> None:
    async with serve_documents(tmp_path) as (server, reader):
        data = make_pdf(["word " * 2000] * 200)

        async def read_part(position: int) -> bytes | None:
            return data if position == 0 else None

        replies = reader._client.read("a.pdf", len(data), read_part)
        await anext(replies)
        await replies.aclose()
        await eventually(lambda: not server.running, "the child has ended")


async def test_a_path_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(SocketError, match="is no socket"):
        async with run_reader(tmp_path / "file"):
            pass
