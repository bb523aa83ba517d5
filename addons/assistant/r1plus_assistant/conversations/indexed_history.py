"""What was said before, as memory reads it. It grows with each request that continues it, and is read meanwhile."""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from r1plus_assistant.conversations.statement_vectors import StatementVectors
from r1plus_assistant.memory.index import ConversationIndex, View, index_remembered, split_newest, view_index
from r1plus_assistant.memory.packing import MOST_VERBATIM
from r1plus_assistant.memory.ranking import Ranking
from r1plus_assistant.memory.turns import Speaker, Utterance
from r1plus_assistant.responses.response_items import Item, drop_tool_runs, read_item_text
from r1plus_assistant.store.content_marks import ChainMark, ConversationMark

INSTRUCTING: Final = ("system", "developer")
HistoryMark = ConversationMark | ChainMark | None
"""None: nothing was read."""
_ITEM_BYTES: Final = 700
"""About: of an item that is kept as it is, besides its text."""


@dataclass(frozen=True, slots=True)
class Recollection:
    """What a prompt with memory is made of, as it was when the request came."""

    said: View
    instructions: Sequence[Item] = ()
    """What developers said before: no memory."""
    newest: Sequence[Item] = ()
    """Of the newest turns."""
    known: View = field(default_factory=lambda: view_index(ConversationIndex()))
    """What the user said in other conversations."""
    ranking: Ranking | None = None
    """By vectors; None: by words alone."""

    @property
    def sentence_count(self) -> int:
        """Sentences that are looked through."""
        return self.said.end - self.said.begin + self.known.end - self.known.begin


class IndexedHistory:
    """The index of a conversation, with the items of its newest turns."""

    def __init__(self) -> None:
        self.mark: HistoryMark = None
        """What of the store it was made of."""
        self._index = ConversationIndex()
        self.vectors = StatementVectors(self._index)
        self._instructions: list[Item] = []
        self._newest: list[tuple[int, Item]] = []
        """Each with the number of its turn."""
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Bytes of memory, about."""
        texts = sum(2 * len(read_item_text(item)) for item in self._instructions)
        own = self._index.size + self.vectors.size
        return own + texts + _ITEM_BYTES * (len(self._instructions) + len(self._newest))

    def add(self, items: Iterable[Item], before: HistoryMark, after: HistoryMark) -> Recollection | None:
        """Add what was said between two marks; return all that was said. None: another request added other items."""
        with self._lock:
            if self.mark == before:
                self._add(items)
                self.mark = after
            elif self.mark != after:
                return None
            return self.view()

    def view(self) -> Recollection:
        """Return all that was said."""
        return Recollection(view_index(self._index), tuple(self._instructions), [item for _, item in self._newest])

    def _add(self, items: Iterable[Item]) -> None:
        items = list(items)
        self._instructions += [item for item in items if item.get("role") in INSTRUCTING]
        said = drop_tool_runs([item for item in items if item.get("role") not in INSTRUCTING])
        utterances = [make_utterance(item) for item in said]
        sentences = split_newest([one.text for one in utterances])
        for item, utterance, own in zip(said, utterances, sentences, strict=True):
            self._index.add(utterance, own)
            self._newest.append((self._index.turns[-1], item))
        first = (self._index.turns[-1] if self._index.turns else 0) - MOST_VERBATIM
        self._newest = [entry for entry in self._newest if entry[0] > first]


class KnownStatements:
    """The index of what a user said in other conversations."""

    def __init__(self, texts: Sequence[str]) -> None:
        """`texts`: the oldest first."""
        self.texts = tuple(texts)
        self._index = index_remembered(texts)
        self.vectors = StatementVectors(self._index)

    @property
    def size(self) -> int:
        """Bytes of memory, about."""
        return self._index.size + self.vectors.size

    def view(self) -> View:
        """Return all of it."""
        return view_index(self._index)


def make_utterance(item: Item) -> Utterance:
    """Return what an item says, and who says it."""
    if item["type"] == "function_call_output":
        return Utterance(Speaker.TOOL, item["output"])
    if item["type"] == "function_call":
        return Utterance(Speaker.ASSISTANT, f"{item['name']} {item['arguments']}")
    speaker = Speaker.USER if item["role"] == "user" else Speaker.ASSISTANT
    return Utterance(speaker, read_item_text(item))


def index_items(items: Iterable[Item], remembered: Sequence[str] = ()) -> Recollection:
    """Return what items say, and what the user said in other conversations, for a prompt that is made once."""
    history = IndexedHistory()
    history.add(items, None, None)
    return replace(history.view(), known=KnownStatements(remembered).view())
