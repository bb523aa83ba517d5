"""Ingestion and search: from an upload to a passage with its source, through the real reader of documents."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from r1plus_assistant.embedding.client import Embedder, EmbedderUnavailableError
from r1plus_assistant.knowledge.documents import (
    DocumentReader,
    ReadPart,
    SocketDocumentReader,
    UnreadableDocumentError,
)
from r1plus_assistant.knowledge.index import IndexLimitError
from r1plus_assistant.knowledge.ingestion import MOST_TRIES, Pauses
from r1plus_assistant.knowledge.search import SearchMethod, UnknownVectorStoreError
from r1plus_assistant.knowledge.service import KnowledgeService, run_knowledge
from r1plus_contract.documents import (
    DEEPEST_HEADING,
    MOST_BLOCK_CHARACTERS,
    DocumentFailure,
    DocumentFailureCode,
    DocumentReply,
    TextBlock,
    UnreadablePage,
)
from r1plus_contract.frames import pack
from r1plus_contract.jsonable import dumps
from r1plus_gateway.access.caller import Caller
from r1plus_gateway.settings import GatewayLimits
from r1plus_gateway.store.content.knowledge import BATCH_CHUNKS, IngestionState, VectorStoreFile
from r1plus_gateway.store.keys.content_cipher import Owner
from r1plus_gateway.store.tenant import TenantStore
from support.documents.making import make_docx, make_encrypted_pdf, make_pdf
from support.documents.process import running_reader_process
from support.gateway.content import check_books
from support.gateway.fake_embedder import FakeEmbedder
from support.gateway.knowledge import INGESTION, make_store, upload
from support.gateway.tenant_data import Volume, make_caller
from support.waiting import eventually

SHORT = Pauses(0.01, 0.1, sweep=0.01)
KEY, ANNA = make_caller(), make_caller(end_user="anna")
HANDBOOK = b"""# Travel

## Trains

Employees travel second class. Journeys of more than four hours may be booked in first class.

## Hotels

A night may cost 140 euros. In Zurich and Geneva it may cost 210 francs.

# Leave

Everybody has 28 days of leave in a year.
"""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def socket(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Path]:
    async with running_reader_process(tmp_path_factory.mktemp("reader")) as path:
        yield path


@pytest.fixture
def reader(socket: Path) -> DocumentReader:
    return SocketDocumentReader(str(socket))


class Base:
    """A knowledge base of one owner with one vector store."""

    def __init__(self, service: KnowledgeService, owner: Owner) -> None:
        self.service = service
        self.owner = owner
        self.store_id = ""

    async def add(self, name: str, *parts: bytes, **changes: Any) -> str:
        """Upload a file and add it; return its id."""
        knowledge = self.service.knowledge
        if not self.store_id:
            self.store_id = await make_store(knowledge, self.owner)
        file = await upload(knowledge, self.owner, *parts, name=name)
        ingestion = replace(INGESTION, **changes)
        await knowledge.write(self.owner, lambda one: one.add_store_file(self.store_id, file.id, ingestion))
        self.service.ingestion.wake()
        return file.id

    async def find(self, file_id: str) -> VectorStoreFile:
        """Return a file of the vector store."""
        found = await self.service.knowledge.read(self.owner, lambda one: one.find_store_file(self.store_id, file_id))
        assert found is not None
        return found

    async def until_read(self, file_id: str) -> VectorStoreFile:
        """Wait until a file is read, or cannot be."""

        async def is_done() -> bool:
            return (await self.find(file_id)).state is not IngestionState.IN_PROGRESS

        await eventually(is_done, "the file is read")
        return await self.find(file_id)

    async def search(self, question: str, most: int = 3) -> Any:
        """Search the vector store."""
        return await self.service.search.find(self.owner, [self.store_id], question, most)


@contextlib.asynccontextmanager
async def run_knowledge_base(
    store: TenantStore, reader: DocumentReader | None, embedder: Embedder | None = None, **limits: Any
) -> AsyncIterator[Base]:
    """Run the knowledge base of a store for the block."""
    settings = GatewayLimits(**limits)
    async with run_knowledge(store, lambda: settings, reader, lambda: embedder, SHORT) as service:
        yield Base(service, service.knowledge.identify(KEY))


@pytest.mark.parametrize(
    ("name", "data", "question", "heading", "page"),
    [
        ("handbook.md", HANDBOOK, "What may a hotel in Geneva cost?", "Travel > Hotels", None),
        ("handbook.txt", HANDBOOK, "How many days of leave are there?", "", None),
        ("handbook.html", b"<h1>Leave</h1><p>Everybody has 28 days of leave.", "days of leave", "Leave", None),
        ("handbook.pdf", make_pdf(["Trains", "Leave: 28 days a year"]), "days of leave", "", 2),
        ("handbook.docx", make_docx(("Leave", 1), ("Everybody has 28 days.", 0)), "days of leave", "Leave", None),
    ],
    ids=["Markdown", "text", "HTML", "PDF", "DOCX"],
)
async def test_an_uploaded_document_is_found_with_its_place(
    store: TenantStore, reader: DocumentReader, name: str, data: bytes, question: str, heading: str, page: int | None
) -> None:
    async with run_knowledge_base(store, reader, FakeEmbedder()) as base:
        file_id = await base.add(name, data)
        file = await base.until_read(file_id)
        assert (file.state, file.ingestion.problem) == (IngestionState.COMPLETED, None)
        result = await base.search(question)
        best = result.passages[0]
        assert result.method is SearchMethod.HYBRID
        assert (best.file_id, best.file_name, best.chunk.page) == (file_id, name, page)
        assert best.chunk.heading == heading
        if page is None and heading:
            assert best.chunk.end - best.chunk.start == len(best.chunk.text)


async def test_without_an_embedder_words_are_searched_and_the_result_says_so(
    store: TenantStore, reader: DocumentReader
) -> None:
    async with run_knowledge_base(store, reader) as base:
        await base.until_read(await base.add("handbook.md", HANDBOOK))
        result = await base.search("hotels in Zurich")
        assert result.method is SearchMethod.WORDS
        assert "210 francs" in result.passages[0].chunk.text
        assert (await base.search("submarine")).passages == []


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("secret.pdf", make_encrypted_pdf(), "encrypted"),
        ("latin.txt", "Größe".encode("latin-1"), "wrong_encoding"),
        ("photo.jpg", b"\xff\xd8\xff\xe0", "unsupported_format"),
    ],
    ids=["an encrypted PDF", "another encoding", "a picture"],
)
async def test_a_document_that_cannot_be_read_fails_with_its_name_and_a_remedy(
    store: TenantStore, reader: DocumentReader, name: str, data: bytes, code: str
) -> None:
    async with run_knowledge_base(store, reader) as base:
        file = await base.until_read(await base.add(name, data))
        assert file.state is IngestionState.FAILED
        assert file.ingestion.problem is not None
        assert file.ingestion.problem.code == code
        assert file.ingestion.problem.message.startswith(f"{name}: ")
        assert (await base.search("anything")).passages == []


async def test_pages_that_cannot_be_read_are_reported(store: TenantStore, reader: DocumentReader) -> None:
    async with run_knowledge_base(store, reader) as base:
        file = await base.until_read(await base.add("a.pdf", make_pdf(["One", "", "Three"], picture_pages=[2])))
        assert (file.state, file.ingestion.pages) == (IngestionState.COMPLETED, 3)
        assert [page.page for page in file.ingestion.unreadable] == [2]


class ScriptedReader:
    """A reader that yields what a test lets it, and breaks off where it says."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.starts = 0
        self.most: int | None = None
        """Blocks after which it breaks off with `error`."""
        self.error: Exception = asyncio.CancelledError()  # type: ignore[assignment]
        self.name = "tests/1"

    async def read(self, name: str, size: int, read_part: ReadPart) -> AsyncGenerator[DocumentReply, None]:
        """See `DocumentReader`."""
        self.starts += 1
        yield DocumentReply(reader=self.name)
        for number in range(self.count):
            if number == self.most:
                await asyncio.Event().wait()
            yield DocumentReply(blocks=(TextBlock(f"H{number}", 1), TextBlock(f"Text number {number}.")))
        yield DocumentReply(is_end=True)


async def read_texts(base: Base, file: VectorStoreFile) -> list[str]:
    batches = await base.service.knowledge.read(base.owner, lambda one: one.read_batches(file))
    return [chunk.text for batch in batches for chunk in batch.chunks]


async def test_a_gateway_that_ends_meanwhile_goes_on_without_double_chunks(volume: Volume) -> None:
    reader, embedder = ScriptedReader(3 * BATCH_CHUNKS + 5), FakeEmbedder()
    reader.most = 2 * BATCH_CHUNKS + 3
    async with volume.open() as store, run_knowledge_base(store, reader, embedder) as base:
        file_id = await base.add("a.txt", b"x")

        async def has_two() -> bool:
            return (await base.find(file_id)).batches == 2

        await eventually(has_two, "two batches are stored")
    embedded = len(embedder.asked)
    reader.most = None
    async with volume.open() as store, run_knowledge_base(store, reader, embedder) as again:
        again.store_id = base.store_id
        file = await again.until_read(file_id)
        assert (reader.starts, len(embedder.asked) - embedded) == (2, 2)
        assert file.chunks == reader.count
        assert await read_texts(again, file) == [f"Text number {number}." for number in range(reader.count)]
        await store.read(check_books)


async def test_another_reader_begins_again(volume: Volume) -> None:
    reader = ScriptedReader(2 * BATCH_CHUNKS)
    reader.most = BATCH_CHUNKS + 1
    async with volume.open() as store, run_knowledge_base(store, reader) as base:
        file_id = await base.add("a.txt", b"x")

        async def has_one() -> bool:
            return (await base.find(file_id)).batches == 1

        await eventually(has_one, "a batch is stored")
    reader.most, reader.name = None, "tests/2"
    async with volume.open() as store, run_knowledge_base(store, reader, FakeEmbedder()) as again:
        again.store_id = base.store_id
        file = await again.until_read(file_id)
        assert file.ingestion.reader.startswith("tests/2")
        assert len(await read_texts(again, file)) == reader.count
        await store.read(check_books)


async def test_vectors_of_another_embedder_are_never_mixed_and_made_again(store: TenantStore) -> None:
    async with run_knowledge_base(store, ScriptedReader(5), FakeEmbedder("old@sha256:00")) as base:
        file_id = await base.add("a.txt", b"x")
        await base.until_read(file_id)
        assert (await base.search("number 3")).method is SearchMethod.HYBRID
    embedder = FakeEmbedder("new@sha256:11", dimensions=32)
    async with run_knowledge_base(store, ScriptedReader(5), embedder) as again:
        again.store_id = base.store_id
        assert (await again.search("number 3")).method is SearchMethod.WORDS
        again.service.ingestion.wake()

        async def is_hybrid() -> bool:
            return (await again.search("number 3")).method is SearchMethod.HYBRID

        await eventually(is_hybrid, "the vectors were made again")
        file = await again.find(file_id)
        batches = await again.service.knowledge.read(again.owner, lambda one: one.read_batches(file))
        assert {batch.engine for batch in batches} == {"new@sha256:11"}
        assert {len(batch.vectors) for batch in batches} == {5 * 32 * 4}
        await store.read(check_books)


async def test_vectors_of_the_keys_vector_store_are_made_again_when_an_end_user_searches(store: TenantStore) -> None:
    async with run_knowledge_base(store, ScriptedReader(5), FakeEmbedder("old@sha256:00")) as base:
        file_id = await base.add("a.txt", b"x")
        await base.until_read(file_id)
    embedder = FakeEmbedder("new@sha256:11")
    async with run_knowledge_base(store, ScriptedReader(5), embedder) as again:
        again.store_id, key, anna = base.store_id, again.owner, again.service.knowledge.identify(ANNA)
        again.owner = anna
        assert (await again.search("number 3")).method is SearchMethod.WORDS
        again.owner = key
        added = await again.add("b.txt", b"x")  # is read behind the vectors
        await again.until_read(added)
        again.owner = anna

        async def is_hybrid() -> bool:
            return (await again.search("number 3")).method is SearchMethod.HYBRID

        await eventually(is_hybrid, "the vectors were made again")
        assert sum(len(texts) == 5 for texts in embedder.asked) == 2  # of each file, once


async def test_an_embedder_that_is_away_holds_files_up_and_fails_none(store: TenantStore) -> None:
    embedder = FakeEmbedder()
    embedder.trouble = EmbedderUnavailableError("away")
    async with run_knowledge_base(store, ScriptedReader(3), embedder) as base:
        file_id = await base.add("a.txt", b"x")
        await asyncio.sleep(0)
        assert (await base.find(file_id)).state is IngestionState.IN_PROGRESS
        assert (await base.search("text")).method is SearchMethod.WORDS
        embedder.trouble = None
        base.service.ingestion.wake()
        assert (await base.until_read(file_id)).state is IngestionState.COMPLETED


async def test_a_file_without_room_fails_also_where_nothing_more_may_be_stored(store: TenantStore) -> None:
    async with run_knowledge_base(store, None) as base:
        file_id = await base.add("a.txt", b"x")
    async with run_knowledge_base(store, ScriptedReader(3), knowledge_bytes_per_key=1) as again:
        again.store_id = base.store_id
        file = await again.until_read(file_id)
        assert file.state is IngestionState.FAILED
        assert file.ingestion.problem is not None
        assert file.ingestion.problem.code == "storage_limit_exceeded"
        await store.read(check_books)


class FailingReader(ScriptedReader):
    """A reader that fails at one file."""

    def __init__(self, bad: str, error: Exception) -> None:
        super().__init__(1)
        self.bad = bad
        self.error = error
        self.fails = 0

    async def read(self, name: str, size: int, read_part: ReadPart) -> AsyncGenerator[DocumentReply, None]:
        """See `DocumentReader`."""
        if name == self.bad:
            self.fails += 1
            raise self.error
        async for reply in super().read(name, size, read_part):
            yield reply


async def test_a_file_that_fails_again_and_again_holds_no_other_up(store: TenantStore) -> None:
    reader = FailingReader("bad.txt", RuntimeError("a mistake in this program"))
    async with run_knowledge_base(store, reader) as base:
        bad = await base.add("bad.txt", b"x")
        await eventually(lambda: reader.fails, "the bad file was tried")
        good = await base.add("good.txt", b"x")
        assert (await base.until_read(good)).state is IngestionState.COMPLETED
        assert (await base.find(bad)).state is IngestionState.IN_PROGRESS


class LongReader(ScriptedReader):
    """A reader of which one file takes long."""

    def __init__(self) -> None:
        super().__init__(1)
        self.names: list[str] = []

    async def read(self, name: str, size: int, read_part: ReadPart) -> AsyncGenerator[DocumentReply, None]:
        """See `DocumentReader`."""
        self.names.append(name)
        self.count = 3 * BATCH_CHUNKS if name == "long.txt" else 1
        async for reply in super().read(name, size, read_part):
            yield reply


@pytest.mark.parametrize("other", [make_caller("key000000002"), ANNA], ids=["another key's", "an end user's"])
async def test_a_long_file_gives_others_their_turn_and_goes_on(store: TenantStore, other: Caller) -> None:
    reader, embedder = LongReader(), FakeEmbedder()
    embedder.gate = asyncio.Event()
    settings = GatewayLimits()
    async with run_knowledge(store, lambda: settings, reader, lambda: embedder, replace(SHORT, turn=0.0)) as service:
        own, others = (Base(service, service.knowledge.identify(caller)) for caller in (KEY, other))
        long = await own.add("long.txt", b"x")
        await eventually(lambda: embedder.asked, "the long file is read")
        await own.add("next.txt", b"x")
        short = await others.add("short.txt", b"x")
        embedder.gate.set()
        assert (await others.until_read(short)).state is IngestionState.COMPLETED
        file = await own.until_read(long)
        assert (reader.names[:2], reader.names.count("long.txt")) == (["long.txt", "short.txt"], 2)
        assert await read_texts(own, file) == [f"Text number {number}." for number in range(3 * BATCH_CHUNKS)]
        await store.read(check_books)


class SilentReader(ScriptedReader):
    """A reader that says nothing more of one file until a test lets it."""

    def __init__(self, after: int) -> None:
        super().__init__(2 * BATCH_CHUNKS)
        self.after = after
        """Blocks before the silence."""
        self.goes_on = asyncio.Event()

    async def read(self, name: str, size: int, read_part: ReadPart) -> AsyncGenerator[DocumentReply, None]:
        """See `DocumentReader`."""
        number = 0
        async for reply in super().read(name, size, read_part):
            if name == "silent.pdf" and number == self.after:
                await self.goes_on.wait()
            number += 1
            yield reply


@pytest.mark.unit_slow
@pytest.mark.parametrize("after", [1, BATCH_CHUNKS + 4], ids=["before its first chunk", "behind its first chunks"])
async def test_a_file_of_which_nothing_comes_gives_others_their_turn_and_is_read_in_the_end(
    store: TenantStore, after: int
) -> None:
    reader, settings = SilentReader(after), GatewayLimits()
    pauses = replace(SHORT, turn=0.01)
    async with run_knowledge(store, lambda: settings, reader, lambda: None, pauses) as service:
        own, others = (Base(service, service.knowledge.identify(caller)) for caller in (KEY, ANNA))
        silent = await own.add("silent.pdf", b"x")
        await eventually(lambda: reader.starts, "the silent file is read")
        short = await others.add("short.txt", b"x")
        assert (await others.until_read(short)).state is IngestionState.COMPLETED
        reader.goes_on.set()
        file = await own.until_read(silent)
        assert await read_texts(own, file) == [f"Text number {number}." for number in range(2 * BATCH_CHUNKS)]
        await store.read(check_books)


class HeldReader(ScriptedReader):
    """A reader that reads as many files as a test lets it."""

    def __init__(self) -> None:
        super().__init__(1)
        self.names: list[str] = []
        self.allowed = asyncio.Semaphore(0)

    async def read(self, name: str, size: int, read_part: ReadPart) -> AsyncGenerator[DocumentReply, None]:
        """See `DocumentReader`."""
        self.names.append(name)
        await self.allowed.acquire()
        async for reply in super().read(name, size, read_part):
            yield reply


@pytest.mark.parametrize("other", [make_caller("key000000002"), ANNA], ids=["another key", "an end user"])
async def test_who_had_many_turns_waits_for_one_of_who_had_none(store: TenantStore, other: Caller) -> None:
    reader, settings = HeldReader(), GatewayLimits()
    async with run_knowledge(store, lambda: settings, reader, lambda: None, SHORT) as service:
        own, others = (Base(service, service.knowledge.identify(caller)) for caller in (KEY, other))
        for _ in range(5):
            await own.add("a", b"x")
        for _ in range(3):
            reader.allowed.release()
        await eventually(lambda: len(reader.names) == 4, "three files are read, and the next is")
        for _ in range(3):
            await others.add("b", b"x")
            reader.allowed.release()
        await eventually(lambda: len(reader.names) == 7, "three more are read")
        assert reader.names[3:] == ["a", "b", "a", "b"]


async def test_a_document_that_exceeds_its_readers_time_is_not_tried_again(store: TenantStore) -> None:
    failure = DocumentFailure(DocumentFailureCode.TIME_LIMIT, "long.pdf: takes more than 240 s; split it")
    reader = FailingReader("long.pdf", UnreadableDocumentError(failure))
    async with run_knowledge_base(store, reader) as base:
        file = await base.until_read(await base.add("long.pdf", b"x"))
        assert (file.state, reader.fails) == (IngestionState.FAILED, 1)


def reply_with(**fields: Any) -> bytes:
    """Return a last reply with these fields."""
    return pack(dumps(DocumentReply(**fields, is_end=True)).encode())


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"\0\0\0\0",
        reply_with(blocks=(TextBlock("x", DEEPEST_HEADING + 1),)),
        reply_with(blocks=(TextBlock("x" * (MOST_BLOCK_CHARACTERS + 1)),)),
        reply_with(blocks=(TextBlock(""),) * 20_000),
        reply_with(blocks=(TextBlock("x", page=-1),)),
        reply_with(pages=2**40),
        reply_with(reader="x" * 10_000),
        reply_with(unreadable=(UnreadablePage(1, "x" * 10_000),)),
    ],
    ids=[
        "closes",
        "sends what is no reply",
        "nests headings without end",
        "sends a block that is too long",
        "sends blocks without end",
        "numbers pages below 1",
        "counts pages without end",
        "has a long name",
        "has a long message",
    ],
)
async def test_a_reader_that_breaks_off_is_tried_three_times(
    store: TenantStore, tmp_path_factory: pytest.TempPathFactory, reply: bytes
) -> None:
    path = tmp_path_factory.mktemp("s") / "s"
    calls = 0

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        writer.write(reply)
        await writer.drain()
        writer.close()

    async with (
        await asyncio.start_unix_server(answer, path),
        run_knowledge_base(store, SocketDocumentReader(str(path))) as base,
    ):
        file = await base.until_read(await base.add("a.txt", b"x"))
        assert (file.state, calls) == (IngestionState.FAILED, MOST_TRIES)


async def test_a_reader_that_never_ends_holds_nothing_up(
    store: TenantStore, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("s") / "s"
    endless = pack(dumps(DocumentReply(unreadable=(UnreadablePage(1, "x"),))).encode())
    seconds = itertools.count()  # Each look at the clock is a second later, and it is looked at before each reply.
    reader = SocketDocumentReader(str(path), read_seconds=100.0, clock=lambda: float(next(seconds)))

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while True:
                writer.write(endless)
                await writer.drain()
                await asyncio.sleep(0)

    async with await asyncio.start_unix_server(answer, path), run_knowledge_base(store, reader) as base:
        file = await base.until_read(await base.add("a.txt", b"x"))
        assert file.ingestion.problem is not None
        assert (file.state, file.ingestion.problem.code) == (IngestionState.FAILED, DocumentFailureCode.TIME_LIMIT)
        assert next(seconds) == 102, "it was not read again"


async def test_a_file_that_is_deleted_meanwhile_stops_being_read_and_found(store: TenantStore) -> None:
    reader = ScriptedReader(2 * BATCH_CHUNKS)
    reader.most = BATCH_CHUNKS + 1
    async with run_knowledge_base(store, reader) as base:
        other = ScriptedReader(1)
        file_id = await base.add("a.txt", b"x")

        async def has_one() -> bool:
            return (await base.find(file_id)).batches == 1

        await eventually(has_one, "a batch is stored")
        assert (await base.search("number")).passages == []  # what is not complete is not found
        await base.service.knowledge.write(base.owner, lambda one: one.delete_file(file_id))
        assert (await base.search("number")).passages == []
        assert other.starts == 0
        await store.read(check_books)


async def test_an_index_follows_what_is_added_and_removed(store: TenantStore, reader: DocumentReader) -> None:
    async with run_knowledge_base(store, reader, FakeEmbedder()) as base:
        first = await base.add("a.txt", b"The red door is open.")
        await base.until_read(first)
        assert [one.file_id for one in (await base.search("door")).passages] == [first]
        second = await base.add("b.txt", b"The blue door is shut.")
        await base.until_read(second)
        assert {one.file_id for one in (await base.search("door")).passages} == {first, second}
        await base.service.knowledge.write(base.owner, lambda one: one.remove_store_file(base.store_id, first))
        assert [one.file_id for one in (await base.search("door")).passages] == [second]
        await base.service.knowledge.write(base.owner, lambda one: one.delete_vector_store(base.store_id))
        with pytest.raises(UnknownVectorStoreError):
            await base.search("door")
        assert base.service.indexes.size == 0


async def test_an_index_of_what_is_gone_is_dropped_while_a_long_file_is_read(store: TenantStore) -> None:
    reader = ScriptedReader(2 * BATCH_CHUNKS)
    async with run_knowledge_base(store, reader) as base:
        first = await base.add("a.txt", b"x")
        await base.until_read(first)
        assert (await base.search("number")).passages
        reader.most = BATCH_CHUNKS + 1
        long = await base.add("b.txt", b"x")

        async def has_begun() -> bool:
            return (await base.find(long)).batches > 0

        await eventually(has_begun, "the long file is being read")
        assert base.service.indexes.size > 0
        await base.service.knowledge.write(base.owner, lambda one: one.delete_file(first))
        await eventually(lambda: base.service.indexes.size == 0, "the index is dropped")


async def test_an_index_that_exceeds_its_memory_is_refused_with_the_limit(store: TenantStore) -> None:
    async with run_knowledge_base(store, ScriptedReader(100), index_bytes=10_000) as base:
        await base.until_read(await base.add("a.txt", b"x"))
        with pytest.raises(IndexLimitError, match="10000 bytes"):
            await base.search("text")


async def test_another_end_user_finds_nothing_of_an_end_users_vector_store(
    store: TenantStore, reader: DocumentReader
) -> None:
    async with run_knowledge_base(store, reader) as base:
        base.owner = base.service.knowledge.identify(ANNA)
        await base.until_read(await base.add("diary.txt", b"The vault's code is sesame."))
        assert (await base.search("vault")).passages
        for other in (make_caller(end_user="bert"), KEY, make_caller("key000000002")):
            base.owner = base.service.knowledge.identify(other)
            with pytest.raises(UnknownVectorStoreError):
                await base.search("vault")
