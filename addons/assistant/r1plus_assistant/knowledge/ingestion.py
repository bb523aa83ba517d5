"""Ingestion: files that were added to vector stores are read, cut into chunks, embedded and stored, in the background.

A batch of chunks is stored with how far the file was read, in one transaction. So a gateway that was killed goes on
behind the last batch: it reads the file again from its beginning, which gives the same chunks, and skips what is there.
So does a long file that has given others their turn.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

from r1plus_assistant.embedding.client import Embedder, EmbedderUnavailableError, FindEmbedder, TextRefusedError
from r1plus_assistant.knowledge.chunking import RELEASE, Chunker, ChunkSize, describe_passage
from r1plus_assistant.knowledge.documents import (
    BrokenReadError,
    DocumentReader,
    DocumentsUnavailableError,
    UnreadableDocumentError,
    is_own_fault,
)
from r1plus_assistant.knowledge.search import KnowledgeSearch
from r1plus_assistant.store.knowledge_writer import reset_ingestion
from r1plus_assistant.store.tenant_knowledge import TenantKnowledge
from r1plus_contract.documents import TextBlock
from r1plus_gateway.access.caller import AccessError
from r1plus_gateway.store.content.content import ContentLimitError
from r1plus_gateway.store.content.knowledge import (
    BATCH_CHUNKS,
    Chunk,
    ChunkBatch,
    Ingestion,
    IngestionProblem,
    IngestionState,
    StoredFile,
    VectorStoreFile,
)
from r1plus_gateway.store.errors import StoreError
from r1plus_gateway.store.keys.content_cipher import Owner, UnreadableContentError

log = logging.getLogger(__name__)
LOOK_SECONDS: Final = 30.0
"""Between two looks for files that another replica, or the gateway before this one, left."""
MOST_TRIES: Final = 3
"""At a document that ends its reader."""
MOST_TURNS: Final = 4
"""Turns that a long file has at once."""
WATCH_SECONDS: Final = 1.0
"""Between two looks whether others wait for a file of which nothing is stored."""
MOST_DOUBLINGS: Final = 7
"""Of the time for which nothing of a file is stored: more than a reader may take for a whole document."""
MOST_UNREADABLE: Final = 200
"""Pages of a file that are reported one by one."""


@dataclass(frozen=True, slots=True)
class Pauses:
    """Seconds after a try that failed through no fault of the document: they double. And those of a turn."""

    first: float = 1.0
    longest: float = 60.0
    turn: float = 20.0
    """For which one file is read while others wait; twice as long in its second turn, and four times from then on, for
    each begins with reading again what is there. Where nothing of it is stored, its next turn is always twice as long,
    so that a document that takes long before it has any text is read in the end."""
    sweep: float = 10.0
    """Between two looks for indexes of what another replica, retention or the gateway itself has deleted."""


DEFAULT_PAUSES: Final = Pauses()


@dataclass(frozen=True, slots=True)
class _Job:
    """A file to read."""

    store_id: str
    file_id: str
    owner: Owner


@dataclass(frozen=True, slots=True)
class _Pause:
    """How long a file waits for its next try."""

    seconds: float
    ends_at: float
    """Of the event loop's clock."""


class _HeldUpError(Exception):
    """One file cannot be read now; others may."""


class _TurnOverError(Exception):
    """Another owner's file waits for its turn."""


class _GoneError(Exception):
    """The file is not wanted any more, or another replica reads it."""


class IngestionWorker:
    """Reads one file at a time, for each caller in turn, and of a caller for each end user."""

    def __init__(
        self,
        knowledge: TenantKnowledge,
        reader: DocumentReader | None,
        find_embedder: FindEmbedder,
        search: KnowledgeSearch,
        pauses: Pauses = DEFAULT_PAUSES,
    ) -> None:
        self._knowledge = knowledge
        self._durations = pauses
        self._reader = reader
        self._find_embedder = find_embedder
        self._search = search
        self._wakes = asyncio.Event()
        self._tries: Counter[str] = Counter()
        """Of files whose reader failed."""
        self._turns: Counter[str] = Counter()
        """Of files that have given others their turn."""
        self._turn_number = 0
        self._served: dict[tuple[str, str], int] = {}
        """Number of the newest turn of each caller: next is who has waited for the longest."""
        self._served_owners: dict[Owner, int] = {}
        """The same of each end user."""
        self._pauses: dict[_Job, _Pause] = {}
        self.trouble = ""
        """Why nothing can be read in now, as while the volume is full; empty: it can."""

    @property
    def can_read(self) -> bool:
        """Whether there is a reader of documents."""
        return self._reader is not None

    def wake(self) -> None:
        """Look for work now."""
        self._wakes.set()

    async def run(self) -> None:
        """Work until cancelled. What fails is tried again later."""
        pause = self._durations.first
        while True:
            try:
                is_idle = not await self._work()
                pause, self.trouble = self._durations.first, ""
            except (StoreError, AccessError, EmbedderUnavailableError, DocumentsUnavailableError) as error:
                log.warning("Knowledge cannot be read in now, trying again in %.0f s: %s", pause, error)
                self.trouble = str(error)
                await asyncio.sleep(pause)
                pause, is_idle = min(2 * pause, self._durations.longest), False
            except Exception:  # else the task ends, and nothing is read in any more
                log.exception("Ingestion failed; trying again")
                await asyncio.sleep(self._durations.longest)
                is_idle = False
            if is_idle:
                await self._wait()

    async def _wait(self) -> None:
        now = asyncio.get_running_loop().time()
        ends = (max(0.0, pause.ends_at - now) for pause in self._pauses.values())
        try:
            async with asyncio.timeout(min((LOOK_SECONDS, *ends))):
                await self._wakes.wait()
        except TimeoutError:
            pass
        self._wakes.clear()

    async def _work(self) -> bool:
        """Do one piece of work; return whether there was one."""
        if not self._knowledge.is_enabled:
            return False
        has_stale = bool(self._search.stale)
        if has_stale:
            await self._refresh_vectors(*self._search.stale.popitem())
        job = await self._find_job()
        if job is None:
            return has_stale
        self._turn_number += 1
        self._served[_get_caller(job)] = self._served_owners[job.owner] = self._turn_number
        await self._try_file(job)
        return True

    async def _find_job(self) -> _Job | None:
        """Return the oldest file of the caller whose last turn is the longest ago, and of its end user whose is."""

        def find_last_turns(job: _Job) -> tuple[int, int]:
            return self._served.get(_get_caller(job), 0), self._served_owners.get(job.owner, 0)

        return min(await self._list_ready(), key=find_last_turns, default=None)

    async def _list_ready(self) -> list[_Job]:
        """Return the files that can be read, the oldest first, without those that wait for their next try."""
        pending = await self._knowledge.list_pending() if self._reader is not None else []
        jobs = {_Job(*one): None for one in pending}
        self._pauses = {job: pause for job, pause in self._pauses.items() if job in jobs}
        if not jobs:
            for turns in (self._served, self._served_owners, self._turns):
                turns.clear()
        now = asyncio.get_running_loop().time()
        return [job for job in jobs if job not in self._pauses or self._pauses[job].ends_at <= now]

    async def _try_file(self, job: _Job) -> None:
        """Read a file; one that fails through no fault of the store or a helper waits, and holds no other up."""
        try:
            await self._read_file(job)
        except (StoreError, AccessError, EmbedderUnavailableError, DocumentsUnavailableError):
            raise
        except _HeldUpError as error:
            seconds = self._hold_up(job)
            log.warning("File %s cannot be read now, trying again in %.0f s: %s", job.file_id, seconds, error)
        except Exception:
            seconds = self._hold_up(job)
            log.exception("Reading file %s failed; trying again in %.0f s", job.file_id, seconds)
        else:
            self._pauses.pop(job, None)

    def _hold_up(self, job: _Job) -> float:
        """Let a file wait, longer each time; return the seconds."""
        before = self._pauses.get(job)
        longest = self._durations.longest
        seconds = self._durations.first if before is None else min(2 * before.seconds, longest)
        self._pauses[job] = _Pause(seconds, asyncio.get_running_loop().time() + seconds)
        return seconds

    async def _read_file(self, job: _Job) -> None:
        """Read a file to its end, or store why that does not work."""
        found = await self._find(job)
        if found is None:
            return
        file, stored = found
        try:
            await self._ingest(job, file, stored)
        except _GoneError:
            if await self._find(job) is not None:
                # As after an outage: the other one's file is done then, or this one goes on behind it.
                raise _HeldUpError("another replica reads it") from None
            return
        except _TurnOverError:
            self._turns[file.id] += 1
            return
        except UnreadableDocumentError as error:
            self._tries[file.id] += 1
            is_worth_a_try = isinstance(error, BrokenReadError) or is_own_fault(error.code)
            if is_worth_a_try and self._tries[file.id] < MOST_TRIES:
                raise _HeldUpError(str(error)) from error
            await self._fail(job, IngestionProblem(error.code.value, error.message))
        except ContentLimitError as error:
            await self._fail(job, IngestionProblem("storage_limit_exceeded", str(error)))
        except UnreadableContentError:
            message = f"{stored.name}: what is stored cannot be decrypted; delete it, and upload it again"
            await self._fail(job, IngestionProblem("content_unreadable", message))
        except TextRefusedError as error:
            await self._fail(job, IngestionProblem("embedding_refused", f"{stored.name}: {error}"))
        self._tries.pop(file.id, None)
        self._turns.pop(file.id, None)

    async def _ingest(self, job: _Job, file: VectorStoreFile, stored: StoredFile) -> None:
        assert self._reader is not None
        embedder = self._find_embedder()
        if embedder is not None:
            await embedder.identify()  # one that is away holds the file up before it is read for nothing

        async def is_awaited() -> bool:
            return any(other.owner != job.owner for other in await self._list_ready())

        turn = _Turn(self._durations.turn, self._turns[file.id], is_awaited)
        writer = _ChunkWriter(self._knowledge, embedder, job.owner, file, turn)

        async def read_part(position: int) -> bytes | None:
            return await self._knowledge.read(job.owner, lambda one: one.read_part(job.file_id, position), line="parts")

        pages = 0
        async with turn.limit(), aclosing(self._reader.read(stored.name, stored.bytes, read_part)) as replies:
            async for reply in replies:
                if reply.reader:
                    await writer.begin(f"{reply.reader} chunks/{RELEASE}")
                for page in reply.unreadable:
                    writer.report(IngestionProblem("unreadable_page", page.message, page.page))
                pages = max(pages, reply.pages)
                async for chunk in _cut(writer.chunker, reply.blocks):
                    await writer.add(chunk, pages)
        for chunk in writer.chunker.finish():
            await writer.add(chunk, pages)
        await writer.finish(pages)

    async def _find(self, job: _Job) -> tuple[VectorStoreFile, StoredFile] | None:
        """Return a file that is still wanted; one whose content is gone fails."""
        file, stored = await self._knowledge.read(
            job.owner, lambda one: (one.find_store_file(job.store_id, job.file_id), one.find_file(job.file_id))
        )
        if file is None or file.state is not IngestionState.IN_PROGRESS:
            return None
        if stored is None:
            await self._fail(job, IngestionProblem("file_not_found", "the file has expired, or was deleted"))
            return None
        return file, stored

    async def _fail(self, job: _Job, problem: IngestionProblem) -> None:
        found = await self._knowledge.read(job.owner, lambda one: one.find_store_file(job.store_id, job.file_id))
        if found is None:
            return
        log.warning("File %s cannot be read into %s: %s", job.file_id, job.store_id, problem.code)
        await self._knowledge.write(job.owner, lambda one: one.fail_ingestion(found, problem))

    async def _refresh_vectors(self, store_id: str, finder: Owner) -> None:
        """Make the vectors of a vector store again that are of another embedder; `finder`: who has searched it."""
        owner = await self._knowledge.read(finder, lambda one: one.find_store_owner(store_id))
        embedder = self._find_embedder()
        if embedder is None or owner is None:
            return
        try:
            if await self._renew_vectors(embedder, store_id, owner):
                await self._knowledge.write(owner, lambda one: one.mark_changed(store_id))
                log.info("Vectors of %s were made again", store_id)
        except (ContentLimitError, TextRefusedError, UnreadableContentError) as error:
            log.warning("Vectors of %s cannot be made again, its words alone are searched: %s", store_id, error)

    async def _renew_vectors(self, embedder: Embedder, store_id: str, owner: Owner) -> bool:
        """Embed and store what is of another embedder; return whether all of it was stored."""
        engine = await embedder.identify()
        files = await self._knowledge.read(owner, lambda one: one.list_searchable(store_id))
        for file in files or ():
            position = -1
            while batches := await self._knowledge.read(owner, lambda one: one.read_batches(file, position, 1)):  # noqa: B023
                (batch,) = batches
                position = batch.position
                if batch.engine != engine:
                    renewed = await embed_batch(embedder, batch)
                    if not await self._knowledge.write(owner, lambda one: one.replace_vectors(file, renewed)):  # noqa: B023
                        return False
        return True


class _Turn:
    """How long one file is read before it gives others their turn."""

    def __init__(self, seconds: float, before: int, is_awaited: Callable[[], Awaitable[bool]]) -> None:
        """`before`: turns that it has had; `is_awaited`: whether another owner's file can be read."""
        self._seconds = seconds * min(2**before, MOST_TURNS)
        self._patience = seconds * 2 ** min(before, MOST_DOUBLINGS)
        """Within which something new has to be stored while others wait."""
        self._is_awaited = is_awaited
        self._ends_at: float | None = None
        """Of the event loop's clock. The turn begins with the first chunks that are new."""
        self._stored_at = _read_time()

    async def note_progress(self) -> None:
        """Take note that chunks were stored. Raises _TurnOverError."""
        now = self._stored_at = _read_time()
        if self._ends_at is not None and now >= self._ends_at and await self._is_awaited():
            raise _TurnOverError
        if self._ends_at is None or now >= self._ends_at:
            self._ends_at = now + self._seconds

    @asynccontextmanager
    async def limit(self) -> AsyncIterator[None]:
        """End the block with _TurnOverError where nothing is stored for too long while others wait."""
        limit = asyncio.timeout(None)
        try:
            async with limit:
                watching = asyncio.create_task(self._watch(limit))
                try:
                    yield
                finally:
                    watching.cancel()
        except TimeoutError as error:
            if limit.expired():
                raise _TurnOverError from error
            raise

    async def _watch(self, limit: asyncio.Timeout) -> None:
        while True:
            left = self._stored_at + self._patience - _read_time()
            if left <= 0 and await self._find_out():
                limit.reschedule(_read_time())
                return
            await asyncio.sleep(left if left > 0 else WATCH_SECONDS)

    async def _find_out(self) -> bool:
        """Return whether others wait; what cannot be read now is asked again."""
        try:
            return await self._is_awaited()
        except StoreError:
            return False


def _get_caller(job: _Job) -> tuple[str, str]:
    return job.owner.caller_kind, job.owner.caller_id


def _read_time() -> float:
    return asyncio.get_running_loop().time()


class _ChunkWriter:
    """Stores the chunks of one file, a batch at a time; those that are there already are skipped."""

    def __init__(
        self, knowledge: TenantKnowledge, embedder: Embedder | None, owner: Owner, file: VectorStoreFile, turn: _Turn
    ) -> None:
        self._knowledge = knowledge
        self._embedder = embedder
        self._owner = owner
        self._file = file
        self._turn = turn
        self._ingestion = file.ingestion
        size = ChunkSize(file.ingestion.chunk_tokens, file.ingestion.overlap_tokens)
        self.chunker = Chunker(size)
        self._skipped = file.batches
        self._position = 0
        self._chunks: list[Chunk] = []
        self._unreadable: list[IngestionProblem] = []
        self._more_unreadable = 0

    async def begin(self, reader: str) -> None:
        """Begin to read by this reader: what another one has read is dropped."""
        if self._skipped and self._ingestion.reader != reader:
            await self._knowledge.write(self._owner, lambda one: one.clear_batches(self._file))
            self._skipped = 0
        self._ingestion = reset_ingestion(self._ingestion, reader)

    def report(self, problem: IngestionProblem) -> None:
        """Note a page that cannot be read."""
        if len(self._unreadable) < MOST_UNREADABLE:
            self._unreadable.append(problem)
        else:
            self._more_unreadable += 1

    async def add(self, chunk: Chunk, pages: int) -> None:
        """Take the next chunk. Raises _GoneError, _TurnOverError, ContentLimitError, EmbedderUnavailableError."""
        self._chunks.append(chunk)
        if len(self._chunks) == BATCH_CHUNKS and await self._flush(pages):
            await self._turn.note_progress()

    async def finish(self, pages: int) -> None:
        """Store the last chunks, and that the file is complete."""
        if self._chunks:
            await self._flush(pages)
        ingestion, batches = self._describe(pages), self._position
        if not await self._knowledge.write(
            self._owner, lambda one: one.finish_ingestion(self._file, ingestion, batches)
        ):
            raise _GoneError

    async def _flush(self, pages: int) -> bool:
        """Store the chunks at hand; return whether they are new."""
        batch = ChunkBatch(self._position, tuple(self._chunks))
        self._position += 1
        self._chunks.clear()
        if batch.position < self._skipped:
            return False
        if self._embedder is not None:
            batch = await embed_batch(self._embedder, batch)
        ingestion = self._describe(pages)
        if not await self._knowledge.write(self._owner, lambda one: one.append_batch(self._file, batch, ingestion)):
            raise _GoneError
        return True

    def _describe(self, pages: int) -> Ingestion:
        unreadable = list(self._unreadable)
        if self._more_unreadable:
            message = f"{self._more_unreadable} further pages cannot be read, for reasons like these"
            unreadable.append(IngestionProblem("unreadable_page", message))
        return replace(self._ingestion, pages=pages, unreadable=tuple(unreadable))


async def embed_batch(embedder: Embedder, batch: ChunkBatch) -> ChunkBatch:
    """Return a batch with vectors of this embedder."""
    embeddings = await embedder.embed([describe_passage(chunk) for chunk in batch.chunks])
    return replace(batch, engine=embeddings.engine, vectors=embeddings.vectors.astype("<f4").tobytes())


async def _cut(chunker: Chunker, blocks: tuple[TextBlock, ...]) -> AsyncIterator[Chunk]:
    """Yield chunks, and let others run between two blocks: a reply may have thousands."""
    for block in blocks:
        for chunk in chunker.add(block):
            yield chunk
        await asyncio.sleep(0)
