"""Recall: what a request with memory continues, read from the store as far as this process does not have it indexed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from r1plus_assistant.conversations.content_handlers import require
from r1plus_assistant.conversations.indexed_history import (
    HistoryMark,
    IndexedHistory,
    KnownStatements,
    Recollection,
    make_utterance,
)
from r1plus_assistant.conversations.statement_embedding import IndexedStatements, StatementEmbedder
from r1plus_assistant.responses.response_items import Item, drop_tool_runs, strip_answer_item
from r1plus_assistant.store.content_marks import ChainMark, ConversationMark, MemoriesMark, find_newest_key
from r1plus_assistant.store.content_reader import ContentReader
from r1plus_assistant.store.tenant_content import TenantContent
from r1plus_gateway.access.caller import Caller
from r1plus_gateway.access.turns import ThreadTurns
from r1plus_gateway.store.content.content import StoredMemory
from r1plus_gateway.store.keys.content_cipher import Owner

MOST_ITEMS_AT_ONCE: Final = 16
MOST_CHARACTERS_AT_ONCE: Final = 8_192
"""Items, and their characters, above which they are indexed in a thread: a million take seconds."""
MOST_INDEXING: Final = 2
"""Requests whose items are indexed at once: it takes processor time from running streams. A caller has one of them at a
time."""
_TRIES: Final = 3
"""Times that a request looks again at what another one has indexed meanwhile."""
KNOWN: Final = "memories"
"""Name of the entry of what an owner's memories say."""


@dataclass(frozen=True, slots=True)
class Continued:
    """What a request continues: a response, or a conversation, or neither; and whether it recalls memories."""

    previous_id: str
    conversation_id: str
    most_bytes: int
    """That are read at once of what was said before."""
    recalls: bool
    question: str = ""
    """What is asked now, for a search by vectors."""


@dataclass(frozen=True, slots=True)
class _Read:
    """What a step has read."""

    history: IndexedHistory | None = None
    """The one that it goes on from; None: a new one."""
    items: Sequence[Item] = ()
    """That are new."""
    before: HistoryMark = None
    after: HistoryMark = None
    memories: Sequence[StoredMemory] = ()
    memories_key: str = ""


class Recall:
    """Reads what requests continue, and keeps its index for the next request."""

    def __init__(self, content: TenantContent, statements: StatementEmbedder | None = None) -> None:
        """Without `statements` words alone are searched."""
        self._content = content
        self._statements = statements
        self._cache = content.plaintext
        self._indexing = ThreadTurns(MOST_INDEXING)

    async def recall(self, caller: Caller, continued: Continued) -> tuple[Recollection, Sequence[StoredMemory]]:
        """Return what was said before, and what the user said in other conversations.

        Raises:
            RequestError: 404, it is not there.
            AccessError, HistoryBrokenError, UnreadableContentError: as `TenantContent.read`.
        """
        owner = self._content.identify(caller)

        def find(name: str) -> IndexedHistory | None:
            found: IndexedHistory | None = self._cache.get(owner, name)
            return found

        for _ in range(_TRIES):
            begun = self._cache.begin(owner)
            read = await self._content.read(caller, lambda content: _read(content, continued, find))
            history = read.history or IndexedHistory()
            recollection = await self._add(caller, history, read)
            if recollection is not None:
                break
        else:
            read = await self._content.read(caller, lambda content: _read(content, continued, _find_nothing))
            history = IndexedHistory()
            recollection = await self._add(caller, history, read)
            assert recollection is not None, "nobody else has this index"
        self._keep(owner, history, read, begun)
        known = await self._index_known(caller, owner, read, begun)
        recollection = replace(recollection, known=known.view())
        if self._statements is not None:
            parts = [
                IndexedStatements(history.vectors, recollection.said),
                IndexedStatements(known.vectors, recollection.known),
            ]
            ranking = await self._statements.rank(caller.group_id, continued.question, parts)
            recollection = replace(recollection, ranking=ranking)
        return recollection, read.memories

    async def _add(self, caller: Caller, history: IndexedHistory, read: _Read) -> Recollection | None:
        """Index what is new; None where another request has indexed something else since it was read."""
        if _is_short(read.items):
            return history.add(read.items, read.before, read.after)
        return await self._indexing.run(caller.group_id, history.add, read.items, read.before, read.after)

    def _keep(self, owner: Owner, history: IndexedHistory, read: _Read, begun: tuple[int, int]) -> None:
        before, after = read.before, read.after
        if after is None:
            return
        former = "" if before is None else _name_entry(before)
        self._cache.put(owner, _name_entry(after), history, after, history.size, begun, instead_of=former)

    async def _index_known(self, caller: Caller, owner: Owner, read: _Read, begun: tuple[int, int]) -> KnownStatements:
        texts = tuple(memory.text for memory in read.memories)
        if not texts:
            return KnownStatements(())
        known: KnownStatements | None = self._cache.get(owner, KNOWN)
        if known is None or known.texts != texts:
            known = await self._indexing.run(caller.group_id, KnownStatements, texts)
        mark = MemoriesMark([memory.id for memory in read.memories], read.memories_key)
        self._cache.put(owner, KNOWN, known, mark, known.size, begun)
        return known


def _name_entry(mark: ChainMark | ConversationMark) -> str:
    return mark.ids[-1] if isinstance(mark, ChainMark) else mark.conversation_id


def _is_short(items: Sequence[Item]) -> bool:
    return len(items) <= MOST_ITEMS_AT_ONCE and (
        sum(len(make_utterance(item).text) for item in drop_tool_runs(items)) <= MOST_CHARACTERS_AT_ONCE
    )


def _find_nothing(_: str) -> IndexedHistory | None:
    return None


def _read(content: ContentReader, continued: Continued, find: Callable[[str], IndexedHistory | None]) -> _Read:
    """Read what is new since what `find` returns. Raises RequestError 404."""
    memories = content.read_memories() if continued.recalls else ()
    key = find_newest_key(content.connection, content.owner) if memories else ""
    if continued.previous_id:
        return replace(_read_responses(content, continued, find), memories=memories, memories_key=key)
    if continued.conversation_id:
        return replace(_read_conversation(content, continued, find), memories=memories, memories_key=key)
    return _Read(memories=memories, memories_key=key)


def _read_conversation(
    content: ContentReader, continued: Continued, find: Callable[[str], IndexedHistory | None]
) -> _Read:
    name = continued.conversation_id
    require(content.find_conversation(name), name)
    history = find(name)
    before = history.mark if history is not None else None
    assert not isinstance(before, ChainMark)
    new = content.read_new_items(name, before, continued.most_bytes)
    items = [item.content for item in new.items]
    return _Read(history, items, before, new.mark) if new.is_continued else _Read(None, items, None, new.mark)


def _read_responses(
    content: ContentReader, continued: Continued, find: Callable[[str], IndexedHistory | None]
) -> _Read:
    name, histories = continued.previous_id, {}

    def find_mark(response_id: str) -> ChainMark | None:
        history = find(response_id)
        if history is None or not isinstance(history.mark, ChainMark):
            return None
        histories[history.mark] = history
        return history.mark

    new = require(content.read_new_responses(name, find_mark, continued.most_bytes), name)
    items = [item for one in new.responses for item in (*one.input, *map(strip_answer_item, one.answer["output"]))]
    history = histories[new.continued] if new.continued is not None else None
    return _Read(history, items, new.continued, new.mark)
